"""A metadata audit through `mlflow server`, as a process, against the plain paged REST requests that bring the same
runs, nothing parsed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from metadata import audit_command, fill
from timing import Timing, add, alternately, claim, recorded, table, write

from mlflow_compliance.store.evidence.tracking_server import tracking_server

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


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--runs", type=int, default=100_000)
    arguments.add_argument("--experiments", type=int, default=100)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument("--folder", type=Path, help="keep a SQLite store here, and use the one that is there")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        folder: Path = given.folder or work
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "mlflow.db").exists():
            fill(f"sqlite:///{folder}/mlflow.db", folder, given.runs, given.experiments)
        with tracking_server(f"{folder}/mlflow.db") as uri:
            # As many experiments in one request as the audit asks for: what the server has to do is the same.
            ids = [str(key) for key in range(given.experiments + 1)]
            chunks = [ids[start : start + 50] for start in range(0, len(ids), 50)]

            def requests(timing: Timing) -> None:
                begun = time.perf_counter()
                plain(uri, chunks)
                timing.seconds.append(time.perf_counter() - begun)

            def audit(timing: Timing) -> None:
                add(
                    timing,
                    audit_command(work, uri),
                    {"PYTHONDONTWRITEBYTECODE": "", "MLFLOW_TRACKING_URI": ""},
                    cwd=work,
                    ends=(0, 1),
                )

            timings = alternately(given.rounds, {"plain requests": requests, "audit": audit})
    ours, theirs = timings["audit"], timings["plain requests"]
    print(table(timings, theirs.median))
    work, plainly = (
        f"metadata of {given.runs:,} runs through `mlflow server`",
        "the plain paged requests, nothing parsed",
    )
    told = claim(work, "the gate", ours.median, plainly, theirs.median, 1.2)
    record = recorded(timings)
    about = (
        f"Both sides ask one server of one process for {given.runs:,} runs; the gate also lists models and "
        "traces, and runs the metadata rules."
    )
    write(given.out, {"benchmark": "rest", "about": about, "runs": given.runs, "timings": record, "claims": [told]})


if __name__ == "__main__":
    sys.exit(main())
