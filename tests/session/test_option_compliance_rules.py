"""--compliance-rules: ids of rules, exactly, and patterns of ids."""

from __future__ import annotations

import re

import pytest
from gates import POLICIES, RULES, Gate, plan_in, state, told
from stores import Lab


def ids(result: pytest.RunResult) -> set[str]:
    """The rules that something was said about."""
    return {match[1] for line in result.outlines if (match := re.match(r" +([A-Z]{3}\d{3}) ", line))}


SCHEMA = "test_store.py::test_schema_is_that_of_the_installed_mlflow"


def test_ids_and_patterns(gate: Gate, messy: Lab) -> None:
    result = gate("--compliance-rules=EXP001,ART*")
    assert (result.ret, ids(result)) == (1, {"EXP001", "ART001", "ART002"})
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["deselected"]) == (3, 17)
    assert "limited by --compliance-rules to EXP001, ART*" in told(result)


def test_it_may_be_given_twice_and_with_space(gate: Gate, messy: Lab) -> None:
    assert ids(gate("--compliance-rules=EXP001, RUN001", "--compliance-rules", "EXP002")) == {
        "EXP001",
        "RUN001",
        "EXP002",
    }


def test_a_word_is_an_id_and_no_part_of_a_name(gate: Gate, messy: Lab) -> None:
    """`-k ART` takes every rule that has 'art' anywhere in its name, and with it a repair that nobody meant."""
    said = gate("--collect-only", "-q", "--compliance-rules=ART*", rules=(POLICIES,))
    chosen = {line for line in said.outlines if "::" in line}
    assert chosen
    assert {line for line in chosen if "test_artifacts.py::" not in line} == {SCHEMA}, "which is asked in every run"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("EXP01", "'EXP01' is an unknown policy id; did you mean 'EXP001'?"),
        ("exp001", "'exp001' is an unknown policy id; did you mean 'EXP001'?"),
        ("EXP001,QQQ*", "'QQQ*' is an unknown policy id; known here: ART001, "),
        ("", "--compliance-rules takes ids of rules with commas between them"),
        (" , ", "--compliance-rules takes ids of rules with commas between them"),
    ],
)
@pytest.mark.parametrize("how", ["alone", "--fix", "-n2"])
def test_what_no_rule_answers_to_is_a_usage_error(gate: Gate, messy: Lab, given: str, said: str, how: str) -> None:
    before = state(messy.folder)
    result = gate(f"--compliance-rules={given}", *([] if how == "alone" else [how]), process=how == "-n2")
    assert result.ret == 4
    assert said in told(result)
    assert state(messy.folder) == before


def test_a_repair_of_one_rule(gate: Gate, messy: Lab) -> None:
    dry = plan_in(gate("--fix-dry-run", "--compliance-rules=EXP002"))
    result = gate("--fix", "--compliance-rules=EXP002")
    assert plan_in(result) == dry
    assert {line.split()[0] for line in dry if line[:3].isupper()} == {"EXP002"}
    assert (result.ret, result.parseoutcomes()["fixed"]) == (0, 1)
    assert "deselected" in told(result)
    names = {item.name: item.lifecycle_stage for item in messy.client.search_experiments(view_type=3)}
    assert names["credit_production"] == "active", "EXP001 was not asked for"


def test_workers_choose_the_same(gate: Gate, messy: Lab) -> None:
    alone, shared = gate("--compliance-rules=EXP*"), gate("--compliance-rules=EXP*", "-n", "2", process=True)
    assert shared.ret == alone.ret == 1
    assert ids(shared) == ids(alone) == {"EXP001", "EXP002", "EXP003"}


def test_a_rule_that_is_not_in_the_files_that_were_given(gate: Gate, messy: Lab) -> None:
    assert gate("--compliance-rules=ART001", rules=(POLICIES / "test_experiments.py",)).ret == 5


def test_no_file_is_read_for_rules_that_are_not_asked_for(gate: Gate, messy: Lab) -> None:
    text = told(gate("--compliance-rules=EXP002", rules=(*RULES,)))
    assert "artifacts: " not in text
    assert "artifacts: " in told(gate("--compliance-rules=ART001", rules=(*RULES,)))
