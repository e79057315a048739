"""The effects of changes: through MlflowClient on rows, and (`file_writing`) on artifacts. Every failure is a ChangeError."""

from __future__ import annotations

import logging
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _use_tracking_uri

from mlflow_compliance.changes import Rewriting, bind
from mlflow_compliance.changes.copies import CopyRun, left_behind
from mlflow_compliance.changes.production import LogProductionRun
from mlflow_compliance.errors import ChangeError, StoreError
from mlflow_compliance.snapshot.entities import DatasetInput, Experiment, LoggedModel, Run
from mlflow_compliance.snapshot.tags import (
    BUILT_FOR,
    BUILT_IN,
    COMPLETE,
    COPIED_BY,
    COPY_STATE,
    RETRACTED,
    SOURCE_EXPERIMENT,
    SOURCE_MODEL,
    SOURCE_RUN,
)
from mlflow_compliance.store.backends.listing import pages
from mlflow_compliance.store.storage.http_errors import refusal
from mlflow_compliance.store.store import Store
from mlflow_compliance.store.write.artifacts import FileWriter
from mlflow_compliance.store.write.bulk import end_runs, one_transaction, status_of, tracking_store
from mlflow_compliance.store.write.copies import RunCopier
from mlflow_compliance.store.write.copy_artifacts import got_files_since
from mlflow_compliance.store.write.errors import one_sentence, refuse_other_spelling
from mlflow_compliance.store.write.locations import rewrite
from mlflow_compliance.store.write.production import ProductionLogger
from mlflow_compliance.store.write.retract import retract

TOGETHER = 200
"""Runs that are compared with their copies at a time."""


@contextmanager
def default_store(uri: str) -> Iterator[None]:
    """MLflow looks up the source of a version in the store of the process, whatever the client's is."""
    named = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        with _use_tracking_uri(uri):
            yield
    finally:
        # It takes the variable away where no URI had been set by a call.
        if named is not None:
            os.environ["MLFLOW_TRACKING_URI"] = named


