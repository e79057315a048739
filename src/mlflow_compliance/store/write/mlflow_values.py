"""What a run holds, as the values that MLflow's calls take, and no more of them in one call than it accepts."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.tracking import MlflowClient

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot import entities
from mlflow_compliance.snapshot.entities import LoggedModel, ModelMetric, Run

BATCH = 1000
"""Metrics in one log_batch call; MLflow's limit for all items together."""
PARAMS_A_REQUEST = 100
"""Params in one log_batch call, MLflow's limit."""


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    logged = [Param(key, value) for key, value in params.items()]
    for start in range(0, len(logged), PARAMS_A_REQUEST):
        client.log_batch(run_id, params=logged[start : start + PARAMS_A_REQUEST])


def inputs_of(datasets: Iterable[entities.DatasetInput]) -> list[DatasetInput]:
    return [
        DatasetInput(
            Dataset(item.name, item.digest, item.source_type, item.source, item.schema, item.profile),
            [InputTag(key, value) for key, value in item.tags],
        )
        for item in datasets
    ]


def in_rounds(metrics: Iterable[Metric]) -> list[list[Metric]]:
    """Points that several models share apart from one another: up to version 3.12 MLflow refuses a batch that holds
    one of them twice.
    """
    seen: Counter[tuple[object, ...]] = Counter()
    rounds: defaultdict[int, list[Metric]] = defaultdict(list)
    for metric in metrics:
        point = (metric.key, str(metric.value), metric.timestamp, metric.step)
        rounds[seen[point]].append(metric)
        seen[point] += 1
    return list(rounds.values())


def metrics_of(new_id: str, source: Run, models: list[LoggedModel], ids: Mapping[str, str]) -> Iterator[Metric]:
    """The run's history; a point that was logged for models too goes along once for each of them, with its new id."""
    linked: dict[tuple[str, float, int, int], list[tuple[str, ModelMetric]]] = defaultdict(list)
    for model in models:
        for item in model.metrics:
            linked[item.key, item.value, item.timestamp, item.step].append((ids[model.model_id], item))
    for key, points in source.metrics.items():
        for point in points:
            # MLflow keeps 0 where a model's metric is NaN.
            value = 0.0 if math.isnan(point.value) else point.value
            facts: Sequence[tuple[str | None, ModelMetric | None]] = linked.pop(
                (key, value, point.timestamp, point.step), ()
            ) or ((None, None),)
            for model_id, fact in facts:
                yield Metric(
                    key,
                    point.value,
                    point.timestamp,
                    point.step,
                    model_id=model_id,
                    dataset_name=(fact.dataset_name or None) if fact else None,
                    dataset_digest=(fact.dataset_digest or None) if fact else None,
                    run_id=new_id,
                )
    if linked:
        key = next(iter(linked))[0]
        raise ChangeError(
            f"a model of run {source.run_id} has the metric {key!r} from another run: copying would have to "
            "invent a value"
        )
