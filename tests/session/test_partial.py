"""A report that not every rule was asked for says PARTIAL, wherever it is read."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gates import POLICIES, Gate
from stores import Lab


def partial(text: str) -> str:
    found = re.search(r"^PARTIAL: (.*)$", text, re.MULTILINE)
    return found[1] if found else ""


@pytest.fixture
def store(lab: Lab, gate: Gate) -> Lab:
    lab.experiment("credit_development")
    gate.settings(lab.uri)
    return lab


@pytest.mark.usefixtures("store")
def test_a_run_of_all_rules_is_none(gate: Gate) -> None:
    assert partial(gate(rules=[POLICIES]).stdout.str()) == ""


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--compliance-rules", "EXP002"], r"2 of \d+ rules were asked; not asked: ART001, .* and \d+ more"),
        (["-k", "EXP002 and experiment-1"], r"2 of \d+ .*; not asked of everything: EXP002"),
        (["--compliance-metadata-only"], r"\d+ of \d+ rules were asked; not asked: ART001, "),
        (["-x"], r".* not asked"),
        (["--setup-plan"], r"\d+ of \d+ rules were asked; not asked: ART001, "),
        (["-n2", "--compliance-rules", "EXP002"], r"2 of \d+ rules were asked; not asked: ART001, "),
    ],
)
def test_what_was_left_out_is_told(gate: Gate, tmp_path: Path, flags: list[str], wanted: str) -> None:
    report = tmp_path / "junit.xml"
    found = partial(gate(*flags, f"--junitxml={report}", rules=[POLICIES], process="-n2" in flags).stdout.str())
    assert re.match(wanted, found), found
    said = [item.get("value") or "" for item in ElementTree.parse(report).iterfind(".//property[@name='compliance']")]
    assert said == [f"PARTIAL: {found}"]


def test_a_rule_that_is_switched_off_was_not_asked(gate: Gate, store: Lab) -> None:
    gate.settings(store.uri, "[policies.EXP003]\nenabled = false\n")
    assert partial(gate(rules=[POLICIES]).stdout.str()).endswith("not asked: EXP003")
