"""The duplicate search: by size, then by the first bytes, then by whole content, each stage only on what is left."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple, TypeVar

from mlflow_compliance.artifacts import Artifacts
from mlflow_compliance.progress import Progress
from mlflow_compliance.store.content import READING, ChangedError, digest_of, opened, why_unread
from mlflow_compliance.store.extents import shared_extents
from mlflow_compliance.store.staging import explained
from mlflow_compliance.store.twins import find_twins

_PREFIX = 4096
_BATCH_FILES, _BATCH_BYTES = 64, 1 << 24
_WORKERS = min(8, (os.cpu_count() or 1) + 1)  # one more than there are cores: some wait for the disk

_T = TypeVar("_T")


class _Copy(NamedTuple):
    """One physical copy, by one of its paths."""

    path: str
    size: int


class _Read(NamedTuple):
    """What reading a copy gave, or why it failed."""

    copy: _Copy
    digest: str
    failure: str


def hash_candidates(artifacts: Artifacts, progress: Progress) -> Artifacts:
    """As this, with hashes for all that may be a duplicate or is on record, and with clones told as one physical copy."""
    files = artifacts.files
    candidates = _candidates(artifacts)
    sizes = _groups(candidates, lambda copy: copy.size)
    wanted = {files[path].copy: _Copy(path, files[path].size) for path in artifacts.recorded if path in files}
    unread: dict[str, str] = {}
    with ThreadPoolExecutor(_WORKERS) as pool:
        beginnings = _read(pool, _beginning, [copy for group in sizes for copy in group], "Comparing beginnings", progress)
        for group in _groups(_good(beginnings, unread), lambda read: (read.copy.size, read.digest)):
            wanted.update((files[read.copy.path].copy, read.copy) for read in group)
        contents = _read(pool, _content, list(wanted.values()), "Comparing contents", progress)
        digests = {files[read.copy.path].copy: read.digest for read in _good(contents, unread)}
    hashes = {path: digests[file.copy] for path, file in files.items() if file.copy in digests}
    merged = _clones(digests, wanted)
    return replace(
        artifacts,
        files={path: file._replace(copy=merged[file.copy]) if file.copy in merged else file for path, file in files.items()} if merged else files,
        hashes=hashes,
        twins=find_twins(candidates, hashes),
        unread={**artifacts.unread, **unread},
    )


def hash_file(path: str) -> str:
    """SHA-256 (hex) of one file that a change is about to copy."""
    with explained(path, "could not be read"), opened(path) as file:
        return digest_of(file, path)


def _candidates(artifacts: Artifacts) -> list[_Copy]:
    """One path for each physical copy that was logged and that the rules look at."""
    rules = artifacts.rules
    # The patterns see the name only: ask once a name, not once a file.
    looked_at = lru_cache(maxsize=None)(lambda name: rules.apply_to(name, rules.min_size))
    found: dict[str, _Copy] = {}
    for path, file in artifacts.files.items():
        if file.logged and file.owner and file.size >= rules.min_size and file.copy not in found and looked_at(os.path.basename(path)):
            found[file.copy] = _Copy(path, file.size)
    return list(found.values())


def _clones(digests: Mapping[str, str], wanted: Mapping[str, _Copy]) -> dict[str, str]:
    """Physical copy -> the one it shares every block with, where the file system says so."""
    merged: dict[str, str] = {}
    for group in _groups(sorted(digests), lambda copy: (digests[copy], copy.split(":")[0])):
        first: dict[tuple[tuple[int, int, int], ...], str] = {}
        for copy in group:
            extents = _extents(wanted[copy].path)
            if extents and first.setdefault(extents, copy) != copy:
                merged[copy] = first[extents]
    return merged


def _extents(path: str) -> tuple[tuple[int, int, int], ...]:
    try:
        with opened(path) as file:
            return shared_extents(file)
    except OSError:
        return ()


def _groups(items: Iterable[_T], key: Callable[[_T], Hashable]) -> list[list[_T]]:
    """Items with an equal key, where there are two of them at least."""
    found: dict[Hashable, list[_T]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return [group for group in found.values() if len(group) > 1]


def _read(pool: ThreadPoolExecutor, how: Callable[[_Copy], str], copies: Sequence[_Copy], label: str, progress: Progress) -> Iterator[_Read]:
    def read(batch: list[_Copy]) -> list[_Read]:
        return [_one(copy, how) for copy in batch]

    progress.start(label, len(copies))
    try:
        for found in pool.map(read, _batches(copies)):
            progress.advance(len(found))
            yield from found
    finally:
        progress.stop()


def _good(reads: Iterable[_Read], unread: dict[str, str]) -> Iterator[_Read]:
    """Those that were read; the others are noted in `unread`."""
    for read in reads:
        if read.failure:
            unread[read.copy.path] = read.failure
        else:
            yield read


def _one(copy: _Copy, how: Callable[[_Copy], str]) -> _Read:
    try:
        return _Read(copy, how(copy), "")
    except OSError as error:
        return _Read(copy, "", why_unread(error))


def _batches(copies: Sequence[_Copy]) -> Iterator[list[_Copy]]:
    """Handing one small file to a thread costs more than reading it."""
    batch: list[_Copy] = []
    held = 0
    for copy in copies:
        batch.append(copy)
        held += copy.size
        if len(batch) >= _BATCH_FILES or held >= _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _beginning(copy: _Copy) -> str:
    """Only tells files apart, within this process: what is alike is read as a whole afterwards."""
    # As `opened` does, spelled out: of small files there may be a million.
    file = os.open(copy.path, READING)
    try:
        facts = os.fstat(file)
        if facts.st_size != copy.size or not stat.S_ISREG(facts.st_mode):
            raise ChangedError(copy.path)
        return str(hash(os.read(file, _PREFIX)))
    finally:
        os.close(file)


def _content(copy: _Copy) -> str:
    with opened(copy.path) as file:
        if os.fstat(file).st_size != copy.size:
            raise ChangedError(copy.path)
        return digest_of(file, copy.path)
