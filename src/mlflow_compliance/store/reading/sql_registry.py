"""Reads the model registry by SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from mlflow_compliance.entities import EXTERNAL, ModelVersion, RegisteredModel
from mlflow_compliance.store.reading.common import IS_PROMPT, home_of, sources_of
from mlflow_compliance.store.reading.tables import Tables


class RegistryReader:
    """Brings in the registered models of the caller's workspace; prompts are none."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def registered_models(self) -> dict[str, RegisteredModel]:
        """Every one with its versions, tags and aliases, by name."""
        if "registered_models" not in self.tables.columns:
            return {}
        here = {"workspace": self.tables.workspace}
        tags: dict[str, dict[str, str]] = defaultdict(dict)
        aliases: dict[str, dict[str, str]] = defaultdict(dict)
        version_tags: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        versions: dict[str, list[ModelVersion]] = defaultdict(list)
        for name, key, value in self.tables.all(
            f"SELECT registered_models.name, registered_model_tags.key, value FROM {self._of_models('registered_model_tags')}", **here
        ):
            tags[name][key] = value or ""
        if "registered_model_aliases" in self.tables.columns:
            for name, alias, version in self.tables.all(
                f"SELECT registered_models.name, alias, version FROM {self._of_models('registered_model_aliases')}", **here
            ):
                aliases[name][alias] = str(version)
        for name, version, key, value in self.tables.all(
            f"SELECT registered_models.name, version, model_version_tags.key, value FROM {self._of_models('model_version_tags')}", **here
        ):
            version_tags[name, str(version)][key] = value or ""
        location = "storage_location" if self.tables.has("model_versions", "storage_location") else "NULL"
        for name, version, run_id, source, stored, status, stage in self.tables.all(
            f"SELECT registered_models.name, version, run_id, source, {location}, status, current_stage FROM {self._of_models('model_versions')} "
            "AND current_stage <> 'Deleted_Internal' ORDER BY version",
            **here,
        ):
            tagged = version_tags[name, str(version)]
            facts = ModelVersion(name, str(version), run_id or None, source or "", stored or source or "", status or "", stage or "None", tagged)
            versions[name].append(facts)
        homes = self._homes(version for found in versions.values() for version in found)
        external = self._external(version for found in versions.values() for version in found)
        versions.update(
            {
                name: [replace(item, experiment_id=home_of(item, homes), external=not external.isdisjoint(sources_of(item))) for item in found]
                for name, found in versions.items()
            }
        )
        return {
            name: RegisteredModel(name, tags[name], aliases[name], tuple(versions[name]))
            for (name,) in self.tables.all(f"SELECT name FROM registered_models WHERE {self.tables.here('registered_models')}", **here)
            if IS_PROMPT not in tags[name]
        }

    def _of_models(self, table: str) -> str:
        """Rows of the workspace, each beside its model: MLflow writes whichever name it was called with, and MySQL takes `CREDIT` for `credit`."""
        named = self.tables.equals("registered_models", "name", f"{table}.name")
        here = (self.tables.here(name) for name in (table, "registered_models"))
        return f"{table} JOIN registered_models ON {named} WHERE {' AND '.join(here)}"

    def _homes(self, versions: Iterable[ModelVersion]) -> dict[str, str]:
        """Id of a run or logged model that a version comes from -> its experiment."""
        ids = {key for version in versions for key in sources_of(version)}
        homes = {run_id: str(key) for run_id, key in self.tables.within("SELECT run_uuid, experiment_id FROM runs WHERE run_uuid IN :ids", ids)}
        if "logged_models" in self.tables.columns:
            homes |= {
                key: str(home) for key, home in self.tables.within("SELECT model_id, experiment_id FROM logged_models WHERE model_id IN :ids", ids)
            }
        return homes

    def _external(self, versions: Iterable[ModelVersion]) -> frozenset[str]:
        """Ids of the external models that versions come from."""
        if "logged_model_tags" not in self.tables.columns:
            return frozenset()
        ids = {key for version in versions for key in sources_of(version)}
        sql = "SELECT model_id FROM logged_model_tags WHERE tag_key = :external AND tag_value = 'true' AND model_id IN :ids"
        return frozenset(key for (key,) in self.tables.within(sql, ids, external=EXTERNAL))
