"""What a store lists of its runs, logged models and traces, as far as counting and choosing need it: nothing of it is kept in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_compliance.entities import EXTERNAL
from mlflow_compliance.store.reading.rest import SEARCH_MODELS, SEARCH_RUNS, SEARCH_TRACES, Rest

PAGE = 1000
MOST_TRACES = 500
FEW = 50
"""Experiments in one search: their ids travel in one request."""


class RunRow(NamedTuple):
    """One run; `names` are those of its params, metrics and tags."""

    run_id: str
    experiment_id: str
    lifecycle: str
    status: str
    artifact_uri: str
    tags: Mapping[str, str]
    names: frozenset[str]
    metrics: tuple[str, ...]


class ModelRow(NamedTuple):
    """One active logged model."""

    model_id: str
    experiment_id: str
    source_run_id: str
    artifact_location: str
    ready: bool
    external: bool = False


class TraceRow(NamedTuple):
    """One trace, and the runs that its assessments come from."""

    experiment_id: str
    assessed: tuple[str, ...]


class Listing(Protocol):
    """A store that can be gone through once, row by row."""

    def runs(self, experiments: list[str]) -> Iterator[RunRow]: ...
    def models(self, experiments: list[str]) -> Iterator[ModelRow]: ...
    def traces(self, experiments: list[str]) -> Iterator[TraceRow]: ...


def pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    """Every item of a paged search: MLflow's defaults stop after the first page."""
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


def there(get: Callable[[str], Any], key: str) -> Any:
    """What MLflow has under a name or id, None where it has nothing."""
    try:
        return get(key)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), FEW):
        yield ids[start : start + FEW]


class ClientListing:
    """Through MlflowClient: for stores without a server."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client

    def runs(self, experiments: list[str]) -> Iterator[RunRow]:
        for chunk in chunks(experiments):
            for run in pages(self.client.search_runs, experiment_ids=chunk, run_view_type=ViewType.ALL, max_results=PAGE):
                info, data = run.info, run.data
                names = frozenset({*data.params, *data.metrics, *data.tags})
                uri = info.artifact_uri or ""
                yield RunRow(info.run_id, info.experiment_id, info.lifecycle_stage, info.status, uri, data.tags, names, tuple(data.metrics))

    def models(self, experiments: list[str]) -> Iterator[ModelRow]:
        for chunk in chunks(experiments):
            for model in pages(self.client.search_logged_models, experiment_ids=chunk, max_results=PAGE):
                ready, external = str(model.status) == "READY", (model.tags or {}).get(EXTERNAL) == "true"
                yield ModelRow(model.model_id, model.experiment_id, model.source_run_id or "", model.artifact_location, ready, external)

    def traces(self, experiments: list[str]) -> Iterator[TraceRow]:
        for chunk in chunks(experiments):
            for trace in pages(self.client.search_traces, locations=chunk, max_results=MOST_TRACES, include_spans=False):
                sources = [(item.metadata or {}).get("mlflow.assessment.sourceRunId", "") for item in trace.info.assessments or ()]
                yield TraceRow(trace.info.experiment_id, tuple(sources))


class RestListing:
    """Over HTTP: the same rows from the JSON itself, without an object for every param and metric."""

    def __init__(self, rest: Rest) -> None:
        self.rest = rest

    def runs(self, experiments: list[str]) -> Iterator[RunRow]:
        for chunk in chunks(experiments):
            for page in self.rest.pages(SEARCH_RUNS, {"experiment_ids": chunk, "run_view_type": "ALL", "max_results": PAGE}):
                yield from map(_run, page.get("runs", ()))

    def models(self, experiments: list[str]) -> Iterator[ModelRow]:
        for chunk in chunks(experiments):
            for page in self.rest.pages(SEARCH_MODELS, {"experiment_ids": chunk, "max_results": PAGE}):
                for model in page.get("models", ()):
                    info = model["info"]
                    ready = info.get("status") == "LOGGED_MODEL_READY"
                    external = any((item["key"], item.get("value")) == (EXTERNAL, "true") for item in info.get("tags", ()))
                    source = info.get("source_run_id", "")
                    yield ModelRow(info["model_id"], info["experiment_id"], source, info.get("artifact_uri", ""), ready, external)

    def traces(self, experiments: list[str]) -> Iterator[TraceRow]:
        for chunk in chunks(experiments):
            places = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": key}} for key in chunk]
            for page in self.rest.pages(SEARCH_TRACES, {"locations": places, "max_results": MOST_TRACES}):
                for trace in page.get("traces", ()):
                    sources = [item.get("metadata", {}).get("mlflow.assessment.sourceRunId", "") for item in trace.get("assessments", ())]
                    yield TraceRow(trace["trace_location"]["mlflow_experiment"]["experiment_id"], tuple(sources))


def _run(run: dict[str, Any]) -> RunRow:
    info, data = run["info"], run.get("data", {})
    tags = {item["key"]: item.get("value", "") for item in data.get("tags", ())}
    metrics = tuple(item["key"] for item in data.get("metrics", ()))
    names = frozenset((*tags, *metrics, *[item["key"] for item in data.get("params", ())]))
    return RunRow(info["run_id"], info["experiment_id"], info["lifecycle_stage"], info["status"], info.get("artifact_uri", ""), tags, names, metrics)
