"""The change that logs a production run with its model, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlflow_compliance.changes.base import Applicability, Change, dump, experiment_in
from mlflow_compliance.changes.made import Digests, changed_rows, got_other, version_made_of
from mlflow_compliance.changes.runs import recount, without_runs
from mlflow_compliance.changes.symbols import JOURNAL
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.production.metadata import MODEL_FILES
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import (
    ACTIVE,
    DatasetInput,
    Experiment,
    LoggedModel,
    MetricPoint,
    ModelLink,
    ModelMetric,
    Run,
)
from mlflow_compliance.snapshot.evidence import Digest
from mlflow_compliance.snapshot.files import (
    METADATA,
    MLMODEL,
    UNKNOWN_SIZE,
    WRITTEN_ANEW,
    ArtifactFile,
    ModelFolder,
    in_folder,
)
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import (
    BUILD,
    BUILT_FOR,
    BUILT_IN,
    COMPLETE_BUILD,
    COPY_STATE,
    DATA_CONTEXT,
    GIT_COMMIT,
    METADATA_HASH,
    RETRACTED,
    RUN_NAME,
    USER,
)

Files = tuple[tuple[str, int, str], ...]
"""(path, size in bytes, SHA-256 in hex) of files, relative to their folder."""


@dataclass(frozen=True)
class LogProductionRun(Change):
    """Log a run with everything that the settings want of a production run, from a bundle that was built beside the
    store.

    `at` is its start, end and the time of its metrics, in milliseconds; `metadata` the text of its model_metadata.json,
    which may hold symbols.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "production run{s} logged"

    product: str
    name: str
    experiment_id: str
    at: int
    user: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    datasets: tuple[DatasetInput, ...]
    model_name: str
    bundle: str
    files: Files
    model_files: Files
    metadata: str

    @property
    def entity(self) -> EntityRef:
        return EntityRef("run", self.run_id)

    @property
    def run_id(self) -> str:
        """The symbol for the id that MLflow will give to it."""
        return f"⟨production run of {self.product}⟩"

    @property
    def model_id(self) -> str:
        """The symbol for the id of its logged model."""
        return f"⟨production model of {self.product}⟩"

    @property
    def mlmodel_hash(self) -> str:
        """The symbol for the hash of its MLmodel, which names the ids."""
        return f"⟨sha256 of MLmodel of {self.product}⟩"

    @property
    def metadata_hash(self) -> str:
        """The symbol for the hash of its model_metadata.json, which names the ids too."""
        return f"⟨sha256 of model_metadata.json of {self.product}⟩"

    def describe(self) -> str:
        counted = (
            f"{len(self.params)} params, {len(self.metrics)} metrics, {len(self.files) + 1} artifacts and "
            "its MLflow model"
        )
        return f"log production run {self.name!r} into experiment {self.experiment_id}, in one go, with {counted}"

    def all_tags(self) -> dict[str, str]:
        """Its tags when it is complete."""
        own = {USER: self.user, RUN_NAME: self.name}
        made = {BUILT_FOR: self.product, BUILT_IN: JOURNAL, BUILD: COMPLETE_BUILD, METADATA_HASH: self.metadata_hash}
        return {**own, **self.tags, **made}

    def points(self) -> dict[str, tuple[MetricPoint, ...]]:
        return {key: (MetricPoint(value, self.at, 0),) for key, value in self.metrics.items()}

    def made_in(self, location: str) -> tuple[Run, LoggedModel]:
        """The run and its model in an experiment at a location."""
        run = Run(
            run_id=self.run_id,
            experiment_id=self.experiment_id,
            name=self.name,
            status="FINISHED",
            lifecycle=ACTIVE,
            start_time=self.at,
            end_time=self.at,
            user=self.user,
            artifact_uri=f"{location}/{self.run_id}/artifacts",
            params=self.params,
            tags=self.all_tags(),
            metrics=self.points(),
            datasets=tuple(sorted(self.datasets)),
            models=(ModelLink("output", self.model_id, 0),),
        )
        model = LoggedModel(
            model_id=self.model_id,
            experiment_id=self.experiment_id,
            name=self.model_name,
            lifecycle=ACTIVE,
            status="READY",
            source_run_id=self.run_id,
            artifact_location=f"{location}/models/{self.model_id}/artifacts",
            params=self.params,
            tags={BUILT_IN: JOURNAL},
            metrics=tuple(
                ModelMetric(key, value, self.at, 0, *self.measured_on()) for key, value in sorted(self.metrics.items())
            ),
        )
        return run, model

    def predict(self, snapshot: Snapshot) -> Snapshot:
        target = experiment_in(snapshot, self.experiment_id)
        run, model = self.made_in(target.artifact_location)
        after = snapshot.with_experiment(recount(target, None, (ACTIVE, run.status))).with_run(run)
        after = replace(after, logged_models={**after.logged_models, model.model_id: model})
        if after.artifacts is None:
            return after
        artifacts, folder = self._files(after.artifacts, target, run, model)
        after = replace(after, artifacts=artifacts)
        source = snapshot.sources.get(self.product) if self.product in snapshot.sources else None
        if after.evidence is None or source is None or source.bundle is None:
            return after
        home, document = artifacts.locations[run.ref.place], json.loads(self.metadata)
        digests = {f"{home}/{path}": Digest(digest) for path, _, digest in self.files}
        digests |= {f"{folder}/{path}": Digest(digest) for path, _, digest in self.model_files}
        digests |= {
            f"{home}/{METADATA}": Digest(self.metadata_hash),
            f"{folder}/{MLMODEL}": Digest(self.mlmodel_hash),
        }
        return replace(after, evidence=after.evidence.with_run(self.run_id, folder, source.bundle, document, digests))

    def measured_on(self) -> tuple[str, str]:
        """Name and digest of the dataset that its metrics were measured on."""
        found = next((item for item in self.datasets if (DATA_CONTEXT, "evaluation") in item.tags), None)
        return (found.name, found.digest) if found else ("", "")

    def _files(self, artifacts: Artifacts, target: Experiment, run: Run, model: LoggedModel) -> tuple[Artifacts, str]:
        """The artifacts with those of the run, and the folder of its model."""
        home = artifacts.locations.get(target.ref.place)
        if home is None:
            raise ChangeError(
                f"the artifacts of experiment {target.experiment_id} cannot be reached from here: nothing can be "
                "logged into it"
            )
        locations, files, hashes = dict(artifacts.locations), {}, {}
        named = (*self.files, (METADATA, UNKNOWN_SIZE, ""))
        folders = {run.ref: home + run.artifact_uri[len(target.artifact_location) :]}
        folders[model.ref] = home + model.artifact_location[len(target.artifact_location) :]
        for owner, listed in ((run.ref, named), (model.ref, self.model_files)):
            locations[owner.place] = folders[owner]
            for relative, size, digest in listed:
                path = os.path.join(folders[owner], relative)
                written = relative == MLMODEL or not digest
                files[path] = ArtifactFile(UNKNOWN_SIZE if written else size, f"own:{path}", owner, logged=True)
                if not written and in_folder(path):  # of an object the listing tells another digest
                    hashes[path] = digest
        folder = folders[model.ref]
        card = ModelFolder(folder, model.ref, (), (), model.artifact_location, "")
        found = artifacts.with_files(files, hashes)
        return replace(found, locations=locations, models={**artifacts.models, folder: card}), folder

    def lasting(self) -> dict[str, Any]:
        """Without its moment, its bundle's folder, the commit, and the hashes of the files that saving the same model
        gives others each time; what they are made from has its hash among the others.
        """
        plain = {key: value for key, value in dump(self).items() if key not in ("at", "bundle")}
        plain["tags"] = {key: value for key, value in self.tags.items() if key != GIT_COMMIT}
        plain["model_files"] = [[path] if path in WRITTEN_ANEW else [path, *facts] for path, *facts in self.model_files]
        document = json.loads(self.metadata)
        for item in document["artifacts"]:
            if item["path"].removeprefix(MODEL_FILES) in WRITTEN_ANEW and item["path"].startswith(MODEL_FILES):
                item.update(sha256="", size=0)
        return {**plain, "metadata": document}

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {
            "run_id": self.run_id,
            "model_id": self.model_id,
            "experiment_id": self.experiment_id,
            "metrics": dict(self.metrics),
        }


