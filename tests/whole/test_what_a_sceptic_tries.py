"""Ways to lose something, or to pass without reason, that somebody tried on purpose and that once worked."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from repairs import carry_out, findings, plan_for
from stores import BIG, START, Lab

from mlflow_compliance.changes import CopyRun, DeleteExperiment, EndRun, LinkDuplicate, MoveToQuarantine
from mlflow_compliance.errors import ChangeError, StoreError
from mlflow_compliance.snapshot.presence import Why
from mlflow_compliance.snapshot.tags import SOURCE_MODEL
from mlflow_compliance.store.artifacts.duplicates import hash_file
from mlflow_compliance.store.storage import files
from mlflow_compliance.store.store import open_store, refuse_writing
from mlflow_compliance.store.write import retract
from mlflow_compliance.store.write.bulk import tracking_store


def reasons(lab: Lab, policy: str) -> str:
    return "; ".join(refusal.reason for refusal in plan_for(lab).unfixed if refusal.finding.policy == policy)


def moved(lab: Lab) -> set[str]:
    return {os.path.basename(change.path) for change in plan_for(lab).changes if isinstance(change, MoveToQuarantine)}


def test_the_database_and_its_companions_in_the_artifact_root_stay(lab: Lab, make_lab: Any) -> None:
    inside = lab.mlruns / "mlflow.db"
    shutil.copy(lab.database, inside)
    (lab.mlruns / "mlflow.db.bak").write_bytes(lab.database.read_bytes())
    (lab.mlruns / ".compliance").mkdir()
    (lab.mlruns / "notes").mkdir()
    shutil.copy(lab.database, lab.mlruns / "notes" / "other.db")
    lab.stray("2" * 32, {"left.bin": BIG})
    housed = Lab(lab.mlruns, lab.settings)
    housed.mlruns = lab.mlruns
    assert moved(housed) == {"2" * 32}


def test_a_file_that_a_process_holds_open_for_writing_is_not_shared(tmp_path: Path) -> None:
    kept, path = tmp_path / "a.csv", tmp_path / "b.csv"
    for file in (kept, path):
        file.write_bytes(BIG)
    for held in (kept, path):
        with held.open("ab"), pytest.raises(ChangeError, match="open for writing"):
            files.share(str(kept), str(path), hash_file(str(kept)))
    assert not os.path.samefile(kept, path)
    assert files.share(str(kept), str(path), hash_file(str(kept))) in ("clone", "hardlink")


def test_a_file_of_a_run_that_is_still_at_work_is_not_shared(lab: Lab) -> None:
    key = lab.experiment("credit_selection", lifecycle="development")
    now = int(time.time() * 1000)
    for status in ("RUNNING", "FINISHED"):
        lab.run(key, status, start=now, status=status, files={"log.csv": BIG})
    assert not [change for change in plan_for(lab).changes if isinstance(change, LinkDuplicate)]
    assert "has not ended" in reasons(lab, "ART001")


@pytest.mark.parametrize(("name", "policy"), [("credit_production", "EXP001"), ("test_1", "EXP002")])
def test_an_experiment_with_a_live_run_is_not_retired(lab: Lab, name: str, policy: str) -> None:
    lab.experiment("credit_delivery")
    lab.run(lab.experiment(name), start=int(time.time() * 1000), status="RUNNING")
    assert not [change for change in plan_for(lab).changes if isinstance(change, (CopyRun, DeleteExperiment))]
    assert "have not ended" in reasons(lab, policy)


def test_a_link_among_the_files_of_a_run_is_not_lost_in_a_copy(lab: Lab, tmp_path: Path) -> None:
    lab.experiment("credit_delivery")
    folder = lab.folder_of(lab.run(lab.experiment("credit_production"), files={"kept.bin": BIG}))
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert "cannot be copied" in reasons(lab, "EXP001")
    (folder / "linked").unlink()
    (folder / "linked").symlink_to(folder / "kept.bin")
    assert "symbolic link" in reasons(lab, "EXP001")


def test_artifacts_of_another_workspace_are_not_strays(lab: Lab) -> None:
    theirs = lab.experiment("theirs")
    lab.run(theirs, files={"model.bin": BIG})
    lab.sql("UPDATE experiments SET workspace = 'teamb' WHERE experiment_id = ?", theirs)
    assert theirs not in lab.read().experiments
    assert moved(lab) == set()
    assert findings(lab, "ART002") == [], "they have an owner"


@pytest.mark.parametrize("tags", [{}, {"lifecycle": "archived"}])
def test_nothing_is_merged_into_a_test_or_archived_experiment(make_lab: Any, tags: dict[str, str]) -> None:
    name = "credit_delivery" if tags else "test_delivery"
    lab = make_lab(
        products=[
            {"name": "credit", "primary": name, "experiments": ["credit_*"], "production_names": ["*_production"]}
        ]
    )
    lab.experiment(name, **tags)
    lab.run(lab.experiment("credit_production"))
    assert not [change for change in plan_for(lab).changes if isinstance(change, CopyRun)]
    assert "is itself a test or archived one" in reasons(lab, "EXP001")


def test_a_model_that_a_run_recorded_must_be_there(lab: Lab) -> None:
    key = lab.experiment("credit_selection", lifecycle="development")
    history = '[{"run_id": "x", "artifact_path": "model", "flavors": {}}]'
    run_id = lab.run(key, files={"model/MLmodel": b"flavors: {}\n"}, **{"mlflow.log-model.history": history})
    assert lab.read().artifacts.unreachable == ()  # type: ignore[union-attr]
    lab.run(lab.experiment("credit_tuning", lifecycle="development"), files={"a.txt": b"the root is there"})
    shutil.rmtree(lab.mlruns / key)
    assert [item.example.key for item in lab.read().artifacts.unreachable] == [f"{run_id}/model"]  # type: ignore[union-attr]


def test_an_artifact_root_that_is_gone_is_told_where_files_were_written_to_it(lab: Lab) -> None:
    key = lab.experiment("credit_selection", lifecycle="development")
    shutil.rmtree(lab.mlruns)
    assert lab.read().artifacts.unreachable == ()  # type: ignore[union-attr]
    run_id = lab.run(key)
    assert lab.read().artifacts.unreachable == (), "a store that logs numbers alone needs no folder"  # type: ignore[union-attr]
    lab.model(key, run_id)
    aside = lab.mlruns.rename(lab.folder / "volume")
    for empty in (False, True):
        if empty:
            lab.mlruns.mkdir()
        snapshot = lab.read()
        (item,) = snapshot.artifacts.unreachable  # type: ignore[union-attr]
        assert item.experiments == (key,)
        assert str(lab.mlruns) in item.reason
        assert {unknown.why for unknown in snapshot.artifacts.unknown.values()} == {
            Why.EMPTY_ROOT if empty else Why.NO_ROOT
        }  # type: ignore[union-attr]
        with pytest.raises(StoreError, match=r"does not write while files that rows speak of are away"):
            refuse_writing(lab.store, snapshot)
    lab.mlruns.rmdir()
    aside.rename(lab.mlruns)
    assert lab.read().artifacts.unreachable == ()  # type: ignore[union-attr]


def test_what_a_copy_would_leave_behind_stops_a_merge(lab: Lab) -> None:
    lab.experiment("credit_delivery")
    rival = lab.experiment("credit_production")
    lab.run(rival)
    lab.client.create_logged_model(rival, name="orphan")
    assert "1 logged models that no run wrote" in reasons(lab, "EXP001")
    tracking_store(lab.client).create_issue(rival, "drift", "The scores have moved")
    assert "1 logged models that no run wrote and 1 issues in it" in reasons(lab, "EXP001")


def test_a_model_that_another_experiments_run_reads_keeps_its_experiment(lab: Lab) -> None:
    from mlflow.entities import LoggedModelInput

    test, delivery = lab.experiment("test_1"), lab.experiment("credit_delivery")
    model = lab.model(test, lab.run(test))
    champion = lab.run(delivery, "champion", stage="production")
    lab.client.log_inputs(champion, models=[LoggedModelInput(model)])
    assert "relies on a model in it" in reasons(lab, "EXP002")


def test_a_cache_beside_the_runs_of_a_project_folder_is_not_moved(lab: Lab) -> None:
    project = lab.folder / "project"
    lab.sql("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", str(project / "0"))
    for name in (
        "d41d8cd98f00b204e9800998ecf8427e/cache.bin",
        "2022/d41d8cd98f00b204e9800998ecf8427e/part-0.parquet",
        "src/train.py",
    ):
        path = project / name
        path.parent.mkdir(parents=True)
        path.write_bytes(BIG)
    assert not moved(lab) & {"d41d8cd98f00b204e9800998ecf8427e", "2022", "src"}


def test_a_run_that_only_logs_files_is_alive_and_its_files_date_no_end(lab: Lab) -> None:
    key = lab.experiment("credit_selection", lifecycle="development")
    run_id = lab.run(key, start=START, status="RUNNING", files={"log.csv": BIG})
    assert not [change for change in plan_for(lab).changes if isinstance(change, EndRun)]
    os.utime(lab.folder_of(run_id) / "log.csv", (START / 1000, START / 1000 + 60))
    ends = [change.end_time for change in plan_for(lab).changes if isinstance(change, EndRun)]
    assert ends == [START]


def test_a_metric_from_the_future_does_not_keep_a_run_alive(lab: Lab) -> None:
    """A time stamp in nanoseconds, say."""
    from mlflow.entities import Metric

    run_id = lab.run(lab.experiment("credit_selection", lifecycle="development"), start=START, status="RUNNING")
    lab.client.log_batch(run_id, metrics=[Metric("auc", 0.5, START * 1_000_000, 0)])
    assert [change.end_time for change in plan_for(lab).changes if isinstance(change, EndRun)] == [START]


def test_a_start_or_a_file_from_the_future_does_not_keep_a_run_alive(lab: Lab) -> None:
    """The start in microseconds; a file from a machine without a clock."""
    key = lab.experiment("credit_selection", lifecycle="development")
    late = lab.run(key, "late", start=START * 1000, status="RUNNING")
    file = lab.run(key, "file", start=START, status="RUNNING", files={"log.csv": BIG})
    os.utime(lab.folder_of(file) / "log.csv", (START, START))
    assert {finding.entity.key for finding in findings(lab, "RUN001")} == {late, file}
    assert "nothing about it is dated" in reasons(lab, "RUN001")
    assert [change.end_time for change in plan_for(lab).changes if isinstance(change, EndRun)] == [START]


def test_a_hard_link_of_a_users_own_outside_the_roots_is_left_alone(lab: Lab) -> None:
    key = lab.experiment("credit_selection", lifecycle="development")
    first, _ = (lab.folder_of(lab.run(key, files={"shap.bin": BIG})) / "shap.bin" for _ in range(2))
    os.link(first, lab.folder / "mine.bin")
    assert "outside the artifact roots" in reasons(lab, "ART001")
    (lab.folder / "mine.bin").unlink()
    assert carry_out(lab, plan_for(lab)).differing == []


@pytest.mark.parametrize("how", ["uri", "link"])
def test_a_location_that_is_a_uri_or_leads_through_a_link_is_planned_as_it_is_read(
    lab: Lab, tmp_path: Path, how: str
) -> None:
    """The copy's files are predicted where the reader will find them, and their hashes go on record under that path."""
    if how == "uri":
        uris = [(lab.folder / "ml runs" / key).as_uri() for key in "12"]
    else:
        (tmp_path / "real").mkdir()
        (lab.folder / "linked").symlink_to(tmp_path / "real")
        uris = [str(lab.folder / "linked" / key) for key in "12"]
    for name, uri in zip(("credit_delivery", "credit_production"), uris, strict=True):
        lab.client.create_experiment(name, artifact_location=uri)
    run = lab.client.create_run("2", start_time=START, run_name="champion")
    lab.upload(run.info.artifact_uri, {"weights.bin": BIG, "note.txt": b"small"})
    lab.client.set_terminated(run.info.run_id, end_time=START + 1000)
    plan = plan_for(lab)
    assert [change for change in plan.changes if isinstance(change, CopyRun)]
    assert carry_out(lab, plan).differing == []
    artifacts = lab.read().artifacts
    assert artifacts is not None
    assert len(artifacts.recorded) == 2
    assert artifacts.recorded.keys() <= artifacts.hashes.keys()


