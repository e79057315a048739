"""Which revision a database is of, told from its version table and from its tables, without opening it through MLflow: that may migrate it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from mlflow_compliance.snapshot.schema import Schema
from mlflow_compliance.store.reading.known_schema import LOST, MADE
from mlflow_compliance.store.reading.tables import Tables

VERSIONS = "alembic_version"
_OURS = frozenset({"initial", "auth"})
"""Entries of the list that are no revisions."""
_ASSIGNED = re.compile(r"""^(down_)?revision(?:\s*:[^=]+)?\s*=\s*["'](\w+)["']""", re.MULTILINE)

Columns = Mapping[str, Collection[str]]


@lru_cache(maxsize=1)
def installed_revisions() -> tuple[str, ...]:
    """The revisions that the installed MLflow knows, the oldest first. Read from its migrations as text: importing them takes seconds."""
    spec = find_spec("mlflow")
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else ()
    after: dict[str, str] = {}
    for folder in folders:
        for path in Path(folder, "store", "db_migrations", "versions").glob("*.py"):
            assigned = {bool(down): revision for down, revision in _ASSIGNED.findall(path.read_text("utf-8"))}
            if False in assigned:
                after[assigned.get(True, "")] = assigned[False]
    found: list[str] = []
    while (following := after.pop(found[-1] if found else "", "")) and following not in found:
        found.append(following)
    return tuple(found)


def read_schema(tables: Tables) -> Schema:
    """The revision of a database and how far its tables bear it out."""
    there = VERSIONS in tables.columns
    found = tuple(sorted({str(revision) for (revision,) in tables.all(f"SELECT version_num FROM {VERSIONS}")})) if there else ()
    installed = installed_revisions()
    listed = [revision for revision in MADE if revision not in _OURS]
    later: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    if len(found) == 1 and found[0] in MADE:
        has = _has(found[0])
        later = _beyond(tables.columns, [MADE[revision] for revision in listed[listed.index(found[0]) + 1 :]], has)
        lacking = _lacking(tables.columns, has)
    return Schema(
        found=found,
        table=there,
        installed=installed[-1] if installed else "",
        release=version("mlflow"),
        known=len(found) == 1 and found[0] in installed,
        later=later,
        lacking=lacking,
        alike="" if len(found) == 1 else next((revision for revision in reversed(listed) if _is_just(tables.columns, _has(revision))), ""),
    )


@lru_cache(maxsize=128)
def _has(revision: str) -> Mapping[str, frozenset[str]]:
    """The tables and columns of a revision. Those of users may lie beside them."""
    found: dict[str, frozenset[str]] = {}
    for name in MADE:
        for table, columns in MADE[name].items():
            found[table] = found.get(table, frozenset()) | columns
        for table, columns in LOST[name].items():
            found[table] = found[table] - columns
        if name == revision:
            break
    return {table: columns for table, columns in found.items() if columns}


def _beyond(there: Columns, later: Sequence[Columns], has: Columns) -> tuple[str, ...]:
    """What of later revisions is there. A table that lacks some of its columns is somebody else's, of the same name."""
    found: set[str] = set()
    for made in later:
        for table, columns in made.items():
            if table in has:
                found |= {f"{table}.{column}" for column in columns if column in there.get(table, ()) and column not in has[table]}
            elif table in found or (table in there and set(columns) <= set(there[table])):
                found.add(table)
    return tuple(sorted(found, key=lambda name: ("." in name, name)))


def _lacking(there: Columns, has: Columns) -> tuple[str, ...]:
    found = [table for table in has if table not in there]
    found += [f"{table}.{column}" for table, columns in has.items() if table in there for column in columns if column not in there[table]]
    return tuple(sorted(found))


def _is_just(there: Columns, has: Columns) -> bool:
    """Whether the tables of a revision, and nothing of any other, are there."""
    if _lacking(there, {table: columns for table, columns in has.items() if table != VERSIONS}):
        return False
    every = {table: frozenset(column for made in MADE.values() for column in made.get(table, ())) for table in there}
    users = MADE["auth"]
    return all(
        column in has.get(table, ()) or table == VERSIONS or table in users or column not in every[table]
        for table in there
        for column in there[table]
    )
