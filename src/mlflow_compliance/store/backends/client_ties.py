"""Finds out through MlflowClient what relies on what: from the rows that passed by, and by asking for what they
leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from mlflow.exceptions import RestException
from mlflow.tracking import MlflowClient

from mlflow_compliance.snapshot.entities import AHEAD, RegisteredModel, Run, latest_time
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.ties import How, Tie, in_order, prompt_homes
from mlflow_compliance.store.backends.base import PROMPT_HOMES, belongs, traces_of, version_ties
from mlflow_compliance.store.backends.listing import MOST_TRACES, ModelRow, TraceRow, pages
from mlflow_compliance.store.storage.http_errors import refusal

MOST_ASKED = 1000
"""Runs that are asked one by one which models they read: lists of runs leave that out."""


class ObjectInfo(NamedTuple):
    """What one pass over a store left behind: runs in full, registry, run or named model -> experiment, run -> parent
    and latest time,
    run -> models that it wrote, traces.
    """

    runs: Mapping[str, Run]
    registry: Mapping[str, RegisteredModel]
    homes: Mapping[str, str]
    parents: Mapping[str, tuple[str, int]]
    models: Mapping[str, list[ModelRow]]
    traces: list[TraceRow]


class TieAsker:
    """Asks one store. `now` and `since` are in milliseconds; `get_runs` gives MLflow's runs for ids."""

    def __init__(
        self,
        client: MlflowClient,
        now: int,
        since: int,
        get_runs: Callable[[Iterable[str]], Iterator[Any]],
    ) -> None:
        self.client, self.get_runs = client, get_runs
        self.now, self.since = now, since

    def ties(self, listed: ObjectInfo, retirable: Collection[str]) -> tuple[tuple[Tie, ...], dict[How, str]]:
        """As TieReader has them; and the kinds that the store could not be asked for, with the reason."""
        working = {key for key, run in listed.runs.items() if run.status == "RUNNING" and run.active}
        ties = [
            *_lineage(listed, working, upwards=bool(retirable)),
            *self._traces(listed, working),
            *self._made(listed, working),
        ]
        untold: dict[How, str] = {}
        if retirable:
            questions: tuple[tuple[How, Callable[[Collection[str]], list[Tie]]], ...] = (
                (How.USED, partial(self._used, listed)),
                (How.DATASET, self._datasets),
                (How.PROMPT, self._prompts),
                (How.ENDPOINT, self._endpoints),
                (How.SCORER, self._scorers),
            )
            for how, ask in questions:
                try:
                    ties += ask(retirable)
                except RestException as error:
                    if error.error_code == "UNAUTHENTICATED":
                        raise
                    # A server that does not know the question has none of it.
                    if error.error_code != "ENDPOINT_NOT_FOUND":
                        untold[how] = refusal(error, "")
                except _TooManyError as error:
                    untold[how] = str(error)
            written = [model for models in listed.models.values() for model in models]
            models = {model.model_id: model.experiment_id for model in written if model.model_id in listed.homes}
            homes = {("run", key): home for key, home in listed.homes.items() if key not in models}
            homes |= {("logged_model", key): home for key, home in models.items()}
            ties += version_ties(
                listed.registry, homes, {model.model_id: model.source_run_id for model in written}, listed.homes
            )
        return in_order(ties), untold

    def _traces(self, listed: ObjectInfo, working: Collection[str]) -> Iterator[Tie]:
        latest: dict[tuple[str, str], int] = {}
        newest: dict[str, int] = {}
        for trace in listed.traces:
            fresh = trace.begun > self.since
            if trace.begun > self.now + AHEAD:
                continue
            if trace.source_run and (fresh or trace.source_run in working):
                place = trace.source_run, trace.experiment_id
                latest[place] = max(trace.ended, latest.get(place, 0))
            if fresh:
                newest[trace.experiment_id] = max(trace.begun, newest.get(trace.experiment_id, 0))
        if listed.traces:
            # One of every experiment that has any is among them.
            homes = {trace.experiment_id for trace in listed.traces}
            for run_id in sorted(working):
                # Those too that were put to a run afterwards.
                where = sorted({listed.homes[run_id], *homes})
                for trace in self.client.search_traces(
                    locations=where, run_id=run_id, max_results=MOST_TRACES, include_spans=False
                ):
                    place, begun = (run_id, trace.info.experiment_id), trace.info.request_time
                    if begun <= self.now + AHEAD:
                        latest[place] = max(begun + (trace.info.execution_duration or 0), latest.get(place, 0))
        for (run_id, home), at in latest.items():
            if run_id in listed.homes:
                yield Tie(How.TRACE, traces_of(home), EntityRef("run", run_id), home, listed.homes[run_id], at)
        for home, at in newest.items():
            yield Tie(How.TRACE, traces_of(home), EntityRef("experiment", home), home, home, at)

    def _made(self, listed: ObjectInfo, working: Collection[str]) -> Iterator[Tie]:
        for run_id, models in listed.models.items():
            for model in models:
                at = latest_time(self.now, (model.created,), ())
                source, home = EntityRef("logged_model", model.model_id), model.experiment_id
                if run_id in working:
                    yield Tie(How.MADE, source, EntityRef("run", run_id), home, listed.homes[run_id], at)
                if model.status == "PENDING" and at > self.since:
                    yield Tie(How.MADE, source, EntityRef("experiment", home), home, home, at)

    def _used(self, listed: ObjectInfo, retirable: Collection[str]) -> list[Tie]:
        targets = {
            model.model_id: model.experiment_id
            for models in listed.models.values()
            for model in models
            if model.experiment_id in retirable
        }
        if not targets:
            return []
        homes = set(targets.values())
        asked = [key for key, home in listed.homes.items() if len(key) == _LENGTH and {home} != homes]
        if len(asked) > MOST_ASKED:
            raise _TooManyError(
                f"a server does not list the models that runs read, and {len(asked)} runs are too many to ask one "
                "by one"
            )
        ties = []
        for run in self.get_runs(asked):
            read = [item.model_id for item in run.inputs.model_inputs or ()]
            read += [item.model_id for item in (run.outputs.model_outputs if run.outputs else ())]
            source, home = EntityRef("run", run.info.run_id), run.info.experiment_id
            ties += [
                Tie(How.USED, source, EntityRef("logged_model", key), home, targets[key])
                for key in read
                if key in targets and targets[key] != home
            ]
        return ties

    def _datasets(self, retirable: Collection[str]) -> list[Tie]:
        store = self.client._tracking_client.store
        return [
            belongs(How.DATASET, "evaluation_dataset", item.dataset_id, item.name, home)
            for home in sorted(retirable)
            for item in pages(store.search_datasets, experiment_ids=[home], max_results=100)
        ]

    def _prompts(self, retirable: Collection[str]) -> list[Tie]:
        return [
            belongs(How.PROMPT, "prompt", item.name, item.name, home)
            for item in pages(self.client.search_prompts, max_results=100)
            for home in sorted(retirable)
            if home in prompt_homes(item.tags.get(PROMPT_HOMES, ""))
        ]

    def _endpoints(self, retirable: Collection[str]) -> list[Tie]:
        found = self.client._tracking_client.store.list_gateway_endpoints()
        return [
            belongs(How.ENDPOINT, "gateway_endpoint", item.endpoint_id, item.name or "", item.experiment_id)
            for item in found
            if item.usage_tracking and item.experiment_id in retirable
        ]

    def _scorers(self, retirable: Collection[str]) -> list[Tie]:
        store = self.client._tracking_client.store
        return [
            belongs(How.SCORER, "scorer", item.scorer_name, item.scorer_name, home)
            for home in sorted(retirable)
            for item in store.list_scorers(home)
        ]


