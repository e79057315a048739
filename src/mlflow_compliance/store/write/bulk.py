"""Many calls of MLflow's own store as one transaction: its rules and its tables' keys hold, and the disk is waited
for once.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from mlflow_compliance.errors import ChangeError, first_line
from mlflow_compliance.snapshot.entities import ACTIVE, DELETED, Run


def tracking_store(client: MlflowClient) -> Any:
    """The database store that a client writes to. Raises ChangeError where it writes to something else (a server,
    files).
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = client._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        raise ChangeError("this store takes one call at a time")
    return store


def registry_store(client: MlflowClient) -> Any:
    """As `tracking_store`, for the model registry."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    store = client._get_registry_client().store
    if not isinstance(store, SqlAlchemyStore):
        raise ChangeError("this store takes one call at a time")
    return store


@contextmanager
def one_transaction(store: Any) -> Iterator[Any]:
    """Every call on the store joins one transaction, which is made whole at the end or not at all.

    Gives MLflow's own session, with foreign keys on. A call that would take its own part back and try again cannot, and
    ends the transaction.
    """
    own = store.ManagedSessionMaker
    # Newer versions of MLflow want to know beforehand.
    writing = {"read_only": False} if "read_only" in signature(own).parameters else {}
    try:
        with own(**writing) as session:

            @contextmanager
            def joined(read_only: bool = True) -> Iterator[Any]:  # noqa: FBT001, FBT002  MLflow's own signature
                yield session

            def no_part() -> None:
                raise ChangeError("the database refused a part of it")

            session.commit, session.rollback = session.flush, no_part
            store.ManagedSessionMaker = joined
            try:
                yield session
            finally:
                store.ManagedSessionMaker = own
                del session.commit, session.rollback
    except SQLAlchemyError as error:
        raise ChangeError(first_line(error)) from error


def add_run(session: Any, experiment: Any, run: Run, tags: Mapping[str, str]) -> Any:
    """A run that is at work and its tags, as `create_run` writes them; gives MLflow's own Run."""
    from mlflow.entities import Run as MlflowRun
    from mlflow.entities import RunData, RunInfo
    from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag
    from mlflow.utils.uri import append_to_uri_path

    if experiment.lifecycle_stage != ACTIVE:
        raise ChangeError(f"experiment {experiment.experiment_id} is deleted")
    run_id = uuid.uuid4().hex
    place = append_to_uri_path(experiment.artifact_location, run_id, "artifacts")
    row = {
        "run_uuid": run_id,
        "name": run.name,
        "experiment_id": int(experiment.experiment_id),
        "artifact_uri": place,
        "user_id": run.user,
        # Until it holds everything: whoever looks for a finished production run must not find it.
        "status": "RUNNING",
        "start_time": run.start_time,
        "lifecycle_stage": ACTIVE,
        "source_type": "UNKNOWN",
        **dict.fromkeys(("source_name", "entry_point_name", "source_version"), ""),
    }
    session.execute(SqlRun.__table__.insert(), [row])
    session.execute(
        SqlTag.__table__.insert(), [{"run_uuid": run_id, "key": key, "value": value} for key, value in tags.items()]
    )
    info = RunInfo(
        run_id,
        experiment.experiment_id,
        run.user,
        "RUNNING",
        run.start_time or 0,
        None,
        ACTIVE,
        place,
        run_name=run.name,
    )
    return MlflowRun(info, RunData())


