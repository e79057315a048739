"""Reads a Snapshot through MlflowClient: any store that MLflow can open, at the price of paging over every run."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from mlflow_compliance.entities import (
    ACTIVE,
    DELETED,
    NAN,
    TERMINAL_STATUSES,
    DatasetInput,
    EntityRef,
    Experiment,
    Location,
    LoggedModel,
    MetricPoint,
    ModelLink,
    ModelMetric,
    ModelVersion,
    RegisteredModel,
    Run,
    Snapshot,
    StoreInfo,
)
from mlflow_compliance.scope import MADE_BY_US, RETRACTED, claims, fact_keys, primary_of, production_tags, served_runs
from mlflow_compliance.settings import Settings
from mlflow_compliance.store.common import IS_PROMPT, MODEL_HISTORY, home_of, model_places, sorted_points
from mlflow_compliance.store.rows import Rows

PAGE = 1000
FEW = 50
"""Experiments in one search: their ids travel in one request."""


def pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    """Every item of a paged search: MLflow's defaults stop after the first page."""
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


class ClientReader:
    """Reads one store through its client."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client

    def read(self, info: StoreInfo, settings: Settings, also: Collection[str] = ()) -> tuple[Snapshot, Rows]:
        """The store without its files, and where its rows say that the files lie."""
        found = list(pages(self.client.search_experiments, view_type=ViewType.ALL, max_results=PAGE))
        ids = [item.experiment_id for item in found]
        rows = list(self._runs(ids))
        runs = [run for run in rows if not (run.info.lifecycle_stage == DELETED and run.data.tags.get("compliance.copy") == RETRACTED)]
        models = [model for chunk in _chunks(ids) for model in pages(self.client.search_logged_models, experiment_ids=chunk, max_results=PAGE)]
        written = {(run.info.run_id, run.info.experiment_id) for run in rows}
        loose = Counter(model.experiment_id for model in models if (model.source_run_id, model.experiment_id) not in written)
        assessed, traces = self._traced(ids, runs)
        experiments = self._experiments(found, runs, assessed, traces, loose)
        homes = {run.info.run_id: run.info.experiment_id for run in rows} | {model.model_id: model.experiment_id for model in models}
        registry = self._registered_models(homes)
        wanted = self._scope(settings, experiments, runs) | served_runs(settings, registry) | set(also)
        detailed = {run.info.run_id: self._run(run) for run in runs if run.info.run_id in wanted}
        snapshot = Snapshot(
            info=info,
            taken_at=int(time.time() * 1000),
            experiments=experiments,
            runs=detailed,
            logged_models={model.model_id: _model(model) for model in models if model.source_run_id in detailed},
            registered_models=registry,
        )
        locations = [Location(item.ref, key, item.artifact_location) for key, item in experiments.items()]
        locations += [Location(EntityRef("run", run.info.run_id), run.info.experiment_id, run.info.artifact_uri or "") for run in rows]
        locations += [Location(EntityRef("logged_model", model.model_id), model.experiment_id, model.artifact_location) for model in models]
        for run in runs:
            if run.info.lifecycle_stage == ACTIVE and MODEL_HISTORY in run.data.tags:
                locations += model_places(run.info.run_id, run.info.experiment_id, run.info.artifact_uri or "", run.data.tags[MODEL_HISTORY])
        for model in registry.values():
            locations += [Location(version.ref, version.experiment_id, version.location) for version in model.versions]
        ready = frozenset(model.model_id for model in models if str(model.status) == "READY")
        return snapshot, Rows(tuple(locations), ready)

    def _runs(self, ids: list[str]) -> Iterator[Any]:
        for chunk in _chunks(ids):
            yield from pages(self.client.search_runs, experiment_ids=chunk, run_view_type=ViewType.ALL, max_results=PAGE)

    def _traced(self, ids: list[str], runs: list[Any]) -> tuple[dict[str, int], Counter[str]]:
        """By experiment: runs with assessments, and traces."""
        traces: Counter[str] = Counter()
        active = {run.info.run_id: run.info.experiment_id for run in runs if run.info.lifecycle_stage == ACTIVE}
        found = set()
        for chunk in _chunks(ids):
            for trace in pages(self.client.search_traces, locations=chunk, max_results=500, include_spans=False):
                traces[trace.info.experiment_id] += 1
                for assessment in trace.info.assessments or ():
                    found.add((assessment.metadata or {}).get("mlflow.assessment.sourceRunId", ""))
        counts: dict[str, int] = defaultdict(int)
        for run_id in found & active.keys():
            counts[active[run_id]] += 1
        return dict(counts), traces

    def _experiments(
        self, found: list[Any], runs: list[Any], assessed: Mapping[str, int], traces: Mapping[str, int], loose: Mapping[str, int]
    ) -> dict[str, Experiment]:
        counts: dict[str, dict[tuple[str, str], int]] = defaultdict(lambda: defaultdict(int))
        deleted: dict[str, list[str]] = defaultdict(list)
        for run in runs:
            counts[run.info.experiment_id][run.info.lifecycle_stage, run.info.status] += 1
            if run.info.lifecycle_stage == DELETED:
                deleted[run.info.experiment_id].append(run.info.run_id)
        return {
            item.experiment_id: Experiment(
                experiment_id=item.experiment_id,
                name=item.name,
                lifecycle=item.lifecycle_stage,
                artifact_location=item.artifact_location or "",
                tags=dict(item.tags),
                runs=dict(counts[item.experiment_id]),
                deleted_runs=tuple(sorted(deleted[item.experiment_id])) if item.lifecycle_stage == ACTIVE else (),
                traces=traces.get(item.experiment_id, 0),
                loose_models=loose.get(item.experiment_id, 0),
                assessed_runs=assessed.get(item.experiment_id, 0),
            )
            for item in found
        }

    def _scope(self, settings: Settings, experiments: Mapping[str, Experiment], runs: list[Any]) -> set[str]:
        """The same runs as SqlReader brings in full."""
        marks = production_tags(settings)
        active = [run for run in runs if run.info.lifecycle_stage == ACTIVE]
        tagged = [(run, key, value) for run in active for key, value in run.data.tags.items() if (key, value) in marks]
        wanted = {run.info.run_id for run, _, _ in tagged}
        wanted |= {run.info.run_id for run in active if run.info.status == "RUNNING" or not run.data.tags.keys().isdisjoint(MADE_BY_US)}
        found = claims(settings, experiments, [(run.info.experiment_id, key, value) for run, key, value in tagged])
        for product in settings.products:
            ids = {claim.experiment_id for claim in found if claim.product == product.name}
            primary = primary_of(product, experiments, ids)
            keys = fact_keys(product)
            wanted |= {
                run.info.run_id
                for run in active
                if run.info.experiment_id in ids and not keys.isdisjoint({*run.data.params, *run.data.metrics, *run.data.tags})
            }
            rivals = ids - {primary} if primary and len(ids) > 1 else set()
            wanted |= {run.info.run_id for run in active if run.info.experiment_id in rivals}
        return wanted

    def _run(self, run: Any) -> Run:
        info, data = run.info, run.data
        # A search leaves out the models that a run read; asking for the run itself does not.
        read = self.client.get_run(info.run_id).inputs.model_inputs
        links = [ModelLink("input", item.model_id, 0) for item in read or ()]
        links += [ModelLink("output", item.model_id, item.step) for item in (run.outputs.model_outputs if run.outputs else ())]
        return Run(
            run_id=info.run_id,
            experiment_id=info.experiment_id,
            name=info.run_name or data.tags.get("mlflow.runName", ""),
            status=info.status,
            lifecycle=info.lifecycle_stage,
            start_time=info.start_time,
            end_time=info.end_time if info.status in TERMINAL_STATUSES else None,
            user=info.user_id or "",
            artifact_uri=info.artifact_uri or "",
            params=dict(data.params),
            tags=dict(data.tags),
            metrics={key: self._history(info.run_id, key) for key in data.metrics},
            datasets=tuple(sorted(_dataset(item) for item in run.inputs.dataset_inputs or ())),
            models=tuple(sorted(links)),
        )

    def _history(self, run_id: str, key: str) -> tuple[MetricPoint, ...]:
        points = self.client.get_metric_history(run_id, key)
        return sorted_points(MetricPoint(_number(point.value), point.timestamp, point.step) for point in points)

    def _registered_models(self, homes: Mapping[str, str]) -> dict[str, RegisteredModel]:
        versions: dict[str, list[ModelVersion]] = defaultdict(list)
        for item in sorted(pages(self.client.search_model_versions, max_results=PAGE), key=lambda item: int(item.version)):
            location = self.client.get_model_version_download_uri(item.name, item.version)
            stage = item.current_stage or "None"
            facts = ModelVersion(
                item.name, str(item.version), item.run_id or None, item.source or "", location or "", item.status or "", stage, dict(item.tags)
            )
            versions[item.name].append(replace(facts, experiment_id=home_of(facts, homes)))
        return {
            item.name: RegisteredModel(
                item.name, dict(item.tags), {alias: str(version) for alias, version in item.aliases.items()}, tuple(versions[item.name])
            )
            for item in pages(self.client.search_registered_models, max_results=100)
            if IS_PROMPT not in item.tags
        }


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), FEW):
        yield ids[start : start + FEW]


def _number(value: float) -> float:
    return NAN if value != value else value


def _dataset(item: Any) -> DatasetInput:
    facts = item.dataset
    tags = tuple(sorted((tag.key, tag.value) for tag in item.tags))
    return DatasetInput(facts.name, facts.digest, facts.source_type, facts.source, facts.schema, facts.profile, tags)


def _model(model: Any) -> LoggedModel:
    metrics = [
        ModelMetric(point.key, _number(point.value), point.timestamp, point.step, point.dataset_name or "", point.dataset_digest or "")
        for point in model.metrics or ()
    ]
    return LoggedModel(
        model_id=model.model_id,
        experiment_id=model.experiment_id,
        name=model.name,
        lifecycle=ACTIVE,
        status=str(model.status),
        source_run_id=model.source_run_id or None,
        artifact_location=model.artifact_location,
        model_type=model.model_type or "",
        params=dict(model.params or {}),
        tags=dict(model.tags or {}),
        metrics=tuple(sorted(metrics, key=lambda point: (point.key, point.timestamp, point.step))),
    )
