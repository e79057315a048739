"""The effects of changes that copy runs: whole or not at all, rows through MlflowClient, files shared or copied,
and all of it compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mlflow.entities import LoggedModelInput, LoggedModelOutput, LoggedModelStatus
from mlflow.tracking import MlflowClient

from mlflow_compliance.changes import JOURNAL, CopyRun, RetractCopy, bind, copy_of
from mlflow_compliance.changes.copies import planned_copy
from mlflow_compliance.changes.made import rows_of
from mlflow_compliance.errors import ChangeError, StoreError
from mlflow_compliance.snapshot.entities import TERMINAL_STATUSES, DatasetInput, LoggedModel, ModelMetric, Run
from mlflow_compliance.snapshot.tags import (
    COMPLETE,
    COPIED_BY,
    COPY_STATE,
    INCOMPLETE,
    RETRACTED,
    SOURCE_DATASETS,
    SOURCE_EXPERIMENT,
    SOURCE_MODEL,
    SOURCE_NAME,
    SOURCE_RUN,
    SOURCE_USER,
)
from mlflow_compliance.store.store import Store
from mlflow_compliance.store.write.bulk import add_history, add_run, end_runs, one_transaction, set_tags, tracking_store
from mlflow_compliance.store.write.copy_artifacts import copy_artifacts
from mlflow_compliance.store.write.effects import OpenStore, inverse, write
from mlflow_compliance.store.write.errors import one_sentence
from mlflow_compliance.store.write.made import FILES, files_of
from mlflow_compliance.store.write.mlflow_values import BATCH, in_rounds, inputs_of, log_params, metrics_of
from mlflow_compliance.store.write.retract import Made, retract
from mlflow_compliance.store.write.taken_back import made_runs, new_folders, refuse_if_changed

_OF_A_COPY = {SOURCE_RUN, SOURCE_EXPERIMENT, SOURCE_NAME, SOURCE_USER, SOURCE_DATASETS}
SIDE_BY_SIDE = 8
"""Runs whose files are copied at the same time: a file waits for the disk, and those that wait together wait once."""


@write.register(CopyRun)
def copy_run(change: CopyRun, to: OpenStore) -> None:
    with one_sentence(f"run {change.run_id} could not be copied"):
        to.binding.update(
            RunCopier(to.client, to.store).copy(
                change.run_id, change.experiment_id, new_tags(change, to), change.datasets
            )
        )


@inverse.register(CopyRun)
def undo_copy_run(change: CopyRun, to: OpenStore) -> RetractCopy:
    made: dict[str, str] = {}
    folders: tuple[str, ...] = ()
    # What cannot be read is not copied either, and the copying says why.
    with suppress(ChangeError, StoreError, OSError):
        source, models = RunCopier(to.client, to.store).details(change.run_id)
        made = rows_of(planned_copy(source, change.new_tags(), change.datasets), models, {})
        uris = [source.artifact_uri, *(model.artifact_location for model in models)]
        made[FILES] = files_of(to.store, [(uri, uri) for uri in uris], {})
        folders = new_folders(to, change.experiment_id)
    return RetractCopy(change.run_id, change.experiment_id, to.bind(JOURNAL), tuple(made.items()), folders)


def new_tags(change: CopyRun, to: OpenStore) -> dict[str, str]:
    """The tags that say where a copy comes from, with what their symbols stand for by now."""
    return {key: to.bind(value) for key, value in change.new_tags().items()}


@write.register(RetractCopy)
def retract_copy(change: RetractCopy, to: OpenStore) -> None:
    where = f"tags.`{SOURCE_RUN}` = '{change.run_id}' AND tags.`{COPIED_BY}` = '{change.journal}'"
    what = f"the copy of run {change.run_id} that {change.journal} made"
    with one_sentence(f"{what} could not be taken back"):
        for run in made_runs(to, change.experiment_id, where, what):
            sources: list[str] = []
            state = run.data.tags.get(COPY_STATE)
            if state not in (INCOMPLETE, RETRACTED):
                changed = {*_changed_since(change, to, run), *(["tags"] if state != COMPLETE else [])}
                refuse_if_changed(to, run, what, sorted(changed))
            found, models = to.store.details([change.run_id])
            if change.run_id in found:
                sources = [found[change.run_id].artifact_uri, *(model.artifact_location for model in models.values())]
            retract(to.client, to.store, run, Made(change.journal, SOURCE_MODEL, change.folders, sources))


def _changed_since(change: RetractCopy, to: OpenStore, run: Any) -> list[str]:
    """What is other about a copy than when it was made, in a word each. Raises ChangeError where it is all that there
    is of its source.
    """
    copier, new_id = RunCopier(to.client, to.store), run.info.run_id
    try:
        source, models = copier.details(change.run_id)
    except ChangeError:
        source, models = None, []
    if source is None or not source.active:
        raise ChangeError(f"run {change.run_id} is deleted or gone, so its copy {new_id} stays")
    copy, copied = copier.details(new_id)
    ids = {model.model_id: model.tags.get(SOURCE_MODEL, model.model_id) for model in copied}
    places = {model.model_id: model.artifact_location for model in models}
    own = {copy.artifact_uri: source.artifact_uri}
    own |= {model.artifact_location: places.get(ids[model.model_id], "") for model in copied}
    now = rows_of(copy, copied, ids)
    now[FILES] = files_of(to.store, own.items(), {new_id: change.run_id, **ids})
    then = dict(change.made)
    if not then:  # a journal of an older version
        tags = {key: value for key, value in copy.tags.items() if key in _OF_A_COPY}
        then = rows_of(planned_copy(source, tags), models, {})
        del then["datasets"]
        then[FILES] = files_of(to.store, [(uri, uri) for uri in own.values()], {})
    return sorted(name for name, known in then.items() if now.get(name) != known)


@inverse.register(RetractCopy)
def undo_retract_copy(change: RetractCopy, to: OpenStore) -> None:
    """Its source was never changed and can be copied again; a copy that was broken off is worth nothing."""


@dataclass(frozen=True)
class Begun:
    """A copy whose row is there, marked as incomplete, with those of its models; `ids` leads from a model to its
    copy.
    """

    source: Run
    planned: Run
    models: list[LoggedModel]
    new: Any
    ids: Mapping[str, str]

    @property
    def new_id(self) -> str:
        return str(self.new.info.run_id)

    @property
    def bound(self) -> dict[str, str]:
        """The symbols of the run and its models, with their ids."""
        run = {copy_of("run", self.source.run_id): self.new_id}
        return {**run, **{copy_of("logged model", old): made for old, made in self.ids.items()}}


@dataclass(frozen=True)
class RunCopier:
    """Copies runs within one store."""

    client: MlflowClient
    store: Store

    def copy(
        self, run_id: str, experiment_id: str, tags: Mapping[str, str], datasets: Sequence[DatasetInput] = ()
    ) -> dict[str, str]:
        """Copy a run and return symbol -> id for the run and its models. A failure soft-deletes what was begun and
        raises.
        """
        source, models = self.details(run_id)
        planned = planned_copy(source, tags, datasets)
        new = self.create_run(planned, experiment_id)
        try:
            begun = self.begin(source, planned, models, new, experiment_id)
            self.copy_files(begun)
            self.log(begun)
            self._count(begun, *self.store.details([begun.new_id]))
            self.client.set_tag(begun.new_id, COPY_STATE, COMPLETE)
        except BaseException:
            retract(self.client, self.store, new, self._made(tags.get(COPIED_BY, new.info.run_id), source, models))
            raise
        return begun.bound

    def copy_together(
        self, copies: Sequence[tuple[str, str, Mapping[str, str], Sequence[DatasetInput]]]
    ) -> list[dict[str, str]]:
        """Copy runs, all or none: few transactions, files side by side.

        A copy is run, experiment, tags that may name the copy of an earlier one, and datasets that the experiment has
        already.
        """
        sql = tracking_store(self.client)
        details = self.store.details([run_id for run_id, *_ in copies])
        begun: list[Begun] = []
        bound: dict[str, str] = {}
        with one_transaction(sql) as session:
            experiments = {key: sql.get_experiment(key) for key in {experiment_id for _, experiment_id, *_ in copies}}
            for run_id, experiment_id, unbound, datasets in copies:
                tags = {key: bind(value, bound) for key, value in unbound.items()}
                source, models = self._in(details, run_id)
                planned = planned_copy(source, tags, datasets)
                new = add_run(session, experiments[experiment_id], planned, {**planned.tags, COPY_STATE: INCOMPLETE})
                begun.append(self.begin(source, planned, models, new, experiment_id))
                bound.update(begun[-1].bound)
        try:
            with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
                for _ in pool.map(self.copy_files, begun):
                    pass
            with one_transaction(sql) as session:
                for item in begun:
                    metrics = metrics_of(item.new_id, item.source, item.models, item.ids)
                    linked = [metric for metric in metrics if metric.model_id] if item.models else []
                    add_history(session, sql, item.new_id, item.source, linked, item.new.info.experiment_id)
                    self._log_links(item)
                    session.flush()
                    session.expunge_all()
                end_runs(session, {item.new_id: (item.planned.status, item.planned.end_time) for item in begun})
            found = self.store.details([item.new_id for item in begun])
            for item in begun:
                self._count(item, *found)
            with one_transaction(sql) as session:
                set_tags(session, [item.new_id for item in begun], COPY_STATE, COMPLETE)
        except BaseException:
            for item in begun:
                journal = item.planned.tags.get(COPIED_BY, item.new_id)
                retract(self.client, self.store, item.new, self._made(journal, item.source, item.models))
            raise
        return [item.bound for item in begun]

    def _made(self, journal: str, source: Run, models: list[LoggedModel]) -> Made:
        sources = (source.artifact_uri, *(model.artifact_location for model in models))
        return Made(journal, SOURCE_MODEL, sources=sources)

    def create_run(self, planned: Run, experiment_id: str) -> Any:
        """The row of a copy, marked as incomplete."""
        marked = {**planned.tags, COPY_STATE: INCOMPLETE}
        return self.client.create_run(experiment_id, start_time=planned.start_time, run_name=planned.name, tags=marked)

    def begin(self, source: Run, planned: Run, models: list[LoggedModel], new: Any, experiment_id: str) -> Begun:
        """The rows of its models."""
        ids = {model.model_id: self._create_model(model, experiment_id, new.info.run_id) for model in models}
        return Begun(source, planned, models, new, ids)

    def copy_files(self, begun: Begun) -> None:
        """Its files and those of its models."""
        uris = [(begun.source.artifact_uri, begun.new.info.artifact_uri)]
        uris += [
            (model.artifact_location, self.client.get_logged_model(begun.ids[model.model_id]).artifact_location)
            for model in begun.models
        ]
        copy_artifacts(self.store, begun.source.run_id, uris, {begun.source.run_id: begun.new_id, **begun.ids})

    def log(self, begun: Begun) -> None:
        """All else that its rows say."""
        self._log_history(begun.new_id, begun.source, begun.models, begun.ids)
        self._log_links(begun)
        planned = begun.planned
        if planned.status in TERMINAL_STATUSES:
            self.client.set_terminated(begun.new_id, status=planned.status, end_time=planned.end_time)
        elif planned.status != "RUNNING":
            self.client.update_run(begun.new_id, status=planned.status)

    def _log_links(self, begun: Begun) -> None:
        self._log_inputs(begun.new_id, begun.source, begun.ids)
        for model in begun.models:
            if model.status in ("READY", "FAILED"):
                self.client.finalize_logged_model(begun.ids[model.model_id], LoggedModelStatus(model.status))

    def details(self, run_id: str) -> tuple[Run, list[LoggedModel]]:
        return self._in(self.store.details([run_id]), run_id)

    def _in(self, details: tuple[dict[str, Run], dict[str, LoggedModel]], run_id: str) -> tuple[Run, list[LoggedModel]]:
        runs, models = details
        if run_id not in runs:
            raise ChangeError(f"run {run_id} is not there any more: run again to plan anew")
        own = [model for model in models.values() if model.active and model.source_run_id == run_id]
        return runs[run_id], sorted(own, key=lambda model: model.model_id)

    def _create_model(self, model: LoggedModel, experiment_id: str, run_id: str) -> str:
        made = self.client.create_logged_model(
            experiment_id,
            name=model.name,
            source_run_id=run_id,
            tags={**model.tags, SOURCE_MODEL: model.model_id},
            params=dict(model.params),
            model_type=model.model_type or None,
        )
        return str(made.model_id)

    def _log_history(self, new_id: str, source: Run, models: list[LoggedModel], ids: Mapping[str, str]) -> None:
        log_params(self.client, new_id, source.params)
        for metrics in in_rounds(metrics_of(new_id, source, models, ids)):
            for start in range(0, len(metrics), BATCH):
                self.client.log_batch(new_id, metrics=metrics[start : start + BATCH])

    def _log_inputs(self, new_id: str, source: Run, ids: Mapping[str, str]) -> None:
        datasets = inputs_of(source.datasets)
        read = [
            LoggedModelInput(ids.get(link.model_id, link.model_id))
            for link in source.models
            if link.direction == "input"
        ]
        if datasets or read:
            self.client.log_inputs(new_id, datasets, read)
        written = [
            LoggedModelOutput(ids.get(link.model_id, link.model_id), link.step)
            for link in source.models
            if link.direction == "output"
        ]
        if written:
            self.client.log_outputs(new_id, written)

    def _count(self, begun: Begun, found: Mapping[str, Run], made: Mapping[str, LoggedModel]) -> None:
        """Compare the copy, read anew, with what it should be; a difference takes it back."""
        planned, models, new_id = begun.planned, begun.models, begun.new_id
        copied = found[new_id]
        own = [model for model in made.values() if model.source_run_id == new_id]
        wrong = [
            name
            for name, expected, actual in (
                ("params", planned.params, copied.params),
                ("metrics", planned.metrics, copied.metrics),
                ("tags", planned.tags, {**copied.tags, COPY_STATE: COMPLETE}),
                ("datasets", planned.datasets, copied.datasets),
                ("logged models", _named_metrics(models), _named_metrics(own)),
                ("times", (planned.start_time, planned.end_time), (copied.start_time, copied.end_time)),
                (
                    "name, user or status",
                    (planned.name, planned.user, planned.status),
                    (copied.name, copied.user, copied.status),
                ),
            )
            if expected != actual
        ]
        if wrong:
            raise ChangeError(
                f"the copy {new_id} of run {planned.run_id} differs from it in {', '.join(wrong)}: it was taken back"
            )


def _named_metrics(models: Iterable[LoggedModel]) -> list[tuple[str, tuple[ModelMetric, ...]]]:
    return sorted((model.name, model.metrics) for model in models)
