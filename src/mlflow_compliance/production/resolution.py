"""Which model is the production one: the choice that the rule SRV001 makes on a Snapshot and the loader on a live
store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.production.claims import production_runs
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.facts import threshold_in_force
from mlflow_compliance.settings.schema import Product, Settings
from mlflow_compliance.snapshot.entities import Run
from mlflow_compliance.snapshot.snapshot import Snapshot


class ResolutionError(ComplianceError):
    """The store does not say which model is the production one."""


class VersionFacts(NamedTuple):
    """The version that an alias names; `location` is where its files lie, `source` what it was registered from."""

    name: str
    version: str
    run_id: str | None
    source: str
    location: str


class RunFacts(NamedTuple):
    """What the choice asks of a run."""

    run_id: str
    status: str
    params: Mapping[str, str]
    artifact_uri: str
    metrics: Mapping[str, float]
    """Key -> its latest value."""
    tags: Mapping[str, str]


class ModelFacts(NamedTuple):
    """An active logged model; `created` in milliseconds, 0 where it is not known."""

    model_id: str
    name: str
    location: str
    created: int


class Lookup(Protocol):
    """What the choice asks of a store, for one product."""

    @property
    def product(self) -> Product: ...

    def version_of(self, name: str, alias: str) -> VersionFacts | None:
        """The version that an alias of a registered model names; None where there is no such model or alias."""

    def run_of(self, run_id: str) -> RunFacts | None:
        """A run by id, None where it is not there."""

    def production_runs(self) -> list[RunFacts]:
        """The active runs that are marked as the product's production, or the one that its alias names."""

    def models_of(self, run_id: str) -> list[ModelFacts]:
        """The active logged models that a run wrote."""

    def holds_model(self, run: RunFacts, path: str) -> bool:
        """Whether a model folder lies at a path among a run's own artifacts, as before MLflow 3."""


@dataclass(frozen=True)
class Resolution:
    """The production model: how it was found, where its files lie, and the threshold that its run records."""

    via: Literal["alias", "run"]
    why: str
    """One sentence for people."""
    run_id: str
    version: str | None
    """Version of the registered model; None where it was found by its run."""
    model_id: str | None
    """None for a model that is a folder among its run's artifacts."""
    uri: str
    location: str
    threshold: float | None


def resolve(lookup: Lookup, *, registered_model: str | None, alias: str) -> Resolution:
    """The model that the alias names; where there is no such alias, and tags say what is in production, that of the
    one finished run that is marked so.

    Raises ResolutionError, which says what was looked for and what to do.
    """
    version = lookup.version_of(registered_model, alias) if registered_model else None
    if version is not None:
        return _by_alias(lookup, version, alias)
    missing = (
        f"there is no alias {alias} of a registered model {registered_model}"
        if registered_model
        else "the settings name no registered model"
    )
    if lookup.product.by_alias:
        raise ResolutionError(f"{missing}, which alone says what is in production (production_by): set the alias")
    return _by_run(lookup, missing)


def _by_alias(lookup: Lookup, version: VersionFacts, alias: str) -> Resolution:
    if not version.run_id:
        raise ResolutionError(
            f"alias {alias} names version {version.version} of {version.name}, which was registered without a run: "
            "register the production run's model and move the alias to that version"
        )
    model_id, location = _files_of(lookup, version)
    run = lookup.run_of(version.run_id)
    return Resolution(
        via="alias",
        why=f"alias {alias} of {version.name} names version {version.version}, made by run "
        f"{version.run_id}{_aside(lookup, version.run_id)}",
        run_id=version.run_id,
        version=version.version,
        model_id=model_id,
        uri=f"models:/{model_id}" if model_id else f"models:/{version.name}/{version.version}",
        location=location,
        threshold=_threshold(lookup, run) if run else None,
    )


def _aside(lookup: Lookup, run_id: str) -> str:
    marked = sorted(run.run_id for run in lookup.production_runs())
    if marked == [run_id]:
        return ""
    if lookup.product.by_alias:
        return ", which is deleted or not there"
    return f", while marked as production: {', '.join(marked)}" if marked else ", while no run is marked as production"


def _files_of(lookup: Lookup, version: VersionFacts) -> tuple[str | None, str]:
    """The logged model behind a version, where its files are those that MLflow fetches, and where these lie: at the
    version's own location, whatever it was registered from.
    """
    written = lookup.models_of(version.run_id or "")
    scheme, _, rest = version.source.partition(":/")
    first, _, path = rest.strip("/").partition("/")
    stored = version.location if not version.location.startswith(("models:/", "runs:/")) else ""
    if scheme == "models" and not path and "@" not in first:
        elsewhere = any(model.model_id == first and _plain(model.location) != _plain(stored) for model in written)
        return None if stored and elsewhere else first, version.location
    if scheme == "runs":
        models = [model for model in lookup.models_of(first) if model.name == path]
        if models:
            model = _latest(models, first)
            same = not stored or _plain(stored) == _plain(model.location)
            return (model.model_id, model.location) if same else (None, stored)
        run = lookup.run_of(first)
        return None, stored or (f"{run.artifact_uri}/{path}" if run else version.location)
    models = [model for model in written if model.location == version.location]
    return (models[0].model_id if models else None), version.location


def _plain(location: str) -> str:
    """A location in the spelling that two rows are compared in."""
    return location.removeprefix("file://").rstrip("/")