@dataclass(frozen=True)
class RetractProductionRun(Change):
    """Take back the production run that one journal built: soft-delete it and its model. What it was built from was
    never changed.

    `made` is what the run held when it was made, a digest for each part (none in journals of older versions);
    `folders` are those that were made for it.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "production run{s} taken back"

    product: str
    experiment_id: str
    journal: str
    made: Digests = ()
    folders: tuple[str, ...] = ()

    @property
    def entity(self) -> EntityRef:
        return EntityRef("product", self.product)

    def describe(self) -> str:
        return (
            f"soft-delete the production run of {self.product} in experiment {self.experiment_id} that "
            f"{self.journal} built"
        )

    def predict(self, snapshot: Snapshot) -> Snapshot:
        built = [
            run
            for run in snapshot.runs_of(self.experiment_id)
            if run.tags.get(BUILT_IN) == self.journal and run.tags.get(BUILT_FOR) == self.product
        ]
        for run in built:
            self._refuse_changed(run, snapshot)
        return without_runs(snapshot, built)

    def _refuse_changed(self, run: Run, snapshot: Snapshot) -> None:
        """Raise ChangeError where the rows say that somebody went on with the run."""
        if run.tags.get(BUILD) != COMPLETE_BUILD or run.tags.get(COPY_STATE) == RETRACTED:
            return  # it was broken off, as its making or as its taking back
        models = snapshot.models_of(run.run_id)
        symbol = f"⟨production model of {self.product}⟩"
        ids = {model.model_id: symbol for model in models if BUILT_IN in model.tags}
        changed = changed_rows(self.made, run, models, ids)
        what = f"the production run of {self.product} that {self.journal} built"
        if changed:
            raise ChangeError(got_other(what, run.run_id, changed))
        relied = version_made_of(snapshot, run.run_id, models)
        if relied:
            raise ChangeError(f"{what}, run {run.run_id}, stays: {relied}")

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"product": self.product, "journal": self.journal}, {}
