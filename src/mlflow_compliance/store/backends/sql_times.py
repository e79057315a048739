"""When the newest row of a store is dated, whatever its workspace. What a repair made counts for nothing: it says
nothing of people's work.
"""

from __future__ import annotations

from collections.abc import Iterable

from mlflow_compliance.snapshot.tags import MADE_BY_US
from mlflow_compliance.store.backends.sql_tables import Tables

# Not the times of versions, and not when experiments were last changed: a repair registers, renames and tags.
_TIMES = (
    ("runs", "start_time", "run_uuid"),
    ("runs", "end_time", "run_uuid"),
    ("latest_metrics", "timestamp", "run_uuid"),
    ("logged_models", "creation_timestamp_ms", "source_run_id"),
    ("experiments", "creation_time", ""),
    ("trace_info", "timestamp_ms", ""),
)
"""Table, its column with a time, and the one with the run that it belongs to."""
_OF_RUNS = (
    ("runs", "start_time"),
    ("runs", "end_time"),
    ("logged_models", "creation_timestamp_ms"),
    ("model_versions", "creation_time"),
)


def newest_row(tables: Tables, before: int) -> int:
    """In milliseconds, 0 where no row is dated. What is dated later than `before` is dated wrongly."""
    made = ", ".join(f"'{key}'" for key in MADE_BY_US)
    people = f" AND ({{run}} IS NULL OR {{run}} NOT IN (SELECT run_uuid FROM tags WHERE tags.key IN ({made})))"
    asked = [(table, column, people.format(run=run) if run else "") for table, column, run in _TIMES]
    return _latest(tables, asked, before)


def newest_of_runs(tables: Tables, now: int) -> int:
    """When the newest run, model or version is dated, whoever made it; what is dated in the future says nothing."""
    return _latest(tables, [(table, column, "") for table, column in _OF_RUNS], now)


def _latest(tables: Tables, asked: Iterable[tuple[str, str, str]], before: int) -> int:
    """The latest of the times in some columns, each with what else its rows must hold."""
    found = [0]
    for table, column, more in asked:
        if tables.has(table, column):
            ((latest,),) = tables.all(
                f"SELECT MAX({column}) FROM {table} WHERE {column} <= :before{more}", before=before
            )
            found.append(int(latest or 0))
    return max(found)
