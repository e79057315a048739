"""REG004, REG005, EXP004, EXP005, RUN003: what others rely on, or need the name of, is not deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from databases import SERVERS
from places import Guest, Place
from repairs import carry_out, findings, found_in, plan_for, take_back, unfixed
from servers import tracking_server
from sqlalchemy import create_engine, text
from stores import START, Lab
from undoing import undo

from mlflow_compliance.changes import RestoreRun
from mlflow_compliance.settings.schema import Settings

LabMaker = Callable[..., Lab]
IDS = ("EXP004", "EXP005", "REG004", "REG005", "RUN003")
PARENT = "mlflow.parentRunId"


def told(lab: Lab) -> list[tuple[str, str, str]]:
    """Rule, entity and code of every finding of these rules."""
    return [(item.policy, item.entity.key, item.code) for item in findings(lab, *IDS)]


def mended(lab: Lab) -> list[tuple[str, str, str]]:
    """What is left after a repair that these rules ask for; it is taken back and made once more on the way."""
    before = told(lab)
    done = carry_out(lab, plan_for(lab, *IDS))
    assert (done.differing, done.outcome.failed) == ([], [])
    left = told(lab)
    take_back(lab, done.lines)
    assert told(lab) == before, "every remedy has an inverse"
    again = carry_out(lab, plan_for(lab, *IDS))
    assert (again.differing, told(lab)) == ([], left)
    assert plan_for(lab, *IDS).changes == (), "a second repair finds nothing to do"
    return left


def reasons(lab: Lab, policy: str) -> dict[str, str]:
    """Entity -> why a finding is left for people."""
    return {item.finding.entity.key: item.reason for item in unfixed(plan_for(lab, *IDS), policy)}


def lifecycle(lab: Lab, run_id: str) -> Any:
    return lab.client.get_run(run_id).info.lifecycle_stage


def gone(lab: Lab, *run_ids: str) -> None:
    """What `mlflow gc` does to the row of a deleted run."""
    for run_id in run_ids:
        lab.client.delete_run(run_id)
        lab.client._tracking_client.store._hard_delete_run(run_id)


def test_a_store_in_order(lab: Lab) -> None:
    """A version of each kind, children, a retired experiment; what is deleted and nobody needs."""
    key, other = lab.experiment("churn"), lab.experiment("other")
    sweep = lab.run(key, "sweep")
    trial = lab.run(key, "trial", **{PARENT: sweep})
    lab.run(other, "elsewhere", **{PARENT: sweep})
    lab.client.delete_run(lab.run(key, "deleted with its parent", **{PARENT: "0" * 32}))
    lab.run(key, "names nobody", **{PARENT: ""})
    model = lab.model(key, trial)
    lab.registered("churn", f"models:/{model}", trial, alias="champion")
    lab.registered("churn", f"runs:/{sweep}/model")
    lab.registered("churn", str(lab.folder_of(trial) / "model"))
    lab.registered("churn", f"s3://bucket/{'e' * 32}/artifacts/model")
    lab.registered("churn", f"s3://bucket/models/m-{'e' * 32}/artifacts")
    lab.client.copy_model_version("models:/churn/1", "promoted")
    lab.client.delete_run(lab.run(key, "scratch"))
    lab.client.delete_logged_model(lab.model(key, trial, "unused"))
    lab.client.register_prompt("greeting", "Hello {{name}}")
    lab.client.set_prompt_alias("greeting", "live", 1)
    scratch = lab.experiment("test_scratch")
    lab.run(scratch, "try")
    assert carry_out(lab, plan_for(lab, "EXP002")).differing == []
    assert not lab.read().experiments[scratch].active
    assert told(lab) == []


def test_reg004_runs_and_models_that_the_next_gc_takes(lab: Lab) -> None:
    key = lab.experiment("churn")
    writer, by_path, by_uri, kept, lost = (lab.run(key, name) for name in ("writer", "path", "uri", "kept", "lost"))
    model = lab.model(key, writer)
    deleted = lab.model(key, kept, "deleted")
    lab.registered("churn", f"models:/{model}", writer, alias="champion")
    lab.registered("churn", f"models:/{model}", writer)
    lab.registered("path", f"{lab.folder_of(by_path)}/model")
    lab.registered("uri", f"runs:/{by_uri}/model", by_uri)
    lab.registered("logged", f"models:/{deleted}", kept)
    lab.registered("folder", str(lab.location_of(deleted)), kept)
    lab.registered("lost", f"runs:/{lost}/model", lost)
    lab.registered("linked", "s3://bucket/model", "f" * 32)
    lab.sql("UPDATE model_versions SET run_link = 'https://other/#/runs/1' WHERE name = 'linked'")
    for run_id in (writer, by_path, by_uri):
        lab.client.delete_run(run_id)
    lab.client.delete_logged_model(deleted)
    gone(lab, lost)
    for_people = [
        ("REG004", "folder/1", "model-deleted"),
        ("REG004", "logged/1", "model-deleted"),
        ("REG004", "lost/1", "run-gone"),
    ]
    fixable = [("REG004", key, "run-deleted") for key in ("churn/1", "churn/2", "path/1", "uri/1")]
    assert sorted(told(lab)) == sorted(for_people + fixable)
    assert sorted(mended(lab)) == for_people
    assert {lifecycle(lab, key) for key in (writer, by_path, by_uri)} == {"active"}
    assert "log the model again" in reasons(lab, "REG004")["logged/1"]
    assert "gone for good" in reasons(lab, "REG004")["lost/1"]


def test_reg004_in_a_deleted_experiment(lab: Lab) -> None:
    """Its runs came to it by hand: who deleted it decides. Its name stays with it until then."""
    key = lab.experiment("churn")
    run_id = lab.run(key)
    lab.registered("churn", f"models:/{lab.model(key, run_id)}", run_id, alias="champion")
    lab.client.delete_experiment(key)
    assert told(lab) == [("EXP004", key, "name-taken"), ("REG004", "churn/1", "experiment-deleted")]
    assert plan_for(lab, *IDS).changes == ()
    assert f"mlflow experiments restore --experiment-id {key}" in reasons(lab, "REG004")["churn/1"]
    assert "see REG004" in reasons(lab, "EXP004")[key]
    lab.client.restore_run(run_id)  # which MLflow allows, and which saves nothing
    assert ("REG004", "churn/1", "experiment-deleted") in told(lab)
    lab.client.restore_experiment(key)
    assert told(lab) == []


def test_reg004_makes_no_second_production_run(lab: Lab) -> None:
    key = lab.experiment("credit_delivery")
    former, current = lab.run(key, "former", stage="production"), lab.run(key, "current", stage="production")
    lab.registered("credit", f"runs:/{former}/model", former)
    lab.client.delete_run(former)
    assert told(lab) == [("REG004", "credit/1", "run-deleted")]
    assert plan_for(lab, *IDS).changes == ()
    assert "there is a production run already" in reasons(lab, "REG004")["credit/1"]
    lab.client.set_tag(current, "stage", "superseded")
    assert mended(lab) == [], "where there is none, it is the one that is missing"


def test_reg004_a_run_that_says_running_is_ended_in_the_same_plan(lab: Lab) -> None:
    key = lab.experiment("churn")
    run_id = lab.run(key, status="RUNNING")
    lab.registered("churn", f"runs:/{run_id}/model", run_id)
    lab.client.delete_run(run_id)
    done = carry_out(lab, plan_for(lab, "REG004", "RUN001"))
    assert (done.differing, findings(lab, "REG004", "RUN001")) == ([], [])
    assert lab.client.get_run(run_id).info.status == "KILLED"


def test_reg005_aliases_of_versions_that_are_not_there(lab: Lab) -> None:
    for alias in ("champion", "Candidate", "kept"):
        lab.registered("churn", str(lab.folder / "elsewhere"), alias=alias)
    lab.client.set_registered_model_alias("churn", "second", "1")
    # As a version that is deleted through a server of MLflow 3.13 leaves them.
    lab.sql("DELETE FROM model_versions WHERE version < 2")
    lab.sql("UPDATE model_versions SET current_stage = 'Deleted_Internal' WHERE version = 2")
    assert findings(lab, "REG006") == [], "an alias that loads nothing is told by one rule"
    found = findings(lab, "REG005")
    assert [(item.name, item.observed) for item in found] == [
        ("Candidate", "version 2"),
        ("champion", "version 1"),
        ("second", "version 1"),
    ]
    assert len({item.fingerprint for item in found}) == 3
    assert mended(lab) == []
    assert lab.client.get_registered_model("churn").aliases == {"kept": 3}


def test_exp004_names_that_deleted_experiments_hold(make_lab: LabMaker) -> None:
    lab = make_lab(products=[{"name": "credit", "primary": "credit_delivery"}])
    names = ("churn", "again", "odd (retired 7)", "taken", "credit_delivery")
    keys = {name: lab.experiment(name) for name in names}
    run_id, early = lab.run(keys["churn"]), lab.run(keys["churn"], "early")
    lab.client.delete_run(early)
    for key in keys.values():
        lab.client.delete_experiment(key)
    blocking = lab.experiment(f"taken (retired {keys['taken']})")
    with pytest.raises(Exception, match="already exists"):
        lab.client.create_experiment("churn")
    assert told(lab) == [("EXP004", key, "name-taken") for key in keys.values()]
    assert mended(lab) == [("EXP004", keys[name], "name-taken") for name in ("taken", "credit_delivery")]
    assert "is taken" in reasons(lab, "EXP004")[keys["taken"]]
    assert "primary experiment of product credit" in reasons(lab, "EXP004")[keys["credit_delivery"]]
    assert lab.client.create_experiment("churn")
    assert lab.client.get_experiment(keys["churn"]).name == f"churn (retired {keys['churn']})"
    assert {lifecycle(lab, run_id), lifecycle(lab, early)} == {"deleted"}
    assert lab.client.get_experiment(blocking).lifecycle_stage == "active"


def test_exp004_an_active_run_in_it_is_not_touched(lab: Lab) -> None:
    key = lab.experiment("churn")
    run_id = lab.run(key)
    lab.client.delete_experiment(key)
    lab.client.restore_run(run_id)
    assert told(lab) == [("EXP004", key, "name-taken")]
    assert "1 of its runs are active" in reasons(lab, "EXP004")[key]


def test_exp005_default_is_restored_alone(lab: Lab) -> None:
    run_id = lab.run("0")
    lab.client.delete_experiment("0")
    with pytest.raises(Exception, match="must be in the 'active' state"):
        lab.client.create_run("0")
    assert told(lab) == [("EXP005", "0", "default-deleted")], "its name is nobody else's"
    assert mended(lab) == []
    assert lifecycle(lab, run_id) == "deleted"
    assert lab.client.create_run("0")


def test_exp005_without_any_default(lab: Lab) -> None:
    """MLflow makes it when it opens the database; that of another workspace is not this one's."""
    lab.experiment("churn")
    lab.sql("UPDATE experiments SET workspace = 'team-b' WHERE experiment_id = 0")
    assert told(lab) == []


