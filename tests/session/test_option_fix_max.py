"""--fix-max: a plan that is larger than somebody expected is refused as a whole."""

from __future__ import annotations

import pytest
from gates import Gate, plan_in, state, told
from stores import Lab


@pytest.mark.parametrize("flag", ["--fix", "--fix-dry-run"])
def test_a_plan_above_the_limit_is_refused_as_a_whole(gate: Gate, messy: Lab, flag: str) -> None:
    before = state(messy.folder)
    result = gate(flag, "--fix-max=8")
    assert result.ret == 4
    assert "the plan changes 9 entities and --fix-max allows 8: nothing was changed" in told(result)
    assert state(messy.folder) == before


def test_a_plan_at_the_limit_is_carried_out(gate: Gate, messy: Lab) -> None:
    result = gate("--fix", "--fix-max=9")
    assert result.ret == 0
    assert plan_in(result)[-1].startswith("22 changes to 9 entities")


def test_it_counts_entities_and_not_changes(gate: Gate, messy: Lab) -> None:
    assert gate("--fix", "--fix-max=1", "-k", "no_test_experiment").ret == 0


def test_zero_allows_only_an_empty_plan(gate: Gate, messy: Lab) -> None:
    assert gate("--fix", "--fix-max=0", "-k", "is_stuck").ret == 4
    assert gate("--fix", "--fix-max=0", "-k", "is_stuck and experiment-1").ret == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fix-max=3"], "--fix-max limits --fix or --fix-dry-run: give one of them"),
        (["--fix", "--fix-max=many"], "invalid int value: 'many'"),
        (["--fix", "--fix-max=-1"], "--fix-max takes a number of entities, 0 or more"),
    ],
)
def test_a_limit_that_makes_no_sense_is_a_usage_error(gate: Gate, messy: Lab, arguments: list[str], said: str) -> None:
    before = state(messy.folder)
    result = gate(*arguments)
    assert result.ret == 4
    assert said in told(result)
    assert state(messy.folder) == before
