"""Duplicates among remote objects: by the checksums of the listing where they are of the content, else by reading
what has an equal size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from mlflow_compliance.progress import Progress
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.store.storage.base import LockedOutError, RemoteError
from mlflow_compliance.store.storage.checksums import KIND, MD5, digest_of_object, etag_of
from mlflow_compliance.store.storage.s3 import Bucket
from mlflow_compliance.store.storage.storages import Storages, is_remote, place_name

_AT_ONCE = 8


def hash_remote(artifacts: Artifacts, places: Storages, progress: Progress) -> Artifacts:
    """As this, with digests for all remote objects that may be duplicates."""
    sizes: dict[int, list[str]] = defaultdict(list)
    for path, file in artifacts.files.items():
        if is_remote(path) and file.owner and file.logged and artifacts.rules.apply_to(path, file.size):
            sizes[file.size].append(path)
    candidates = [path for group in sizes.values() if len(group) > 1 for path in group]
    # What the listing gives for nothing is kept of every object: a plan then knows what the copies of a run will be
    # equal to.
    known = [path for group in sizes.values() for path in group]
    plain = _plain(known, artifacts, places)
    hashes = {
        path: KIND + etag_of(artifacts, path)
        for path in known
        if place_name(path) in plain and MD5.fullmatch(etag_of(artifacts, path))
    }
    rest = [path for path in candidates if path not in hashes]
    unread: dict[str, str] = {}

    def read(path: str) -> str | RemoteError:
        try:
            return digest_of_object(path, artifacts.files[path].size, etag_of(artifacts, path), places)
        except LockedOutError:
            raise
        except RemoteError as error:
            return error

    progress.start("Comparing remote contents", len(rest))
    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for path, found in zip(rest, pool.map(read, rest), strict=True):
                progress.advance(1)
                if isinstance(found, str):
                    hashes[path] = found
                else:
                    unread[path] = str(found)
    finally:
        progress.stop()
    return replace(artifacts, hashes={**artifacts.hashes, **hashes}, unread={**artifacts.unread, **unread})


def _plain(candidates: Iterable[str], artifacts: Artifacts, places: Storages) -> set[str]:
    """The buckets in which the ETag of a single-part upload is the MD5 of its content. That depends on their
    encryption: one object is asked.
    """
    found: dict[str, str] = {}
    for path in candidates:
        if MD5.fullmatch(etag_of(artifacts, path)):
            found.setdefault(place_name(path), path)
    plain = set()
    for name, path in found.items():
        place = places.of(path)
        try:
            if isinstance(place, Bucket) and not place.encrypted(path):
                plain.add(name)
        except RemoteError:
            continue  # then its objects are read, and what cannot be read is told
    return plain
