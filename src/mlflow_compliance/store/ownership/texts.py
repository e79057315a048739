"""What else this database says that may name a file: tables that this version does not know, and texts in those
that it does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from sqlalchemy import Connection, text

from mlflow_compliance.snapshot.files import SERVED
from mlflow_compliance.store.backends.known_schema import KNOWN
from mlflow_compliance.store.backends.sql_tables import columns_of
from mlflow_compliance.store.ownership.entries import Entry

_ROWS, _CHARACTERS = 100_000, 50_000_000
"""Of an unknown table so much is read: one that holds more may name anything."""
_LENGTH_OF_AN_ID = 32
"""Of runs and models; the numbers of experiments are in every text."""
_LONGEST = 4096
"""Characters of a path."""
_TEXTS = (
    ("tags", "value"),
    ("params", "value"),
    ("experiment_tags", "value"),
    ("datasets", "dataset_source"),
    ("input_tags", "value"),
    ("trace_tags", "value"),
    ("trace_request_metadata", "value"),
    ("logged_model_tags", "tag_value"),
    ("logged_model_params", "param_value"),
    ("model_version_tags", "value"),
    ("model_versions", "description"),
    ("registered_model_tags", "value"),
    ("registered_models", "description"),
    ("evaluation_dataset_records", "source"),
)
"""Known columns in which people and MLflow write paths that are no row's own place."""
_ENDS = re.compile(r"[\s,;:)}\]#?&']")
UNREAD: Mapping[str, str] = {"skill_versions": "skill_version"}
"""Known table with places -> kind of the rows that a reader takes from it. Where none does, it is as good as
unknown.
"""


class Named(NamedTuple):
    """What the texts name: roots as wholes, and single entries, each with where that is written."""

    roots: dict[str, str]
    entries: dict[str, str]


def named_in(connection: Connection, entries: Sequence[Entry], kinds: Iterable[str]) -> Named:
    """What unknown tables and known texts name of ownerless entries. `kinds` are those of the rows whose places are
    known.
    """
    tables, found = columns_of(connection), Named({}, {})
    read = {table for table, kind in UNREAD.items() if kind in set(kinds)}
    for table, columns in sorted(tables.items()):
        strange = sorted(columns if table in UNREAD and table not in read else columns - KNOWN.get(table, frozenset()))
        if strange:
            _look_at_unknown(connection, table, strange, entries, found.roots)
    for table, column in _TEXTS:
        if column in tables.get(table, ()):
            _look_at_text(connection, table, column, entries, found.entries)
    return found


def _look_at_unknown(
    connection: Connection, table: str, columns: Sequence[str], entries: Sequence[Entry], roots: dict[str, str]
) -> None:
    known = table in KNOWN and table not in UNREAD
    where = f"{f'{table}.{columns[0]}' if known else f'the table {table}'}, which this version does not read,"
    left, wanted = _CHARACTERS, {entry.root for entry in entries} - roots.keys()
    sought = {root: _Sought.of(root, entries) for root in wanted}
    quoted = connection.dialect.identifier_preparer.quote
    asked = f"SELECT {', '.join(map(quoted, columns))} FROM {quoted(table)} LIMIT {_ROWS + 1}"  # noqa: S608  names from the catalogue, quoted
    statement = text(asked.replace(":", "\\:"))
    with closing(connection.execute(statement, execution_options={"stream_results": True})) as rows:
        for number, row in enumerate(rows if wanted else ()):
            values = [value for value in map(_text, row) if value]
            left -= sum(map(len, values))
            if number >= _ROWS or left < 0:
                roots |= dict.fromkeys(wanted, f"{where} holds too much to look through")
                return
            named = {root for root in wanted if any(_names(value, sought[root]) for value in values)}
            roots |= dict.fromkeys(named, f"{where} speaks of it or of what lies in it")
            wanted -= named
            if not wanted:
                return


