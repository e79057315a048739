"""Stores in a SQLite file, read by SQL."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

from mlflow_compliance.entities import Experiment, LoggedModel, Run, Snapshot, StoreInfo
from mlflow_compliance.errors import StoreError
from mlflow_compliance.store.backends.base import Backend, workspace
from mlflow_compliance.store.rows import Rows
from mlflow_compliance.store.sql_reading import SqlReader
from mlflow_compliance.store.sqlite import reading, sqlite_path


@dataclass(frozen=True)
class SqliteBackend(Backend):
    """A database in a file."""

    writes: ClassVar[bool] = True

    @property
    def path(self) -> str:
        """The file, as an absolute path."""
        return sqlite_path(self.uri)

    @property
    def info(self) -> StoreInfo:
        return StoreInfo(f"sqlite:///{self.path}", "sqlite")

    @property
    def home(self) -> str:
        return os.path.dirname(self.path)

    def own(self) -> list[str]:
        return [self.path + ending for ending in ("", "-wal", "-shm", "-journal")]

    def read(self, also: Collection[str]) -> tuple[Snapshot, Rows]:
        with reading(self.uri, self.settings.store.busy_timeout) as connection:
            return SqlReader(connection, workspace()).read(self.info, self.settings, also)

    def details(self, run_ids: Collection[str]) -> tuple[dict[str, Run], dict[str, LoggedModel]]:
        with reading(self.uri, self.settings.store.busy_timeout) as connection:
            return SqlReader(connection, workspace()).details(run_ids)

    def counted(self, experiment_id: str) -> Experiment | None:
        with reading(self.uri, self.settings.store.busy_timeout) as connection:
            return SqlReader(connection, workspace()).experiments().get(experiment_id)

    def refuse_other_schema(self) -> None:
        """Of an old store that lacks some tables, opening it would migrate it."""
        from mlflow.store.db.utils import _get_latest_schema_revision

        latest = _get_latest_schema_revision()
        with reading(self.uri, self.settings.store.busy_timeout) as connection:
            found = {version for (version,) in connection.exec_driver_sql("SELECT version_num FROM alembic_version")}
        if found != {latest}:
            way = f"take a backup, then run 'mlflow db upgrade {self.info.uri}'"
            raise StoreError(f"the database {self.path} has another schema than the installed MLflow: {way}; nothing was changed")
