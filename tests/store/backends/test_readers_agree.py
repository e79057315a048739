"""A store read by SQL and through MlflowClient is the same store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from databases import SERVERS
from hypothesis import given, settings
from living import everything_alive
from mlflow.entities import LoggedModelStatus
from places import Guest, Place
from random_rows import AS_IT_COMES, PARENT, STORE, fill
from sqlalchemy import text
from stores import CREDIT, Lab

from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.snapshot.entities import StoreInfo
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.standing import LostParent
from mlflow_compliance.snapshot.ties import How
from mlflow_compliance.store.backends.base import Rows
from mlflow_compliance.store.backends.client import ClientReader
from mlflow_compliance.store.backends.sql import SqlBackend, SqlReader

INFO = StoreInfo("test", "test")


def both(lab: Lab) -> tuple[tuple[Snapshot, Rows], tuple[Snapshot, Rows]]:
    """The store by SQL and through the client, with every other run in full besides those that rules need."""
    also = sorted(
        run.info.run_id
        for run in lab.client.search_runs(list(lab.read(artifacts=False).experiments), run_view_type=3, max_results=50)
    )[::2]
    assert isinstance(lab.store.backend, SqlBackend)
    with lab.store.backend.reading() as connection:
        by_sql = SqlReader(connection).read(INFO, lab.settings, also)
    return by_sql, ClientReader(lab.client).read(INFO, lab.settings, also)


def assert_agree(lab: Lab, hidden_models: frozenset[str] = frozenset()) -> Snapshot:
    """Both readers give the same; `hidden_models` are deleted logged models, whose rows MLflow does not show."""
    (by_sql, sql_rows), (by_client, client_rows) = both(lab)
    for part in ("experiments", "runs", "logged_models", "registered_models", "repeated_points"):
        assert getattr(by_sql, part) == getattr(by_client, part), part
    # What the tables say of themselves no client is told.
    assert by_sql.schema is not None
    assert replace(by_sql, info=INFO, taken_at=0, schema=None) == replace(by_client, info=INFO, taken_at=0)
    assert sorted(place for place in sql_rows.locations if place.owner.key not in hidden_models) == sorted(
        client_rows.locations
    )
    assert hidden_models <= {place.owner.key for place in sql_rows.locations}
    assert sql_rows.ready_models == client_rows.ready_models
    assert sql_rows.deleted_runs.keys() == client_rows.deleted_runs.keys()
    return by_sql


def on_server(name: str, folder: Path) -> Lab:
    """A new store on a server."""
    place = Place(SERVERS[name]().store(f"{folder}/mlruns"), f"{folder}/mlruns")
    return Guest(
        place, folder, Settings.model_validate({"products": [CREDIT], "experiments": {"test_names": ["test_*"]}})
    )


@pytest.fixture(params=["sqlite", *SERVERS])
def anywhere(request: pytest.FixtureRequest, make_lab: Callable[[], Lab], tmp_path: Path) -> Lab:
    return make_lab() if request.param == "sqlite" else on_server(request.param, tmp_path)


def test_on_a_store_with_one_of_everything(anywhere: Lab) -> None:
    lab = anywhere
    production, delivery = lab.experiment("credit_production", owner="ann"), lab.experiment("credit_delivery")
    scratch = lab.experiment("scratch", note="größer <b>")
    rich = lab.rich_run(production, stage="production")
    lab.rich_run(scratch, "in no rule's scope")
    lab.run(delivery, "stuck", status="RUNNING")
    child = lab.run(production, "child", **{"mlflow.parentRunId": rich})
    lab.client.delete_run(lab.run(scratch, "gone", stage="production"))
    gone = lab.experiment("test_gone")
    lab.run(gone)
    lab.client.delete_experiment(gone)
    lab.run(delivery, **{"compliance.source_run_id": child, "compliance.copy": "complete"})
    spelled = {lab.run(scratch, "odd", Stage=" Production"), lab.run(scratch, "even", **{"stage ": "PRODUCTION"})}
    lab.run(scratch, "unlike it", stage="pre-production")
    taken_back = lab.run(delivery, **{"compliance.source_run_id": rich, "compliance.copy": "retracted"})
    lab.client.delete_run(taken_back)
    model = lab.model(production, child, "scorer")
    deleted = lab.model(production, child, "scorer")
    lab.client.delete_logged_model(deleted)
    lab.registered("scorer", f"models:/{model}", child, alias="champion", validated="yes")
    lab.registered("scorer", f"runs:/{rich}/model")
    lab.registered("scorer", str(lab.folder_of(rich) / "model"))
    lab.client.copy_model_version("models:/scorer/1", "promoted")
    lab.client.delete_model_version("scorer", "3")
    lab.client.create_registered_model("empty")
    lab.client.register_prompt("greeting", "Hello {{name}}")
    above = lab.run(scratch, "above", **{PARENT: "e" * 32})
    sweep = lab.run(scratch, "sweep", **{PARENT: above})
    for home in (scratch, delivery, delivery):
        lab.run(home, "trial", **{PARENT: sweep})
    lab.run(scratch, "of a copy that was taken back", **{PARENT: taken_back})
    behind = lab.run(scratch, "behind a version", metrics={"auc": 0.5}, **{PARENT: taken_back})
    lab.registered("old", f"{lab.folder_of(behind)}/model")
    lab.registered("lost", f"runs:/{'d' * 32}/model", "d" * 32)
    for run_id in (above, sweep, behind, lab.run("0")):
        lab.client.delete_run(run_id)
    lab.client.delete_experiment("0")
    snapshot = assert_agree(lab, frozenset({deleted}))
    assert snapshot.lost_parents == {
        sweep: LostParent(scratch, {delivery: 2, scratch: 1}),
        above: LostParent(scratch, {}),
        "e" * 32: LostParent("", {}),
    }
    assert {key: state.lifecycle for key, state in snapshot.behind_versions.items()} == {
        **dict.fromkeys([child, rich, model], "active"),
        behind: "deleted",
    }
    assert {above, sweep, behind} <= snapshot.runs.keys(), "what a remedy may restore is read in full"
    assert len(snapshot.experiments["0"].deleted_runs) == 1
    failed = lab.client.create_logged_model(scratch, name="failed").model_id
    lab.client.finalize_logged_model(failed, LoggedModelStatus.FAILED)
    with lab.client._get_registry_client().store.ManagedSessionMaker() as session:
        session.execute(
            text("UPDATE model_versions SET status = 'FAILED_REGISTRATION' WHERE name IN ('promoted', 'greeting')")
        )
    snapshot = assert_agree(lab, frozenset({deleted}))
    assert [(item.ref.label, item.status) for item in snapshot.half_made if item.ref.label != "base"] == [
        ("failed", "FAILED"),
        ("promoted version 1", "FAILED_REGISTRATION"),
    ], "a prompt is no model"
    assert {run.name for run in snapshot.runs.values()} >= {"rich", "stuck", "child"}
    assert taken_back not in snapshot.runs
    assert spelled <= snapshot.runs.keys(), "a mark of production in another spelling is read too"
    assert snapshot.experiments[delivery].count("deleted") == 0, "a copy that was taken back is passed over"
    assert "loss" in snapshot.runs[rich].metrics
    assert snapshot.registered_models.keys() == {"scorer", "promoted", "empty", "old", "lost"}, "a prompt is no model"
    assert snapshot.registered_models["scorer"].aliases == {"champion": "1"}
    homes = [
        version.experiment_id
        for name in ("promoted", "scorer")
        for version in snapshot.registered_models[name].versions
    ]
    assert homes == [production, production, production]


def test_on_a_store_in_which_everything_is_alive(anywhere: Lab) -> None:
    lab = anywhere
    everything_alive(lab)
    lab.rich_run(lab.experiment("credit_delivery"))
    lab.rich_run(lab.experiment("credit_production"))
    snapshot = assert_agree(lab)
    assert {tie.how for tie in snapshot.ties} == set(How) - {How.PARENT}
    assert [item.number for item in snapshot.open_traces] == [1]
    assert {key: len(items) for key, items in snapshot.datasets.items()} == {"3": 2}, "those of the primary"


@given(**STORE)
@AS_IT_COMES
def test_on_random_stores(make_lab: Callable[[], Lab], **parts: Any) -> None:
    fill(lab := make_lab(), **parts)
    assert_agree(lab)


@pytest.mark.parametrize("name", SERVERS)
@given(**STORE)
@settings(AS_IT_COMES, max_examples=3)
def test_on_random_stores_on_a_server(tmp_path: Path, name: str, **parts: Any) -> None:
    fill(lab := on_server(name, tmp_path), **parts)
    assert_agree(lab)


@pytest.mark.parametrize("number", [1001])
def test_more_than_one_page_of_everything(lab: Lab, number: int) -> None:
    """Trap 4: MLflow shows 1,000 runs or experiments and 100 registered models at a time. The rows here are written
    by SQL: it is quick.
    """
    many = lab.experiment("many")
    lab.sql(
        "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO experiments "
        "(experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time, workspace) "
        "SELECT i, 'experiment ' || i, ? || i, 'active', 5, 5, 'default' FROM n",
        99 + number,
        f"{lab.mlruns}/",
    )
    lab.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO runs "
        "(run_uuid, name, user_id, source_type, status, start_time, end_time, lifecycle_stage, artifact_uri, "
        "experiment_id) "
        "SELECT printf('%032x', i), 'run ' || i, 'ann', 'UNKNOWN', 'FINISHED', 5, 6, 'active', ? || "
        "printf('%032x', i), ? FROM n",
        number,
        f"{lab.mlruns}/{many}/",
        int(many),
    )
    lab.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO registered_models "
        "(name, creation_time, last_updated_time, workspace) SELECT 'model ' || i, 5, 5, 'default' FROM n",
        101,
    )
    snapshot = assert_agree(lab)
    assert snapshot.experiments[many].count() == number
    assert len(snapshot.experiments) == number + 2
    assert len(snapshot.registered_models) == 101
