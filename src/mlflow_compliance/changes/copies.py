"""Changes that copy a run into another experiment with everything it has, and that take a copy back."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mlflow_compliance.changes.base import Applicability, Change, experiment_in, run_in
from mlflow_compliance.changes.made import Digests, changed_rows, got_other, version_made_of
from mlflow_compliance.changes.runs import recount, without_runs
from mlflow_compliance.changes.symbols import JOURNAL, NOW, copy_of
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import (
    ACTIVE,
    ALWAYS,
    TERMINAL_STATUSES,
    DatasetInput,
    Experiment,
    LoggedModel,
    ModelLink,
    Run,
)
from mlflow_compliance.snapshot.files import MLMODEL, UNKNOWN_SIZE, ArtifactFile, ModelFolder, in_folder
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import (
    COMPLETE,
    COPIED_AT,
    COPIED_BY,
    COPY_STATE,
    INCOMPLETE,
    PARENT,
    RETRACTED,
    RUN_NAME,
    SOURCE_DATASETS,
    SOURCE_EXPERIMENT,
    SOURCE_MODEL,
    SOURCE_NAME,
    SOURCE_RUN,
    SOURCE_USER,
    SUPERSEDED,
    USER,
)

_FIELDS = ("source_type", "source", "schema", "profile")
"""What an experiment keeps of a dataset as it was first logged."""


@dataclass(frozen=True)
class CopyRun(Change):
    """Copy a run into another experiment with its times, parameters, tags, metric history, datasets, logged models and
    artifacts.

    `parent` is the id (or symbol) of the copy of its parent run, where the parent is copied too. `datasets` are those
    of its datasets that
    the experiment has already, with another source, schema or profile: MLflow keeps the first, so the copy gets these
    and a tag with its own.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "run{s} copied"

    run_id: str
    experiment_id: str
    source_experiment_id: str
    source_experiment_name: str
    source_user: str
    parent: str | None = None
    datasets: tuple[DatasetInput, ...] = ()

    @property
    def entity(self) -> EntityRef:
        return EntityRef("run", self.run_id)

    @property
    def copy_id(self) -> str:
        return copy_of("run", self.run_id)

    def describe(self) -> str:
        return (
            f"copy run {self.run_id} into experiment {self.experiment_id} with times, history, datasets, "
            "models and artifacts"
        )

    def new_tags(self) -> dict[str, str]:
        """The tags that say where the copy comes from."""
        tags = {
            SOURCE_RUN: self.run_id,
            SOURCE_EXPERIMENT: self.source_experiment_id,
            SOURCE_NAME: self.source_experiment_name,
            SOURCE_USER: self.source_user,
            COPIED_BY: JOURNAL,
            COPIED_AT: NOW,
            COPY_STATE: COMPLETE,
        }
        return {**tags, PARENT: self.parent} if self.parent else tags

    def predict(self, snapshot: Snapshot) -> Snapshot:
        return self.predict_all([self], snapshot)

    @classmethod
    def predict_all(cls, changes: Sequence[CopyRun], snapshot: Snapshot) -> Snapshot:
        """What `predict` gives for one change after the other, at the cost of one: a store is copied once, not once a
        run.
        """
        experiments, runs, logged = dict(snapshot.experiments), dict(snapshot.runs), dict(snapshot.logged_models)
        artifacts = snapshot.artifacts
        more = _MoreFiles(artifacts) if artifacts is not None else None
        for change in changes:
            source = run_in(snapshot, change.run_id)
            experiment_in(snapshot, change.experiment_id)
            target = experiments[change.experiment_id]
            models = {
                model.model_id: copy_model(model, change.copy_id, target) for model in snapshot.models_of(change.run_id)
            }
            copied = replace(
                planned_copy(source, change.new_tags(), change.datasets),
                run_id=change.copy_id,
                experiment_id=change.experiment_id,
                artifact_uri=f"{target.artifact_location}/{change.copy_id}/artifacts",
                models=tuple(sorted(_link(link, models) for link in source.models)),
            )
            experiments[change.experiment_id] = recount(target, None, (ACTIVE, source.status))
            runs[change.copy_id] = copied
            logged.update((model.model_id, model) for model in models.values())
            if more:
                olds = {key: snapshot.logged_models[key].artifact_location for key in models}
                more.copy(source, copied, models, olds, target)
        return replace(
            snapshot,
            experiments=experiments,
            runs=runs,
            logged_models=logged,
            artifacts=more.together() if more else artifacts,
        )

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {"run_id": self.copy_id, "experiment_id": self.experiment_id, "source_run_id": self.run_id}


