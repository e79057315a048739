"""Builds MLflow stores for tests, with MLflow itself, and reads them with the program."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import sqlite3
from collections.abc import Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlflow_compliance.changes import JOURNAL, NOW, Change, CopyRun, DeleteExperiment, dump, load
from mlflow_compliance.repair.expected import expected_after
from mlflow_compliance.settings.schema import Settings, load_settings
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.diff import differences
from mlflow_compliance.snapshot.files import ArtifactFile
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.store.store import Store, open_store
from mlflow_compliance.store.write.writer import StoreWriter

START = 1_750_000_000_000
"""The moment at which the runs of these stores begin, in milliseconds: June 2025."""
CREDIT = {
    "name": "credit",
    "primary": "credit_delivery",
    "experiments": ["credit_*"],
    "production_names": ["*_production", "*_delivery"],
    "production_tags": {"stage": "production"},
}
TEST_NAMES = ["test", "test_*", "test-*", "*_test", "*-test"]
"""The built-in ones, said by the team: only then is anything done about an experiment that is named so."""
BIG = bytes(range(256)) * 8
"""2 KiB: large enough to count as a duplicate under the default settings."""
TRAIN = Dataset("applicants", "d1", "local", '{"uri": "applicants.parquet"}', '{"columns": ["a"]}', '{"rows": 10}')
EVAL = Dataset("holdout", "d2", "code", '{"tags": {}}', None, None)


class Lab:
    """One SQLite store with its artifacts in a folder, and the program's view of it."""

    odd_name = "größe 1.csv"
    """An artifact of every rich run."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.mlruns = folder / "mlruns"
        self.database = folder / "mlflow.db"
        self.uri = f"sqlite:///{self.database}"
        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self.settings = settings
        self.store: Store = open_store(self.uri, settings, str(folder))

    @classmethod
    def new(cls, folder: Path, database: bytes, settings: Mapping[str, Any]) -> Lab:
        """A store with Default alone; `database` is that of an empty store somewhere else."""
        (folder / "mlruns").mkdir(parents=True)
        (folder / "mlflow.db").write_bytes(database)
        experiments = {"test_names": TEST_NAMES, **settings.get("experiments", {})}
        made = cls(folder, Settings.model_validate({"products": [CREDIT], **settings, "experiments": experiments}))
        made.sql("UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", str(made.mlruns / "0"))
        return made

    @classmethod
    def moved(cls, built: Path, folder: Path) -> Lab:
        """A copy of a store elsewhere, its rows pointing to the copied files, with the settings beside it."""
        shutil.copytree(built, folder)
        made = cls(folder, load_settings(folder / "compliance.toml"))
        places = {
            "experiments": "artifact_location",
            "runs": "artifact_uri",
            "logged_models": "artifact_location",
            "model_versions": "storage_location",
        }
        for table, column in places.items():
            made.sql(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", f"{built}/", f"{folder}/")
        return made

    def reload(self) -> None:
        """Take the settings from the compliance.toml that lies beside the store by now."""
        self.settings = load_settings(self.folder / "compliance.toml")
        self.store = open_store(self.uri, self.settings, str(self.folder))

    def sql(self, statement: str, *values: Any) -> None:
        """Set-up that MLflow has no call for."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(statement, values)

    def read(self, also: Collection[str] = (), *, artifacts: bool = True) -> Snapshot:
        return self.store.read(artifacts=artifacts, also=also)

    def everything(self, *, artifacts: bool = True) -> Snapshot:
        """The snapshot with every run in full."""
        ids = [run.info.run_id for key in self.read(artifacts=False).experiments for run in self.runs(key)]
        return self.read(ids, artifacts=artifacts)

    def runs(self, experiment_id: str) -> list[Any]:
        """Every run of an experiment, deleted ones too, as MLflow gives them."""
        return list(self.client.search_runs([experiment_id], run_view_type=3, max_results=1000))

    def experiment(self, name: str, **tags: str) -> str:
        number = max(map(int, self.read(artifacts=False).experiments)) + 1
        made = self.client.create_experiment(name, artifact_location=str(self.mlruns / str(number)), tags=tags)
        assert made == str(number)
        return str(made)

    def run(
        self,
        experiment_id: str,
        name: str = "run",
        *,
        start: int = START,
        status: str = "FINISHED",
        files: Mapping[str, bytes] | None = None,
        metrics: Mapping[str, float] | None = None,
        **tags: str,
    ) -> str:
        """A run that began at `start`; one that is not RUNNING ended a minute later."""
        made = self.client.create_run(
            experiment_id, start_time=start, run_name=name, tags={"mlflow.user": "ann", **tags}
        )
        run_id = str(made.info.run_id)
        if metrics:
            self.client.log_batch(
                run_id, metrics=[Metric(key, value, start + 1000, 0) for key, value in metrics.items()]
            )
        if files:
            self.upload(made.info.artifact_uri, files)
        if status != "RUNNING":
            self.client.set_terminated(run_id, status=status, end_time=start + 60_000)
        return run_id

    def upload(self, uri: str, files: Mapping[str, bytes]) -> None:
        """Log artifacts as MLflow's own artifact repository for that place does."""
        staging = self.folder / "staging"
        for name, content in files.items():
            path = staging / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        get_artifact_repository(uri, tracking_uri=self.uri).log_artifacts(str(staging))
        shutil.rmtree(staging)

    def folder_of(self, run_id: str) -> Path:
        """Where the artifacts of a run lie."""
        return Path(self.client.get_run(run_id).info.artifact_uri)

    def model(
        self,
        experiment_id: str,
        run_id: str,
        name: str = "model",
        *,
        files: Mapping[str, bytes] | None = None,
        **tags: str,
    ) -> str:
        """A logged model that a run wrote, with a small MLmodel that names its files and the ids that MLflow puts
        into it.
        """
        made = self.client.create_logged_model(
            experiment_id, name=name, source_run_id=run_id, params={"depth": "3"}, tags=tags, model_type="clf"
        )
        self.client.log_outputs(run_id, [LoggedModelOutput(made.model_id, 0)])
        self.upload(made.artifact_location, model_files(run_id, made.model_id, made.artifact_location, files or {}))
        self.client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
        return str(made.model_id)

    def location_of(self, model_id: str) -> Path:
        return Path(self.client.get_logged_model(model_id).artifact_location)

    def rich_run(self, experiment_id: str, name: str = "rich", *, base_in: str = "", **tags: str) -> str:
        """A run with everything that MLflow keeps of one: history with NaN and infinity, datasets, models, nested
        artifacts.

        A model that it reads is in the experiment `base_in`, in its own where that is empty.
        """
        run_id = self.run(experiment_id, name, status="RUNNING", note="größer <b>& 'quoted'", **tags)
        values = [0.5, math.nan, math.inf, -math.inf, 0.25, 0.25]
        history = [Metric("loss", value, START + 100 * step, step) for step, value in enumerate(values)]
        # The same step at the same moment, logged twice with two values.
        history += [Metric("loss", value, START + 900, 9) for value in (0.125, 0.0625)]
        self.client.log_batch(
            run_id, metrics=[*history, Metric("bad", math.nan, START, 0), Metric("count", -3, START, -1)]
        )
        self.client.log_batch(run_id, params=[Param("depth", "10"), Param("empty", ""), Param("text", "ä\n" * 50)])
        self.client.log_inputs(
            run_id,
            [
                DatasetInput(TRAIN, [InputTag("mlflow.data.context", "train"), InputTag("origin", "lab")]),
                DatasetInput(EVAL, [InputTag("mlflow.data.context", "eval")]),
            ],
        )
        first, second = (
            self.model(experiment_id, run_id, "twin", files={"weights.bin": BIG + bytes([n])}, number=str(n))
            for n in (1, 2)
        )
        self.client.log_batch(
            run_id,
            metrics=[
                # Both models with the same metric at the same moment, one of them on a dataset; and one that only half
                # shares its moment.
                Metric("auc", 0.75, START + 500, 0, model_id=first, dataset_name="holdout", dataset_digest="d2"),
                Metric("recall", 0.1, START + 600, 1),
                Metric("recall", 0.9, START + 600, 1, model_id=first),
                Metric("broken", math.nan, START + 700, 0, model_id=second),
            ],
        )
        # By itself: up to MLflow 3.12 a batch with one point for two models is refused.
        self.client.log_batch(run_id, metrics=[Metric("auc", 0.75, START + 500, 0, model_id=second)])
        read = self.client.create_logged_model(base_in or experiment_id, name="base", source_run_id=None)
        self.client.log_inputs(run_id, models=[LoggedModelInput(read.model_id)])
        uri = self.client.get_run(run_id).info.artifact_uri
        old_style = {
            f"model/{key}": value
            for key, value in model_files(run_id, "", "model", {"model.pkl": pickle.dumps({"weights": [1, 2]})}).items()
        }
        self.upload(
            uri,
            {
                "notes.txt": b"short",
                "empty.txt": b"",
                "data/big.bin": BIG,
                f"data/deep/er/{self.odd_name}": BIG * 2,
                **old_style,
            },
        )
        self.client.set_terminated(run_id, status="FINISHED", end_time=START + 60_000)
        return run_id

    def registered(self, name: str, source: str, run_id: str | None = None, alias: str = "", **tags: str) -> str:
        """A version of a registered model (made where it is not there yet), with an alias where one is given."""
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name, tags={"team": "risk"})
        # MLflow looks up a models:/ source in the store of the process, whatever the client.
        with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": self.uri}):
            version = self.client.create_model_version(name, source, run_id=run_id, tags=tags)
        if alias:
            self.client.set_registered_model_alias(name, alias, version.version)
        return str(version.version)

    def stray(self, name: str, files: Mapping[str, bytes]) -> Path:
        """A folder directly under mlruns/ that no row owns."""
        for relative, content in files.items():
            path = self.mlruns / name / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return self.mlruns / name

    def tag_run(self, run_id: str, **tags: str) -> None:
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def carry_out(
        self, *changes: Change, start: Snapshot | None = None, journal: str = "20250601T000000Z-abcdef"
    ) -> tuple[list[Change], Snapshot, dict[str, str]]:
        """Write changes, hold each to the law `read(write(store)) == on(read(store))`; their inverses, the store
        after, the binding.
        """
        binding = {JOURNAL: journal, NOW: "2025-06-01T00:00:00+00:00"}
        before = start or self.everything()
        writer = StoreWriter(self.store, binding)
        inverses = []
        for change in changes:
            inverse = writer.inverse(change)
            inverses += [inverse] if inverse else []
            writer.write(change)
        expected = expected_after(before, list(changes), binding)
        after = self.read(tuple(expected.runs))
        assert differences(expected, after) == []
        assert differing(expected, after) == []
        return inverses, after, binding


