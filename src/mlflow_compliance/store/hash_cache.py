"""What earlier audits read of files that did not change since: one file of text in a folder of the user's choice, and never needed.

An entry counts for the same path, device, inode, size, time of writing and time of change alone. It is kept only where both times are
safely older than the audit that read the file: one that was written to within the clock's tick after it was read would look unchanged.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from time import time_ns as now
from typing import NamedTuple

from mlflow_compliance.artifacts import Artifacts
from mlflow_compliance.store.comparing import Copy
from mlflow_compliance.store.content import opened

USER = "user"
OFF = "off"
_FORMAT = "mlflow-compliance hashes 1"
_SUFFIX = ".hashes"
_SAFE = 2_000_000_000
"""The coarsest clock of a file system that is in use (FAT) ticks every two seconds."""


class Entry(NamedTuple):
    """The sample of a file, and its SHA-256 where all of it was read."""

    token: str
    digest: str


def cache_folder(named: str) -> str | None:
    """The folder behind a name: a path, `user` for the user's own cache, `off` for none."""
    if named == USER:
        from platformdirs import user_cache_dir

        return user_cache_dir("mlflow-compliance", appauthor=False)
    return None if named == OFF else os.path.abspath(os.path.expanduser(named))


def is_new(folder: str) -> bool:
    """Whether no audit left anything in a cache's folder."""
    try:
        return not any(name.endswith(_SUFFIX) for name in os.listdir(folder))
    except OSError:
        return True


class HashCache:
    """The entries for one set of artifact roots. `started` (ns) is when the audit began, before it looked at any file."""

    def __init__(self, folder: str, artifacts: Artifacts, started: int) -> None:
        roots = "\0".join(root.path for root in artifacts.roots).encode(errors="surrogateescape")
        self.path = os.path.join(folder, f"{hashlib.sha256(roots).hexdigest()[:32]}{_SUFFIX}")
        self._artifacts = artifacts
        self._before = min(started, now()) - _SAFE
        self._found = _read(self.path)
        self._keys: dict[str, str] = {}

    def __len__(self) -> int:
        """Entries that earlier audits left."""
        return len(self._found)

    def look_up(self, copies: Iterable[Copy]) -> dict[str, Entry]:
        """Path -> what is known of it."""
        known = {}
        if self._found:
            for copy in copies:
                value = self._found.get(self._key(copy))
                if value:
                    token, _, digest = value.partition(" ")
                    known[copy.path] = Entry(token, digest)
        return known

    def keep(self, told: Iterable[tuple[Copy, str, str]]) -> None:
        """Write down what this audit knows: (copy, sample, SHA-256 or ''). A folder that cannot be written to is none of the audit's business."""
        stamps, files = self._artifacts.stamps, self._artifacts.files
        entries = {}
        for copy, token, digest in told:
            stamp = stamps.get(files[copy.path].copy)
            if stamp and max(stamp) < self._before:
                entries[self._keys.get(copy.path) or self._key(copy)] = f"{token} {digest}"
        if entries != self._found:
            _write(self.path, entries)

    def _key(self, copy: Copy) -> str:
        own = self._artifacts.files[copy.path].copy
        written, changed = self._artifacts.stamps.get(own, (0, 0))
        key = self._keys[copy.path] = f"{own} {copy.size} {written} {changed} {copy.path}"
        return key


def _read(path: str) -> Mapping[str, str]:
    """Nothing where the file is missing, spoiled, of another version, or is not a file."""
    try:
        with opened(path) as file, open(file, "rb", closefd=False) as reader:
            head, _, body = reader.read().partition(b"\n")
    except OSError:
        return {}
    if head != _head(body):
        return {}
    words = body.decode(errors="surrogateescape").split("\0")
    return dict(zip(words[::2], words[1::2], strict=False))


def _write(path: str, entries: Mapping[str, str]) -> None:
    """In one step, so that of two audits at once the later one's entries stay, whole."""
    body = "\0".join(word for entry in entries.items() for word in entry).encode(errors="surrogateescape")
    temporary = ""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        file, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".writing-")
        with open(file, "wb") as writer:
            writer.write(_head(body) + b"\n" + body)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)


def _head(body: bytes) -> bytes:
    return f"{_FORMAT} {len(body)} {zlib.crc32(body):08x}".encode()
