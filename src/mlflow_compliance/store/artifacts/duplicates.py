"""The duplicate search: by size, then by a sample, then by whole content, each stage only on what is left."""

from __future__ import annotations

import os
import struct
import zipfile
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from typing import TypeVar

from mlflow_compliance.executors import THREADS, executor_of, run
from mlflow_compliance.progress import Progress
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import ArtifactFile
from mlflow_compliance.store.artifacts.compare import Comparer, Copy, Told, contents, samples
from mlflow_compliance.store.artifacts.hash_cache import HashCache, Learned, Members
from mlflow_compliance.store.storage.atomic_write import explained
from mlflow_compliance.store.storage.filesystem import has_clones, shared_extents
from mlflow_compliance.store.storage.folder_scan import SMALL
from mlflow_compliance.store.storage.safe_io import digest_of, opened, refuse_holes
from mlflow_compliance.store.storage.worker_pool import MOST_PARTS, WorkerPool, sharing

_BATCH_FILES, _BATCH_BYTES = 64, 1 << 24
_PART_FILES, _PART_BYTES = 64, 1 << 32
_SAMPLES = 512
_FOR_HELPERS = 1 << 20
"""Bytes up to which Python's own time with a file is more than that of reading it: threads would wait for one
another.
"""
_FEWEST = 5000  # files, for helpers to be worth their start
_SIZE = itemgetter(1)  # of a Copy

_T = TypeVar("_T")


def hash_candidates(
    artifacts: Artifacts, progress: Progress, executor: Executor | None = None, cache: HashCache | None = None
) -> Artifacts:
    """As this, with hashes for all that may be a duplicate or is on record, and with clones told as one physical copy.

    `cache` spares reading what did not change since; what is on record is read all the same, but for what this session
    itself read of it.
    """
    files = artifacts.files
    recorded = {files[path].copy: Copy(path, files[path].size) for path in artifacts.recorded if path in files}
    unread: dict[str, str] = {}
    # An executor that the caller made stays the caller's.
    using: AbstractContextManager[Executor] = nullcontext(executor) if executor else executor_of(THREADS)
    settled = cache.settled(artifacts) if cache is not None else None
    read_anyway = {} if cache is not None and cache.spares_recorded else recorded
    with (
        using as pool,
        sharing(
            Comparer, helped=not settled and isinstance(pool, ThreadPoolExecutor) and len(files) >= _FEWEST
        ) as share,
    ):
        if settled:
            digests = {path: digest for path, digest in settled[0].items() if files[path][1] not in read_anyway}
            wanted = list[list[Copy]]()
        else:
            tokens, digests, wanted = _sifted(artifacts, read_anyway, cache, pool, unread, progress)
            if cache is not None and cache.spares_recorded:
                of_recorded = cache.look_up(copy.path for copy in recorded.values())
                digests.update((path, entry.digest) for path, entry in of_recorded.items() if entry.digest)
        if recorded:
            reading = {files[copy.path].copy for group in wanted for copy in group} | {
                files[path].copy for path in digests
            }
            wanted += [[copy] for own, copy in recorded.items() if own not in reading]
        wanted = _affordable(wanted, artifacts.rules.max_size, unread)
        digests.update(_compared(pool, share, wanted, unread, progress))
    read = {files[path][1]: digest for path, digest in digests.items()}
    merged = _clones(read, digests, files)
    hashes = {path: read[file[1]] for path, file in files.items() if file[1] in read}
    equal_archives = settled[1] if settled else find_equal_archives(artifacts, hashes, cache)
    if cache is not None and not settled:
        cache.keep(Learned(artifacts, tokens, digests, equal_archives, whole=not unread))
    return replace(
        artifacts,
        files={
            path: file._replace(copy=merged[file.copy]) if file.copy in merged else file for path, file in files.items()
        }
        if merged
        else files,
        hashes=hashes,
        equal_archives=equal_archives,
        unread={**artifacts.unread, **unread},
        samples={},
    )


