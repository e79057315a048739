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
_MOST_HOLES = 1 << 28
_own = threading.local()


class ChangedError(OSError):
    """Somebody wrote to the file while it was read."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EBUSY, "changed while it was read", path)


class HolesError(OSError):
    """A sparse file: its size is no measure of what is there, and reading it could take for ever."""

    def __init__(self, path: str) -> None:
        words = f"not hashed: a sparse file with more than {_MOST_HOLES:,} bytes of holes; write it anew without them"
        super().__init__(errno.EFBIG, words, path)


def raise_it(error: OSError) -> None:
    """For os.walk: a folder that cannot be listed would be missing without a word."""
    raise error


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


def refuse_holes(file: int, facts: os.stat_result, path: str) -> None:
    """Raise HolesError for an open file most of which was never written. What a file system compressed is no hole."""
    holes = position = 0
    if facts.st_size - facts.st_blocks * 512 <= _MOST_HOLES:
        return
    while position < facts.st_size:
        try:
            data = os.lseek(file, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # it cannot tell, and all of it counts as written
                return
            data = facts.st_size
        holes += data - position
        if holes > _MOST_HOLES:
            raise HolesError(path)
        position = os.lseek(file, data, os.SEEK_HOLE) if data < facts.st_size else data
    os.lseek(file, 0, os.SEEK_SET)


def digest_of(file: int, path: str) -> str:
    """SHA-256 (hex) of a whole open file; `ChangedError` where its size or time moved meanwhile."""
    before = os.fstat(file)
    refuse_holes(file, before, path)
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
