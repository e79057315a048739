"""Stores in databases behind a server of their own: PostgreSQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from databases import mariadb_server, postgresql_server
from places import Kind, Place


@contextmanager
def postgresql(folder: Path) -> Iterator[Place]:
    artifacts = str(folder / "mlruns")
    yield Place(postgresql_server().store(artifacts), artifacts)


@contextmanager
def mariadb(folder: Path) -> Iterator[Place]:
    artifacts = str(folder / "mlruns")
    yield Place(mariadb_server().store(artifacts), artifacts)


KINDS: dict[str, Kind] = {"postgresql": postgresql, "mariadb": mariadb}
