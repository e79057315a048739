"""Which revision a database is of, told from its version table and from its tables, without opening it through
MLflow: that may migrate it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from mlflow_compliance.snapshot.schema import LostRows, Schema
from mlflow_compliance.store.backends.known_schema import KEYS, KNOWN, LOST, MADE
from mlflow_compliance.store.backends.sql_tables import Tables

VERSIONS = "alembic_version"
_OURS = frozenset({"initial", "auth"})
"""Entries of the list that are no revisions."""
_ASSIGNED = re.compile(r"""^(down_)?revision(?:\s*:[^=]+)?\s*=\s*["'](\w+)["']""", re.MULTILINE)

Columns = Mapping[str, Collection[str]]


@lru_cache(maxsize=1)
def installed_revisions() -> tuple[str, ...]:
    """The revisions that the installed MLflow knows, the oldest first. Read from its migrations as text: importing
    them takes seconds.
    """
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
    found = (
        tuple(sorted({str(revision) for (revision,) in tables.all(f"SELECT version_num FROM {VERSIONS}")}))
        if there
        else ()
    )
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
        alike=""
        if len(found) == 1
        else next((revision for revision in reversed(listed) if _is_just(tables.columns, _has(revision))), ""),
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
                found |= {
                    f"{table}.{column}"
                    for column in columns
                    if column in there.get(table, ()) and column not in has[table]
                }
            elif table in found or (table in there and set(columns) <= set(there[table])):
                found.add(table)
    return tuple(sorted(found, key=lambda name: ("." in name, name)))


def _lacking(there: Columns, has: Columns) -> tuple[str, ...]:
    found = [table for table in has if table not in there]
    found += [
        f"{table}.{column}"
        for table, columns in has.items()
        if table in there
        for column in columns
        if column not in there[table]
    ]
    return tuple(sorted(found))


def _is_just(there: Columns, has: Columns) -> bool:
    """Whether the tables of a revision, and nothing of any other, are there."""
    if _lacking(there, {table: columns for table, columns in has.items() if table != VERSIONS}):
        return False
    users = MADE["auth"]
    return all(
        column in has.get(table, ()) or table == VERSIONS or table in users or column not in KNOWN.get(table, ())
        for table in there
        for column in there[table]
    )


_VALUES = frozenset(
    (
        *(
            "params",
            "tags",
            "metrics",
            "latest_metrics",
            "logged_model_params",
            "logged_model_tags",
            "logged_model_metrics",
        ),
        *(
            "trace_tags",
            "trace_request_metadata",
            "trace_metrics",
            "spans",
            "span_metrics",
            "assessments",
            "evaluation_dataset_records",
        ),
    )
)
"""Tables of values: nobody is shown them without their row, and going through millions of them takes longer than
all the rest of an audit.
"""
_NAMES = ("run_uuid", "model_id", "request_id", "issue_id", "endpoint_id", "name", "scorer_name", "key", "dataset_uuid")
"""What people know a row by."""


class _Join(NamedTuple):
    """A key as far as this schema has its columns: one from before workspaces ties by the name alone."""

    table: str
    parent: str
    pairs: tuple[tuple[str, str], ...]


def lost_rows(tables: Tables) -> tuple[LostRows, ...]:
    """The keys that do not hold, one entry each, in the order of the tables. Asked for in one query: a server may
    be far away.
    """
    joins = list(_joins(tables))
    counted = " UNION ALL ".join(
        f"SELECT {number} AS number, COUNT(*) AS lost FROM {_sought(tables, join)}" for number, join in enumerate(joins)
    )
    lost = {int(number): int(rows) for number, rows in tables.all(counted)} if joins else {}
    return tuple(_told(tables, join, lost[number]) for number, join in enumerate(joins) if lost[number])


def _joins(tables: Tables) -> Iterator[_Join]:
    for key in KEYS:
        if key.table in _VALUES:
            continue
        pairs = tuple(
            (one, other)
            for one, other in zip(key.columns, key.parent_columns, strict=True)
            if tables.has(key.table, one)
        )
        pairs = tuple((one, other) for one, other in pairs if tables.has(key.parent, other))
        if pairs and {one for one, _ in pairs} >= {*key.columns} - {"workspace"}:
            yield _Join(key.table, key.parent, pairs)


def _sought(tables: Tables, join: _Join) -> str:
    """The rows that lead nowhere."""
    table, parent, pairs = join
    equal = " AND ".join(tables.equals(parent, other, f"{table}.{one}") for one, other in pairs)
    filled = " AND ".join(f"{table}.{one} IS NOT NULL" for one, _ in pairs)
    return f"{table} WHERE {filled} AND NOT EXISTS (SELECT 1 FROM {parent} WHERE {equal})"


def _told(tables: Tables, join: _Join, rows: int) -> LostRows:
    columns = tuple(one for one, _ in join.pairs)
    own = next((name for name in _NAMES if tables.has(join.table, name)), columns[-1])
    named = ", ".join(f"{join.table}.{one}" for one in (own, *columns))
    found = tables.all(f"SELECT {named} FROM {_sought(tables, join)} ORDER BY {join.table}.{own} LIMIT 1")[0]
    return LostRows(join.table, columns, join.parent, rows, str(found[0]), "/".join(map(str, found[1:])))
