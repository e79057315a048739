"""--fix-undo: takes a repair back, change by change, where nobody changed the thing since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evidence import differing, files_of, lost, rows_of
from gates import Gate, state, told
from stores import Lab

from mlflow_compliance.repair.journal import only_one


def journal(lab: Lab, number: int = -1) -> str:
    """The id of one of a store's journals, in the order of time."""
    return sorted(path.stem for path in Path(lab.store.folder).glob("2*.jsonl"))[number]


def look(lab: Lab) -> tuple[Any, Any]:
    return rows_of(lab.database), files_of(lab.folder / "mlruns")


def undo(gate: Gate, *arguments: str) -> tuple[int, str]:
    result = gate(*(arguments or ("--fix-undo=last",)), rules=())
    return int(result.ret), told(result)


def test_it_takes_a_repair_back_and_its_dry_run_says_the_same(gate: Gate, messy: Lab) -> None:
    rows, files = look(messy)
    assert gate("--fix").ret == 0
    assert lost(rows, rows_of(messy.database))
    repaired = state(messy.folder)
    code, text = undo(gate, "--fix-undo=last", "--fix-dry-run")
    assert (code, state(messy.folder)) == (0, repaired)
    assert "22 of 22 changes can be taken back" in text

    done, said = undo(gate)
    assert done == 0
    planned = [line for line in text.splitlines() if line.startswith("    - ")]
    assert [line for line in said.splitlines() if line.startswith("    - ")] == planned
    assert "taken back: 22 of 22 changes" in said
    assert "verified: the store, read anew, is what was planned" in said
    now, there = look(messy)
    assert lost(rows, now) == {}
    assert differing(files, there) == {}
    assert gate().ret == 1

    listed = told(gate("--fix-journals", rules=()))
    assert "22 of 22 changes  ended, taken back" in listed
    assert f"takes back {journal(messy, 0)}, ended" in listed
    code, text = undo(gate)
    assert (code, "no repair of" in text) == (4, True)
    assert "left that could be taken back: --fix-journals lists them all" in text


def test_an_undo_is_taken_back_by_its_id(gate: Gate, messy: Lab) -> None:
    gate("--fix")
    repaired = rows_of(messy.database)["experiments"]
    undo(gate)
    assert rows_of(messy.database)["experiments"] != repaired
    code, text = undo(gate, f"--fix-undo={journal(messy)}")
    assert (code, "taken back: 22 of 22 changes" in text) == (0, True)
    assert rows_of(messy.database)["experiments"] == repaired
    assert gate().ret == 0
    # What was done again is taken back as the newest repair is.
    code, text = undo(gate, f"--fix-undo={journal(messy)}")
    assert (code, "taken back: 22 of 22 changes" in text) == (0, True)
    assert gate().ret == 1


def test_what_somebody_changed_since_is_told_and_left(gate: Gate, messy: Lab) -> None:
    rows, files = look(messy)
    gate("--fix")
    messy.client.set_experiment_tag("4", "lifecycle", "development")
    messy.client.create_experiment("test_experiment")
    for arguments in (("--fix-undo=last", "--fix-dry-run"), ("--fix-undo=last",)):
        code, text = undo(gate, *arguments)
        assert code == 1
        assert "left: rename experiment 3 from 'test_experiment' to 'test_experiment (retired 3)'" in text
        assert (
            "left: set tag lifecycle of experiment 4 to 'archived': tag lifecycle of experiment 4 is now 'dev" in text
        )
    assert messy.client.get_experiment("4").tags["lifecycle"] == "development"
    assert messy.client.get_experiment("3").lifecycle_stage == "active"
    now, there = look(messy)
    assert set(lost(rows, now)) == {"experiments"}, "the one name alone"
    assert differing(files, there) == {}
    assert "20 of 22 taken back" in told(gate("--fix-journals", rules=()))


