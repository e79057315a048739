"""--fix-dry-run: the plan that --fix carries out, and not one byte changed."""

from __future__ import annotations

from gates import Gate, plan_in, state, told
from stores import Lab


def test_it_prints_the_plan_that_fix_carries_out_and_changes_nothing(gate: Gate, messy: Lab) -> None:
    # Something that only people can mend is in the plan too.
    champion = next(run.info.run_id for run in messy.runs("2"))
    (messy.folder_of(champion) / "model" / "MLmodel").unlink()
    before = state(messy.folder)

    dry = gate("--fix-dry-run")
    assert dry.ret == 1
    dry.assert_outcomes(passed=30, failed=7)
    assert "dry run: nothing was changed" in told(dry)
    assert "FIXED" not in told(dry)
    assert state(messy.folder) == before

    fixed = gate("--fix")
    assert plan_in(fixed) == plan_in(dry)
    assert any(line.startswith("    + reversible  copy run") for line in plan_in(dry))
    assert any(line.startswith("    ! not fixed") for line in plan_in(dry))
    assert state(messy.folder) != before


def test_a_store_in_order_has_an_empty_plan(gate: Gate, messy: Lab) -> None:
    gate("--fix")
    before = state(messy.folder)
    dry = gate("--fix-dry-run")
    assert dry.ret == 0
    (nothing,) = plan_in(dry)
    assert nothing.startswith("0 changes to 0 entities; not evaluated: ")
    assert "dry run: nothing to change" in told(dry)
    assert state(messy.folder) == before


def test_the_selection_is_the_plan(gate: Gate, messy: Lab) -> None:
    dry = gate("--fix-dry-run", "-k", "is_stuck")
    assert [line[:8] for line in plan_in(dry)] == ["RUN001  ", "    + re", "totals: ", "1 change"]


def test_a_store_that_fix_refuses_can_still_be_planned(gate: Gate, messy: Lab) -> None:
    """The plan of a store that is read from a copy of its bucket says what would be done, were it here."""
    messy.sql("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, 's3://bucket')", str(messy.mlruns))
    gate.settings(messy.uri, f'\n[store.relocate]\n"s3://bucket" = "{messy.mlruns}"\n')
    before = state(messy.folder)
    result = gate("--fix-dry-run")
    assert result.ret == 1
    assert "--fix would not carry this plan out" in told(result)
    assert state(messy.folder) == before