def test_a_database_that_is_opened_through_a_link_has_the_same_record_and_lock(lab: Lab, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "store.db"
    link.parent.mkdir()
    link.symlink_to(lab.database)
    assert open_store(f"sqlite:///{link}", lab.settings, str(tmp_path)).folder == lab.store.folder


def test_what_a_run_owns_that_began_after_the_rows_were_read_is_not_moved(lab: Lab) -> None:
    """A tracking server is listed page by page: a run of a moment ago may be in none, and its folder is there by
    the time of the walk.
    """
    home = lab.folder_of(lab.run("0", "new", files={"a.bin": BIG})).parent
    shutil.copytree(home, home.with_name("0" * 32))
    lab.sql("UPDATE runs SET run_uuid = ? WHERE run_uuid = ?", "1" * 32, home.name)
    lab.sql("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", f"{lab.mlruns}/0/{'1' * 32}/artifacts", "1" * 32)
    plan = plan_for(lab, "ART002")
    assert {os.path.basename(change.path) for change in plan.changes if isinstance(change, MoveToQuarantine)} == {
        "0" * 32,
        home.name,
    }
    lab.sql(
        "UPDATE runs SET run_uuid = ?, artifact_uri = ? WHERE run_uuid = ?", home.name, f"{home}/artifacts", "1" * 32
    )
    done = carry_out(lab, plan)
    assert [why for _, why in done.outcome.failed if f"belongs to run {home.name}" in why]
    assert (home.exists(), home.with_name("0" * 32).exists()) == (True, False)


def test_a_copy_is_taken_back_with_all_its_models(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: MLflow lists them page by page."""
    monkeypatch.setattr(retract, "MODELS_A_PAGE", 1)
    target = lab.experiment("credit_delivery")
    rival = lab.experiment("credit_production")
    run = lab.run(rival)
    for name in ("a", "b", "c"):
        lab.model(rival, run, name)
    carry_out(lab, plan_for(lab, "EXP001"))
    (copy,) = lab.runs(target)
    assert len(lab.client.search_logged_models([target])) == 3
    retract.retract(lab.client, lab.store, copy, retract.Made("journal", SOURCE_MODEL))
    assert len(lab.client.search_logged_models([target])) == 0
    assert not list((lab.mlruns / target).glob("models/m-*"))


def test_parents_that_lead_in_a_circle_and_a_mark_of_our_own_survive_a_merge(lab: Lab) -> None:
    """What no copy can name stays as it is; a run that says of itself that it is a copy that was taken back is
    retired like the others.
    """
    target, rival = lab.experiment("credit_delivery"), lab.experiment("credit_production")
    first, second, alone = (lab.run(rival, name) for name in ("first", "second", "alone"))
    for run, above in ((first, second), (second, first), (alone, alone)):
        lab.client.set_tag(run, "mlflow.parentRunId", above)
    lab.run(rival, "marked", **{"compliance.copy": "retracted"})
    done = carry_out(lab, plan_for(lab, "EXP001"))
    assert done.outcome.failed == []
    copies = {run.info.run_name: run for run in lab.runs(target)}
    assert copies.keys() == {"first", "second", "alone", "marked"}
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in copies.items()}
    assert parents["alone"] == alone
    assert {parents["first"], parents["second"]} & {first, second}
    assert not [value for run in copies.values() for value in run.data.tags.values() if "\u27e8" in value]
