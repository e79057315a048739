"""Artifact trees that the benchmarks read, and the MLflow store whose rows own them: the same bytes for the same
arguments.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from pathlib import Path

_CONTENTS = 3_000
_EXPERIMENTS = 40
LARGE = 500 << 20


def model_folders(folder: Path, runs: int) -> None:
    """`runs` artifact folders of five files, 45,000 bytes a file on average. Every second model.pkl is one of 3,000."""
    rng = random.Random(1)
    models = [rng.randbytes(200_000 + number % 7 * 1_000) for number in range(_CONTENTS)]
    for run in range(runs):
        place = folder / str(run % _EXPERIMENTS) / f"{run:032x}" / "artifacts"
        place.mkdir(parents=True)
        # The order of these draws makes the tree: it is the one that the published numbers were measured on.
        model = models[rng.randrange(_CONTENTS)] if run % 2 else rng.randbytes(200_000)
        (place / "model.pkl").write_bytes(model)
        (place / "MLmodel").write_text(
            f"run_id: {run:032x}\nflavors:\n  lightgbm:\n    data: model.pkl\nmodel_size_bytes: {run}\n"
        )
        (place / "feature_importance.csv").write_bytes(rng.randbytes(5_000))
        (place / "requirements.txt").write_bytes(b"mlflow==3.17\nlightgbm==4.7\n")
        (place / "confusion_matrix.png").write_bytes(rng.randbytes(20_000))


def large_files(folder: Path, number: int = 20, size: int = LARGE) -> None:
    """Large files of one size in a run each. Of five, two are equal, one differs from them in its last byte, two
    are like none.
    """
    for index in range(number):
        place = folder / "0" / f"{index:032x}" / "artifacts"
        place.mkdir(parents=True)
        kind = index % 5
        seed = index - kind if kind in (1, 2) else index  # numbers 1 and 2 of each five are like number 0
        rng, left = random.Random(seed), size
        with (place / "weights.bin").open("wb") as file:
            while left:
                count = min(left, 1 << 24)
                file.write(rng.randbytes(count))
                left -= count
            if kind == 2:
                file.seek(size - 1)
                file.write(b"\0" if _last(place) else b"\1")


def _last(place: Path) -> int:
    with (place / "weights.bin").open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)[0]


def store_of(tree: Path, database: Path) -> str:
    """An MLflow store (SQLite) whose experiments and runs own a tree of <experiment>/<run>/artifacts; gives its
    tracking URI.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = f"sqlite:///{database}"
    if database.exists():
        return uri
    store = SqlAlchemyStore(uri, str(tree))
    store.engine.dispose()
    with sqlite3.connect(database) as rows:
        for experiment in sorted(os.listdir(tree), key=int):
            if experiment != "0":
                values = (
                    int(experiment),
                    f"work_{experiment}",
                    f"{tree}/{experiment}",
                    "active",
                    1_750_000_000_000,
                    1_750_000_000_000,
                    "default",
                )
                names = (
                    "experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time, "
                    "workspace"
                )
                rows.execute(f"INSERT INTO experiments ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            names = (
                "run_uuid, name, source_type, source_name, source_version, entry_point_name, user_id, status, "
                "start_time, end_time"
            )
            made = [
                (
                    run,
                    run[-6:],
                    "LOCAL",
                    "",
                    "",
                    "",
                    "team",
                    "FINISHED",
                    1_750_000_000_000,
                    1_750_000_060_000,
                    "active",
                    f"{tree}/{experiment}/{run}/artifacts",
                )
                for run in sorted(os.listdir(tree / experiment))
            ]
            rows.executemany(
                f"INSERT INTO runs ({names}, lifecycle_stage, artifact_uri, experiment_id) VALUES "
                f"({', '.join('?' * 12)}, {int(experiment)})",
                made,
            )
    return uri


def fresh(folder: Path) -> Path:
    """An empty folder in the place of whatever was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