def there_and_back(lab: Lab, *changes: Change) -> tuple[Snapshot, dict[str, str]]:
    """Carry changes out and take them back, twice, all of it under the law: what is done again has a journal and ids
    of its own. The store after the first time, and its binding.
    """
    before, found = lab.everything(), []
    for journal in ("20250601T000000Z-abcdef", "20250602T000000Z-abcdef"):
        inverses, between, binding = lab.carry_out(*map(read_back, changes), journal=journal)
        assert differing(before, between), "the change changed nothing, so nothing was shown"
        _, after, _ = lab.carry_out(*map(read_back, reversed(inverses)))
        assert differing(before, lab.read(tuple(before.runs))) == []
        assert differences(before, after) == []
        found.append((between, binding))
    return found[0]


def read_back(change: Change) -> Change:
    """A change as a journal gives it back."""
    return load(json.loads(json.dumps(dump(change))))


def copy_change(lab: Lab, run_id: str, source: str, target: str, parent: str | None = None) -> CopyRun:
    """The change that copies a run from one experiment into another."""
    found = lab.read([run_id])
    return CopyRun(run_id, target, source, found.experiments[source].name, found.runs[run_id].user, parent)


def delete(lab: Lab, key: str) -> DeleteExperiment:
    """The change that soft-deletes an experiment as it is now."""
    return DeleteExperiment(key, lab.read(artifacts=False).experiments[key].count())


