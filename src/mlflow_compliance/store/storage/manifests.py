"""Manifests of the quarantine: what was moved, from where, with the hash of every file."""

from __future__ import annotations

import json
import os

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.files import QUARANTINE
from mlflow_compliance.store.storage import files
from mlflow_compliance.store.storage.recorded_hashes import append_lines

NAME = "manifest.jsonl"


def write_manifest(path: str, target: str, root: str) -> None:
    """Write down what is about to be moved from `path` to `target`, on disk before anything moves."""
    folder = os.path.join(root, QUARANTINE, os.path.relpath(target, os.path.join(root, QUARANTINE)).split(os.sep)[0])
    try:
        entry = {"from": path, "to": target, "files": files.manifest_of(path)}
        append_lines(os.path.join(folder, NAME), [json.dumps(entry)])
    except OSError as error:
        raise ChangeError(
            f"the manifest in {folder} could not be written: {error.strerror}; nothing was moved"
        ) from error
