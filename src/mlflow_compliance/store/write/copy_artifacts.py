"""Copies of artifacts, in folders here and in object stores: shared where files may be shared, counted, the ids in
MLmodel files renewed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from functools import partial

from mlflow_compliance.changes.copies import renamed
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.files import MLMODEL, DuplicateRules
from mlflow_compliance.store.artifacts.duplicates import hash_file
from mlflow_compliance.store.storage import files
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.safe_io import raise_it
from mlflow_compliance.store.storage.shared_copies import add_shared
from mlflow_compliance.store.storage.storages import is_remote
from mlflow_compliance.store.storage.transfer import copy_folder
from mlflow_compliance.store.store import Store


def copy_artifacts(store: Store, run_id: str, places: Iterable[tuple[str, str]], names: Mapping[str, str]) -> None:
    """Copy what lies at locations to others; `names` leads from the ids of a run and its models to those of their
    copies.
    """
    for old_uri, new_uri in places:
        if is_remote(old_uri) or is_remote(new_uri):
            copy_folder(store.places, old_uri, new_uri, partial(_renamed, names={**names, old_uri: new_uri}))
            continue
        old, target = (local_folder(uri, store.backend.home) for uri in (old_uri, new_uri))
        if old is None or target is None:
            raise ChangeError(
                f"the artifacts of run {run_id} at {old_uri} are not in a local folder: copy it with MLflow itself"
            )
        if os.path.isdir(old):
            _copy_local(store, old, target, {**names, old_uri: new_uri})


def _copy_local(store: Store, old: str, target: str, names: Mapping[str, str]) -> None:
    rules: DuplicateRules = store.settings.duplicate_rules()
    count = size = 0
    for folder, folders, filenames in os.walk(old, onerror=raise_it):
        for name in (*folders, *filenames):
            mode = os.lstat(os.path.join(folder, name)).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise ChangeError(
                    f"{os.path.join(folder, name)} is a link or a device, which a copy would lose: put the file "
                    "itself there"
                )
        here = os.path.normpath(os.path.join(target, os.path.relpath(folder, old)))
        os.makedirs(here, exist_ok=True)
        for filename in filenames:
            path, new = os.path.join(folder, filename), os.path.join(here, filename)
            length = os.path.getsize(path)
            if filename == MLMODEL:
                with open(path, "rb") as file:
                    files.write_new(new, _renamed(file.read(), names))
            elif rules.apply_to(path, length):
                digest = hash_file(path)
                add_shared(store.folder, digest, path, new)
                files.place_shared(path, new, digest)
            else:
                files.place(path, new)
            count, size = count + 1, size + length
    if sum(len(filenames) for _, _, filenames in os.walk(target)) != count:
        raise ChangeError(
            f"of {count} files ({size} bytes) in {old} not all arrived in {target}: the copy was taken back"
        )


def _renamed(content: bytes, names: Mapping[str, str]) -> bytes:
    """An MLmodel with the ids and the location of the copy: it embeds those of its run and model."""
    return renamed(content.decode(errors="surrogateescape"), names).encode(errors="surrogateescape")
