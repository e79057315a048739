"""What a database says of the revision of its tables, beside what is in it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from mlflow_compliance.safe_text import first_of

_FEW = 5
"""Tables and columns named in one line."""


class SchemaState(Enum):
    """How the tables stand to the installed MLflow."""

    CURRENT = "current"
    OLDER = "older"
    """Whole, as an older MLflow left it."""
    UNKNOWN = "unknown"
    """A revision that the installed MLflow does not have: a newer one wrote it."""
    HALF = "half-upgraded"
    """Tables of a later revision are there under an earlier one."""
    INCOMPLETE = "incomplete"
    """It lacks what its revision makes."""
    SEVERAL = "several"
    """Its version table names several revisions."""
    NONE = "none"
    """Its version table names none, or is not there."""


class Schema(NamedTuple):
    """The revision of a database. Names are `table` for a whole table and `table.column` for a column."""

    found: tuple[str, ...]
    """What its version table holds, sorted."""
    table: bool
    """Whether the version table is there."""
    installed: str
    """The newest revision that the installed MLflow knows."""
    release: str
    """The installed MLflow's version."""
    known: bool
    """Whether the installed MLflow knows the revision."""
    later: tuple[str, ...] = ()
    """What is there and is made by a later revision only."""
    lacking: tuple[str, ...] = ()
    """What its revision has and is not there."""
    alike: str = ""
    """The revision that has just the tables and columns that are there, '' where none has."""

    @property
    def state(self) -> SchemaState:
        if len(self.found) != 1:
            return SchemaState.SEVERAL if self.found else SchemaState.NONE
        if not self.known:
            return SchemaState.UNKNOWN
        if self.later:
            return SchemaState.HALF
        if self.lacking:
            return SchemaState.INCOMPLETE
        return SchemaState.CURRENT if self.found == (self.installed,) else SchemaState.OLDER

    @property
    def problem(self) -> str:
        """What is wrong with it, as the rest of a sentence about the database; empty where nothing is."""
        empty = "has a version table that names no revision" if self.table else "has no version table"
        return {
            SchemaState.CURRENT: "",
            SchemaState.OLDER: "has an older schema than the installed MLflow",
            SchemaState.UNKNOWN: "has a schema that the installed MLflow does not know",
            SchemaState.HALF: "has a schema that was upgraded half-way",
            SchemaState.INCOMPLETE: "lacks tables that its schema revision makes",
            SchemaState.SEVERAL: "has a version table that names several revisions",
            SchemaState.NONE: empty,
        }[self.state]

    @property
    def observed(self) -> str:
        """What the version table says, and how the tables bear it out."""
        if not self.found:
            return f"tables of revision {self.alike}" if self.alike else "tables of no known revision"
        named = f"revision{'s' * (len(self.found) != 1)} {', '.join(self.found)}"
        if self.later:
            return f"{named}, and of later ones {first_of(self.later, _FEW)}"
        return f"{named} without {first_of(self.lacking, _FEW)}" if self.lacking else named

    @property
    def expected(self) -> str:
        """What the installed MLflow works with."""
        return f"revision {self.installed} of MLflow {self.release}"

    def way_out(self, uri: str) -> str:
        """What a person can do about it; `uri` without credentials."""
        upgrade = f"run 'mlflow db upgrade {uri}'"
        restore = f"restore the backup from before the upgrade and {upgrade}"
        again = (
            f"make {self.alike} the one revision in alembic_version"
            if self.alike
            else "ask MLflow's people with a copy of it"
        )
        return {
            SchemaState.OLDER: f"take a backup, then {upgrade}",
            SchemaState.UNKNOWN: "install the MLflow that wrote it: pip install -U mlflow pytest-mlflow-compliance",
            SchemaState.HALF: (
                f"{restore}; without one, drop what later revisions made while that is empty, then {upgrade}"
            ),
            SchemaState.INCOMPLETE: f"{restore}: it was stamped with a revision that it does not have",
        }.get(self.state, f"restore a backup; without one, {again}, then {upgrade}")


class LostRows(NamedTuple):
    """Rows whose parent is not there: a foreign key that does not hold."""

    table: str
    columns: tuple[str, ...]
    parent: str
    rows: int
    example: str
    """The key of one of them, as its table holds it."""
    missing: str
    """The key of the parent that this one names."""
