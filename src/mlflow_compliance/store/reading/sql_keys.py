"""Rows whose parent is not there: foreign keys that do not hold. SQLite lets any program that does not ask for them leave such rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mlflow_compliance.snapshot.schema import LostRows
from mlflow_compliance.store.reading.known_schema import KEYS
from mlflow_compliance.store.reading.tables import Tables

_VALUES = frozenset(
    (
        *("params", "tags", "metrics", "latest_metrics", "logged_model_params", "logged_model_tags", "logged_model_metrics"),
        *("trace_tags", "trace_request_metadata", "trace_metrics", "spans", "span_metrics", "assessments", "evaluation_dataset_records"),
    )
)
"""Tables of values: nobody is shown them without their row, and going through millions of them takes longer than all the rest of an audit."""
_NAMES = ("run_uuid", "model_id", "request_id", "issue_id", "endpoint_id", "name", "scorer_name", "key", "dataset_uuid")
"""What people know a row by."""


class _Join(NamedTuple):
    """A key as far as this schema has its columns: one from before workspaces ties by the name alone."""

    table: str
    parent: str
    pairs: tuple[tuple[str, str], ...]


def lost_rows(tables: Tables) -> tuple[LostRows, ...]:
    """The keys that do not hold, one entry each, in the order of the tables. Asked for in one query: a server may be far away."""
    joins = list(_joins(tables))
    counted = " UNION ALL ".join(f"SELECT {number} AS number, COUNT(*) AS lost FROM {_sought(tables, join)}" for number, join in enumerate(joins))
    lost = {int(number): int(rows) for number, rows in tables.all(counted)} if joins else {}
    return tuple(_told(tables, join, lost[number]) for number, join in enumerate(joins) if lost[number])


def _joins(tables: Tables) -> Iterator[_Join]:
    for key in KEYS:
        if key.table in _VALUES:
            continue
        pairs = tuple((one, other) for one, other in zip(key.columns, key.parent_columns, strict=True) if tables.has(key.table, one))
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
