"""A run as a search of a tracking server gives it: JSON that has the latest point of each metric, and no models."""

from __future__ import annotations

from typing import Any

from mlflow_compliance.snapshot.entities import TERMINAL_STATUSES, DatasetInput, MetricPoint, Run
from mlflow_compliance.snapshot.tags import RUN_NAME
from mlflow_compliance.store.backends.client_entities import number_of


def run_of(found: dict[str, Any]) -> Run:
    """One of `runs` in an answer."""
    info, data = found["info"], found.get("data", {})
    tags = pairs_in(data.get("tags", ()))
    status = info["status"]
    return Run(
        run_id=info["run_id"],
        experiment_id=info["experiment_id"],
        name=info.get("run_name") or tags.get(RUN_NAME, ""),
        status=status,
        lifecycle=info["lifecycle_stage"],
        start_time=_time(info, "start_time"),
        end_time=_time(info, "end_time") if status in TERMINAL_STATUSES else None,
        user=info.get("user_id", ""),
        artifact_uri=info.get("artifact_uri", ""),
        params=pairs_in(data.get("params", ())),
        tags=tags,
        metrics={item["key"]: (_point(item),) for item in data.get("metrics", ())},
        datasets=tuple(sorted(map(dataset_in, found.get("inputs", {}).get("dataset_inputs", ())))),
    )


def pairs_in(items: Any) -> dict[str, str]:
    """A list of tags or params by key."""
    return {item["key"]: item.get("value", "") for item in items}


def _time(info: dict[str, Any], name: str) -> int | None:
    return int(info[name]) if name in info else None


def _point(item: dict[str, Any]) -> MetricPoint:
    # Numbers that JSON has none for come as words, such as "NaN".
    return MetricPoint(number_of(float(item.get("value", 0))), int(item.get("timestamp", 0)), int(item.get("step", 0)))


def dataset_in(item: dict[str, Any]) -> DatasetInput:
    """One of a run's `dataset_inputs`."""
    facts = item.get("dataset", {})
    name, digest, kind, source = (facts.get(key, "") for key in ("name", "digest", "source_type", "source"))
    tags = sorted((tag["key"], tag.get("value", "")) for tag in item.get("tags", ()))
    return DatasetInput(name, digest, kind, source, facts.get("schema"), facts.get("profile"), tuple(tags))