@dataclass(frozen=True)
class RetractCopy(Change):
    """Take back the copy of a run that one journal made: soft-delete it and its logged models. Its source was never
    changed.

    `made` is what the copy held when it was made, a digest for each part (none in journals of older versions: then it
    is compared with its source); `folders` are those that were made for it.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "cop{y} of runs taken back"

    run_id: str
    experiment_id: str
    journal: str
    made: Digests = ()
    folders: tuple[str, ...] = ()

    @property
    def entity(self) -> EntityRef:
        return EntityRef("run", self.run_id)

    def describe(self) -> str:
        return f"soft-delete the copy of run {self.run_id} in experiment {self.experiment_id} that {self.journal} made"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        copies = [
            run
            for run in snapshot.runs_of(self.experiment_id)
            if run.tags.get(SOURCE_RUN) == self.run_id and run.tags.get(COPIED_BY) == self.journal
        ]
        for copy in copies:
            self._refuse_changed(copy, snapshot)
        return without_runs(snapshot, copies)

    def _refuse_changed(self, copy: Run, snapshot: Snapshot) -> None:
        """Raise ChangeError where the rows say that somebody went on with the copy, or that it is all that is left of
        its source.
        """
        state = copy.tags.get(COPY_STATE)
        if state in (INCOMPLETE, RETRACTED):
            return  # it was broken off, as its making or as its taking back
        source = snapshot.runs.get(self.run_id)
        if source is None or not source.active:
            raise ChangeError(f"run {self.run_id} is deleted or gone, so its copy {copy.run_id} stays")
        models = snapshot.models_of(copy.run_id)
        ids = {model.model_id: model.tags.get(SOURCE_MODEL, model.model_id) for model in models}
        changed = {*changed_rows(self.made, copy, models, ids), *(["tags"] if state != COMPLETE else [])}
        what = f"the copy of run {self.run_id} that {self.journal} made"
        if changed:
            raise ChangeError(got_other(what, copy.run_id, sorted(changed)))
        relied = version_made_of(snapshot, copy.run_id, models)
        if relied:
            raise ChangeError(f"{what}, run {copy.run_id}, stays: {relied}")

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"source_run_id": self.run_id}, {}


def planned_copy(source: Run, tags: Mapping[str, str], known: Sequence[DatasetInput] = ()) -> Run:
    """A source run as its copy will be, but for ids and place. MLflow wants a name and an end of every run that ended.

    `known` are datasets that the experiment has already: the copy gets them as they are there.
    """
    name = source.name or source.run_id
    other = {(item.name, item.digest): item for item in known}
    datasets = [
        item._replace(**{field: getattr(other[item[:2]], field) for field in _FIELDS}) if item[:2] in other else item
        for item in source.datasets
    ]
    ended = source.end_time or source.last_known_time(ALWAYS) if source.status in TERMINAL_STATUSES else None
    return replace(
        source,
        name=name,
        end_time=ended,
        user=source.tags.get(USER, "unknown"),
        tags={RUN_NAME: name, **source.tags, **tags, **own_datasets(source, known)},
        datasets=tuple(sorted(datasets)),
    )


def own_datasets(source: Run, known: Sequence[DatasetInput]) -> dict[str, str]:
    """The tag that keeps what a run says of datasets that `known` ones stand for in its copy; none where they say
    the same.
    """
    other = {(item.name, item.digest): item for item in known}
    own = [
        {"name": item.name, "digest": item.digest, **{field: getattr(item, field) for field in _FIELDS}}
        for item in source.datasets
        if item[:2] in other and item[:6] != other[item[:2]][:6]
    ]
    return {SOURCE_DATASETS: json.dumps(own, ensure_ascii=False)} if own else {}


def _datasets_of(copy: Run) -> set[DatasetInput]:
    """The datasets of a copy as its source has them."""
    try:
        own = {
            (item["name"], item["digest"]): {field: item[field] for field in _FIELDS}
            for item in json.loads(copy.tags.get(SOURCE_DATASETS, "[]"))
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        own = {}  # somebody wrote it anew: what the copy holds itself counts
    return {item._replace(**own.get(item[:2], {})) for item in copy.datasets}


def left_behind(
    source: Run, copy: Run, source_models: Iterable[LoggedModel] = (), copied_models: Iterable[LoggedModel] = ()
) -> list[str]:
    """What a run holds that its copy does not, in a word each: what was logged since, which retiring the source
    would leave behind.
    """
    points = {key: set(history) - set(copy.metrics.get(key, ())) for key, history in source.metrics.items()}
    found = {
        "params": source.params.items() - copy.params.items(),
        "metrics": any(points.values()),
        "tags": _own_tags(source).items() - _own_tags(copy).items(),
        "datasets": set(source.datasets) - _datasets_of(copy),
        "logged models": Counter(model.name for model in source_models)
        - Counter(model.name for model in copied_models),
        "status": source.status != copy.status or source.end_time not in (None, copy.end_time),
    }
    return [name for name, more in found.items() if more]


def _own_tags(run: Run) -> dict[str, str]:
    """The tags that people gave a run, as they were before a repair replaced some."""
    tags = {key: run.tags.get(SUPERSEDED + key, value) for key, value in run.tags.items()}
    return {key: value for key, value in tags.items() if key != PARENT and not key.startswith("compliance.")}


def copy_model(model: LoggedModel, run_id: str, target: Experiment) -> LoggedModel:
    """What the copy of a logged model will be."""
    copy_id = copy_of("logged model", model.model_id)
    return replace(
        model,
        model_id=copy_id,
        experiment_id=target.experiment_id,
        source_run_id=run_id,
        artifact_location=f"{target.artifact_location}/models/{copy_id}/artifacts",
        tags={**model.tags, SOURCE_MODEL: model.model_id},
    )


def renamed(text: str, names: Mapping[str, str]) -> str:
    """A text of MLmodel with the ids and the location of the copy.

    The longest first, since a location holds ids; and all in one go, since the new location may hold an old id.
    """
    olds = sorted(filter(None, names), key=len, reverse=True)
    return re.sub("|".join(map(re.escape, olds)), lambda match: names[match[0]], text)


def _link(link: ModelLink, models: Mapping[str, LoggedModel]) -> ModelLink:
    return link._replace(model_id=models[link.model_id].model_id) if link.model_id in models else link


class _MoreFiles:
    """The files of copied runs: large ones share the source's bytes, small ones are copies, MLmodel is written with
    the new ids.
    """

    def __init__(self, artifacts: Artifacts) -> None:
        self.artifacts = artifacts
        self.locations: dict[tuple[str, str], str] = {}
        self.files: dict[str, ArtifactFile] = {}
        self.hashes: dict[str, str] = {}
        self.folders: dict[str, ModelFolder] = {}
        self.devices: dict[str, int | None] = {}

    def copy(
        self, source: Run, copied: Run, models: Mapping[str, LoggedModel], olds: Mapping[str, str], into: Experiment
    ) -> None:
        """Add what the copy of one run brings."""
        artifacts = self.artifacts
        moves = [(("run", source.run_id), copied.ref, source.artifact_uri, copied.artifact_uri)]
        moves += [
            (("logged_model", key), model.ref, olds[key], model.artifact_location) for key, model in models.items()
        ]
        names = {source.run_id: copied.run_id, **{key: model.model_id for key, model in models.items()}}
        home = artifacts.locations.get(into.ref.place)
        if home is None:
            raise ChangeError(
                f"the artifacts of experiment {into.experiment_id} cannot be reached from here: nothing can be "
                "copied into it"
            )
        if home not in self.devices:
            self.devices[home] = artifacts.device_of(home)
        for place, owner, old_uri, uri in moves:
            folder = artifacts.locations.get(place)
            if folder is None:
                continue
            # Through the folder that the reader found for the experiment: a location may be a URI, or lead through a
            # link.
            target = home + uri[len(into.artifact_location) :]
            self.locations[owner.kind, owner.key] = target
            for model in artifacts.models_in(folder):
                copy = target + model.path[len(folder) :]
                self.folders[copy] = model._replace(
                    path=copy, owner=owner, artifact_path=renamed(model.artifact_path, {**names, old_uri: uri})
                )
            for path, file in artifacts.under(folder).items():
                self._add(path, file, target + path[len(folder) :], owner, self.devices[home])

    def _add(self, path: str, file: ArtifactFile, new: str, owner: EntityRef, device: int | None) -> None:
        if os.path.basename(path) == MLMODEL:
            self.files[new] = ArtifactFile(UNKNOWN_SIZE, f"own:{new}", owner, logged=True)
            return
        # Another file system cannot share its bytes.
        shared = (
            in_folder(path)
            and self.artifacts.rules.apply_to(path, file.size)
            and device in (None, self.artifacts.device(path))
        )
        self.files[new] = ArtifactFile(file.size, file.copy if shared else f"own:{new}", owner, logged=True)
        if path in self.artifacts.hashes:
            self.hashes[new] = self.artifacts.hashes[path]

    def together(self) -> Artifacts:
        """The artifacts with all that was added."""
        artifacts = self.artifacts.with_files(self.files, self.hashes)
        return replace(
            artifacts, locations={**artifacts.locations, **self.locations}, models={**artifacts.models, **self.folders}
        )