def test_run003_parents_that_are_deleted_or_gone(lab: Lab) -> None:
    key, other = lab.experiment("churn"), lab.experiment("other")
    above = lab.run(other, "above")
    sweep = lab.run(key, "sweep", **{PARENT: above})
    for home in (key, key, other):
        lab.run(home, "trial", **{PARENT: sweep})
    lost = lab.run(key, "lost")
    lab.run(key, "trial", **{PARENT: lost})
    lab.client.delete_run(lab.run(key, "deleted too", **{PARENT: lost}))
    for run_id in (above, sweep):
        lab.client.delete_run(run_id)
    gone(lab, lost)
    found = {item.entity.key: item for item in findings(lab, "RUN003")}
    assert found.keys() == {sweep, lost}, "what is above a deleted parent has no child that is shown"
    assert found[sweep].observed == "3 child runs in 'churn', 'other'"
    assert found[lost].observed == "1 child run in 'churn'"
    assert mended(lab) == [("RUN003", lost, "parent-gone")]
    assert (lifecycle(lab, sweep), lifecycle(lab, above)) == ("active", "active"), "and it has a parent itself"
    assert "mlflow.parentRunId" in reasons(lab, "RUN003")[lost]


def test_run003_parents_in_a_circle(lab: Lab) -> None:
    key = lab.experiment("churn")
    first = lab.run(key, "first")
    second = lab.run(key, "second", **{PARENT: first})
    lab.client.set_tag(first, PARENT, second)
    itself = lab.run(key, "itself")
    lab.client.set_tag(itself, PARENT, itself)
    assert told(lab) == []
    lab.run(key, "trial", **{PARENT: second})
    for run_id in (first, second, itself):
        lab.client.delete_run(run_id)
    assert told(lab) == [("RUN003", second, "parent-deleted")]
    assert mended(lab) == []


