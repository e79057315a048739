"""Moves files and folders into the quarantine and back, within one file system, and lists what they hold."""

from __future__ import annotations

import os
import stat
from typing import Any

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.files import QUARANTINE
from mlflow_compliance.store.storage.atomic_write import TEMPORARY, explained
from mlflow_compliance.store.storage.safe_io import digest_of, opened, raise_it


def quarantine(path: str, target: str) -> None:
    """Move a file or folder within its file system; folders on the way to `target` are made, nothing is ever
    replaced.
    """
    _move(path, target)


def restore(target: str, path: str) -> None:
    """The inverse of `quarantine`; folders of the quarantine that are empty now are removed."""
    _move(target, path)
    _prune(target)


def manifest_of(path: str) -> list[dict[str, Any]]:
    """Each file at or below a path: `path` relative to it ('.' for a file itself), `size`, `sha256`, `mtime_ns`."""
    with explained(path, "could not be read"):
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return [_line(path, os.curdir)]
        found = []
        for folder, _, names in os.walk(path, onerror=raise_it):
            for name in names:
                if not name.startswith(TEMPORARY):
                    file = os.path.join(folder, name)
                    found.append(_line(file, os.path.relpath(file, path)))
        return sorted(found, key=lambda line: str(line["path"]))


def _line(path: str, relative: str) -> dict[str, Any]:
    with opened(path) as file:
        facts = os.fstat(file)
        return {"path": relative, "size": facts.st_size, "sha256": digest_of(file, path), "mtime_ns": facts.st_mtime_ns}


def _move(source: str, target: str) -> None:
    with explained(source, f"could not be moved to {target}"):
        os.lstat(source)
        if os.path.lexists(target):
            raise ChangeError(f"{source} was not moved: {target} is there already, so look at both by hand")
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(source, target)
        except OSError:
            _prune(target)
            raise


def _prune(target: str) -> None:
    folder = os.path.dirname(target)
    while QUARANTINE in folder.split(os.sep):
        try:
            os.rmdir(folder)
        except OSError:
            return  # not empty, or never made
        folder = os.path.dirname(folder)
