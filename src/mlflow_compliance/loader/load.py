"""Loads the production model: looks it up, holds what was downloaded against what its run recorded, and only then
loads it.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request_safe
from sqlalchemy.exc import SQLAlchemyError

from mlflow_compliance.errors import SettingsError, StoreError, first_line
from mlflow_compliance.loader.fallback import TEMPORARY_PREFIX, from_pickle, with_record
from mlflow_compliance.loader.model import (
    ModelError,
    ProductionModel,
    UnreachableError,
    features,
    native,
    refuse_differences,
    refuse_problems,
    refuse_unsigned,
    takes_missing,
)
from mlflow_compliance.production.claims import claims
from mlflow_compliance.production.keys import PublicKey, keys_of
from mlflow_compliance.production.metadata import recorded_files
from mlflow_compliance.production.resolution import ModelFacts, Resolution, RunFacts, VersionFacts, resolve
from mlflow_compliance.production.signature import LARGEST, bundle_of, unreadable, verdict
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.settings.schema import Product, Settings, find_settings, load_settings
from mlflow_compliance.snapshot.entities import ACTIVE, Experiment
from mlflow_compliance.snapshot.evidence import Unsigned
from mlflow_compliance.snapshot.files import METADATA, MLMODEL
from mlflow_compliance.snapshot.tags import BUILD, COMPLETE_BUILD, METADATA_HASH
from mlflow_compliance.store.backends.databases import DatabaseBackend
from mlflow_compliance.store.backends.listing import IDS_A_SEARCH, PAGE, get_or_none, pages
from mlflow_compliance.store.backends.sqlite_file import sqlite_path
from mlflow_compliance.store.models.scan import scan_model
from mlflow_compliance.store.storage.http_errors import why_silent
from mlflow_compliance.store.storage.locations import Resolver, is_relative
from mlflow_compliance.store.storage.parsing import LARGEST_METADATA, parse_json, read_at_most
from mlflow_compliance.store.storage.safe_io import opened
from mlflow_compliance.store.store import Store, open_store

HASH_OF_PICKLE = "compliance.sha256.model"
"""Tag of a production run: SHA-256 (hex) of the pickle that its model was built from."""
_SEARCH = "/api/2.0/mlflow/experiments/search"
_SILENT = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.RetryError,
    requests.exceptions.ChunkedEncodingError,
)


def load_production_model(
    *,
    tracking_uri: str | None = None,
    config: str | Path | None = None,
    product: str | None = None,
    fallback: str | Path | None = None,
    record: str | Path | None = None,
) -> ProductionModel:
    """The production model, loaded only where its files are safe and are those that its run recorded.

    `tracking_uri` wins over MLFLOW_TRACKING_URI, which wins over the settings in `config` (the nearest compliance.toml
    without one).
    `product` may be left out where the settings name one. Every load writes what it found to the file `record`. When
    MLflow does not
    answer, and only then, the pickle `fallback` is loaded, provided that it is the one that `record` names.

    Raises a ComplianceError of one sentence: UnreachableError where MLflow does not answer, ModelError where the model
    is refused,
    ResolutionError, StoreError or SettingsError.
    """
    wanted = _Wanted.of(tracking_uri, config, product)
    try:
        loaded, pickled = wanted.load()
    except UnreachableError as error:
        if fallback is None:
            raise
        return from_pickle(str(fallback), record, wanted.settings, error)
    return with_record(record, loaded, pickled) if record else loaded


def find_production_model(
    *,
    tracking_uri: str | None = None,
    config: str | Path | None = None,
    product: str | None = None,
    timeout: float = 5.0,
) -> Resolution:
    """What `load_production_model` would load now. `timeout` in seconds: UnreachableError where a server has not
    answered by then.
    """
    wanted = _Wanted.of(tracking_uri, config, product)
    wanted.reach(timeout)
    with wanted.asking():
        return wanted.resolve(wanted.client())


@dataclass(frozen=True)
class _Wanted:
    """The production model of one product in one store."""

    store: Store
    settings: Settings
    product: Product
    key: PublicKey | None = None
    """What the model's bundle is held to, where `verify_with` names it."""

    @classmethod
    def of(cls, tracking_uri: str | None, config: str | Path | None, product: str | None) -> _Wanted:
        settings = load_settings(Path(config) if config else find_settings(Path.cwd()))
        uri = settings.store.wanted_uri(tracking_uri, settings.base)
        store = open_store(uri, settings, os.getcwd())
        if store.info.backend == "file":
            raise StoreError(
                f"{store.info.uri} is a file store: a production model is loaded from a database or a tracking "
                "server, so migrate it"
            )
        return cls(store, settings, _product(settings, product), keys_of(settings, verifying_only=True).verifying)

    def reach(self, timeout: float | None = None) -> None:
        """Raise UnreachableError where the store does not answer; `timeout` in seconds for a server, MLflow's own
        without one.
        """
        if self.store.info.backend == "sqlite":
            self._reach_database()
        elif isinstance(self.store.backend, DatabaseBackend):
            self._reach_server(self.store.backend, timeout)
        elif timeout is not None and self.store.info.backend.startswith("http"):
            with self.asking():
                creds = get_default_host_creds(self.store.uri)
                http_request_safe(creds, _SEARCH, "POST", json={"max_results": 1}, timeout=timeout, max_retries=0)

    def _reach_database(self) -> None:
        path = sqlite_path(self.store.uri)
        if not os.path.exists(path):
            raise UnreachableError(f"there is no database at {path}: check the tracking URI (nothing was created)")
        try:
            self.store.backend.refuse_other_schema()
        except StoreError as error:
            if "locked" in str(error.__cause__):
                raise UnreachableError(str(error)) from error
            raise

    def _reach_server(self, backend: DatabaseBackend, timeout: float | None = None) -> None:
        reason = backend.silent(timeout) if timeout is not None else backend.silent()
        if reason:
            raise UnreachableError(
                f"MLflow's database at {backend.info.uri} cannot be reached ({reason}): start it, or check the "
                "tracking URI"
            )
        # Opened through MLflow, an old store that lacks some tables would be migrated, and one that is none would
        # become one.
        backend.refuse_other_schema()

    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.store.uri, registry_uri=self.store.uri)

    def resolve(self, client: MlflowClient) -> Resolution:
        production = self.product.production
        lookup = ClientLookup(client, self.product, self.settings, self.store.backend.home)
        return resolve(lookup, registered_model=production.registered_model, alias=production.alias)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """MLflow's and the system's refusals as one sentence."""
        try:
            yield
        except (MlflowException, requests.RequestException, SQLAlchemyError, OSError) as error:
            at = f"MLflow at {self.store.info.uri}"
            backend = self.store.backend
            reason = _why_silent(error) or (backend.silent() if isinstance(backend, DatabaseBackend) else "")
            if reason:
                raise UnreachableError(
                    f"{at} cannot be reached ({reason}): start it, or check the tracking URI"
                ) from error
            said = without_secrets(first_line(error), self.store.uri)
            raise StoreError(f"{at} does not give the production model: {said}") from error

    def load(self) -> tuple[ProductionModel, str | None]:
        """The model through MLflow, and the hash of the pickle that its run names."""
        self.reach()
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX) as folder, self.asking():
            client = self.client()
            found = self.resolve(client)
            run = get_or_none(client.get_run, found.run_id)
            what = f"the model {found.uri} of run {found.run_id}"
            files = self._download(client, found.location, os.path.join(folder, "model"))
            if not os.path.exists(os.path.join(files, MLMODEL)):
                raise ModelError(
                    f"{what} has no MLmodel at {found.location}: put its files back, or move the alias to a "
                    "version that has them"
                )
            recorded = self._recorded(client, run, os.path.join(folder, "run")) if run else None
            scan = scan_model(files, self.settings.models)
            refuse_problems(what, scan.problems)
            if self.key is not None:
                refuse_unsigned(what, self._unsigned(client, found, scan.hashes, os.path.join(folder, "bundle")))
            if recorded is not None:
                refuse_differences(what, recorded, scan.hashes)
            model = native(what, files)
            columns = features(what, model)
        why = found.why
        why += (
            "; its files are those that the run recorded"
            if recorded is not None
            else "; nothing was recorded to compare its files with"
        )
        why += f"; they are those that were signed with the key {self.key.fingerprint[:16]}" if self.key else ""
        why += "" if found.threshold is not None else "; no threshold is on record"
        loaded = ProductionModel(
            model,
            columns,
            takes_missing(model),
            found.threshold,
            found.via,
            found.uri,
            found.run_id,
            found.version,
            why,
            scan.hashes,
        )
        return loaded, run.data.tags.get(HASH_OF_PICKLE) if run else None

    def _download(self, client: MlflowClient, location: str, folder: str, path: str = "") -> str:
        """The files at a location, in a folder of our own."""
        os.makedirs(folder)
        try:
            get_artifact_repository(
                place(location, self.settings, self.store.backend.home), tracking_uri=self.store.uri
            ).download_artifacts(path, folder)
        except MlflowException:
            # MLflow does not say why a file was not downloaded: whether it is away is asked anew.
            client.search_experiments(max_results=1)
            raise
        return folder

    def _unsigned(
        self, client: MlflowClient, found: Resolution, hashes: Mapping[str, str], folder: str
    ) -> Sequence[Unsigned]:
        """How the files of the model are not those of the bundle beside it."""
        named = found.location.startswith("models:/") and found.model_id
        location = client.get_logged_model(found.model_id).artifact_location if named else found.location
        location = place(location, self.settings, self.store.backend.home)
        beside, _, name = bundle_of(location).rpartition("/")
        repository, bundle = get_artifact_repository(beside, tracking_uri=self.store.uri), None
        if any(item.path == name for item in repository.list_artifacts()):
            os.makedirs(folder)
            try:
                repository.download_artifacts(name, folder)
                with open(os.path.join(folder, name), "rb") as file:
                    bundle = file.read(LARGEST + 1)
            except (MlflowException, OSError):
                client.search_experiments(max_results=1)  # as above: MLflow may be away
                return (unreadable(),)
        assert self.key is not None
        return verdict(bundle, location, hashes, self.key)

    def _recorded(self, client: MlflowClient, run: Any, folder: str) -> dict[str, str] | None:
        """Path in the model folder -> SHA-256 that the run's metadata names; None where there is none."""
        repository = get_artifact_repository(
            place(run.info.artifact_uri, self.settings, self.store.backend.home), tracking_uri=self.store.uri
        )
        if not any(item.path == METADATA for item in repository.list_artifacts()):
            if run.data.tags.get(BUILD) == COMPLETE_BUILD:
                raise ModelError(
                    f"run {run.info.run_id} was built with a {METADATA} that is not there any more: put it back"
                )
            return None
        folder = self._download(client, run.info.artifact_uri, folder, METADATA)
        try:
            with opened(os.path.join(folder, METADATA)) as file:
                content = read_at_most(file, LARGEST_METADATA)
        except ValueError as error:
            raise ModelError(f"{METADATA} of run {run.info.run_id} {error}: put the recorded file back") from None
        tagged = run.data.tags.get(METADATA_HASH)
        if tagged is not None and tagged != hashlib.sha256(content).hexdigest():
            raise ModelError(
                f"{METADATA} of run {run.info.run_id} is not the one on record (tag {METADATA_HASH}), so its model was "
                "not loaded: put the recorded file back"
            )
        try:
            document = parse_json(content)
            recorded = recorded_files(document, run.info.run_id)
            lists_mlmodel = MLMODEL in recorded_files(document, document.get("run_id"))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(
                f"{METADATA} of run {run.info.run_id} does not list its artifacts with path and sha256: log it anew"
            ) from None
        if tagged is None and lists_mlmodel and run.data.tags.get(BUILD) == COMPLETE_BUILD:
            # Whatever listed it put the hash on the run too.
            raise ModelError(
                f"run {run.info.run_id} was built with the tag {METADATA_HASH}, which is not there any more, so its "
                "model was not loaded: ART004 says how it is put back"
            )
        return recorded


