"""Two databases over one artifact folder: the files of the one are not strays of the other."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def two(lab: Any) -> tuple[Any, str]:
    """A store, and a second database beside it whose only run lies in the first one's artifact folder."""
    experiment = lab.experiment("credit_selection")
    other = lab.folder / "other.db"
    shutil.copy(lab.database, other)
    run_id = lab.run(experiment, "theirs", files={"shap.bin": b"x" * 4000})
    # The run moves to the other database as it is.
    shutil.copy(lab.database, other)
    with sqlite3.connect(lab.database) as connection:
        for table in ("tags", "params", "metrics", "latest_metrics", "runs"):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run_id,))
    return lab, run_id


def ownerless(lab: Any) -> dict[str, str]:
    artifacts = lab.read(artifacts=True).artifacts
    return {os.path.basename(path): str(artifacts.doubt(path) or "") for path in artifacts.ownerless}


def test_what_a_neighbour_owns_is_kept(two: tuple[Any, str]) -> None:
    lab, run_id = two
    assert "other.db owns it" in ownerless(lab)[run_id]


def test_without_the_neighbour_it_is_a_stray(two: tuple[Any, str]) -> None:
    lab, run_id = two
    (lab.folder / "other.db").unlink()
    assert ownerless(lab)[run_id] == ""


def test_a_neighbour_that_cannot_be_read_keeps_everything(two: tuple[Any, str]) -> None:
    lab, run_id = two
    (lab.folder / "other.db").unlink()
    broken = Path(lab.folder / "broken.db")
    broken.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    assert "may own it" in ownerless(lab)[run_id]


def test_a_database_of_something_else_owns_nothing(two: tuple[Any, str]) -> None:
    lab, run_id = two
    (lab.folder / "other.db").unlink()
    with sqlite3.connect(lab.folder / "optuna.db") as connection:
        connection.execute("CREATE TABLE studies (id INTEGER)")
    assert ownerless(lab)[run_id] == ""


def test_the_source_of_a_neighbours_model_version_is_kept(lab: Any) -> None:
    """Its files lie in the folder of no run and bear no id: only the version's row names them."""
    other = lab.folder / "other.db"
    export = lab.stray("exports/prices", {"MLmodel": b"flavors: {}\n", "model.pkl": b"x" * 4000})
    empty = lab.database.read_bytes()
    lab.registered("prices", str(export))
    other.write_bytes(lab.database.read_bytes())
    lab.database.write_bytes(empty)
    assert ownerless(lab) == {"exports": f"the store in {other} owns it: "}
