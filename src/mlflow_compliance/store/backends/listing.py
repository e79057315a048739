"""What a store lists of its runs, logged models and traces, as far as counting and choosing need it: nothing of it
is kept in full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any, NamedTuple, Protocol, TypeVar

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from mlflow_compliance.progress import Progress
from mlflow_compliance.snapshot.entities import DatasetInput, latest_time, says_external
from mlflow_compliance.snapshot.tags import ASSESSED_RUN, MADE_BY_US, SOURCE_MODEL
from mlflow_compliance.snapshot.unfinished import IN_PROGRESS
from mlflow_compliance.store.backends.client_entities import dataset_of
from mlflow_compliance.store.backends.rest import SEARCH_MODELS, SEARCH_RUNS, SEARCH_TRACES, Rest
from mlflow_compliance.store.backends.rest_runs import dataset_in, pairs_in


def newest_served(rest: Rest, experiments: list[str], before: int) -> int:
    """In milliseconds, 0 where no run is dated. What is dated later than `before` is dated wrongly."""
    found = [0]
    for chunk in chunks(experiments):
        for column in ("start_time", "end_time"):
            asked = {"experiment_ids": chunk, "run_view_type": "ALL", "filter": f"attributes.{column} <= {before}"}
            answer = rest.post(
                SEARCH_RUNS, {**asked, "order_by": [f"attributes.{column} DESC"], "max_results": IDS_A_SEARCH}
            )
            found.append(
                next((int(run["info"].get(column) or 0) for run in answer.get("runs", ()) if not _made_by_us(run)), 0)
            )
    return max(found)


def _made_by_us(run: Mapping[str, Any]) -> bool:
    return any(tag["key"] in MADE_BY_US for tag in run.get("data", {}).get("tags", ()))


_Key = TypeVar("_Key")
_Found = TypeVar("_Found")
SOURCE_RUN = "mlflow.sourceRun"
"""What a trace says of the run that it was logged for."""
PAGE = 1000
MOST_TRACES = 500
IDS_A_SEARCH = 50
"""Experiments in one search: their ids travel in one request."""
_SEARCHES_EACH = 8
"""Searches that runs are spread over, for each that may be under way: experiments are of different sizes."""


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
    at: int
    """The latest time that the row is dated, in milliseconds; 0 where it is not."""
    begun: int = 0
    """In milliseconds."""


class ModelRow(NamedTuple):
    """One active logged model."""

    model_id: str
    experiment_id: str
    source_run_id: str
    artifact_location: str
    status: str
    created: int
    """In milliseconds."""
    name: str = ""
    updated: int = 0
    """In milliseconds."""
    external: bool = False
    source_model: str = ""
    """The logged model that it says it is a copy of."""


class TraceRow(NamedTuple):
    """One trace, the runs that its assessments come from, and the run that it was logged for; times in milliseconds."""

    experiment_id: str
    assessed: tuple[str, ...]
    source_run: str
    begun: int
    ended: int
    trace_id: str
    status: str


class Listing(Protocol):
    """A store that can be gone through once, row by row."""

    def runs(self, experiments: list[str]) -> Iterator[RunRow]: ...
    def models(self, experiments: list[str]) -> Iterator[ModelRow]: ...
    def traces(self, experiments: list[str]) -> Iterator[TraceRow]: ...
    def traces_at_work(self, experiments: list[str], since: int) -> Iterator[TraceRow]:
        """At least those that are in progress or began after a moment (in milliseconds), and one of every experiment
        that has any.
        """

    def datasets(self, experiments: list[str]) -> Iterator[tuple[str, DatasetInput]]: ...


def pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    """Every item of a paged search: MLflow's defaults stop after the first page."""
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


def get_or_none(get: Callable[[str], Any], key: str) -> Any:
    """What MLflow has under a name or id, None where it has nothing."""
    try:
        return get(key)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def each(get: Callable[[_Key], _Found], keys: Iterable[_Key], at_once: int) -> Iterator[_Found]:
    """What a call gives for every key, in the order of the keys; so many are asked at a time."""
    with ThreadPoolExecutor(at_once, "one") as asking:
        try:
            yield from asking.map(get, keys)
        finally:
            # The first refusal is the answer: those that wait in line are not asked any more.
            asking.shutdown(wait=False, cancel_futures=True)


