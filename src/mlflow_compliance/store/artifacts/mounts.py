"""What kind of file system a device is, and what may be relied on there."""

from __future__ import annotations

import os
from functools import lru_cache

_WITHOUT_CLONES = frozenset({"ext2", "ext3", "ext4", "tmpfs", "ramfs", "vfat", "exfat", "iso9660", "squashfs", "f2fs"})
_WITH_TIMES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs"})


def has_clones(device: int) -> bool:
    """Whether files on a device may share blocks: asking every file is only worth it where they can. What is not known may."""
    kinds = _kinds(device)
    return not kinds or not kinds <= _WITHOUT_CLONES


def tells_of_entries(device: int) -> bool:
    """Whether a folder on a device has another time of change as soon as an entry is made, renamed or removed. What is not known may not."""
    kinds = _kinds(device) if device >= 0 else frozenset()
    return bool(kinds) and kinds <= _WITH_TIMES


@lru_cache(maxsize=64)
def _kinds(device: int) -> frozenset[str]:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return frozenset()
    name = f"{os.major(device)}:{os.minor(device)}"
    return frozenset(words[words.index("-") + 1] for words in mounts if words[2] == name and "-" in words[6:])
