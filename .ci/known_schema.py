"""Writes store/reading/known_schema.py: what every revision of the installed MLflow's schema makes. Run it with the newest MLflow."""

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

TARGET = Path(__file__).parents[1] / "src" / "mlflow_compliance" / "store" / "reading" / "known_schema.py"
HEAD = '''"""What every revision of MLflow's schema makes, up to that of MLflow {version}. Written by .ci/known_schema.py: do not edit."""
# ruff: noqa: E501

from __future__ import annotations

from collections.abc import Mapping

_MADE = """
{lines}
"""
"""A line a revision, the oldest first: its id ('auth' for the tables of the basic-auth app), then each table with the columns that it gets."""


def _read(line: str) -> tuple[str, dict[str, frozenset[str]]]:
    revision, *tables = line.split()
    return revision, {{table: frozenset(columns.split(",")) for table, columns in (item.split(":") for item in tables)}}


MADE: Mapping[str, Mapping[str, frozenset[str]]] = dict(map(_read, _MADE.strip().splitlines()))
"""Revision -> table -> the columns that this revision is the first to give it, in the order of the revisions."""
KNOWN: Mapping[str, frozenset[str]] = {{
    table: frozenset(column for made in MADE.values() for column in made.get(table, ())) for table in sorted(set().union(*MADE.values()))
}}
"""Every table that any of these revisions has, with every column that it ever had."""
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


def line(name: str, now: Mapping[str, set[str]], known: dict[str, set[str]]) -> str:
    made = {table: sorted(found - known.get(table, set())) for table, found in sorted(now.items())}
    for table, found in now.items():
        known.setdefault(table, set()).update(found)
    return " ".join([name, *(f"{table}:{','.join(new)}" for table, new in made.items() if new)])


def main() -> None:
    logging.disable(logging.INFO)
    known: dict[str, set[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/store.db"
        engine = create_engine(uri)
        Base.metadata.create_all(engine)
        engine.dispose()
        lines = [line("initial", columns(uri), known)]
        lines += [line(revision, columns(uri), known) for revision in steps(uri, _get_alembic_config(uri))]
        users = f"sqlite:///{folder}/users.db"
        everything: dict[str, set[str]] = {}
        for _ in steps(users, auth_config(users)):
            for table, found in columns(users).items():
                everything.setdefault(table, set()).update(found)
        lines.append(line("auth", everything, known))
    TARGET.write_text(HEAD.format(version=mlflow.__version__, lines="\n".join(lines)))
    print(f"{TARGET}: {len(lines) - 2} revisions, {len(known)} tables, MLflow {mlflow.__version__}", file=sys.stderr)


if __name__ == "__main__":
    main()
