"""The inventory of remote roots: each object put to its row by the same claims as files, from the listing alone."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fnmatch import translate
from typing import Any

from mlflow_compliance.progress import Progress
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import is_elsewhere
from mlflow_compliance.snapshot.files import MLMODEL, ArtifactFile, ArtifactRoot, ModelFolder
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.store.artifacts.local import SKIPPED, Where
from mlflow_compliance.store.artifacts.remote_roots import RemoteTree
from mlflow_compliance.store.models.mlmodel import LARGEST, Description, describe, judge
from mlflow_compliance.store.ownership import orphans
from mlflow_compliance.store.ownership.rows import Ownership, read_ownership
from mlflow_compliance.store.storage.base import LockedOutError, RemoteError
from mlflow_compliance.store.storage.pointer_files import pointed, read_pointers
from mlflow_compliance.store.storage.storages import Storages
from mlflow_compliance.store.storage.transfer import RETRACTED

STAYS = (
    "nothing in an object store is moved or deleted by this program: see whose it is, and let a lifecycle rule "
    "of the bucket take it"
)
_AT_ONCE = 8


def with_remote(
    found: Artifacts,
    locations: Sequence[Location],
    *,
    places: Storages,
    roots: Sequence[str],
    ignore: Sequence[str],
    ready_models: Collection[str],
    progress: Progress,
) -> Artifacts:
    """The artifacts in folders with those in object stores; `locations` are the remote rows, deleted ones too."""
    ground = RemoteTree(places)
    ground.list_roots(locations, roots, progress)
    ownership = read_ownership(locations, {}, roots, ready_models, ground)
    sorting = _Sorting(ownership, ground, ignore, first_key=len(found.roots))
    sorting.run()
    remote = tuple(ArtifactRoot(key, root, -2 - int(key)) for root, key in sorting.keys.items())
    pointers, illegible = read_pointers(
        places, {path: at for path, at in sorting.pointers.items() if path in sorting.files}
    )
    gone = {f"{root}/": reason for root, reason in ground.failed.items() if root in map(_plain, roots)}
    return replace(
        found,
        roots=(*found.roots, *remote),
        files={**found.files, **sorting.files},
        locations={**found.locations, **ownership.locations},
        ownerless={**found.ownerless, **sorting.ownerless()},
        unknown={**found.unknown, **ownership.unknown},
        unreachable=(*found.unreachable, *ownership.unreachable()),
        models={**found.models, **_read_models(sorting, ground, progress)},
        newest={**found.newest, **sorting.newest},
        unread={**found.unread, **sorting.unread, **gone, **illegible},
        pointers=pointers,
    )


def _plain(root: str) -> str:
    return root.rstrip("/")


class _Sorting:
    def __init__(self, ownership: Ownership, ground: RemoteTree, ignore: Sequence[str], *, first_key: int) -> None:
        self.files: dict[str, ArtifactFile] = {}
        self.models: dict[str, EntityRef | None] = {}
        self.newest: dict[tuple[str, str], int] = {}
        self.unread: dict[str, str] = {}
        self.pointers: dict[str, str] = {}
        self.keys = {root: str(first_key + index) for index, root in enumerate(sorted(ownership.roots))}
        self._holdings = ownership
        self._ground = ground
        self._strays = orphans.Orphans()
        self._ignored = re.compile("|".join(map(translate, ignore)) or r"(?!)")
        self._known: dict[str, Where | None] = {root: self._root(root) for root in ownership.roots}

    def run(self) -> None:
        """Put every object to its row."""
        # Of what a repair took back nothing is told any more, though nothing was deleted.
        aside = {os.path.dirname(path) for path in self._ground.objects if os.path.basename(path) == RETRACTED}
        for folder in aside:
            self._known[folder] = None
        self.pointers, bookkeeping = pointed(self._ground.objects.values())
        for path, item in self._ground.objects.items():
            if path in bookkeeping:
                continue
            where = self._entry(path, self._where(os.path.dirname(path)))
            if where is None:
                continue
            # Every object is a physical copy of its own. The storage's checksum is part of the name: a replaced object
            # is another copy.
            self.files[path] = ArtifactFile(item.size, f"{item.etag} {path}", where.owner, where.logged)
            if where.owner:
                key = where.owner.place
                self.newest[key] = max(self.newest.get(key, 0), item.modified)
            if os.path.basename(path) == MLMODEL:
                self.models[os.path.dirname(path)] = where.owner
            if where.stray:
                self._strays.add(where.stray, path, item.size)
        for path, reason in self._ground.odd.items():
            if self._where(os.path.dirname(path.rstrip("/"))) is not None:
                self.unread[path] = reason

    def ownerless(self) -> dict[str, Any]:
        return {item.path: item._replace(keep=STAYS) for item in self._strays.entries(self._holdings.roots, self.keys)}

    def _root(self, root: str) -> Where:
        return self._claimed(root, root) if root in self._holdings.claims else Where(root)

    def _where(self, folder: str) -> Where | None:
        """None for a folder that is not looked at. Without recursion: a key may have five hundred parts."""
        waiting = []
        while folder not in self._known and folder:
            waiting.append(folder)
            folder = os.path.dirname(folder)
        where = self._known.get(folder)
        for below in reversed(waiting):
            where = self._known[below] = self._entry(below, where)
        return where

    def _entry(self, path: str, above: Where | None) -> Where | None:
        """A folder or object in a folder."""
        ownership = self._holdings
        if path in ownership.claims:
            root = path if path in ownership.roots else above.root if above else ""
            return self._claimed(path, root) if root else None
        if above is None:
            return None
        root, name = above.root, os.path.basename(path)
        if os.path.dirname(path) == root and name in SKIPPED:
            return None
        if above.owner:
            return above._replace(logged=True) if path == above.artifacts else above
        if not above.stray:
            if path in ownership.containers:
                return above
            experiment = ownership.experiments.get(os.path.dirname(path))
            if experiment and name == "traces":
                return Where(root, experiment)
        if self._ignored.match(path, len(root) + 1):
            if above.stray:
                self._strays.protect(above.stray, path)
            return None
        if above.stray:
            return above
        if not ownership.roots[root] and not orphans.IDENTIFIER.fullmatch(name):
            return None
        self._strays.open(path, root)
        return Where(root, stray=path)

    def _claimed(self, path: str, root: str) -> Where:
        claim = self._holdings.claims[path]
        return Where(root, claim.owner, claim.artifacts, path == claim.artifacts)


def _read_models(sorting: _Sorting, ground: RemoteTree, progress: Progress) -> dict[str, ModelFolder]:
    """Every model folder as its MLmodel describes it: one request each, some at once."""
    folders = {
        folder: owner
        for folder, owner in sorting.models.items()
        if not is_elsewhere(owner)
        and (os.path.basename(folder) != "metadata" or os.path.dirname(folder) not in sorting.models)
    }

    def read(folder: str) -> bytes | RemoteError:
        try:
            path = f"{folder}/{MLMODEL}"
            return ground.places.of(path).read(path, LARGEST)
        except LockedOutError:
            raise
        except RemoteError as error:
            return error

    progress.start("Reading MLmodel files", len(folders))
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            texts = dict(zip(folders, pool.map(read, folders), strict=True))
    finally:
        progress.stop()
    return {
        folder: judge(folder, owner, _described(texts[folder]), _sizes(folder, ground, sorting.files))
        for folder, owner in folders.items()
    }


def _described(text: bytes | RemoteError) -> Description:
    return Description(error=f"MLmodel cannot be read: {text}") if isinstance(text, RemoteError) else describe(text)


def _sizes(folder: str, ground: RemoteTree, files: Mapping[str, ArtifactFile]) -> Callable[[str], int | None]:
    def size_of(name: str) -> int | None:
        for spelling in (name, name.replace("\\", "/")):
            relative = posixpath.normpath(spelling)
            if relative.startswith(("/", "..")) or relative == ".":
                continue
            path = f"{folder}/{relative}"
            if path in files:
                return files[path].size
            if path in ground.folders:
                return int(any(other.startswith(path + "/") for other in files))
        return None

    return size_of
