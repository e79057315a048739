"""Zip containers that hold the same members but differ in bytes: the same model saved twice, with other time stamps."""

from __future__ import annotations

import os
import struct
import zipfile
from collections import defaultdict
from collections.abc import Mapping

from mlflow_compliance.artifacts import Artifacts
from mlflow_compliance.store.disk.content import opened

_CONTAINERS = (".skops", ".zip", ".npz", ".keras", ".pt")


def find_twins(artifacts: Artifacts, hashes: Mapping[str, str]) -> tuple[tuple[str, ...], ...]:
    """Groups of paths, one for each content."""
    alike: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    apply_to = artifacts.rules.applied()
    for path in artifacts.files:
        if not path.endswith(_CONTAINERS):
            continue
        size, copy, owner, logged = artifacts.files[path]
        if logged and owner and apply_to(path, size):
            # Members and names alike make containers of one size: only those are opened, one path for each physical copy.
            alike[os.path.splitext(path)[1], size].setdefault(copy, path)
    groups: dict[tuple[tuple[str, int, int], ...], dict[str, str]] = defaultdict(dict)
    for copies in alike.values():
        for path in sorted(copies.values()) if len(copies) > 1 else ():
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
