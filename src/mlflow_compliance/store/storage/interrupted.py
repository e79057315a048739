"""When repairs of a store were broken off: what they had copied by then lies there without a row, and is of no
newer database.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone

from mlflow_compliance.store.storage.journals import JOURNAL_NAME
from mlflow_compliance.store.storage.parsing import parse_json

_LATER = 600_000
"""Milliseconds after the last line of a journal in which what it had begun may have gone on."""
_END = 4096


def broken_off(folder: str) -> list[tuple[int, int]]:
    """(from, to) in milliseconds of each repair whose journal in a folder has no end; none where the folder cannot
    be read.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if JOURNAL_NAME.fullmatch(name))
    except OSError:
        return []
    begun = [_begun(name) for name in names]
    found = []
    for name, start, following in zip(names, begun, [*begun[1:], None], strict=False):
        path = os.path.join(folder, name)
        try:
            last = os.stat(path).st_mtime_ns // 1_000_000
            if not _ended(path):
                found.append((start, min(last + _LATER, following or last + _LATER)))
        except OSError:
            continue
    return found


def _begun(name: str) -> int:
    return int(datetime.strptime(name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp() * 1000)


def _ended(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
        lines = file.read().splitlines()
    try:
        return bool(lines) and parse_json(lines[-1]).get("state") == "end"
    except (ValueError, AttributeError):
        return False  # half a last line