def _text(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode(errors="replace")
    return value if isinstance(value, str) else str(value) if isinstance(value, dict | list) else ""


class _Sought(NamedTuple):
    """What a text may name of one root, put together once for all texts."""

    root: str
    paths: tuple[str, ...]
    """Of its ownerless entries."""
    words: frozenset[str]
    """Their names, and the ids in them that are long enough to stand for something by themselves."""

    @classmethod
    def of(cls, root: str, entries: Sequence[Entry]) -> _Sought:
        here = [entry for entry in entries if entry.root == root]
        ids = {key for entry in here for key in entry.ids if len(key) >= _LENGTH_OF_AN_ID}
        paths = tuple(entry.item.path for entry in here)
        return cls(root, paths, frozenset(ids | set(map(os.path.basename, paths))))


def _names(value: str, sought: _Sought) -> bool:
    """Whether a text names a root, a place below it, what a server serves, or an ownerless entry of it."""
    root = sought.root
    if SERVED in value:
        return True
    spelt = _spelt(value)
    if any(_holds(each, root) for each in spelt):
        return True
    words = {word for each in spelt for word in re.split(r"[^\w.@+-]+", each)}
    if not sought.words.isdisjoint(words):
        return True
    if len(value) > _LONGEST or "\n" in value or "\0" in value:
        return False
    place = os.path.realpath(os.path.join(root, *([value] if value.startswith("/") else [spelt[-1]])))
    if value.startswith("/"):
        return f"{place}/".startswith(f"{root}/")
    return any(f"{place}/".startswith(f"{path}/") for path in sought.paths) and os.path.lexists(place)


def _spelt(value: str) -> tuple[str, str]:
    """A text as it stands, and with what URIs and JSON write in another way."""
    return value, unquote(value).replace("\\/", "/")


def _holds(value: str, path: str) -> bool:
    """Whether a text has a path in it, not only the beginning or end of another name."""
    return path in value and re.search(rf"(?<![\w.-]){re.escape(path)}(?![\w-])", value) is not None


def _look_at_text(
    connection: Connection, table: str, column: str, entries: Sequence[Entry], found: dict[str, str]
) -> None:
    paths, roots = {entry.item.path for entry in entries}, {entry.root for entry in entries}
    for value in _with_any(connection, table, column, roots):
        for path in {path for each in _spelt(value) for root in roots for path in _paths_in(each, root)} & paths:
            found.setdefault(path, f"a text in {table}.{column} names it")


def _paths_in(value: str, root: str) -> Iterator[str]:
    """Every path below a root that a text may mean: those on the way too, and names cut where a sentence goes on."""
    for match in re.finditer(rf"(?<![\w.-]){re.escape(root)}/([^\0\"<>|\n]+)", value):
        path = root
        for name in match[1].split("/"):
            yield f"{path}/{_ENDS.split(name)[0]}"
            path = f"{path}/{name}"
            yield path


def _with_any(connection: Connection, table: str, column: str, roots: Iterable[str]) -> Iterator[str]:
    """The values of a column that have one of the roots in them, spelt as a path or as in a URI."""
    wanted = sorted({spelling for root in roots for spelling in (root, quote(root), root.replace("/", "\\/"))})
    # PostgreSQL compares no column of type JSON with a text.
    as_text = f"CAST({column} AS {'CHAR' if connection.dialect.name == 'mysql' else 'TEXT'})"
    for start in range(0, len(wanted), 100):
        chunk = wanted[start : start + 100]
        conditions = " OR ".join(f"{as_text} LIKE :v{number} ESCAPE '!'" for number in range(len(chunk)))
        values = {f"v{number}": f"%{_escaped(value)}%" for number, value in enumerate(chunk)}
        asked = f"SELECT DISTINCT {as_text} FROM {table} WHERE {conditions}"  # noqa: S608  constants of ours
        yield from (str(value) for (value,) in connection.execute(text(asked), values))


def _escaped(value: str) -> str:
    return value.replace("!", "!!").replace("%", "!%").replace("_", "!_")