def _product(settings: Settings, name: str | None) -> Product:
    found = [product for product in settings.products if name in (None, product.name)]
    if len(found) == 1:
        return found[0]
    if not settings.products:
        raise SettingsError(
            "the settings name no product, so nothing says which model is meant: write [[products]] in compliance.toml"
        )
    names = ", ".join(product.name for product in settings.products)
    raise SettingsError(
        f"there is no product {name} in the settings: name one of {names}"
        if name
        else f"the settings name {names}: say which product"
    )


def _why_silent(error: BaseException) -> str:
    """Why MLflow does not answer, in a few words; empty where it did answer, or refused the connection for what we
    are.
    """
    chain = [error]
    while after := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(after)
    if "database is locked" in str(error):
        return "the database is locked"
    if any(isinstance(item, requests.exceptions.SSLError) for item in chain) or not any(
        isinstance(item, _SILENT) for item in chain
    ):
        return ""
    said = (item.strerror for item in reversed(chain) if isinstance(item, OSError) and item.strerror)
    return next(said, "").lower() or why_silent(error)


@dataclass(frozen=True)
class ClientLookup:
    """Answers from a live store."""

    client: MlflowClient
    product: Product
    settings: Settings
    home: str | None
    """The folder that relative locations start from, None where nobody here knows it."""

    def version_of(self, name: str, alias: str) -> VersionFacts | None:
        registered = get_or_none(self.client.get_registered_model, name)
        number = registered.aliases.get(alias) if registered else None
        if number is None:
            return None
        found = self.client.get_model_version(name, str(number))
        location = self.client.get_model_version_download_uri(name, str(number))
        return VersionFacts(name, str(found.version), found.run_id or None, found.source or "", location or "")

    def run_of(self, run_id: str) -> RunFacts | None:
        run = get_or_none(self.client.get_run, run_id)
        return _facts(run) if run else None

    def production_runs(self) -> list[RunFacts]:
        return self._behind_alias() if self.product.by_alias else self._marked()

    def _behind_alias(self) -> list[RunFacts]:
        version = self.version_of(self.product.production.registered_model or "", self.product.production.alias)
        run = get_or_none(self.client.get_run, version.run_id) if version and version.run_id else None
        home = get_or_none(self.client.get_experiment, run.info.experiment_id) if run else None
        kept = run and home and {run.info.lifecycle_stage, home.lifecycle_stage} == {ACTIVE}
        return [_facts(run)] if kept else []

    def _marked(self) -> list[RunFacts]:
        tags = self.product.production_tags
        found = pages(self.client.search_experiments, view_type=ViewType.ACTIVE_ONLY, max_results=PAGE)
        named = [
            Experiment(item.experiment_id, item.name, item.lifecycle_stage, "", dict(item.tags), {}) for item in found
        ]
        covered = {item.experiment_id: item for item in named if self.product.covers(item)}
        ids = list(covered)
        runs = {
            run.info.run_id: run
            for key, value in tags.items()
            for start in range(0, len(ids), IDS_A_SEARCH)
            for run in pages(
                self.client.search_runs,
                experiment_ids=ids[start : start + IDS_A_SEARCH],
                filter_string=f"tags.`{key}` = {_quoted(value)}",
                max_results=PAGE,
            )
            if run.data.tags.get(key) == value  # some databases compare without regard to case
        }
        marks = [
            (run.info.experiment_id, key, value)
            for run in runs.values()
            for key, value in tags.items()
            if run.data.tags.get(key) == value
        ]
        claimed = {
            claim.experiment_id for claim in claims(self.settings, covered, marks) if claim.product == self.product.name
        }
        return [_facts(run) for run in runs.values() if run.info.experiment_id in claimed]

    def models_of(self, run_id: str) -> list[ModelFacts]:
        run = get_or_none(self.client.get_run, run_id)
        if run is None:
            return []
        found = pages(
            self.client.search_logged_models,
            experiment_ids=[run.info.experiment_id],
            filter_string=f"source_run_id = '{run_id}'",
        )
        return [
            ModelFacts(model.model_id, model.name, model.artifact_location, model.creation_timestamp) for model in found
        ]

    def holds_model(self, run: RunFacts, path: str) -> bool:
        repository = get_artifact_repository(
            place(run.artifact_uri, self.settings, self.home), tracking_uri=self.client.tracking_uri
        )
        return any(item.path == f"{path}/{MLMODEL}" for item in repository.list_artifacts(path))


def _facts(run: Any) -> RunFacts:
    data = run.data
    return RunFacts(
        run.info.run_id,
        run.info.status,
        dict(data.params),
        run.info.artifact_uri or "",
        dict(data.metrics),
        dict(data.tags),
    )


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"


def place(location: str, settings: Settings, home: str | None) -> str:
    """A location as it is reached from here: through [store.relocate] where that speaks of it, a relative one from
    the folder of its store.
    """
    found = Resolver(settings.store.resolved_relocate(settings.base), home)(location)
    return found.path if found.path and (found.prefix is not None or is_relative(location)) else location
