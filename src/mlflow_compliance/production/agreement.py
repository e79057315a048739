"""Where rows contradict what is on record of a production run: its ids, dates, metrics and costs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from mlflow_compliance.production.facts import number
from mlflow_compliance.production.metadata import SCHEMA_ID
from mlflow_compliance.production.metrics import differs
from mlflow_compliance.settings.schema import Product
from mlflow_compliance.snapshot.entities import LoggedModel, MetricPoint, ModelMetric, Run
from mlflow_compliance.snapshot.files import METADATA
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import BUILT_FOR, BUILT_IN, SOURCE_EXPERIMENT, SOURCE_MODEL, SOURCE_RUN

LATEST = timedelta(days=1)
"""From the start of a run that --fix built to the writing of its metadata: planning a large store takes a while."""
_AT_ONCE = timedelta(minutes=1)
"""From the name of a journal to the time that its repair writes down."""
_RUN_ID, _MODEL_ID = re.compile(r"[0-9a-f]{32}"), re.compile(r"m-[0-9a-f]{32}")
COSTS = {
    "false_negative": ("false_negative_cost", "cost_fn", "fn_cost"),
    "false_positive": ("false_positive_cost", "cost_fp", "fp_cost"),
}
"""Kind of mistake -> params that say what it costs."""


class Contradiction(NamedTuple):
    """What stands in one place, and what another one says of it."""

    code: str
    message: str
    observed: str
    expected: str
    name: str = ""


def contradictions(run: Run, product: Product, snapshot: Snapshot) -> Iterator[Contradiction]:
    """Every one that is beyond doubt: of a document that others wrote only what can be meant in one way is compared."""
    metadata = snapshot.evidence.metadata.get(run.run_id) if snapshot.evidence else None
    document = metadata.document if metadata else {}
    models = snapshot.models_of(run.run_id)
    yield from _ids(run, models, document, snapshot)
    yield from _dates(run, document)
    yield from _metrics(run, product, document)
    for model in models:
        yield from _of_model(run, product, model)
    yield from _costs(run, product, document)


def _ids(
    run: Run, models: list[LoggedModel], document: Mapping[str, Any], snapshot: Snapshot
) -> Iterator[Contradiction]:
    ours = document.get("schema") == SCHEMA_ID
    source = run.tags.get(SOURCE_RUN, "")
    if source and source not in snapshot.runs and document.get("run_id") != source:
        return  # a copy of a copy: what the first one was called is not known
    first = snapshot.runs.get(source)
    runs = {run.run_id, source, first.tags.get(SOURCE_RUN, "") if first else ""}
    experiments = {run.experiment_id, run.tags.get(SOURCE_EXPERIMENT, "")}
    experiments |= {first.experiment_id, first.tags.get(SOURCE_EXPERIMENT, "")} if first else set()
    own = {key for model in models for key in (model.model_id, model.tags.get(SOURCE_MODEL, ""))}
    if first:
        own |= {model.tags.get(SOURCE_MODEL, "") for model in snapshot.models_of(first.run_id)}
    for key, known, shape in (
        ("run_id", runs, _RUN_ID),
        ("model_id", own, _MODEL_ID),
        ("experiment_id", experiments, None),
    ):
        said = document.get(key)
        if key == "model_id" and not models:
            continue  # that it is gone is said by others
        if isinstance(said, str) and said not in known and (ours or (shape and shape.fullmatch(said))):
            named = {"run_id": run.run_id, "experiment_id": run.experiment_id}
            expected = named.get(key) or " or ".join(model.model_id for model in models)
            yield Contradiction("id-differs", f"{key} in {METADATA} is another one's", said, expected, key)


def _dates(run: Run, document: Mapping[str, Any]) -> Iterator[Contradiction]:
    if document.get("schema") != SCHEMA_ID or BUILT_FOR not in run.tags:
        return
    said = _time(document.get("created_at"))
    if said is None:
        return
    observed = said.isoformat(timespec="seconds")
    journal = _time(run.tags.get(BUILT_IN, "").partition("-")[0])
    start = datetime.fromtimestamp(run.start_time / 1000, timezone.utc) if run.start_time else None
    if journal is not None and abs(said - journal) > _AT_ONCE:
        yield Contradiction(
            "date-differs",
            f"created_at in {METADATA} is not when the repair ran that built it",
            observed,
            f"{journal.isoformat(timespec='seconds')} (tag {BUILT_IN})",
            "created_at",
        )
    elif start is not None and not -_AT_ONCE <= said - start <= LATEST:
        yield Contradiction(
            "date-differs",
            f"created_at in {METADATA} and the start of the run do not go together",
            observed,
            f"within a day of {start.isoformat(timespec='seconds')}",
            "created_at",
        )
    points = [point for key in _numbers(document.get("metrics")) for point in run.metrics.get(key, ())]
    if start is not None and points and all(point.timestamp != run.start_time for point in points):
        yield Contradiction(
            "date-differs",
            "its start is not when its metrics were logged",
            start.isoformat(timespec="seconds"),
            datetime.fromtimestamp(min(point.timestamp for point in points) / 1000, timezone.utc).isoformat(
                timespec="seconds"
            ),
            "start_time",
        )


def _time(text: object) -> datetime | None:
    """A time with its offset, as documents spell it or as the name of a journal begins; None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        if re.fullmatch(r"\d{8}T\d{6}Z", text):
            return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else None


