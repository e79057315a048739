"""What --compliance-init writes for the demo store: with it every defect is found that the store itself shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from gates import CHECKOUT
from stores import Lab

POLICIES = str(CHECKOUT / "policies")
SHOWN_BY_THE_STORE = {
    ("EXP001", "product", "credit_scoring"),
    ("EXP002", "experiment", "5"),
    *(("EXP003", "experiment", key) for key in "123"),
    ("PRD006", "product", "credit_scoring"),
    *((policy, "product", "credit_scoring") for policy in ("MOD003", "MOD004", "PRD007", "SRV001")),
}
ONLY_PEOPLE_KNOW = {"MOD005", "PRD002", "PRD003", "PRD004", "REG001"}
"""Rules about names that the demo's own settings require, a registered model that is yet to be made, and a file of
features that lies elsewhere.
"""


def pytest_in(folder: Path, *flags: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", POLICIES, f"--rootdir={folder}", *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def found(folder: Path) -> set[tuple[str, str, str]]:
    code, text = pytest_in(folder, "--compliance-report=json:found.json")
    assert code == 1, text
    results = json.loads((folder / "found.json").read_text())["results"]
    return {(item["policy"], problem["kind"], problem["key"]) for item in results for problem in item["findings"]}


def test_what_waits_for_a_word_finds_more_once_it_has_it(demo_built: Path, tmp_path: Path) -> None:
    """A registered model that is yet to be made, and files that lie beside the store: guesses, offered as comments."""
    demo = Lab.moved(demo_built, tmp_path / "demo")
    path = demo.folder / "compliance.toml"
    path.unlink()
    assert pytest_in(demo.folder, "--compliance-init")[0] == 0
    lines = [line for line in path.read_text().splitlines() if line != '#primary = "credit_scoring_production"']
    assert '#features = "data/holdout_sample.parquet"  # some of the predicted rows' in lines
    path.write_text("\n".join(line[1:] if line[:1] == "#" and line[1:2] not in (" ", "#") else line for line in lines))
    some = "--compliance-rules=EXP001,EXP002,MOD005,REG001"
    code, text = pytest_in(demo.folder, some, "--compliance-report=json:found.json")
    assert code == 1, text
    results = json.loads((demo.folder / "found.json").read_text())["results"]
    assert {item["policy"] for item in results if item["findings"]} == {"EXP001", "EXP002", "MOD005", "REG001"}


def test_planted_defects_are_found_by_what_is_written(demo_built: Path, tmp_path: Path) -> None:
    demo = Lab.moved(demo_built, tmp_path / "demo")
    own = found(demo.folder)
    (demo.folder / "compliance.toml").unlink()
    code, text = pytest_in(demo.folder, "--compliance-init")
    assert (code, "products: 1 (credit_scoring)" in text) == (0, True), text
    shown = found(demo.folder)
    assert shown >= SHOWN_BY_THE_STORE
    # EXP001 tells of the product while nobody decided which of its two experiments is the one.
    assert {item for item in own - shown if item[0] not in ONLY_PEOPLE_KNOW} == {("EXP001", "experiment", "6")}
    assert shown - own == {("EXP001", "product", "credit_scoring")}
