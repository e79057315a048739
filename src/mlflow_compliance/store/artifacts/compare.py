"""Work units of the duplicate search: plain values in, plain values out, so that a process on another machine may
do them.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mlflow_compliance.store.storage.folder_scan import READING, sample
from mlflow_compliance.store.storage.safe_io import ChangedError, refuse_holes, why_unread

_BLOCK = 1 << 18  # what two files are compared by stays in the processor's cache
_own = threading.local()


class Copy(NamedTuple):
    """One physical copy, by one of its paths."""

    path: str
    size: int


Told = tuple[str, str, str]
"""The path of a copy, and what reading it gave or why it failed."""


def samples(copies: Sequence[Copy]) -> tuple[list[str], dict[Copy, str]]:
    """Of small files the SHA-256; of others what tells most of those apart that differ, and proves nothing of the rest.

    In the order of the copies, '' for those that could not be read; and why.
    """
    tokens, failed = [], {}
    for copy in copies:
        try:
            tokens.append(_one(copy))
        except OSError as error:
            tokens.append("")
            failed[copy] = why_unread(error)
    return tokens, failed


def contents(groups: Sequence[Sequence[Copy]]) -> list[Told]:
    """The SHA-256 of every file, in groups of one size that are probably alike: what equals the first of its group
    byte for byte has its hash.
    """
    return [told for group in groups for told in _compared(group)]


class Comparer:
    """`contents` for helper processes, which are handed no values but Python's own."""

    def __call__(self, groups: Sequence[Sequence[tuple[str, int]]]) -> list[Told]:
        return contents([[Copy(*copy) for copy in group] for group in groups])


def _one(copy: Copy) -> str:
    # As `opened` does, spelled out: of small files there may be a million.
    path, size = copy
    file = os.open(path, READING)
    try:
        token = sample(file, size)
    finally:
        os.close(file)
    if not token:
        raise ChangedError(path)
    return token


def _refuse_if_changed(path: str, before: os.stat_result, after: os.stat_result, count: int) -> None:
    if count != before.st_size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ChangedError(path)


class _Member:
    """An open file of a group."""

    def __init__(self, copy: Copy) -> None:
        self.copy = copy
        self._file = os.open(copy.path, READING)
        self._facts = os.fstat(self._file)

    def check(self) -> None:
        if self._facts.st_size != self.copy.size or not stat.S_ISREG(self._facts.st_mode):
            raise ChangedError(self.copy.path)
        refuse_holes(self._file, self._facts, self.copy.path)

    def fill(self, block: bytearray, offset: int) -> None:
        if os.preadv(self._file, [block], offset) != len(block):
            raise ChangedError(self.copy.path)

    def finish(self) -> None:
        _refuse_if_changed(self.copy.path, self._facts, os.fstat(self._file), self.copy.size)

    def close(self) -> None:
        os.close(self._file)


def _compared(group: Sequence[Copy]) -> Iterator[Told]:
    members: list[_Member] = []
    failed: dict[Copy, str] = {}
    try:
        for copy in group:
            try:
                members.append(_Member(copy))
                members[-1].check()
            except OSError as error:
                failed[copy] = why_unread(error)
        for alike, digest in _contents([member for member in members if member.copy not in failed], failed):
            for member in alike:
                try:
                    member.finish()
                    yield member.copy.path, digest, ""
                except OSError as error:
                    failed[member.copy] = why_unread(error)
    finally:
        for member in members:
            member.close()
    yield from ((copy.path, "", why) for copy, why in failed.items())


def _contents(members: Sequence[_Member], failed: dict[Copy, str]) -> Iterator[tuple[list[_Member], str]]:
    """Members of one size by what they hold, with its SHA-256. Each is read once: what differs from some block on
    is hashed from there on.
    """
    left = [(list(members), 0, hashlib.sha256())] if members else []
    while left:
        alike, start, digest = left.pop()
        size = alike[0].copy.size
        for offset in range(start, size, _BLOCK):
            block, other = _blocks(min(size - offset, _BLOCK))
            while alike and not _filled(alike[0], block, offset, failed):
                del alike[0]
            if not alike:
                break
            same, differing = alike[:1], list[_Member]()
            for member in alike[1:]:
                if _filled(member, other, offset, failed):
                    (same if other == block else differing).append(member)
            if differing:
                left.append((differing, offset, digest.copy()))
            alike = same
            digest.update(block)
        yield alike, digest.hexdigest()


def _filled(member: _Member, block: bytearray, offset: int, failed: dict[Copy, str]) -> bool:
    try:
        member.fill(block, offset)
    except OSError as error:
        failed[member.copy] = why_unread(error)
        return False
    return True


def _blocks(length: int) -> tuple[bytearray, bytearray]:
    """Two blocks of this thread's own, the same as before where the length is: new ones cost more than filling them."""
    if getattr(_own, "length", -1) != length:
        _own.length, _own.blocks = length, (bytearray(length), bytearray(length))
    blocks: tuple[bytearray, bytearray] = _own.blocks
    return blocks
