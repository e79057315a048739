"""The metric history of a run as its copy gets it: every point, and those of its logged models with the ids of their copies."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from mlflow.entities import Metric

from mlflow_compliance.errors import ChangeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mlflow_compliance.snapshot.entities import LoggedModel, ModelMetric, Run


def apart(metrics: Iterable[Metric]) -> list[list[Metric]]:
    """Points that several models share apart from one another: up to version 3.12 MLflow refuses a batch that holds one of them twice."""
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
            facts: Sequence[tuple[str | None, ModelMetric | None]] = linked.pop((key, value, point.timestamp, point.step), ()) or ((None, None),)
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
        raise ChangeError(f"a model of run {source.run_id} has the metric {key!r} from another run: copying would have to invent a value")
