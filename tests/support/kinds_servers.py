"""Stores behind MLflow's tracking server, artifacts in local folders: open to everybody, and with users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from places import Kind, Place
from servers import ADMIN, PASSWORD, tracking_server


@contextmanager
def http(folder: Path, users: str = "") -> Iterator[Place]:
    uri, artifacts = f"sqlite:///{folder}/mlflow.db", folder / "mlruns"
    SqlAlchemyStore(uri, str(artifacts)).engine.dispose()
    with tracking_server(folder, uri, artifacts, users=users) as server:
        environment = {"MLFLOW_TRACKING_USERNAME": ADMIN, "MLFLOW_TRACKING_PASSWORD": PASSWORD} if users else {}
        yield Place(server.url, str(artifacts), environment, database=uri)


@contextmanager
def http_with_users(folder: Path) -> Iterator[Place]:
    with http(folder, "READ") as place:
        yield place


KINDS: dict[str, Kind] = {"http": http, "http with users": http_with_users}
