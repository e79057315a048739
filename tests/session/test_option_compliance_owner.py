"""Owners of what findings are about, and --compliance-owner: one owner's part of an audit."""

from __future__ import annotations

import json
from typing import Any

from gates import Gate, plan_in, told
from stores import BIG, Lab

REPORT = "--compliance-report=json:audit.json"
OWNERS = """
[[owners]]
experiments = "fraud-*"
team = "fraud"
contact = "#fraud-ml"
[[owners]]
experiments = ["fraud-*", "risk_*"]
team = "risk"
"""
RULES = "--compliance-rules=ART001,EXP002,EXP003,RUN001"


def report(gate: Gate) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((gate.folder / "audit.json").read_text())
    return found


def owners(gate: Gate) -> set[tuple[str, str, str, str]]:
    """(policy, name, owner, contact) of each finding; a path by its last part."""
    results = report(gate)["results"]
    return {
        (result["policy"], item["name"].rpartition("/")[2], item["owner"], item["contact"])
        for result in results
        for item in result["findings"]
    }


def shared(lab: Lab) -> dict[str, str]:
    """Experiments of several owners, each with things that are wrong."""
    ids = {
        "fraud-1_test": lab.experiment("fraud-1_test", owner="somebody else"),
        "risk_test": lab.experiment("Risk_test"),
        "tagged_test": lab.experiment("tagged_test", team="pricing", owner="  "),
        "nobody_test": lab.experiment("nobody_test"),
    }
    for name, key in ids.items():
        lab.run(key, f"stuck {name}", status="RUNNING", **{"mlflow.user": "jo"})
    for key in (ids["fraud-1_test"], ids["fraud-1_test"], ids["risk_test"]):
        lab.run(key, "trial", files={"shared.bin": BIG})
    for _ in range(2):
        lab.run(ids["fraud-1_test"], "trial", files={"own.bin": BIG[::-1]})
    return ids


def test_who_owns_what_and_one_owner_s_part(gate: Gate, lab: Lab) -> None:
    shared(lab)
    gate.settings(lab.uri, OWNERS)
    everything = gate(RULES, REPORT)
    assert everything.ret == 1
    found = owners(gate)
    assert {item for item in found if item[0] in ("EXP002", "RUN001")} == {
        ("EXP002", "fraud-1_test", "fraud", "#fraud-ml"),
        ("EXP002", "Risk_test", "risk", ""),
        ("EXP002", "tagged_test", "pricing", ""),
        ("EXP002", "nobody_test", "", ""),
        ("RUN001", "stuck fraud-1_test", "fraud", "#fraud-ml"),
        ("RUN001", "stuck risk_test", "risk", ""),
        ("RUN001", "stuck tagged_test", "pricing", ""),
        ("RUN001", "stuck nobody_test", "jo", ""),
    }
    duplicates = {item[1]: item[2] for item in found if item[0] == "ART001"}
    assert duplicates == {"own.bin": "fraud", "shared.bin": ""}, "which two of them share"

    result = gate(RULES, REPORT, "--compliance-owner=Fraud")
    assert result.ret == 1
    assert owners(gate) == {item for item in found if item[2] == "fraud"}
    head = report(gate)["summary"]["head"][0]
    others = len(found) - len(owners(gate))
    assert head.startswith("PARTIAL: ")
    assert head.endswith(
        f"limited by --compliance-owner to what 'Fraud' owns: {others} findings of others are not told"
    )
    silent = [item for item in report(gate)["results"] if item["others"] and not item["findings"]]
    assert {item["outcome"] for item in silent} == {"not applicable"}
    assert "what it found is not of 'Fraud' (--compliance-owner)" in told(result)

    assert gate("--compliance-baseline-write=known.json", RULES).ret == 0
    mine = gate(RULES, REPORT, "--compliance-owner=fraud", "--compliance-baseline=known.json", "-n2", process=True)
    assert mine.ret == 0
    assert report(gate)["summary"]["baseline"]["gone"] == []
    assert report(gate)["summary"]["head"][0] == head.replace("Fraud", "fraud")


def test_a_repair_mends_that_owner_s_part_alone(gate: Gate, lab: Lab) -> None:
    ids = shared(lab)
    gate.settings(lab.uri, OWNERS)
    dry = gate(RULES, "--fix-dry-run", "--compliance-owner=risk")
    lines = plan_in(dry)
    assert any("! not fixed: it is not of 'risk', whom --compliance-owner asks for" in line for line in lines)
    result = gate(RULES, "--fix", "--compliance-owner=risk", REPORT)
    assert result.ret == 0, told(result)
    assert "verified: the store, read anew, is what was planned" in told(result)
    experiments = lab.everything().experiments
    assert {name: experiments[key].active for name, key in ids.items()} == {
        "fraud-1_test": True,
        "risk_test": False,
        "tagged_test": True,
        "nobody_test": True,
    }


def test_a_name_that_owns_nothing_is_a_usage_error(gate: Gate, lab: Lab) -> None:
    """A report about nobody would be green."""
    shared(lab)
    gate.settings(lab.uri, OWNERS)
    for how in ([], ["-n2"]):
        result = gate(RULES, "--compliance-owner=frad", *how, process=bool(how))
        assert result.ret == 4
        text = told(result)
        assert "nothing here is owned by 'frad'; owners here: fraud, jo, pricing, risk" in text
    assert gate("--compliance-owner= ").ret == 4
    both = gate("--compliance-owner=fraud", "--compliance-baseline-write=known.json")
    assert (both.ret, "leave --compliance-owner out" in told(both)) == (4, True)
    gate.settings(lab.uri, '[[owners]]\nexperiments = "x"\n')
    assert "owners[0].team: is required" in told(gate(RULES))
