"""Stores whose artifacts lie in S3, and behind a tracking server that serves them."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pytest
from buckets import HINT, SESSION, environment, forget_clients, s3_client, s3_server, weed
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from places import Kind, Place
from serving import Server, serving_artifacts

from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.store.store import open_store

_numbers = itertools.count()


@lru_cache(maxsize=1)
def _server() -> str:
    """One S3 server a session: it takes seconds to start."""
    folder = SESSION.enter_context(tempfile.TemporaryDirectory(prefix="compliance-s3-"))
    return SESSION.enter_context(s3_server(Path(folder)))


def bucket() -> tuple[str, Mapping[str, str]]:
    """The URI of a new prefix in a new bucket, and what a client needs to reach it."""
    if weed() is None:
        pytest.skip(HINT)
    endpoint, name = _server(), f"acceptance-{next(_numbers)}"
    s3_client(endpoint).create_bucket(Bucket=name)
    forget_clients()
    return f"s3://{name}/mlruns", environment(endpoint)


@contextmanager
def sqlite_s3(folder: Path) -> Iterator[Place]:
    uri = f"sqlite:///{folder}/mlflow.db"
    artifacts, variables = bucket()
    SqlAlchemyStore(uri, artifacts).engine.dispose()
    yield Place(uri, artifacts, variables)


@contextmanager
def postgresql_s3_with_pointers(folder: Path) -> Iterator[Place]:
    from databases import postgresql_server

    artifacts, variables = bucket()
    yield Place(postgresql_server().store(artifacts), artifacts, variables, "[duplicates]\npointers = true\n")


@contextmanager
def served(folder: Path, destination: str = "", variables: Mapping[str, str] | None = None) -> Iterator[Place]:
    """Behind a tracking server that serves the artifacts too (mlflow-artifacts:), from a folder or from a bucket."""
    uri = f"sqlite:///{folder}/mlflow.db"
    SqlAlchemyStore(uri, "mlflow-artifacts:/").engine.dispose()
    settings = {**serving_artifacts(uri, destination or folder / "kept"), **(variables or {})}
    server = Server(folder / "server", "uvicorn", "mlflow.server.fastapi_app:app", "--log-level", "warning", **settings)
    try:
        url, kept = server.start().wait().url, None if destination else folder / "kept"
        yield Place(url, "", {"MLFLOW_TRACKING_URI": server.url}, database=uri, kept=kept)
    finally:
        server.stop()


@contextmanager
def served_from_s3(folder: Path) -> Iterator[Place]:
    with served(folder, *bucket()) as place:
        yield place


KINDS: dict[str, Kind] = {"sqlite-s3": sqlite_s3, "postgresql-s3 with pointers": postgresql_s3_with_pointers}
if open_store("http://127.0.0.1:1", Settings(), "/").backend.writes:
    KINDS |= {"served": served, "served from s3": served_from_s3}
