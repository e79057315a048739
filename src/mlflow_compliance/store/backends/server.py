"""Stores behind a tracking server, and those that MlflowClient alone opens."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from mlflow_compliance.errors import StoreError, first_line
from mlflow_compliance.progress import Progress, Silent
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import Experiment, LoggedModel, Run, StoreInfo
from mlflow_compliance.snapshot.files import ArtifactRoot
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.store.backends.base import Backend, NoFilterError, Rows

if TYPE_CHECKING:
    from mlflow_compliance.store.backends.client import ClientReader
    from mlflow_compliance.store.backends.rest import Rest


@dataclass(frozen=True)
class ServerBackend(Backend):
    """A tracking server, asked over HTTP."""

    writes: ClassVar[bool] = True
    keeps_journals: ClassVar[bool] = True
    _compared: list[tuple[ArtifactRoot, ...]] = field(default_factory=list, init=False, repr=False, compare=False)
    """Roots that were compared with what the server sees."""
    count: bool = False
    """Whether all runs are gone through for rules without files too."""
    tell: Callable[[str], None] = field(default=lambda _: None, repr=False, compare=False)
    """Shows one line to whoever waits for the server."""
    _answered: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)
    """Whether it did, in this session."""

    _watching: list[Progress] = field(default_factory=list, init=False, repr=False, compare=False)

    def watch(self, progress: Progress) -> None:
        self._watching[:] = [progress]

    @contextmanager
    def _answering(self) -> Iterator[tuple[ClientReader, Rest]]:
        at_once, progress = self.settings.store.requests_at_once, (self._watching or [Silent()])[0]
        answered = bool(self._answered)
        with answering(self.uri, self.info, self.tell, progress, answered=answered, at_once=at_once) as found:
            self._answered.append(True)
            yield found

    @property
    def tells_spellings_apart(self) -> bool:
        return False  # there may be a MySQL behind it

    def read(self, also: Collection[str]) -> tuple[Snapshot, Rows]:
        return self._read(also, locations=True)

    def read_metadata(self, also: Collection[str]) -> tuple[Snapshot, Rows | None]:
        """The store for rules that look at no files: what they ask for, by filters; all runs, to be counted, where
        that was asked for or no filter does.
        """
        if not self.count:
            with suppress(NoFilterError):
                return self._filtered(also), None
        return self._read(also, locations=False)[0], None

    def _filtered(self, also: Collection[str]) -> Snapshot:
        from mlflow.exceptions import RestException

        from mlflow_compliance.store.backends.filtered import FilteredReader

        with self._answering() as (reader, rest):
            try:
                snapshot = FilteredReader(reader, rest).read(self.info, self.settings, also)
            except RestException as error:
                # An older server, or one on a file store, knows fewer filters.
                if error.error_code == "INVALID_PARAMETER_VALUE":
                    raise NoFilterError(first_line(error)) from error
                raise
        return replace(snapshot, info=replace(snapshot.info, workspace=_workspace()))

    def _read(self, also: Collection[str], *, locations: bool) -> tuple[Snapshot, Rows]:
        with self._answering() as (reader, _):
            snapshot, rows = reader.read(self.info, self.settings, also, locations=locations)
        return replace(snapshot, info=replace(snapshot.info, workspace=_workspace())), rows

    def details(self, run_ids: Collection[str]) -> tuple[dict[str, Run], dict[str, LoggedModel]]:
        with self._answering() as (reader, _):
            return reader.details(run_ids)

    def counted(self, experiment_id: str) -> Experiment | None:
        with self._answering() as (reader, _):
            return reader.counted(experiment_id)

    def keep_what_is_hidden(self, artifacts: Artifacts) -> Artifacts:
        from mlflow_compliance.store.backends.server_files import keep_what_may_be_owned

        return keep_what_may_be_owned(artifacts, workspaces=self._has_workspaces)

    def newest_row(self, before: int) -> int | None:
        from mlflow_compliance.store.backends.listing import newest_served

        with self._answering() as (reader, rest):
            return newest_served(rest, reader.experiment_ids(), before)

    def refuse_other_files(self, artifacts: Artifacts) -> None:
        from mlflow_compliance.store.backends.server_files import refuse_other_files

        # Asked of every finding that a report shows: the answer of the first time counts.
        if artifacts.roots not in self._compared:
            with self._answering() as (_, rest):
                refuse_other_files(rest, self.info.uri, artifacts)
            self._compared.append(artifacts.roots)

    @cached_property
    def _has_workspaces(self) -> bool:
        from mlflow_compliance.store.backends.rest import SERVER_INFO
        from mlflow_compliance.store.storage.http_errors import AnswerError

        with self._answering() as (_, rest):
            try:
                return bool(rest.get(SERVER_INFO).get("workspaces_enabled"))
            except AnswerError:
                return False  # a server from before workspaces


@dataclass(frozen=True)
class ClientBackend(Backend):
    """Whatever MLflow can open."""

    def read(self, also: Collection[str]) -> tuple[Snapshot, Rows]:
        return through_client(self.uri, self.info, self.settings, also)


@contextmanager
def answering(
    uri: str, info: StoreInfo, tell: Callable[[str], None], progress: Progress, *, answered: bool, at_once: int
) -> Iterator[tuple[ClientReader, Rest]]:
    """A reader of a server that showed that it is one and hides nothing from the caller; one that has `answered`
    before is waited for. It is asked `at_once` questions at a time. Refusals are told as StoreError.
    """
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_MAX_RETRIES
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    from mlflow_compliance.store.backends.client import ClientReader
    from mlflow_compliance.store.backends.listing import RestListing
    from mlflow_compliance.store.backends.rest import SEARCH_EXPERIMENTS, Rest
    from mlflow_compliance.store.backends.retries import first_contact, retries_told
    from mlflow_compliance.store.backends.server_visibility import refuse_if_hidden
    from mlflow_compliance.store.storage.http_errors import AnswerError, refusal

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would tell of every retry, with the URI
    rest, once = Rest(uri), not answered
    try:
        if not answered:
            first_contact(rest, info.uri, tell)
        once = False
        with retries_told(info.uri, tell):
            if answered:
                rest.post(SEARCH_EXPERIMENTS, {"max_results": 1})
            refuse_if_hidden(rest, info.uri)
            yield (
                ClientReader(
                    MlflowClient(tracking_uri=uri, registry_uri=uri),
                    RestListing(rest, at_once, progress),
                    at_once=at_once,
                ),
                rest,
            )
    except (MlflowException, AnswerError, OSError) as error:
        once = once and MLFLOW_HTTP_REQUEST_MAX_RETRIES.name not in os.environ
        said = refusal(error, uri, once=once)
        raise StoreError(f"the tracking server {info.uri} cannot be read: {said}") from error


def through_client(uri: str, info: StoreInfo, settings: Settings, also: Collection[str]) -> tuple[Snapshot, Rows]:
    """The store as MlflowClient gives it. Raises StoreError with what MLflow says of a failure, secrets cut out."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    from mlflow_compliance.store.backends.client import ClientReader

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        reader = ClientReader(MlflowClient(tracking_uri=uri), at_once=settings.store.requests_at_once)
        return reader.read(info, settings, also)
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        said = without_secrets(first_line(error), uri)
        raise StoreError(f"the store {info.uri} cannot be read through MLflow: {said}") from error


def _workspace() -> str:
    """The one that MLflow's client names in its header; without one the server chooses."""
    from mlflow.utils.workspace_context import get_request_workspace

    return get_request_workspace() or ""
