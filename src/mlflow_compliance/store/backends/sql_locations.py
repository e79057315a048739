"""Reads by SQL where rows say that files lie: the only questions whose answers grow with the runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from mlflow_compliance.snapshot.entities import DELETED, WORKSPACE
from mlflow_compliance.snapshot.moved import HISTORY, PlaceInRow
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import EXTERNAL, TRACE_ARCHIVE
from mlflow_compliance.store.backends.base import MODEL_HISTORY, Rows, model_places
from mlflow_compliance.store.backends.sql_tables import MODEL_STATUS, Tables
from mlflow_compliance.store.backends.sql_times import newest_of_runs
from mlflow_compliance.store.storage.locations import Resolver, is_file_place, respelled
from mlflow_compliance.store.storage.parsing import parse_json


def rows_of(tables: Tables, snapshot: Snapshot, relocate: Mapping[str, str]) -> Rows:
    """Every location of the caller's workspace, deleted rows included, and of rows whose experiment is gone: files
    of those have an owner too.
    """
    reader = _Locations(tables, snapshot)
    locations = tuple(reader.locations())
    elsewhere = read_places(tables, relocate, snapshot.experiments, reader.ready)
    return Rows(
        locations,
        frozenset(reader.ready),
        tuple(reader.folders()),
        elsewhere,
        newest_of_runs(tables, int(time.time() * 1000)),
        reader.deleted_runs(),
    )


class _Locations:
    def __init__(self, tables: Tables, snapshot: Snapshot) -> None:
        self.tables = tables
        self.snapshot = snapshot
        self.ready: set[str] = set()
        self._experiments = {
            str(key) for (key,) in tables.all("SELECT experiment_id FROM experiments")
        } - snapshot.experiments.keys()
        self._lost: dict[str, str] = {}  # experiment without a row -> the folder that its runs' rows name

    def _is_ours(self, experiment_id: str) -> bool:
        """Whether a row is not that of another workspace."""
        return experiment_id not in self._experiments

    def locations(self) -> Iterator[Location]:
        for key, item in self.snapshot.experiments.items():
            yield Location(item.ref, key, item.artifact_location)
        yield from self._runs()
        yield from self._logged_models()
        for key, uri in self._lost.items():
            yield Location(EntityRef("experiment", key, f"{key} (which has no row)"), key, uri)
        for model in self.snapshot.registered_models.values():
            yield from (
                Location(version.ref, version.experiment_id, version.location)
                for version in model.versions
                if not version.external
            )
        yield from self._versions_without_model()
        yield from self._skills()
        yield from self._archived_traces()

    def folders(self) -> Iterator[Location]:
        """Those of other workspaces: nothing in them is this workspace's, and nothing is nobody's."""
        if not self.snapshot.other_workspaces:
            return
        for experiment, name, uri in self.tables.all(
            "SELECT experiment_id, workspace, artifact_location FROM experiments"
        ):
            if str(experiment) in self._experiments and uri:
                yield Location(EntityRef(WORKSPACE, name, name), str(experiment), uri)
        for table, column in (("runs", "artifact_uri"), ("logged_models", "artifact_location")):
            if not self.tables.has(table, column):
                continue
            elsewhere = (
                f"SELECT experiments.workspace, {table}.experiment_id, {table}.{column} FROM {table} JOIN experiments "
                f"ON experiments.experiment_id = {table}.experiment_id WHERE experiments.workspace <> :workspace "
                f"AND SUBSTR({table}.{column}, 1, LENGTH(experiments.artifact_location)) <> "
                "experiments.artifact_location"
            )
            for name, experiment, uri in self.tables.all(elsewhere, workspace=self.tables.workspace):
                yield Location(EntityRef(WORKSPACE, name, name), str(experiment), uri or "")
        if self.tables.has("model_versions", "workspace"):
            for name, source, stored in self.tables.all(
                "SELECT workspace, source, storage_location FROM model_versions "
                "WHERE workspace <> :workspace AND current_stage <> 'Deleted_Internal'",
                workspace=self.tables.workspace,
            ):
                yield Location(EntityRef(WORKSPACE, name, name), "", stored or source or "")

    def _runs(self) -> Iterator[Location]:
        homes: dict[str, tuple[str, str]] = {}
        for run_id, experiment, uri in self.tables.all("SELECT run_uuid, experiment_id, artifact_uri FROM runs"):
            experiment_id = str(experiment)
            if self._is_ours(experiment_id):
                yield Location(EntityRef("run", run_id), experiment_id, uri or "")
                homes[run_id] = (experiment_id, uri or "")
                self._note_lost(experiment_id, uri or "", f"/{run_id}/artifacts")
        for run_id, key, value in self.tables.all(
            "SELECT runs.run_uuid, tags.key, tags.value FROM tags JOIN runs ON runs.run_uuid = tags.run_uuid "
            "WHERE tags.key = :history AND runs.lifecycle_stage = 'active'",
            history=MODEL_HISTORY,
        ):
            home = homes.get(run_id) if key == MODEL_HISTORY else None
            if home:
                yield from model_places(run_id, *home, value)

    def deleted_runs(self) -> dict[str, int]:
        """Soft-deleted run -> when it was deleted; 0 in a schema from before that was kept."""
        since = "deleted_time" if self.tables.has("runs", "deleted_time") else "NULL"
        return {
            run_id: at or 0
            for run_id, experiment, at in self.tables.all(
                f"SELECT run_uuid, experiment_id, {since} FROM runs WHERE lifecycle_stage = 'deleted'"
            )
            if self._is_ours(str(experiment))
        }

    def _note_lost(self, experiment_id: str, uri: str, tail: str) -> None:
        if experiment_id not in self.snapshot.experiments and uri.endswith(f"/{experiment_id}{tail}"):
            self._lost.setdefault(experiment_id, uri.removesuffix(tail))

    def _logged_models(self) -> Iterator[Location]:
        if "logged_models" not in self.tables.columns:
            return
        tagged = "SELECT model_id FROM logged_model_tags WHERE tag_key = :external AND LOWER(tag_value) = 'true'"
        external = {model_id for (model_id,) in self.tables.all(tagged, external=EXTERNAL)}
        for model_id, experiment, uri, status, lifecycle in self.tables.all(
            "SELECT model_id, experiment_id, artifact_location, status, lifecycle_stage FROM logged_models"
        ):
            experiment_id = str(experiment)
            if self._is_ours(experiment_id):
                yield Location(EntityRef("logged_model", model_id), experiment_id, uri)
                self._note_lost(experiment_id, uri, f"/models/{model_id}/artifacts")
                if lifecycle != DELETED and MODEL_STATUS.get(status) == "READY" and model_id not in external:
                    self.ready.add(model_id)

    def _versions_without_model(self) -> Iterator[Location]:
        """Versions whose registered model has no row: MLflow shows them to nobody, and their files are theirs all
        the same.
        """
        if not self.tables.has("model_versions", "source") or "registered_models" not in self.tables.columns:
            return
        stored = "storage_location" if self.tables.has("model_versions", "storage_location") else "NULL"
        named = self.tables.equals("registered_models", "name", "model_versions.name")
        for name, version, source, location in self.tables.all(
            f"SELECT name, version, source, {stored} FROM model_versions WHERE {self.tables.here('model_versions')} "
            "AND current_stage <> 'Deleted_Internal' "
            f"AND NOT EXISTS (SELECT 1 FROM registered_models WHERE {named} AND "
            f"{self.tables.here('registered_models')})",
            workspace=self.tables.workspace,
        ):
            if location or source:
                yield Location(
                    EntityRef("model_version", f"{name}/{version}", f"{name} version {version}"), "", location or source
                )

    def _skills(self) -> Iterator[Location]:
        """What registered skills keep among the artifacts (MLflow 3.18); other sources are repositories."""
        if not self.tables.has("skill_versions", "source"):
            return
        for organization, name, version, uri, below in self.tables.all(
            "SELECT organization, name, version, source, subpath FROM skill_versions "
            f"WHERE source_type = 'mlflow' AND source IS NOT NULL AND {self.tables.here('skill_versions')}",
            workspace=self.tables.workspace,
        ):
            skill = f"@{organization}/{name}" if organization else str(name)
            ref = EntityRef("skill_version", f"{skill}/{version}", f"{skill} version {version}")
            yield Location(ref, "", f"{uri.rstrip('/')}/{below.strip('/')}" if below else uri)

    def _archived_traces(self) -> Iterator[Location]:
        if "trace_tags" not in self.tables.columns:
            return
        for trace_id, experiment, key, uri in self.tables.all(
            "SELECT trace_info.request_id, trace_info.experiment_id, trace_tags.key, trace_tags.value FROM trace_tags "
            "JOIN trace_info ON trace_info.request_id = trace_tags.request_id WHERE trace_tags.key = :archive",
            archive=TRACE_ARCHIVE,
        ):
            if key == TRACE_ARCHIVE and uri and self._is_ours(str(experiment)):
                yield Location(EntityRef("trace", trace_id), str(experiment), uri)


_OF_TRACES = "trace_info.experiment_id FROM trace_tags JOIN trace_info ON trace_tags.request_id = trace_info.request_id"


class Column(NamedTuple):
    """Where a place stands: `keys` are the columns that tell its row from others, `tag` the key where it is the
    value of a tag.
    """

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
    "logged_model": Column(
        "logged_models", ("model_id",), "artifact_location", home="logged_models.experiment_id FROM logged_models"
    ),
    # A version that was deleted for good leaves a row behind that names no place.
    "model_version": Column(
        "model_versions", ("name", "version"), "storage_location", where="current_stage <> 'Deleted_Internal'"
    ),
    "version_source": Column(
        "model_versions", ("name", "version"), "source", where="current_stage <> 'Deleted_Internal'"
    ),
    HISTORY: Column(
        "tags",
        ("run_uuid",),
        "value",
        MODEL_HISTORY,
        "runs.experiment_id FROM tags JOIN runs ON tags.run_uuid = runs.run_uuid",
    ),
    "trace": Column("trace_tags", ("request_id",), "value", "mlflow.artifactLocation", _OF_TRACES),
    "trace_archive": Column("trace_tags", ("request_id",), "value", TRACE_ARCHIVE, _OF_TRACES),
    "skill": Column("skill_versions", ("organization", "name", "version"), "source", where="source_type = 'mlflow'"),
}
"""Every column of MLflow's tables in which a row names the place of its files."""


def read_places(
    tables: Tables, relocate: Mapping[str, str], experiments: Collection[str], ready_models: Collection[str]
) -> tuple[PlaceInRow, ...]:
    """The places under the prefixes that name folders. Those of buckets and servers are mapped for reading alone:
    others go on to use them.
    """
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
    for *key, text, experiment_id in tables.all(
        f"SELECT {wanted}, {column.home} {tagged}", **({"tag": column.tag} if tagged else {})
    ):
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
        document = parse_json(text)
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
