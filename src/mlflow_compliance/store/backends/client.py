"""Reads a Snapshot through MlflowClient and a listing of the rows: tracking servers, and stores that MLflow alone
understands.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from mlflow_compliance.production.claims import (
    EVERY_RUN,
    claims,
    retirable,
    runs_in_full,
)
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.lost import restorable
from mlflow_compliance.production.marks import sought_folded
from mlflow_compliance.production.served import served_runs
from mlflow_compliance.settings.schema import Settings, folded
from mlflow_compliance.snapshot.entities import (
    ACTIVE,
    DELETED,
    TERMINAL_STATUSES,
    DatasetInput,
    Experiment,
    LoggedModel,
    MetricPoint,
    ModelLink,
    Run,
    StoreInfo,
    is_retracted,
    latest_time,
)
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.standing import LostParent, RowState, lost_parents, to_restore
from mlflow_compliance.snapshot.tags import MADE_BY_US, PARENT, RUN_NAME
from mlflow_compliance.snapshot.ties import named_in
from mlflow_compliance.store.backends.base import (
    MODEL_HISTORY,
    Rows,
    fresh_since,
    model_places,
    sorted_points,
)
from mlflow_compliance.store.backends.client_entities import dataset_of, experiment_of, model_of, number_of
from mlflow_compliance.store.backends.client_registry import placed, read_registry
from mlflow_compliance.store.backends.client_row_facts import RowFactsListing
from mlflow_compliance.store.backends.client_ties import ObjectInfo, TieAsker
from mlflow_compliance.store.backends.client_unfinished import half_made_model, open_traces
from mlflow_compliance.store.backends.listing import (
    PAGE,
    ClientListing,
    Listing,
    ModelRow,
    RunRow,
    TraceRow,
    each,
    get_or_none,
    pages,
)


@dataclass
class _Tally:
    """What one pass over all runs leaves behind: counts, and the ids of the runs to bring in full."""

    counts: dict[str, Counter[tuple[str, str]]] = field(default_factory=lambda: defaultdict(Counter))
    deleted: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    loose: Counter[str] = field(default_factory=Counter)
    wanted: set[str] = field(default_factory=set)
    tagged: set[tuple[str, str, str]] = field(default_factory=set)
    homes: dict[str, str] = field(default_factory=dict)
    """Run, or logged model that a version names -> its experiment."""
    parents: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Run -> the run that it names as its parent, and the latest time of its own row."""
    away: set[str] = field(default_factory=set)
    """Runs that are deleted."""
    retracted: set[str] = field(default_factory=set)
    """Those of them that a repair took back."""
    newest: int = 0
    locations: list[Location] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    """Soft-deleted runs, copies that were taken back too."""


