"""What every kind of remote artifact storage can be asked, and how its refusals are told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mlflow_compliance.errors import StoreError


class RemoteError(StoreError):
    """The storage, or one thing in it, cannot be read or written, in one sentence."""


class LockedOutError(RemoteError):
    """The server does not take the caller's credentials (any more): what it did not give for that is no finding
    about the store.
    """


class ObjectInfo(NamedTuple):
    """One object. `etag` is the storage's own checksum ('' where it gives none), `modified` in milliseconds."""

    path: str
    size: int
    etag: str = ""
    modified: int = 0


class Place(ABC):
    """One bucket, or one server. Paths are whole locations (s3://bucket/key), as rows and reports have them."""

    @abstractmethod
    def listed(self, folder: str) -> Iterator[ObjectInfo]:
        """Every object below a folder, in as few requests as the storage allows. Raises RemoteError."""

    @abstractmethod
    def children(self, folder: str) -> Sequence[str]:
        """The names of the folders directly in a folder."""

    @abstractmethod
    def chunks(self, path: str, etag: str = "") -> Iterator[bytes]:
        """What an object holds. With `etag`, refused where it is not the one that was listed."""

    @abstractmethod
    def upload(self, source: str, path: str) -> None:
        """Write a local file to where nothing is yet."""

    @abstractmethod
    def copy(self, source: ObjectInfo, path: str) -> None:
        """The same bytes at another path of the same place, by the storage itself where it can."""

    def read(self, path: str, largest: int) -> bytes:
        """A small object. One that is larger gives a byte more than `largest`, and no more is fetched."""
        found = bytearray()
        for chunk in self.chunks(path):
            found += chunk
            if len(found) > largest:
                break
        return bytes(found[: largest + 1])
