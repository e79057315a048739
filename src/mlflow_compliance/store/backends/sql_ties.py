"""Reads by SQL what relies on what: a question for each kind of tie, none for a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from mlflow_compliance.snapshot.entities import AHEAD, RegisteredModel, Run, latest_time
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.tags import PARENT
from mlflow_compliance.snapshot.ties import How, Tie, ids_in, in_order, prompt_homes
from mlflow_compliance.store.backends.base import PROMPT_HOMES, belongs, traces_of, version_ties
from mlflow_compliance.store.backends.sql_tables import Tables

PENDING = 1
"""Status of a logged model that is not ready yet."""
_OF_RUNS = (
    "SELECT trace_request_metadata.value, trace_info.experiment_id, MAX(timestamp_ms + COALESCE(execution_time_ms, 0)) "
    "FROM trace_request_metadata JOIN trace_info ON trace_info.request_id = trace_request_metadata.request_id "
    "WHERE trace_request_metadata.key = 'mlflow.sourceRun' AND timestamp_ms <= :ahead AND {} "
    "GROUP BY trace_request_metadata.value, trace_info.experiment_id"
)
"""The latest trace of each run and experiment, by what the traces say themselves."""
_PUT_TO_RUNS = (
    "SELECT destination_id, trace_info.experiment_id, MAX(timestamp_ms + COALESCE(execution_time_ms, 0)) "
    "FROM entity_associations JOIN trace_info ON trace_info.request_id = source_id "
    "WHERE source_type = 'trace' AND destination_type = 'run' AND timestamp_ms <= :ahead AND destination_id IN :ids "
    "GROUP BY destination_id, trace_info.experiment_id"
)
"""The same of traces that were put to a run afterwards."""


class TieReader:
    """Brings in the ties of one store. `now` and `since` (what is dated later is fresh) are in milliseconds."""

    def __init__(self, tables: Tables, now: int, since: int) -> None:
        self.tables = tables
        self.now, self.since = now, since

    def ties(
        self, runs: Mapping[str, Run], registry: Mapping[str, RegisteredModel], retirable: Collection[str]
    ) -> tuple[Tie, ...]:
        """What shows that the runs at work among `runs` are alive, and what relies on experiments that may be
        `retirable` (or something in them).
        """
        working = {key for key, run in runs.items() if run.status == "RUNNING" and run.active}
        ties = [
            *self._lineage(working, runs, registry if retirable else {}, upwards=bool(retirable)),
            *self._traces(working),
            *self._made(working),
        ]
        if retirable:
            ties += [*self._used(retirable), *self._versions(registry), *self._belonging(retirable)]
        return in_order(ties)

    def ending_in(
        self, runs: Collection[str], homes: Collection[str], registry: Mapping[str, RegisteredModel]
    ) -> Iterator[Tie]:
        """What versions name; and what traces or people have to do with some runs and experiments, deleted or not."""
        yield from self._versions(registry)
        yield from (tie for tie in self._traces(runs) if tie.target.key in {*runs, *homes} and tie.at > self.since)
        yield from self._belonging(homes)

    def _lineage(
        self,
        working: Collection[str],
        runs: Mapping[str, Run],
        registry: Mapping[str, RegisteredModel],
        *,
        upwards: bool,
    ) -> Iterator[Tie]:
        """Children and theirs of the runs at work; and, of all that may keep an experiment alive, parents and
        theirs.
        """
        parents = self._below(working)
        level = (
            set(runs) | {version.run_id for item in registry.values() for version in item.versions if version.run_id}
            if upwards
            else set()
        )
        found = set(level)
        while level:
            above = dict(self._parents(level, "tags.run_uuid"))
            parents |= above
            level = set(above.values()) - found
            found |= level
        rows = {
            run_id: (str(experiment_id), start, end)
            for run_id, experiment_id, start, end in self.tables.within(
                "SELECT run_uuid, experiment_id, start_time, end_time FROM runs WHERE run_uuid IN :ids",
                {*parents, *parents.values()},
            )
        }
        # The rows of a run that has ended say all of it with its end.
        logged = self._logged([child for child in parents if child in rows and not rows[child][2]])
        for child, parent in parents.items():
            if child in rows and parent in rows:
                home, start, end = rows[child]
                at = latest_time(self.now, (start, end), (logged.get(child),))
                yield Tie(How.CHILD, EntityRef("run", child), EntityRef("run", parent), home, rows[parent][0], at)

    def _below(self, working: Collection[str]) -> dict[str, str]:
        """Every run below those at work -> the run that it names as its parent."""
        parents = dict(self._parents(working, "tags.value"))
        if not parents:
            return {}
        # A search has thousands of children: to look for theirs one by one would go through all tags again and again.
        children: dict[str, list[str]] = defaultdict(list)
        for child, parent, key in self.tables.all(
            "SELECT run_uuid, value, tags.key FROM tags WHERE tags.key = :parent", parent=PARENT
        ):
            if key == PARENT:
                children[parent].append(child)
        level = list(parents)
        while level:
            below = {child: parent for parent in level for child in children[parent] if child not in parents}
            parents |= below
            level = list(below)
        return parents

    def _parents(self, ids: Iterable[str], column: str) -> Iterator[tuple[str, str]]:
        sql = f"SELECT tags.run_uuid, tags.value, tags.key FROM tags WHERE tags.key = :parent AND {column} IN :ids"
        return (
            (child, parent)
            for child, parent, key in self.tables.within(sql, ids, parent=PARENT)
            if key == PARENT and parent
        )

    def _logged(self, ids: Collection[str]) -> dict[str, int]:
        if "latest_metrics" not in self.tables.columns:
            return {}
        latest = (
            "SELECT run_uuid, MAX(timestamp) FROM latest_metrics WHERE timestamp <= :now AND run_uuid IN :ids "
            "GROUP BY run_uuid"
        )
        return {row[0]: row[1] for row in self.tables.within(latest, ids, now=self.now)}

    def _traces(self, working: Collection[str]) -> Iterator[Tie]:
        """The latest traces of runs: of those at work, and fresh ones of any."""
        if "trace_info" not in self.tables.columns:
            return
        latest: dict[tuple[str, str], int] = {}
        fresh = {"ahead": self.now + AHEAD, "since": self.since}
        rows: list[Any] = []
        if "trace_request_metadata" in self.tables.columns:
            rows += self.tables.within(
                _OF_RUNS.format("trace_request_metadata.value IN :ids"), working, ahead=fresh["ahead"]
            )
            rows += self.tables.all(_OF_RUNS.format("timestamp_ms > :since"), **fresh)
        if "entity_associations" in self.tables.columns:
            rows += self.tables.within(_PUT_TO_RUNS, working, ahead=fresh["ahead"])
        for run_id, experiment_id, at in rows:
            latest[run_id, str(experiment_id)] = max(at, latest.get((run_id, str(experiment_id)), 0))
        homes = self._homes({run_id for run_id, _ in latest})
        for (run_id, experiment_id), at in latest.items():
            if run_id in homes:
                yield Tie(
                    How.TRACE, traces_of(experiment_id), EntityRef("run", run_id), experiment_id, homes[run_id], at
                )
        for experiment_id, at in self.tables.all(
            "SELECT experiment_id, MAX(timestamp_ms) FROM trace_info WHERE timestamp_ms > :since AND timestamp_ms "
            "<= :ahead GROUP BY experiment_id",
            **fresh,
        ):
            key = str(experiment_id)
            yield Tie(How.TRACE, traces_of(key), EntityRef("experiment", key), key, key, at)

    def _made(self, working: Collection[str]) -> Iterator[Tie]:
        if "logged_models" not in self.tables.columns:
            return
        columns = (
            "SELECT model_id, experiment_id, source_run_id, creation_timestamp_ms FROM logged_models WHERE "
            "lifecycle_stage = 'active' AND"
        )
        homes = self._homes(working)
        for model_id, experiment_id, run_id, created in self.tables.within(f"{columns} source_run_id IN :ids", working):
            at = latest_time(self.now, (created,), ())
            yield Tie(
                How.MADE,
                EntityRef("logged_model", model_id),
                EntityRef("run", run_id),
                str(experiment_id),
                homes[run_id],
                at,
            )
        fresh = {"since": self.since, "ahead": self.now + AHEAD, "pending": PENDING}
        for model_id, experiment_id, _, at in self.tables.all(
            f"{columns} status = :pending AND creation_timestamp_ms > :since AND creation_timestamp_ms <= :ahead",
            **fresh,
        ):
            key = str(experiment_id)
            yield Tie(How.MADE, EntityRef("logged_model", model_id), EntityRef("experiment", key), key, key, at)

    def _used(self, retirable: Collection[str]) -> Iterator[Tie]:
        """Runs of other experiments that read or wrote a model of one that may be retired."""
        if "logged_models" not in self.tables.columns or not self.tables.has("inputs", "step"):
            return
        sql = (
            "SELECT inputs.source_id, runs.experiment_id, logged_models.model_id, logged_models.experiment_id FROM "
            "logged_models "
            f"JOIN inputs ON {self.tables.equals('inputs', 'destination_id', 'logged_models.model_id')} "
            f"JOIN runs ON {self.tables.equals('runs', 'run_uuid', 'inputs.source_id')} "
            "WHERE inputs.source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND runs.experiment_id <> "
            "logged_models.experiment_id "
            "AND logged_models.experiment_id IN :ids"
        )
        for run_id, experiment_id, model_id, home in self.tables.within(sql, map(int, retirable)):
            yield Tie(
                How.USED, EntityRef("run", run_id), EntityRef("logged_model", model_id), str(experiment_id), str(home)
            )

    def _versions(self, registry: Mapping[str, RegisteredModel]) -> Iterator[Tie]:
        """What versions name, and the runs that wrote the models among that."""
        versions = [version for item in registry.values() for version in item.versions]
        named = {key for version in versions for key in ids_in(version)}
        homes = {("run", key): home for key, home in self._homes(named).items()}
        writers: dict[str, str] = {}
        if "logged_models" in self.tables.columns:
            for model_id, experiment_id, run_id in self.tables.within(
                "SELECT model_id, experiment_id, source_run_id FROM logged_models WHERE model_id IN :ids", named
            ):
                homes["logged_model", model_id] = str(experiment_id)
                writers[model_id] = run_id or ""
        yield from version_ties(registry, homes, writers, self._homes(writers.values()))

    def _belonging(self, retirable: Collection[str]) -> Iterator[Tie]:
        """What people made in experiments beside their runs."""
        if "entity_associations" in self.tables.columns:
            for dataset_id, name, key in self.tables.within(
                "SELECT dataset_id, name, destination_id FROM entity_associations JOIN evaluation_datasets ON "
                "dataset_id = source_id "
                "WHERE source_type = 'evaluation_dataset' AND destination_type = 'experiment' AND destination_id "
                "IN :ids",
                retirable,
            ):
                yield belongs(How.DATASET, "evaluation_dataset", dataset_id, name, key)
        if "registered_model_tags" in self.tables.columns:
            for name, key, value in self.tables.all(
                "SELECT name, registered_model_tags.key, value FROM registered_model_tags WHERE "
                "registered_model_tags.key = :homes",
                homes=PROMPT_HOMES,
            ):
                for home in retirable if key == PROMPT_HOMES else ():
                    if home in prompt_homes(value or ""):
                        yield belongs(How.PROMPT, "prompt", name, name, home)
        if self.tables.has("endpoints", "usage_tracking"):
            for key, name, home, tracking in self.tables.all(
                "SELECT endpoint_id, name, experiment_id, usage_tracking FROM endpoints"
            ):
                if tracking and str(home) in retirable:
                    yield belongs(How.ENDPOINT, "gateway_endpoint", key, name or "", str(home))
        if "scorers" in self.tables.columns:
            for name, home in self.tables.within(
                "SELECT scorer_name, experiment_id FROM scorers WHERE experiment_id IN :ids", map(int, retirable)
            ):
                yield belongs(How.SCORER, "scorer", name, name, str(home))

    def _homes(self, ids: Collection[str]) -> dict[str, str]:
        rows = self.tables.within("SELECT run_uuid, experiment_id FROM runs WHERE run_uuid IN :ids", {*ids} - {""})
        return {run_id: str(experiment_id) for run_id, experiment_id in rows}
