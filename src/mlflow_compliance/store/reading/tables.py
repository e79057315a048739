"""MLflow's tables over an open connection: which columns there are, and how they are asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, bindparam, inspect, text

from mlflow_compliance.errors import StoreError

CHUNK = 500
"""Ids in one IN list: SQLite's oldest limit on parameters is 999."""

_HERE = {"postgresql": "current_schema()", "mysql": "DATABASE()"}
"""What limits the catalogue of a server to the database at hand."""


def columns_of(connection: Connection) -> dict[str, set[str]]:
    """Table -> its columns. A server is asked once: reflecting would ask for each table."""
    here = _HERE.get(connection.dialect.name)
    if here is None:
        schema = inspect(connection)
        return {table: {column["name"] for column in schema.get_columns(table)} for table in schema.get_table_names()}
    found: dict[str, set[str]] = {}
    catalogue = f"SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = {here}"  # noqa: S608  a constant of ours
    for table, column in connection.exec_driver_sql(catalogue):
        found.setdefault(table, set()).add(column)
    return found


class Tables:
    """Asks one database. `workspace` is the caller's; a schema from before workspaces holds one only."""

    def __init__(self, connection: Connection, workspace: str) -> None:
        self.connection = connection
        self.workspace = workspace
        self.columns = columns_of(connection)
        missing = {"experiments", "runs", "tags", "params", "metrics", "experiment_tags"} - self.columns.keys()
        if missing:
            raise StoreError(f"the database holds no MLflow store: it has no table {min(missing)!r}; check the tracking URI")

    def has(self, table: str, column: str) -> bool:
        return column in self.columns.get(table, ())

    def all(self, sql: str, **values: Any) -> Sequence[Any]:
        return self.connection.execute(text(sql), values).fetchall()

    def within(self, sql: str, ids: Iterable[Any], **values: Any) -> Iterator[Any]:
        """Rows of a query with `IN :ids`, for any number of ids."""
        statement = text(sql).bindparams(bindparam("ids", expanding=True))
        ordered = sorted(ids)
        for start in range(0, len(ordered), CHUNK):
            yield from self.connection.execute(statement, {"ids": ordered[start : start + CHUNK], **values})

    def equals(self, table: str, column: str, other: str) -> str:
        """A condition that joins two tables. In a store that was converted in part MySQL refuses to compare columns of text as they stand."""
        text_of = self._collations.get((table, column))
        if text_of:
            other = f"CONVERT({other} USING {text_of[0]}) COLLATE {text_of[1]}"
        return f"{table}.{column} = {other}"

    @cached_property
    def _collations(self) -> dict[tuple[str, str], tuple[str, str]]:
        """(table, column) -> character set and collation, of MySQL's columns of text."""
        if self.connection.dialect.name != "mysql":
            return {}
        sql = "SELECT table_name, column_name, character_set_name, collation_name FROM information_schema.columns WHERE table_schema = DATABASE()"
        return {(table, column): (charset, collation) for table, column, charset, collation in self.all(sql) if charset}

    def here(self, table: str) -> str:
        """A condition that keeps a query inside the caller's workspace."""
        return f"{table}.workspace = :workspace" if self.has(table, "workspace") else ":workspace = :workspace"