def _sifted(
    artifacts: Artifacts,
    recorded: Mapping[str, Copy],
    cache: HashCache | None,
    pool: Executor,
    unread: dict[str, str],
    progress: Progress,
) -> tuple[dict[str, str], dict[str, str], list[list[Copy]]]:
    """Path -> sample; path -> SHA-256 where it is known without reading more; the groups that are to be compared."""
    files, samples = artifacts.files, artifacts.samples
    others = _candidates(artifacts)
    looked_at = chain(samples, (copy.path for copy in others.values()))
    known = cache.look_up(path for path in looked_at if files[path].copy not in recorded) if cache is not None else {}
    tokens = {**samples, **{path: entry.token for path, entry in known.items() if entry.token}}
    sizes, sampled = Counter(map(_SIZE, others.values())), {files[path][0] for path in samples}
    alike = [
        copy for copy in others.values() if copy.path not in tokens and (sizes[copy.size] > 1 or copy.size in sampled)
    ]
    for batch, found in _sampled(pool, alike, unread, progress):
        tokens.update((copy.path, token) for copy, token in zip(batch, found, strict=True) if token)
    digests: dict[str, str] = {}
    wanted: list[list[Copy]] = []
    # Few tokens are those of several files: only these are looked at closer, one path for each physical copy.
    often = Counter(tokens.values())
    told = list({files[path][1]: path for path, token in tokens.items() if often[token] > 1}.values())
    for group in _groups(told, [(files[path][0], tokens[path]) for path in told]):
        size = files[group[0]][0]
        if size <= SMALL:
            digests.update((path, tokens[path]) for path in group)
            continue
        digests.update((path, known[path].digest) for path in group if path in known and known[path].digest)
        wanted += _parts([Copy(path, size) for path in group if path not in digests])
    return tokens, digests, wanted


def _affordable(groups: Sequence[list[Copy]], largest: int, unread: dict[str, str]) -> list[list[Copy]]:
    """Those that are not too large to be read; the others are noted in `unread`."""
    found = []
    for group in groups:
        if group and group[0].size > largest:
            why = f"not hashed: larger than {largest:,} bytes (duplicates.max_size)"
            unread.update((copy.path, why) for copy in group)
        else:
            found.append(group)
    return found


def hash_file(path: str) -> str:
    """SHA-256 (hex) of one file that a change is about to copy."""
    with explained(path, "could not be read"), opened(path) as file:
        return digest_of(file, path)


def _candidates(artifacts: Artifacts) -> dict[str, Copy]:
    """Physical copies that were logged, that the rules look at, and that the walk did not sample, by one path each."""
    apply_to, samples = artifacts.rules.applied(), artifacts.samples
    return {
        copy: Copy(path, size)
        for path, (size, copy, owner, logged) in artifacts.files.items()
        if path not in samples and logged and owner and apply_to(path, size)
    }


def _clones(digests: Mapping[str, str], paths: Iterable[str], files: Mapping[str, ArtifactFile]) -> dict[str, str]:
    """Physical copy -> the one it shares every block with, where the file system says so."""
    devices = {copy.split(":", 1)[0] for copy in digests}
    able = {device for device in devices if not device.isdecimal() or has_clones(int(device))}
    merged: dict[str, str] = {}
    if not able:
        return merged
    place = {files[path].copy: path for path in paths}
    some = sorted(copy for copy in digests if copy.split(":", 1)[0] in able)
    for group in _groups(some, [(digests[copy], copy.split(":", 1)[0]) for copy in some]):
        first: dict[tuple[tuple[int, int, int], ...], str] = {}
        for copy in group:
            extents = _extents(place[copy])
            if extents and first.setdefault(extents, copy) != copy:
                merged[copy] = first[extents]
    return merged


def _extents(path: str) -> tuple[tuple[int, int, int], ...]:
    try:
        with opened(path) as file:
            return shared_extents(file)
    except OSError:
        return ()


def _groups(items: Sequence[_T], keys: Sequence[Hashable]) -> list[list[_T]]:
    """Items with an equal key, where there are two of them at least."""
    often = Counter(keys)
    found: dict[Hashable, list[_T]] = defaultdict(list)
    for item, key in zip(items, keys, strict=True):
        if often[key] > 1:
            found[key].append(item)
    return list(found.values())


def _sampled(
    pool: Executor, copies: Sequence[Copy], unread: dict[str, str], progress: Progress
) -> Iterator[tuple[Sequence[Copy], list[str]]]:
    batches = [copies[start : start + _SAMPLES] for start in range(0, len(copies), _SAMPLES)]
    progress.start("Comparing samples", len(copies))
    try:
        # Threads that read a few bytes each wait for one another more than for the files.
        told = (
            ((samples(batch), "") for batch in batches)
            if isinstance(pool, ThreadPoolExecutor)
            else run(pool, samples, batches)
        )
        for batch, ((tokens, failed), host) in zip(batches, told, strict=True):
            progress.advance(len(batch))
            unread.update((copy.path, _why(failure, host)) for copy, failure in failed.items())
            yield batch, tokens
    finally:
        progress.stop()