def _by_run(lookup: Lookup, missing: str) -> Resolution:
    run = _marked(lookup, missing)
    model = _model_of(lookup, run)
    return Resolution(
        via="run",
        why=f"{missing}, and run {run.run_id} is the only one marked as production ({_marks(lookup)})",
        run_id=run.run_id,
        version=None,
        model_id=model.model_id if model else None,
        uri=f"models:/{model.model_id}" if model else f"runs:/{run.run_id}/{_name(lookup)}",
        location=model.location if model else f"{run.artifact_uri}/{_name(lookup)}",
        threshold=_threshold(lookup, run),
    )


def _marked(lookup: Lookup, missing: str) -> RunFacts:
    runs = lookup.production_runs()
    if not runs:
        raise ResolutionError(
            f"{missing}, and no run of product {lookup.product.name} is marked as production ({_marks(lookup)}): "
            "set the alias or tag the run"
        )
    if len(runs) > 1:
        ids = ", ".join(sorted(run.run_id for run in runs))
        raise ResolutionError(
            f"{missing}, and {len(runs)} runs are marked as production ({ids}): set the alias or leave the tag on "
            "one of them"
        )
    if runs[0].status != "FINISHED":
        raise ResolutionError(
            f"{missing}, and run {runs[0].run_id}, the only one marked as production, is {runs[0].status}: set "
            "the alias or tag a finished run"
        )
    return runs[0]


def _model_of(lookup: Lookup, run: RunFacts) -> ModelFacts | None:
    """The logged model of a run; None for a model folder among its artifacts."""
    models, name = lookup.models_of(run.run_id), _name(lookup)
    models = [model for model in models if model.name == name] or models
    names = sorted({model.name for model in models})
    if len(names) > 1:
        raise ResolutionError(
            f"production run {run.run_id} logged {', '.join(names)}, none named {name}: say which in "
            "production.model_name"
        )
    if not models and not lookup.holds_model(run, name):
        raise ResolutionError(
            f"production run {run.run_id} has no model named {name}: log its model, or mark the run that has one"
        )
    return _latest(models, run.run_id) if models else None


def _latest(models: list[ModelFacts], run_id: str) -> ModelFacts:
    """The one that was made last, as MLflow takes it for a runs:/ URI."""
    last = max(model.created for model in models)
    found = [model for model in models if model.created == last]
    if len(found) > 1:
        ids = ", ".join(sorted(model.model_id for model in found))
        raise ResolutionError(
            f"run {run_id} logged {ids} under one name and nothing says which is the later: register one and set "
            "the alias"
        )
    return found[0]


def _threshold(lookup: Lookup, run: RunFacts) -> float | None:
    """The threshold that is in force for a run; None where it holds none."""
    try:
        found = threshold_in_force(lookup.product, run.params, run.metrics, run.tags)
    except ValueError as error:
        where = str(error).replace(" is ", f" of run {run.run_id} is ", 1)
        raise ResolutionError(f"{where}: log a run with the right one and mark that") from None
    return found[0] if found else None


def _name(lookup: Lookup) -> str:
    return lookup.product.production.model_name


def _marks(lookup: Lookup) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(lookup.product.production_tags.items()))


def folder_of(found: Resolution, product: Product, snapshot: Snapshot) -> str:
    """The folder that a program would load from: a version is fetched from its own location, whatever it was
    registered from. As it is spelled in the row where that was not looked at.
    """
    version = f"{product.production.registered_model}/{found.version}"
    rows = [("model_version", version), ("logged_model", found.model_id or "")]
    locations = snapshot.artifacts.locations if snapshot.artifacts else {}
    return next(filter(None, map(locations.get, rows)), None) or found.location


@dataclass(frozen=True)
class SnapshotLookup:
    """Answers from a Snapshot that holds the run behind the alias in full; a model folder is found only where its
    artifacts were read.
    """

    snapshot: Snapshot
    product: Product
    settings: Settings

    def version_of(self, name: str, alias: str) -> VersionFacts | None:
        registered = self.snapshot.registered_models.get(name)
        found = registered.version(registered.aliases.get(alias)) if registered else None
        return VersionFacts(name, found.version, found.run_id, found.source, found.location) if found else None

    def run_of(self, run_id: str) -> RunFacts | None:
        run = self.snapshot.runs.get(run_id)
        return _facts(run) if run else None

    def production_runs(self) -> list[RunFacts]:
        return [_facts(run) for run in production_runs(self.product, Context(self.snapshot, self.settings))]

    def models_of(self, run_id: str) -> list[ModelFacts]:
        # Rows in a Snapshot do not say when a model was made; the newest of its files does.
        newest = self.snapshot.artifacts.newest if self.snapshot.artifacts else {}
        return [
            ModelFacts(model.model_id, model.name, model.artifact_location, newest.get(model.ref.place, 0))
            for model in self.snapshot.models_of(run_id)
        ]

    def holds_model(self, run: RunFacts, path: str) -> bool:
        artifacts = self.snapshot.artifacts
        folder = artifacts.locations.get(("run", run.run_id)) if artifacts else None
        return artifacts is not None and folder is not None and f"{folder}/{path}" in artifacts.models


def _facts(run: Run) -> RunFacts:
    return RunFacts(run.run_id, run.status, run.params, run.artifact_uri, run.latest, run.tags)
