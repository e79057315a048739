"""The store of a platform team: 300 experiments of six products, thousands of runs, most of it in nobody's order. Made
in a second, by rows put straight into a database that MLflow made. `python tests/support/platform_store.py FOLDER`.
"""

from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

DAY = 86_400_000
"""Milliseconds."""
START = 1_750_000_000_000
TEAMS = ("fraud", "churn", "pricing", "credit", "uplift", "forecast")
ALGORITHMS = ("lgbm", "xgb", "linear", "tft", "catboost")
UNCLASSIFIED = 265
"""Of 300 experiments; the others are in production, archived, or tests."""
SETTINGS = """
[store]
tracking_uri = "{uri}"
{products}
[experiments]
test_names = ["*-test", "test-*", "tmp-*"]
"""
PRODUCT = """
[[products]]
name = "{team}"
primary = "{team}-live"
experiments = ["{team}-*"]
production_names = ["*-live", "*-prod"]
production_tags = {{ stage = "production" }}
[products.production]
registered_model = "{team}"
alias = "champion"
"""


class _Rows:
    """Rows of a store, gathered by table and inserted at once."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random, self.root, self.tables = (
            random.Random(seed),
            folder / "mlruns",
            dict[str, list[Mapping[str, Any]]](),
        )

    def add(self, table: str, **values: Any) -> None:
        self.tables.setdefault(table, []).append(values)

    def experiment(self, key: int, name: str, lifecycle: str = "") -> None:
        self.add(
            "experiments",
            experiment_id=key,
            name=name,
            artifact_location=str(self.root / str(key)),
            lifecycle_stage="active",
            creation_time=START,
            last_update_time=START,
            workspace="default",
        )
        if lifecycle:
            note = f"{lifecycle.upper()}: kept for the record"
            for tag, value in (("lifecycle", lifecycle), ("mlflow.note.content", note)):
                self.add("experiment_tags", key=tag, value=value, experiment_id=key)

    def run(self, experiment: int, number: int, *, status: str = "FINISHED", **tags: str) -> str:
        key = f"{self.random.getrandbits(128):032x}"
        start = START + self.random.randrange(100) * DAY
        place = self.root / str(experiment) / key / "artifacts"
        self.add(
            "runs",
            run_uuid=key,
            name=f"trial-{number:03}",
            source_type="LOCAL",
            source_name="train.py",
            entry_point_name="",
            user_id="ann",
            status=status,
            start_time=start,
            end_time=None if status == "RUNNING" else start + 60_000,
            source_version="",
            lifecycle_stage="active",
            artifact_uri=str(place),
            experiment_id=experiment,
            deleted_time=None,
        )
        named = {"mlflow.user": "ann", "mlflow.runName": f"trial-{number:03}", **tags}
        for tag, value in named.items():
            self.add("tags", key=tag, value=value, run_uuid=key)
        value = self.random.random()
        self.add("metrics", key="auc", value=value, timestamp=start, run_uuid=key, step=0, is_nan=0)
        self.add("latest_metrics", key="auc", value=value, timestamp=start, run_uuid=key, step=0, is_nan=0)
        self.add("params", key="depth", value=str(self.random.randrange(12)), run_uuid=key)
        return key

    def file(self, experiment: int, run: str, name: str, content: bytes) -> None:
        path = self.root / str(experiment) / run / "artifacts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def model(self, experiment: int, run: str, name: str, alias: str) -> None:
        """A registered version of a run's model; who wants it to load puts files there."""
        place = str(self.root / str(experiment) / run / "artifacts" / "model")
        self.add("registered_models", name=name, creation_time=START, last_updated_time=START, workspace="default")
        self.add(
            "model_versions",
            name=name,
            version=1,
            creation_time=START,
            last_updated_time=START,
            user_id="ann",
            current_stage="None",
            source=place,
            run_id=run,
            status="READY",
            workspace="default",
        )
        self.add("registered_model_aliases", alias=alias, version=1, name=name, workspace="default")

    def insert(self, database: Path) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            for table, rows in self.tables.items():
                names = list(rows[0])
                places = ", ".join(f":{name}" for name in names)
                connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", rows)


def make_platform(folder: Path, database: bytes, *, runs: int = 15) -> str:
    """The store and its compliance.toml in a folder, from the bytes of an empty one. Returns its URI."""
    (folder / "mlruns").mkdir(parents=True)
    (folder / "mlflow.db").write_bytes(database)
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (str(folder / "mlruns" / "0"),))
    rows = _Rows(folder, 7)
    for key, (team, name, lifecycle) in enumerate(_experiments(), 1):
        rows.experiment(key, name, lifecycle)
        made = [rows.run(key, number, status="RUNNING" if number == key % 90 else "FINISHED") for number in range(runs)]
        if key % 8 == 0:
            rows.file(key, made[0], "shap.bin", bytes(range(256)) * 16)
        if name.endswith(("-live", "-prod")):
            _production(rows, key, team, name)
    for number in range(9):
        rows.file(900 + number, "left", "behind.bin", bytes([number]) * 3000)
    rows.insert(folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    products = "".join(PRODUCT.format(team=team) for team in TEAMS)
    (folder / "compliance.toml").write_text(SETTINGS.format(uri=uri, products=products))
    return uri


def _experiments() -> Iterator[tuple[str, str, str]]:
    """Team, name and lifecycle of each."""
    for number in range(UNCLASSIFIED):
        team = TEAMS[number % len(TEAMS)]
        yield team, f"{team}-{ALGORITHMS[number % len(ALGORITHMS)]}-{number:03}", ""
    for number, team in enumerate(TEAMS):
        yield team, f"{team}-live", "production"
        yield team, f"{team}-2023", "archived"
        yield team, f"tmp-{team}", ""
        yield team, f"{team}-{number}-test", ""
    for team in TEAMS[:3]:
        yield team, f"{team}-prod", "production"
    for number in range(8):
        yield TEAMS[0], f"{TEAMS[0]}-old-{number}", "archived"


def _production(rows: _Rows, key: int, team: str, name: str) -> None:
    """What a team calls its production run: one has two, one has none, one is still running, some have no files."""
    if team == "uplift" or name.endswith("-prod"):
        return
    run = rows.run(key, 900, status="RUNNING" if team == "churn" else "FINISHED", stage="production")
    if team == "credit":
        rows.run(key, 901, stage="production")
    rows.model(key, run, team, "champion" if team != "forecast" else "latest")


if __name__ == "__main__":
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    target = Path(sys.argv[1]).resolve()
    empty = target.with_suffix(".empty.db")
    SqlAlchemyStore(f"sqlite:///{empty}", str(target / "mlruns")).engine.dispose()
    sys.stdout.write(f"{make_platform(target, empty.read_bytes())}\n")
    empty.unlink()
