"""Looks the production model up in a live store, through MlflowClient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow.entities import ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from mlflow_compliance.changes.production import MLMODEL
from mlflow_compliance.entities import Experiment
from mlflow_compliance.resolution import ModelFacts, RunFacts, VersionFacts
from mlflow_compliance.scope import claims
from mlflow_compliance.settings import Product, Settings
from mlflow_compliance.store.reading.listing import FEW, PAGE, pages, there
from mlflow_compliance.store.reading.locations import Resolver, is_relative


@dataclass(frozen=True)
class ClientLookup:
    """Answers from a live store."""

    client: MlflowClient
    product: Product
    settings: Settings
    home: str | None
    """The folder that relative locations start from, None where nobody here knows it."""

    def version_of(self, name: str, alias: str) -> VersionFacts | None:
        registered = there(self.client.get_registered_model, name)
        number = registered.aliases.get(alias) if registered else None
        if number is None:
            return None
        found = self.client.get_model_version(name, str(number))
        location = self.client.get_model_version_download_uri(name, str(number))
        return VersionFacts(name, str(found.version), found.run_id or None, found.source or "", location or "")

    def run_of(self, run_id: str) -> RunFacts | None:
        run = there(self.client.get_run, run_id)
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
        run = there(self.client.get_run, run_id)
        if run is None:
            return []
        found = pages(self.client.search_logged_models, experiment_ids=[run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'")
        return [ModelFacts(model.model_id, model.name, model.artifact_location, model.creation_timestamp) for model in found]

    def holds_model(self, run: RunFacts, path: str) -> bool:
        repository = get_artifact_repository(place(run.artifact_uri, self.settings, self.home), tracking_uri=self.client.tracking_uri)
        return any(item.path == f"{path}/{MLMODEL}" for item in repository.list_artifacts(path))


def _facts(run: Any) -> RunFacts:
    return RunFacts(run.info.run_id, run.info.status, dict(run.data.params), run.info.artifact_uri or "")


def _quoted(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"


def place(location: str, settings: Settings, home: str | None) -> str:
    """A location as it is reached from here: through [store.relocate] where that speaks of it, a relative one from the folder of its store."""
    found = Resolver(settings.store.resolved_relocate(settings.base), home)(location)
    return found.path if found.path and (found.prefix is not None or is_relative(location)) else location
