"""A metadata audit, as a process, against another one that pages MlflowClient.search_runs over the same store,
alternately.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timing import Timing, add, alternately, recorded, table, write

CHECKOUT = Path(__file__).parents[1]
START = 1_750_000_000_000
PARAMS, TAGS, METRICS = 15, 8, 10
CHUNK = 5_000
PAGING = """
import sys
from mlflow import MlflowClient

client, seen = MlflowClient(tracking_uri=sys.argv[1]), 0
experiments = [item.experiment_id for item in client.search_experiments()]
token = None
while True:
    page = client.search_runs(experiments, max_results=1000, page_token=token)
    seen, token = seen + len(page), page.token
    if not token:
        break
print(seen)
"""
"""All that a script must do to have seen every run: nothing is looked at."""


def fill(uri: str, folder: Path, runs: int, experiments: int) -> None:
    """A store of finished runs, spread over experiments that say what they are. MLflow makes the tables, rows go in
    by SQL.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import MetaData, insert, text

    store = SqlAlchemyStore(uri, str(folder / "mlruns"))
    rng = random.Random(0)
    with store.engine.begin() as connection:
        if connection.execute(text("SELECT COUNT(*) FROM runs")).scalar_one():
            sys.exit(f"the store {store.engine.url!r} is not empty: give a database of its own")
        if store.engine.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA synchronous = OFF")
    tables = MetaData()
    tables.reflect(store.engine)
    with store.engine.begin() as connection:
        for key in range(1, experiments + 1):
            connection.execute(
                text(
                    "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, "
                    "creation_time, last_update_time, workspace) "
                    "VALUES (:key, :name, :place, 'active', :at, :at, 'default')"
                ),
                {"key": key, "name": f"churn_{key:04}", "place": f"{folder}/mlruns/{key}", "at": START},
            )
            if key % 10:  # every tenth says nothing, so that there is something to find
                connection.execute(
                    text(
                        "INSERT INTO experiment_tags (key, value, experiment_id) VALUES ('lifecycle', "
                        "'development', :key)"
                    ),
                    {"key": key},
                )
    for first in range(0, runs, CHUNK):
        with store.engine.begin() as connection:
            if store.engine.dialect.name == "sqlite":
                connection.exec_driver_sql(
                    "PRAGMA cache_size = -1000000"
                )  # keys come in no order: without it most pages are read again
            for name, rows in _rows(rng, range(first, min(first + CHUNK, runs)), folder, experiments).items():
                connection.execute(insert(tables.tables[name]), rows)
    with store.engine.begin() as connection:
        if store.engine.dialect.name != "mysql":
            connection.execute(text("ANALYZE"))  # as the database's own housekeeping does sooner or later
    store.engine.dispose()


def _rows(rng: random.Random, numbers: range, folder: Path, experiments: int) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("runs", "params", "tags", "latest_metrics")}
    for number in numbers:
        run, experiment = f"{rng.getrandbits(128):032x}", 1 + number % experiments
        place = f"{folder}/mlruns/{experiment}/{run}/artifacts"
        fixed = {
            "source_type": "LOCAL",
            "source_name": "",
            "entry_point_name": "",
            "source_version": "",
            "user_id": "team",
        }
        ended = {"status": "FINISHED", "start_time": START, "end_time": START + 60_000, "lifecycle_stage": "active"}
        found["runs"].append(
            {
                "run_uuid": run,
                "name": f"trial-{number}",
                **fixed,
                **ended,
                "artifact_uri": place,
                "experiment_id": experiment,
            }
        )
        found["params"] += [
            {"key": f"param_{index}", "value": f"{rng.random():.6f}", "run_uuid": run} for index in range(PARAMS)
        ]
        found["tags"] += [
            {"key": f"tag_{index}", "value": f"group {rng.randrange(100)}", "run_uuid": run} for index in range(TAGS)
        ]
        found["latest_metrics"] += [
            {
                "key": f"metric_{index}",
                "value": rng.random(),
                "timestamp": START,
                "step": 0,
                "is_nan": False,
                "run_uuid": run,
            }
            for index in range(METRICS)
        ]
    return found


