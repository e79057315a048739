"""What both readers understand the same way, and the order that they bring things into."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from mlflow_compliance.entities import EntityRef, Location, MetricPoint, ModelVersion

MODEL_HISTORY = "mlflow.log-model.history"
"""Tag in which a run records the models that it logged, before logged models were entities."""
IS_PROMPT = "mlflow.prompt.is_prompt"
"""Tag of a registered 'model' that is a prompt: MLflow keeps both in the same tables."""


def model_places(run_id: str, experiment_id: str, uri: str, history: str) -> list[Location]:
    """Where a run's own record says that it logged models (before MLflow 3): there must be something there."""
    try:
        paths = {str(entry["artifact_path"]) for entry in json.loads(history)}
    except (ValueError, TypeError, KeyError):
        return []
    return [Location(EntityRef("run_model", f"{run_id}/{path}"), experiment_id, f"{uri}/{path}") for path in sorted(paths) if path and uri]


def sources_of(version: ModelVersion) -> tuple[str, ...]:
    """The ids that a version names as where it comes from: its run, and the logged model or run in its source."""
    scheme, _, rest = version.source.partition(":/")
    named = rest.strip("/").split("/")[0] if scheme == "runs" or rest.startswith("m-") else ""
    return tuple(key for key in (version.run_id or "", named) if key)


def home_of(version: ModelVersion, homes: Mapping[str, str]) -> str:
    """The experiment of a version's source, empty where that is gone."""
    return next((homes[key] for key in sources_of(version) if key in homes), "")


def sorted_points(points: Iterable[MetricPoint]) -> tuple[MetricPoint, ...]:
    """A history in a stable order; NaN, which has no order, goes by its text."""
    return tuple(sorted(points, key=lambda point: (point.timestamp, point.step, str(point.value))))
