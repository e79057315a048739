"""Shows the whole path on the demo store: the gate fails, `--fix` repairs it, the gate is green."""

from __future__ import annotations

import argparse
import gc
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

CHECKOUT = Path(__file__).resolve().parents[2]
MARKER = ".made-by-demo"  # this script deletes a folder only if it wrote this file into it
FINDINGS = 1  # pytest's exit code when findings remain


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("demo-store"),
        help="where the store is built (default: %(default)s)",
    )
    folder: Path = parser.parse_args(argv).folder.resolve()

    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            parser.error(f"{folder} is not empty and was not made by this demo: name another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()

    _step(f"Building the store in {folder}")
    print(_build(folder))
    _step("The gate, before: it must fail")
    before = _start_pytest(folder, "audit-before").wait()
    _step(f"The repair; the store as it was stays in {folder / 'before'}")
    _keep_copy(folder)
    fix = _start_pytest(folder, "audit-fix", "--fix").wait()
    _step("The gate, after")
    after = _start_pytest(folder, "audit-after").wait()
    left = _failed_tests(folder / "audit-after.xml")

    as_expected = before == FINDINGS and fix == after == 0 and not left
    _step("Open these in a browser:")
    for name in ("audit-before", "audit-fix", "audit-after"):
        print(f"    {folder / name}.html")
    print(
        f"Exit codes: gate before {before}, fix {fix}, gate after {after}. Still failing: "
        f"{', '.join(sorted(left)) or 'nothing'}."
    )
    print("As expected." if as_expected else f"Expected: {FINDINGS}, 0, 0, and nothing failing.")
    return 0 if as_expected else 1


def _build(folder: Path) -> str:
    gc.disable()  # a short process that makes many objects and drops few: looking for garbage is a fifth of its time
    from build import (
        build_store,
        summary,
    )  # here, not above: MLflow takes seconds to import, first say what is going on

    build_store(folder)
    return summary(folder)


def _keep_copy(folder: Path) -> None:
    """A copy of the store that is about to be repaired, byte for byte: its rows still name the folder that it was
    copied from.
    """

    def beside(place: str, names: list[str]) -> set[str]:
        return {
            name for name in names if place == str(folder) and (name in (MARKER, "before") or name.startswith("audit-"))
        }

    shutil.copytree(folder, folder / "before", symlinks=True, ignore=beside)


def _start_pytest(folder: Path, report: str, *options: str) -> subprocess.Popen[bytes]:
    """The rules, run on the store; <report>.html and <report>.xml are written beside it."""
    arguments = [
        "policies",
        "-q",
        *options,
        f"--tracking-uri=sqlite:///{(folder / 'mlflow.db').as_posix()}",
        f"--compliance-config={folder / 'compliance.toml'}",
        f"--html={folder / report}.html",
        "--self-contained-html",
        f"--junitxml={folder / report}.xml",
    ]
    print("pytest " + " ".join(arguments), flush=True)
    return subprocess.Popen([sys.executable, "-m", "pytest", *arguments], cwd=CHECKOUT)


def _failed_tests(junit: Path) -> set[str]:
    """The names of the test functions with a failure or an error, without their parameters."""
    if not junit.is_file():  # pytest stopped before it ran anything; its exit code says so
        return set()
    cases = ElementTree.parse(junit).iter("testcase")  # noqa: S314 - written a moment ago by our own pytest
    return {
        case.get("name", "").partition("[")[0]
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }


def _step(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
