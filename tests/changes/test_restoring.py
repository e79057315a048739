"""Runs restored, names of deleted experiments freed, aliases put back: held to the laws of every Change."""

from __future__ import annotations

from typing import Any

import pytest
from living import traced
from mlflow.entities import AssessmentSource, Feedback
from stores import START, Lab, there_and_back

from mlflow_compliance.changes import (
    DeleteRun,
    PutAliasBack,
    RenameDeletedExperiment,
    RestoreExperiment,
    RestoreRun,
    SetAlias,
)
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.standing import LostParent
from mlflow_compliance.store.write.writer import StoreWriter

PARENT = "mlflow.parentRunId"


def stages(lab: Lab, key: str) -> dict[str, Any]:
    return {run.info.run_id: run.info.lifecycle_stage for run in lab.runs(key)}


def test_restore_a_run(lab: Lab) -> None:
    """With its parent, which nobody named while it was deleted itself."""
    key = lab.experiment("churn")
    above = lab.run(key, "above")
    sweep = lab.run(key, "sweep", **{PARENT: above})
    lab.run(key, "trial", **{PARENT: sweep})
    other = lab.run(key, "other")
    for run_id in (above, sweep, other):
        lab.client.delete_run(run_id)
    before = lab.read()
    change = RestoreRun(sweep, key)
    assert before.lost_parents == {sweep: LostParent(key, {key: 1}), above: LostParent(key, {})}
    between, _ = there_and_back(lab, change)
    assert between.lost_parents == change.predict(before).lost_parents == {above: LostParent(key, {key: 1})}
    assert between.experiments[key].deleted_runs == tuple(sorted([above, other]))
    assert stages(lab, key)[sweep] == "deleted"
    back = StoreWriter(lab.store, {}).inverse(change)
    assert isinstance(back, DeleteRun)
    assert back.predict(between).lost_parents == before.lost_parents
    assert lab.read().lost_parents == before.lost_parents


def test_a_run_is_restored_only_where_it_stays(lab: Lab) -> None:
    key = lab.experiment("churn")
    run_id = lab.run(key)
    with pytest.raises(ChangeError, match="is active"):
        RestoreRun(run_id, key).predict(lab.read([run_id]))
    with pytest.raises(ChangeError, match="is active and its experiment active by now"):
        StoreWriter(lab.store, {}).write(RestoreRun(run_id, key))
    lab.client.delete_experiment(key)
    with pytest.raises(ChangeError, match="is deleted"):
        RestoreRun(run_id, key).predict(lab.read([run_id]))
    with pytest.raises(ChangeError, match="its experiment deleted by now"):
        StoreWriter(lab.store, {}).write(RestoreRun(run_id, key))
    with pytest.raises(ChangeError, match="is deleted by now"):
        StoreWriter(lab.store, {}).write(DeleteRun(run_id, key))


def test_a_run_that_was_assessed_since_stays(lab: Lab) -> None:
    """MLflow deletes the assessments with the run, for good."""
    key = lab.experiment("churn")
    run_id = lab.run(key)
    feedback = Feedback(
        name="right",
        value=True,
        trace_id=traced(lab, key, "", START),
        source=AssessmentSource("HUMAN", "ann"),
        metadata={"mlflow.assessment.sourceRunId": run_id},
    )
    lab.client._tracking_client.store.create_assessment(feedback)
    with pytest.raises(ChangeError, match="has assessments by now"):
        StoreWriter(lab.store, {}).write(DeleteRun(run_id, key))
    assert stages(lab, key) == {run_id: "active"}


def test_rename_a_deleted_experiment(lab: Lab) -> None:
    key, other = lab.experiment("churn", owner="ann"), lab.experiment("other")
    run_id = lab.run(key)
    lab.client.delete_experiment(key)
    between, _ = there_and_back(lab, RenameDeletedExperiment(key, f"churn (retired {key})", "churn"))
    assert (between.experiments[key].active, between.experiments[key].count("deleted")) == (False, 1)
    assert stages(lab, key) == {run_id: "deleted"}
    with pytest.raises(ChangeError, match="the name 'other' is taken"):
        RenameDeletedExperiment(key, "other", "churn").predict(lab.read())
    with pytest.raises(ChangeError, match="is not there, or it or some of its runs are not deleted"):
        RenameDeletedExperiment(other, "free", "other").predict(lab.read())
    writer = StoreWriter(lab.store, {})
    with pytest.raises(ChangeError, match="'other' is taken by experiment 2 by now: experiment 1 stays 'churn'"):
        writer.write(RenameDeletedExperiment(key, "other", "churn"))
    with pytest.raises(ChangeError, match="is now 'churn' and was 'charm'"):
        writer.write(RenameDeletedExperiment(key, "free", "charm"))
    lab.client.restore_run(run_id)
    with pytest.raises(ChangeError, match="not deleted by now"):
        writer.write(RenameDeletedExperiment(key, "free", "churn"))


def test_restore_default_without_its_runs(lab: Lab) -> None:
    runs = [lab.run("0", f"run {number}") for number in range(3)]
    lab.client.delete_run(runs[0])
    lab.client.delete_experiment("0")
    default = lab.read().experiments["0"]
    assert default.deleted_runs == tuple(sorted(runs)), "the one deleted experiment whose runs are known by their ids"
    counts = tuple((stage, status, number) for (stage, status), number in default.runs.items())
    between, _ = there_and_back(lab, RestoreExperiment("0", default.deleted_runs, counts))
    assert between.experiments["0"].active
    assert (between.experiments["0"].count(), between.experiments["0"].count("deleted")) == (0, 3)


def test_an_alias_of_a_version_that_is_not_there(lab: Lab) -> None:
    """MLflow's API lets no alias name it: what was there before is put back all the same."""
    lab.registered("churn", str(lab.folder / "elsewhere"), alias="champion")
    lab.registered("churn", str(lab.folder / "elsewhere"), alias="kept")
    lab.sql("DELETE FROM model_versions WHERE name = 'churn' AND version = 1")
    change = SetAlias("churn", "champion", None, "1")
    between, _ = there_and_back(lab, change)
    assert between.registered_models["churn"].aliases == {"kept": "2"}
    writer = StoreWriter(lab.store, {})
    assert isinstance(writer.inverse(change), PutAliasBack)
    assert not isinstance(writer.inverse(SetAlias("churn", "kept", None, "2")), PutAliasBack)
    with pytest.raises(ChangeError, match="names version 1 by now"):
        writer.write(PutAliasBack("churn", "champion", "1"))
    with pytest.raises(ChangeError, match="has an alias 'champion' by now"):
        PutAliasBack("churn", "champion", "1").predict(lab.read())
