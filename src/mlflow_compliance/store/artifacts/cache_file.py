"""The file that a hash cache keeps: one column after another, each understood when it is first asked for, a million
entries at a time.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

from mlflow_compliance.store.storage.safe_io import opened

_FORMAT = "mlflow-compliance hashes 2"
FOLDERS, PLACES, FILES, MODELS = "folders", "places", "files", "models"
_TABLES = {
    # A row's folder: how many folders it is (itself and those in it), how many files and models are in it. `mark` is of
    # the states of all these
    # folders and files, in the order of the other tables; empty where nothing is to be concluded from it.
    FOLDERS: (("path", "artifacts", "mark"), ("newest", PLACES, FILES, MODELS)),
    PLACES: (("path",), ()),
    # `token` and `digest` are empty where they are not known.
    FILES: (("path", "copy", "token", "digest"), ("size", "links", "logged", "written", "changed")),
    # What JSON tells of a model beside its path; empty where it does not count as one.
    MODELS: (("path", "told"), ()),
}


class CacheFile:
    """What one audit leaves for the next: tables of columns of texts and whole numbers. `about` says under which
    version and rules.
    """

    def __init__(self, about: list[Any], equal_archives: list[list[str]]) -> None:
        self.about = about
        self.equal_archives = equal_archives
        self._blocks: dict[tuple[str, str], bytes] = {}  # columns that nobody asked for yet
        self._texts: dict[tuple[str, str], list[str]] = {}
        self._numbers: dict[tuple[str, str], list[int]] = {}

    @classmethod
    def read(cls, path: str) -> CacheFile | None:
        """None where the file is missing, spoiled, of another version, not a file, or where others may have written
        to it.
        """
        try:
            with opened(path) as file, open(file, "rb", closefd=False) as reader:
                facts = os.fstat(file)
                if facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
                    return None
                head, body = reader.readline(), reader.read()
        except OSError:
            return None
        if head != head_of(body):
            return None
        try:
            return cls._parsed(memoryview(body))
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    @classmethod
    def _parsed(cls, body: memoryview) -> CacheFile:
        length = int.from_bytes(body[:8], "little")
        about, equal_archives, sizes = json.loads(bytes(body[8 : 8 + length]))
        memory, position = cls(about, equal_archives), 8 + length
        for table, (texts, numbers) in _TABLES.items():
            for name in (*texts, *numbers):
                end = position + sizes[f"{table}.{name}"]
                memory._blocks[table, name] = bytes(body[position:end])
                position = end
        rows = {table: memory._rows(table) for table in _TABLES}
        if position != len(body) or any(
            sum(memory.numbers(FOLDERS, table)) != rows[table] for table in (PLACES, FILES, MODELS)
        ):
            raise ValueError("not as it was written")
        return memory

    def _rows(self, table: str) -> int:
        """How long all columns of a table are."""
        texts, numbers = _TABLES[table]
        lengths = {self._blocks[table, name].count(b"\0") for name in texts} | {
            len(self._blocks[table, name]) // 8 for name in numbers
        }
        if len(lengths) != 1:
            raise ValueError("columns of different lengths")
        return lengths.pop()

    def texts(self, table: str, name: str) -> list[str]:
        """A column, to read and to add to."""
        key = table, name
        if key not in self._texts:
            self._texts[key] = self._blocks.pop(key, b"").decode(errors="surrogateescape").split("\0")[:-1]
        return self._texts[key]

    def numbers(self, table: str, name: str) -> list[int]:
        """A column, to read and to add to."""
        key = table, name
        if key not in self._numbers:
            values = array("q")
            values.frombytes(self._blocks.pop(key, b""))
            self._numbers[key] = values.tolist()
        return self._numbers[key]

    def _column(self, table: str, name: str) -> list[Any]:
        return self.texts(table, name) if name in _TABLES[table][0] else self.numbers(table, name)

    def add(self, table: str, **columns: Iterable[str] | Iterable[int]) -> None:
        for name, values in columns.items():
            self._column(table, name).extend(values)

    def take_over(self, other: CacheFile, where: Mapping[str, slice], besides: Sequence[str]) -> None:
        """Add a part of each of another's tables, but for some columns."""
        for table, (texts, numbers) in _TABLES.items():
            for name in (*texts, *numbers):
                if name not in besides:
                    self._column(table, name).extend(other._column(table, name)[where[table]])

    def equals(self, other: CacheFile) -> bool:
        names = [(table, name) for table, columns in _TABLES.items() for name in (*columns[0], *columns[1])]
        return (self.about, self.equal_archives) == (other.about, other.equal_archives) and all(
            self._column(*name) == other._column(*name) for name in names
        )

    def spans(self, table: str) -> list[int]:
        """Where each folder's part of a table begins, and where the last one's ends."""
        return list(accumulate(self.numbers(FOLDERS, table), initial=0))

    def write(self, path: str) -> None:
        """In one step: of two audits at once the later one's memory stays, whole. A folder that cannot be written
        to is no audit's business.
        """
        blocks = {}
        for table, (texts, numbers) in _TABLES.items():
            for name in texts:
                blocks[f"{table}.{name}"] = "".join([f"{word}\0" for word in self.texts(table, name)]).encode(
                    errors="surrogateescape"
                )
            for name in numbers:
                blocks[f"{table}.{name}"] = array("q", self.numbers(table, name)).tobytes()
        head = json.dumps(
            [self.about, self.equal_archives, {name: len(block) for name, block in blocks.items()}]
        ).encode()
        body = b"".join([len(head).to_bytes(8, "little"), head, *blocks.values()])
        temporary = ""
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            file, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".writing-")
            with open(file, "wb") as writer:
                writer.write(head_of(body))
                writer.write(body)
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)


def head_of(body: bytes) -> bytes:
    """The line that stands before a body."""
    return f"{_FORMAT} {len(body)} {zlib.crc32(body):08x}\n".encode()