class _TooManyError(Exception):
    """More than may be asked one by one."""


_LENGTH = 32
"""Of a run's id; that of a logged model is longer."""


def _lineage(listed: ObjectInfo, working: Collection[str], *, upwards: bool) -> Iterator[Tie]:
    """Children and theirs of the runs at work; and, of all that may keep an experiment alive, parents and theirs."""
    below: dict[str, list[str]] = {}
    for child, (parent, _) in listed.parents.items():
        below.setdefault(parent, []).append(child)
    found, level = set(working), list(working)
    children = set()
    while level:
        level = [child for parent in level for child in below.get(parent, ())]
        children.update(level)
        level = [child for child in dict.fromkeys(level) if child not in found]
        found.update(level)
    if upwards:
        versions = [version.run_id for item in listed.registry.values() for version in item.versions if version.run_id]
        level, found = [*listed.runs, *versions], {*listed.runs, *versions}
        while level:
            level = [child for child in level if child in listed.parents]
            children.update(level)
            level = [parent for child in level if (parent := listed.parents[child][0]) not in found]
            found.update(level)
    for child in children:
        parent, at = listed.parents[child]
        if parent in listed.homes and child in listed.homes:
            yield Tie(
                How.CHILD,
                EntityRef("run", child),
                EntityRef("run", parent),
                listed.homes[child],
                listed.homes[parent],
                at,
            )