def chunks(ids: list[str], size: int = IDS_A_SEARCH) -> Iterator[list[str]]:
    """The ids in pieces, in their order."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


class ClientListing:
    """Through MlflowClient: for stores without a server."""

    def __init__(self, client: MlflowClient) -> None:
        self.client = client

    def runs(self, experiments: list[str]) -> Iterator[RunRow]:
        for chunk in chunks(experiments):
            for run in pages(
                self.client.search_runs, experiment_ids=chunk, run_view_type=ViewType.ALL, max_results=PAGE
            ):
                info, data = run.info, run.data
                names = frozenset({*data.params, *data.metrics, *data.tags})
                uri = info.artifact_uri or ""
                at = _dated(info.start_time, info.end_time, (metric.timestamp for metric in data._metric_objs))
                yield RunRow(
                    info.run_id,
                    info.experiment_id,
                    info.lifecycle_stage,
                    info.status,
                    uri,
                    data.tags,
                    names,
                    tuple(data.metrics),
                    at,
                    info.start_time or 0,
                )

    def models(self, experiments: list[str]) -> Iterator[ModelRow]:
        for chunk in chunks(experiments):
            for model in pages(self.client.search_logged_models, experiment_ids=chunk, max_results=PAGE):
                source, created = model.source_run_id or "", model.creation_timestamp or 0
                tags = model.tags or {}
                yield ModelRow(
                    model.model_id,
                    model.experiment_id,
                    source,
                    model.artifact_location,
                    str(model.status),
                    created,
                    model.name,
                    model.last_updated_timestamp or 0,
                    says_external(tags),
                    tags.get(SOURCE_MODEL, ""),
                )

    def traces(self, experiments: list[str]) -> Iterator[TraceRow]:
        for chunk in chunks(experiments):
            for trace in pages(
                self.client.search_traces, locations=chunk, max_results=MOST_TRACES, include_spans=False
            ):
                info = trace.info
                sources = [(item.metadata or {}).get(ASSESSED_RUN, "") for item in info.assessments or ()]
                begun, took = info.request_time, info.execution_duration or 0
                yield TraceRow(
                    info.experiment_id,
                    tuple(sources),
                    (info.trace_metadata or {}).get(SOURCE_RUN, ""),
                    begun,
                    begun + took,
                    info.trace_id,
                    str(info.state),
                )

    def traces_at_work(self, experiments: list[str], since: int) -> Iterator[TraceRow]:
        return self.traces(experiments)

    def datasets(self, experiments: list[str]) -> Iterator[tuple[str, DatasetInput]]:
        for chunk in chunks(experiments):
            for run in pages(
                self.client.search_runs, experiment_ids=chunk, run_view_type=ViewType.ALL, max_results=PAGE
            ):
                for item in run.inputs.dataset_inputs or ():
                    yield run.info.experiment_id, dataset_of(item)._replace(tags=())


class RestListing:
    """Over HTTP: the same rows from the JSON itself, without an object for every param and metric."""

    def __init__(self, rest: Rest, at_once: int, progress: Progress) -> None:
        self.rest, self.at_once, self.progress = rest, at_once, progress

    def _pages(self, experiments: list[str]) -> Iterator[dict[str, Any]]:
        """Of all runs, by searches of a few experiments each, side by side: the server sorts less for a page, and no
        worker of it is idle for long.
        """
        body = {"run_view_type": "ALL", "max_results": PAGE}
        size = max(1, min(IDS_A_SEARCH, len(experiments) // (self.at_once * _SEARCHES_EACH)))
        bodies = [{**body, "experiment_ids": chunk} for chunk in chunks(experiments, size)]
        seen, began = 0, time.monotonic()
        self.progress.start("Reading runs", len(bodies))
        for page in self.rest.side_by_side(SEARCH_RUNS, bodies, min(self.at_once, len(bodies))):
            seen += len(page.get("runs", ()))
            if not page.get("next_page_token"):
                self.progress.advance(1)
            self.progress.rename(f"Reading runs: {seen:,}, {seen / (time.monotonic() - began):,.0f} a second; searches")
            yield page

    def runs(self, experiments: list[str]) -> Iterator[RunRow]:
        for page in self._pages(experiments):
            yield from map(_run, page.get("runs", ()))

    def models(self, experiments: list[str]) -> Iterator[ModelRow]:
        for chunk in chunks(experiments):
            for page in self.rest.pages(SEARCH_MODELS, {"experiment_ids": chunk, "max_results": PAGE}):
                for model in page.get("models", ()):
                    info = model["info"]
                    status = info.get("status", "").removeprefix("LOGGED_MODEL_")
                    tags = pairs_in(info.get("tags", ()))
                    source, created = info.get("source_run_id", ""), int(info.get("creation_timestamp_ms", 0))
                    updated = int(info.get("last_updated_timestamp_ms", 0))
                    yield ModelRow(
                        info["model_id"],
                        info["experiment_id"],
                        source,
                        info.get("artifact_uri", ""),
                        status.removeprefix("UPLOAD_"),
                        created,
                        info.get("name", ""),
                        updated,
                        says_external(tags),
                        tags.get(SOURCE_MODEL, ""),
                    )

    def traces(self, experiments: list[str]) -> Iterator[TraceRow]:
        for chunk in chunks(experiments):
            for page in self.rest.pages(SEARCH_TRACES, {"locations": _places(chunk), "max_results": MOST_TRACES}):
                yield from map(_trace, page.get("traces", ()))

    def traces_at_work(self, experiments: list[str], since: int) -> Iterator[TraceRow]:
        found = dict[str, TraceRow]()
        for where in (f"status = '{IN_PROGRESS}'", f"timestamp_ms > {since}"):
            for chunk in chunks(experiments):
                body = {"locations": _places(chunk), "max_results": MOST_TRACES, "filter": where}
                for page in self.rest.pages(SEARCH_TRACES, body):
                    found |= {trace.trace_id: trace for trace in map(_trace, page.get("traces", ()))}
        yield from found.values()
        known = {trace.experiment_id for trace in found.values()}
        left = [key for key in experiments if key not in known]
        while left:
            asked = left[:IDS_A_SEARCH]
            answer = self.rest.post(SEARCH_TRACES, {"locations": _places(asked), "max_results": MOST_TRACES})
            one_each = {trace.experiment_id: trace for trace in map(_trace, answer.get("traces", ()))}
            yield from one_each.values()
            # Of those that are left over, others may have pushed theirs off the page.
            gone = one_each.keys() or {*asked}
            left = [key for key in left if key not in gone]

    def datasets(self, experiments: list[str]) -> Iterator[tuple[str, DatasetInput]]:
        for page in self._pages(experiments):
            for run in page.get("runs", ()):
                for item in run.get("inputs", {}).get("dataset_inputs", ()):
                    yield run["info"]["experiment_id"], dataset_in(item)._replace(tags=())


def _places(experiments: list[str]) -> list[dict[str, Any]]:
    return [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": key}} for key in experiments]


def _trace(trace: dict[str, Any]) -> TraceRow:
    sources = [item.get("metadata", {}).get(ASSESSED_RUN, "") for item in trace.get("assessments", ())]
    begun = _milliseconds(trace.get("request_time", ""))
    return TraceRow(
        trace["trace_location"]["mlflow_experiment"]["experiment_id"],
        tuple(sources),
        trace.get("trace_metadata", {}).get(SOURCE_RUN, ""),
        begun,
        begun + round(1000 * float(trace.get("execution_duration", "0s").removesuffix("s"))),
        trace["trace_id"],
        trace.get("state", ""),
    )


def _run(run: dict[str, Any]) -> RunRow:
    info, data = run["info"], run.get("data", {})
    tags = pairs_in(data.get("tags", ()))
    metrics = tuple(item["key"] for item in data.get("metrics", ()))
    names = frozenset((*tags, *metrics, *[item["key"] for item in data.get("params", ())]))
    times = (int(info.get("start_time", 0)), int(info.get("end_time", 0)))
    at = _dated(*times, (int(item.get("timestamp", 0)) for item in data.get("metrics", ())))
    uri = info.get("artifact_uri", "")
    return RunRow(
        info["run_id"],
        info["experiment_id"],
        info["lifecycle_stage"],
        info["status"],
        uri,
        tags,
        names,
        metrics,
        at,
        times[0],
    )


def _dated(start: int | None, end: int | None, logged: Iterable[int]) -> int:
    """The latest time of a run's row; that of one that has ended says all of it with its end."""
    return latest_time(int(time.time() * 1000), (start, end), () if end else logged)


def _milliseconds(text: str) -> int:
    """A time as JSON has it (2026-01-31T12:00:00.5Z), in milliseconds since the epoch; 0 for none."""
    if not text:
        return 0
    seconds, _, rest = text.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(seconds).replace(tzinfo=timezone.utc)
    return int(whole.timestamp()) * 1000 + int((rest + "000")[:3])
