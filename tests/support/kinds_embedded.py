"""Stores that need no server: SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from places import Kind, Place


@contextmanager
def sqlite(folder: Path) -> Iterator[Place]:
    uri, artifacts = f"sqlite:///{folder}/mlflow.db", str(folder / "mlruns")
    SqlAlchemyStore(uri, artifacts).engine.dispose()
    yield Place(uri, artifacts)


KINDS: dict[str, Kind] = {"sqlite": sqlite}
