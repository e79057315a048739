"""The note in an artifact root that says which database owns it.

A note names its own inode and the database's: both stay what they are when a whole store is moved, and a copy has
others.
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.files import OWNER_NOTE
from mlflow_compliance.store.storage.atomic_write import explained
from mlflow_compliance.store.storage.parsing import parse_json, read_at_most
from mlflow_compliance.store.storage.safe_io import opened

_LARGEST = 1 << 20
_WRITING = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class OwnerNote(NamedTuple):
    """What a note says. `copied` where it lies in another file than it was written to."""

    database: str
    store: str
    """The URI of the store that wrote it, without credentials."""
    copied: bool


def read_note(root: str) -> OwnerNote | None:
    """The note in a root, None where there is none. Raises OSError, ValueError, TypeError or KeyError for one that
    cannot be read.
    """
    try:
        with opened(os.path.join(root, OWNER_NOTE)) as file:
            facts = os.fstat(file)
            lines = _lines(read_at_most(file, _LARGEST))
    except FileNotFoundError:
        return None
    if not lines:
        return None  # whoever made it was killed before anything was in it
    found = parse_json(lines[-1])
    return OwnerNote(str(found["database"]), str(found["store"]), found["inode"] != facts.st_ino)


def add_note(root: str, database: str, store: str, journal: str) -> None:
    """Note that a database owns a root, on disk before this returns. Notes that were there stay before it, so that
    it can be taken back.
    """
    path = os.path.join(root, OWNER_NOTE)
    with explained(path, "could not be written"):
        file = os.open(path, _WRITING, 0o644)
        try:
            facts = os.fstat(file)
            kept = b"".join(_lines(os.pread(file, facts.st_size, 0)))
            os.ftruncate(file, len(kept))
            note = {
                "database": database,
                "store": store,
                "inode": facts.st_ino,
                "journal": journal,
                "by": "pytest-mlflow-compliance",
            }
            os.write(file, json.dumps(note).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)


def drop_note(root: str, journal: str) -> None:
    """Take back the last note, where a journal wrote it (whoever did, where none is named); the file goes with the only
    one. Raises ChangeError where somebody wrote another one since.
    """
    path = os.path.join(root, OWNER_NOTE)
    with explained(path, "could not be taken back"):
        try:
            file = os.open(path, _WRITING & ~os.O_CREAT)
        except FileNotFoundError:
            return
        try:
            lines = _lines(os.pread(file, os.fstat(file).st_size, 0))
            mine = [number for number, line in enumerate(lines, 1) if journal and _journal_of(line) == journal]
            if journal and not mine:
                return
            if mine and mine[-1] != len(lines):
                raise ChangeError(f"{path} got another note since {journal} wrote one: both are left as they are")
            kept = b"".join(lines[:-1])
            os.ftruncate(file, len(kept))
            os.fsync(file)
        finally:
            os.close(file)
        if not kept:
            os.unlink(path)


def _journal_of(line: bytes) -> str:
    try:
        return str(parse_json(line)["journal"])
    except (ValueError, TypeError, KeyError):
        return ""


def _lines(content: bytes) -> list[bytes]:
    """The whole lines; a program that was killed may have left half a last one."""
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]
