"""The laws that every Change is held to: what it predicts is what it does, its inverse brings the first store back,
a journal can hold it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import BIG, START, Lab, copy_change, delete, differing, there_and_back

from mlflow_compliance.changes import (
    Change,
    ClaimRoot,
    CopyRun,
    DeleteExperiment,
    DeleteRun,
    EndRun,
    GiveBack,
    LinkDuplicate,
    LogProductionRun,
    MoveToQuarantine,
    PointToCopy,
    PutAliasBack,
    PutAsideAgain,
    RegisterVersion,
    ReleaseRoot,
    RemoveRepeatedPoints,
    RenameDeletedExperiment,
    RenameExperiment,
    ReopenRun,
    RestoreExperiment,
    RestoreFromQuarantine,
    RestoreMetricFile,
    RestoreRun,
    RetractCopy,
    RetractPointer,
    RetractProductionRun,
    RetractSignature,
    RetractVersion,
    RewriteLocations,
    Rewriting,
    SetAlias,
    SetExperimentTag,
    SetRunTag,
    SignModel,
    UnlinkDuplicate,
    dump,
    load,
)
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.diff import differences
from mlflow_compliance.snapshot.entities import DatasetInput
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.store.storage.manifests import write_manifest
from mlflow_compliance.store.write.writer import StoreWriter


@pytest.fixture
def scratch(lab: Lab) -> str:
    """An experiment with a tag, an active run and one that had been deleted by itself."""
    key = lab.experiment("scratch", owner="ann")
    lab.run(key, "kept", files={"a.txt": b"a"})
    gone = lab.run(key, "gone", status="FAILED")
    lab.client.delete_run(gone)
    return key


@pytest.mark.parametrize(
    ("key", "value", "before"),
    [("new", "value", None), ("owner", "größer ⟨2⟩", "ann"), ("owner", None, "ann"), ("owner", "", "ann")],
    ids=["set", "overwrite", "delete", "empty"],
)
def test_set_experiment_tag(lab: Lab, scratch: str, key: str, value: str | None, before: str | None) -> None:
    between, _ = there_and_back(lab, SetExperimentTag(scratch, key, value, before))
    assert between.experiments[scratch].tags.get(key) == value


def test_rename_experiment(lab: Lab, scratch: str) -> None:
    between, _ = there_and_back(lab, RenameExperiment(scratch, "scratch ü/2", "scratch"))
    assert between.experiments[scratch].name == "scratch ü/2"


def test_deleting_refuses_runs_that_came_since_the_plan(lab: Lab, scratch: str) -> None:
    """They would go with the others, and no copy of them was planned."""
    change = delete(lab, scratch)
    late = lab.run(scratch, "late")
    with pytest.raises(ChangeError, match="by now, not"):
        StoreWriter(lab.store, {}).write(change)
    assert lab.client.get_run(late).info.lifecycle_stage == "active"


def test_trap_20_a_deleted_experiment_keeps_its_name_taken(lab: Lab, scratch: str) -> None:
    other = lab.experiment("other")
    lab.carry_out(delete(lab, scratch))
    with pytest.raises(ChangeError, match="is taken"):
        RenameExperiment(other, "scratch", "other").predict(lab.read())
    for change in (
        RenameExperiment(scratch, "elsewhere", "scratch"),
        SetExperimentTag(scratch, "why", "test", None),
        DeleteExperiment(scratch, 0),
    ):
        with pytest.raises(ChangeError, match="is deleted"):
            change.predict(lab.read())
    writer = StoreWriter(lab.store, {})
    with pytest.raises(ChangeError, match="could not be renamed"):
        writer.write(RenameExperiment(scratch, "elsewhere", "scratch"))


def test_trap_21_restoring_leaves_deleted_what_had_been_deleted_before(lab: Lab, scratch: str) -> None:
    gone = [run.info.run_id for run in lab.runs(scratch) if run.info.lifecycle_stage == "deleted"]
    between, _ = there_and_back(lab, delete(lab, scratch))
    assert between.experiments[scratch].count() == 0
    assert [run.info.run_id for run in lab.runs(scratch) if run.info.lifecycle_stage == "deleted"] == gone


def test_deleting_refuses_assessed_runs(lab: Lab, scratch: str) -> None:
    """Trap 22: MLflow deletes the assessments with the run, for good."""
    before = lab.read()
    assessed = replace(before.experiments[scratch], assessed_runs=1)
    with pytest.raises(ChangeError, match="1 assessed runs"):
        delete(lab, scratch).predict(before.with_experiment(assessed))


def test_end_and_reopen_run(lab: Lab, scratch: str) -> None:
    run_id = lab.run(scratch, status="RUNNING", metrics={"auc": 0.5})
    between, _ = there_and_back(lab, EndRun(run_id, scratch, "KILLED", START + 1000))
    assert (between.runs[run_id].status, between.runs[run_id].end_time) == ("KILLED", START + 1000)


def test_copy_run_copies_everything_and_retracts_it(lab: Lab) -> None:
    source, target = lab.experiment("credit_production"), lab.experiment("credit_delivery")
    run_id = lab.rich_run(source, stage="production")
    change = copy_change(lab, run_id, source, target)
    between, binding = there_and_back(lab, change)
    old, new = between.runs[run_id], between.runs[binding[change.copy_id]]
    assert (new.params, new.metrics, new.datasets) == (old.params, old.metrics, old.datasets)
    assert (new.start_time, new.end_time, new.status, new.name, new.user) == (
        old.start_time,
        old.end_time,
        old.status,
        old.name,
        old.user,
    )
    assert old.tags.items() <= new.tags.items()
    assert len(between.models_of(new.run_id)) == 2
    assert sorted(model.metrics for model in between.models_of(new.run_id)) == sorted(
        model.metrics for model in between.models_of(run_id)
    )


def test_copy_of_a_copied_run_reads_the_same_bytes_with_its_own_ids(lab: Lab) -> None:
    source, target = lab.experiment("credit_production"), lab.experiment("credit_delivery")
    run_id = lab.rich_run(source)
    change = copy_change(lab, run_id, source, target)
    _, after, binding = lab.carry_out(change)
    new_id = binding[change.copy_id]
    old_folder, new_folder = lab.folder_of(run_id), lab.folder_of(new_id)
    names = sorted(str(path.relative_to(old_folder)) for path in old_folder.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(new_folder)) for path in new_folder.rglob("*") if path.is_file())
    for name in names:
        expected = (old_folder / name).read_bytes()
        assert (new_folder / name).read_bytes() == (
            expected.replace(run_id.encode(), new_id.encode()) if name == "model/MLmodel" else expected
        )
    for model in after.models_of(new_id):
        text = (lab.location_of(model.model_id) / "MLmodel").read_text()
        assert f"run_id: {new_id}" in text
        assert f"model_id: {model.model_id}" in text
        assert f"artifact_path: {model.artifact_location}" in text


def test_copy_into_a_place_that_is_named_after_the_copied_run(lab: Lab) -> None:
    """The new location holds the old id: it is not to be renamed in its turn."""
    source = lab.experiment("credit_production")
    run_id = lab.rich_run(source)
    target = lab.client.create_experiment("credit_delivery", artifact_location=str(lab.folder / f"after {run_id}"))
    change = copy_change(lab, run_id, source, target)
    between, binding = there_and_back(lab, change)
    for model in between.models_of(binding[change.copy_id]):
        assert f"after {run_id}/models/{model.model_id}/" in model.artifact_location
        (folder,) = [folder for folder in lab.folder.rglob("MLmodel") if model.model_id in str(folder)]
        assert f"artifact_path: {model.artifact_location}\n" in folder.read_text()


def test_copies_of_nested_runs_name_their_copied_parent(lab: Lab) -> None:
    source, target = lab.experiment("credit_production"), lab.experiment("credit_delivery")
    parent = lab.run(source, "parent")
    child = lab.run(source, "child", **{"mlflow.parentRunId": parent})
    first = copy_change(lab, parent, source, target)
    second = copy_change(lab, child, source, target, first.copy_id)
    between, binding = there_and_back(lab, first, second)
    assert between.runs[binding[second.copy_id]].tags["mlflow.parentRunId"] == binding[first.copy_id]


@pytest.mark.parametrize("status", ["RUNNING", "SCHEDULED", "FAILED", "KILLED"])
def test_copy_keeps_the_status(lab: Lab, status: str) -> None:
    source, target = lab.experiment("credit_production"), lab.experiment("credit_delivery")
    run_id = lab.run(source, status="RUNNING")
    if status in ("FAILED", "KILLED"):
        lab.client.set_terminated(run_id, status=status, end_time=START + 5)
    elif status == "SCHEDULED":
        lab.client.update_run(run_id, status=status)
    change = copy_change(lab, run_id, source, target)
    between, binding = there_and_back(lab, change)
    assert between.runs[binding[change.copy_id]].status == status


def test_copy_into_an_experiment_at_a_place_of_its_own(lab: Lab) -> None:
    source = lab.experiment("credit_production")
    target = lab.client.create_experiment("credit_delivery", artifact_location=str(lab.folder / "elsewhere"))
    there_and_back(lab, copy_change(lab, lab.rich_run(source), source, target))
    assert not (lab.folder / ".quarantine").exists(), "what is taken back stays below the root that it was in"


def test_a_copy_that_fails_leaves_the_store_as_it_was(lab: Lab) -> None:
    source, target = lab.experiment("credit_production"), lab.experiment("credit_delivery")
    run_id = lab.rich_run(source)
    (lab.folder_of(run_id) / "zz_link").symlink_to(lab.folder_of(run_id) / "notes.txt")
    before = lab.everything()
    change = copy_change(lab, run_id, source, target)
    writer = StoreWriter(lab.store, {})
    with pytest.raises(ChangeError, match="is a link or a device"):
        writer.write(change)
    assert differences(before, lab.read(tuple(before.runs))) == []
    assert not [model for model in lab.client.search_logged_models([target]) if model.name == "twin"]


def test_retracting_also_takes_back_models_that_a_killed_copy_had_not_linked_yet(lab: Lab) -> None:
    """A program that is killed while it copies leaves an incomplete run, and models that only name it as their
    source.
    """
    source, target = lab.experiment("credit_production"), lab.experiment("credit_delivery")
    run_id = lab.run(source)
    before = lab.everything()
    tags = {"compliance.source_run_id": run_id, "compliance.copied_by": "j1", "compliance.copy": "incomplete"}
    begun = lab.run(target, status="RUNNING", **tags)
    model = lab.client.create_logged_model(
        target, name="begun", source_run_id=begun, tags={"compliance.source_model_id": "m-1"}
    )
    StoreWriter(lab.store, {}).write(RetractCopy(run_id, target, "j1"))
    assert differences(before, lab.read(tuple(before.runs))) == []
    assert model.model_id not in {found.model_id for found in lab.client.search_logged_models([target])}


def test_a_retracted_copy_stays_deleted_when_its_experiment_is_restored(lab: Lab) -> None:
    source, target = lab.experiment("credit_production"), lab.experiment("credit_delivery")
    change = copy_change(lab, lab.run(source), source, target)
    inverses, _, _ = lab.carry_out(change)
    lab.carry_out(*inverses)
    there_and_back(lab, delete(lab, target))
    assert [run.info.lifecycle_stage for run in lab.runs(target)] == ["deleted"]


@pytest.fixture
def twice(lab: Lab) -> tuple[str, str, str]:
    """Two runs with the same file, and its hash."""
    key = lab.experiment("dev")
    paths = [str(lab.folder_of(lab.run(key, files={"data/same.bin": BIG})) / "data" / "same.bin") for _ in range(2)]
    kept, path = sorted(paths)
    artifacts = lab.read().artifacts
    assert artifacts is not None
    return kept, path, artifacts.hashes[path]


def test_link_and_unlink_duplicate(lab: Lab, twice: tuple[str, str, str]) -> None:
    kept, path, digest = twice
    os.utime(path, ns=(10**18, 10**18))
    Path(path).chmod(0o640)
    between, _ = there_and_back(lab, LinkDuplicate(path, kept, digest, len(BIG)))
    assert between.artifacts is not None
    assert between.artifacts.duplicates() == []
    state = os.stat(path)
    assert (state.st_mode & 0o777, state.st_mtime_ns, state.st_nlink) == (0o640, 10**18, 1)
    assert Path(path).read_bytes() == Path(kept).read_bytes() == BIG


def test_quarantine_and_restore(lab: Lab) -> None:
    folder = lab.stray("2" * 32, {"artifacts/a.bin": BIG, "artifacts/deep/b.bin": BIG, "artifacts/ü \n.txt": b"x"})
    item = lab.read().artifacts.ownerless[str(folder)]  # type: ignore[union-attr]
    between, _ = there_and_back(lab, MoveToQuarantine(str(folder), str(lab.mlruns), item.files, item.size))
    assert between.artifacts is not None
    assert not between.artifacts.ownerless
    assert not [path for path in lab.mlruns.rglob("*.bin") if ".quarantine" in path.parts]


def test_claim_and_release(lab: Lab) -> None:
    lab.run("0", files={"a.bin": BIG})
    note = lab.mlruns / ".compliance-owner"
    between, _ = there_and_back(lab, ClaimRoot(str(lab.mlruns)))
    assert between.artifacts is not None
    assert between.artifacts.claimed == {str(lab.mlruns)}
    assert not note.exists()
    # Over the note of another store, which counts again when this one is taken back.
    note.write_text('{"database": "another", "store": "sqlite:////other.db", "inode": 0}\n')
    before = (note.read_bytes(), note.stat().st_ino)
    there_and_back(lab, ClaimRoot(str(lab.mlruns), insisted=True))
    assert (note.read_bytes(), note.stat().st_ino) == before


def test_quarantine_of_files_whose_names_are_no_text(lab: Lab) -> None:
    folder = lab.stray("2" * 32, {"artifacts/a.bin": BIG})
    odd = os.fsencode(folder / "artifacts") + b"/caf\xe9.bin"
    with open(odd, "wb") as file:
        file.write(BIG)
    item = lab.read().artifacts.ownerless[str(folder)]  # type: ignore[union-attr]
    there_and_back(lab, MoveToQuarantine(str(folder), str(lab.mlruns), item.files, item.size))


def test_given_back_and_put_aside_again(lab: Lab) -> None:
    key = lab.experiment("one")
    run_id = lab.run(key, files={"a.bin": BIG, "deep/ü \n.txt": b"x"})
    model = lab.model(key, run_id, files={"weights.bin": BIG + b"1"})
    folders = [lab.folder_of(run_id).parent, lab.location_of(model).parent]
    for folder in folders:
        target = lab.mlruns / ".quarantine" / "20250101T000000Z-000000" / folder.relative_to(lab.mlruns)
        write_manifest(str(folder), str(target), str(lab.mlruns))
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
    before = lab.read().artifacts
    assert before is not None
    assert [item.reason for item in before.unreachable] == [f"the folder {lab.location_of(model)} does not exist here"]
    items = list(before.quarantined.values())
    assert [item.owner.key for item in items] == [run_id, model]
    between, _ = there_and_back(
        lab, *(GiveBack(item.former, item.path, item.root, len(item.files), item.size) for item in items)
    )
    assert between.artifacts is not None
    assert not between.artifacts.quarantined
    assert not between.artifacts.unreachable
    assert all((folder / "artifacts").is_dir() is False for folder in folders), "it was put aside again"


Behind = Callable[[Lab, dict[str, str]], Any]

BEHIND_ITS_BACK: dict[str, Behind] = {
    "an experiment renamed": lambda lab, ids: lab.client.rename_experiment(ids["scratch"], "other"),
    "an experiment tagged": lambda lab, ids: lab.client.set_experiment_tag(ids["scratch"], "a", "b"),
    "an experiment more": lambda lab, ids: lab.experiment("more"),
    "an experiment deleted": lambda lab, ids: lab.client.delete_experiment(ids["scratch"]),
    "a run more": lambda lab, ids: lab.run(ids["scratch"]),
    "a run deleted": lambda lab, ids: lab.client.delete_run(ids["run"]),
    "a run tagged": lambda lab, ids: lab.client.set_tag(ids["run"], "a", "b"),
    "a metric point more": lambda lab, ids: lab.client.log_metric(
        ids["run"], "loss", 0.125, timestamp=START + 1, step=77
    ),
    "a parameter more": lambda lab, ids: lab.client.log_param(ids["run"], "more", "1"),
    "another end time": lambda lab, ids: lab.client.set_terminated(ids["run"], end_time=START + 60_001),
    "a logged model deleted": lambda lab, ids: lab.client.delete_logged_model(ids["model"]),
    "a logged model tagged": lambda lab, ids: lab.client.set_logged_model_tags(ids["model"], {"a": "b"}),
    "an alias moved": lambda lab, ids: lab.client.delete_registered_model_alias("scorer", "champion"),
    "a version more": lambda lab, ids: lab.registered("scorer", str(lab.folder_of(ids["run"]) / "model")),
    "a version tagged": lambda lab, ids: lab.client.set_model_version_tag("scorer", "1", "a", "b"),
    "a file more": lambda lab, ids: (lab.folder_of(ids["run"]) / "more.txt").write_bytes(b"x"),
    "a file removed": lambda lab, ids: (lab.folder_of(ids["run"]) / "notes.txt").unlink(),
    "a file longer": lambda lab, ids: (lab.folder_of(ids["run"]) / "notes.txt").write_bytes(b"longer than before"),
    "a duplicate with another byte": lambda lab, ids: (lab.folder_of(ids["run"]) / "data" / "big.bin").write_bytes(
        b"X" + BIG[1:]
    ),
    "a link parted": lambda lab, ids: _part(Path(ids["linked"])),
    "a folder that nobody owns": lambda lab, ids: lab.stray("9" * 32, {"artifacts/a.txt": b"x"}),
    "a folder of nobody's gone": lambda lab, ids: shutil.rmtree(ids["stray"]),
}


def _part(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("name", BEHIND_ITS_BACK)
def test_differences_sees_what_changed_behind_its_back(lab: Lab, name: str) -> None:
    """This comparison is what guards users from a repair that did something else than it said."""
    scratch = lab.experiment("scratch")
    run_id = lab.rich_run(scratch, stage="production")
    lab.run(scratch, files={"data/big.bin": BIG})
    linked = lab.folder_of(run_id) / "linked.bin"
    os.link(lab.folder_of(run_id) / "data" / "deep" / "er" / "größe 1.csv", linked)
    model = next(iter(lab.read([run_id], artifacts=False).models_of(run_id))).model_id
    lab.registered("scorer", f"models:/{model}", run_id, alias="champion")
    stray = lab.stray("8" * 32, {"artifacts/a.txt": b"x"})
    expected = lab.read()
    assert differences(expected, lab.read(tuple(expected.runs))) == []
    BEHIND_ITS_BACK[name](
        lab, {"scratch": scratch, "run": run_id, "model": model, "linked": str(linked), "stray": str(stray)}
    )
    assert differences(expected, lab.read(tuple(expected.runs)))


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
PATHS = st.binary(min_size=1, max_size=20).map(lambda raw: "/mlruns/" + os.fsdecode(raw.replace(b"\0", b"")))
NUMBERS = st.integers(0, 2**63 - 1)
DIGESTS = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple)
FILES = st.lists(st.tuples(PATHS, NUMBERS, DIGESTS), max_size=2).map(tuple)
EVERY_CHANGE: dict[str, st.SearchStrategy[Change]] = {
    "SetExperimentTag": st.builds(SetExperimentTag, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT),
    "RenameExperiment": st.builds(RenameExperiment, TEXT, TEXT, TEXT),
    "DeleteExperiment": st.builds(DeleteExperiment, TEXT),
    "RestoreExperiment": st.builds(
        RestoreExperiment,
        TEXT,
        st.lists(TEXT, max_size=2).map(tuple),
        st.lists(st.tuples(st.sampled_from(["active", "deleted"]), TEXT, NUMBERS), max_size=2).map(tuple),
    ),
    "RenameDeletedExperiment": st.builds(RenameDeletedExperiment, TEXT, TEXT, TEXT),
    "RestoreRun": st.builds(RestoreRun, TEXT, TEXT),
    "DeleteRun": st.builds(DeleteRun, TEXT, TEXT, st.tuples(st.tuples(TEXT, NUMBERS)), st.none() | NUMBERS, PAIRS),
    "PutAliasBack": st.builds(PutAliasBack, TEXT, TEXT, TEXT),
    "EndRun": st.builds(EndRun, TEXT, TEXT, TEXT, NUMBERS, TEXT),
    "ReopenRun": st.builds(ReopenRun, TEXT, TEXT, TEXT, NUMBERS, TEXT, st.none() | NUMBERS),
    "CopyRun": st.builds(CopyRun, TEXT, TEXT, TEXT, TEXT, TEXT, st.none() | TEXT),
    "RetractCopy": st.builds(RetractCopy, TEXT, TEXT, TEXT, PAIRS, st.tuples(PATHS)),
    "SetRunTag": st.builds(SetRunTag, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT),
    "RegisterVersion": st.builds(RegisterVersion, TEXT, TEXT, TEXT, TEXT, st.booleans()),
    "RetractVersion": st.builds(RetractVersion, TEXT, TEXT, st.booleans(), TEXT),
    "SetAlias": st.builds(SetAlias, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT),
    "LogProductionRun": st.builds(
        LogProductionRun,
        product=TEXT,
        name=TEXT,
        experiment_id=TEXT,
        at=NUMBERS,
        user=TEXT,
        params=st.dictionaries(TEXT, TEXT, max_size=2),
        metrics=st.dictionaries(TEXT, st.floats(allow_nan=False, allow_infinity=False), max_size=2),
        tags=st.dictionaries(TEXT, TEXT, max_size=2),
        datasets=st.lists(
            st.builds(DatasetInput, TEXT, TEXT, TEXT, TEXT, st.none() | TEXT, TEXT, PAIRS), max_size=1
        ).map(tuple),
        model_name=TEXT,
        bundle=PATHS,
        files=FILES,
        model_files=FILES,
        metadata=TEXT,
    ),
    "RewriteLocations": st.builds(
        RewriteLocations,
        TEXT,
        PATHS,
        NUMBERS,
        st.lists(
            st.builds(
                Rewriting,
                st.sampled_from(["run", "model_version"]),
                st.lists(TEXT, max_size=2).map(tuple),
                PATHS,
                PATHS,
            ),
            max_size=2,
        ).map(tuple),
        st.booleans(),
    ),
    "RetractProductionRun": st.builds(RetractProductionRun, TEXT, TEXT, TEXT, PAIRS, st.tuples(PATHS)),
    "SignModel": st.builds(SignModel, PATHS, PATHS, TEXT, TEXT, DIGESTS, st.dictionaries(TEXT, DIGESTS, max_size=2)),
    "RetractSignature": st.builds(RetractSignature, PATHS, PATHS, DIGESTS, TEXT),
    "LinkDuplicate": st.builds(LinkDuplicate, PATHS, PATHS, DIGESTS, NUMBERS),
    "UnlinkDuplicate": st.builds(
        UnlinkDuplicate, PATHS, PATHS, DIGESTS, NUMBERS, NUMBERS, NUMBERS, st.booleans(), st.tuples(PATHS)
    ),
    "ClaimRoot": st.builds(ClaimRoot, PATHS, st.booleans()),
    "ReleaseRoot": st.builds(ReleaseRoot, PATHS, TEXT),
    "MoveToQuarantine": st.builds(MoveToQuarantine, PATHS, PATHS, NUMBERS, NUMBERS),
    "PointToCopy": st.builds(PointToCopy, PATHS, PATHS, PATHS, DIGESTS, NUMBERS),
    "RetractPointer": st.builds(RetractPointer, PATHS, PATHS, PATHS, DIGESTS, NUMBERS, TEXT),
    "RemoveRepeatedPoints": st.builds(RemoveRepeatedPoints, PATHS, TEXT, TEXT, TEXT, NUMBERS, DIGESTS, NUMBERS),
    "RestoreMetricFile": st.builds(
        RestoreMetricFile, PATHS, TEXT, TEXT, TEXT, NUMBERS, TEXT, DIGESTS, NUMBERS, DIGESTS, NUMBERS
    ),
    "GiveBack": st.builds(GiveBack, PATHS, PATHS, PATHS, NUMBERS, NUMBERS),
    "PutAsideAgain": st.builds(PutAsideAgain, PATHS, PATHS, PATHS, NUMBERS, NUMBERS, DIGESTS, st.tuples(PATHS)),
    "RestoreFromQuarantine": st.builds(
        RestoreFromQuarantine, PATHS, PATHS, PATHS, st.lists(st.tuples(PATHS, NUMBERS), max_size=2).map(tuple)
    ),
}


def test_every_kind_of_change_is_held_to_the_laws_here() -> None:
    assert EVERY_CHANGE.keys() == Change.kinds.keys()


THERE_AND_BACK: dict[str, tuple[str, str]] = {
    # the test that makes it, takes it back, makes it again and takes it back again: its inverse is held there too
    "SetExperimentTag": ("SetExperimentTag", "changes/test_laws.py::test_set_experiment_tag"),
    "RenameExperiment": ("RenameExperiment", "changes/test_laws.py::test_rename_experiment"),
    "DeleteExperiment": (
        "RestoreExperiment",
        "changes/test_laws.py::test_trap_21_restoring_leaves_deleted_what_had_been_deleted_before",
    ),
    "RestoreExperiment": ("DeleteExperiment", "changes/test_restoring.py::test_restore_default_without_its_runs"),
    "RenameDeletedExperiment": (
        "RenameDeletedExperiment",
        "changes/test_restoring.py::test_rename_a_deleted_experiment",
    ),
    "RestoreRun": ("DeleteRun", "changes/test_restoring.py::test_restore_a_run"),
    "EndRun": ("ReopenRun", "changes/test_laws.py::test_end_and_reopen_run"),
    "SetRunTag": ("SetRunTag", "changes/test_registry.py::test_set_run_tag"),
    "CopyRun": ("RetractCopy", "changes/test_laws.py::test_copy_run_copies_everything_and_retracts_it"),
    "RegisterVersion": ("RetractVersion", "changes/test_registry.py::test_register_and_alias"),
    "SetAlias": ("PutAliasBack", "changes/test_restoring.py::test_an_alias_of_a_version_that_is_not_there"),
    "LogProductionRun": ("RetractProductionRun", "changes/test_production.py::test_there_and_back"),
    "RewriteLocations": ("RewriteLocations", "changes/test_locations.py::test_the_laws_hold_whatever_moved"),
    "SignModel": ("RetractSignature", "changes/test_signatures.py::test_signed_and_taken_back"),
    "LinkDuplicate": ("UnlinkDuplicate", "changes/test_laws.py::test_link_and_unlink_duplicate"),
    "MoveToQuarantine": ("RestoreFromQuarantine", "changes/test_laws.py::test_quarantine_and_restore"),
    "GiveBack": ("PutAsideAgain", "changes/test_laws.py::test_given_back_and_put_aside_again"),
    "ClaimRoot": ("ReleaseRoot", "changes/test_laws.py::test_claim_and_release"),
    "PointToCopy": (
        "RetractPointer",
        "store/storage/test_buckets.py::test_pointers_keep_the_laws_and_settle_duplicates",
    ),
    "RemoveRepeatedPoints": (
        "RestoreMetricFile",
        "store/storage/test_metric_files.py::test_the_change_keeps_the_laws_and_refuses_a_file_that_changed",
    ),
}
"""Change -> its inverse, and where both are held to the law, twice."""


def test_every_kind_of_change_is_made_and_taken_back_twice_somewhere() -> None:
    assert {*THERE_AND_BACK, *(inverse for inverse, _ in THERE_AND_BACK.values())} == Change.kinds.keys()
    for kind, (_, place) in THERE_AND_BACK.items():
        path, _, name = place.partition("::")
        text = (Path(__file__).parents[1] / path).read_text("utf-8")
        (body,) = re.findall(rf"^def {name}\(.*?(?=^def |^@|\Z)", text, re.DOTALL | re.MULTILINE)
        assert "there_and_back(" in body, kind


@pytest.mark.parametrize("kind", EVERY_CHANGE)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_journal_line_brings_the_change_back(kind: str, data: st.DataObject) -> None:
    change = data.draw(EVERY_CHANGE[kind])
    line = json.dumps(dump(change))
    assert line.isascii()
    assert "\n" not in line
    assert load(json.loads(line)) == change


def test_a_change_of_another_version_is_named() -> None:
    with pytest.raises(ChangeError, match="'PurgeRun'"):
        load({"kind": "PurgeRun", "run_id": "1"})


NAMES = ("credit_production", "scratch", "third")
STEP = st.one_of(
    st.tuples(
        st.just("tag"), st.sampled_from("12"), st.sampled_from(["a", "b"]), st.none() | st.sampled_from(["x", "y"])
    ),
    st.tuples(st.just("rename"), st.sampled_from("12"), st.sampled_from(NAMES)),
    st.tuples(st.sampled_from(["delete", "copy", "end", "claim", "quarantine", "link"]), st.sampled_from("12")),
)


def next_change(step: tuple[Any, ...], now: Snapshot) -> Change | None:
    """The change that a step asks for, where it makes sense in a snapshot."""
    kind, key = step[0], step[1]
    artifacts, experiment, target = now.artifacts, now.experiments[key], "2" if key == "1" else "1"
    assert artifacts is not None
    if kind == "tag":
        before = experiment.tags.get(step[2])
        return SetExperimentTag(key, step[2], step[3], before) if before != step[3] else None
    if kind == "rename":
        return RenameExperiment(key, step[2], experiment.name)
    if kind == "delete":
        return DeleteExperiment(key, experiment.count())
    if kind == "copy":
        run = next((run for run in now.runs_of(key) if "⟨" not in run.run_id), None)
        known = run is not None and any(
            item.tags.get("compliance.source_run_id") == run.run_id for item in now.runs.values()
        )
        return CopyRun(run.run_id, target, key, experiment.name, run.user) if run and not known else None
    if kind == "end":
        run = next((run for run in now.runs_of(key) if run.status == "RUNNING" and "⟨" not in run.run_id), None)
        return EndRun(run.run_id, key, "KILLED", now.last_known_time(run)) if run else None
    if kind == "quarantine":
        item = next(iter(artifacts.ownerless.values()), None)
        return (
            MoveToQuarantine(item.path, artifacts.roots[int(item.root)].path, item.files, item.size) if item else None
        )
    if kind == "claim":
        root = next((root.path for root in artifacts.roots if root.path not in artifacts.claimed), None)
        return ClaimRoot(root) if root else None
    group = next(iter(artifacts.duplicates()), None)
    return LinkDuplicate(artifacts.extras(group)[0], group.paths[0], group.sha256, group.size) if group else None


@given(steps=st.lists(STEP, min_size=2, max_size=8))
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_any_sequence_of_changes_keeps_the_laws(make_lab: Callable[[], Lab], steps: list[tuple[Any, ...]]) -> None:
    lab = make_lab()
    for name in NAMES[:2]:
        key = lab.experiment(name)
        lab.run(key, files={"data/same.bin": BIG, "small.txt": name.encode()}, metrics={"auc": 0.5})
        lab.run(key, status="RUNNING")
        lab.client.delete_run(lab.run(key))
    lab.stray("7" * 32, {"artifacts/a.bin": BIG})
    start = now = lab.everything()
    changes: list[Change] = []
    for step in steps:
        change = next_change(step, now)
        try:
            now = change.predict(now) if change else now
        except ChangeError:
            continue  # refused when planned: nothing to write
        changes += [change] if change else []
    inverses, _, _ = lab.carry_out(*changes, start=start)
    writer = StoreWriter(lab.store, {})
    for inverse in reversed(inverses):
        writer.write(inverse)
    assert differing(start, lab.read(tuple(start.runs))) == []