def add_history(
    session: Any, store: Any, run_id: str, source: Run, linked: Sequence[Metric], experiment_id: str
) -> None:
    """The params and the metric history of a run for its copy, as `log_batch` writes them: every point, and the latest
    of each metric.

    `linked` are those points that were logged for a model too, one for each of its models.
    """
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlLoggedModelMetric, SqlMetric, SqlParam

    params = [{"run_uuid": run_id, "key": key, "value": value} for key, value in source.params.items()]
    points, latest = [], []
    for key, history in source.metrics.items():
        rows = []
        for value, timestamp, step in history:
            is_nan, kept = store.sanitize_metric_value(value)
            rows.append(
                {"run_uuid": run_id, "key": key, "value": kept, "timestamp": timestamp, "step": step, "is_nan": is_nan}
            )
        points += rows
        latest.append(max(rows, key=lambda row: (row["step"], row["timestamp"], row["value"])))
    of_models = [
        {
            "model_id": metric.model_id,
            "metric_name": metric.key,
            "metric_timestamp_ms": metric.timestamp,
            "metric_step": metric.step,
            "metric_value": store.sanitize_metric_value(metric.value)[1],
            "experiment_id": int(experiment_id),
            "run_id": run_id,
            "dataset_name": metric.dataset_name,
            "dataset_digest": metric.dataset_digest,
        }
        for metric in linked
    ]
    for table, rows in (
        (SqlParam, params),
        (SqlMetric, points),
        (SqlLatestMetric, latest),
        (SqlLoggedModelMetric, of_models),
    ):
        if rows:
            session.execute(table.__table__.insert(), rows)


def status_of(session: Any, run_id: str) -> tuple[str, str, int | None] | None:
    """Lifecycle, status and end of a run, None where it is not there. MLflow's own call fails on a run without a start
    time.
    """
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import select

    asked = select(SqlRun.lifecycle_stage, SqlRun.status, SqlRun.end_time).where(SqlRun.run_uuid == run_id)
    found = session.execute(asked).first()
    return (found[0], found[1], found[2]) if found else None


def deletion_times(session: Any, run_ids: Collection[str] | None = None, experiment_id: str = "") -> dict[str, int]:
    """When runs that are deleted were, in milliseconds: these, or all of an experiment."""
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import select

    asked = select(SqlRun.run_uuid, SqlRun.deleted_time).where(SqlRun.lifecycle_stage == DELETED)
    own = SqlRun.experiment_id == int(experiment_id) if run_ids is None else SqlRun.run_uuid.in_(sorted(run_ids))
    return {key: time for key, time in session.execute(asked.where(own)) if time is not None}


def put_deletion_times(session: Any, times: Mapping[str, int]) -> None:
    """Let runs that are deleted say when they were first: MLflow dates them anew with their experiment."""
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import bindparam

    if times:
        session.flush()
        table = SqlRun.__table__
        statement = (
            table.update()
            .where(table.c.run_uuid == bindparam("own"), table.c.lifecycle_stage == DELETED)
            .values(deleted_time=bindparam("at"))
        )
        session.execute(statement, [{"own": key, "at": time} for key, time in times.items()])


def end_runs(session: Any, runs: Mapping[str, tuple[str, int | None]]) -> None:
    """The status and the end of runs (by their ids), as `update_run_info` writes them."""
    from mlflow.store.tracking.dbmodels.models import SqlRun
    from sqlalchemy import bindparam

    table = SqlRun.__table__
    statement = (
        table.update()
        .where(table.c.run_uuid == bindparam("own"))
        .values(status=bindparam("state"), end_time=bindparam("ended"))
    )
    session.execute(statement, [{"own": key, "state": status, "ended": ended} for key, (status, ended) in runs.items()])


def set_tags(session: Any, run_ids: Collection[str], key: str, value: str) -> None:
    """Another value for a tag that these runs have already."""
    from mlflow.store.tracking.dbmodels.models import SqlTag
    from sqlalchemy import update

    if session.execute(
        update(SqlTag).where(SqlTag.key == key, SqlTag.run_uuid.in_(run_ids)).values(value=value)
    ).rowcount != len(run_ids):
        raise ChangeError("a run that is being copied was changed by somebody else meanwhile: run again to plan anew")


def rename_row(session: Any, experiment_id: str, name: str) -> None:
    """Another name for an experiment, and nothing else: not even its date, by which `mlflow gc` goes."""
    from mlflow.store.tracking.dbmodels.models import SqlExperiment
    from sqlalchemy import update

    table = SqlExperiment.__table__
    session.execute(update(table).where(table.c.experiment_id == int(experiment_id)).values(name=name))


def add_alias(session: Any, store: Any, name: str, alias: str, version: int) -> None:
    """An alias, whether or not its version is there."""
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias

    model = store._get_registered_model(session, name)
    own = {"workspace": model.workspace} if hasattr(model, "workspace") else {}  # from before workspaces
    session.add(SqlRegisteredModelAlias(name=name, alias=alias, version=version, **own))
