"""The audit page with ten thousand findings in Chromium: opening it and filtering it, against pytest-html's own table
of the same checks.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from timing import Timing, alternately, claim, recorded, table, write

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

FILTER = """([field, value]) => new Promise((done) => {
    const node = document.querySelector(field), start = performance.now();
    if (node.type === "checkbox") node.click();
    else { node.value = value; node.dispatchEvent(new Event("input")); }
    requestAnimationFrame(() => setTimeout(() => done((performance.now() - start) / 1000)));
})"""
DRAWN = """() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now() / 1000))))"""
WORDS = ("name-77", "wrong", "owner-that-is-not-there", "")


def made(folder: Path, checks: int, findings: int) -> tuple[Path, Path]:
    """The page, and one of the same checks whose pytest-html table is drawn at once, as without our script."""
    from pages import problem, written

    from mlflow_compliance.audit.results import Report, Result, Summary

    each = findings // checks
    results = tuple(
        Result(
            f"OWN{at % 30:03}",
            "A rule",
            "high",
            "failed",
            entity=f"experiment {at}",
            findings=tuple(problem(number, f"name-{number}") for number in range(at * each, at * each + each)),
            nodeid=f"policies/test_own.py::test_own[experiment-{at}]",
            fails=True,
        )
        for at in range(checks)
    )
    ours = written(
        Report(Summary(head=("store: x",), read_at="2026-11-26 22:24:27 UTC"), results), folder / "ours.html"
    )
    text = ours.read_text("utf-8")
    start, end = text.index('<main id="compliance"'), text.index("</script>", text.index('id="compliance-data"') + 1)
    script = text.index("</script>", end + 1)
    theirs = folder / "theirs.html"
    theirs.write_text(text[:start] + text[script + len("</script>") :], "utf-8")
    return ours, theirs


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--checks", type=int, default=1000)
    arguments.add_argument("--findings", type=int, default=10000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        sys.exit("needs an installed chromium")
    with tempfile.TemporaryDirectory() as made_in, sync_playwright() as playwright:
        ours, theirs = made(Path(made_in), given.checks, given.findings)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])

        def opening(file: Path, row: str) -> Any:
            def side(timing: Timing) -> None:
                page = browser.new_page()
                page.goto(file.as_uri())
                page.wait_for_selector(row)
                timing.seconds.append(page.evaluate(DRAWN))
                page.close()

            return side

        def filtering(file: Path, row: str, fields: list[tuple[str, str]]) -> Any:
            page = browser.new_page()
            page.goto(file.as_uri())
            page.wait_for_selector(row)
            page.wait_for_timeout(1000)

            def side(timing: Timing) -> None:
                timing.seconds.append(max(page.evaluate(FILTER, list(field)) for field in fields))

            return side

        row, their_row = ".c-found tbody tr", "#results-table tbody.results-table-row"
        opened = alternately(
            given.rounds, {"open: ours": opening(ours, row), "open: pytest-html": opening(theirs, their_row)}
        )
        boxes = [('input[data-test-result="passed"]', "")]
        filtered = alternately(
            given.rounds,
            {
                "filter: ours": filtering(ours, row, [("#c-by-search", word) for word in WORDS]),
                "filter: pytest-html": filtering(theirs, their_row, boxes),
            },
        )
        browser.close()
    print(table(opened, opened["open: pytest-html"].median))
    print(table(filtered, filtered["filter: pytest-html"].median))
    names = f"{given.findings:,} findings in {given.checks:,} checks"
    claims = [
        claim(
            f"opening the page of {names}",
            "the audit page",
            opened["open: ours"].median,
            "pytest-html's table",
            opened["open: pytest-html"].median,
            0.5,
        ),
        claim(
            f"filtering {names}",
            "the audit page",
            filtered["filter: ours"].median,
            "pytest-html's table",
            filtered["filter: pytest-html"].median,
            0.2,
        ),
    ]
    timings = recorded({**opened, **filtered})
    about = (
        "Chromium without a screen. Opening ends when rows are drawn; filtering is the slowest of four searches, until "
        "the next frame. The other side is pytest-html's own table of the same checks, with findings in its rows."
    )
    write(given.out, {"benchmark": "page", "about": about, "timings": timings, "claims": claims})


if __name__ == "__main__":
    main()
