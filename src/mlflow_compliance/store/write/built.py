"""Where the files of a production run are that is to be logged: in the bundle that was built for it, or, when that is
gone, in what was logged of it before and taken back.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from mlflow_compliance.changes import LogProductionRun
from mlflow_compliance.changes.production import Files
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.files import METADATA, MLMODEL
from mlflow_compliance.snapshot.tags import BUILT_FOR, BUILT_IN
from mlflow_compliance.store.backends.listing import pages
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.parsing import parse_json
from mlflow_compliance.store.storage.storages import is_remote, remote_path
from mlflow_compliance.store.store import Store
from mlflow_compliance.store.write.retract import aside, roots_of


@contextmanager
def built(client: MlflowClient, store: Store, change: LogProductionRun) -> Iterator[tuple[str, str]]:
    """The folder of a run's artifacts and that of its model. Raises ChangeError where neither is anywhere any more.

    What is in them is held to its hashes when it is placed.
    """
    if os.path.isdir(change.bundle):
        yield os.path.join(change.bundle, "artifacts"), os.path.join(change.bundle, "model")
        return
    with tempfile.TemporaryDirectory(prefix="mlflow-compliance-") as folder:
        for run in _taken_back(client, change):
            found = _Places(client, store, change).of(run, folder)
            if found and _all_there(change, *found):
                yield found
                return
        raise ChangeError(
            f"what production run {change.name!r} of {change.product} is made of is gone: its bundle, and what was "
            "taken back of it; run --fix to build it anew"
        )


def _taken_back(client: MlflowClient, change: LogProductionRun) -> Iterator[Any]:
    yield from pages(
        client.search_runs,
        experiment_ids=[change.experiment_id],
        filter_string=f"tags.`{BUILT_FOR}` = '{change.product}'",
        run_view_type=ViewType.DELETED_ONLY,
        max_results=1000,
    )


@dataclass(frozen=True)
class _Places:
    client: MlflowClient
    store: Store
    change: LogProductionRun

    def of(self, run: Any, temporary: str) -> tuple[str, str] | None:
        """The folders of a run that was taken back and of its model, here."""
        journal, fetched = run.data.tags.get(BUILT_IN, ""), os.path.join(temporary, run.info.run_id)
        files = {METADATA, *(path for path, _, _ in self.change.files)}
        artifacts = self._here(run.info.artifact_uri, journal, os.path.join(fetched, "artifacts"), files)
        # MLflow shows nobody a logged model that is deleted: the run's own record names it.
        model_id = _model_in(os.path.join(artifacts, METADATA)) if artifacts else ""
        if not artifacts or not model_id:
            return None
        location = self.client.get_experiment(run.info.experiment_id).artifact_location
        files = {path for path, _, _ in self.change.model_files}
        model = self._here(f"{location}/models/{model_id}/artifacts", journal, os.path.join(fetched, "model"), files)
        return (artifacts, model) if model else None

    def _here(self, uri: str, journal: str, fetched: str, files: Collection[str]) -> str:
        """The folder in which files of a location are that was taken back; empty where there is none."""
        if is_remote(uri):
            folder = remote_path(uri)
            place = self.store.places.of(folder)
            for item in place.listed(folder):
                name = item.path[len(folder) + 1 :]
                if name in files:
                    path = os.path.join(fetched, name)
                    os.makedirs(os.path.dirname(path), exist_ok=True)
                    with open(path, "wb") as file:
                        file.writelines(place.chunks(item.path, item.etag))
            return fetched
        here = local_folder(uri, self.store.backend.home) or ""
        above, name = os.path.split(here)
        _, target = aside(above, journal, roots_of(self.client, self.store))
        return next((path for path in (os.path.join(target, name), here) if os.path.isdir(path)), "")


def _model_in(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return str(parse_json(file.read())["model_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _all_there(change: LogProductionRun, artifacts: str, model: str) -> bool:
    def holds(folder: str, listed: Files) -> bool:
        return all(os.path.isfile(os.path.join(folder, path)) for path, _, _ in listed)

    return holds(artifacts, change.files) and holds(model, (*change.model_files, (MLMODEL, 0, "")))
