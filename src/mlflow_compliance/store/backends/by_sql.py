"""What stores have in common whose rows are read by SQL over one connection that cannot write."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from sqlalchemy import Connection

from mlflow_compliance.entities import Experiment, LoggedModel, Run, Snapshot
from mlflow_compliance.errors import StoreError
from mlflow_compliance.store.backends.base import Backend, workspace
from mlflow_compliance.store.reading.rows import Rows
from mlflow_compliance.store.reading.sql_reading import SqlReader
from mlflow_compliance.store.reading.sql_schema import read_schema
from mlflow_compliance.store.reading.sql_times import newest_row
from mlflow_compliance.store.reading.tables import Tables


@dataclass(frozen=True)
class SqlBackend(Backend):
    """A database with MLflow's tables."""

    writes: ClassVar[bool] = True

    @abstractmethod
    def reading(self) -> AbstractContextManager[Connection]:
        """A connection in one read-only transaction. Nothing is created; raises StoreError of one sentence where it cannot be had."""

    def read(self, also: Collection[str]) -> tuple[Snapshot, Rows]:
        with self.reading() as connection:
            return SqlReader(connection, workspace()).read(self.info, self.settings, also)

    def read_metadata(self, also: Collection[str]) -> tuple[Snapshot, None]:
        with self.reading() as connection:
            return SqlReader(connection, workspace()).snapshot(self.info, self.settings, also), None

    def details(self, run_ids: Collection[str]) -> tuple[dict[str, Run], dict[str, LoggedModel]]:
        with self.reading() as connection:
            return SqlReader(connection, workspace()).details(run_ids)

    def counted(self, experiment_id: str) -> Experiment | None:
        with self.reading() as connection:
            return SqlReader(connection, workspace()).experiments().get(experiment_id)

    def newest_row(self, before: int) -> int | None:
        with self.reading() as connection:
            return newest_row(Tables(connection, workspace()), before)

    def refuse_other_schema(self) -> None:
        """Of an old store that lacks some tables, opening it would migrate it."""
        with self.reading() as connection:
            schema = read_schema(Tables(connection, workspace()))  # raises StoreError where this is no store at all
        if schema.problem:
            raise StoreError(f"the database {self.name} {schema.problem}: {schema.way_out(self.info.uri)}; nothing was changed")

    @property
    @abstractmethod
    def name(self) -> str:
        """The database as sentences call it."""