def audit_command(folder: Path, uri: str) -> list[str]:
    """The metadata rules under pytest, with settings that say no more than where the store is."""
    (folder / "pytest.ini").write_text(
        f"[pytest]\naddopts = --import-mode=importlib\ncompliance_fixers = {CHECKOUT / 'fixers'}\n"
    )
    # What other plugins do at the end of a session is not what is measured.
    others = ("cacheprovider", "hypothesispytest", "anyio")
    quiet = [word for name in others for word in ("-p", f"no:{name}")]
    return [
        sys.executable,
        "-m",
        "pytest",
        f"--rootdir={folder}",
        "-c",
        str(folder / "pytest.ini"),
        *quiet,
        "-q",
        "--compliance-metadata-only",
        f"--tracking-uri={uri}",
        str(CHECKOUT / "policies"),
    ]


@contextmanager
def database_of(named: str) -> Iterator[str]:
    """The URI of what is named; a PostgreSQL server for the time of the benchmark where that is all that is said."""
    if named != "postgresql":
        yield named
        return
    sys.path.insert(0, str(CHECKOUT / "tests" / "support"))
    from databases import postgresql_server, stop_all

    try:
        server = postgresql_server()
        yield server.uri(server.database())
    finally:
        stop_all()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=100_000)
    arguments.add_argument("--experiments", type=int, default=100)
    arguments.add_argument(
        "--database",
        default="sqlite:///",
        help="an empty database, 'postgresql' for one of its own, sqlite:/// for a file",
    )
    arguments.add_argument("--rounds", type=int, default=5, help="of both sides")
    arguments.add_argument("--alone", action="store_true", help="measure the audit only, not the paging")
    arguments.add_argument("--folder", type=Path, help="keep a SQLite store here, and use the one that is there")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as made, database_of(given.database) as database:
        work = Path(made)
        folder = given.folder or work
        folder.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{folder}/mlflow.db" if database == "sqlite:///" else database
        if not (folder / "mlflow.db").exists():
            fill(uri, folder, given.runs, given.experiments)
        env = {"PYTHONDONTWRITEBYTECODE": "", "MLFLOW_TRACKING_URI": "", "PYTEST_ADDOPTS": ""}
        command = audit_command(work, uri)

        def audit(timing: Timing) -> None:
            add(timing, command, env, cwd=work, ends=(0, 1))

        def paging(timing: Timing) -> None:
            add(timing, [sys.executable, "-c", PAGING, uri], env, cwd=work)

        timings = alternately(given.rounds, {"audit": audit} if given.alone else {"audit": audit, "paging": paging})
    ours = timings["audit"]
    print(table(timings, ours.median))
    ratio = None if given.alone else timings["paging"].median / ours.median
    if ratio is not None:
        print(f"the audit is {ratio:.0f} times faster than paging; its peak memory is {ours.peak_bytes / 1e6:.0f} MB")
    print(ours.output.splitlines()[-1])
    kind = uri.partition(":")[0].partition("+")[0]
    record = recorded(timings)
    about = (
        f"All metadata rules as one pytest process on {given.runs:,} runs with {PARAMS} params, {TAGS} tags "
        f"and {METRICS} metrics each, in {kind}."
    )
    write(
        given.out,
        {
            "benchmark": f"metadata, {kind}",
            "about": about,
            "runs": given.runs,
            "timings": record,
            "claims": claims(kind, timings, given.runs),
        },
    )


def claims(kind: str, timings: dict[str, Timing], runs: int) -> list[dict[str, Any]]:
    """What was to be reached, beside what was."""
    ours, theirs = timings["audit"], timings.get("paging")
    if theirs is None:
        return []
    work = f"metadata of {runs:,} runs, {kind}"
    faster = {
        "work": work,
        "ours": f"the gate, {ours.median:.2f} s",
        "against": f"paging `MlflowClient.search_runs`, {theirs.median:.0f} s",
        "ratio": ours.median / theirs.median,
        "target": {"sqlite": 1 / 100}.get(kind, 1 / 50),
    }
    peak = {
        "work": f"{work}: peak memory",
        "ours": f"{ours.peak_bytes / 1e6:.0f} MB",
        "against": "400 MB",
        "ratio": ours.peak_bytes / 400e6,
        "target": 1.0,
    }
    return [faster, peak]


if __name__ == "__main__":
    main()
