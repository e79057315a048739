"""What pytest's --junit-xml says of policies, through workers too, and that other tests stay as they are."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from gates import RULES, Gate
from stores import Lab


def cases_in(path: Path) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for case in ElementTree.parse(path).iter("testcase"):
        facts = found.setdefault(case.get("name", ""), {})
        for item in case.iter("property"):
            facts.setdefault(item.get("name", ""), []).append(item.get("value", ""))
    return found


@pytest.mark.parametrize("flags", [[], ["-n", "2"], ["-o", "junit_family=xunit1"]], ids=" ".join)
@pytest.mark.usefixtures("messy")
def test_checks_have_names_and_facts(gate: Gate, flags: list[str]) -> None:
    (gate.folder / "test_other.py").write_text("def test_it(record_property): record_property('policy', 'mine')\n")
    path = gate.folder / "audit.xml"
    gate("test_other.py", f"--junit-xml={path}", "--compliance-report=json:audit.json", *flags, rules=RULES)
    cases = cases_in(path)
    assert cases["test_it"] == {"policy": ["mine"]}
    facts = cases["EXP002 No test experiments: experiment test_experiment"]
    assert (facts["policy"], facts["severity"], facts["outcome"]) == (["EXP002"], ["high"], ["failed"])
    assert facts["entity"] == ["experiment test_experiment"]
    assert (facts["status"], len(facts["fingerprint"][0])) == (["failing"], 16)
    assert "STO003" in {item["policy"][0] for item in cases.values() if item.get("outcome") == ["passed"]}


def test_a_hostile_name_is_no_harm(gate: Gate, lab: Lab) -> None:
    lab.experiment("test_<b>&\x1b[31m\u202e]]>")
    gate.settings(lab.uri)
    path = gate.folder / "audit.xml"
    gate(f"--junit-xml={path}", "--compliance-rules=EXP002")
    assert "EXP002 No test experiments: experiment test_<b>&\\x1b[31m\\u202e]]>" in cases_in(path)
