"""Takes the compression off a file's content, within a budget."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from mlflow_compliance.store.models.budget import LARGEST, Budget
from mlflow_compliance.store.models.problems import UNKNOWN

_PIECE = 1 << 16
_FIRST = 1 << 9
_UNKNOWN = (b"7z\xbc\xaf\x27\x1c", b"\x04\x22\x4d\x18", b"\x28\xb5\x2f\xfd")
"""7z, LZ4, Zstandard: not in Python's own library."""
_LENGTH = 21
"""Bytes of the header of joblib before 0.10: what it begins with, and the length in hexadecimal digits."""


class _Kind(NamedTuple):
    """A way to compress: how content begins, what unpacks it, and whether nothing else begins like this."""

    magic: bytes
    decompressor: Callable[[], Any]
    certain: bool = True


_OLD_JOBLIB = _Kind(b"ZF0x", zlib.decompressobj)
_KINDS = (
    _Kind(b"\x1f\x8b", lambda: zlib.decompressobj(31)),
    _Kind(b"BZh", bz2.BZ2Decompressor),
    _Kind(b"\xfd7zXZ\x00", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    _Kind(b"]\x00", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE), certain=False),
    _Kind(b"x", zlib.decompressobj, certain=False),
)


class Unpacked(NamedTuple):
    """What was in it, as far as it could be unpacked; `problem` where that is not all, or nobody knows."""

    data: bytes = b""
    problem: str = ""
    certain: bool = True
    """False where it may as well be content that was never compressed."""


def unpacked(data: bytes, budget: Budget, most: int = LARGEST) -> Unpacked | None:
    """The content without its compression; None where it has none."""
    if data.startswith(_UNKNOWN):
        return Unpacked(problem=f"is compressed in a way that is not looked into, {UNKNOWN}")
    if data.startswith(_OLD_JOBLIB.magic):
        return _unpack(data[_LENGTH:], _OLD_JOBLIB, budget, most)
    kind = next((kind for kind in _KINDS if data.startswith(kind.magic)), None)
    return kind and _unpack(data, kind, budget, most)


def _unpack(data: bytes, kind: _Kind, budget: Budget, most: int) -> Unpacked | None:
    found, start, place, problem = bytearray(), 0, 0, ""
    try:
        one = kind.decompressor()
        while place < len(data):
            if one.eof:  # streams of one kind may follow each other
                start = place = place - len(one.unused_data)
                if not data.startswith(kind.magic, start):
                    break
                one = kind.decompressor()
            # Small pieces first: what comes before damage is read by whoever reads step by step.
            piece = data[place : place + (1 if place < start + _FIRST else _PIECE)]
            place += len(piece)
            found += _all_of(one, piece, min(most, max(budget.room, 0)) + 1 - len(found))
            if len(found) > budget.room:
                return Unpacked(problem=f"unpacks to more than {LARGEST >> 30} GiB, {UNKNOWN}")
            if len(found) > most:
                return Unpacked(bytes(found[:most]), certain=kind.certain)
        if not one.eof:
            problem = f"is compressed and cut off, {UNKNOWN}"
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        problem = f"is compressed and damaged, {UNKNOWN}"
    if problem and not kind.certain and not found:
        return None
    budget.unpack(len(found))
    return Unpacked(bytes(found), problem, kind.certain or not problem)


def _all_of(one: Any, piece: bytes, most: int) -> bytes:
    """What a piece gives, up to so many bytes."""
    found = one.decompress(piece, most)
    while len(found) < most and not one.eof:
        rest = getattr(one, "unconsumed_tail", b"")
        if not rest and getattr(one, "needs_input", True):
            break
        more = one.decompress(rest, most - len(found))
        if not more:
            break
        found += more
    return bytes(found)
