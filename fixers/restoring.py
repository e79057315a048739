"""Restoring a soft-deleted run: what the remedies for versions and for children have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator

from mlflow_compliance.api import (
    DELETED,
    Change,
    Context,
    RestoreRun,
    Unfixable,
    production_runs,
    said_in,
    served_version,
)


def restore(run_id: str, context: Context) -> Iterator[Change]:
    """The run as it was; nothing where it is active by now. Raises Unfixable where it would not be kept, or would
    be one production run too many.
    """
    snapshot = context.snapshot
    run, state, parent = snapshot.runs.get(run_id), snapshot.state_of(run_id), snapshot.lost_parents.get(run_id)
    home = snapshot.experiments.get(state.experiment_id if state else parent.experiment_id if parent else "")
    if state is not None and state.lifecycle != DELETED:
        return
    if home is None:
        raise Unfixable(
            f"run {run_id} lies in another workspace",
            advice=f"restore it there: `MLFLOW_WORKSPACE=NAME_OF_IT mlflow runs restore --run-id {run_id}`",
        )
    if not home.active:
        raise Unfixable(f"its {home.ref} is deleted too", advice=way_back(home.experiment_id))
    if run is None:
        raise Unfixable(
            f"run {run_id} was not read in full",
            advice=f"run --fix again, or restore it: `mlflow runs restore --run-id {run_id}`",
        )
    marked = any(said_in(run.tags, context.settings)) and run_id not in _awaited(context)
    if marked and any(production_runs(product, context) for product in context.settings.products):
        tag = json.dumps(next(said_in(run.tags, context.settings))[0])
        raise Unfixable(
            f"{run.ref} is marked as production, and there is a production run already",
            advice=f"restore it in MLflow (`mlflow runs restore --run-id {run_id}`) and take its mark off: "
            f'`MlflowClient().delete_tag("{run_id}", {tag})`',
        )
    yield RestoreRun(run_id, run.experiment_id)


def _awaited(context: Context) -> set[str]:
    """Runs whose absence leaves a product without its production run: its alias names them."""
    registry = context.snapshot.registered_models
    versions = (served_version(item, registry) for item in context.settings.products if item.by_alias)
    return {version.run_id for version in versions if version and version.run_id}


def way_back(experiment_id: str) -> str:
    """How a person brings back a deleted experiment."""
    command = f"mlflow experiments restore --experiment-id {experiment_id}"
    return f"if it is to be kept, `{command}`, which brings all its runs back"