def test_run003_a_parent_in_a_deleted_experiment(lab: Lab) -> None:
    """One that a repair retired was put aside on purpose; one that somebody deleted comes back with its experiment."""
    key, scratch = lab.experiment("churn"), lab.experiment("test_scratch")
    lab.run(key, "child", **{PARENT: lab.run(scratch, "parent")})
    assert carry_out(lab, plan_for(lab, "EXP002")).differing == []
    assert not lab.read().experiments[scratch].active
    assert told(lab) == []
    deleted = lab.experiment("deleted")
    parent = lab.run(deleted, "parent")
    lab.run(key, "child", **{PARENT: parent})
    lab.client.delete_experiment(deleted)
    assert mended(lab) == [("RUN003", parent, "parent-deleted")]
    assert f"--experiment-id {deleted}" in reasons(lab, "RUN003")[parent]


@pytest.mark.parametrize("parent", ["merged too", "elsewhere", "deleted before", "in a circle"])
def test_run003_what_a_merge_leaves_is_in_order(lab: Lab, parent: str) -> None:
    lab.run(lab.experiment("credit_delivery"), stage="production")
    rival, other = lab.experiment("credit_production"), lab.experiment("other")
    above = lab.run(other if parent == "elsewhere" else rival, "sweep")
    child = lab.run(rival, "trial", start=START + 5, **{PARENT: above})
    if parent == "in a circle":
        lab.client.set_tag(above, PARENT, child)
    elif parent == "deleted before":
        lab.client.delete_run(above)
    done = carry_out(lab, plan_for(lab, "EXP001", *IDS))
    assert (done.differing, done.outcome.failed) == ([], [])
    assert not lab.read().experiments[rival].active
    assert told(lab) == []


