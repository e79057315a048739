"""Checksums of remote objects, as the listing gives them or as they stream."""

from __future__ import annotations

import hashlib
import re

from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.store.storage.base import ObjectInfo, RemoteError
from mlflow_compliance.store.storage.s3 import Bucket
from mlflow_compliance.store.storage.storages import Storages

MD5 = re.compile(r"[0-9a-f]{32}")


KIND = "md5:"
"""How the digest of a remote object begins: what single-part uploads have in the listing, so that nothing need be
read to compare with them.
"""


def etag_of(artifacts: Artifacts, path: str) -> str:
    """The storage's own checksum of an object, as it was listed."""
    return artifacts.files[path].copy.partition(" ")[0]


def digest_of_object(path: str, size: int, etag: str, places: Storages) -> str:
    """The digest of what an object holds, read as it streams. Raises RemoteError where it is not the one that was
    listed.
    """
    digest, count = hashlib.md5(usedforsecurity=False), 0
    for chunk in places.of(path).chunks(path, etag):
        digest.update(chunk)
        count += len(chunk)
    if count != size:
        raise RemoteError(f"{path} changed while it was read")
    return KIND + digest.hexdigest()


def digest_of_listed(item: ObjectInfo, places: Storages) -> str:
    """The digest of one object: the listing's checksum where that is of its content, else by reading it. Raises
    RemoteError.
    """
    place = places.of(item.path)
    if isinstance(place, Bucket) and MD5.fullmatch(item.etag) and not place.encrypted(item.path):
        return KIND + item.etag
    return digest_of_object(item.path, item.size, item.etag, places)
