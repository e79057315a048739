"""Reading what a file holds, safely: regular files only, no links followed, and told when it changes meanwhile."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow_compliance.store.storage.folder_scan import READING

_BUFFER = 1 << 18
_own = threading.local()


class ChangedError(OSError):
    """Somebody wrote to the file while it was read."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EBUSY, "changed while it was read", path)


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A regular file, open for reading."""
    file = os.open(path, READING)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", path)
        yield file
    finally:
        os.close(file)


def digest_of(file: int, path: str) -> str:
    """SHA-256 (hex) of a whole open file; `ChangedError` where its size or time moved meanwhile."""
    before = os.fstat(file)
    if not hasattr(_own, "buffer"):
        _own.buffer = memoryview(bytearray(_BUFFER))
    buffer: memoryview = _own.buffer
    digest, offset = hashlib.sha256(), 0
    while count := os.preadv(file, [buffer], offset):
        digest.update(buffer[:count])
        offset += count
    after = os.fstat(file)
    if offset != before.st_size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ChangedError(path)
    return digest.hexdigest()


def why_unread(error: OSError) -> str:
    """Why a file could not be read, in a few words."""
    return (error.strerror or "cannot be read").lower()
