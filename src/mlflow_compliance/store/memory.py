"""The file that a hash cache keeps: one column of text after another, so that a million entries are read without a call of Python's each."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from mlflow_compliance.store.content import opened

_FORMAT = "mlflow-compliance hashes 2"


@dataclass
class Folders:
    """Rows' folders, one in every column. `mark` is of the states of all its folders and files, in the order of the other columns; or empty."""

    path: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    mark: list[str] = field(default_factory=list)
    newest: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """How many folders it is: itself and those in it."""
    files: list[int] = field(default_factory=list)
    models: list[int] = field(default_factory=list)


@dataclass
class Files:
    """Files, one in every column, those of one folder together. `token` and `digest` are empty where they are not known."""

    path: list[str] = field(default_factory=list)
    copy: list[str] = field(default_factory=list)
    token: list[str] = field(default_factory=list)
    digest: list[str] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    logged: list[int] = field(default_factory=list)
    written: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)


@dataclass
class Memory:
    """What one audit leaves for the next. `about` says under which version and rules; a model is what JSON tells of it beside its path."""

    about: list[Any]
    twins: list[list[str]] = field(default_factory=list)
    folders: Folders = field(default_factory=Folders)
    places: list[str] = field(default_factory=list)
    files: Files = field(default_factory=Files)
    model: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def spans(self, counts: Sequence[int]) -> list[int]:
        """Where each folder's part of other columns begins, and where the last one's ends."""
        return list(accumulate(counts, initial=0))


_TEXTS, _NUMBERS = ("path", "artifacts", "mark"), ("newest", "places", "files", "models")
_FILE_TEXTS, _FILE_NUMBERS = ("path", "copy", "token", "digest"), ("size", "links", "logged", "written", "changed")


def read_memory(path: str) -> Memory | None:
    """None where the file is missing, spoiled, of another version, or is not a file."""
    try:
        with opened(path) as file, open(file, "rb", closefd=False) as reader:
            head, _, body = reader.read().partition(b"\n")
    except OSError:
        return None
    if head != head_of(body):
        return None
    try:
        return _parsed(body.decode(errors="surrogateescape").split("\0"))
    except (ValueError, TypeError, IndexError):
        return None


def _parsed(words: list[str]) -> Memory:
    about, twins, counts = json.loads(words[0])
    folders, places, files, models = counts
    position = 1

    def column(length: int) -> list[str]:
        nonlocal position
        position += length
        return words[position - length : position]

    memory = Memory(about, twins)
    for name in _TEXTS:
        setattr(memory.folders, name, column(folders))
    for name in _NUMBERS:
        setattr(memory.folders, name, list(map(int, column(folders))))
    memory.places = column(places)
    for name in _FILE_TEXTS:
        setattr(memory.files, name, column(files))
    for name in _FILE_NUMBERS:
        setattr(memory.files, name, list(map(int, column(files))))
    memory.model, memory.told = column(models), column(models)
    whole = (sum(memory.folders.places), sum(memory.folders.files), sum(memory.folders.models)) == (places, files, models)
    if position != len(words) or not whole:
        raise ValueError("not as it was written")
    return memory


def _words(memory: Memory) -> Iterator[str]:
    yield json.dumps([memory.about, memory.twins, [len(memory.folders.path), len(memory.places), len(memory.files.path), len(memory.model)]])
    for name in _TEXTS:
        yield from getattr(memory.folders, name)
    for name in _NUMBERS:
        yield from map(str, getattr(memory.folders, name))
    yield from memory.places
    for name in _FILE_TEXTS:
        yield from getattr(memory.files, name)
    for name in _FILE_NUMBERS:
        yield from map(str, getattr(memory.files, name))
    yield from memory.model
    yield from memory.told


def write_memory(path: str, memory: Memory) -> None:
    """In one step, so that of two audits at once the later one's memory stays, whole. A folder that cannot be written to is no audit's business."""
    body = "\0".join(_words(memory)).encode(errors="surrogateescape")
    temporary = ""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        file, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".writing-")
        with open(file, "wb") as writer:
            writer.write(head_of(body) + b"\n" + body)
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)


def head_of(body: bytes) -> bytes:
    """What stands before a body, on a line of its own."""
    return f"{_FORMAT} {len(body)} {zlib.crc32(body):08x}".encode()
