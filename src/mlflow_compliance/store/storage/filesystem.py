"""Copy-on-write clones on Linux: making one, and telling that two files are one. Silent where a file system has
none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from functools import lru_cache

_FICLONE = 0x40049409
_FIEMAP = 0xC020660B
_HEADER = struct.Struct("=QQLLLL")  # start, length, flags, mapped, room, reserved
_EXTENT = struct.Struct("=QQQ16xL12x")  # logical, physical, length, flags
_ROOM = 64
_LAST, _SHARED = 0x0001, 0x2000
_NO_PLACE = 0x0002 | 0x0004 | 0x0100 | 0x0200 | 0x0400
"""Unknown, not yet allocated, not aligned, inline or in a tail: the physical address says nothing."""

UNSUPPORTED = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM, errno.EBADF}
)


def clone(source: int, target: int) -> bool:
    """Let the open file `target` share the blocks of `source`. False where the file system cannot; OSError for all
    else.
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return False
        raise
    return True


def shared_extents(file: int) -> tuple[tuple[int, int, int], ...]:
    """Where an open file lies on its device, if every part of it is shared with another file; else empty."""
    found: list[tuple[int, int, int]] = []
    start = 0
    while True:
        buffer = bytearray(_HEADER.size + _ROOM * _EXTENT.size)
        _HEADER.pack_into(buffer, 0, start, (1 << 64) - 1 - start, 0, 0, _ROOM, 0)
        try:
            fcntl.ioctl(file, _FIEMAP, buffer)
        except OSError:
            return ()
        mapped = _HEADER.unpack_from(buffer)[3]
        for index in range(mapped):
            logical, physical, length, flags = _EXTENT.unpack_from(buffer, _HEADER.size + index * _EXTENT.size)
            if not flags & _SHARED or flags & _NO_PLACE:
                return ()
            before = found[-1] if found else None
            # Two clones may hold the same run of blocks in a different number of records.
            if before and before[0] + before[2] == logical and before[1] + before[2] == physical:
                found[-1] = (before[0], before[1], before[2] + length)
            else:
                found.append((logical, physical, length))
            if flags & _LAST:
                return tuple(found)
            start = logical + length
        if not mapped:
            return ()


_WITHOUT_CLONES = frozenset({"ext2", "ext3", "ext4", "tmpfs", "ramfs", "vfat", "exfat", "iso9660", "squashfs", "f2fs"})
_WITH_TIMES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs"})


def has_clones(device: int) -> bool:
    """Whether files on a device may share blocks: asking every file is only worth it where they can. What is not
    known may.
    """
    kinds = _kinds(device)
    return not kinds or not kinds <= _WITHOUT_CLONES


def tells_of_entries(device: int) -> bool:
    """Whether a folder on a device has another time of change as soon as an entry is made, renamed or removed. What
    is not known may not.
    """
    kinds = _kinds(device) if device >= 0 else frozenset()
    return bool(kinds) and kinds <= _WITH_TIMES


def is_of_this_machine(device: int) -> bool:
    """Whether what is written to a device is written by this machine's kernel, and dated by its clock. What is not
    known may not be.
    """
    kinds = _kinds(device) if device >= 0 else frozenset()
    return bool(kinds) and kinds <= _WITH_TIMES | _WITHOUT_CLONES | {"overlay"}


@lru_cache(maxsize=64)
def _kinds(device: int) -> frozenset[str]:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return frozenset()
    name = f"{os.major(device)}:{os.minor(device)}"
    return frozenset(words[words.index("-") + 1] for words in mounts if words[2] == name and "-" in words[6:])
