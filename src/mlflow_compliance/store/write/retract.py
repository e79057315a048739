"""Takes back a run that a repair made: puts its files aside and soft-deletes it with its models; objects stay and
are marked.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from mlflow_compliance.snapshot.files import QUARANTINE, upwards
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.snapshot.tags import COPY_STATE, RETRACTED
from mlflow_compliance.store.artifacts.quarantined import RETRACTED as ASIDE
from mlflow_compliance.store.backends.listing import pages
from mlflow_compliance.store.ownership.rows import read_ownership
from mlflow_compliance.store.storage import files
from mlflow_compliance.store.storage.atomic_write import sweep_below
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.manifests import write_manifest
from mlflow_compliance.store.storage.recorded_hashes import take_off
from mlflow_compliance.store.storage.shared_copies import give_back, kept_below, part_below
from mlflow_compliance.store.storage.storages import is_remote, remote_path
from mlflow_compliance.store.storage.transfer import put_aside
from mlflow_compliance.store.store import Store

MODELS_A_PAGE = 50
"""Logged models that are asked for at a time."""


@dataclass(frozen=True)
class Made:
    """What a repair made besides a run: its journal, the tag of the run's models, the folders that were not there
    before, and the locations that the run's files were copied from.
    """

    journal: str
    model_tag: str
    folders: Sequence[str] = ()
    sources: Collection[str] = ()


def retract(client: MlflowClient, store: Store, run: Any, made: Made) -> None:
    """Take back a run and those of its logged models that carry the tag: what they hold is there elsewhere too.

    The run goes last: one that was begun with is found again, and finished.
    """
    client.set_tag(run.info.run_id, COPY_STATE, RETRACTED)
    # By their source and not by the run's outputs: a run that was broken off has not linked its models yet.
    mine = f"source_run_id = '{run.info.run_id}'"
    # All pages before the first is deleted: what is deleted is in no page any more.
    found = pages(
        client.search_logged_models,
        experiment_ids=[run.info.experiment_id],
        filter_string=mine,
        max_results=MODELS_A_PAGE,
    )
    models = [model for model in found if made.model_tag in (model.tags or {})]
    uris = [run.info.artifact_uri, *(model.artifact_location for model in models)]
    for uri in filter(is_remote, uris):
        put_aside(store.places, os.path.dirname(remote_path(uri)), made.journal)
    folders = [os.path.dirname(local_folder(uri, store.backend.home) or "") for uri in uris if not is_remote(uri)]
    if folders:
        _put_aside(client, store, folders, made)
    for model in models:
        client.delete_logged_model(model.model_id)
    client.delete_run(run.info.run_id)


def _put_aside(client: MlflowClient, store: Store, folders: Sequence[str], made: Made) -> None:
    take_off(store.folder, folders)
    roots = roots_of(client, store)
    copies: set[tuple[int, int]] = set()
    for folder in folders:
        root, target = aside(folder, made.journal, roots)
        if os.path.isdir(folder):
            sweep_below(folder)
            write_manifest(folder, target, root)
            files.quarantine(folder, target)
        # What lies aside shares no copy with what is in use: that may be written to again.
        copies |= part_below(target)
    sources = [place for uri in made.sources if (place := local_folder(uri, store.backend.home))]
    give_back(store.folder, kept_below(store.folder, sources), copies)
    remove_empty(made.folders)


def aside(folder: str, journal: str, roots: Collection[str]) -> tuple[str, str]:
    """The root that a folder lies in, and where the folder goes in its quarantine when a repair takes it back."""
    real = os.path.join(os.path.realpath(os.path.dirname(folder)), os.path.basename(folder))
    root = next((above for above in upwards(real) if above in roots), os.path.dirname(real))
    return root, os.path.join(root, QUARANTINE, f"{journal}{ASIDE}", os.path.relpath(real, root))


def roots_of(client: MlflowClient, store: Store) -> Collection[str]:
    """The artifact roots as the inventory has them."""
    found = pages(client.search_experiments, view_type=ViewType.ALL, max_results=1000)
    places = [
        Location(EntityRef("experiment", item.experiment_id), item.experiment_id, item.artifact_location or "")
        for item in found
    ]
    settings = store.settings
    given = [root for root in settings.store.resolved_roots(settings.base) if not is_remote(root)]
    relocate = settings.store.resolved_relocate(settings.base)
    local = [place for place in places if not is_remote(place.uri)]
    return read_ownership(local, relocate, given, (), home=store.backend.home).roots


def not_there(folders: Collection[str]) -> tuple[str, ...]:
    """These folders and those above them, as far as they are not there, the deepest first."""
    found = {
        above for folder in folders for above in (folder, *upwards(folder)) if above and not os.path.lexists(above)
    }
    return tuple(sorted(found, key=len, reverse=True))


def remove_empty(folders: Sequence[str]) -> None:
    """Remove folders that a repair made, where nothing is in them."""
    for folder in folders:
        with suppress(OSError):
            os.rmdir(folder)
