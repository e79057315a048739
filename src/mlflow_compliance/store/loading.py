"""Loads the production model: looks it up, holds what was downloaded against what its run recorded, and only then loads it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import requests
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request_safe
from pydantic import BaseModel, ConfigDict, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from mlflow_compliance.changes.production import METADATA, MLMODEL
from mlflow_compliance.entities import Experiment
from mlflow_compliance.errors import ChangeError, ComplianceError, SettingsError, StoreError, first_line
from mlflow_compliance.resolution import ModelFacts, Resolution, RunFacts, VersionFacts, resolve
from mlflow_compliance.scope import claims
from mlflow_compliance.settings import Product, Settings, find_settings, load_settings
from mlflow_compliance.store.client_reading import FEW, PAGE, pages
from mlflow_compliance.store.content import digest_of, opened
from mlflow_compliance.store.locations import Resolver, without_secrets
from mlflow_compliance.store.opening import Store, open_store
from mlflow_compliance.store.scanning import scan_file, scan_model
from mlflow_compliance.store.sqlite import sqlite_path
from mlflow_compliance.store.staging import create, explained, staged, write_bytes
from mlflow_compliance.store.writing import refuse_other_schema

if TYPE_CHECKING:
    import pandas as pd

HASH_OF_PICKLE = "compliance.sha256.model"
"""Tag of a production run: SHA-256 (hex) of the pickle that its model was built from."""
_BELOW = "model/"
"""How the metadata of a run names the files of its model."""
_SEARCH = "/api/2.0/mlflow/experiments/search"
_SILENT = (requests.ConnectionError, requests.Timeout, requests.exceptions.RetryError, requests.exceptions.ChunkedEncodingError)
_OF_THE_PLACE = {MLMODEL, "registered_model_meta"}
"""Files that need not be on record: MLflow writes the second one into a local store when somebody loads by name."""
_PREFIX = "mlflow-compliance-"


class UnreachableError(StoreError):
    """MLflow does not answer: nothing is known about the production model. The only error after which a fallback is looked at."""


class ModelError(ComplianceError):
    """The production model must not be loaded, or cannot be."""


@dataclass(frozen=True)
class ProductionModel:
    """The model that serves, and everything that says why it is this one."""

    model: Any
    """The native object (LGBMClassifier, ...), an mlflow.pyfunc.PyFuncModel where there is none."""
    features: tuple[str, ...]
    """Names of its columns, in the model's own order."""
    takes_missing: bool
    """Whether a value may be NaN."""
    threshold: float | None
    """A probability from here on is a yes; None where the run records none."""
    source: Literal["alias", "run", "fallback"]
    uri: str
    run_id: str
    version: str | None
    why: str
    sha256: Mapping[str, str]
    """Path in the model folder -> SHA-256 (hex) of every file that was loaded."""

    def probabilities(self, frame: pd.DataFrame) -> list[float]:
        """Probability of the positive class for each row; columns are taken by name, in any order.

        Raises ModelError where a column is missing or the model gives something else than one probability a row.
        """
        import numpy as np

        missing = [name for name in self.features if name not in frame.columns]
        if missing:
            raise ModelError(f"{len(missing)} columns that the model needs are missing: {', '.join(missing[:5])}")
        rows = frame[list(self.features)]
        scored = self.model.predict_proba(rows)[:, 1] if hasattr(self.model, "predict_proba") else self.model.predict(rows)
        found = np.asarray(scored)
        # Whole numbers are classes: a threshold says nothing about them.
        if found.shape != (len(rows),) or found.dtype.kind != "f" or not ((found >= 0) & (found <= 1)).all():
            raise ModelError(f"the model of run {self.run_id} does not give one probability for each row: log it with a flavor that does")
        return [float(value) for value in found]


