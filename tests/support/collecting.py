"""What a store holds, row by row and file by file, and the real `mlflow gc` to compare a preflight with."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from sqlalchemy import MetaData, create_engine, exc, select

from mlflow_compliance.audit.audit import Audit, Options
from mlflow_compliance.audit.preflight import Preflight, preflight
from mlflow_compliance.progress import Silent

Rows = dict[str, set[tuple[Any, ...]]]


def rows_in(uri: str) -> Rows:
    """Table -> the primary keys of its rows, of every table that there is."""
    engine, schema = create_engine(uri), MetaData()
    try:
        with warnings.catch_warnings(), engine.connect() as connection:
            warnings.simplefilter("ignore", exc.SAWarning)
            schema.reflect(bind=connection)
            return {
                name: {
                    tuple(row)
                    for row in connection.execute(select(*(list(table.primary_key.columns) or table.columns)))
                }
                for name, table in schema.tables.items()
            }
    finally:
        engine.dispose()


def files_in(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()}


def gone(before: Rows, after: Rows) -> dict[str, int]:
    """Table -> how many of its rows are not there any more."""
    return {name: len(keys - after[name]) for name, keys in sorted(before.items()) if keys - after[name]}


def collect(uri: str, *options: str, process: bool = False, **environment: str) -> str:
    """Run the real `mlflow gc`; what it printed. In this process it takes a store that MLflow has open already."""
    words, environment = ["--backend-store-uri", uri, *options], {"MLFLOW_TRACKING_URI": uri, **environment}
    if process:
        command = [sys.executable, "-m", "mlflow", "gc", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})
        return f"{done.stdout}{done.stderr}"
    from mlflow.cli import gc

    answer = CliRunner().invoke(gc, words, env=environment)
    return f"{answer.output}{answer.exception or ''}"


def destroyed(said: str) -> set[tuple[str, str]]:
    """What the real gc says that it destroyed."""
    kinds = {"Run": "run", "Logged model": "logged_model", "Experiment": "experiment", "Job": "job"}
    found = re.findall(r"^(Run|Logged model|Experiment|Job) with ID (\S+) has been", said, re.MULTILINE)
    return {(kinds[kind], key) for kind, key in found}


def foretold(folder: Path, uri: str, **given: Any) -> list[Preflight]:
    """The preflight as a value, with the settings beside it."""
    audit = Audit(Options(rootdir=folder, workdir=folder, tracking_uri=uri, gc_preflight=True, **given), Silent)
    return preflight(audit)
