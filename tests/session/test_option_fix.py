"""--fix: repairs what the collected checks found, and lets the ordinary run after it be the verdict."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from gates import FIXERS, Gate, plan_in, state, told
from stores import Lab


def outcomes(result: pytest.RunResult) -> dict[str, str]:
    """Test id without its file -> the word that a verbose run prints for it."""
    found = {}
    for line in result.outlines:
        if "::" in line and line.endswith("%]"):
            name, _, word = line.partition("::")[2].rpartition("[")[0].strip().partition(" ")
            found[name] = word
    return found


def names(lab: Lab) -> dict[str, str]:
    with closing(sqlite3.connect(lab.database)) as connection:
        return dict(connection.execute("SELECT name, lifecycle_stage FROM experiments"))


def refused(gate: Gate, messy: Lab) -> str:
    """What a repair says that stops before anything is written."""
    before = state(messy.folder)
    result = gate("--fix")
    assert result.ret == 4
    assert state(messy.folder) == before
    return told(result)


def test_it_mends_what_the_gate_found_and_is_done_the_second_time(gate: Gate, messy: Lab) -> None:
    before = gate("-v")
    assert before.ret == 1
    failed = {name for name, word in outcomes(before).items() if word == "FAILED"}
    assert len(failed) == 6

    fixed = gate("--fix", "-v")
    text = told(fixed)
    assert fixed.ret == 0
    fixed.assert_outcomes(passed=24)
    words = outcomes(fixed)
    assert {name for name, word in words.items() if word.startswith("FIXED")} == failed
    # The test experiment is gone, and its row stays.
    assert words["test_no_test_experiment_is_active[experiment-3]"] == "FIXED (removed)"
    assert words["test_experiment_is_classified[experiment-4]"] == "FIXED"
    assert "6 fixed" in text
    assert "22 of 22 changes made" in text
    assert "verified: the store, read anew, is what was planned" in text
    # Not every rule was asked: that nothing is left cannot be said.
    assert plan_in(fixed)[-1].startswith("22 changes to 9 entities; not evaluated: MOD002, MOD003, ")
    assert names(messy)["test_experiment (retired 3)"] == "deleted"

    untouched = state(messy.folder)
    second = gate("--fix", "-v")
    assert second.ret == 0
    assert "FIXED" not in told(second)
    (nothing,) = plan_in(second)
    assert nothing.startswith("0 changes to 0 entities; not evaluated: ")
    assert "repair: nothing to change" in told(second)
    assert state(messy.folder) == untouched


def test_what_it_cannot_mend_still_fails_with_what_to_do(gate: Gate, messy: Lab) -> None:
    champion = next(run.info.run_id for run in messy.runs("2"))
    (messy.folder_of(champion) / "model" / "MLmodel").unlink()

    fixed = gate("--fix", "-v")
    assert fixed.ret == 1
    words = outcomes(fixed)
    assert [name for name, word in words.items() if word == "FAILED"] == [
        "test_production_run_has_a_model_artifact[product-credit]"
    ]
    assert sum(word.startswith("FIXED") for word in words.values()) == 6
    assert any("! not fixed: a run is built from what the settings name" in line for line in plan_in(fixed))

    second = gate("--fix", "-v")
    assert second.ret == 1
    assert plan_in(second)[-1].startswith("0 changes to 0 entities; 1 findings are left for people; not evaluated: ")


@pytest.mark.parametrize(
    ("selection", "mended", "deselected"),
    [
        ("no_test_experiment", "test_experiment", 32),
        ("is_classified", "credit_selection", 35),
    ],
)
def test_the_selected_checks_say_what_is_mended(
    gate: Gate, messy: Lab, selection: str, mended: str, deselected: int
) -> None:
    fixed = gate("--fix", "-v", "-k", selection)
    assert fixed.ret == 0
    assert [line.split("  ")[1].split(":")[0] for line in plan_in(fixed) if line[0] != " " and "  " in line] == [
        f"experiment {mended}"
    ]
    # 'deselected' counts what was left out once, although the checks were collected twice.
    assert f" {deselected} deselected" in fixed.outlines[-1]
    names_now = names(messy)
    assert (names_now.get("test_experiment") is None) == (mended == "test_experiment")
    assert gate("-q").ret == 1


def test_one_case_of_a_rule_is_mended_alone(gate: Gate, messy: Lab) -> None:
    messy.experiment("test_other")
    fixed = gate("--fix", "-v", "-k", "no_test_experiment and experiment-5")
    assert fixed.ret == 0
    assert {name: stage for name, stage in names(messy).items() if name.startswith("test_")} == {
        "test_experiment": "active",
        "test_other (retired 5)": "deleted",
    }


@pytest.mark.parametrize("flag", ["--fix", "--fix-dry-run"])
def test_xdist_is_refused(gate: Gate, messy: Lab, flag: str) -> None:
    before = state(messy.folder)
    result = gate(flag, "-n", "2")
    assert result.ret == 4
    assert "do not run under pytest-xdist: leave -n out" in told(result)
    assert state(messy.folder) == before


@pytest.mark.parametrize("flag", ["--setup-plan", "--setup-only"])
def test_nothing_is_repaired_where_no_test_runs(gate: Gate, messy: Lab, flag: str) -> None:
    before = state(messy.folder)
    result = gate("--fix", flag)
    assert result.ret == 4
    assert "run no test that could verify it" in told(result)
    assert state(messy.folder) == before


def test_both_flags_are_refused(gate: Gate, messy: Lab) -> None:
    before = state(messy.folder)
    result = gate("--fix", "--fix-dry-run")
    assert result.ret == 4
    assert "--fix and --fix-dry-run exclude each other" in told(result)
    assert state(messy.folder) == before


def test_collect_only_writes_nothing(gate: Gate, messy: Lab) -> None:
    before = state(messy.folder)
    result = gate("--fix", "--collect-only", "-q")
    assert result.ret == 0
    assert "41 tests collected" in told(result)
    assert state(messy.folder) == before


@pytest.mark.parametrize("more", [[], ["--continue-on-collection-errors"]])
def test_a_collection_that_failed_writes_nothing(gate: Gate, messy: Lab, more: list[str]) -> None:
    gate.pytester.makepyfile(test_broken="import no_such_module_anywhere")
    before = state(messy.folder)
    result = gate("--fix", "test_broken.py", *more)
    assert result.ret != 0
    result.assert_outcomes(errors=1, passed=31 if more else 0, failed=6 if more else 0)
    assert state(messy.folder) == before


def test_without_policies_it_is_a_usage_error(gate: Gate, messy: Lab) -> None:
    gate.pytester.makepyfile(test_plain="def test_plain(): pass")
    result = gate("--fix", rules=["test_plain.py"])
    assert result.ret == 4
    assert "--fix needs policies: none was collected here" in told(result)


def test_of_a_store_read_elsewhere_only_the_rows_are_rewritten(gate: Gate, messy: Lab) -> None:
    # The prefix that the rows say is not where the files are read.
    messy.sql("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, 'file:///D:/code/mlruns')", str(messy.mlruns))
    gate.settings(messy.uri, f'\n[store.relocate]\n"file:///D:/code/mlruns" = "{messy.mlruns}"\n')
    files = state(messy.mlruns)
    result = gate("--fix")
    assert result.ret == 1
    assert [line for line in plan_in(result) if line.startswith("    + ")] == [
        f"    + reversible  let rows name {messy.mlruns} in the place of file:///D:/code/mlruns (6 runs)"
    ]
    assert state(messy.mlruns) == files


def test_a_store_that_is_read_from_a_copy_of_its_bucket_is_not_written_to(gate: Gate, messy: Lab) -> None:
    """Its rows go on to name the bucket, which others use."""
    messy.sql("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, 's3://bucket')", str(messy.mlruns))
    gate.settings(messy.uri, f'\n[store.relocate]\n"s3://bucket" = "{messy.mlruns}"\n')
    said = refused(gate, messy)
    assert (
        "--fix does not write to a store that says s3://bucket in its rows and is read through [store.relocate]" in said
    )


def test_a_missing_fixer_folder_stops_before_anything_is_written(gate: Gate, messy: Lab) -> None:
    gate.ini(FIXERS, "remedies_of_ours")
    said = refused(gate, messy)
    assert "fixers 'remedies_of_ours' are neither a folder in" in said
    assert "compliance_fixers" in said


def test_two_fixers_for_one_policy_stop_before_anything_is_written(gate: Gate, messy: Lab) -> None:
    gate.pack(
        "own_fixers",
        runs="""
        from mlflow_compliance.api import CannotFix, fixer

        @fixer("RUN001")
        def other(finding, snapshot, settings):
            raise CannotFix("no")
        """,
    )
    gate.ini(FIXERS, "own_fixers")
    said = refused(gate, messy)
    assert "two fixers for policy RUN001" in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_fixer_file_that_cannot_be_imported_stops_in_one_sentence(
    gate: Gate, messy: Lab, text: str, why: str
) -> None:
    gate.pack("own_fixers", broken=text)
    gate.ini(FIXERS, "own_fixers")
    said = refused(gate, messy)
    assert f"the fixers in 'own_fixers' cannot be imported ({why}" in said


def test_a_fixer_that_crashes_leaves_its_finding_with_the_reason(gate: Gate, messy: Lab) -> None:
    gate.pack(
        "own_fixers",
        runs="""
        from mlflow_compliance.api import fixer

        @fixer("RUN001")
        def end(finding, context):
            raise KeyError("gone")
        """,
    )
    gate.ini("own_fixers")
    result = gate("--fix", "-v")
    assert result.ret == 1
    assert "    ! not fixed: its fixer end crashed (KeyError: 'gone'): mend it" in plan_in(result)
    assert outcomes(result)["test_no_run_is_stuck[experiment-4]"] == "FAILED"


def test_fixers_that_undo_each_other_are_named_and_nothing_is_written(gate: Gate, messy: Lab) -> None:
    gate.pack(
        "own_policies",
        test_tags="""
        from mlflow_compliance.api import Experiment, Severity, Violations, policy

        def says(experiment, violations, wanted):
            if experiment.experiment_id == "1" and experiment.tags.get("side") != wanted:
                violations.add("wrong-side", "wrong side")

        @policy("LFT001", "Left", Severity.LOW)
        def test_left(experiment: Experiment, violations: Violations) -> None:
            \"\"\"One team says so.\"\"\"
            says(experiment, violations, "left")

        @policy("RGT001", "Right", Severity.LOW)
        def test_right(experiment: Experiment, violations: Violations) -> None:
            \"\"\"The other team does not.\"\"\"
            says(experiment, violations, "right")
        """,
    )
    gate.pack(
        "own_fixers",
        tags="""
        from mlflow_compliance.api import SetExperimentTag, fixer

        @fixer("LFT001")
        def left(finding, context):
            yield SetExperimentTag("1", "side", "left", context.snapshot.experiments["1"].tags.get("side"))

        @fixer("RGT001")
        def right(finding, context):
            yield SetExperimentTag("1", "side", "right", context.snapshot.experiments["1"].tags.get("side"))
        """,
    )
    gate.ini("own_fixers")
    before = state(messy.folder)
    result = gate("--fix", rules=["own_policies"])
    assert result.ret == 4
    assert "does not settle" in told(result)
    assert "RGT001" in told(result) or "LFT001" in told(result)
    assert state(messy.folder) == before


def test_a_user_pack_mends_beside_the_built_in_one(gate: Gate, messy: Lab) -> None:
    """A plain assert, a fixer of the same repository, and the wheel's own rules in one run."""
    gate.pack(
        "policies",
        test_owner="""
        from mlflow_compliance.api import Experiment, Severity, policy

        @policy("OWN001", "Every experiment has an owner", Severity.LOW)
        def test_experiment_has_an_owner(experiment: Experiment) -> None:
            \"\"\"Somebody must answer for it.\"\"\"
            assert experiment.tags.get("owner"), f"nobody owns {experiment.name}"
        """,
    )
    gate.pack(
        "fixers",
        owner="""
        from mlflow_compliance.api import SetExperimentTag, fixer

        @fixer("OWN001")
        def name_the_team(finding, snapshot, settings):  # as fixers were written before there was a Context
            \"\"\"Name the team.\"\"\"
            yield SetExperimentTag(finding.entity.key, "owner", "risk", None)
        """,
    )
    gate.ini(FIXERS, "fixers")
    check = gate("-v", "policies")
    assert check.ret == 1
    # A plain assertion is a row of the table like any other: with its entity, and with what --fix would do.
    table = told(check).partition("= compliance =")[2]
    assert "OWN001" in table
    assert "Name the team. (1" in " ".join(table.split())
    fixed = gate("--fix", "-v", "policies")
    assert fixed.ret == 0
    words = outcomes(fixed)
    assert words["test_experiment_has_an_owner[experiment-1]"] == "FIXED"
    assert words["test_no_run_is_stuck[experiment-4]"] == "FIXED"
    assert messy.client.get_experiment("1").tags["owner"] == "risk"
