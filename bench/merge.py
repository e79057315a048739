"""`--fix` merging an experiment with artifacts, against mlflow-export-import's export and import of the same runs
(databricks-mlflow-export-import).

What both keep is compared; the target is 0.2 times its time. Starting the tracking server that the import needs is not
counted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from merge_kept import held, kept
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, LoggedModelStatus, Metric, Param, RunTag
from mlflow.server.constants import ARTIFACT_ROOT_ENV_VAR, BACKEND_STORE_URI_ENV_VAR
from timing import Timing, add, recorded, table, version_of, write

HERE = Path(__file__).parent
START = 1_750_000_000_000
SETTINGS = """[[products]]
name = "credit"
primary = "credit_delivery"
experiments = ["credit_*"]
production_names = ["*_production", "*_delivery"]
"""
SHARED = bytes(range(250)) * 20
"""5 kB that every run logged: the duplicate."""
MODEL_EVERY = 5
BELOW = """import runpy, sys
sys.path.append(sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)"""
"""Runs a module out of a folder of packages that come after those of the interpreter."""
VERSION = (
    "import sys; sys.path += sys.argv[1:]; from importlib.metadata import version; "
    "print(version('databricks-mlflow-export-import'))"
)
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_TRACKING_URI": "",
    "PYTHONDONTWRITEBYTECODE": "",
}


def build(folder: Path, runs: int) -> None:
    """A store whose experiment credit_production rivals credit_delivery, built with MLflow itself."""
    folder.mkdir(parents=True)
    (folder / "compliance.toml").write_text(SETTINGS)
    client = MlflowClient(tracking_uri=uri_of(folder))
    primary, rival = (
        client.create_experiment(name, artifact_location=str(folder / "mlruns" / name))
        for name in ("credit_delivery", "credit_production")
    )
    kept = client.create_run(primary, start_time=START, run_name="in force", tags={"mlflow.user": "ann"})
    client.set_terminated(kept.info.run_id, end_time=START + 1000)
    for number in range(runs):
        _run(client, rival, number)


def _run(client: MlflowClient, rival: str, number: int) -> None:
    begun = START + 100_000 * number
    tags = {
        "mlflow.user": "ann",
        "mlflow.source.name": "train.py",
        **{f"tag{n}": f"value {n} of {number}" for n in range(5)},
    }
    run = client.create_run(rival, start_time=begun, run_name=f"run {number}", tags=tags)
    run_id = run.info.run_id
    metrics = [
        Metric(f"metric{key}", (number * 31 + key * 7 + step) % 101 / 100, begun + 100 * step, step)
        for key in range(10)
        for step in range(20)
    ]
    client.log_batch(
        run_id,
        metrics=metrics,
        params=[Param(f"param{key}", str(number * key)) for key in range(10)],
        tags=[RunTag("more", "1")],
    )
    data = Dataset(
        "applicants", f"d{number % 3}", "local", '{"uri": "applicants.parquet"}', '{"columns": ["a"]}', '{"rows": 10}'
    )
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "train")])])
    write_files(
        Path(run.info.artifact_uri),
        {
            "data/shared.bin": SHARED,
            "notes.txt": b"%d" % number,
            "own.bin": b"%08d" % number * 300,
            "log/out.txt": b"done\n" * 20,
        },
    )
    if number % MODEL_EVERY == 0:
        model = client.create_logged_model(
            rival, name="model", source_run_id=run_id, params={"depth": "3"}, model_type="clf", tags={"made": "here"}
        )
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        place, key = model.artifact_location, model.model_id
        text = (
            f"artifact_path: {place}\nflavors:\n  own:\n    data: model.bin\nmodel_id: {key}\nmodel_uuid: "
            f"{key}\nrun_id: {run_id}\n"
        )
        write_files(Path(model.artifact_location), {"MLmodel": text.encode(), "model.bin": b"%06d" % number * 500})
        # Without a metric and a tag of the model the other program's import stops.
        own = Metric(
            "metric0",
            0.5,
            begun + 9000,
            90,
            model_id=model.model_id,
            dataset_name=data.name,
            dataset_digest=data.digest,
        )
        client.log_batch(run_id, metrics=[own])
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.set_terminated(run_id, end_time=begun + 60_000)


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def uri_of(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


class Others:
    """mlflow-export-import, as an interpreter that has it or a folder of packages with it."""

    def __init__(self, where: str) -> None:
        self.start = [sys.executable, "-c", BELOW, where] if Path(where).is_dir() else [where, "-m"]
        asking = [sys.executable, "-c", VERSION, where] if Path(where).is_dir() else [where, "-c", VERSION]
        self.version = version_of(*asking)
        if not self.version[:1].isdigit():
            sys.exit(
                "mlflow-export-import is not there: pip install databricks-mlflow-export-import, or name its place "
                "with --export-import"
            )

    def export_runs(self, into: Timing, folder: Path, target: Path) -> None:
        self._run(
            into, uri_of(folder), "export_experiment", "--experiment", "credit_production", "--output-dir", str(target)
        )

    def import_runs(self, into: Timing, server: str, source: Path) -> None:
        self._run(into, server, "import_experiment", "--experiment-name", "credit_imported", "--input-dir", str(source))

    def _run(self, into: Timing, uri: str, verb: str, *options: str) -> None:
        add(
            into,
            [*self.start, f"mlflow_export_import.experiment.{verb}", *options],
            {**QUIET, "MLFLOW_TRACKING_URI": uri},
        )


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a tracking server of one process on the store itself: the import does not write to SQLite."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "--fd",
            str(listening.fileno()),
            "--log-level",
            "warning",
            "mlflow.server.fastapi_app:app",
        ]
        own = {
            BACKEND_STORE_URI_ENV_VAR: uri_of(folder),
            ARTIFACT_ROOT_ENV_VAR: str(folder / "mlruns"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
        with (folder / "server.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **QUIET, **own},
                pass_fds=[listening.fileno()],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    try:
        with urllib.request.urlopen(f"{url}/ajax-api/2.0/mlflow/experiments/search?max_results=1", timeout=120):
            yield url
    finally:
        process.kill()
        process.wait()


def fixing(folder: Path) -> Callable[[Timing], None]:
    """Our side: the whole pytest process."""
    ini = folder.parent / "pytest.ini"
    ini.write_text(f"[pytest]\ncompliance_fixers = {HERE.parent / 'fixers'}\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "--import-mode=importlib",
        f"--rootdir={folder.parent}",
        "-c",
        str(ini),
    ]
    command += [
        str(HERE.parent / "policies"),
        f"--tracking-uri={uri_of(folder)}",
        f"--compliance-config={folder / 'compliance.toml'}",
    ]
    return lambda into: add(into, [*command, "--fix", "--compliance-rules=EXP001"], QUIET, cwd=folder.parent)


def sizes(found: dict[str, list[int]]) -> str:
    return "\n".join(f"    {name:44} {there:>9} {again:>9}" for name, (there, again) in found.items())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path, help="where the store is, or is made")
    arguments.add_argument("--runs", type=int, default=1000)
    arguments.add_argument("--rounds", type=int, default=1)
    arguments.add_argument(
        "--export-import",
        default=sys.executable,
        help="an interpreter that has mlflow-export-import, or a folder of packages with it",
    )
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    others = Others(given.export_import)
    work: Path = given.folder.absolute() / f"merge{given.runs}"
    store, whole, exported = work / "store", work / "as-built", work / "exported"
    if not whole.exists():
        # Built where it is used, since its rows name that place, and kept beside it.
        shutil.rmtree(work, ignore_errors=True)
        build(store, given.runs)
        shutil.copytree(store, work / "half")
        (work / "half").rename(whole)
    source = held(whole / "mlflow.db", "credit_production")
    fix, told = fixing(store), {}

    def reset() -> None:
        for folder in (store, exported):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, store)
        os.sync()

    def ours(into: Timing) -> None:
        reset()
        fix(into)
        told["ours"] = kept(source, held(store / "mlflow.db", "credit_delivery", but="in force"))

    def theirs(into: Timing) -> None:
        reset()
        parts = Timing()
        others.export_runs(parts, store, exported)
        with served(store) as server:
            others.import_runs(parts, server, exported)
        into.seconds.append(sum(parts.seconds))
        into.peak_bytes = max(into.peak_bytes, parts.peak_bytes)
        told["theirs"] = kept(source, held(store / "mlflow.db", "credit_imported"))

    timings = {"ours: --fix": Timing(), "export and import": Timing()}
    for _ in range(given.rounds):
        # No round to warm up: either side has just had its store copied, and takes long.
        ours(timings["ours: --fix"])
        theirs(timings["export and import"])
    again = Timing()
    with served(store) as server:
        others.import_runs(again, server, exported)
    theirs_twice = held(store / "mlflow.db", "credit_imported")["runs"].total()
    ours(Timing())
    fix(again)
    ours_twice = held(store / "mlflow.db", "credit_delivery", but="in force")["runs"].total()
    mine, other = timings["ours: --fix"], timings["export and import"]
    print(table(timings, other.median))
    print("what was there, and how much of it is there again after ours:", sizes(told["ours"]), sep="\n")
    print("... after export and import:", sizes(told["theirs"]), sep="\n")
    print(f"runs after a second time: {ours_twice} and {theirs_twice} of {given.runs}")
    lost = [name for name, (there, back) in told["ours"].items() if there != back]
    if lost or ours_twice != given.runs:
        sys.exit(f"the merge did not keep all of: {', '.join(lost) or 'the number of runs'}")
    losses = ", ".join(
        f"{name} ({back:,} of {there:,})" for name, (there, back) in told["theirs"].items() if there != back
    )
    claim = {
        "work": f"merging {given.runs:,} runs with artifacts",
        "ours": f"`--fix`, {mine.median:.1f} s",
        "against": f"mlflow-export-import, {other.median:.1f} s",
        "ratio": mine.median / other.median,
        "target": 0.2,
    }
    about = (
        f"Both sides get {given.runs:,} runs with 200 metric points, a dataset and files each, every fifth with a "
        "logged model, "
        f"from a fresh copy of one store in SQLite. Starting the tracking server for the import is not counted. "
        f"Export and import does not bring back: {losses or 'nothing'}; "
        f"done twice it leaves {theirs_twice:,} runs, the merge {ours_twice:,}."
    )
    write(
        given.out,
        {
            "benchmark": "merge",
            "about": about,
            "runs": given.runs,
            "programs": {"mlflow-export-import": others.version},
            "timings": recorded(timings),
            "kept": told,
            "claims": [claim],
        },
    )


if __name__ == "__main__":
    main()
