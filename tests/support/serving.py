"""Stores with a real production model for tests, and the processes that serve it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import requests
from lightgbm import LGBMClassifier
from mlflow import MlflowClient

from mlflow_compliance.loader.load import HASH_OF_PICKLE
from mlflow_compliance.store.write.registry import default_store

EXAMPLE = Path(__file__).parents[2] / "examples" / "credit_scoring"
FEATURES = (EXAMPLE / "features.txt").read_text(encoding="utf-8").split()
NAME, ALIAS = "credit_model", "production"
SETTINGS = f"""
[store]
tracking_uri = "sqlite:///mlflow.db"
busy_timeout = 0.0
[[products]]
name = "credit"
primary = "credit_delivery"
experiments = ["credit_*"]
[products.production]
registered_model = "{NAME}"
alias = "{ALIAS}"
"""
QUICKLY = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
}
_DEADLINE = 120.0


@dataclass(frozen=True)
class Logged:
    """A production run that was logged, and what it was built from."""

    run_id: str
    model_id: str
    version: str
    pickled: bytes


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


class Constant:
    """Gives one value for every row, as a model of no library would."""

    def __init__(self, value: float) -> None:
        self.value = value

    def predict(self, frame: pd.DataFrame) -> Any:
        return np.full(len(frame), self.value)


def _load_pyfunc(path: str) -> Constant:
    """MLflow's way to a model of no library: this module is named as its loader."""
    return Constant(json.loads(Path(path).read_text(encoding="utf-8")))


def applicants(rows: int, seed: int = 7) -> pd.DataFrame:
    """Numbers under the names of the example's features, some of them missing."""
    dice = np.random.default_rng(seed)
    values = dice.normal(size=(rows, len(FEATURES)))
    values[dice.random(values.shape) < 0.05] = np.nan
    return pd.DataFrame(values, columns=FEATURES)


@cache
def fitted(seed: int) -> LGBMClassifier:
    frame = applicants(300, seed)
    outcome = (frame[FEATURES[seed]].fillna(0) + frame[FEATURES[seed + 1]].fillna(0) > 0).astype(int)
    return LGBMClassifier(n_estimators=4, num_leaves=6, n_jobs=1, random_state=seed, verbosity=-1).fit(frame, outcome)


def expected(seed: int, frame: pd.DataFrame) -> list[float]:
    return [float(value) for value in fitted(seed).predict_proba(frame)[:, 1]]


def log_production(tracking_uri: str, experiment_id: str, seed: int, *, threshold: str = "0.4") -> Logged:
    """Log a production run as a team does, register its model and move the alias to it."""
    model = fitted(seed)
    pickled = pickle.dumps(model)
    with default_store(tracking_uri):
        tags = {"stage": "production", HASH_OF_PICKLE: hashlib.sha256(pickled).hexdigest()}
        with mlflow.start_run(experiment_id=experiment_id, tags=tags) as run:
            mlflow.log_param("optimal_threshold", threshold)
            logged = mlflow.lightgbm.log_model(
                model, name="model", serialization_format="skops", pip_requirements=["lightgbm"]
            )
            with tempfile.TemporaryDirectory() as folder:
                # Without a folder MLflow gives that of a local store, and writes a file of its own into it.
                mlflow.artifacts.download_artifacts(logged.model_uri, dst_path=folder)
                mlflow.log_dict(metadata(Path(folder), "registered_model_meta"), "model_metadata.json")
        version = mlflow.register_model(logged.model_uri, NAME).version
        move_alias(tracking_uri, str(version))
    return Logged(run.info.run_id, logged.model_id, str(version), pickled)


def move_alias(tracking_uri: str, version: str) -> None:
    MlflowClient(tracking_uri, tracking_uri).set_registered_model_alias(NAME, ALIAS, version)


def metadata(folder: Path, *without: str) -> dict[str, Any]:
    """What a run records of the files of its model."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in without]
    return {
        "artifacts": [
            {
                "path": f"model/{path.relative_to(folder).as_posix()}",
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "size": path.stat().st_size,
            }
            for path in files
        ]
    }


class Server:
    """A process that answers at a port of its own; it can be stopped and started again there."""

    def __init__(self, folder: Path, *command: str, ready: str = "/health", **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.ready = ready
        self.asking: dict[str, str] = {}
        """What requests needs to ask it over TLS."""
        self.folder = folder
        self.command = (sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(self.port))
        inherited = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
        self.environment = {**inherited, **QUICKLY, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        self.folder.mkdir(parents=True, exist_ok=True)
        log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        # A session of its own: a server's workers end with it.
        self.process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environment,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        log.close()
        return self

    def wait(self) -> Server:
        """Until it answers, whatever it says."""
        began, pause = time.monotonic(), threading.Event()
        while time.monotonic() - began < _DEADLINE:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                requests.get(self.url + self.ready, timeout=5, **self.asking)
            except requests.RequestException:
                pause.wait(0.05)
            else:
                return self
        log = (self.folder.parent / f"{self.folder.name}.log").read_text(encoding="utf-8", errors="replace")
        raise AssertionError(f"{self.command} does not answer:\n{log[-3000:]}")

    def stop(self) -> None:
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
            self._wait_for_workers()

    def _wait_for_workers(self) -> None:
        """Until the last worker, which is no child of ours, has let go of the port: before that, whoever asks is
        taken and cut off, not refused.
        """
        began, pause = time.monotonic(), threading.Event()
        while time.monotonic() - began < _DEADLINE:
            with socket.socket() as asking:
                if asking.connect_ex(("127.0.0.1", self.port)) == errno.ECONNREFUSED:
                    return
            pause.wait(0.02)
        raise AssertionError(f"{self.command} was killed and something still listens on its port {self.port}")

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=30)

    def post(self, path: str, body: Any = None) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=30)


def mlflow_server(folder: Path, database: Path) -> Server:
    """MLflow's own server on a database, with the artifacts behind it."""
    artifacts = str(folder / "mlartifacts")
    options = ("--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", artifacts, "--workers", "1")
    # Its job runner is seven more processes, which nobody here asks for anything.
    return Server(folder / "server", "mlflow", "server", *options, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")


def api(folder: Path, tracking_uri: str, **environment: str) -> Server:
    """The example's API, started as its README says."""
    options = ("uvicorn", "app:app", "--app-dir", str(EXAMPLE / "api"), "--log-level", "warning")
    return Server(folder, *options, MLFLOW_TRACKING_URI=tracking_uri, **environment)


def numbers(row: Mapping[str, float]) -> dict[str, float | None]:
    """A row as JSON has it: null where a value is missing."""
    return {name: None if value != value else float(value) for name, value in row.items()}


def serving_artifacts(database: str, kept: Path | str) -> dict[str, str]:
    """What `mlflow server --serve-artifacts --artifacts-destination` tells its app."""
    return {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(kept),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
