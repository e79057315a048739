"""What must hold before a run that a repair made is taken back: it is the run of that repair, and as it was made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow.entities import ViewType

from mlflow_compliance.changes.made import got_other
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.tags import COPY_STATE, RETRACTED
from mlflow_compliance.store.backends.listing import pages
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.storages import is_remote
from mlflow_compliance.store.write.effects import OpenStore
from mlflow_compliance.store.write.relied_on import relied_on
from mlflow_compliance.store.write.retract import not_there


def made_runs(to: OpenStore, experiment_id: str, where: str, what: str) -> list[Any]:
    """The active runs that a filter finds in an experiment; none where they were taken back already. Raises ChangeError
    where somebody deleted them, or none is there.
    """
    found = list(pages(to.client.search_runs, experiment_ids=[experiment_id], filter_string=where))
    if found:
        return found
    deleted = list(
        pages(
            to.client.search_runs,
            experiment_ids=[experiment_id],
            filter_string=where,
            run_view_type=ViewType.DELETED_ONLY,
        )
    )
    if not deleted:
        raise ChangeError(f"{what} is not there any more: there is nothing to take back")
    if not any(run.data.tags.get(COPY_STATE) == RETRACTED for run in deleted):
        raise ChangeError(f"{what} was deleted by somebody: it is left as it is")
    return []


def refuse_if_changed(to: OpenStore, run: Any, what: str, changed: Sequence[str]) -> None:
    """Raise ChangeError where a run is not as it was made, or where something relies on it or its models by now."""
    run_id, experiment_id = run.info.run_id, run.info.experiment_id
    if changed:
        raise ChangeError(got_other(what, run_id, changed))
    models = pages(
        to.client.search_logged_models,
        experiment_ids=[experiment_id],
        filter_string=f"source_run_id = '{run_id}'",
        max_results=50,
    )
    relied = relied_on(to.client, to.store, run_id, experiment_id, [model.model_id for model in models])
    if relied:
        raise ChangeError(f"{what}, run {run_id}, stays: {relied}")


def new_folders(to: OpenStore, experiment_id: str) -> tuple[str, ...]:
    """The folders that the first run of an experiment, or its first model, will be the first to need."""
    location = to.client.get_experiment(experiment_id).artifact_location or ""
    home = None if is_remote(location) else local_folder(location, to.store.backend.home)
    return not_there([f"{home}/models"]) if home else ()
