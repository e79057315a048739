"""Takes back a run that a repair made: soft-deletes it with its models and puts its files aside; objects stay and
are marked.
"""

from __future__ import annotations

import os
from typing import Any

from mlflow.tracking import MlflowClient

from mlflow_compliance.snapshot.files import QUARANTINE
from mlflow_compliance.snapshot.tags import COPY_STATE, RETRACTED
from mlflow_compliance.store.backends.listing import pages
from mlflow_compliance.store.storage import files
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.manifests import write_manifest
from mlflow_compliance.store.storage.recorded_hashes import take_off
from mlflow_compliance.store.storage.storages import is_remote, remote_path
from mlflow_compliance.store.storage.transfer import put_aside
from mlflow_compliance.store.store import Store

MODELS_A_PAGE = 50
"""Logged models that are asked for at a time."""


def retract(client: MlflowClient, store: Store, run: Any, journal: str, model_tag: str) -> None:
    """Take back a run and those of its logged models that carry `model_tag`: what they hold is there elsewhere too."""
    client.set_tag(run.info.run_id, COPY_STATE, RETRACTED)
    uris = [run.info.artifact_uri]
    # By their source and not by the run's outputs: a run that was broken off has not linked its models yet.
    mine = f"source_run_id = '{run.info.run_id}'"
    # All pages before the first is deleted: what is deleted is in no page any more.
    for model in list(
        pages(
            client.search_logged_models,
            experiment_ids=[run.info.experiment_id],
            filter_string=mine,
            max_results=MODELS_A_PAGE,
        )
    ):
        if model_tag in (model.tags or {}):
            uris.append(model.artifact_location)
            client.delete_logged_model(model.model_id)
    client.delete_run(run.info.run_id)
    for uri in filter(is_remote, uris):
        put_aside(store.places, os.path.dirname(remote_path(uri)), journal)
    folders = [os.path.dirname(local_folder(uri, store.backend.home) or "") for uri in uris if not is_remote(uri)]
    if folders:
        take_off(store.folder, folders)
        _quarantine(folders, run.info.experiment_id, journal)


def _quarantine(folders: list[str], experiment_id: str, journal: str) -> None:
    home = os.path.dirname(folders[0])
    # As the inventory has it: the folder above an experiment's is a root only where its name is the experiment's id.
    root = os.path.dirname(home) if os.path.basename(home) == experiment_id else home
    for folder in folders:
        if os.path.isdir(folder):
            target = os.path.join(root, QUARANTINE, f"{journal}-retracted", os.path.relpath(folder, root))
            write_manifest(folder, target, root)
            files.quarantine(folder, target)
