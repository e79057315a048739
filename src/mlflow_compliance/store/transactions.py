"""Many calls of MLflow's own store as one transaction: its rules and its tables' keys hold, and the disk is waited for once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from mlflow_compliance.errors import ChangeError, first_line


def tracking_store(client: MlflowClient) -> Any:
    """The database store that a client writes to. Raises ChangeError where it writes to something else (a server, files)."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = client._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        raise ChangeError("this store takes one call at a time")
    return store


@contextmanager
def one_transaction(store: Any) -> Iterator[None]:
    """Every call on the store joins one transaction, which is made whole at the end or not at all.

    A call that would take something back and try again ends the transaction: it cannot take back its own part alone.
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
                yield
            finally:
                store.ManagedSessionMaker = own
                del session.commit, session.rollback
    except SQLAlchemyError as error:
        raise ChangeError(first_line(error)) from error
