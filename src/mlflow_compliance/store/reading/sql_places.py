"""The places that rows name and that are read elsewhere through [store.relocate], and how they must stand there to be right by themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from mlflow_compliance.snapshot.moved import HISTORY, PlaceInRow
from mlflow_compliance.store.reading.common import MODEL_HISTORY
from mlflow_compliance.store.reading.locations import Resolver, is_file_place, respelled
from mlflow_compliance.store.reading.tables import Tables

_OF_TRACES = "trace_info.experiment_id FROM trace_tags JOIN trace_info ON trace_tags.request_id = trace_info.request_id"


class Column(NamedTuple):
    """Where a place stands: `keys` are the columns that tell its row from others, `tag` the key where it is the value of a tag."""

    table: str
    keys: tuple[str, ...]
    column: str
    tag: str = ""
    home: str = ""
    """How the row finds its experiment, as an end of a query; '' where the row is in a workspace by itself."""
    where: str = ""
    """Which rows name a place there, where not all do."""


COLUMNS = {
    "experiment": Column("experiments", ("experiment_id",), "artifact_location"),
    "run": Column("runs", ("run_uuid",), "artifact_uri", home="runs.experiment_id FROM runs"),
    "logged_model": Column("logged_models", ("model_id",), "artifact_location", home="logged_models.experiment_id FROM logged_models"),
    # A version that was deleted for good leaves a row behind that names no place.
    "model_version": Column("model_versions", ("name", "version"), "storage_location", where="current_stage <> 'Deleted_Internal'"),
    "version_source": Column("model_versions", ("name", "version"), "source", where="current_stage <> 'Deleted_Internal'"),
    HISTORY: Column("tags", ("run_uuid",), "value", MODEL_HISTORY, "runs.experiment_id FROM tags JOIN runs ON tags.run_uuid = runs.run_uuid"),
    "trace": Column("trace_tags", ("request_id",), "value", "mlflow.artifactLocation", _OF_TRACES),
    "trace_archive": Column("trace_tags", ("request_id",), "value", "mlflow.trace.archiveLocation", _OF_TRACES),
    "skill": Column("skill_versions", ("organization", "name", "version"), "source", where="source_type = 'mlflow'"),
}
"""Every column of MLflow's tables in which a row names the place of its files."""


def read_places(tables: Tables, relocate: Mapping[str, str], experiments: Collection[str], ready_models: Collection[str]) -> tuple[PlaceInRow, ...]:
    """The places under the prefixes that name folders. Those of buckets and servers are mapped for reading alone: others go on to use them."""
    if not any(map(is_file_place, relocate)):
        return ()
    resolve = Resolver(relocate)
    found = []
    for kind, column in COLUMNS.items():
        needed = [column.column, *column.keys]
        if not all(tables.has(column.table, name) for name in needed):
            continue
        for key, text in _texts(tables, column, experiments):
            has_files = kind == "model_version" or (kind == "logged_model" and key[0] in ready_models)
            if kind == HISTORY:
                prefix, after = _history(text, resolve)
            else:
                prefix, after = _moved(text, resolve)
            if prefix:
                found.append(PlaceInRow(kind, key, text, after, prefix, has_files))
    return tuple(found)


def _texts(tables: Tables, column: Column, experiments: Collection[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(key, text) of every row of a column, those of other workspaces left out."""
    table, wanted = column.table, ", ".join(f"{column.table}.{name}" for name in (*column.keys, column.column))
    if not column.home:
        conditions = " AND ".join(filter(None, (tables.here(table), column.where)))
        rows = tables.all(f"SELECT {wanted} FROM {table} WHERE {conditions}", workspace=tables.workspace)
        yield from ((tuple(map(str, key)), text) for *key, text in rows if text)
        return
    tagged = f"WHERE {table}.key = :tag" if column.tag else ""
    for *key, text, experiment_id in tables.all(f"SELECT {wanted}, {column.home} {tagged}", **({"tag": column.tag} if tagged else {})):
        if text and str(experiment_id) in experiments:
            yield tuple(map(str, key)), text


def _moved(text: str, resolve: Resolver) -> tuple[str, str]:
    """The prefix that a place is read by, '' where by none that is rewritten, and the place as it must stand."""
    here = resolve(text)
    if here.prefix is None or not is_file_place(here.prefix):
        return "", ""
    after = respelled(text, here.path) if here.path else ""
    again = resolve(after) if after else here
    # What a mapping would move once more is not right by itself.
    return here.prefix, after if again.prefix is None and again.path == here.path else ""


def _history(text: str, resolve: Resolver) -> tuple[str, str]:
    """As `_moved`, for a tag in JSON that may hold several places; those under one prefix change at a time."""
    try:
        document = json.loads(text)
    except ValueError:
        return "", ""
    prefixes: list[str] = []

    def change(value: str) -> str:
        prefix, after = _moved(value, resolve)
        if prefix:
            prefixes.append(prefix)
        return after if after and prefix == prefixes[0] else value

    changed = _with_texts(document, change)
    return (prefixes[0], json.dumps(changed) if changed != document else "") if prefixes else ("", "")


def _with_texts(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_with_texts(item, change) for item in value]
    return {key: _with_texts(item, change) for key, item in value.items()} if isinstance(value, dict) else value