class _Record(BaseModel):
    """What the last load through MLflow found, kept for the day on which MLflow is away."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str | None
    run_id: str
    version: str | None
    uri: str
    threshold: float | None
    features: tuple[str, ...]
    resolved_at: str


def load_production_model(
    *,
    tracking_uri: str | None = None,
    config: str | Path | None = None,
    product: str | None = None,
    fallback: str | Path | None = None,
    record: str | Path | None = None,
) -> ProductionModel:
    """The production model, loaded only where its files are safe and are those that its run recorded.

    `tracking_uri` wins over MLFLOW_TRACKING_URI, which wins over the settings in `config` (the nearest compliance.toml without one).
    `product` may be left out where the settings name one. Every load writes what it found to the file `record`. When MLflow does not
    answer, and only then, the pickle `fallback` is loaded, provided that it is the one that `record` names.

    Raises a ComplianceError of one sentence: UnreachableError where MLflow does not answer, ModelError where the model is refused,
    ResolutionError, StoreError or SettingsError.
    """
    wanted = _Wanted.of(tracking_uri, config, product)
    try:
        loaded, pickled = wanted.load()
    except UnreachableError as error:
        if fallback is None:
            raise
        return _from_pickle(str(fallback), record, wanted.settings, error)
    if record is None:
        return loaded
    try:
        _write_record(os.path.abspath(record), loaded, pickled)
    except ChangeError as error:
        return replace(loaded, why=f"{loaded.why}; {error}")
    return loaded


def find_production_model(
    *, tracking_uri: str | None = None, config: str | Path | None = None, product: str | None = None, timeout: float = 5.0
) -> Resolution:
    """What `load_production_model` would load now. `timeout` in seconds: UnreachableError where a server has not answered by then."""
    wanted = _Wanted.of(tracking_uri, config, product)
    wanted.reach(timeout)
    with wanted.asking():
        return wanted.resolve(wanted.client())


@dataclass(frozen=True)
class ClientLookup:
    """Answers from a live store."""

    client: MlflowClient
    product: Product
    settings: Settings

    def version_of(self, name: str, alias: str) -> VersionFacts | None:
        registered = _there(self.client.get_registered_model, name)
        number = registered.aliases.get(alias) if registered else None
        if number is None:
            return None
        found = self.client.get_model_version(name, str(number))
        location = self.client.get_model_version_download_uri(name, str(number))
        return VersionFacts(name, str(found.version), found.run_id or None, found.source or "", location or "")

    def run_of(self, run_id: str) -> RunFacts | None:
        run = _there(self.client.get_run, run_id)
        return _facts(run) if run else None

    def production_runs(self) -> list[RunFacts]:
        tags = self.product.production_tags
        found = pages(self.client.search_experiments, view_type=ViewType.ACTIVE_ONLY, max_results=PAGE)
        named = [Experiment(item.experiment_id, item.name, item.lifecycle_stage, "", dict(item.tags), {}) for item in found]
        covered = {item.experiment_id: item for item in named if self.product.covers(item)}
        ids = list(covered)
        runs = {
            run.info.run_id: run
            for key, value in tags.items()
            for start in range(0, len(ids), FEW)
            for run in pages(
                self.client.search_runs, experiment_ids=ids[start : start + FEW], filter_string=f"tags.`{key}` = {_quoted(value)}", max_results=PAGE
            )
            if run.data.tags.get(key) == value  # some databases compare without regard to case
        }
        marks = [(run.info.experiment_id, key, value) for run in runs.values() for key, value in tags.items() if run.data.tags.get(key) == value]
        claimed = {claim.experiment_id for claim in claims(self.settings, covered, marks) if claim.product == self.product.name}
        return [_facts(run) for run in runs.values() if run.info.experiment_id in claimed]

    def models_of(self, run_id: str) -> list[ModelFacts]:
        run = _there(self.client.get_run, run_id)
        if run is None:
            return []
        found = pages(self.client.search_logged_models, experiment_ids=[run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'")
        return [ModelFacts(model.model_id, model.name, model.artifact_location, model.creation_timestamp) for model in found]

    def holds_model(self, run: RunFacts, path: str) -> bool:
        repository = get_artifact_repository(_place(run.artifact_uri, self.settings), tracking_uri=self.client.tracking_uri)
        return any(item.path == f"{path}/{MLMODEL}" for item in repository.list_artifacts(path))


@dataclass(frozen=True)
class _Wanted:
    """The production model of one product in one store."""

    store: Store
    settings: Settings
    product: Product

    @classmethod
    def of(cls, tracking_uri: str | None, config: str | Path | None, product: str | None) -> _Wanted:
        settings = load_settings(Path(config) if config else find_settings(Path.cwd()))
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or settings.store.resolved_uri(settings.base) or ""
        store = open_store(uri, settings, os.getcwd())
        if store.info.backend == "file":
            raise StoreError(f"{store.info.uri} is a file store: a production model is loaded from a database or a tracking server, so migrate it")
        return cls(store, settings, _product(settings, product))

    def reach(self, timeout: float | None = None) -> None:
        """Raise UnreachableError where the store does not answer; `timeout` in seconds for a server, MLflow's own without one."""
        if self.store.info.backend == "sqlite":
            self._reach_database()
        elif timeout is not None and self.store.info.backend.startswith("http"):
            with self.asking():
                creds = get_default_host_creds(self.store.uri)
                http_request_safe(creds, _SEARCH, "POST", json={"max_results": 1}, timeout=timeout, max_retries=0)

    def _reach_database(self) -> None:
        path = sqlite_path(self.store.uri)
        if not os.path.exists(path):
            raise UnreachableError(f"there is no database at {path}: check the tracking URI (nothing was created)")
        try:
            refuse_other_schema(self.store)
        except StoreError as error:
            if "locked" in str(error.__cause__):
                raise UnreachableError(str(error)) from error
            raise

    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.store.uri, registry_uri=self.store.uri)

    def resolve(self, client: MlflowClient) -> Resolution:
        production = self.product.production
        lookup = ClientLookup(client, self.product, self.settings)
        return resolve(lookup, registered_model=production.registered_model, alias=production.alias)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """MLflow's and the system's refusals as one sentence."""
        try:
            yield
        except (MlflowException, requests.RequestException, SQLAlchemyError, OSError) as error:
            at = f"MLflow at {self.store.info.uri}"
            reason = _why_silent(error)
            if reason:
                raise UnreachableError(f"{at} cannot be reached ({reason}): start it, or check the tracking URI") from error
            said = without_secrets(first_line(error), self.store.uri)
            raise StoreError(f"{at} does not give the production model: {said}") from error

    def load(self) -> tuple[ProductionModel, str | None]:
        """The model through MLflow, and the hash of the pickle that its run names."""
        self.reach()
        with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder, self.asking():
            client = self.client()
            found = self.resolve(client)
            run = _there(client.get_run, found.run_id)
            what = f"the model {found.uri} of run {found.run_id}"
            files = self._download(client, found.location, os.path.join(folder, "model"))
            if not os.path.exists(os.path.join(files, MLMODEL)):
                raise ModelError(f"{what} has no MLmodel at {found.location}: put its files back, or move the alias to a version that has them")
            recorded = self._recorded(client, run, os.path.join(folder, "run")) if run else None
            scan = scan_model(files, self.settings.models)
            _refuse_problems(what, scan.problems)
            if recorded is not None:
                _refuse_differences(what, recorded, scan.hashes)
            model = _native(what, files)
            features = _features(what, model)
        why = found.why
        why += "; its files are those that the run recorded" if recorded is not None else "; nothing was recorded to compare its files with"
        why += "" if found.threshold is not None else "; no threshold is on record"
        loaded = ProductionModel(
            model, features, _takes_missing(model), found.threshold, found.via, found.uri, found.run_id, found.version, why, scan.hashes
        )
        return loaded, run.data.tags.get(HASH_OF_PICKLE) if run else None

    def _download(self, client: MlflowClient, location: str, folder: str, path: str = "") -> str:
        """The files at a location, in a folder of our own."""
        os.makedirs(folder)
        try:
            get_artifact_repository(_place(location, self.settings), tracking_uri=self.store.uri).download_artifacts(path, folder)
        except MlflowException:
            # MLflow does not say why a file was not downloaded: whether it is away is asked anew.
            client.search_experiments(max_results=1)
            raise
        return folder

    def _recorded(self, client: MlflowClient, run: Any, folder: str) -> dict[str, str] | None:
        """Path in the model folder -> SHA-256 that the run's metadata names; None where there is none."""
        repository = get_artifact_repository(_place(run.info.artifact_uri, self.settings), tracking_uri=self.store.uri)
        if not any(item.path == METADATA for item in repository.list_artifacts()):
            return None
        folder = self._download(client, run.info.artifact_uri, folder, METADATA)
        try:
            with open(os.path.join(folder, METADATA), encoding="utf-8") as file:
                listed = json.load(file).get("artifacts", [])
            named = {str(item["path"]): str(item["sha256"]) for item in listed}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(f"{METADATA} of run {run.info.run_id} does not list its artifacts with path and sha256: log it anew") from None
        return {path.removeprefix(_BELOW): digest for path, digest in named.items() if path.startswith(_BELOW)}


