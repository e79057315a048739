"""Reads by SQL all that is to be known of what `mlflow gc` selects: its rows, and what of other rows relies on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from mlflow_compliance.production.marks import sought_folded
from mlflow_compliance.settings.schema import Settings, folded
from mlflow_compliance.snapshot.doomed import Doom, Doomed
from mlflow_compliance.snapshot.entities import ACTIVE, DELETED
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import (
    BUILD,
    BUILT_FOR,
    COPIED_BY,
    COPY_STATE,
    KEPT_JOURNAL,
    PARENT,
    RETRACTED,
    RUN_NAME,
    SOURCE_RUN,
)
from mlflow_compliance.snapshot.ties import How, Tie, in_order
from mlflow_compliance.store.backends.base import fresh_since
from mlflow_compliance.store.backends.sql_gc_rows import Going, rows_going
from mlflow_compliance.store.backends.sql_gc_selection import Asked, Selected, select, without_refused
from mlflow_compliance.store.backends.sql_tables import Tables
from mlflow_compliance.store.backends.sql_ties import TieReader

_WORKING = "RUNNING"
_TOGETHER = 60_000
"""Milliseconds within which a copy and its models are taken back."""


def doom_of(tables: Tables, asked: Asked, workspace: str, snapshot: Snapshot, settings: Settings) -> Doom:
    """What gc would destroy, with a snapshot of the same moment."""
    return _Reader(tables, snapshot, settings).doom(asked, workspace)


def doom_of_repairs(tables: Tables, homes: Collection[str], snapshot: Snapshot, settings: Settings) -> Doom:
    """What lies in experiments that repairs retired and went with them, and the copies that repairs took back, with
    their logged models.
    """
    return _Reader(tables, snapshot, settings).doom_of_repairs(homes)


def _version_of_mlflow() -> str:
    import mlflow  # an audit of rows alone does not need it

    return str(mlflow.__version__)


class _Reader:
    def __init__(self, tables: Tables, snapshot: Snapshot, settings: Settings) -> None:
        self.tables, self.snapshot, self.settings = tables, snapshot, settings
        self.since = fresh_since(settings, snapshot.taken_at)

    def doom(self, asked: Asked, workspace: str) -> Doom:
        chosen = select(self.tables, asked, workspace, self.snapshot.taken_at)
        going, rows = self._going(chosen)
        if rows.refused:
            chosen = without_refused(chosen, rows.refused)
            going, rows = self._going(chosen)
        runs, models, homes = going["runs"], going["logged_models"], going["experiments"]
        things = (
            *self._runs(runs, {*chosen.runs}, chosen.files_go),
            *self._models(models, {*chosen.models}, chosen.files_go),
            *self._experiments(chosen.experiments),
            *self._jobs(chosen.jobs),
        )
        return Doom(
            _version_of_mlflow(),
            workspace,
            things,
            chosen.stops,
            rows.counts,
            in_order(self._ties(runs, models, chosen.experiments)),
            self._reused(homes),
        )

    def doom_of_repairs(self, homes: Collection[str]) -> Doom:
        since = {key: at for key, at in self._retired(homes) if at}
        runs, models = dict[str, int](), dict[str, int]()
        for run_id, home, at in self.tables.within(
            "SELECT run_uuid, experiment_id, deleted_time FROM runs WHERE lifecycle_stage = 'deleted' AND "
            "experiment_id IN :ids",
            map(int, since),
        ):
            # What somebody had deleted before is not this program's to destroy.
            if (at or 0) >= since[str(home)]:
                runs[run_id] = at
        for run_id, key, value, at in self.tables.within(
            "SELECT runs.run_uuid, tags.key, tags.value, runs.deleted_time FROM tags JOIN runs ON runs.run_uuid = "
            "tags.run_uuid WHERE runs.lifecycle_stage = 'deleted' AND tags.key IN :ids",
            [COPY_STATE],
        ):
            if (key, value) == (COPY_STATE, RETRACTED):
                runs[run_id] = at or 0
        for model_id, home, stage, at in self._models_in(since):
            if stage == ACTIVE or (at or 0) >= since[str(home)]:
                models[model_id] = since[str(home)]
        if "logged_models" in self.tables.columns:
            for model_id, run_id, at in self.tables.within(
                "SELECT model_id, source_run_id, last_updated_timestamp_ms FROM logged_models WHERE lifecycle_stage = "
                "'deleted' AND source_run_id IN :ids",
                runs,
            ):
                if runs[run_id] and abs((at or 0) - runs[run_id]) < _TOGETHER:
                    models.setdefault(model_id, at)
        going = {"runs": runs.keys(), "logged_models": models.keys()}
        rows = rows_going(self.tables, going)
        every = {("run", key) for key in runs} | {("logged_model", key) for key in models}
        things = [*self._runs(runs, runs, every), *self._models(models, models, every)]
        things = [
            replace(item, deleted_at=models.get(item.ref.key, item.deleted_at), active=False)
            if item.ref.kind == "logged_model"
            else item
            for item in things
        ]
        return Doom(
            _version_of_mlflow(),
            "",
            tuple(things),
            rows=rows.counts,
            ties=in_order(self._ties(runs, models, ())),
        )

    def _retired(self, homes: Collection[str]) -> Iterator[tuple[str, int]]:
        """Deleted experiment -> when it was."""
        sql = (
            "SELECT experiment_id, last_update_time FROM experiments WHERE lifecycle_stage = 'deleted' AND "
            "experiment_id IN :ids"
        )
        return ((str(key), at or 0) for key, at in self.tables.within(sql, map(int, homes)))

    def _models_in(self, homes: Collection[str]) -> Iterator[Any]:
        if "logged_models" in self.tables.columns:
            yield from self.tables.within(
                "SELECT model_id, experiment_id, lifecycle_stage, last_updated_timestamp_ms FROM logged_models WHERE "
                "experiment_id IN :ids",
                map(int, homes),
            )

    def _going(self, chosen: Selected) -> tuple[dict[str, set[Any]], Going]:
        """The runs, models, experiments and jobs whose rows go, by table, and what goes with them."""
        homes = {int(key) for key in chosen.experiments}
        found: dict[str, set[Any]] = {
            "runs": {*chosen.runs, *self._within("runs", "run_uuid", homes)},
            "logged_models": {*chosen.models, *self._within("logged_models", "model_id", homes)},
            "experiments": homes,
            "jobs": {*chosen.jobs},
        }
        return found, rows_going(self.tables, found)

    def _within(self, table: str, key: str, homes: Collection[int]) -> Iterator[str]:
        if table in self.tables.columns:
            rows = self.tables.within(f"SELECT {key} FROM {table} WHERE experiment_id IN :ids", homes)
            yield from (row[0] for row in rows)

    def _reused(self, homes: Collection[int]) -> str:
        """SQLite gives the next row the number after the highest that is there."""
        if self.tables.connection.dialect.name != "sqlite" or not homes:
            return ""
        kept = [key for (key,) in self.tables.all("SELECT experiment_id FROM experiments") if key not in {*homes}]
        free = max(kept, default=-1) + 1
        return str(free) if free in homes else ""

    def _runs(
        self, ids: Collection[str], chosen: Collection[str], files_go: Collection[tuple[str, str]]
    ) -> Iterator[Doomed]:
        tags, reads = self._tags(ids), defaultdict[str, list[str]](list)
        if self.tables.has("inputs", "step"):
            sql = "SELECT source_id, destination_id FROM inputs WHERE source_type = 'RUN_INPUT' AND source_id IN :ids"
            for run_id, model_id in self.tables.within(sql, ids):
                reads[run_id].append(model_id)
        deleted = "deleted_time" if self.tables.has("runs", "deleted_time") else "NULL"
        sql = (
            f"SELECT run_uuid, experiment_id, name, status, lifecycle_stage, start_time, {deleted}, artifact_uri FROM "
            "runs WHERE run_uuid IN :ids"
        )
        for key, home, name, status, lifecycle, start, at, uri in self.tables.within(sql, ids):
            own = tags[key]
            yield Doomed(
                EntityRef("run", key, name or own.get(RUN_NAME, "")),
                str(home),
                (at or 0) if lifecycle == DELETED else 0,
                uri or "",
                ("run", key) in files_go,
                "" if key in chosen else str(home),
                lifecycle == ACTIVE,
                status == _WORKING and (start or 0) > self.since,
                own.get(PARENT, ""),
                reads=tuple(sorted(reads[key])),
                tags=own,
            )

    def _tags(self, ids: Collection[str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = defaultdict(dict)
        marks = {key for key, _ in sought_folded(self.settings)}
        spelled = [key for (key,) in self.tables.all("SELECT DISTINCT tags.key FROM tags") if folded(key) in marks]
        named = {PARENT, RUN_NAME, BUILD, BUILT_FOR, COPIED_BY, COPY_STATE, KEPT_JOURNAL, SOURCE_RUN, *spelled}
        names = {f"n{number}": name for number, name in enumerate(sorted(named))}
        listed = ", ".join(f":{name}" for name in names)
        sql = f"SELECT run_uuid, tags.key, value FROM tags WHERE tags.key IN ({listed}) AND run_uuid IN :ids"
        for run_id, key, value in self.tables.within(sql, ids, **names):
            if key in named:
                found[run_id][key] = value or ""
        return found

    def _models(
        self, ids: Collection[str], chosen: Collection[str], files_go: Collection[tuple[str, str]]
    ) -> Iterator[Doomed]:
        if "logged_models" not in self.tables.columns:
            return
        sql = (
            "SELECT model_id, experiment_id, name, lifecycle_stage, last_updated_timestamp_ms, artifact_location, "
            "source_run_id FROM logged_models WHERE model_id IN :ids"
        )
        for key, home, name, lifecycle, at, uri, run_id in self.tables.within(sql, ids):
            yield Doomed(
                EntityRef("logged_model", key, name or ""),
                str(home),
                (at or 0) if lifecycle == DELETED else 0,
                uri or "",
                ("logged_model", key) in files_go,
                "" if key in chosen else str(home),
                lifecycle == ACTIVE,
                run_id=run_id or "",
            )

    def _experiments(self, ids: Collection[str]) -> Iterator[Doomed]:
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        homes = [int(key) for key in ids]
        sql = "SELECT experiment_id, experiment_tags.key, value FROM experiment_tags WHERE experiment_id IN :ids"
        for home, key, value in self.tables.within(sql, homes):
            tags[str(home)][key] = value or ""
        updated = "last_update_time" if self.tables.has("experiments", "last_update_time") else "NULL"
        sql = f"SELECT experiment_id, name, {updated}, artifact_location FROM experiments WHERE experiment_id IN :ids"
        for home, name, at, uri in self.tables.within(sql, homes):
            key = str(home)
            yield Doomed(EntityRef("experiment", key, name), key, at or 0, uri or "", tags=tags[key])

    def _jobs(self, ids: Collection[str]) -> Iterator[Doomed]:
        for key, name in self.tables.within("SELECT id, job_name FROM jobs WHERE id IN :ids", ids) if ids else ():
            yield Doomed(EntityRef("job", key, name), "")

    def _ties(self, runs: Collection[str], models: Collection[str], homes: Collection[str]) -> Iterator[Tie]:
        """Of what stays. Runs that are deleted themselves keep nothing."""
        reader = TieReader(self.tables, self.snapshot.taken_at, self.since)
        yield from reader.ending_in(runs, homes, self.snapshot.registered_models)
        yield from self._lineage(runs)
        if self.tables.has("inputs", "step"):
            sql = (
                "SELECT inputs.source_id, inputs.destination_id, runs.experiment_id FROM inputs JOIN runs ON "
                f"{self.tables.equals('runs', 'run_uuid', 'inputs.source_id')} WHERE inputs.source_type = 'RUN_INPUT' "
                "AND runs.lifecycle_stage = 'active' AND inputs.destination_id IN :ids"
            )
            for run_id, model_id, home in self.tables.within(sql, models):
                if run_id not in runs:
                    yield Tie(How.USED, EntityRef("run", run_id), EntityRef("logged_model", model_id), str(home))

    def _lineage(self, runs: Collection[str]) -> Iterator[Tie]:
        """The active children of runs that go; and their parents that are at work, whose children they are."""
        children = (
            "SELECT tags.run_uuid, tags.value, tags.key, runs.experiment_id FROM tags JOIN runs ON runs.run_uuid = "
            "tags.run_uuid WHERE tags.key = :parent AND runs.lifecycle_stage = 'active' AND tags.value IN :ids"
        )
        for child, parent, key, home in self.tables.within(children, runs, parent=PARENT):
            if key == PARENT and child not in runs:
                yield Tie(How.CHILD, EntityRef("run", child), EntityRef("run", parent), str(home))
        parents: dict[str, list[str]] = defaultdict(list)
        named: Iterator[Any] = self.tables.within(
            "SELECT run_uuid, value, tags.key FROM tags WHERE tags.key = :parent AND run_uuid IN :ids",
            runs,
            parent=PARENT,
        )
        for child, parent, key in named:
            if key == PARENT:
                parents[parent].append(child)
        working = (
            "SELECT run_uuid, experiment_id, start_time FROM runs WHERE status = 'RUNNING' AND lifecycle_stage = "
            "'active' AND run_uuid IN :ids"
        )
        for parent, home, start in self.tables.within(working, parents.keys() - {""}):
            for child in parents[parent] if (start or 0) > self.since and parent not in runs else ():
                yield Tie(How.PARENT, EntityRef("run", parent), EntityRef("run", child), str(home))
