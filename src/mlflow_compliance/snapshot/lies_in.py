"""In which experiment an entity lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_compliance.snapshot.refs import EntityRef
    from mlflow_compliance.snapshot.snapshot import Snapshot


def experiment_of(entity: EntityRef, snapshot: Snapshot | None) -> str:
    """Name of the experiment that an entity lies in; empty where it lies in none, or that is not known."""
    if snapshot is None:
        return ""
    key = entity.key
    if entity.kind != "experiment":
        run, model = snapshot.runs.get(key), snapshot.logged_models.get(key)
        lies_in = {"run": run and run.experiment_id, "logged_model": model and model.experiment_id}
        key = lies_in.get(entity.kind) or ""
    experiment = snapshot.experiments.get(key)
    return experiment.name if experiment is not None else ""