def _numbers(values: object) -> dict[str, float]:
    """Those values of a table that are numbers."""
    return {
        key: float(value)
        for key, value in (values.items() if isinstance(values, dict) else ())
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _metrics(run: Run, product: Product, document: Mapping[str, Any]) -> Iterator[Contradiction]:
    ours, latest = document.get("schema") == SCHEMA_ID, run.latest
    for key, said in sorted(_numbers(document.get("metrics")).items()):
        found = latest.get(key)
        if found is None:
            if ours:
                yield Contradiction(
                    "metric-differs", f"metric {key} is in {METADATA} alone", f"{said:g}", "the same on the run", key
                )
        elif differs(key, said, found, product.production.tolerance) and (ours or not _rounded(said, found)):
            yield Contradiction(
                "metric-differs", f"metric {key} in {METADATA} is not that of the run", f"{said:g}", f"{found:g}", key
            )


def _rounded(said: float, found: float) -> bool:
    """Whether somebody wrote a number with fewer digits."""
    digits = len(repr(said).partition(".")[2]) if "e" not in repr(said) else 15
    return math.isfinite(found) and round(found, digits) == round(said, digits)


def _of_model(run: Run, product: Product, model: LoggedModel) -> Iterator[Contradiction]:
    """A logged model has its own rows of what was logged with the run: those of one call, and of one dataset."""
    measured_on, last = {(item.name, item.digest) for item in run.datasets}, _last(model)
    for metric in model.metrics:
        points = run.metrics.get(metric.key, ())
        same_call = any((point.timestamp, point.step) == (metric.timestamp, metric.step) for point in points)
        same_data = metric in last and (metric.dataset_name, metric.dataset_digest) in measured_on
        if (same_call or (points and same_data)) and not any(_agree(metric, point, product) for point in points):
            yield Contradiction(
                "model-differs",
                f"metric {metric.key} of its logged model is not that of the run",
                f"{metric.value:g} of model {model.model_id}",
                f"{run.latest[metric.key]:g}",
                metric.key,
            )
    for key in sorted(model.params.keys() & run.params.keys()) if BUILT_FOR in run.tags else ():
        if model.params[key] != run.params[key]:
            yield Contradiction(
                "model-differs",
                f"param {key} of its logged model is not that of the run",
                f"{model.params[key]} of model {model.model_id}",
                run.params[key],
                key,
            )


def _agree(metric: ModelMetric, point: MetricPoint, product: Product) -> bool:
    if math.isnan(metric.value) or math.isnan(point.value):
        return math.isnan(metric.value) and math.isnan(point.value)
    return not differs(metric.key, metric.value, point.value, product.production.tolerance)


def _last(model: LoggedModel) -> set[ModelMetric]:
    """The last value of each metric for each dataset."""
    found = {
        (metric.key, metric.dataset_name, metric.dataset_digest): metric
        for metric in sorted(model.metrics, key=lambda item: (item.step, item.timestamp))
    }
    return set(found.values())


def _costs(run: Run, product: Product, document: Mapping[str, Any]) -> Iterator[Contradiction]:
    """What a mistake costs, where the settings say it or --fix wrote it down."""
    costs = document.get("costs")
    for kind, names in COSTS.items():
        setting = f"{kind}_cost"
        if setting not in product.production.model_fields_set and BUILT_FOR not in run.tags:
            continue
        decided = getattr(product.production, setting)
        places = {f"param {name}": run.params[name] for name in names if name in run.params}
        if isinstance(costs, dict) and kind in costs:
            places[f"costs.{kind} in {METADATA}"] = str(costs[kind])
        for place, said in places.items():
            # As --fix writes a param, or as a number in any spelling; what is no number may mean anything.
            if _is_number(said) and said != f"{decided:g}" and number(said) != number(str(decided)):
                yield Contradiction(
                    "cost-differs", f"{place} is not what the settings say", said, f"{setting} = {decided:g}", place
                )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
