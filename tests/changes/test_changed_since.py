"""What somebody changed since a repair made it is left as it is when the repair is taken back, and told in one
sentence.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evidence import differing as unlike
from evidence import files_of
from living import traced
from mlflow.entities import AssessmentSource, Feedback, LoggedModelInput
from repairs import carry_out, plan_for
from stores import BIG, START, Lab, copy_change, delete, differing
from undoing import undo

from mlflow_compliance.changes import (
    Change,
    ClaimRoot,
    CopyRun,
    DeleteRun,
    EndRun,
    GiveBack,
    LinkDuplicate,
    MoveToQuarantine,
    RegisterVersion,
    RenameExperiment,
    RestoreRun,
    RetractCopy,
    SetAlias,
    dump,
    load,
)
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.diff import differences
from mlflow_compliance.store.storage.manifests import write_manifest
from mlflow_compliance.store.write.registry import default_store
from mlflow_compliance.store.write.writer import StoreWriter

PARENT = "mlflow.parentRunId"
Meanwhile = Callable[[Lab, str], Any]


def told(lab: Lab, inverse: Change) -> str:
    """Why a change is not taken back; the store stays as it is."""
    before, files = lab.everything(), files_of(lab.mlruns)
    with pytest.raises(ChangeError) as error:
        StoreWriter(lab.store, {}).write(load(dump(inverse)))
    assert differing(before, lab.read(tuple(before.runs))) == []
    assert unlike(files, files_of(lab.mlruns)) == {}
    return str(error.value)


def write(lab: Lab, change: Change) -> tuple[Change, dict[str, str]]:
    """Carry a change out; its inverse, and what it bound."""
    inverses, _, binding = lab.carry_out(change)
    return inverses[0], binding


def the_model(lab: Lab, run_id: str) -> str:
    models = lab.client.search_logged_models(["2"], filter_string=f"source_run_id = '{run_id}'")
    return str(min(model.model_id for model in models))


def assess(lab: Lab, run_id: str) -> None:
    trace = traced(lab, "1", "", START)
    source = AssessmentSource("HUMAN", "ann")
    given = {"mlflow.assessment.sourceRunId": run_id}
    feedback = Feedback(name="right", value=True, trace_id=trace, source=source, metadata=given)
    lab.client._tracking_client.store.create_assessment(feedback)


def more_metrics_of_a_model(lab: Lab, run_id: str) -> None:
    lab.client.log_metric(run_id, "late", 1.0, model_id=the_model(lab, run_id))


def read_by_another(lab: Lab, run_id: str) -> None:
    lab.client.log_inputs(lab.run("1", status="RUNNING"), models=[LoggedModelInput(the_model(lab, run_id))])


TO_A_COPY: dict[str, tuple[Meanwhile, str]] = {
    # what somebody did to the copy: what the sentence says
    "a param": (lambda lab, run_id: lab.client.log_param(run_id, "late", "1"), "got other params since"),
    "a metric": (lambda lab, run_id: lab.client.log_metric(run_id, "late", 1.0), "got other metrics since"),
    "a tag": (lambda lab, run_id: lab.client.set_tag(run_id, "mine", "1"), "got other tags since"),
    "another description": (lambda lab, run_id: lab.client.set_tag(run_id, "note", "x"), "got other tags since"),
    "its mark": (lambda lab, run_id: lab.client.set_tag(run_id, "compliance.copy", "mine"), "got other tags since"),
    "another name": (lambda lab, run_id: lab.client.update_run(run_id, name="mine"), "name or user"),
    "another end": (lambda lab, run_id: lab.client.set_terminated(run_id, end_time=START), "status or times"),
    "a model": (lambda lab, run_id: lab.model("2", run_id, "late"), "logged models, models read or written"),
    "a tag of a model": (
        lambda lab, run_id: lab.client.set_logged_model_tags(the_model(lab, run_id), {"a": "b"}),
        "got other logged models since",
    ),
    "a metric of a model": (more_metrics_of_a_model, "logged models, metrics"),
    "a file": (lambda lab, run_id: (lab.folder_of(run_id) / "late.txt").write_bytes(b"x"), "got other artifacts"),
    "a file written anew": (
        lambda lab, run_id: (lab.folder_of(run_id) / "notes.txt").write_bytes(b"SHORT"),
        "got other artifacts",
    ),
    "a file gone": (lambda lab, run_id: (lab.folder_of(run_id) / "notes.txt").unlink(), "got other artifacts"),
    "another MLmodel": (
        lambda lab, run_id: (lab.location_of(the_model(lab, run_id)) / "MLmodel").open("ab").write(b"more: 1\n"),
        "got other artifacts",
    ),
    "a file of a model": (
        lambda lab, run_id: (lab.location_of(the_model(lab, run_id)) / "more.bin").write_bytes(b"x"),
        "got other artifacts",
    ),
    "a child": (lambda lab, run_id: lab.run("1", "child", **{PARENT: run_id}), "names it as its parent"),
    "a trace": (lambda lab, run_id: traced(lab, "1", run_id, START), "was logged for it"),
    "an assessment": (assess, "has assessments"),
    "a reader": (read_by_another, "read a model of it"),
    "a version of its model": (
        lambda lab, run_id: lab.registered("mine", f"models:/{the_model(lab, run_id)}", alias="champion"),
        "version 1 of registered model 'mine' was made of it",
    ),
    "a version of its folder": (
        lambda lab, run_id: lab.registered("mine", str(lab.folder_of(run_id) / "model")),
        "version 1 of registered model 'mine' was made of it",
    ),
    "deleted": (lambda lab, run_id: lab.client.delete_run(run_id), "was deleted by somebody"),
}


ONLY_WRITING_SEES = {
    *(name for name in TO_A_COPY if "file" in name),
    "another MLmodel",
    "a child",
    "a trace",
    "an assessment",
    "a reader",
    "a version of its folder",
    "deleted",
}
"""The rows of a snapshot do not tell: a dry run says that it would be taken back."""


@pytest.fixture
def copied(lab: Lab) -> tuple[CopyRun, Change, str]:
    """A rich run copied: the change, its inverse, the id of the copy."""
    source, target = lab.experiment("credit_production"), lab.experiment("credit_delivery")
    run_id = lab.rich_run(source, stage="production")
    change = copy_change(lab, run_id, source, target)
    inverse, binding = write(lab, change)
    return change, inverse, binding[change.copy_id]


@pytest.mark.parametrize("name", TO_A_COPY)
def test_a_copy_that_somebody_went_on_with_stays(lab: Lab, copied: tuple[CopyRun, Change, str], name: str) -> None:
    _, inverse, copy = copied
    meanwhile, sentence = TO_A_COPY[name]
    meanwhile(lab, copy)
    said = told(lab, inverse)
    assert sentence in said
    assert "the copy of run" in said
    if name not in ONLY_WRITING_SEES:
        with pytest.raises(ChangeError) as error:
            inverse.predict(lab.everything())
        assert str(error.value) == said.replace("artifacts, ", "")
    assert copy in said or name == "deleted"


@pytest.mark.parametrize("how", ["deleted", "with its experiment"])
def test_a_copy_stays_while_its_source_is_deleted(lab: Lab, copied: tuple[CopyRun, Change, str], how: str) -> None:
    change, inverse, copy = copied
    if how == "deleted":
        lab.client.delete_run(change.run_id)
    else:
        lab.client.delete_experiment("1")
    assert told(lab, inverse) == f"run {change.run_id} is deleted or gone, so its copy {copy} stays"


def test_what_a_source_got_since_keeps_no_copy(lab: Lab, copied: tuple[CopyRun, Change, str]) -> None:
    change, inverse, copy = copied
    lab.client.set_tag(change.run_id, "mine", "1")
    (lab.folder_of(change.run_id) / "late.txt").write_bytes(b"x")
    StoreWriter(lab.store, {}).write(inverse)
    assert lab.client.get_run(copy).info.lifecycle_stage == "deleted"


def test_a_journal_without_digests_is_held_against_the_source(lab: Lab, copied: tuple[CopyRun, Change, str]) -> None:
    """As versions before this wrote them."""
    change, inverse, copy = copied
    assert isinstance(inverse, RetractCopy)
    old = RetractCopy(change.run_id, "2", inverse.journal)
    lab.client.set_tag(copy, "mine", "1")
    assert "got other tags since" in told(lab, old)
    lab.client.delete_tag(copy, "mine")
    StoreWriter(lab.store, {}).write(old)
    assert lab.client.get_run(copy).info.lifecycle_stage == "deleted"


def test_a_copy_that_was_begun_to_be_taken_back_is_finished(lab: Lab, copied: tuple[CopyRun, Change, str]) -> None:
    _, inverse, copy = copied
    lab.client.set_tag(copy, "compliance.copy", "retracted")
    lab.client.delete_logged_model(the_model(lab, copy))
    writer = StoreWriter(lab.store, {})
    writer.write(inverse)
    assert lab.client.get_run(copy).info.lifecycle_stage == "deleted"
    writer.write(inverse)


def test_an_ended_run_that_went_on_stays(lab: Lab) -> None:
    key = lab.experiment("work")
    run_id = lab.run(key, status="RUNNING")
    inverse, _ = write(lab, EndRun(run_id, key, "KILLED", START + 1000))
    lab.client.set_terminated(run_id, status="FINISHED", end_time=START + 9)
    assert f"run {run_id} is active and FINISHED with the end {START + 9} by now" in told(lab, inverse)


def test_a_run_that_goes_on_after_an_end_has_that_end_again(lab: Lab) -> None:
    """MLflow leaves the end of a run that is resumed in its row."""
    key = lab.experiment("work")
    run_id = lab.run(key, status="RUNNING")
    lab.sql("UPDATE runs SET end_time = ? WHERE run_uuid = ?", START + 5, run_id)
    inverse, _ = write(lab, EndRun(run_id, key, "KILLED", START + 1000))
    StoreWriter(lab.store, {}).write(inverse)
    info = lab.client.get_run(run_id).info
    assert (info.status, info.end_time) == ("RUNNING", START + 5)


def restored(lab: Lab, key: str) -> None:
    lab.client.restore_experiment(key)
    lab.run(key, "new")


TO_A_RETIRED: dict[str, tuple[Meanwhile, str]] = {
    "restored": (restored, "is active by now, which somebody restored"),
    "a run restored": (
        lambda lab, key: lab.client.restore_run(lab.runs(key)[0].info.run_id),
        "1 of the runs of experiment 1 were restored by somebody",
    ),
    "renamed": (
        lambda lab, key: lab.sql("UPDATE experiments SET name = 'mine' WHERE experiment_id = ?", key),
        "is now named 'mine' and was deleted as 'work'",
    ),
}


@pytest.mark.parametrize("name", TO_A_RETIRED)
def test_a_retired_experiment_that_somebody_changed_stays(lab: Lab, name: str) -> None:
    key = lab.experiment("work")
    lab.run(key)
    inverse, _ = write(lab, delete(lab, key))
    meanwhile, sentence = TO_A_RETIRED[name]
    meanwhile(lab, key)
    assert sentence in told(lab, inverse)


def test_runs_that_were_deleted_before_keep_the_day_of_it(lab: Lab) -> None:
    """MLflow dates every run of an experiment anew that it deletes or restores."""
    key = lab.experiment("work")
    run_id, _ = lab.run(key), lab.run(key)
    lab.client.delete_run(run_id)
    lab.sql("UPDATE runs SET deleted_time = 1000 WHERE run_uuid = ?", run_id)
    inverse, _ = write(lab, delete(lab, key))
    between = lab.read().artifacts
    assert between is not None
    assert between.deleted_runs[run_id] == 1000
    StoreWriter(lab.store, {}).write(inverse)
    after = lab.read().artifacts
    assert after is not None
    assert after.deleted_runs == {run_id: 1000}


def test_a_restored_run_that_somebody_went_on_with_stays(lab: Lab) -> None:
    key = lab.experiment("work")
    run_id = lab.run(key, files={"a.txt": b"a"})
    lab.run(key, **{PARENT: run_id})
    lab.client.delete_run(run_id)
    lab.sql("UPDATE runs SET deleted_time = 1000 WHERE run_uuid = ?", run_id)
    inverse, _ = write(lab, RestoreRun(run_id, key))
    assert isinstance(inverse, DeleteRun)
    assert (inverse.children, inverse.deleted_at) == (((key, 1),), 1000)
    lab.client.log_metric(run_id, "late", 1.0)
    assert "got other metrics since it was restored" in told(lab, inverse)
    lab.sql("DELETE FROM metrics WHERE run_uuid = ?", run_id)
    lab.sql("DELETE FROM latest_metrics WHERE run_uuid = ?", run_id)
    child = lab.run(key, **{PARENT: run_id})
    assert "got other child runs since it was restored" in told(lab, inverse)
    lab.client.delete_run(child)
    StoreWriter(lab.store, {}).write(inverse)
    artifacts = lab.read().artifacts
    assert artifacts is not None
    assert artifacts.deleted_runs[run_id] == 1000


def test_a_name_that_somebody_took_is_theirs(lab: Lab) -> None:
    key = lab.experiment("work")
    inverse, _ = write(lab, RenameExperiment(key, "work (retired)", "work"))
    other = lab.experiment("work")
    sentence = f"the name 'work' is taken by experiment {other} by now: experiment {key} stays 'work (retired)'"
    assert told(lab, inverse) == sentence
    lab.client.delete_experiment(other)
    assert "is taken by deleted experiment" in told(lab, inverse)


TO_A_VERSION: dict[str, tuple[Meanwhile, str]] = {
    "an alias": (
        lambda lab, number: lab.client.set_registered_model_alias("credit", "mine", number),
        "version 1, got the alias 'mine' since",
    ),
    "a tag": (
        lambda lab, number: lab.client.set_model_version_tag("credit", number, "a", "b"),
        "got the tag 'a' since",
    ),
    "a description": (
        lambda lab, number: lab.client.update_model_version("credit", number, "mine"),
        "got a description since",
    ),
    "a stage": (
        lambda lab, number: lab.client.transition_model_version_stage("credit", number, "Staging"),
        "got the stage Staging since",
    ),
    "its mark taken off": (
        lambda lab, number: lab.client.delete_model_version_tag("credit", number, "compliance.built_in"),
        "does not say any more that",
    ),
    "a description of the model": (
        lambda lab, number: lab.client.update_registered_model("credit", "mine"),
        "registered model 'credit' got a description, tags or aliases",
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", TO_A_VERSION)
def test_a_version_that_somebody_uses_stays(lab: Lab, name: str) -> None:
    key = lab.experiment("work")
    run_id = lab.run(key)
    change = RegisterVersion("credit", lab.model(key, run_id), run_id, key, makes_model=True)
    inverse, binding = write(lab, change)
    meanwhile, sentence = TO_A_VERSION[name]
    meanwhile(lab, binding[change.version])
    said = told(lab, inverse)
    assert sentence in said
    if "description" not in name and "mark" not in name:
        with pytest.raises(ChangeError) as error:
            inverse.predict(lab.everything())
        assert str(error.value) == said.replace("artifacts, ", "")


def test_a_version_that_somebody_made_of_the_same_model_stays_alone(lab: Lab) -> None:
    key = lab.experiment("work")
    run_id = lab.run(key)
    model = lab.model(key, run_id)
    change = RegisterVersion("it's", model, run_id, key, makes_model=True)
    inverse, binding = write(lab, change)
    with default_store(lab.uri):
        lab.client.create_model_version("it's", f"models:/{model}", run_id=run_id)
    StoreWriter(lab.store, {}).write(inverse)
    assert [item.version for item in lab.read().registered_models["it's"].versions] == ["2"]
    assert binding[change.version] == "1"


def test_an_alias_that_somebody_moved_stays(lab: Lab) -> None:
    key = lab.experiment("work")
    run_id = lab.run(key)
    model = lab.model(key, run_id)
    for _ in range(3):
        lab.registered("credit", f"models:/{model}", run_id)
    inverse, _ = write(lab, SetAlias("credit", "champion", "1", None))
    lab.client.set_registered_model_alias("credit", "champion", "3")
    assert "is now '3' and was '1'" in told(lab, inverse)


@pytest.fixture
def three(lab: Lab) -> list[Path]:
    """Three files with the same content and modes of their own."""
    key = lab.experiment("dev")
    paths = sorted(lab.folder_of(lab.run(key, files={"same.bin": BIG})) / "same.bin" for _ in range(3))
    for path, mode in zip(paths, (0o644, 0o640, 0o600), strict=True):
        path.chmod(mode)
    return paths


def links(lab: Lab, paths: list[Path]) -> list[Change]:
    artifacts = lab.read().artifacts
    assert artifacts is not None
    digest = artifacts.hashes[str(paths[0])]
    return [write(lab, LinkDuplicate(str(path), str(paths[0]), digest, len(BIG)))[0] for path in paths[1:]]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first to last", "last to first"])
def test_the_kept_file_gets_its_mode_back_with_the_last_link(lab: Lab, three: list[Path], order: Any) -> None:
    files, records = files_of(lab.mlruns), lab.read().artifacts
    inverses = links(lab, three)
    assert [path.stat().st_mode & 0o222 for path in three] == [0, 0, 0] or os.stat(three[0]).st_nlink == 1
    writer = StoreWriter(lab.store, {})
    shared = os.stat(three[0]).st_nlink > 1
    writer.write(inverses[order[0]])
    # A partial undo opens nothing that is still shared.
    assert (three[0].stat().st_mode & 0o777) == (0o444 if shared else 0o644)
    writer.write(inverses[order[1]])
    assert unlike(files, files_of(lab.mlruns)) == {}
    after = lab.read().artifacts
    assert after is not None
    assert records is not None
    assert after.recorded == records.recorded == {}


def test_a_mode_that_somebody_gave_the_kept_file_stays(lab: Lab, three: list[Path]) -> None:
    inverses = links(lab, three)
    three[0].chmod(0o660)
    for inverse in reversed(inverses):
        StoreWriter(lab.store, {}).write(inverse)
    assert three[0].stat().st_mode & 0o777 == 0o660


@pytest.mark.parametrize("linked", [(1, 2), (2, 3), (1, 2, 3)], ids=str)
def test_files_that_a_user_had_linked_are_one_file_again(lab: Lab, linked: tuple[int, ...]) -> None:
    """Whether all of them came to share the kept copy, which they do one after the other, or none yet."""
    key = lab.experiment("dev")
    paths = sorted(lab.folder_of(lab.run(key, files={"same.bin": BIG})) / "same.bin" for _ in range(4))
    for number in linked[1:]:
        paths[number].unlink()
        os.link(paths[linked[0]], paths[number])
    before, files = lab.everything(), files_of(lab.mlruns)
    plan = plan_for(lab, "ART001")
    done = carry_out(lab, plan)
    assert (done.differing, done.outcome.failed) == ([], [])
    assert len({path.stat().st_ino for path in paths}) == 1 or os.stat(paths[0]).st_nlink == 1
    assert undo(lab, done.lines) == []
    after = lab.read(tuple(before.runs))
    assert differences(before, after) == []
    assert differing(before, after) == []
    assert unlike(files, files_of(lab.mlruns)) == {}
    assert len({paths[number].stat().st_ino for number in linked}) == 1


def in_place(path: Path) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"overwritten")


def parted(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


TO_A_LINK: dict[str, tuple[Callable[[Path], Any], str]] = {
    "written to": (in_place, "was written to since it came to share the copy"),
    "parted": (parted, "is a copy of its own by now, which somebody made"),
    "a link elsewhere": (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), "is a symbolic link"),
    "gone": (lambda path: path.unlink(), "could not be read"),
}


@pytest.mark.parametrize("name", TO_A_LINK)
def test_a_shared_file_that_somebody_changed_is_left(lab: Lab, three: list[Path], name: str) -> None:
    meanwhile, sentence = TO_A_LINK[name]
    inverses = links(lab, three)
    meanwhile(three[1])
    before = {path: path.read_bytes() for path in three if path.exists()}
    with pytest.raises(ChangeError, match=sentence):
        StoreWriter(lab.store, {}).write(inverses[0])
    assert {path: path.read_bytes() for path in three if path.exists()} == before


def test_a_link_whose_kept_file_somebody_replaced_is_parted_all_the_same(lab: Lab, three: list[Path]) -> None:
    inverses = links(lab, three)
    parted(three[0])
    three[0].write_bytes(b"new")
    for inverse in reversed(inverses):
        StoreWriter(lab.store, {}).write(inverse)
    assert [path.stat().st_mode & 0o777 for path in three[1:]] == [0o640, 0o600]
    assert [path.read_bytes() for path in three] == [b"new", BIG, BIG]


def test_the_source_of_a_copy_gets_its_mode_back(lab: Lab) -> None:
    """Where files cannot be cloned the copy is a hard link, which nobody may write to."""
    source, target = lab.experiment("credit_production"), lab.experiment("credit_delivery")
    run_id = lab.rich_run(source)
    files = files_of(lab.mlruns)
    first = write(lab, copy_change(lab, run_id, source, target))[0]
    elsewhere = lab.experiment("credit_other")
    second = write(lab, copy_change(lab, run_id, source, elsewhere))[0]
    StoreWriter(lab.store, {}).write(first)
    assert isinstance(second, RetractCopy)
    StoreWriter(lab.store, {}).write(second)
    assert unlike(files, files_of(lab.mlruns)) == {}
    after = lab.read().artifacts
    assert after is not None
    assert after.recorded == {}
    (lab.folder_of(run_id) / "data" / "big.bin").write_bytes(b"X" * len(BIG))
    assert all(path.read_bytes() == BIG for path in lab.mlruns.glob(".quarantine/**/data/big.bin"))


def test_folders_that_a_copy_needed_go_with_it(lab: Lab) -> None:
    source, target = lab.experiment("credit_production"), lab.experiment("credit_delivery")
    change = copy_change(lab, lab.rich_run(source), source, target)
    inverse, _ = write(lab, change)
    assert (lab.mlruns / target / "models").is_dir()
    StoreWriter(lab.store, {}).write(inverse)
    assert not (lab.mlruns / target).exists()


def test_a_copy_in_an_experiment_whose_folder_has_another_name(lab: Lab) -> None:
    """It goes to the quarantine of the root that the inventory knows."""
    source = lab.experiment("credit_production")
    target = lab.client.create_experiment("credit_delivery", artifact_location=str(lab.mlruns / "plain"))
    before = lab.everything()
    inverse, _ = write(lab, copy_change(lab, lab.rich_run(source), source, target))
    StoreWriter(lab.store, {}).write(inverse)
    after = lab.read(tuple(before.runs)).artifacts
    assert after is not None
    assert after.ownerless == {}
    assert [str(path) for path in lab.folder.rglob(".quarantine")] == [str(lab.mlruns / ".quarantine")]


def test_what_came_to_the_former_place_of_something_in_quarantine_stays(lab: Lab) -> None:
    folder = lab.stray("2" * 32, {"artifacts/a.bin": BIG})
    inverse, _ = write(lab, MoveToQuarantine(str(folder), str(lab.mlruns), 1, len(BIG)))
    lab.stray("2" * 32, {"artifacts/b.bin": b"new"})
    assert f"something new lies at {folder}" in told(lab, inverse)


def test_what_somebody_changed_in_quarantine_stays_there(lab: Lab) -> None:
    folder = lab.stray("2" * 32, {"artifacts/a.bin": BIG})
    inverse, _ = write(lab, MoveToQuarantine(str(folder), str(lab.mlruns), 1, len(BIG)))
    (path,) = lab.mlruns.glob(".quarantine/**/a.bin")
    path.write_bytes(b"X" * len(BIG))
    assert "is not what was put aside any more" in told(lab, inverse)
    path.write_bytes(BIG)
    writer = StoreWriter(lab.store, {})
    writer.write(inverse)
    writer.write(inverse)  # a program that was killed in between begins it anew
    assert folder.is_dir()


def test_what_was_given_back_and_is_used_again_stays(lab: Lab) -> None:
    key = lab.experiment("one")
    run_id = lab.run(key, files={"a.bin": BIG})
    folder = lab.folder_of(run_id).parent
    target = lab.mlruns / ".quarantine" / "20250101T000000Z-000000" / folder.relative_to(lab.mlruns)
    write_manifest(str(folder), str(target), str(lab.mlruns))
    target.parent.mkdir(parents=True)
    folder.rename(target)
    folder.parent.rmdir()
    files = files_of(lab.mlruns)
    inverse, _ = write(lab, GiveBack(str(folder), str(target), str(lab.mlruns), 1, len(BIG)))
    late = folder / "artifacts" / "late.txt"
    late.write_bytes(b"x")
    assert "is not what was given back any more" in told(lab, inverse)
    late.unlink()
    StoreWriter(lab.store, {}).write(inverse)
    assert files_of(lab.mlruns).keys() == files.keys()


def test_a_note_that_somebody_wrote_after_ours_stays(lab: Lab) -> None:
    lab.run("0", files={"a.bin": BIG})
    inverse, _ = write(lab, ClaimRoot(str(lab.mlruns)))
    note = lab.mlruns / ".compliance-owner"
    with note.open("ab") as file:
        file.write(b'{"database": "another", "store": "sqlite:////other.db", "inode": 0, "journal": "j2"}\n')
    before = note.read_bytes()
    with pytest.raises(ChangeError, match="got another note since"):
        StoreWriter(lab.store, {}).write(inverse)
    assert note.read_bytes() == before
