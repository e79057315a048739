"""What lies where things say that their artifacts are, as `mlflow gc` finds it, and the bytes that removal frees."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from mlflow_compliance.snapshot.doomed import Doomed, DoomedFile, DoomedFolder
from mlflow_compliance.snapshot.files import QUARANTINE, upwards
from mlflow_compliance.snapshot.tags import COPIED_BY, COPY_STATE, RETRACTED
from mlflow_compliance.store.artifacts.quarantined import RETRACTED as ASIDE
from mlflow_compliance.store.storage.base import RemoteError
from mlflow_compliance.store.storage.locations import Resolved, Resolver, scheme_of
from mlflow_compliance.store.storage.s3_deletions import deleted_objects

Place = tuple[str, str]


class _Inode(NamedTuple):
    device: int
    number: int


def folders_of(things: Iterable[Doomed], home: str | None) -> dict[Place, DoomedFolder]:
    """(kind, key) of runs and models -> what lies in its place. A path, and bytes that several names share, count for
    the first thing alone; they are freed where every name goes. `home` is what relative locations start from.
    """
    resolve = Resolver({}, home)  # gc knows nothing of [store.relocate]
    found: dict[Place, DoomedFolder] = {}
    names: dict[_Inode, int] = defaultdict(int)
    facts: dict[str, tuple[_Inode, int, int]] = {}
    taken = set[str]()
    # What goes comes first: of what stays on disk nothing is freed.
    for item in sorted(things, key=lambda item: (not item.files_go, item.ref.place)):
        if not item.uri or item.ref.kind == "experiment":
            continue
        folder = _remote(item) if scheme_of(item.uri) == "s3" else _local(resolve(item.uri), facts)
        fresh = {path: file for path, file in folder.files.items() if path not in taken}
        taken |= fresh.keys()
        found[item.ref.place] = folder._replace(files=fresh)
        if item.files_go:
            for path in fresh.keys() & facts.keys():
                names[facts[path][0]] += 1
    return _freed(found, facts, names, things)


def put_aside(things: Iterable[Doomed], home: str | None) -> list[Doomed]:
    """The same, with the places in the quarantine that the files of copies have since a repair took those back."""
    resolve, ordered = Resolver({}, home), list(things)
    by = {
        item.ref.key: item.tags.get(COPIED_BY, "")
        for item in ordered
        if item.ref.kind == "run" and item.tags.get(COPY_STATE) == RETRACTED
    }
    return [
        replace(item, uri=_aside(resolve(item.uri).path, journal) or item.uri)
        if (journal := by.get(item.ref.key) or by.get(item.run_id))
        else item
        for item in ordered
    ]


def _aside(place: str, journal: str) -> str:
    """Where the folder that holds a copy's artifacts was moved to; empty where it was not."""
    own = os.path.dirname(place)
    if not place or os.path.lexists(place):
        return ""
    for above in upwards(os.path.dirname(own)):
        moved = os.path.join(above, QUARANTINE, f"{journal}{ASIDE}", os.path.relpath(own, above))
        if os.path.lexists(moved):
            return moved
    return ""


def _freed(
    found: Mapping[Place, DoomedFolder],
    facts: Mapping[str, tuple[_Inode, int, int]],
    names: Mapping[_Inode, int],
    things: Iterable[Doomed],
) -> dict[Place, DoomedFolder]:
    """The same with what removal frees, where hard links are looked at."""
    going = {item.ref.place for item in things if item.files_go}
    counted = set[_Inode]()

    def freed(path: str, file: DoomedFile) -> DoomedFile:
        if path not in facts:
            return file
        inode, size, links = facts[path]
        first, last = inode not in counted, names[inode] == links
        counted.add(inode)
        return DoomedFile(size, size if first and last else 0)

    return {
        place: folder._replace(files={path: freed(path, file) for path, file in folder.files.items()})
        if place in going
        else folder
        for place, folder in found.items()
    }


def _remote(item: Doomed) -> DoomedFolder:
    try:
        files = deleted_objects(item.uri)
    except RemoteError as error:
        return DoomedFolder(item.uri, {}, str(error))
    return DoomedFolder(
        item.uri, {path: DoomedFile(size, size if item.files_go else 0) for path, size in sorted(files.items())}
    )


def _local(here: Resolved, facts: dict[str, tuple[_Inode, int, int]]) -> DoomedFolder:
    path = here.path
    if not path:
        return DoomedFolder("", {}, here.reason)
    files: dict[str, DoomedFile] = {}
    problem = ""
    try:
        for name, found in _walk(path):
            size = 0 if stat.S_ISLNK(found.st_mode) else found.st_size
            files[name] = DoomedFile(size, 0)
            facts[name] = (_Inode(found.st_dev, found.st_ino), size, found.st_nlink)
    except OSError as error:
        problem = f"{error.filename or path} cannot be looked at: {error.strerror}"
    return DoomedFolder(path, files, problem)


def _walk(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything at and below a path that is no folder; links are not followed. Nothing where nothing is."""
    try:
        found = os.lstat(top)
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISDIR(found.st_mode):
        yield top, found
        return
    waiting = [top]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry.path, os.lstat(entry.path)