class ClientReader:
    """Reads one store through its client."""

    def __init__(self, client: MlflowClient, listing: Listing | None = None, *, at_once: int = 1) -> None:
        self.client = client
        self.listing = listing or ClientListing(client)
        self.at_once = at_once
        """Questions that the store is asked at the same time."""

    def read(
        self, info: StoreInfo, settings: Settings, also: Collection[str] = (), *, locations: bool = True
    ) -> tuple[Snapshot, Rows]:
        """The store without its files, and where its rows say that the files lie (unless `locations` says that nobody
        asks).

        All runs pass by once, page by page; what stays of them is counts, and in full only those that a rule looks
        into.
        """
        now = int(time.time() * 1000)
        found = list(pages(self.client.search_experiments, view_type=ViewType.ALL, max_results=PAGE))
        ids = [item.experiment_id for item in found]
        registry, half_made = read_registry(self.client, self.at_once)
        tally = _Tally()
        models: dict[str, list[ModelRow]] = defaultdict(list)
        named = {key for item in registry.values() for version in item.versions for key in named_in(version)}
        ready, external = set(), set[str]()
        for model in self.listing.models(ids):
            models[model.source_run_id].append(model)
            tally.loose[model.experiment_id] += 1
            tally.newest = max(tally.newest, latest_time(now, (), (model.created,)))
            if model.model_id in named:
                tally.homes[model.model_id] = model.experiment_id
            if locations:
                tally.locations.append(
                    Location(EntityRef("logged_model", model.model_id), model.experiment_id, model.artifact_location)
                )
                if model.status == "READY" and not model.external:
                    ready.add(model.model_id)
            if model.external:
                external.add(model.model_id)
            half_made += half_made_model(model)
        experiments = {item.experiment_id: experiment_of(item) for item in found}
        tally.wanted |= served_runs(settings, registry)
        needs = runs_in_full(settings, experiments, ())
        asked, marks = set(also), sought_folded(settings)
        facts = RowFactsListing(settings, experiments)
        for run in self.listing.runs(ids):
            facts.run(run)
            self._count(run, tally, models, locations=locations)
            if is_retracted(run.lifecycle, run.tags):
                continue
            if run.run_id in asked:
                tally.wanted.add(run.run_id)
            if run.lifecycle == ACTIVE:
                tally.tagged |= {
                    (run.experiment_id, key, value)
                    for key, value in run.tags.items()
                    if (folded(key), folded(value)) in marks
                }
                if _in_scope(run, marks, needs.get(run.experiment_id)):
                    tally.wanted.add(run.run_id)
        for written_by in models.values():
            for model in written_by:
                facts.model(model)
        # An experiment may have shown itself to be production by a run in it: its other runs have passed by already.
        more = runs_in_full(settings, experiments, tally.tagged)
        again = sorted(key for key, need in more.items() if need != needs.get(key))
        tally.wanted |= {
            run.run_id
            for run in self.listing.runs(again)
            if run.lifecycle == ACTIVE and _in_scope(run, marks, more[run.experiment_id])
        }
        behind = {key: _state(key, tally) for key in named if key in tally.homes}
        lost = _lost_parents(tally)
        tally.wanted |= to_restore(behind, lost, experiments)
        runs = self.full_runs(tally.wanted)
        written = sorted(model.model_id for key in runs for model in models.get(key, ()))
        registry = placed(registry, tally.homes, external)
        may_go = retirable(settings, experiments, claims(settings, experiments, tally.tagged))
        since = fresh_since(settings, now)
        # What people said of runs hangs on any trace, and goes with the runs of what is retired.
        traces = list(self.listing.traces(ids) if may_go.experiments else self.listing.traces_at_work(ids, since))
        experiments = _counted(experiments, tally, traces)
        asking = TieAsker(
            self.client,
            now,
            since,
            partial(self._each, self.client.get_run),
        )
        ties, untold = asking.ties(
            ObjectInfo(runs, registry, tally.homes, tally.parents, models, traces), may_go.experiments
        )
        datasets: dict[str, set[DatasetInput]] = defaultdict(set)
        for key, dataset in self.listing.datasets(sorted(may_go.into)):
            datasets[key].add(dataset)
        snapshot = Snapshot(
            info=info,
            taken_at=int(time.time() * 1000),
            experiments=experiments,
            runs=runs,
            logged_models={
                model.model_id: model_of(model) for model in self._each(self.client.get_logged_model, written)
            },
            registered_models=registry,
            ties=ties,
            untold=untold,
            datasets={key: tuple(sorted(items)) for key, items in datasets.items()},
            behind_versions=behind,
            lost_parents=lost,
            half_made=tuple(sorted(half_made)),
            open_traces=open_traces(traces, since),
            row_facts=facts.found,
        )
        held = restorable(Context(snapshot, settings)) - runs.keys()
        snapshot = replace(snapshot, runs={**runs, **self.full_runs(held)}) if held else snapshot
        places = [
            Location(item.ref, key, item.artifact_location) for key, item in experiments.items()
        ] + tally.locations
        versions = [version for model in registry.values() for version in model.versions if not version.external]
        places += [Location(version.ref, version.experiment_id, version.location) for version in versions]
        deleted = dict.fromkeys(tally.gone, 0)  # when, no client is told
        return snapshot, Rows(
            tuple(sorted(places)) if locations else (), frozenset(ready), newest=tally.newest, deleted_runs=deleted
        )

    def experiment_ids(self) -> list[str]:
        """Those of every experiment, deleted ones too."""
        return [
            item.experiment_id
            for item in pages(self.client.search_experiments, view_type=ViewType.ALL, max_results=PAGE)
        ]

    def counted(self, experiment_id: str) -> Experiment | None:
        """One experiment as it is now, its runs counted; None where it is not there. Traces of every experiment may
        hold what people said of its runs.
        """
        found = get_or_none(self.client.get_experiment, experiment_id)
        if found is None:
            return None
        tally, models = _Tally(), defaultdict[str, list[ModelRow]](list)
        for model in self.listing.models([experiment_id]):
            models[model.source_run_id].append(model)
            tally.loose[experiment_id] += 1
        for run in self.listing.runs([experiment_id]):
            self._count(run, tally, models, locations=False)
        traces = list(self.listing.traces(self.experiment_ids()))
        return _counted({experiment_id: experiment_of(found)}, tally, traces)[experiment_id]

    def details(self, run_ids: Collection[str]) -> tuple[dict[str, Run], dict[str, LoggedModel]]:
        """Runs in full and the active logged models that they wrote."""
        runs = self.full_runs(run_ids)
        found = {}
        for key, run in runs.items():
            where = {
                "experiment_ids": [run.experiment_id],
                "filter_string": f"source_run_id = '{key}'",
                "max_results": PAGE,
            }
            found.update(
                {model.model_id: model_of(model) for model in pages(self.client.search_logged_models, **where)}
            )
        return runs, found

    def _count(
        self,
        run: RunRow,
        tally: _Tally,
        models: Mapping[str, Iterable[ModelRow]],
        *,
        locations: bool,
    ) -> None:
        home = run.experiment_id
        tally.loose[home] -= sum(model.experiment_id == home for model in models.get(run.run_id, ()))
        tally.homes[run.run_id] = home
        tally.newest = max(tally.newest, run.at)
        if run.tags.get(PARENT):
            tally.parents[run.run_id] = run.tags[PARENT], run.at
        retracted = is_retracted(run.lifecycle, run.tags)
        if run.lifecycle == DELETED:
            tally.gone.append(run.run_id)
        if locations:
            tally.locations.append(Location(EntityRef("run", run.run_id), home, run.artifact_uri))
            if run.lifecycle == ACTIVE and MODEL_HISTORY in run.tags:
                tally.locations += model_places(run.run_id, home, run.artifact_uri, run.tags[MODEL_HISTORY])
        if run.lifecycle == DELETED:
            tally.away.add(run.run_id)
        if retracted:
            tally.retracted.add(run.run_id)
            return
        tally.counts[home][run.lifecycle, run.status] += 1
        if run.lifecycle == DELETED:
            tally.deleted[home].append(run.run_id)

    def _each(self, get: Callable[[str], Any], keys: Iterable[str]) -> Iterator[Any]:
        """What a call gives for every key, in the order of the keys; what is not there any more is left out."""
        return (item for item in each(partial(get_or_none, get), keys, self.at_once) if item is not None)

    def full_runs(self, ids: Collection[str]) -> dict[str, Run]:
        """Runs with all that MLflow keeps of them, by id; those that are not there are left out."""
        # One by one and not from the listing, which leaves out the models that a run read, and the history of its
        # metrics.
        runs = {run.run_id: run for run in self._each(self._run, sorted(ids))}
        return {key: run for key, run in runs.items() if not is_retracted(run.lifecycle, run.tags)}

    def _run(self, run_id: str) -> Run:
        run = self.client.get_run(run_id)
        info, data = run.info, run.data
        links = [ModelLink("input", item.model_id, 0) for item in run.inputs.model_inputs or ()]
        links += [
            ModelLink("output", item.model_id, item.step) for item in (run.outputs.model_outputs if run.outputs else ())
        ]
        return Run(
            run_id=info.run_id,
            experiment_id=info.experiment_id,
            name=info.run_name or data.tags.get(RUN_NAME, ""),
            status=info.status,
            lifecycle=info.lifecycle_stage,
            start_time=info.start_time,
            end_time=info.end_time if info.status in TERMINAL_STATUSES else None,
            user=info.user_id or "",
            artifact_uri=info.artifact_uri or "",
            params=dict(data.params),
            tags=dict(data.tags),
            metrics={key: self._history(info.run_id, key) for key in data.metrics},
            datasets=tuple(sorted(dataset_of(item) for item in run.inputs.dataset_inputs or ())),
            models=tuple(sorted(links)),
        )

    def _history(self, run_id: str, key: str) -> tuple[MetricPoint, ...]:
        points = self.client.get_metric_history(run_id, key)
        return sorted_points(MetricPoint(number_of(point.value), point.timestamp, point.step) for point in points)


