"""Reads by SQL what rows say of the lives of runs and logged models that are deleted or may have to be kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from mlflow_compliance.production.holds import held_homes, holds_model, holds_run, names_runs
from mlflow_compliance.production.service import service_tags, shows_service, tag_names
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.snapshot.entities import DELETED, Experiment
from mlflow_compliance.snapshot.row_facts import RowFacts
from mlflow_compliance.snapshot.tags import RUN_NAME, SOURCE_MODEL
from mlflow_compliance.store.backends.sql_tables import Tables


def row_facts(
    tables: Tables, settings: Settings, experiments: Mapping[str, Experiment]
) -> dict[tuple[str, str], RowFacts]:
    """Of the caller's workspace; nothing where the settings say nothing of retention."""
    if not settings.retention.says_anything:
        return {}
    homes = held_homes(settings, experiments)
    runs = _runs(tables, settings, experiments, homes)
    return {row.ref.place: row for row in (*runs, *_models(tables, settings, experiments, homes, runs))}


def _runs(tables: Tables, settings: Settings, experiments: Collection[str], homes: Collection[str]) -> list[RowFacts]:
    since = "deleted_time" if tables.has("runs", "deleted_time") else "NULL"
    columns = f"SELECT run_uuid, experiment_id, name, lifecycle_stage, start_time, {since} FROM runs WHERE"
    found: dict[str, Any] = {row[0]: row for row in tables.all(f"{columns} lifecycle_stage = 'deleted'")}
    found.update({row[0]: row for row in tables.within(f"{columns} experiment_id IN :ids", map(int, homes))})
    wanted = _in_service(tables, settings) | _named(tables, settings)
    found.update({row[0]: row for row in tables.within(f"{columns} run_uuid IN :ids", wanted - found.keys())})
    ids = [key for key, row in found.items() if str(row[1]) in experiments]
    tags, reads = _tags(tables, ids, {*tag_names(settings), RUN_NAME}), _reads(tables, ids)
    return [
        RowFacts(
            "run",
            key,
            name or tags[key].get(RUN_NAME, ""),
            str(home),
            lifecycle,
            start or 0,
            (at or 0) if lifecycle == DELETED else 0,
            reads=tuple(sorted(reads[key])),
            tags={tag: value for tag, value in tags[key].items() if tag != RUN_NAME},
        )
        for key, home, name, lifecycle, start, at in (found[run_id] for run_id in ids)
    ]


def _in_service(tables: Tables, settings: Settings) -> set[str]:
    """Ids of the runs whose tags show that they are or were in production."""
    rows = tables.within("SELECT run_uuid, tags.key, value FROM tags WHERE tags.key IN :ids", service_tags(settings))
    return {run_id for run_id, key, value in rows if shows_service([(key, value or "")], settings)}


def _named(tables: Tables, settings: Settings) -> set[str]:
    """Ids of the runs that a hold names."""
    if not names_runs(settings):
        return set()
    names: dict[str, list[str]] = {
        run_id: [run_id, name or ""] for run_id, name in tables.all("SELECT run_uuid, name FROM runs")
    }
    nameless = [run_id for run_id, (_, name) in names.items() if not name]
    for run_id, own in _tags(tables, nameless, {RUN_NAME}).items():
        names[run_id] += own.values()
    return {run_id for run_id, own in names.items() if holds_run(settings, *own)}


def _tags(tables: Tables, ids: Collection[str], names: Collection[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    wanted = {f"n{number}": name for number, name in enumerate(sorted(names))}
    listed = ", ".join(f":{name}" for name in wanted)
    for run_id, key, value in tables.within(
        f"SELECT run_uuid, tags.key, value FROM tags WHERE tags.key IN ({listed}) AND run_uuid IN :ids", ids, **wanted
    ):
        if key in names:
            found[run_id][key] = value or ""
    return found


def _reads(tables: Tables, ids: Collection[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    if tables.has("inputs", "step"):
        sql = "SELECT source_id, destination_id FROM inputs WHERE source_type = 'RUN_INPUT' AND source_id IN :ids"
        for run_id, model_id in tables.within(sql, ids):
            found[run_id].append(model_id)
    return found


def _models(
    tables: Tables,
    settings: Settings,
    experiments: Collection[str],
    homes: Collection[str],
    runs: Collection[RowFacts],
) -> list[RowFacts]:
    if "logged_models" not in tables.columns:
        return []
    writers, read = {row.key for row in runs}, {key for row in runs for key in row.reads}
    tagged = "SELECT model_id, tag_value FROM logged_model_tags WHERE tag_key = :source"
    sources = {key: value or "" for key, value in tables.all(tagged, source=SOURCE_MODEL)}
    sql = (
        "SELECT model_id, experiment_id, name, lifecycle_stage, source_run_id, creation_timestamp_ms, "
        "last_updated_timestamp_ms FROM logged_models"
    )
    return [
        RowFacts(
            "logged_model",
            key,
            name or "",
            str(home),
            lifecycle,
            created or 0,
            (updated or 0) if lifecycle == DELETED else 0,
            run_id or "",
            tags={SOURCE_MODEL: sources[key]} if key in sources else {},
        )
        for key, home, name, lifecycle, run_id, created, updated in tables.all(sql)
        if str(home) in experiments
        and (
            lifecycle == DELETED
            or str(home) in homes
            or run_id in writers
            or key in read
            or key in sources
            or holds_model(settings, key)
        )
    ]
