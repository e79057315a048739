"""Audits through `mlflow server`, as processes, against the plain paged REST requests that bring every run, nothing
parsed; and how they grow with runs and traces.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from metadata import START, audit_command, fill
from timing import Timing, add, alternately, claim, recorded, table, write

_TOKEN = re.compile(rb'"next_page_token"\s*:\s*"([^"]+)"')


def plain(uri: str, chunks: list[list[str]]) -> int:
    """The bytes of every page of runs, asked for one after the other. A token is all that is looked at."""
    size = 0
    for chunk in chunks:
        token = None
        while True:
            body = {
                "experiment_ids": chunk,
                "run_view_type": "ALL",
                "max_results": 1000,
                **({"page_token": token} if token else {}),
            }
            request = urllib.request.Request(
                f"{uri}/api/2.0/mlflow/runs/search",
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request) as answer:
                content = answer.read()
            size += len(content)
            found = _TOKEN.search(content, max(0, len(content) - 4096))
            if found is None:
                break
            token = found[1].decode()
    return size


@contextmanager
def served(database: Path, workers: int) -> Iterator[str]:
    """`mlflow server` on a SQLite file, as people start it, until it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (database.parent / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=database.parent, env=quiet, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health").close()
                break
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def write_files(database: Path, number: int) -> None:
    """One small file each for some runs, no two alike."""
    with closing(sqlite3.connect(database)) as connection:
        for (place,) in connection.execute("SELECT artifact_uri FROM runs ORDER BY run_uuid LIMIT ?", (number,)):
            Path(place).mkdir(parents=True, exist_ok=True)
            (Path(place) / "metrics.json").write_text(json.dumps({"of": place}))


def write_traces(database: Path, number: int) -> None:
    """That ended long ago, all in one experiment."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status) "
            "VALUES (?, 1, ?, 5, 'OK')",
            ((f"tr-{index:032x}", START + index) for index in range(number)),
        )


def gate(timing: Timing, work: Path, uri: str, *, files: bool = False) -> None:
    command = [word for word in audit_command(work, uri) if not files or word != "--compliance-metadata-only"]
    add(timing, command, {"PYTHONDONTWRITEBYTECODE": "", "MLFLOW_TRACKING_URI": ""}, cwd=work, ends=(0, 1))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=100_000)
    arguments.add_argument("--experiments", type=int, default=100)
    arguments.add_argument("--files", type=int, default=12_000, help="runs that have a file")
    arguments.add_argument("--traces", type=int, default=1_000_000)
    arguments.add_argument("--more", type=int, default=1_000_000, help="runs of the second store; 0 for none")
    arguments.add_argument("--workers", type=int, default=4, help="of the server, as many as MLflow's own default")
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--folder", type=Path, help="keep the SQLite stores here, and use those that are there")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        folder: Path = given.folder or work
        told = {}
        stores = {runs: folder / f"runs-{runs}" / "mlflow.db" for runs in (given.runs, given.more) if runs}
        for runs, database in stores.items():
            if not database.exists():
                database.parent.mkdir(parents=True, exist_ok=True)
                fill(f"sqlite:///{database}", database.parent, runs, given.experiments)
        write_files(stores[given.runs], given.files)
        ids = [str(key) for key in range(given.experiments + 1)]
        chunks = [ids[start : start + 50] for start in range(0, len(ids), 50)]
        with served(stores[given.runs], given.workers) as uri:

            def requests(timing: Timing) -> None:
                begun = time.perf_counter()
                plain(uri, chunks)
                timing.seconds.append(time.perf_counter() - begun)

            told |= alternately(
                given.rounds,
                {
                    "plain requests": requests,
                    "metadata gate": lambda timing: gate(timing, work, uri),
                    "whole gate": lambda timing: gate(timing, work, uri, files=True),
                },
            )
            again = alternately(3, {"metadata gate, again": lambda timing: gate(timing, work, uri)})
            write_traces(stores[given.runs], given.traces)
            told |= again | alternately(3, {"with traces": lambda timing: gate(timing, work, uri)})
        if given.more:
            with served(stores[given.more], given.workers) as uri:
                told |= alternately(3, {"more runs": lambda timing: gate(timing, work, uri)})
    plainly, first = told["plain requests"].median, told["metadata gate, again"].median
    print(table(told, plainly))
    every, store = f"{given.runs:,} runs", "through `mlflow server`"
    against = ("the plain paged requests, nothing parsed", plainly)
    claims = [
        claim(f"metadata of {every} {store}", "the gate", told["metadata gate"].median, *against, 1 / 40),
        claim(
            f"all rules, {given.files:,} of {every} with files, {store}",
            "the gate",
            told["whole gate"].median,
            *against,
            0.6,
        ),
        claim(
            f"{given.traces:,} traces {store}",
            "the metadata gate",
            told["with traces"].median,
            "without them",
            first,
            1.1,
        ),
    ]
    if given.more:
        claims.append(
            claim(
                f"{given.more:,} against {every} {store}",
                "the metadata gate",
                told["more runs"].median,
                f"on {every}",
                first,
                1.5,
            )
        )
    about = (
        f"`mlflow server` with {given.workers} workers on SQLite, {given.experiments} experiments; the plain requests "
        "are asked one at a time. The metadata gate asks by filters; the one with files goes through all runs, four "
        "searches at a time."
    )
    write(
        given.out,
        {"benchmark": "rest", "about": about, "runs": given.runs, "timings": recorded(told), "claims": claims},
    )


if __name__ == "__main__":
    sys.exit(main())
