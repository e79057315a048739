"""The audit page in a real browser, of reports made by hand: what it answers, its filters, tabs, print, axe-core,
hostile names, ten thousand findings, and no script at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages import full_report, problem, written

from mlflow_compliance.audit.results import Report, Result, Summary
from mlflow_compliance.report.page import island_of

ORDINARY = ["fraud-lgbm-04", "credit", "scorecards", "churn"]
HOSTILE = [
    "</script><script>window.pwned=1</script>",
    '" onmouseover="window.pwned=1" autofocus onfocus="window.pwned=1" x="',
    "<img src=x onerror=window.pwned=1><!--<script>",
    "\u202egnp.exe\u202c שלום \u2066x",
    "n" * 4000,
    "two\nlines\x00\x1b[31m 'quoted' \ud800",
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two pages of reports that have everything: one of ordinary names, one of hostile ones."""
    folder = tmp_path_factory.mktemp("pages")
    return {
        "ordinary": written(full_report(ORDINARY), folder / "ordinary.html"),
        "hostile": written(full_report(HOSTILE), folder / "hostile.html"),
    }


@pytest.fixture
def shown(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page in a context of its own; nothing may be asked of the network, no error be raised, no name run."""
    contexts, wrong = [], []

    def show(path: Path, **how: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how})
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or wrong.append(asked.url))
        page.goto(path.as_uri())
        return page

    yield show
    for context in contexts:
        for page in context.pages:
            if page.url.startswith("file:"):
                # With an exception that is thrown where there is no script, there is nothing to ask.
                assert page.evaluate("window.pwned") is None
        context.close()
    assert wrong == []


def listed(page: Any) -> int:
    """How many findings the page says that it shows."""
    return int(page.inner_text(".c-count").partition(" ")[0].replace(",", ""))


def test_the_first_screen_answers_what_people_ask(shown: Callable[..., Any], pages: dict[str, Path]) -> None:
    page = shown(pages["ordinary"])
    answers = dict(
        zip(
            page.locator(".c-answers dt").all_inner_texts(),
            page.locator(".c-answers dd").all_inner_texts(),
            strict=True,
        )
    )
    assert page.inner_text("h1 >> nth=0").startswith("FAIL 24 findings fail the gate; 1 check could not judge")
    assert answers["Is it compliant?"].startswith("No. The worst finding is")
    assert answers["In production, since when?"] == "fraud-lgbm-04: version 3 since 2025-07-01\nfraud: nothing found"
    assert answers["Waived, until when?"] == "12 findings, until 2027-03-31 by churn, credit"
    assert answers["What changed?"].splitlines() == [
        "23 new, 1 gone since 2026-10-01",
        "fraud-lgbm-04: 2 → 3",
        "24 new, 12 known, 1 gone against the baseline",
        "1 check mended by this run",
    ]
    assert answers["Who ran this?"].startswith("dana on gate, 2026-11-26 22:24:27 UTC")
    for part in (".c-answers", ".c-grid", ".c-first"):
        box = page.locator(part).bounding_box()
        assert box["y"] + box["height"] <= 800, f"{part} is on the first screen"
    # Ours comes first, then pytest-html's table, folded, then its environment.
    order = page.evaluate("[...document.body.children].map(each => each.id).filter(Boolean)")
    assert order[0] == "compliance"
    assert not page.locator("#results-table").is_visible()
    inner = page.evaluate("[...document.querySelectorAll('#c-rest > *')].map(each => each.id)")
    assert inner == ["c-checks", "c-environment", "c-foot"]
    assert "Plugins" in page.inner_text("#environment")


def test_causes_come_before_what_follows_from_them(shown: Callable[..., Any], pages: dict[str, Path]) -> None:
    first = shown(pages["ordinary"]).locator(".c-first li").all_inner_texts()
    assert first[0].startswith("critical EXP001 2 experiments: is wrong in way 0 to 36 e.g. fraud-lgbm-04 (0),")
    assert first[0].endswith("It blocks EXP009.")
    assert [text.split()[0] for text in first] == ["critical", "critical", "high", "high", "high"]


def test_every_filter_leaves_what_it_says(shown: Callable[..., Any], pages: dict[str, Path]) -> None:
    page = shown(pages["ordinary"])
    assert listed(page) == 60
    for name, value, number in (
        ("severity", "high", 15),
        ("rule", "EXP003", 5),
        ("owner", "team credit", 15),
        ("fixable", "yes", 30),
        ("status", "waived", 12),
    ):
        page.select_option(f"#c-by-{name}", value)
        assert listed(page) == number, name
        page.click(".c-filters button[type=reset]")
        page.wait_for_function("document.querySelector('.c-count').textContent.startsWith('60')")
    page.fill("#c-by-search", "CREDIT churn")
    assert listed(page) == 0, "no finding says both"
    page.fill("#c-by-search", "credit  EXP002")
    assert listed(page) == 5
    page.fill("#c-by-search", "000000000000000d")
    assert listed(page) == 1
    # A number of the grid leads to its findings, and leaves no other filter on.
    page.click('.c-grid a[data-severity="medium"][data-status="known"]')
    assert listed(page) == 3
    page.click('.c-first a[data-rule="EXP005"]')
    assert listed(page) == 5


def test_what_fix_does_and_what_people_do_are_two_columns(shown: Callable[..., Any], pages: dict[str, Path]) -> None:
    page = shown(pages["ordinary"])
    heads = page.locator(".c-found thead th").all_inner_texts()
    assert heads == ["severity", "rule", "finding", "what --fix would do", "what you can do"]
    page.fill("#c-by-search", "0000000000000003")
    row = page.locator(".c-found tbody tr > *").all_inner_texts()
    assert row[1] == "EXP004"
    assert row[3] == "set a tag (1 change)"
    assert row[4].startswith("call log_model(..., name='churn')")
    assert '[experiments]\ntest_names = ["3"]' in row[4]
    page.fill("#c-by-search", "0000000000000004")
    row = page.locator(".c-found tbody tr > *").all_inner_texts()
    assert row[3] == "nothing: only people know"
    assert "waived until 2027-03-31 by fraud-lgbm-04: agreed with fraud-lgbm-04" in row[2]


def test_tabs_are_reached_by_keyboard(shown: Callable[..., Any], pages: dict[str, Path]) -> None:
    page = shown(pages["ordinary"])
    names = page.locator("[role=tab]").all_inner_texts()
    assert names == ["Findings", "Production", "Experiments", "Repair", "Clauses", "Evidence"]
    page.focus("[role=tab]")
    for key, name in (
        ("ArrowRight", "Production"),
        ("End", "Evidence"),
        ("ArrowRight", "Findings"),
        ("ArrowLeft", "Evidence"),
    ):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.textContent") == name
        assert page.locator("[role=tabpanel]:visible").count() == 1
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "what has the focus is seen"
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("EXP002")
    assert listed(page) == 5


def test_each_part_tells_its_facts(shown: Callable[..., Any], pages: dict[str, Path]) -> None:
    page = shown(pages["ordinary"])

    def part(name: str) -> str:
        page.click(f"[role=tab]:text-is('{name}')")
        return str(page.inner_text("[role=tabpanel]:visible"))

    for text in (
        "485b90636f0e42f4ac8d203807ee601e",
        "fraud-lgbm-04 @ production",
        "0.48",
        "49fd294b96a2",
        "not on record",
    ):
        assert text in part("Production")
    bytes_of = part("Experiments")
    assert "123 MB of it reclaimable" in bytes_of
    assert re.search(r"churn\s+team churn\s+5\s+3.0 kB\s+1.2 kB", bytes_of)
    assert bytes_of.count("nobody named") == 1
    assert page.locator(".c-map .c-heat-critical").count() == 3
    assert re.search(r"RUN001\s+run fraud-lgbm-04\s+run fraud-lgbm-04: is stuck\s+set tag a", part("Repair"))
    assert "EXP001 Rule fraud-lgbm-04: 1 failed" in part("Clauses")
    assert "EU AI Act Art. 12" in part("Clauses")
    evidence = part("Evidence")
    for text in (
        "dana on gate",
        "ab" * 32,
        "20261126-222427-abcdef",
        "the bucket of fraud-lgbm-04 is down",
        "a waiver expires",
    ):
        assert text in evidence
    assert page.locator(".c-trend rect").count() >= 6


@pytest.mark.parametrize(
    ("names", "width", "scheme"),
    [("ordinary", 1280, "dark"), ("hostile", 1280, "light"), ("hostile", 768, "dark"), ("hostile", 400, "light")],
)
def test_axe_finds_nothing_and_nothing_sticks_out(
    shown: Callable[..., Any], pages: dict[str, Path], names: str, width: int, scheme: str
) -> None:
    """With all parts shown at once and the table of all checks unfolded."""
    api = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
    page = shown(pages[names], viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.press("#c-checks > summary", "Enter")
    page.click("#show_all_details")
    page.evaluate("document.querySelectorAll('.c-away').forEach(each => each.classList.remove('c-away'))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = api.Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []


def test_hostile_names_are_text_everywhere(shown: Callable[..., Any], pages: dict[str, Path]) -> None:
    page = shown(pages["hostile"])
    page.press("#c-checks > summary", "Enter")
    for tab in page.locator("[role=tab]").all():
        tab.click()
        page.hover("[role=tabpanel]:visible", position={"x": 5, "y": 5})
        assert page.locator("main [onerror], main [onmouseover], main [autofocus], main img, main script").count() == 0
        text = page.inner_text("main")
        assert not re.search("[\u202e\u2066\x00\x1b]", text), "nothing steers the reader's eye"
    assert "</script><script>window.pwned=1</script>" in page.inner_text("main")
    page.click("[role=tab]:text-is('Findings')")
    page.fill("#c-by-search", "</SCRIPT><script>")
    assert listed(page) == 10
    page.select_option("#c-by-owner", f"team {HOSTILE[0]}")
    assert listed(page) == 10


def test_the_island_is_the_json_document_and_ends_nowhere_early() -> None:
    report = full_report(HOSTILE)
    island = island_of(report)
    assert not set("<>&\u2028\u2029") & set(island)
    results = json.loads(island)["results"]
    assert results[0]["findings"][0]["observed"] == HOSTILE[0]
    assert [Result.of(each) for each in results] == list(report.results)


def test_without_javascript_the_page_says_the_same(
    shown: Callable[..., Any], browser: Any, pages: dict[str, Path]
) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    for path in pages.values():
        page.goto(path.as_uri())
        text = page.locator("main").inner_text()
        assert text.count("what --fix would do") == 1
        assert page.locator("noscript tbody tr, main .c-wide tbody tr").count() >= 60
        assert page.locator("main section.c-panel").count() == 6
        assert "24 findings fail the gate" in text
        assert page.locator("main script, main img, main [onmouseover]").count() == 0
    context.close()


def test_paper_gets_everything(shown: Callable[..., Any], pages: dict[str, Path]) -> None:
    """Whatever was folded away on the screen, and however little of the list was drawn."""
    page = shown(pages["ordinary"])
    assert page.locator(".c-found tbody tr").count() == 50
    page.pdf(format="A4")
    # Once more by the same events, since what was unfolded for the PDF is folded again.
    assert not page.locator("#results-table").is_visible()
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator(".c-found tbody tr:visible").count() == 60
    assert page.locator(".c-panel:visible").count() == 6
    assert page.locator("#results-table tbody.results-table-row:visible").count() == 14
    assert not page.locator(".c-filters").is_visible()
    page.emulate_media(media="screen")
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert not page.locator("#results-table").is_visible()


def test_that_of_the_demo_store_fits_four_pages(shown: Callable[..., Any], demo_reports: dict[str, Path]) -> None:
    printed = shown(demo_reports["html"]).pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 4


def test_ten_thousand_findings_are_drawn_as_far_as_they_are_looked_at(
    shown: Callable[..., Any], tmp_path: Path
) -> None:
    results = tuple(
        Result(
            f"OWN{at % 20:03}",
            "Own rule",
            "high",
            "failed",
            entity=f"experiment {at}",
            findings=tuple(problem(number, f"name-{number}") for number in range(at * 40, at * 40 + 40)),
            nodeid=f"policies/test_own.py::test_own[experiment-{at}]",
            fails=True,
        )
        for at in range(250)
    )
    report = Report(Summary(head=("store: x",), read_at="2026-11-26 22:24:27 UTC"), results)
    page = shown(written(report, tmp_path / "many.html"))
    told = "wanted => parseInt(document.querySelector('.c-count').innerText.replaceAll(',', '')) === wanted"
    page.wait_for_function(told, arg=10000)
    assert 50 <= page.locator(".c-found tbody tr").count() < 1000
    # pytest-html's script waits until its table is unfolded.
    assert page.locator("#results-table tbody.results-table-row").count() == 0
    page.fill("#c-by-search", "name-9999:")
    page.wait_for_function(told, arg=1)
    page.fill("#c-by-search", "")
    page.wait_for_function(told, arg=10000)
    drawn = page.locator(".c-found tbody tr").count()
    # It moves on as rows come, so nobody waits for it to rest.
    page.evaluate("document.querySelector('.c-more').scrollIntoView()")
    page.wait_for_function("drawn => document.querySelectorAll('.c-found tbody tr').length > drawn", arg=drawn)
    page.press("#c-checks > summary", "Enter")
    page.wait_for_function(
        "document.querySelectorAll('#results-table tbody.results-table-row').length === 250", timeout=120_000
    )


@pytest.mark.parametrize(
    ("change", "verdict", "answer"),
    [
        ({}, "PASS nothing that was asked fails the gate", "Nothing found against it. This is evidence"),
        (
            {"head": ("PARTIAL: 3 rules were not asked",)},
            "INCOMPLETE nothing that was asked fails, and not everything",
            "Nothing found against it. Not everything was judged.",
        ),
    ],
)
def test_green_says_no_more_than_it_knows(
    shown: Callable[..., Any], tmp_path: Path, change: dict[str, Any], verdict: str, answer: str
) -> None:
    full = full_report(ORDINARY, 0)
    kept = tuple(result for result in full.results if not result.fails)
    report = Report(replace(full.summary, history=(), baseline=None, **change), kept)
    page = shown(written(report, tmp_path / "green.html"))
    assert page.inner_text("h1 >> nth=0").startswith(verdict)
    assert page.inner_text(".c-answers dd >> nth=0").startswith(answer)
    assert "No check found anything." in page.inner_text("main")
