"""What a run that a repair makes will hold, as a digest for each part: told before it is made, compared before it is
taken back.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence

from mlflow_compliance.changes.copies import renamed
from mlflow_compliance.snapshot.entities import LoggedModel, Run
from mlflow_compliance.snapshot.files import METADATA, MLMODEL
from mlflow_compliance.snapshot.tags import (
    BUILT_IN,
    COPIED_AT,
    COPIED_BY,
    COPY_STATE,
    METADATA_HASH,
    PARENT,
    SOURCE_MODEL,
)
from mlflow_compliance.store.artifacts.duplicates import hash_file
from mlflow_compliance.store.storage.atomic_write import TEMPORARY
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.storages import is_remote, remote_path
from mlflow_compliance.store.store import Store
from mlflow_compliance.store.write.copy_artifacts import raise_it

_LATER = frozenset({COPIED_BY, COPIED_AT, COPY_STATE, BUILT_IN, METADATA_HASH, SOURCE_MODEL})
"""Tags whose values are known only once a run is there."""
FILES = "artifacts"
"""The part that is compared in folders and object stores."""


def rows_of(run: Run, models: Sequence[LoggedModel], ids: Mapping[str, str]) -> dict[str, str]:
    """A digest of each part of a run's rows; `ids` leads from the ids of its models to those that stand for them."""
    own = sorted(models, key=lambda model: ids.get(model.model_id, model.model_id))
    parts: dict[str, object] = {
        "status or times": (run.status, run.start_time, run.end_time),
        "name or user": (run.name, run.user),
        "params": sorted(run.params.items()),
        "metrics": sorted((key, tuple(map(tuple, points))) for key, points in run.metrics.items()),
        # The copy of a child names that of its parent, which is known later.
        "tags": sorted((key, value) for key, value in run.tags.items() if key not in _LATER | {PARENT}),
        "datasets": sorted(repr(tuple(item)) for item in run.datasets),
        "models read or written": sorted(
            (link.direction, ids.get(link.model_id, link.model_id), link.step) for link in run.models
        ),
        "logged models": [
            (
                ids.get(model.model_id, model.model_id),
                model.name,
                model.model_type,
                sorted(model.params.items()),
                sorted((key, value) for key, value in model.tags.items() if key not in _LATER),
                sorted(repr(tuple(metric)) for metric in model.metrics),
            )
            for model in own
        ],
    }
    return {name: hash_of(value) for name, value in parts.items()}


def files_of(store: Store, places: Iterable[tuple[str, str]], names: Mapping[str, str], *, read: bool = False) -> str:
    """A digest of the files at some locations, each given with the one that stands for it; `names` leads from ids to
    those that stand for them. Their contents count by size and time, where they are `read` by their hash.

    Of objects the size counts, and of an MLmodel there its name: it holds the ids.
    """
    in_order = sorted(places, key=lambda place: place[1])
    return hash_of([_listed(store, uri, {**names, uri: former}, read=read) for uri, former in in_order])


def hash_of(value: object) -> str:
    return hashlib.sha256(repr(value).encode(errors="surrogateescape")).hexdigest()[:32]


def _listed(store: Store, uri: str, names: Mapping[str, str], *, read: bool) -> list[tuple[object, ...]]:
    if is_remote(uri):
        folder = remote_path(uri)
        return sorted(
            (name, 0 if os.path.basename(name) in (MLMODEL, METADATA) else item.size)
            for item in store.places.of(folder).listed(folder)
            if (name := item.path[len(folder) + 1 :]) and not name.endswith("/")
        )
    folder = local_folder(uri, store.backend.home) or ""
    return sorted(
        (os.path.relpath(path, folder), *_content(path, names, read=read))
        for here, _, filenames in os.walk(folder, onerror=_raise_unless_gone)
        for filename in filenames
        if not filename.startswith(TEMPORARY)
        for path in [os.path.join(here, filename)]
    )


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise_it(error)


def _content(path: str, names: Mapping[str, str], *, read: bool) -> tuple[object, ...]:
    if os.path.basename(path) == MLMODEL:
        with open(path, "rb") as file:
            return (hash_of(renamed(file.read().decode(errors="surrogateescape"), names)),)
    if read:
        return () if os.path.basename(path) == METADATA else (hash_file(path),)
    facts = os.lstat(path)
    return facts.st_size, facts.st_mtime_ns
