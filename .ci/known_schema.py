"""Writes store/backends/known_schema.py: what every revision of the installed MLflow's schema makes. Run it with
the newest MLflow.
"""
# ruff: noqa: E501  what it writes has long lines

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlflow
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from mlflow.server.auth.db.utils import _get_alembic_config as auth_config
from mlflow.store.db.utils import _get_alembic_config
from mlflow.store.tracking.dbmodels.initial_models import Base
from sqlalchemy import create_engine, inspect

TARGET = Path(__file__).parents[1] / "src" / "mlflow_compliance" / "store" / "backends" / "known_schema.py"
HEAD = '''"""What every revision of MLflow's schema makes, up to that of MLflow {version}. Written by .ci/known_schema.py: do not edit."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_REVISIONS = """
{lines}
"""
"""A line a revision, the oldest first: its id ('auth' for the tables of the basic-auth app), then each table with the columns that it gets, and with
a minus those that it loses."""
_KEYS = """
{keys}
"""
"""A line a foreign key of the last revision: table and columns, the table that they lead to and its columns."""


class Key(NamedTuple):
    """A foreign key; MLflow ties a row to its parent by it."""

    table: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


def _named(text: str) -> tuple[str, tuple[str, ...]]:
    table, _, columns = text.partition(":")
    return table, tuple(columns.split(","))


def _read(sign: str) -> dict[str, Mapping[str, frozenset[str]]]:
    found: dict[str, Mapping[str, frozenset[str]]] = {{}}
    for line in _REVISIONS.strip().splitlines():
        revision, *tables = line.split()
        marked = (_named(item.removeprefix("-")) for item in tables if item.startswith("-") == (sign == "-"))
        found[revision] = {{table: frozenset(columns) for table, columns in marked}}
    return found


MADE: Mapping[str, Mapping[str, frozenset[str]]] = _read("+")
"""Revision -> table -> the columns that it gets by it, in the order of the revisions."""
LOST: Mapping[str, Mapping[str, frozenset[str]]] = _read("-")
"""Revision -> table -> the columns that it loses by it; a table that goes loses all."""
KNOWN: Mapping[str, frozenset[str]] = {{
    table: frozenset(column for made in MADE.values() for column in made.get(table, ())) for table in sorted(set().union(*MADE.values()))
}}
"""Every table that any of these revisions has, with every column that it ever had."""
KEYS: tuple[Key, ...] = tuple(Key(*_named(child), *_named(parent)) for child, parent in map(str.split, _KEYS.strip().splitlines()))
'''


def columns(uri: str) -> dict[str, set[str]]:
    engine = create_engine(uri)
    schema = inspect(engine)
    found = {table: {column["name"] for column in schema.get_columns(table)} for table in schema.get_table_names()}
    engine.dispose()
    return found


def steps(uri: str, config: Config) -> Iterator[str]:
    """Every revision in order, the database upgraded to it."""
    for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions())):
        command.upgrade(config, script.revision)
        yield script.revision


def line(name: str, before: Mapping[str, set[str]], now: Mapping[str, set[str]]) -> str:
    parts = [name]
    for sign, one, other in (("", now, before), ("-", before, now)):
        differing = {table: sorted(found - other.get(table, set())) for table, found in sorted(one.items())}
        parts += [f"{sign}{table}:{','.join(names)}" for table, names in differing.items() if names]
    return " ".join(parts)


def keys(uri: str) -> list[str]:
    engine = create_engine(uri)
    schema = inspect(engine)
    found = {
        f"{table}:{','.join(key['constrained_columns'])} {key['referred_table']}:{','.join(key['referred_columns'])}"
        for table in schema.get_table_names()
        for key in schema.get_foreign_keys(table)
    }
    engine.dispose()
    return sorted(found)


def main() -> None:
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/store.db"
        engine = create_engine(uri)
        Base.metadata.create_all(engine)
        engine.dispose()
        before, lines = columns(uri), []
        lines.append(line("initial", {}, before))
        for revision in steps(uri, _get_alembic_config(uri)):
            now = columns(uri)
            lines.append(line(revision, before, now))
            before = now
        users = f"sqlite:///{folder}/users.db"
        everything: dict[str, set[str]] = {}
        for _ in steps(users, auth_config(users)):
            for table, found in columns(users).items():
                everything.setdefault(table, set()).update(found)
        lines.append(line("auth", {}, everything))
        TARGET.write_text(HEAD.format(version=mlflow.__version__, lines="\n".join(lines), keys="\n".join(keys(uri))))
    print(f"{TARGET}: {len(lines) - 2} revisions, MLflow {mlflow.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()