def without_production(lab: Lab) -> Lab:
    """The same store, its settings without what a production run is built from and must carry."""
    path = lab.folder / "compliance.toml"
    before, _, rest = path.read_text().partition("[products.production]")
    path.write_text(before + rest[rest.index("[experiments]") :])
    lab.reload()
    return lab


def model_files(run_id: str, model_id: str, place: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """A model folder with an MLmodel as MLflow writes it, naming its files."""
    names = files or {"model.pkl": b"weights"}
    flavors = "".join(f"  flavor{number}:\n    data: {name}\n" for number, name in enumerate(sorted(names)))
    text = (
        f"artifact_path: {place}\nflavors:\n{flavors}model_id: {model_id}\nmodel_uuid: {model_id}\nrun_id: {run_id}\n"
    )
    return {"MLmodel": text.encode(), **names}


def facts(snapshot: Snapshot) -> dict[str, Any]:
    """Everything of a snapshot that a plan predicts, with inodes told by the paths that share one and unknown sizes
    left out.
    """
    return {
        "experiments": dict(snapshot.experiments),
        "runs": dict(snapshot.runs),
        "logged_models": dict(snapshot.logged_models),
        "registered_models": dict(snapshot.registered_models),
        "repeated_points": dict(snapshot.repeated_points),
        **(_file_facts(snapshot.artifacts) if snapshot.artifacts else {}),
    }


def differing(expected: Snapshot, actual: Snapshot) -> list[str]:
    """Where two snapshots differ, one line each, by everything that a plan predicts."""
    one, other = facts(expected), facts(actual)
    return [
        f"{part} {key}: {one[part].get(key)} != {other[part].get(key)}"
        for part in one.keys() & other.keys()
        for key in one[part].keys() | other[part].keys()
        if one[part].get(key) != other[part].get(key)
    ]


def _file_facts(artifacts: Artifacts) -> dict[str, Any]:
    first: dict[str, str] = {}
    for path in sorted(artifacts.files):
        first.setdefault(artifacts.files[path].copy, path)
    return {
        "files": {
            path: (
                "any size" if os.path.basename(path) in ("MLmodel", "model_metadata.json", "model.sig") else file.size,
                first[file.copy],
                file.owner and (file.owner.kind, file.owner.key),
                file.logged,
            )
            for path, file in artifacts.files.items()
        },
        "pointers": dict(artifacts.pointers),
        "claimed": dict.fromkeys(artifacts.claimed, True),
        "ownerless": {path: (item.root, item.files, item.size) for path, item in artifacts.ownerless.items()},
        "quarantined": {
            path: (item.former, item.owner.place, item.problem, *_facts_of(item.files))
            for path, item in artifacts.quarantined.items()
        },
        "models": {
            path: (model.owner and (model.owner.kind, model.owner.key), model.missing, model.empty, model.artifact_path)
            for path, model in artifacts.models.items()
        },
    }


def _facts_of(files: Mapping[str, ArtifactFile]) -> list[Any]:
    return sorted((path, file.size, file.owner and file.owner.place, file.logged) for path, file in files.items())


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file at or below a folder, the database and its companions left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("mlflow.db")
    }
