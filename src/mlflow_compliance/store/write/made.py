"""The files of a run that a repair makes, as one digest: told before it is made, compared before it is taken back."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from mlflow_compliance.changes.copies import renamed
from mlflow_compliance.changes.made import hash_of
from mlflow_compliance.snapshot.files import METADATA, MLMODEL
from mlflow_compliance.store.storage.atomic_write import TEMPORARY
from mlflow_compliance.store.storage.base import ObjectInfo
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.pointer_files import pointed
from mlflow_compliance.store.storage.storages import is_remote, remote_path
from mlflow_compliance.store.store import Store

FILES = "artifacts"
"""The part that is compared in folders and object stores."""


def files_of(store: Store, places: Iterable[tuple[str, str]], names: Mapping[str, str]) -> str:
    """A digest of the files at some locations, each given with the one that stands for it; `names` leads from ids to
    those that stand for them. Their contents count by size and time.

    Of objects the size counts, and of an MLmodel there its name: it holds the ids.
    """
    in_order = sorted(places, key=lambda place: place[1])
    return hash_of([_listed(store, uri, {**names, uri: former}) for uri, former in in_order])


def _listed(store: Store, uri: str, names: Mapping[str, str]) -> list[tuple[object, ...]]:
    if is_remote(uri):
        folder = remote_path(uri)
        return sorted(
            (name, 0 if os.path.basename(name) in (MLMODEL, METADATA) else item.size)
            for item in objects_in(store, folder)
            if (name := item.path[len(folder) + 1 :]) and not name.endswith("/")
        )
    folder = local_folder(uri, store.backend.home) or ""
    return sorted(
        (os.path.relpath(path, folder), *_content(path, names))
        for here, _, filenames in os.walk(folder, onerror=_raise_unless_gone)
        for filename in filenames
        if not filename.startswith(TEMPORARY)
        for path in [os.path.join(here, filename)]
    )


def objects_in(store: Store, folder: str) -> list[ObjectInfo]:
    """The objects in a folder of an object store, without the pointers beside them, which are no artifacts."""
    found = list(store.places.of(folder).listed(folder))
    _, bookkeeping = pointed(found)
    return [item for item in found if item.path not in bookkeeping]


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _content(path: str, names: Mapping[str, str]) -> tuple[object, ...]:
    if os.path.basename(path) == MLMODEL:
        with open(path, "rb") as file:
            return (hash_of(renamed(file.read().decode(errors="surrogateescape"), names)),)
    facts = os.lstat(path)
    return facts.st_size, facts.st_mtime_ns
