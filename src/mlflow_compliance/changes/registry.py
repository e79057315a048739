"""Changes of the model registry: a version, an alias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlflow_compliance.changes.base import Applicability, Change, still
from mlflow_compliance.changes.symbols import JOURNAL
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.entities import ModelVersion, RegisteredModel
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import BUILT_IN


def version_of(model_id: str) -> str:
    """The symbol for the number that MLflow will give to the version made of a logged model."""
    return f"⟨version of logged model {model_id.strip('⟨⟩')}⟩"


@dataclass(frozen=True)
class RegisterVersion(Change):
    """Register a logged model as a new version of a registered model, which is made where it is not there yet."""

    applicability = Applicability.REVERSIBLE
    in_total = "version{s} registered"

    name: str
    model_id: str
    run_id: str
    experiment_id: str
    makes_model: bool

    @property
    def entity(self) -> EntityRef:
        return EntityRef("registered_model", self.name, self.name)

    @property
    def version(self) -> str:
        return version_of(self.model_id)

    def describe(self) -> str:
        return (
            f"register model {self.model_id} as a version of "
            f"{'the new ' if self.makes_model else ''}registered model {self.name!r}"
        )

    def predict(self, snapshot: Snapshot) -> Snapshot:
        model, found = snapshot.logged_models.get(self.model_id), snapshot.registered_models.get(self.name)
        if model is None:
            raise ChangeError(f"logged model {self.model_id} is not there: it cannot be registered")
        if self.makes_model == (found is not None):
            raise ChangeError(
                f"registered model {self.name!r} is {'there already' if found else 'not there'}: run again to plan anew"
            )
        registered = found or RegisteredModel(self.name, {}, {}, ())
        source, stage = f"models:/{self.model_id}", "None"
        version = ModelVersion(
            self.name,
            self.version,
            self.run_id,
            source,
            model.artifact_location,
            "READY",
            stage,
            {BUILT_IN: JOURNAL},
            experiment_id=self.experiment_id,
        )
        after = snapshot.with_registered(replace(registered, versions=(*registered.versions, version)))
        folder = snapshot.artifacts.locations.get(model.ref.place) if snapshot.artifacts else None
        if snapshot.artifacts is None or folder is None:
            return after
        return replace(
            after,
            artifacts=replace(
                snapshot.artifacts, locations={**snapshot.artifacts.locations, version.ref.place: folder}
            ),
        )

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {
            "registered_model": self.name,
            "version": self.version,
            "model_id": self.model_id,
            "run_id": self.run_id,
        }


@dataclass(frozen=True)
class RetractVersion(Change):
    """Take a version back that a repair registered, and the registered model too where the repair made it.

    The version is known by the model that it was made of, and by the tag with the journal of that repair (none in
    journals of older versions).
    """

    applicability = Applicability.REVERSIBLE
    in_total = "version{s} taken back"

    name: str
    model_id: str
    removes_model: bool
    journal: str = ""

    @property
    def entity(self) -> EntityRef:
        return EntityRef("registered_model", self.name, self.name)

    def describe(self) -> str:
        return f"take the version of registered model {self.name!r} that was made of {self.model_id} back"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        registered = snapshot.registered_models.get(self.name)
        if registered is None:
            return snapshot
        made = [version for version in registered.versions if self.made(version.source, version.tags)]
        for version in made:
            used = [f"the alias {alias!r}" for alias, other in registered.aliases.items() if other == version.version]
            used += [f"the tag {key!r}" for key in sorted(version.tags) if key != BUILT_IN]
            used += [f"the stage {version.stage}"] if version.stage not in ("", "None") else []
            if used:
                raise ChangeError(
                    f"the version of registered model {self.name!r} that was made of {self.model_id}, version "
                    f"{version.version}, got {', '.join(used)} since: it is left as it is"
                )
        left = tuple(version for version in registered.versions if version not in made)
        if self.removes_model and not left and (registered.tags or registered.aliases):
            raise ChangeError(
                f"registered model {self.name!r} got a description, tags or aliases since a repair made it: it is "
                "left as it is, with its version"
            )
        if self.removes_model and not left:
            return replace(
                snapshot,
                registered_models={key: item for key, item in snapshot.registered_models.items() if key != self.name},
            )
        return snapshot.with_registered(replace(registered, versions=left))

    def made(self, source: str, tags: Mapping[str, str]) -> bool:
        """Whether it is the version, by its source and tags."""
        return source == f"models:/{self.model_id}" and self.journal in ("", tags.get(BUILT_IN))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"registered_model": self.name, "model_id": self.model_id}, {}


@dataclass(frozen=True)
class SetAlias(Change):
    """Let an alias name a version, or take it away where `version` is None; `before` is what it named, None where
    it was not there.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "alias{es} set"

    name: str
    alias: str
    version: str | None
    before: str | None

    @property
    def entity(self) -> EntityRef:
        return EntityRef("registered_model", self.name, self.name)

    def describe(self) -> str:
        if self.version is None:
            return f"take alias {self.alias!r} of registered model {self.name!r} away"
        return f"let alias {self.alias!r} of registered model {self.name!r} name version {self.version}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        registered = snapshot.registered_models.get(self.name)
        if registered is None or (self.version is not None and registered.version(self.version) is None):
            raise ChangeError(f"registered model {self.name!r} has no version {self.version}: run again to plan anew")
        still(registered.aliases.get(self.alias), self.before, f"alias {self.alias} of registered model {self.name}")
        aliases = {key: value for key, value in registered.aliases.items() if key != self.alias}
        if self.version is not None:
            aliases[self.alias] = self.version
        return snapshot.with_registered(replace(registered, aliases=aliases))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {self.alias: self.before}, {self.alias: self.version}


@dataclass(frozen=True)
class PutAliasBack(Change):
    """Let an alias name a version that is not there, as it did before a repair took it away."""

    applicability = Applicability.REVERSIBLE
    in_total = "alias{es} put back"

    name: str
    alias: str
    version: str

    @property
    def entity(self) -> EntityRef:
        return EntityRef("registered_model", self.name, self.name)

    def describe(self) -> str:
        return (
            f"let alias {self.alias!r} of registered model {self.name!r} name version {self.version} again, which is "
            "not there"
        )

    def predict(self, snapshot: Snapshot) -> Snapshot:
        registered = snapshot.registered_models.get(self.name)
        if registered is None or self.alias in registered.aliases:
            raise ChangeError(
                f"registered model {self.name!r} is not there or has an alias {self.alias!r} by now: run again to "
                "plan anew"
            )
        return snapshot.with_registered(replace(registered, aliases={**registered.aliases, self.alias: self.version}))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {self.alias: None}, {self.alias: self.version}
