"""Reads journals back: what was done, what was broken off, and whether a line was changed, dropped or moved."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from mlflow_compliance.changes import JOURNAL, NOW
from mlflow_compliance.changes.symbols import WHO
from mlflow_compliance.production.keys import PublicKey
from mlflow_compliance.repair.journal import CHAIN

BEGUN, DONE, FAILED = "begin", "done", "failed"
NOT_THERE = "it was begun and is not there: nothing is to be taken back"
"""The reason that an undo gives where it looked for a change in vain."""
_LONGEST = 1 << 26
"""Bytes of one line that are parsed."""


@dataclass
class Entry:
    """One change of a journal: what was done, how it is taken back, and how far it came (begin, done, failed)."""

    number: int
    policy: str
    do: Mapping[str, Any]
    undo: Mapping[str, Any] | None
    state: str = BEGUN
    reason: str = ""
    bound: Mapping[str, str] = field(default_factory=dict)
    """Symbol -> the id that MLflow made for it."""
    takes_back: int | None = None
    """The number of the change in the other journal, where this journal is an undo."""


@dataclass(frozen=True)
class JournalRecord:
    """A journal as it was read back."""

    id: str
    header: Mapping[str, Any]
    entries: Sequence[Entry]
    hashes: Mapping[str, str]
    """Path -> the SHA-256 that the repair put on record, empty where it took the path off."""
    ended: bool
    """Whether it was closed; one that was not is of a repair that was broken off."""
    problem: str = ""
    """Why it is not what a repair wrote, with the line; empty where every line fits the one before it."""
    end: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chained(self) -> bool:
        """Whether its lines hold each other; those of older versions do not."""
        return "chain" in self.header

    @property
    def undo_of(self) -> str:
        """Id of the journal that it takes back, empty where it is a plan's own."""
        return self.text("undo_of")

    @property
    def is_undo(self) -> bool:
        """Whether it takes a repair back; one that takes an undo back is a repair again, with ids of its own."""
        return bool(self.undo_of) and not self.text("again")

    @property
    def is_purge(self) -> bool:
        """Whether it is the record of what was destroyed for good."""
        return bool(self.text("purge"))

    @property
    def done(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.state == DONE]

    @cached_property
    def bound(self) -> dict[str, str]:
        """Symbol -> what it stood for."""
        at = self.text("at")
        with suppress(ValueError):
            at = datetime.fromisoformat(at).isoformat(timespec="seconds")
        own = {JOURNAL: self.id, NOW: at, WHO: self.text("user")}
        return own | {symbol: key for entry in self.done for symbol, key in entry.bound.items()}

    def text(self, name: str) -> str:
        """A value of the header as text, empty where it is not there."""
        return str(self.header.get(name, ""))

    def signed(self, key: PublicKey) -> str:
        """Why its end is not signed with a key, empty where it is."""
        if not self.ended:
            return "it has no end that could be signed: the repair was broken off"
        plain = {name: value for name, value in self.end.items() if name != "signature"}
        try:
            signature = base64.b64decode(str(self.end.get("signature", "")), validate=True)
        except (binascii.Error, ValueError):
            signature = b""
        if not signature:
            return "its end is not signed"
        if not key.verifies(signature, json.dumps(plain).encode(), plain=True):
            return "the signature of its end is not of this key, or its end was changed"
        return ""


class _Reader:
    """Takes in the lines of one journal in order; stops with a ValueError at the first that does not fit."""

    def __init__(self) -> None:
        self.header: dict[str, Any] = {}
        self.entries: dict[int, Entry] = {}
        self.hashes: dict[str, str] = {}
        self.end: dict[str, Any] = {}
        self._before = ""

    def take(self, text: bytes) -> None:
        line = _parsed(text)
        if not self.header:
            if not isinstance(line.get("journal"), str):
                raise ValueError("is not the header of a journal")
            if line.get("chain", CHAIN) != CHAIN:
                raise ValueError("names a chain that this version does not know")
            self.header = line
        else:
            if self.end:
                raise ValueError("follows the end of the journal")
            if "chain" in self.header and line.get("prev") != self._before:
                raise ValueError("does not follow the line before it: a line was changed, dropped or moved there")
            self._take(line)
        self._before = hashlib.sha256(text).hexdigest()

    def _take(self, line: dict[str, Any]) -> None:
        state = line.get("state")
        if state == "recorded":
            self.hashes |= {str(path): str(digest) for path, digest in _table(line, "hashes").items()}
        elif state == "end":
            self.end = line
        elif state in (BEGUN, DONE, FAILED) and type(line.get("change")) is int:
            self._take_change(line["change"], state, line)
        else:
            raise ValueError("is no line that a repair writes")

    def _take_change(self, number: int, state: str, line: dict[str, Any]) -> None:
        if state == BEGUN:
            undo = None if line.get("undo") is None else _table(line, "undo")
            self.entries[number] = Entry(number, str(line.get("policy", "")), _table(line, "do"), undo)
            if type(line.get("takes_back")) is int:
                self.entries[number].takes_back = line["takes_back"]
            return
        entry = self.entries.get(number)
        if entry is None:
            if state == DONE:
                raise ValueError(f"ends change {number}, which did not begin")
            return  # one that failed before it was begun
        entry.state = state
        entry.reason = str(line.get("reason", ""))
        entry.bound = {str(key): str(value) for key, value in _table(line, "bound", {}).items()}


def read_journal(content: bytes) -> JournalRecord:
    """A journal from its bytes. What follows a line that does not fit is not taken in."""
    # A program that was killed leaves half a last line.
    whole, _, rest = content.rpartition(b"\n")
    reader, problem = _Reader(), "" if whole else "it is empty"
    for number, text in enumerate(whole.split(b"\n") if whole else (), 1):
        try:
            reader.take(text)
        except ValueError as error:
            problem = f"line {number} {error}"
            break
    if not problem and rest and reader.end:
        problem = "something follows the end of the journal"
    header = reader.header
    return JournalRecord(
        str(header.get("journal", "")),
        header,
        list(reader.entries.values()),
        reader.hashes,
        ended=bool(reader.end),
        problem=problem,
        end=reader.end,
    )


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text) if len(text) <= _LONGEST else None
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    raise ValueError("cannot be read as a line of a journal")


def _table(line: Mapping[str, Any], key: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
    found = line.get(key, default)
    if isinstance(found, dict):
        return found
    raise ValueError(f"says nothing that can be read as {key!r}")