def test_run003_more_parents_than_are_read_at_a_time(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server is asked for each of them. What no remedy can restore takes no place among them."""
    monkeypatch.setattr("mlflow_compliance.snapshot.standing.MOST_PARENTS", 1)
    key, deleted = lab.experiment("churn"), lab.experiment("deleted")
    parents = [lab.run(home, "sweep") for home in (key, key, deleted, deleted)]
    for parent in parents:
        lab.run(key, "trial", **{PARENT: parent})
        lab.client.delete_run(parent)
    lab.client.delete_experiment(deleted)
    first, second = sorted(parents[:2])
    assert plan_for(lab, "RUN003").changes == (RestoreRun(first, key),)
    assert "run --fix again" in reasons(lab, "RUN003")[second]
    assert carry_out(lab, plan_for(lab, "RUN003")).differing == []
    assert plan_for(lab, "RUN003").changes == (RestoreRun(second, key),)


@pytest.mark.parametrize("name", SERVERS)
def test_on_a_database_server(name: str, tmp_path: Path) -> None:
    place = Place(SERVERS[name]().store(f"{tmp_path}/mlruns"), f"{tmp_path}/mlruns")
    guest = Guest(place, tmp_path, Settings.model_validate({"products": []}))
    key, taken = guest.experiment("Churn"), guest.experiment("taken")
    parent, behind = guest.run(key, "parent"), guest.run(key, "behind", metrics={"auc": 0.5})
    guest.run(key, "child", **{PARENT: parent})
    guest.registered("churn", f"models:/{guest.model(key, behind)}", behind)
    guest.registered("other", "s3://bucket/model", alias="champion")
    guest.client.set_registered_model_alias("other", "Candidate", "1")
    runs = [guest.run(home) for home in ("0", taken)]
    engine = create_engine(guest.uri)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM model_versions WHERE name = 'other'"))
    engine.dispose()
    for run_id in (parent, behind):
        guest.client.delete_run(run_id)
    for home in (taken, "0"):
        guest.client.delete_experiment(home)
    assert [rule for rule, *_ in told(guest)] == ["EXP004", "EXP005", "REG004", "REG005", "REG005", "RUN003"]
    assert mended(guest) == []
    assert {lifecycle(guest, run_id) for run_id in runs} == {"deleted"}


def test_through_a_tracking_server(lab: Lab) -> None:
    """All of them at once; of an alias alone the way back is closed there, and says so."""
    key, taken = lab.experiment("churn"), lab.experiment("taken")
    parent, behind = lab.run(key, "parent"), lab.run(key, "behind", metrics={"auc": 0.5})
    lab.run(key, "child", **{PARENT: parent})
    lab.run(key, "child of nobody", **{PARENT: "e" * 32})
    lab.registered("churn", f"models:/{lab.model(key, behind)}", behind)
    lab.registered("other", str(lab.folder / "elsewhere"), alias="champion")
    lab.sql("DELETE FROM model_versions WHERE name = 'other'")
    runs = [lab.run(home) for home in ("0", taken)]
    for run_id in (parent, behind):
        lab.client.delete_run(run_id)
    for home in (taken, "0"):
        lab.client.delete_experiment(home)
    with tracking_server(lab.folder.parent, lab.uri, lab.mlruns) as server:
        guest = Guest(Place(server.url, str(lab.mlruns)), lab.folder, lab.settings)
        assert told(guest) == told(lab)
        assert [policy for policy, *_ in told(guest)] == ["EXP004", "EXP005", "REG004", "REG005", "RUN003", "RUN003"]
        done = carry_out(guest, plan_for(guest, *IDS))
        assert (done.differing, done.outcome.failed) == ([], [])
        assert told(guest) == told(lab) == [("RUN003", "e" * 32, "parent-gone")]
        assert {lifecycle(lab, run_id) for run_id in runs} == {"deleted"}
        assert lab.client.get_experiment(taken).lifecycle_stage == "deleted"
        (alias,) = [line for line in done.lines if (line.get("undo") or {}).get("kind") == "PutAliasBack"]
        (left,) = undo(guest, [line for line in done.lines if line.get("change") == alias["change"]])
        assert "a tracking server lets no alias name a version that is not there" in left
        take_back(guest, [line for line in done.lines if line.get("change") != alias["change"]])
        assert [policy for policy, *_ in told(lab)] == ["EXP004", "EXP005", "REG004", "RUN003", "RUN003"]
        # A server with workspaces shows those of one alone: what is not there may be in another.
        snapshot, _ = guest.store.read_rows()
        snapshot = replace(snapshot, info=replace(snapshot.info, workspace="team-b"))
        assert {item.entity.key for item in found_in(snapshot, guest, "RUN003")} == {parent}