def _there(get: Callable[[str], Any], key: str) -> Any:
    """What MLflow has under a name or id, None where it has nothing."""
    try:
        return get(key)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _facts(run: Any) -> RunFacts:
    return RunFacts(run.info.run_id, run.info.status, dict(run.data.params), run.info.artifact_uri or "")


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"


def _place(location: str, settings: Settings) -> str:
    """A location as it is reached from here: through [store.relocate] where that speaks of it."""
    found = Resolver(settings.store.resolved_relocate(settings.base))(location)
    return found.path if found.path and found.prefix is not None else location


def _product(settings: Settings, name: str | None) -> Product:
    found = [product for product in settings.products if name in (None, product.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(product.name for product in settings.products)
    raise SettingsError(
        f"there is no product {name} in the settings: name one of {names}" if name else f"the settings name {names}: say which product"
    )


def _why_silent(error: BaseException) -> str:
    """Why MLflow does not answer, in a few words; empty where it did answer, or refused the connection for what we are."""
    chain = [error]
    while after := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(after)
    if "database is locked" in str(error):
        return "the database is locked"
    if any(isinstance(item, requests.exceptions.SSLError) for item in chain) or not any(isinstance(item, _SILENT) for item in chain):
        return ""
    said = (item.strerror for item in reversed(chain) if isinstance(item, OSError) and item.strerror)
    return next(said, first_line(chain[-1])).lower()


def _refuse_problems(what: str, problems: Sequence[str]) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        raise ModelError(f"{what} is not known to be safe, so it was not loaded: {problems[0]}{more}")


def _refuse_differences(what: str, recorded: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raise ModelError unless a model holds exactly the files on record, those aside that MLflow writes for the place where a model lies."""
    extra = found.keys() - recorded.keys() - _OF_THE_PLACE
    unlike = [f"{path} is missing" for path in sorted(recorded.keys() - found.keys())]
    unlike += [f"{path} has changed" for path in sorted(recorded.keys() & found.keys()) if recorded[path] != found[path]]
    unlike += [f"{path} is not on record" for path in sorted(extra)]
    if unlike:
        raise ModelError(f"{what} is not the one on record, so it was not loaded: {', '.join(unlike)}; put the recorded files back")


def _native(what: str, folder: str) -> Any:
    """The model as its own library knows it."""
    try:
        flavors = Model.load(folder).flavors
        if "lightgbm" in flavors:
            from mlflow.lightgbm import load_model
        elif "sklearn" in flavors:
            from mlflow.sklearn import load_model
        else:
            from mlflow.pyfunc import load_model
        return load_model(folder)
    except Exception as error:
        raise ModelError(
            f"{what} cannot be loaded here ({type(error).__name__}: {first_line(error)}): install what its requirements.txt names"
        ) from error


def _features(what: str, model: Any) -> tuple[str, ...]:
    names = next((found for name in ("feature_name_", "feature_names_in_") if (found := getattr(model, name, None)) is not None), None)
    if names is None and hasattr(model, "feature_name"):
        names = model.feature_name()  # a booster
    if names is None and hasattr(model, "metadata"):
        schema = model.metadata.get_input_schema()  # a pyfunc model
        names = schema.input_names() if schema else None
    if names is not None and len(names):
        return tuple(str(name) for name in names)
    raise ModelError(f"{what} does not name its features: train it on a frame with column names, or log it with a signature")


def _takes_missing(model: Any) -> bool:
    if hasattr(model, "__sklearn_tags__"):
        return bool(model.__sklearn_tags__().input_tags.allow_nan)
    return hasattr(model, "feature_name")


def _write_record(path: str, loaded: ProductionModel, pickled: str | None) -> None:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    facts = _Record(
        sha256=pickled,
        run_id=loaded.run_id,
        version=loaded.version,
        uri=loaded.uri,
        threshold=loaded.threshold,
        features=loaded.features,
        resolved_at=now,
    )
    with explained(path, "could not be written"), staged(path) as temporary:
        with create(temporary) as file:
            write_bytes(file, facts.model_dump_json(indent=1).encode() + b"\n")
            os.fsync(file)
        os.replace(temporary, path)


def _from_pickle(fallback: str, record: str | Path | None, settings: Settings, away: UnreachableError) -> ProductionModel:
    """The pickle that stands in while MLflow is away. Nothing in it runs before its bytes are known to be those on record."""
    known = _read_record(fallback, record, away)
    what = f"the fallback {fallback}"
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        try:
            path = shutil.copyfile(fallback, os.path.join(folder, os.path.basename(fallback)))
            with opened(path) as file:
                digest = digest_of(file, path)
        except OSError as error:
            raise ModelError(f"{away}; {what} cannot be read ({error.strerror}) either") from error
        if digest != known.sha256:
            raise ModelError(f"{away}; {what} has sha256 {digest[:16]} and not the recorded {str(known.sha256)[:16]}, so it was not loaded")
        _refuse_problems(f"{away}; {what}", scan_file(path, settings.models).problems)
        model = _unpickled(what, path)
    why = f"{away}; {what} stands in, which holds the model of run {known.run_id} as recorded at {known.resolved_at}"
    return ProductionModel(
        model,
        _features(what, model),
        _takes_missing(model),
        known.threshold,
        "fallback",
        known.uri,
        known.run_id,
        known.version,
        why,
        {os.path.basename(fallback): digest},
    )


def _read_record(fallback: str, record: str | Path | None, away: UnreachableError) -> _Record:
    try:
        known = _Record.model_validate_json(Path(record).read_bytes()) if record else None
    except FileNotFoundError:
        known = None
    except (OSError, ValidationError):
        raise ModelError(f"{away}; the record {record} cannot be read, so {fallback} was not loaded") from None
    if known is None or known.sha256 is None:
        raise ModelError(f"{away}; there is no record of what {fallback} must hold, so it was not loaded: a load through MLflow writes one")
    return known


def _unpickled(what: str, path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return pickle.load(file)  # noqa: S301 - its bytes are those on record, and were scanned
    except Exception as error:
        raise ModelError(f"{what} cannot be loaded here ({type(error).__name__}: {first_line(error)}): install what the model needs") from error