def _in_scope(run: RunRow, marks: Collection[tuple[str, str]], need: frozenset[str] | None) -> bool:
    marked = any((folded(key), folded(value)) in marks for key, value in run.tags.items())
    if run.status == "RUNNING" or any(key in run.tags for key in MADE_BY_US) or marked:
        return True
    return need is not None and (need >= EVERY_RUN or not need.isdisjoint(run.names))


def _state(key: str, tally: _Tally) -> RowState:
    """Of a run or logged model that passed by."""
    return RowState(DELETED if key in tally.away else ACTIVE, tally.homes[key])


def _lost_parents(tally: _Tally) -> dict[str, LostParent]:
    """As StandingReader has them."""
    children: dict[str, Counter[str]] = defaultdict(Counter)
    for child, (parent, _) in tally.parents.items():
        # What a repair took back nobody misses.
        kept = parent in tally.retracted or (parent in tally.homes and parent not in tally.away)
        if child not in tally.away and not kept:
            children[parent][tally.homes[child]] += 1
    above = {child: parent for child, (parent, _) in tally.parents.items() if parent not in tally.retracted}
    states = {key: _state(key, tally) if key in tally.homes else None for key in {*children, *above.values()}}
    return lost_parents(states, children, above)


def _counted(experiments: Mapping[str, Experiment], tally: _Tally, traces: Iterable[TraceRow]) -> dict[str, Experiment]:
    """Experiments with the numbers of what lies in them."""
    traced, judged = Counter[str](), set[str]()
    for trace in traces:
        traced[trace.experiment_id] += 1
        judged.update(trace.assessed)
    assessed = Counter(tally.homes[run_id] for run_id in judged - tally.away if run_id in tally.homes)
    return {
        key: replace(
            item,
            runs=dict(tally.counts[key]),
            deleted_runs=tuple(sorted(tally.deleted[key])) if item.keeps_deleted_ids else (),
            traces=traced[key],
            loose_models=tally.loose[key],
            assessed_runs=assessed[key],
        )
        for key, item in experiments.items()
    }
