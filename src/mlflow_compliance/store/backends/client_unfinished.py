"""What was begun and not brought to its end, in what a store lists of its models, versions and traces."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from mlflow_compliance.snapshot.entities import ModelVersion
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.unfinished import (
    HALF_MADE_MODEL,
    HALF_MADE_VERSION,
    IN_PROGRESS,
    HalfMade,
    OpenTraces,
)
from mlflow_compliance.store.backends.listing import ModelRow, TraceRow


def half_made_model(model: ModelRow) -> Iterator[HalfMade]:
    """An active logged model, where it is half made."""
    if model.status in HALF_MADE_MODEL:
        ref, at = EntityRef("logged_model", model.model_id, model.name), max(model.created, model.updated)
        yield HalfMade(ref, model.status, at, model.experiment_id, model.source_run_id)


def half_made_version(version: ModelVersion, row: Any) -> Iterator[HalfMade]:
    """A version, where it is half made; `row` is what MLflow gives of it."""
    if version.status in HALF_MADE_VERSION:
        at = max(row.creation_timestamp or 0, row.last_updated_timestamp or 0)
        yield HalfMade(version.ref, version.status, at)


def open_traces(traces: Iterable[TraceRow], since: int) -> tuple[OpenTraces, ...]:
    """The traces in progress that began before a moment, by experiment."""
    found: dict[str, list[TraceRow]] = defaultdict(list)
    for trace in traces:
        if trace.status == IN_PROGRESS and trace.begun < since:
            found[trace.experiment_id].append(trace)
    return tuple(
        OpenTraces(key, len(rows), min(row.begun for row in rows), min(row.trace_id for row in rows))
        for key, rows in sorted(found.items())
    )
