"""Reads the bundle beside a model folder, from a folder, a bucket or a server."""

from __future__ import annotations

import os

from mlflow_compliance.production.signature import LARGEST
from mlflow_compliance.snapshot.files import in_folder, parent
from mlflow_compliance.store.storage.base import RemoteError
from mlflow_compliance.store.storage.safe_io import opened, why_unread
from mlflow_compliance.store.storage.storages import Storages


def read_bundle(path: str, places: Storages) -> bytes | None:
    """What lies there, None where nothing does. Raises RemoteError where that cannot be told."""
    if not in_folder(path):
        place = places.of(path)
        there = any(item.path == path for item in place.listed(parent(path)))
        return place.read(path, LARGEST) if there else None
    try:
        with opened(path) as file:
            return os.pread(file, LARGEST + 1, 0)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RemoteError(f"the bundle {path} cannot be read: {why_unread(error)}") from error
