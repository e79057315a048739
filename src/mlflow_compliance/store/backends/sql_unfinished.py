"""Reads by SQL what was begun and not brought to its end."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from mlflow_compliance.snapshot.entities import RegisteredModel
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.unfinished import (
    HALF_MADE_MODEL,
    HALF_MADE_VERSION,
    IN_PROGRESS,
    HalfMade,
    OpenTraces,
)
from mlflow_compliance.store.backends.sql_tables import MODEL_STATUS, RegistryReader, Tables


def half_made(
    tables: Tables, experiments: Collection[str], registry: Mapping[str, RegisteredModel]
) -> tuple[HalfMade, ...]:
    """The active logged models of these experiments, and the versions of these registered models, whose rows do not
    say READY.
    """
    return tuple(sorted([*_models(tables, experiments), *_versions(tables, registry)]))


def _models(tables: Tables, experiments: Collection[str]) -> Iterator[HalfMade]:
    if not tables.has("logged_models", "status"):
        return
    statuses = [number for number, status in MODEL_STATUS.items() if status in HALF_MADE_MODEL]
    for model_id, name, experiment, status, run_id, created, updated in tables.within(
        "SELECT model_id, name, experiment_id, status, source_run_id, creation_timestamp_ms, "
        "last_updated_timestamp_ms FROM logged_models WHERE lifecycle_stage = 'active' AND status IN :ids",
        statuses,
    ):
        if str(experiment) in experiments:
            ref = EntityRef("logged_model", model_id, name)
            at = max(created or 0, updated or 0)
            yield HalfMade(ref, MODEL_STATUS[status], at, str(experiment), run_id or "")


def _versions(tables: Tables, registry: Mapping[str, RegisteredModel]) -> Iterator[HalfMade]:
    if not tables.has("model_versions", "status"):
        return
    for name, number, status, created, updated in tables.within(
        "SELECT registered_models.name, version, status, model_versions.creation_time, "
        f"model_versions.last_updated_time FROM {RegistryReader(tables).of_models('model_versions')} AND "
        "current_stage <> 'Deleted_Internal' AND status IN :ids",
        HALF_MADE_VERSION,
        workspace=tables.workspace,
    ):
        version = registry[name].version(str(number)) if name in registry else None
        if version is not None:
            yield HalfMade(version.ref, status, max(created or 0, updated or 0))


def open_traces(tables: Tables, experiments: Collection[str], since: int) -> tuple[OpenTraces, ...]:
    """The traces in progress that began before a moment, counted: no row of any other trace leaves the database."""
    if not tables.has("trace_info", "status"):
        return ()
    rows = tables.all(
        "SELECT experiment_id, COUNT(*), MIN(timestamp_ms), MIN(request_id) FROM trace_info WHERE status = :status "
        "AND timestamp_ms < :since GROUP BY experiment_id",
        status=IN_PROGRESS,
        since=since,
    )
    found = (OpenTraces(str(key), number, oldest, example) for key, number, oldest, example in rows)
    return tuple(sorted(item for item in found if item.experiment_id in experiments))
