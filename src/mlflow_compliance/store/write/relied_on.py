"""What came to hang on a run since a repair made or restored it, so that taking it back would break it."""

from __future__ import annotations

from collections.abc import Collection

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from mlflow_compliance.snapshot.tags import ASSESSED_RUN, PARENT
from mlflow_compliance.store.backends.base import workspace
from mlflow_compliance.store.backends.listing import SOURCE_RUN, ClientListing, chunks, pages
from mlflow_compliance.store.backends.sql import SqlBackend
from mlflow_compliance.store.backends.sql_tables import Tables
from mlflow_compliance.store.store import Store


def relied_on(client: MlflowClient, store: Store, run_id: str, experiment_id: str, models: Collection[str]) -> str:
    """What relies on a run and its logged models, in a phrase; '' where nothing does."""
    if isinstance(store.backend, SqlBackend):
        with store.backend.reading() as connection:
            return _in_tables(Tables(connection, workspace()), run_id, models)
    return _asked(client, run_id, experiment_id, models)


def _in_tables(tables: Tables, run_id: str, models: Collection[str]) -> str:
    if tables.has("model_versions", "source"):
        for name, version, *named in tables.all(
            "SELECT name, version, run_id, source, storage_location FROM model_versions "
            "WHERE current_stage != 'Deleted_Internal'"
            if tables.has("model_versions", "storage_location")
            else "SELECT name, version, run_id, source FROM model_versions WHERE current_stage != 'Deleted_Internal'"
        ):
            if any(key in (text or "") for text in named for key in (run_id, *models)):
                return _version(name, version)
    for (child,) in tables.all(
        "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active' AND run_uuid IN "
        "(SELECT run_uuid FROM tags WHERE tags.key = :parent AND tags.value = :run)",
        parent=PARENT,
        run=run_id,
    ):
        return f"run {child} names it as its parent"
    if models and tables.has("inputs", "destination_id"):
        readers = {
            reader
            for (reader,) in tables.within("SELECT source_id FROM inputs WHERE destination_id IN :ids", models)
            if reader != run_id
        }
        for (reader,) in tables.within(
            "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active' AND run_uuid IN :ids", readers
        ):
            return f"run {reader} read a model of it"
    if tables.has("trace_request_metadata", "request_id"):
        for (trace,) in tables.all(
            "SELECT request_id FROM trace_request_metadata WHERE trace_request_metadata.key = :source AND value = :run",
            source=SOURCE_RUN,
            run=run_id,
        ):
            return _trace(trace)
    if tables.has("entity_associations", "destination_id"):
        for source, destination in tables.all(
            "SELECT source_id, destination_id FROM entity_associations WHERE source_id = :run OR destination_id = :run",
            run=run_id,
        ):
            return _trace(source if destination == run_id else destination)
    if tables.has("assessments", "assessment_metadata"):
        for _ in tables.all(
            "SELECT 1 FROM assessments WHERE assessment_metadata LIKE :own", own=f'%"{ASSESSED_RUN}": "{run_id}"%'
        ):
            return _ASSESSED
    return ""


def _asked(client: MlflowClient, run_id: str, experiment_id: str, models: Collection[str]) -> str:
    for where in (f"run_id = '{run_id}'", *(f"source_path = 'models:/{key}'" for key in models)):
        for version in pages(client.search_model_versions, filter_string=where):
            return _version(version.name, version.version)
    experiments = [item.experiment_id for item in pages(client.search_experiments, max_results=1000)]
    for chunk in chunks(experiments):
        where = f"tags.`{PARENT}` = '{run_id}'"
        for run in pages(
            client.search_runs, experiment_ids=chunk, filter_string=where, run_view_type=ViewType.ACTIVE_ONLY
        ):
            return f"run {run.info.run_id} names it as its parent"
    for trace in ClientListing(client).traces([experiment_id]):
        if run_id in trace.assessed:
            return _ASSESSED
        if trace.source_run == run_id:
            return _trace(trace.trace_id)
    return ""


_ASSESSED = "it has assessments, which deleting it would delete for good"


def _version(name: str, version: object) -> str:
    return f"version {version} of registered model {name!r} was made of it"


def _trace(key: str) -> str:
    return f"trace {key} was logged for it"
