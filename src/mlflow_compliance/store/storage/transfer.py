"""Copies what a row's folder holds within object stores: by the storage itself where it can; both sides counted
before it counts. And fetches to this machine what must be looked into.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import MLMODEL, QUARANTINE, ArtifactFile
from mlflow_compliance.store.storage.base import ObjectInfo, Place, RemoteError
from mlflow_compliance.store.storage.checksums import KIND, digest_of_object
from mlflow_compliance.store.storage.pointer_files import pointed
from mlflow_compliance.store.storage.storages import Storages, is_remote, put, remote_path

RETRACTED = ".compliance-retracted"
"""The object that a repair writes beside `artifacts` when it takes a run or model back: what lies there is a copy,
and told no more.
"""
_AT_ONCE = 8


def copy_folder(places: Storages, old_uri: str, new_uri: str, renamed: Callable[[bytes], bytes]) -> None:
    """Copy every object below a location to below another one; MLmodel as `renamed` gives it."""
    if not (is_remote(old_uri) and is_remote(new_uri)):
        raise ChangeError(f"{old_uri} and {new_uri} are not places of one kind: copy the run with MLflow itself")
    old, new = remote_path(old_uri), remote_path(new_uri)
    try:
        target = places.of(new)
        sources = _listing(places.of(old), old)
        if type(places.of(old)) is not type(target):
            raise ChangeError(f"{old} and {new} are not places of one kind: copy the run with MLflow itself")

        def copy(name: str) -> None:
            item, path = sources[name], f"{new}/{name}"
            if os.path.basename(name) == MLMODEL:
                text = b"".join(places.of(old).chunks(item.path, item.etag))
                put(places, path, renamed(text))
            else:
                target.copy(item, path)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(copy, sources))
        _compare(places, sources, _listing(target, new) if sources else {}, old, new)
    except RemoteError as error:
        raise ChangeError(f"{error}; the copy was taken back") from error


def upload(places: Storages, source: str, path: str) -> None:
    """Write a local file to where nothing is yet, and read it back."""
    try:
        places.of(path).upload(source, path)
        arrived = digest_of_object(path, os.path.getsize(source), "", places)
    except RemoteError as error:
        raise ChangeError(str(error)) from error
    if arrived != local_digest(source):
        raise ChangeError(f"{path} does not hold what was written to it: look at the storage")


def put_aside(places: Storages, folder: str, journal: str) -> None:
    """Mark a row's folder as taken back, where it is not yet. Its objects stay where they are: nothing is deleted."""
    try:
        if any(item.path == f"{folder}/{RETRACTED}" for item in places.of(folder).listed(folder)):
            return
        put(places, f"{folder}/{RETRACTED}", f"a copy that the repair {journal} made and took back\n".encode())
    except RemoteError as error:
        raise ChangeError(str(error)) from error


def _listing(place: Place, folder: str) -> Mapping[str, ObjectInfo]:
    found = {item.path[len(folder) + 1 :]: item for item in place.listed(folder)}
    led, bookkeeping = pointed(found.values())
    gone = next((path for path in led if path[len(folder) + 1 :] not in found), None)
    if gone:
        raise RemoteError(
            f"{gone} was removed and only a pointer is left of it: put it back from where resolve_artifact leads"
        )
    found = {name: item for name, item in found.items() if item.path not in bookkeeping}
    return {
        name: item
        for name, item in found.items()
        if not (name.endswith("/") and not item.size) and QUARANTINE not in name.split("/")[:1]
    }


def _compare(
    places: Storages, sources: Mapping[str, ObjectInfo], copies: Mapping[str, ObjectInfo], old: str, new: str
) -> None:
    """By names, sizes and the listing's checksums; where those cannot be compared (uploads in parts), by content."""
    if sources.keys() != copies.keys():
        raise RemoteError(f"of {len(sources)} objects in {old} not all arrived in {new}")
    for name, item in sources.items():
        copy = copies[name]
        if os.path.basename(name) == MLMODEL or (item.size == copy.size and item.etag and item.etag == copy.etag):
            continue
        if item.size != copy.size or digest_of_object(item.path, item.size, "", places) != digest_of_object(
            copy.path, copy.size, "", places
        ):
            raise RemoteError(f"{copy.path} does not hold what {item.path} does")


_LONGEST = 255


class Fetcher:
    """Gives paths of this machine for paths of a Snapshot. `folder` makes a new, empty folder."""

    def __init__(self, places: Storages, folder: Callable[[], str]) -> None:
        self._places = places
        self._folder = folder
        self._fetched: dict[tuple[tuple[str, str], ...], str] = {}
        self._objects: dict[tuple[str, str], str] = {}

    def __call__(self, path: str, artifacts: Artifacts | None) -> str:
        """A file or folder as it can be opened here: itself, or a copy that holds what was listed. Raises
        RemoteError.
        """
        if not is_remote(path) or artifacts is None:
            return path
        alone = path in artifacts.files
        files = {path: artifacts.files[path]} if alone else artifacts.under(path)
        start = len(os.path.dirname(path) if alone else path) + 1
        # `copy` holds the checksum of the listing; of a place that gives none, what was fetched is kept for the
        # session.
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
