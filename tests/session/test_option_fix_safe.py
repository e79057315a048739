"""--fix-safe: what setting tags and descriptions repairs, and half a remedy never."""

from __future__ import annotations

import json

import pytest
from gates import Gate, plan_in, state, told
from stores import Lab

LEFT = "    ! not fixed: needs reversible changes: leave --fix-safe out"


@pytest.mark.parametrize("flags", [["--fix-safe"], ["--fix", "--fix-safe"]])
def test_only_what_tags_alone_mend_is_mended(gate: Gate, messy: Lab, flags: list[str]) -> None:
    before = {path: facts[0] for path, facts in state(messy.mlruns).items()}
    shown = plan_in(gate("--fix-dry-run", "--fix-safe"))
    made = gate(*flags)
    assert made.ret == 1  # the rest is left
    assert plan_in(made) == shown
    assert "2 of 2 changes made" in told(made)
    assert "verified: the store, read anew, is what was planned" in told(made)
    assert [line[:18] for line in shown if line.startswith("    + ")] == ["    + safe        "] * 2
    assert shown.count(LEFT) == 5
    assert "totals: 2 tags of experiments set; 2 changes are safe, 0 reversible" in shown
    found = messy.read(artifacts=False).experiments.values()
    names = ["Default", "credit_delivery", "credit_production", "credit_selection", "test_experiment"]
    assert sorted(item.name for item in found if item.active) == names
    archived = messy.client.get_experiment("4").tags
    assert archived["lifecycle"] == "archived"
    # Not one tag of the remedies that also rename and delete.
    assert not any("retired" in key for item in messy.read().experiments.values() for key in item.tags)
    assert {path: facts[0] for path, facts in state(messy.mlruns).items()} == before
    # What is left is done without the flag.
    assert gate("--fix").ret == 0


def test_a_plan_of_safe_changes_can_be_saved(gate: Gate, messy: Lab) -> None:
    gate("--fix-safe", "--fix-dry-run", "--fix-plan=plan.json")
    document = json.loads((gate.folder / "plan.json").read_text("utf-8"))
    assert document["asked"]["safe_alone"] is True
    assert {change["applicability"] for step in document["steps"] for change in step["changes"]} == {"safe"}
    assert {item["applicability"] for item in document["left"]} == {"advice"}
    made = gate("--fix", "--fix-plan=plan.json")
    assert made.ret == 1
    assert "plan.json: 2 of 2 planned changes made" in told(made)
    assert "not done: " not in told(made)
