"""What MLflow's client gives, as the entities of a Snapshot."""

from __future__ import annotations

from typing import Any

from mlflow_compliance.snapshot.entities import (
    ACTIVE,
    NAN,
    DatasetInput,
    Experiment,
    LoggedModel,
    ModelMetric,
)


def experiment_of(item: Any) -> Experiment:
    return Experiment(
        item.experiment_id,
        item.name,
        item.lifecycle_stage,
        item.artifact_location or "",
        dict(item.tags),
        {},
        created=item.creation_time or 0,
    )


def number_of(value: float) -> float:
    """With the one NaN that readers use."""
    return NAN if value != value else value


def dataset_of(item: Any) -> DatasetInput:
    facts = item.dataset
    tags = tuple(sorted((tag.key, tag.value) for tag in item.tags))
    return DatasetInput(facts.name, facts.digest, facts.source_type, facts.source, facts.schema, facts.profile, tags)


def model_of(model: Any) -> LoggedModel:
    metrics = [
        ModelMetric(
            point.key,
            number_of(point.value),
            point.timestamp,
            point.step,
            point.dataset_name or "",
            point.dataset_digest or "",
        )
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
