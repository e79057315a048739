"""Writing runs and models into an MLflow store so that every build of it comes out the same."""

from __future__ import annotations

import logging
import os
import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import mlflow.data
import mlflow.lightgbm
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, RunTag
from mlflow.models import Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.db.utils import _initialize_tables
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from store_history import RunSpec
from store_materials import Files

USER = "credit-team"
DATA_SOURCE = CodeDatasetSource(
    {"mlflow.user": USER, "mlflow.source.name": "src/data/prepare.py", "mlflow.source.type": "LOCAL"}
)
COMMIT = "9f1c2ab04d7e5b8836a1d0c4e7f2953b6a8d1e07"
REQUIREMENTS = [
    "lightgbm",
    "scikit-learn",
]  # given, so that MLflow does not load the model in another process to infer them


class Clock:
    """The time that MLflow sees during a build: it stands still until it is set."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def __call__(self) -> float:  # as time.time
        return self.moment.timestamp()


@contextmanager
def reproducible(seed: int, clock: Clock) -> Iterator[None]:
    """MLflow takes the ids of runs, models, datasets and inputs from uuid4, and the times of experiments and models
    from
    the clock, with no way to pass them: within this context both come from the seed and the history.
    """
    dice = random.Random(seed)

    def next_id() -> uuid.UUID:
        return uuid.UUID(int=dice.getrandbits(128), version=4)

    disabled = logging.root.manager.disable
    event.listen(Engine, "connect", _trade_durability_for_speed)
    try:
        with (
            mock.patch("uuid.uuid4", next_id),
            mock.patch("time.time", clock),
            # Telemetry would take ids from the same source, in a thread of its own.
            mock.patch.dict(os.environ, {"MLFLOW_DISABLE_TELEMETRY": "true"}),
        ):
            logging.disable(logging.WARNING)  # MLflow tells of every table that it makes
            yield
    finally:
        logging.disable(disabled)
        event.remove(Engine, "connect", _trade_durability_for_speed)


def _trade_durability_for_speed(connection: Any, _record: object) -> None:
    # Hundreds of small transactions: without waiting for the disk the build takes half as long. Holds for the
    # connection, not for the file.
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")


class StoreWriter:
    """One store: mlflow.db and mlruns/ in a folder."""

    def __init__(self, folder: Path, clock: Clock, train: Any) -> None:
        self.artifact_root = folder / "mlruns"
        self.clock = clock
        uri = f"sqlite:///{(folder / 'mlflow.db').as_posix()}"
        (folder / "mlflow.db").write_bytes(_empty_database())
        # A client alone would place Default in ./mlruns of whatever folder it is called from.
        self.store = SqlAlchemyStore(uri, self.artifact_root.as_posix())
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        data = mlflow.data.from_pandas(train.head(200), source=DATA_SOURCE, name="application_train_sample")
        self.training_data = DatasetInput(Dataset(**data.to_dict()), [InputTag("mlflow.data.context", "training")])

    def experiment(self, number: int, name: str, created: datetime) -> str:
        self.clock.moment = created
        identifier = self.client.create_experiment(
            name, artifact_location=(self.artifact_root / str(number)).as_posix()
        )
        if identifier != str(number):
            raise RuntimeError(f"experiment {name} got the id {identifier} instead of {number}")
        return str(number)

    def run(self, experiment_id: str, spec: RunSpec, booster: Any) -> None:
        end = spec.start + timedelta(minutes=spec.minutes)
        self.clock.moment = end
        tags = {"mlflow.user": USER, "mlflow.source.name": spec.source, "mlflow.source.git.commit": COMMIT, **spec.tags}
        tags["mlflow.source.type"] = "NOTEBOOK" if spec.source.endswith(".ipynb") else "LOCAL"
        run = self.client.create_run(experiment_id, start_time=_ms(spec.start), tags=tags, run_name=spec.name)
        run_id = run.info.run_id
        metrics = [
            Metric(key, value, _ms(spec.start + (step + 1) * (end - spec.start) / len(values)), step)
            for key, values in spec.metrics.items()
            for step, value in enumerate(values)
        ]
        self.client.log_batch(run_id, metrics=metrics, params=[Param(key, value) for key, value in spec.params.items()])
        if spec.reads_training_data:
            self.client.log_inputs(run_id, datasets=[self.training_data])
        if spec.files:
            with TemporaryDirectory() as staging:
                write_files(Path(staging), spec.files)
                _upload(staging, run.info.artifact_uri)
        if spec.model:
            self._model(experiment_id, run_id, spec, booster)
        self.client.set_terminated(run_id, status="FAILED" if spec.failed else "FINISHED", end_time=_ms(end))

    def _model(self, experiment_id: str, run_id: str, spec: RunSpec, booster: Any) -> None:
        """The steps of mlflow.lightgbm.log_model, taken one by one: that function writes the time of day into MLmodel
        and
        needs a tracking URI that is set for the whole process.
        """
        logged = self.client.create_logged_model(
            experiment_id, name=spec.model, source_run_id=run_id, params=spec.params, tags={"mlflow.user": USER}
        )
        self.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        at = self.clock.moment
        score = spec.metrics["mean_roc_auc"][0]
        dataset = self.training_data.dataset
        metric = Metric(
            "mean_roc_auc",
            score,
            _ms(at),
            0,
            model_id=logged.model_id,
            dataset_name=dataset.name,
            dataset_digest=dataset.digest,
        )
        self.client.log_batch(run_id, metrics=[metric], tags=[RunTag("model_logged", "true")])
        description = Model(
            artifact_path=logged.artifact_location,
            model_uuid=logged.model_id,
            run_id=run_id,
            model_id=logged.model_id,
            utc_time_created=at.replace(tzinfo=None),
        )
        with TemporaryDirectory() as staging:
            path = Path(staging) / "model"
            mlflow.lightgbm.save_model(booster, str(path), mlflow_model=description, pip_requirements=REQUIREMENTS)
            # MLflow takes this list from a set, whose order changes from process to process.
            (description.flavors["lightgbm"].get("skops_trusted_types") or []).sort()
            description.save(str(path / "MLmodel"))
            _upload(str(path), logged.artifact_location)
        self.client.finalize_logged_model(logged.model_id, status="READY")

    def close(self) -> None:
        self.store.engine.dispose()


def write_files(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@lru_cache(maxsize=1)
def _empty_database() -> bytes:
    """MLflow's tables, without Default: running all of MLflow's migrations takes as long as writing the runs, once
    is enough.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        engine = create_engine(f"sqlite:///{path.as_posix()}")
        _initialize_tables(engine)
        engine.dispose()
        return path.read_bytes()


def _upload(folder: str, artifact_uri: str) -> None:
    # Not client.log_artifacts: every client of a process shares one cache of artifact folders by run id, and two builds
    # have the same run ids, so the second store's artifacts would land in the first.
    get_artifact_repository(artifact_uri).log_artifacts(folder)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
