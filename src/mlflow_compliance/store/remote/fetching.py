"""Local copies of single remote files and model folders, for what must look inside: fetched once a session while they stay the same."""

from __future__ import annotations

import os
from collections.abc import Callable

from mlflow_compliance.artifacts import ArtifactFile, Artifacts
from mlflow_compliance.store.remote.base import RemoteError
from mlflow_compliance.store.remote.hashing import KIND
from mlflow_compliance.store.remote.places import Places, is_remote

_LONGEST = 255


class Fetcher:
    """Gives paths of this machine for paths of a Snapshot. `folder` makes a new, empty folder."""

    def __init__(self, places: Places, folder: Callable[[], str]) -> None:
        self._places = places
        self._folder = folder
        self._fetched: dict[tuple[tuple[str, str], ...], str] = {}
        self._objects: dict[tuple[str, str], str] = {}

    def __call__(self, path: str, artifacts: Artifacts | None) -> str:
        """A file or folder as it can be opened here: itself, or a copy that holds what was listed. Raises RemoteError."""
        if not is_remote(path) or artifacts is None:
            return path
        alone = path in artifacts.files
        files = {path: artifacts.files[path]} if alone else artifacts.under(path)
        start = len(os.path.dirname(path) if alone else path) + 1
        # `copy` holds the checksum of the listing; of a place that gives none, what was fetched is kept for the session.
        key = tuple(sorted((name, file.copy) for name, file in files.items()))
        if key not in self._fetched:
            target = self._folder()
            for name, file in files.items():
                self._fetch(name, file, _inside(target, name, start), artifacts.hashes.get(name))
            self._fetched[key] = _inside(target, path, start) if alone else target
        return self._fetched[key]

    def _fetch(self, path: str, file: ArtifactFile, target: str, known: str | None) -> None:
        etag, count = file.copy.partition(" ")[0], 0
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if (path, file.copy) in self._objects:
                os.link(self._objects[path, file.copy], target)
                return
            with open(target, "xb") as copy:
                for chunk in self._places.of(path).chunks(path, etag):
                    copy.write(chunk)
                    count += len(chunk)
        except OSError as error:
            raise RemoteError(f"{path} cannot be copied to a temporary folder: {error.strerror}") from error
        if count != file.size or (known is not None and known != local_digest(target)):
            raise RemoteError(f"{path} is not what was listed any more: run again")
        self._objects[path, file.copy] = target


def local_digest(path: str) -> str:
    """The digest of a local file, in the kind that remote ones have."""
    import hashlib

    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return KIND + digest.hexdigest()


def _inside(target: str, path: str, start: int) -> str:
    """Where an object goes below a folder. A name that could lead elsewhere, or that no file can have, is refused."""
    parts = path[start:].split("/")
    if any(part in ("", os.curdir, os.pardir) or "\0" in part or len(os.fsencode(part)) > _LONGEST for part in parts):
        raise RemoteError(f"{path} has a name that no file can have, so it is not looked into")
    return os.path.join(target, *parts)
