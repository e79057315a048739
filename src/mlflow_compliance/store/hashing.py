"""The duplicate search: by size, then by a sample, then by whole content, each stage only on what is left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from operator import itemgetter
from typing import TypeVar

from mlflow_compliance.artifacts import Artifacts
from mlflow_compliance.executors import THREADS, executor_of, run
from mlflow_compliance.progress import Progress
from mlflow_compliance.store.comparing import Copy, Told, contents, samples
from mlflow_compliance.store.content import digest_of, opened
from mlflow_compliance.store.extents import has_clones, shared_extents
from mlflow_compliance.store.hash_cache import HashCache
from mlflow_compliance.store.staging import explained
from mlflow_compliance.store.twins import find_twins
from mlflow_compliance.store.visit_child import SMALL

_BATCH_FILES, _BATCH_BYTES = 64, 1 << 24
_PART_FILES, _PART_BYTES = 64, 1 << 32
_SAMPLES = 512
_SIZE = itemgetter(1)  # of a Copy

_T = TypeVar("_T")


def hash_candidates(artifacts: Artifacts, progress: Progress, executor: Executor | None = None, cache: HashCache | None = None) -> Artifacts:
    """As this, with hashes for all that may be a duplicate or is on record, and with clones told as one physical copy.

    `cache` spares reading what did not change since; what is on record is read all the same.
    """
    files = artifacts.files
    candidates = _candidates(artifacts)
    recorded = {files[path].copy: Copy(path, files[path].size) for path in artifacts.recorded if path in files}
    unread: dict[str, str] = {}
    # An executor that the caller made stays the caller's.
    using: AbstractContextManager[Executor] = nullcontext(executor) if executor else executor_of(THREADS)
    with using as pool:
        alike = [copy for group in _groups(candidates, map(_SIZE, candidates)) for copy in group]
        known = cache.look_up(copy for copy in alike if files[copy.path].copy not in recorded) if cache is not None else {}
        tokens = {path: entry.token for path, entry in known.items()}
        tokens.update((path, token) for path, token in artifacts.samples.items() if path not in tokens)
        for batch, found in _sampled(pool, [copy for copy in alike if copy.path not in tokens], unread, progress):
            tokens.update((copy.path, token) for copy, token in zip(batch, found, strict=True) if token)
        digests: dict[str, str] = {}
        wanted: list[list[Copy]] = []
        told = [copy for copy in alike if copy.path in tokens]
        for group in _groups(told, zip(map(_SIZE, told), [tokens[copy.path] for copy in told], strict=True)):
            if group[0].size <= SMALL:
                digests.update((copy.path, tokens[copy.path]) for copy in group)
                continue
            digests.update((copy.path, known[copy.path].digest) for copy in group if copy.path in known and known[copy.path].digest)
            wanted += _parts([copy for copy in group if copy.path not in digests])
        reading = {files[copy.path].copy for group in wanted for copy in group} | {files[path].copy for path in digests}
        wanted += [[copy] for own, copy in recorded.items() if own not in reading]
        digests.update(_compared(pool, wanted, unread, progress))
    if cache is not None and (wanted or len(known) < len(alike) or len(known) != len(cache)):
        cache.keep((copy, tokens[copy.path], digests.get(copy.path, "")) for copy in alike if copy.path in tokens)
    read = {files[path].copy: digest for path, digest in digests.items()}
    merged = _clones(read, {files[path].copy: path for path in digests})
    hashes = {path: read[file.copy] for path, file in files.items() if file.copy in read}
    return replace(
        artifacts,
        files={path: file._replace(copy=merged[file.copy]) if file.copy in merged else file for path, file in files.items()} if merged else files,
        hashes=hashes,
        twins=find_twins(candidates, hashes),
        unread={**artifacts.unread, **unread},
        stamps={},
        samples={},
    )


def hash_file(path: str) -> str:
    """SHA-256 (hex) of one file that a change is about to copy."""
    with explained(path, "could not be read"), opened(path) as file:
        return digest_of(file, path)


def _candidates(artifacts: Artifacts) -> list[Copy]:
    """One path for each physical copy that was logged and that the rules look at."""
    rules, smallest = artifacts.rules, artifacts.rules.min_size
    # The patterns see the name only: ask once a name, not once a file.
    looked_at: dict[str, bool] = {}
    found: dict[str, Copy] = {}
    new = tuple.__new__
    for path, (size, copy, owner, logged) in artifacts.files.items():
        if logged and owner and size >= smallest and copy not in found:
            name = path[path.rfind("/") + 1 :]
            if name not in looked_at:
                looked_at[name] = rules.apply_to(name, smallest)
            if looked_at[name]:
                found[copy] = new(Copy, (path, size))
    return list(found.values())


def _clones(digests: Mapping[str, str], paths: Mapping[str, str]) -> dict[str, str]:
    """Physical copy -> the one it shares every block with, where the file system says so."""
    devices = {copy.split(":", 1)[0] for copy in digests}
    able = {device for device in devices if not device.isdecimal() or has_clones(int(device))}
    merged: dict[str, str] = {}
    some = sorted(copy for copy in digests if copy.split(":", 1)[0] in able) if able else []
    for group in _groups(some, ((digests[copy], copy.split(":", 1)[0]) for copy in some)):
        first: dict[tuple[tuple[int, int, int], ...], str] = {}
        for copy in group:
            extents = _extents(paths[copy])
            if extents and first.setdefault(extents, copy) != copy:
                merged[copy] = first[extents]
    return merged


def _extents(path: str) -> tuple[tuple[int, int, int], ...]:
    try:
        with opened(path) as file:
            return shared_extents(file)
    except OSError:
        return ()


def _groups(items: Iterable[_T], keys: Iterable[Hashable]) -> list[list[_T]]:
    """Items with an equal key, where there are two of them at least."""
    found: dict[Hashable, list[_T]] = defaultdict(list)
    for item, key in zip(items, keys, strict=True):
        found[key].append(item)
    return [group for group in found.values() if len(group) > 1]


def _sampled(pool: Executor, copies: Sequence[Copy], unread: dict[str, str], progress: Progress) -> Iterator[tuple[Sequence[Copy], list[str]]]:
    batches = [copies[start : start + _SAMPLES] for start in range(0, len(copies), _SAMPLES)]
    progress.start("Comparing samples", len(copies))
    try:
        # Threads that read a few bytes each wait for one another more than for the files.
        told = ((samples(batch), "") for batch in batches) if isinstance(pool, ThreadPoolExecutor) else run(pool, samples, batches)
        for batch, ((tokens, failed), host) in zip(batches, told, strict=True):
            progress.advance(len(batch))
            unread.update((copy.path, _why(failure, host)) for copy, failure in failed.items())
            yield batch, tokens
    finally:
        progress.stop()


def _compared(pool: Executor, groups: Sequence[list[Copy]], unread: dict[str, str], progress: Progress) -> Iterator[tuple[str, str]]:
    progress.start("Comparing contents", sum(map(len, groups)))
    try:
        # The largest first, so that no worker begins with one when the others are done.
        for found, host in run(pool, contents, _batches(sorted(groups, key=_bytes, reverse=True))):
            progress.advance(len(found))
            yield from _good(found, host, unread)
    finally:
        progress.stop()


def _good(found: Iterable[Told], host: str, unread: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(path, value) of those that were read; the others are noted in `unread`."""
    for (path, _), value, failure in found:
        if failure:
            unread[path] = _why(failure, host)
        else:
            yield path, value


def _why(failure: str, host: str) -> str:
    return f"{failure} on {host}" if host else failure


def _parts(group: Sequence[Copy]) -> Iterator[list[Copy]]:
    """A group in parts that are each compared within themselves; their hashes bring them together again."""
    number = max(1, min(_PART_FILES, _PART_BYTES // group[0].size)) if group else 1
    yield from (list(group[start : start + number]) for start in range(0, len(group), number))


def _batches(groups: Iterable[list[Copy]]) -> Iterator[list[list[Copy]]]:
    """Handing one small file to a thread costs more than reading it."""
    batch: list[list[Copy]] = []
    files = held = 0
    for group in groups:
        batch.append(group)
        files += len(group)
        held += _bytes(group)
        if files >= _BATCH_FILES or held >= _BATCH_BYTES:
            yield batch
            batch, files, held = [], 0, 0
    if batch:
        yield batch


def _bytes(group: Sequence[Copy]) -> int:
    return len(group) * group[0].size
