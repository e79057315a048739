"""Builds the store that this project exists for: a credit-scoring team's MLflow store, in the state in which it was
found.
"""

from __future__ import annotations

import argparse
import pickle
import random
import shutil
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path

from store_history import STRAY_PREFIXES, history
from store_materials import Materials, make_materials
from store_writer import Clock, StoreWriter, reproducible, write_files

TREES = 12  # enough for a model that ranks; fitted in a moment
FULL_TREES = 968  # what production really runs
SEED = 20240607
STORE_CREATED = datetime(2025, 4, 2, 8, tzinfo=timezone.utc)


def build_store(folder: Path, *, trees: int = TREES, seed: int = SEED) -> None:
    """Write mlflow.db, mlruns/, models/, results/, data/ and compliance.toml into the folder; the same bytes for the
    same arguments,
    but for the absolute paths that MLflow keeps in its database and in MLmodel.
    """
    folder = folder.resolve()
    if (folder / "mlflow.db").exists():
        raise FileExistsError(f"{folder} already holds a store")
    folder.mkdir(parents=True, exist_ok=True)
    materials = make_materials(trees, seed)
    _write_store(folder, materials, seed)
    _write_strays(folder / "mlruns", materials, seed)
    _write_beside(folder, materials)


def artifact_folders(folder: Path) -> list[Path]:
    """Each `artifacts` folder under mlruns/ that holds at least one file: runs', models' and the ones that nothing
    owns.
    """
    found = (path for path in (folder / "mlruns").rglob("artifacts") if path.is_dir())
    return sorted(path for path in found if any(file.is_file() for file in path.rglob("*")))


def summary(folder: Path) -> str:
    uri = f"{(folder / 'mlflow.db').resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as database:
        experiments, runs = database.execute(
            "SELECT (SELECT count(*) FROM experiments), (SELECT count(*) FROM runs)"
        ).fetchone()
    return f"{folder}: {experiments} experiments, {runs} runs, {len(artifact_folders(folder))} folders with artifacts"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to; must not hold a store yet")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--trees", type=int, default=TREES, help="trees of the production model (default: %(default)s)")
    size.add_argument(
        "--full", dest="trees", action="store_const", const=FULL_TREES, help=f"{FULL_TREES} trees, as in production"
    )
    options = parser.parse_args(argv)
    began = time.monotonic()
    try:
        build_store(options.folder, trees=options.trees)
    except FileExistsError as error:
        parser.error(str(error))
    print(f"{summary(options.folder)}, {time.monotonic() - began:.1f} s")
    return 0


def _write_store(folder: Path, materials: Materials, seed: int) -> None:
    clock = Clock(STORE_CREATED)
    with reproducible(seed, clock):
        writer = StoreWriter(folder, clock, materials.train)
        for number, experiment in enumerate(history(materials, seed), start=1):
            identifier = writer.experiment(number, experiment.name, experiment.created)
            for run in experiment.runs:
                writer.run(identifier, run, materials.selection_booster)
        writer.close()
    # All that is left where the production model should be.
    (folder / "mlruns" / "6" / "models").mkdir(parents=True)


def _write_strays(artifact_root: Path, materials: Materials, seed: int) -> None:
    """Folders as an old tool left them: straight under mlruns/, named like runs, known to no row."""
    dice = random.Random(seed + 1)
    for prefix, files in zip(STRAY_PREFIXES, materials.stray, strict=True):
        write_files(artifact_root / f"{prefix}{dice.getrandbits(120):030x}" / "artifacts", files)


def _write_beside(folder: Path, materials: Materials) -> None:
    for name in ("models", "results", "data"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "models" / "production_model.pkl").write_bytes(pickle.dumps(materials.production_model))
    materials.predictions.to_parquet(folder / "results" / "static_model_predictions.parquet", index=False)
    materials.features.to_parquet(folder / "data" / "holdout_sample.parquet", index=False)
    shutil.copyfile(Path(__file__).with_name("compliance.toml"), folder / "compliance.toml")


if __name__ == "__main__":
    sys.exit(main())