def _compared(
    pool: Executor, share: WorkerPool, groups: Sequence[list[Copy]], unread: dict[str, str], progress: Progress
) -> Iterator[tuple[str, str]]:
    progress.start("Comparing contents", sum(map(len, groups)))
    try:
        # The largest first, so that no worker begins with one when the others are done.
        ordered = sorted(groups, key=_bytes, reverse=True)
        if isinstance(pool, ThreadPoolExecutor):
            small = [group for group in ordered if group[0].size <= _FOR_HELPERS]
            ordered = [group for group in ordered if group[0].size > _FOR_HELPERS]
            share.begin(
                (),
                [
                    [[tuple(copy) for copy in group] for group in batch]
                    for batch in _batches(small, -(-len(small) // MOST_PARTS))
                ],
            )
            for _, found in share.told():
                progress.advance(len(found))
                yield from _good(found, "", unread)
        for found, host in run(pool, contents, _batches(ordered)):
            progress.advance(len(found))
            yield from _good(found, host, unread)
    finally:
        progress.stop()


def _good(found: Iterable[Told], host: str, unread: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(path, value) of those that were read; the others are noted in `unread`."""
    for path, value, failure in found:
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


def _batches(groups: Iterable[list[Copy]], fewest: int = 1) -> Iterator[list[list[Copy]]]:
    """Handing one small file to a thread costs more than reading it. A batch but the last has at least the fewest
    groups.
    """
    batch: list[list[Copy]] = []
    files = held = 0
    for group in groups:
        batch.append(group)
        files += len(group)
        held += _bytes(group)
        if len(batch) >= fewest and (files >= _BATCH_FILES or held >= _BATCH_BYTES):
            yield batch
            batch, files, held = [], 0, 0
    if batch:
        yield batch


def _bytes(group: Sequence[Copy]) -> int:
    return len(group) * group[0].size


_END_OF_ZIP, _LONGEST_LIST = (1 << 16) + 22, 1 << 24
_CONTAINERS = (".skops", ".zip", ".npz", ".keras", ".pt")


def find_equal_archives(
    artifacts: Artifacts, hashes: Mapping[str, str], cache: HashCache | None = None
) -> tuple[tuple[str, ...], ...]:
    """Groups of paths, one for each content."""
    alike: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    apply_to = artifacts.rules.applied()
    for path in artifacts.files:
        if not path.endswith(_CONTAINERS):
            continue
        size, copy, owner, logged = artifacts.files[path]
        if logged and owner and apply_to(path, size):
            # Members and names alike make containers of one size: only those are opened, one path for each physical
            # copy.
            alike[os.path.splitext(path)[1], size].setdefault(copy, path)
    groups: dict[tuple[tuple[str, int, int], ...], dict[str, str]] = defaultdict(dict)
    for copies in alike.values():
        for path in sorted(copies.values()) if len(copies) > 1 else ():
            members = cache.members(path, _members) if cache is not None else _members(path)
            if members:
                # A file that was not hashed has a content of its own.
                groups[members].setdefault(hashes.get(path, path), path)
    return tuple(sorted(tuple(sorted(paths.values())) for paths in groups.values() if len(paths) > 1))


def _is_costly(file: int, path: str) -> bool:
    """Whether the container's list of members is longer than any that is worth reading: it is read as a whole."""
    facts = os.fstat(file)
    refuse_holes(file, facts, path)
    start = max(0, facts.st_size - _END_OF_ZIP)
    found = os.pread(file, _END_OF_ZIP, start).rpartition(b"PK\x05\x06")
    return bool(found[1]) and struct.unpack_from("<I", found[2], 8)[0] > _LONGEST_LIST


def _members(path: str) -> Members:
    """Name, checksum and size of each member, as the container's own list has them; nothing is extracted."""
    try:
        with opened(path) as file, open(file, "rb", closefd=False) as reader:
            if _is_costly(file, path):
                return ()
            with zipfile.ZipFile(reader) as container:
                return tuple(sorted((member.filename, member.CRC, member.file_size) for member in container.infolist()))
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, struct.error):
        return ()