def test_a_journal_that_was_changed_takes_nothing_back(gate: Gate, messy: Lab) -> None:
    gate("--fix")
    path = Path(messy.store.folder, f"{journal(messy)}.jsonl")
    path.write_text(path.read_text().replace("credit_production", "credit_productiom", 1))
    before = state(messy.folder / "mlruns"), rows_of(messy.database)
    for flag in ("--fix-undo=last", f"--fix-undo={path}", f"--fix-undo={path.stem}"):
        code, text = undo(gate, flag)
        assert code == 4
        assert "is not as it was written (line " in text
        assert "a line was changed, dropped or moved there): nothing is taken back by it" in text
    assert (state(messy.folder / "mlruns"), rows_of(messy.database)) == before
    assert "not as it was written: line" in told(gate("--fix-journals", rules=()))


@pytest.mark.parametrize("name", ["20200101T000000Z-000000", "nowhere.jsonl", "", "."])
def test_a_journal_that_is_not_there_is_told(gate: Gate, messy: Lab, name: str) -> None:
    code, text = undo(gate, f"--fix-undo={name}")
    assert (code, "neither a file nor a journal of sqlite:" in text) == (4, True)


def test_a_journal_of_another_store_is_refused(gate: Gate, messy: Lab, make_lab: Any) -> None:
    gate("--fix")
    path = Path(messy.store.folder, f"{journal(messy)}.jsonl")
    other = make_lab()
    other.experiment("credit_delivery")
    code, text = undo(gate, f"--fix-undo={path}", f"--tracking-uri={other.uri}")
    assert code == 4
    assert f"is a journal of {messy.store.info.uri}, not of {other.store.info.uri}" in text
    Path(other.store.folder).mkdir()
    (Path(other.store.folder) / path.name).write_bytes(path.read_bytes())
    listed = told(gate("--fix-journals", f"--tracking-uri={other.uri}", rules=()))
    assert f"journals there of other stores, or of this one at another place: {path.stem}" in listed


@pytest.mark.parametrize("other", ["--fix", "--fix-journals", "--fix-verify=last"])
def test_it_goes_with_no_other_command(gate: Gate, messy: Lab, other: str) -> None:
    code, text = undo(gate, "--fix-undo=last", other)
    assert (code, "exclude each other: give one of them" in text) == (4, True)


def test_it_waits_for_no_repair_that_is_running(gate: Gate, messy: Lab) -> None:
    gate("--fix")
    with only_one(messy.store.folder):
        before = state(messy.folder / "mlruns"), rows_of(messy.database)
        code, text = undo(gate)
    assert (code, "another repair of this store is running" in text) == (4, True)
    assert (state(messy.folder / "mlruns"), rows_of(messy.database)) == before


def test_two_repairs_are_taken_back_the_newer_one_first(gate: Gate, messy: Lab) -> None:
    rows, files = look(messy)
    gate("--fix")
    first, _ = look(messy)
    messy.run(messy.experiment("test_more"))
    gate("--fix")
    for _ in range(2):
        assert undo(gate)[0] == 0
    now, there = look(messy)
    assert lost(rows, now) == {}
    assert differing(files, there) == {}
    assert first != now


@pytest.mark.parametrize(
    ("was", "now", "why"),
    [
        (
            '"kind": "RestoreExperiment"',
            '"kind": "Nonsense"',
            "the journal holds a change of kind 'Nonsense', which this version does not know",
        ),
        (
            '"deleted_runs": [',
            '"deleted_runs": 7, "more": [',
            "the journal holds a RestoreExperiment that this version cannot",
        ),
    ],
)
def test_a_change_that_cannot_be_read_is_told_and_the_rest_goes_on(
    gate: Gate, messy: Lab, was: str, now: str, why: str
) -> None:
    """In a journal of an older version, whose lines do not hold each other."""
    gate("--fix")
    path = Path(messy.store.folder, f"{journal(messy)}.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    plain = [{key: value for key, value in line.items() if key not in ("chain", "prev")} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in plain).replace(was, now))
    code, text = undo(gate)
    assert code == 1
    assert f"! left: soft-delete experiment 3 with its runs (it can be restored): {why}" in text
    assert messy.client.get_experiment("4").tags.get("lifecycle") is None
