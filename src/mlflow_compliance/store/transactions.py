"""Many calls of MLflow's own store as one transaction: its rules and its tables' keys hold, and the disk is waited for once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from mlflow_compliance.entities import Run
from mlflow_compliance.errors import ChangeError, first_line


def tracking_store(client: MlflowClient) -> Any:
    """The database store that a client writes to. Raises ChangeError where it writes to something else (a server, files)."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = client._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        raise ChangeError("this store takes one call at a time")
    return store


@contextmanager
def one_transaction(store: Any) -> Iterator[Any]:
    """Every call on the store joins one transaction, which is made whole at the end or not at all.

    Gives MLflow's own session, with foreign keys on. A call that would take its own part back and try again cannot, and ends the transaction.
    """
    own = store.ManagedSessionMaker
    try:
        with own(read_only=False) as session:

            @contextmanager
            def joined(*, read_only: bool = True) -> Iterator[Any]:
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


def add_history(session: Any, store: Any, run_id: str, source: Run) -> None:
    """The params and the metric history of a run for its copy, as `log_batch` writes them: every point, and the latest of each metric."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam
    from sqlalchemy import insert

    params = [{"run_uuid": run_id, "key": key, "value": value} for key, value in source.params.items()]
    points, latest = [], []
    for key, history in source.metrics.items():
        rows = []
        for value, timestamp, step in history:
            is_nan, kept = store.sanitize_metric_value(value)
            rows.append({"run_uuid": run_id, "key": key, "value": kept, "timestamp": timestamp, "step": step, "is_nan": is_nan})
        points += rows
        latest.append(max(rows, key=lambda row: (row["step"], row["timestamp"], row["value"])))
    for table, rows in ((SqlParam, params), (SqlMetric, points), (SqlLatestMetric, latest)):
        if rows:
            session.execute(insert(table), rows)
