"""The effects of changes on production runs: logged from a bundle, whole or not at all, and marked as such when all
else was read back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from mlflow_compliance.changes import JOURNAL, LogProductionRun, RetractProductionRun, bind
from mlflow_compliance.changes.made import hash_of, rows_of
from mlflow_compliance.changes.production import Files
from mlflow_compliance.errors import ChangeError, StoreError
from mlflow_compliance.production.metadata import MODEL_FILES, as_text, problems_in
from mlflow_compliance.snapshot.files import METADATA, MLMODEL
from mlflow_compliance.snapshot.tags import (
    BUILD,
    BUILT_FOR,
    BUILT_IN,
    COMPLETE_BUILD,
    COPY_STATE,
    METADATA_HASH,
    RETRACTED,
    USER,
)
from mlflow_compliance.store.artifacts.duplicates import hash_file
from mlflow_compliance.store.storage import files
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.recorded_hashes import add_each
from mlflow_compliance.store.storage.shared_copies import on_record
from mlflow_compliance.store.storage.storages import is_remote, put, remote_path
from mlflow_compliance.store.storage.transfer import upload
from mlflow_compliance.store.store import Store
from mlflow_compliance.store.write.built import built
from mlflow_compliance.store.write.effects import OpenStore, inverse, write
from mlflow_compliance.store.write.errors import one_sentence
from mlflow_compliance.store.write.made import FILES, objects_in
from mlflow_compliance.store.write.mlflow_values import inputs_of, log_params
from mlflow_compliance.store.write.retract import Made, retract
from mlflow_compliance.store.write.taken_back import made_runs, new_folders, refuse_if_changed


@write.register(LogProductionRun)
def log_production_run(change: LogProductionRun, to: OpenStore) -> None:
    with one_sentence(f"production run {change.name!r} could not be logged"):
        to.binding.update(ProductionLogger(to.client, to.store, to.binding).log(change))


@inverse.register(LogProductionRun)
def undo_log_production_run(change: LogProductionRun, to: OpenStore) -> RetractProductionRun:
    folders: tuple[str, ...] = ()
    with suppress(ChangeError, StoreError, MlflowException):  # the logging itself says what is wrong
        folders = new_folders(to, change.experiment_id)
    # Who carries it out is a symbol in the plan.
    run, model = replace(change, user=to.bind(change.user)).made_in("")
    made = {**rows_of(run, [model], {}), FILES: _planned_files(change)}
    return RetractProductionRun(change.product, change.experiment_id, to.bind(JOURNAL), tuple(made.items()), folders)


def _planned_files(change: LogProductionRun) -> str:
    own, model = ({path: sha256 for path, _, sha256 in listed} for listed in (change.files, change.model_files))
    model.pop(MLMODEL, None)
    return hash_of([sorted(own.items()), sorted(model.items())])


@write.register(RetractProductionRun)
def retract_production_run(change: RetractProductionRun, to: OpenStore) -> None:
    where = f"tags.`{BUILT_IN}` = '{change.journal}' AND tags.`{BUILT_FOR}` = '{change.product}'"
    what = f"the production run of {change.product} that {change.journal} built"
    with one_sentence(f"{what} could not be taken back"):
        for run in made_runs(to, change.experiment_id, where, what):
            if run.data.tags.get(BUILD) == COMPLETE_BUILD and run.data.tags.get(COPY_STATE) != RETRACTED:
                refuse_if_changed(to, run, what, _changed_since(change, to, run))
            retract(to.client, to.store, run, Made(change.journal, BUILT_IN, change.folders))


def _changed_since(change: RetractProductionRun, to: OpenStore, run: Any) -> list[str]:
    """What is other about a production run than when it was built, in a word each."""
    run_id = run.info.run_id
    found, models = to.store.details([run_id])
    own = [model for model in models.values() if model.source_run_id == run_id]
    planned = {f"⟨production model of {change.product}⟩": model.model_id for model in own if BUILT_IN in model.tags}
    now = rows_of(found[run_id], own, {model_id: symbol for symbol, model_id in planned.items()})
    logger, tags = ProductionLogger(to.client, to.store, {}), found[run_id].tags
    home, *folders = map(logger.folder, [run.info.artifact_uri, *(model.artifact_location for model in own)])
    own_files, *held = [_hashes(to.store, folder) for folder in (home, *folders)]
    known = {METADATA: (own_files.pop(METADATA, ""), tags.get(METADATA_HASH))}
    for folder, listed in zip(folders, held, strict=True):
        path = f"{folder}/{MLMODEL}"
        written = listed.pop(MLMODEL, "")
        known[path] = written, on_record(to.store.folder, path) or written
    now[FILES] = hash_of([sorted(listed.items()) for listed in (own_files, *held)])
    changed = {name for name, then in change.made if now.get(name) != then}
    return sorted(changed | {FILES for one, other in known.values() if change.made and one != other})


def _hashes(store: Store, folder: str) -> dict[str, str]:
    """Path relative to a folder, or to one in an object store -> SHA-256 of the file."""
    if not is_remote(folder):
        return {str(item["path"]): str(item["sha256"]) for item in files.manifest_of(folder)}
    place = store.places.of(folder)
    found = {}
    for item in objects_in(store, folder):
        held = hashlib.sha256()
        for chunk in place.chunks(item.path, item.etag):
            held.update(chunk)
        found[item.path[len(folder) + 1 :]] = held.hexdigest()
    return found


@inverse.register(RetractProductionRun)
def undo_retract_production_run(change: RetractProductionRun, to: OpenStore) -> None:
    """It can be built again from what it was built from; one that was broken off is worth nothing."""


@dataclass(frozen=True)
class ProductionLogger:
    """Logs production runs into one store. `binding` gives the symbols in a run's texts their values."""

    client: MlflowClient
    store: Store
    binding: Mapping[str, str]

    def log(self, change: LogProductionRun) -> dict[str, str]:
        """Log the run and return symbol -> id for it and its model. A failure soft-deletes what was begun and
        raises.
        """
        journal = self.binding[JOURNAL]
        tags = {
            USER: bind(change.user, self.binding),
            BUILT_FOR: change.product,
            BUILT_IN: journal,
            BUILD: "incomplete",
        }
        run = self.client.create_run(change.experiment_id, start_time=change.at, run_name=change.name, tags=tags)
        run_id = str(run.info.run_id)
        try:
            model = self.client.create_logged_model(
                change.experiment_id,
                name=change.model_name,
                source_run_id=run_id,
                params=dict(change.params),
                tags={BUILT_IN: journal},
            )
            made = {change.run_id: run_id, change.model_id: str(model.model_id)}
            self._log_rows(change, run_id, str(model.model_id))
            home, folder = self.folder(run.info.artifact_uri), self.folder(model.artifact_location)
            with built(self.client, self.store, change) as (artifacts, described):
                self._place(artifacts, change.files, home)
                mlmodel = self._place_model(described, change, run_id, model, folder)
            made[change.mlmodel_hash] = hashlib.sha256(mlmodel).hexdigest()
            made[change.metadata_hash] = self._write_metadata(change, made, home, len(mlmodel))
            self._put_on_record(change, made, home, folder)
            self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
            self.client.set_terminated(run_id, status="FINISHED", end_time=change.at)
            self._read_back(change, run_id)
            # One call, and the last one: until then nothing calls it production.
            self.client.log_batch(
                run_id,
                tags=[RunTag(key, bind(value, {**self.binding, **made})) for key, value in change.all_tags().items()],
            )
        except BaseException:
            retract(self.client, self.store, run, Made(journal, BUILT_IN))
            raise
        return made

    def _log_rows(self, change: LogProductionRun, run_id: str, model_id: str) -> None:
        log_params(self.client, run_id, change.params)
        name, digest = change.measured_on()
        self.client.log_batch(
            run_id,
            metrics=[
                Metric(
                    key,
                    value,
                    change.at,
                    0,
                    model_id=model_id,
                    dataset_name=name or None,
                    dataset_digest=digest or None,
                    run_id=run_id,
                )
                for key, value in change.metrics.items()
            ],
        )
        self.client.log_inputs(run_id, inputs_of(change.datasets))
        self.client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])

    def _place(self, folder: str, listed: Files, target: str) -> None:
        for relative, _, digest in listed:
            source, path = os.path.join(folder, relative), os.path.join(target, relative)
            if is_remote(target):
                if hash_file(source) != digest:
                    raise ChangeError(f"{source} does not hold what was planned with any more: run again to plan anew")
                upload(self.store.places, source, path)
                continue
            files.place(source, path)
            if hash_file(path) != digest:
                raise ChangeError(f"{source} does not hold what was planned with any more: run again to plan anew")

    def _place_model(self, source: str, change: LogProductionRun, run_id: str, model: Any, folder: str) -> bytes:
        """Gives back what was written to MLmodel."""
        self._place(source, tuple(item for item in change.model_files if item[0] != MLMODEL), folder)
        # MLmodel names the run, the model and the place that it belongs to: known only now.
        described = Model.load(os.path.join(source, MLMODEL))
        described.run_id, described.model_id, described.model_uuid = run_id, model.model_id, model.model_id
        described.artifact_path = model.artifact_location
        content: bytes = described.to_yaml().encode()
        self._write(os.path.join(folder, MLMODEL), content)
        return content

    def _write_metadata(self, change: LogProductionRun, made: Mapping[str, str], home: str, size: int) -> str:
        """Gives back its hash. `size` is that of MLmodel with the ids, in bytes."""
        document = json.loads(bind(change.metadata, {**self.binding, **made}))
        for item in document["artifacts"]:
            if item["path"] == f"{MODEL_FILES}{MLMODEL}":
                item["size"] = size
        problems = problems_in(document)
        if problems:
            raise ChangeError(f"{METADATA} would not keep its own schema: {problems[0]}")
        content = as_text(document).encode()
        self._write(os.path.join(home, METADATA), content)
        return hashlib.sha256(content).hexdigest()

    def _put_on_record(self, change: LogProductionRun, made: Mapping[str, str], home: str, folder: str) -> None:
        """The hash of every file beside the journals. Of objects the listing tells another digest."""
        found = {f"{home}/{path}": digest for path, _, digest in change.files}
        found |= {f"{folder}/{path}": digest for path, _, digest in change.model_files}
        found |= {
            f"{home}/{METADATA}": made[change.metadata_hash],
            f"{folder}/{MLMODEL}": made[change.mlmodel_hash],
        }
        if not is_remote(home):
            add_each(self.store.folder, found)

    def _write(self, path: str, content: bytes) -> None:
        if is_remote(path):
            put(self.store.places, path, content)
        else:
            files.write_new(path, content)

    def _read_back(self, change: LogProductionRun, run_id: str) -> None:
        """Compare the run, read anew, with what it should be; a difference takes it back."""
        found, models = self.store.details([run_id])
        run = found[run_id]
        wrong = [
            name
            for name, expected, actual in (
                ("params", dict(change.params), dict(run.params)),
                ("metrics", change.points(), dict(run.metrics)),
                ("datasets", tuple(sorted(change.datasets)), run.datasets),
                ("logged models", [change.model_name], [model.name for model in models.values()]),
            )
            if expected != actual
        ]
        if wrong:
            raise ChangeError(f"run {run_id} differs from what was planned in {', '.join(wrong)}: it was taken back")

    def folder(self, uri: str) -> str:
        found = remote_path(uri) if is_remote(uri) else local_folder(uri, self.store.backend.home)
        if found is None:
            raise ChangeError(f"{uri} is no place that this version writes to: a production run cannot be logged there")
        return found
