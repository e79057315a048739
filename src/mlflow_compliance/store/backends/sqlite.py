"""Stores in a SQLite file, read by SQL."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Connection

from mlflow_compliance.snapshot.entities import StoreInfo
from mlflow_compliance.store.backends.sql import SqlBackend
from mlflow_compliance.store.backends.sqlite_file import reading, refuse_unwritable, sqlite_path


@dataclass(frozen=True)
class SqliteBackend(SqlBackend):
    """A database in a file."""

    @property
    def path(self) -> str:
        """The file, as an absolute path."""
        return sqlite_path(self.uri)

    @property
    def name(self) -> str:
        return self.path

    @property
    def info(self) -> StoreInfo:
        return StoreInfo(f"sqlite:///{self.path}", "sqlite")

    @property
    def home(self) -> str:
        # Whatever name it is opened by: what is on record is so under all of them, and one repair at a time means one.
        return os.path.dirname(os.path.realpath(self.path))

    def identity(self) -> str:
        return f"sqlite file {os.stat(self.path).st_ino}"

    def own(self) -> list[str]:
        return [self.path + ending for ending in ("", "-wal", "-shm", "-journal")]

    def reading(self) -> AbstractContextManager[Connection]:
        return reading(self.uri, self.settings.store.busy_timeout)

    def reach(self) -> None:
        refuse_unwritable(self.path, self.settings.store.busy_timeout)
