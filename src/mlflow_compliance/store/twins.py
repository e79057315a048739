"""Zip containers that hold the same members but differ in bytes: the same model saved twice, with other time stamps."""

from __future__ import annotations

import os
import struct
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping

from mlflow_compliance.store.content import opened

_CONTAINERS = (".skops", ".zip", ".npz", ".keras", ".pt")


def find_twins(copies: Iterable[tuple[str, int]], hashes: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Groups of paths, one for each content; `copies` holds (path, size) once for each physical copy."""
    alike: dict[tuple[str, int], list[str]] = defaultdict(list)
    for path, size in copies:
        if path.endswith(_CONTAINERS):
            # Members and names alike make containers of one size: only those are opened.
            alike[os.path.splitext(path)[1], size].append(path)
    groups: dict[tuple[tuple[str, int, int], ...], dict[str, str]] = defaultdict(dict)
    for paths in alike.values():
        for path in sorted(paths) if len(paths) > 1 else ():
            members = _members(path)
            if members:
                # A file that was not hashed has a content of its own.
                groups[members].setdefault(hashes.get(path, path), path)
    return tuple(sorted(tuple(sorted(paths.values())) for paths in groups.values() if len(paths) > 1))


def _members(path: str) -> tuple[tuple[str, int, int], ...]:
    """Name, checksum and size of each member, as the container's own list has them; nothing is extracted."""
    try:
        with opened(path) as file, open(file, "rb", closefd=False) as reader, zipfile.ZipFile(reader) as container:
            return tuple(sorted((member.filename, member.CRC, member.file_size) for member in container.infolist()))
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, struct.error):
        return ()