class StoreWriter(FileWriter):
    """Writes to one store; `binding` gives symbols their values and grows as MLflow makes ids."""

    def __init__(self, store: Store, binding: dict[str, str]) -> None:
        # Whatever MLflow has to say of a failure is in the exception; its log would add a traceback.
        logging.getLogger("mlflow").setLevel(logging.CRITICAL + 1)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        # It would print the address of every run that ends, with the password that a URI may hold.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        store.backend.refuse_other_schema()
        self.store = store
        self.binding = binding
        if not store.backend.rows:
            return
        try:
            with warnings.catch_warnings():
                # MLflow's own models make SQLAlchemy warn; a user can do nothing about it.
                warnings.simplefilter("ignore")
                self.client = MlflowClient(tracking_uri=store.uri, registry_uri=store.uri)
                # The first call opens the database.
                self.client.search_experiments(max_results=1)
        except (MlflowException, OSError) as error:
            raise StoreError(f"the store {store.info.uri} cannot be opened for writing: {refusal(error, store.uri)}") from error

    def reach(self) -> None:
        """Raise StoreError where the store cannot be reached any more."""
        self.store.backend.reach()

    def bind(self, text: str) -> str:
        return bind(text, self.binding)

    @contextmanager
    def _naming(self, what: str, name: str, there: Callable[[], Iterable[str]]) -> Iterator[None]:
        """As `one_sentence`, where a name is written: no other spelling of it may be `there`, or the database would overwrite that one."""
        if not self.store.backend.tells_spellings_apart:
            refuse_other_spelling(what, name, there())
        with one_sentence(what):
            yield

    def experiment(self, experiment_id: str) -> Experiment:
        """The experiment as it is now, its runs not counted."""
        with one_sentence(f"experiment {experiment_id} could not be read"):
            found = self.client.get_experiment(experiment_id)
            return Experiment(experiment_id, found.name, found.lifecycle_stage, found.artifact_location, dict(found.tags), {})

    def counted_experiment(self, experiment_id: str) -> Experiment:
        """The experiment as it is now with what SQL counts about its runs."""
        with one_sentence(f"experiment {experiment_id} could not be read"):
            found = self.store.backend.counted(experiment_id)
        if found is None:
            raise ChangeError(f"experiment {experiment_id} is not there any more: run again to plan anew")
        return found

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None:
        with self._naming(f"tag {key} of experiment {experiment_id} could not be set", key, lambda: self.experiment(experiment_id).tags):
            self.client.set_experiment_tag(experiment_id, key, value)

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        with one_sentence(f"tag {key} of experiment {experiment_id} could not be deleted"):
            self.client.delete_experiment_tag(experiment_id, key)

    def rename_experiment(self, experiment_id: str, name: str) -> None:
        with one_sentence(f"experiment {experiment_id} could not be renamed"):
            self.client.rename_experiment(experiment_id, name)

    def delete_experiment(self, experiment_id: str) -> None:
        with one_sentence(f"experiment {experiment_id} could not be deleted"):
            self.client.delete_experiment(experiment_id)

    def restore_experiment(self, experiment_id: str, deleted_runs: tuple[str, ...]) -> None:
        with one_sentence(f"experiment {experiment_id} could not be restored"):
            self.client.restore_experiment(experiment_id)
            where = f"tags.`{COPY_STATE}` = '{RETRACTED}'"
            retracted = pages(self.client.search_runs, experiment_ids=[experiment_id], filter_string=where, max_results=1000)
            for run_id in [*deleted_runs, *(run.info.run_id for run in retracted)]:
                self.client.delete_run(run_id)

    def written_since_copied(self, experiment_id: str, into: str) -> str:
        where = f"tags.`{SOURCE_EXPERIMENT}` = '{experiment_id}' AND tags.`{COPY_STATE}` = '{COMPLETE}'"
        with one_sentence(f"the runs of experiment {experiment_id} could not be compared with their copies"):
            found = pages(self.client.search_runs, experiment_ids=[into], filter_string=where, max_results=1000)
            copies = sorted((run.data.tags[SOURCE_RUN], run.info.run_id) for run in found)
            for start in range(0, len(copies), TOGETHER):
                some = copies[start : start + TOGETHER]
                runs, models = self.store.details([key for pair in some for key in pair])
                written: dict[str | None, list[LoggedModel]] = defaultdict(list)
                for model in models.values():
                    written[model.source_run_id].append(model)
                for source, copy in some:
                    if source in runs and copy in runs and (more := _got_since(self.store, runs[source], runs[copy], written[source], written[copy])):
                        return f"run {source} got other {', '.join(more)} after it was copied to run {copy}"
        return ""

    def run_status(self, run_id: str) -> tuple[str, str]:
        with one_sentence(f"run {run_id} could not be read"):
            if not self._in_tables:
                info = self.client.get_run(run_id).info
                return info.lifecycle_stage, info.status
            with one_transaction(tracking_store(self.client)) as session:
                found = status_of(session, run_id)
            if found is None:
                raise ChangeError(f"run {run_id} is not there any more: run again to plan anew")
            return found

    def end_run(self, run_id: str, status: str, end_time: int) -> None:
        with one_sentence(f"run {run_id} could not be ended"):
            if self._in_tables:
                self._set_status(run_id, status, end_time)
            else:
                self.client.set_terminated(run_id, status=status, end_time=end_time)

    def reopen_run(self, run_id: str) -> None:
        with one_sentence(f"run {run_id} could not be set back to RUNNING"):
            if self._in_tables:
                self._set_status(run_id, "RUNNING", None)
            else:
                self.client.update_run(run_id, status="RUNNING")

    @property
    def _in_tables(self) -> bool:
        """Whether rows are written without a server in between: MLflow's own calls fail on a run without a start time."""
        return not self.store.uri.startswith(("http:", "https:"))

    def _set_status(self, run_id: str, status: str, end_time: int | None) -> None:
        with one_transaction(tracking_store(self.client)) as session:
            end_runs(session, {run_id: (status, end_time)})

    def copy_run(self, source_run_id: str, experiment_id: str, tags: Mapping[str, str], datasets: Sequence[DatasetInput]) -> None:
        with one_sentence(f"run {source_run_id} could not be copied"):
            copier = RunCopier(self.client, self.store)
            self.binding.update(copier.copy(source_run_id, experiment_id, tags, datasets))

    def copy_runs(self, copies: Sequence[CopyRun]) -> list[dict[str, str]]:
        with one_sentence("the runs could not be copied together"):
            wanted = [
                (copy.run_id, copy.experiment_id, {key: self.bind(value) for key, value in copy.new_tags().items()}, copy.datasets) for copy in copies
            ]
            made = RunCopier(self.client, self.store).copy_together(wanted)
        for bound in made:
            self.binding.update(bound)
        return made

    def retract_copy(self, source_run_id: str, experiment_id: str, journal: str) -> None:
        where = f"tags.`{SOURCE_RUN}` = '{source_run_id}' AND tags.`{COPIED_BY}` = '{journal}'"
        with one_sentence(f"the copy of run {source_run_id} could not be taken back"):
            for run in self.client.search_runs([experiment_id], filter_string=where):
                retract(self.client, self.store, run, journal, SOURCE_MODEL)

    def rewrite_locations(self, rewritings: Sequence[Rewriting]) -> None:
        with one_sentence("the places that rows name could not be rewritten"):
            rewrite(self.client, rewritings)

    def run_tags(self, run_id: str) -> Mapping[str, str]:
        with one_sentence(f"run {run_id} could not be read"):
            return dict(self.client.get_run(run_id).data.tags)

    def set_run_tag(self, run_id: str, key: str, value: str | None) -> None:
        with self._naming(f"tag {key} of run {run_id} could not be changed", key, lambda: self.run_tags(run_id)):
            if value is None:
                self.client.delete_tag(run_id, key)
            else:
                self.client.set_tag(run_id, key, value)

    def log_production_run(self, change: LogProductionRun) -> None:
        with one_sentence(f"production run {change.name!r} could not be logged"):
            self.binding.update(ProductionLogger(self.client, self.store, self.binding).log(change))

    def retract_production_run(self, experiment_id: str, journal: str, product: str) -> None:
        where = f"tags.`{BUILT_IN}` = '{journal}'"
        with one_sentence(f"the production run of {product} could not be taken back"):
            for run in self.client.search_runs([experiment_id], filter_string=where):
                if run.data.tags.get(BUILT_FOR) == product:
                    retract(self.client, self.store, run, journal, BUILT_IN)

    def register_version(self, name: str, model_id: str, run_id: str, symbol: str, *, makes_model: bool) -> None:
        with one_sentence(f"a version of registered model {name!r} could not be made"):
            if makes_model:
                self.client.create_registered_model(name)
            with default_store(self.store.uri):
                made = self.client.create_model_version(name, f"models:/{self.bind(model_id)}", run_id=self.bind(run_id))
            self.binding[symbol] = str(made.version)

    def retract_version(self, name: str, model_id: str, *, removes_model: bool) -> None:
        with one_sentence(f"the version of registered model {name!r} could not be taken back"):
            versions = self.client.search_model_versions(f"name = '{name}'")
            made = [version for version in versions if version.source == f"models:/{model_id}"]
            for version in made:
                self.client.delete_model_version(name, version.version)
            if removes_model and len(made) == len(versions):
                self.client.delete_registered_model(name)

    def aliases(self, name: str) -> Mapping[str, str]:
        with one_sentence(f"registered model {name!r} could not be read"):
            return {alias: str(version) for alias, version in self.client.get_registered_model(name).aliases.items()}

    def set_alias(self, name: str, alias: str, version: str | None) -> None:
        with self._naming(f"alias {alias!r} of registered model {name!r} could not be changed", alias, lambda: self.aliases(name)):
            if version is None:
                self.client.delete_registered_model_alias(name, alias)
            else:
                self.client.set_registered_model_alias(name, alias, version)


def _got_since(store: Store, source: Run, copy: Run, models: Sequence[LoggedModel], copied: Sequence[LoggedModel]) -> list[str]:
    """What a run and its logged models got after they were copied, in a word each."""
    more = left_behind(source, copy, models, copied)
    made = {model.tags.get(SOURCE_MODEL): model.artifact_location for model in copied}
    places = [(model.artifact_location, made[model.model_id]) for model in models if model.model_id in made]
    if any(got_files_since(store, *uris) for uris in ((source.artifact_uri, copy.artifact_uri), *places)):
        more.append("artifacts")
    return more
