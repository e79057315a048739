"""Work units of the duplicate search: plain values in, plain values out, so that a process on another machine may do them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mlflow_compliance.store.content import ChangedError, digest_of, opened, why_unread
from mlflow_compliance.store.visit_child import READING, sample

_BLOCK = 1 << 18  # what two files are compared by stays in the processor's cache


class Copy(NamedTuple):
    """One physical copy, by one of its paths."""

    path: str
    size: int


class Told(NamedTuple):
    """What reading a copy gave, or why it failed."""

    copy: Copy
    value: str
    failure: str = ""


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
    """The SHA-256 of every file, in groups of one size that are probably alike: what equals the first of its group byte for byte has its hash."""
    return [told for group in groups for told in _compared(group)]


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
    alone: list[Copy] = []
    try:
        for copy in group:
            try:
                members.append(_Member(copy))
                members[-1].check()
            except OSError as error:
                failed[copy] = why_unread(error)
        alike, digest = _like_the_first([member for member in members if member.copy not in failed], failed)
        for member in alike:
            try:
                member.finish()
                yield Told(member.copy, digest)
            except OSError as error:
                failed[member.copy] = why_unread(error)
        done = {member.copy for member in alike}
        alone = [member.copy for member in members if member.copy not in done and member.copy not in failed]
    finally:
        for member in members:
            member.close()
    for copy in alone:
        yield _digest(copy)
    yield from (Told(copy, "", why) for copy, why in failed.items())


def _like_the_first(members: Sequence[_Member], failed: dict[Copy, str]) -> tuple[list[_Member], str]:
    """Those that hold what the first one holds, itself included, and their SHA-256; none where the first one cannot be read."""
    if not members:
        return [], ""
    first, alike = members[0], list(members[1:])
    size, digest = first.copy.size, hashlib.sha256()
    block, other = bytearray(min(size, _BLOCK)), bytearray(min(size, _BLOCK))
    for offset in range(0, size, _BLOCK):
        if size - offset < len(block):
            block, other = bytearray(size - offset), bytearray(size - offset)
        try:
            first.fill(block, offset)
        except OSError as error:
            failed[first.copy] = why_unread(error)
            return [], ""
        digest.update(block)
        still = []
        for member in alike:
            try:
                member.fill(other, offset)
            except OSError as error:
                failed[member.copy] = why_unread(error)
                continue
            if other == block:
                still.append(member)
        alike = still
    return [first, *alike], digest.hexdigest()


def _digest(copy: Copy) -> Told:
    try:
        with opened(copy.path) as file:
            if os.fstat(file).st_size != copy.size:
                raise ChangedError(copy.path)
            return Told(copy, digest_of(file, copy.path))
    except OSError as error:
        return Told(copy, "", why_unread(error))
