"""When the newest row of a store is dated, whatever its workspace. What a repair made counts for nothing: it says
nothing of people's work.
"""

from __future__ import annotations

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


def newest_row(tables: Tables, before: int) -> int:
    """In milliseconds, 0 where no row is dated. What is dated later than `before` is dated wrongly."""
    made = ", ".join(f"'{key}'" for key in MADE_BY_US)
    found = [0]
    for table, column, run in _TIMES:
        if tables.has(table, column):
            people = (
                f" AND ({run} IS NULL OR {run} NOT IN (SELECT run_uuid FROM tags WHERE tags.key IN ({made})))"
                if run
                else ""
            )
            ((latest,),) = tables.all(
                f"SELECT MAX({column}) FROM {table} WHERE {column} <= :before{people}", before=before
            )
            found.append(int(latest or 0))
    return max(found)
