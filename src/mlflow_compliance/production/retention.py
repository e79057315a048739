"""What must be kept: by a legal hold of the settings, and by how long they say that production is kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import date

from mlflow_compliance.production.context import Context
from mlflow_compliance.production.holds import in_force, matched, today
from mlflow_compliance.production.served import served_version
from mlflow_compliance.production.service import HOLD, Retained, in_service, kept_for, services
from mlflow_compliance.settings.schema import Hold
from mlflow_compliance.snapshot.entities import ModelVersion
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import PARENT, SOURCE_MODEL
from mlflow_compliance.snapshot.ties import How, is_model, named_in

__all__ = ["Retained", "retained"]

Place = tuple[str, str]
"""(kind, key) of an entity."""


def retained(context: Context) -> Mapping[Place, tuple[Retained, ...]]:
    """(kind, key) of every run, experiment, logged model, registered model and model version that a hold or retention
    covers on the day of the snapshot -> why, worst first: holds, then what ends last.
    """
    return context.once(_retained)


def _retained(context: Context) -> dict[Place, tuple[Retained, ...]]:
    if not context.settings.retention.keeps:
        return {}
    day = today(context.snapshot)
    covering = _Covering(context.snapshot)
    for _, hold in in_force(context.settings, day):
        found = matched(hold, context.snapshot)
        for key in found.experiments:
            covering.experiment(key, _of_hold(hold, context.snapshot.experiments[key].ref))
        for key in found.runs:
            covering.run(key, _of_hold(hold, EntityRef("run", key)))
        for key in found.models:
            if key in context.snapshot.registered_models:
                covering.registered(key, _of_hold(hold, EntityRef("registered model", key)))
            else:
                covering.model(key, _of_hold(hold, EntityRef("logged model", key)))
    for service in services(context):
        for why in kept_for(service, context.settings):
            if why.until is None or day <= why.until:
                covering.run(service.run_id, why)
    for product in context.settings.products:
        version = served_version(product, context.snapshot.registered_models)
        if version is not None:
            for why in in_service(product.name, context.settings):
                covering.version(version, why)
    return {
        place: tuple(sorted(found, key=_worst_first) if len(found) > 1 else found)
        for place, found in covering.found.items()
    }


def _of_hold(hold: Hold, on: EntityRef) -> Retained:
    end = f", until {hold.until}" if hold.until else ""
    return Retained(HOLD, f"legal hold on {on} ({hold.reason}{end})", hold.until)


def _worst_first(item: Retained) -> tuple[bool, date, str]:
    """No end comes before every date."""
    order = date.max - (item.until or date.max)
    return item.rule != HOLD, date.min + order, item.why


class _Covering:
    """What belongs to what is held, and what that needs."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.found: dict[Place, set[Retained]] = defaultdict(set)
        self._followed: set[tuple[str, str, Retained]] = set()
        self._runs: dict[str, list[str]] = defaultdict(list)
        self._models: dict[str, list[str]] = defaultdict(list)
        self._written: dict[str, list[str]] = defaultdict(list)
        self._homes: dict[Place, str] = {}
        self._writers: dict[str, str] = {}
        self._copies: dict[str, list[str]] = defaultdict(list)
        self._needs: dict[str, set[Place]] = defaultdict(set)
        self._versions: dict[str, list[ModelVersion]] = defaultdict(list)
        self._index()

    def _index(self) -> None:
        snapshot = self.snapshot
        for key, state in snapshot.behind_versions.items():
            self._homes["logged_model" if is_model(key) else "run", key] = state.experiment_id
        for row in snapshot.row_facts.values():
            self._homes[row.kind, row.key] = row.experiment_id
            if row.kind == "logged_model":
                self._writers[row.key] = row.run_id
                self._copies[row.tags.get(SOURCE_MODEL, "")].append(row.key)
            else:
                self._needs[row.key] |= {("logged_model", key) for key in row.reads}
                self._needs[row.key] |= {("run", row.tags[PARENT])} if PARENT in row.tags else set()
        for model in snapshot.logged_models.values():
            self._homes["logged_model", model.model_id] = model.experiment_id
            self._writers[model.model_id] = model.source_run_id or ""
        for run in snapshot.runs.values():
            self._homes["run", run.run_id] = run.experiment_id
            self._needs[run.run_id] |= {("logged_model", link.model_id) for link in run.models}
            self._needs[run.run_id] |= {("run", run.tags[PARENT])} if PARENT in run.tags else set()
        for tie in snapshot.ties:
            if tie.how in (How.CHILD, How.USED) and tie.source.kind == "run":
                self._needs[tie.source.key].add((tie.target.kind, tie.target.key))
                self._homes.setdefault((tie.target.kind, tie.target.key), tie.home)
        for (kind, key), home in self._homes.items():
            (self._runs if kind == "run" else self._models)[home].append(key)
        for key, run_id in self._writers.items():
            self._written[run_id].append(key)
        for registered in snapshot.registered_models.values():
            for version in registered.versions:
                for key in named_in(version):
                    self._versions[key].append(version)

    def _keep(self, kind: str, key: str, why: Retained) -> None:
        """By itself, and the experiment that it lies in."""
        if key:
            self.found[kind, key].add(why)
            home = self._homes.get((kind, key))
            if home:
                self.found["experiment", home].add(why)

    def _follows(self, kind: str, key: str, why: Retained) -> bool:
        """Whether what belongs to something was not looked for yet."""
        self._keep(kind, key, why)
        new = bool(key) and (kind, key, why) not in self._followed
        self._followed.add((kind, key, why))
        return new

    def experiment(self, key: str, why: Retained) -> None:
        """With its runs and logged models."""
        self.found["experiment", key].add(why)
        for run_id in self._runs[key]:
            self.run(run_id, why)
        for model_id in self._models[key]:
            self.model(model_id, why)

    def run(self, key: str, why: Retained) -> None:
        """With its logged models, the versions that were made from it, and what it needs."""
        if not self._follows("run", key, why):
            return
        for model_id in self._written[key]:
            self.model(model_id, why)
        for version in self._versions[key]:
            self.version(version, why)
        for kind, needed in self._needs[key]:
            self._keep(kind, needed, why)

    def model(self, key: str, why: Retained) -> None:
        """A logged model with the run that wrote it, the versions that were made from it, and those that were logged
        again in its place.
        """
        if not self._follows("logged_model", key, why):
            return
        self._keep("run", self._writers.get(key, ""), why)
        for copy in self._copies[key]:
            self._keep("logged_model", copy, why)
        for version in self._versions[key]:
            self.version(version, why)

    def version(self, version: ModelVersion, why: Retained) -> None:
        """With what it comes from; the registered model stays with its versions."""
        if not self._follows("model_version", version.ref.key, why):
            return
        self._keep("registered_model", version.name, why)
        for key in named_in(version):
            if ("logged_model", key) in self._homes:
                self.model(key, why)
            elif ("run", key) in self._homes:
                self.run(key, why)

    def registered(self, name: str, why: Retained) -> None:
        """With all its versions."""
        self._keep("registered_model", name, why)
        for version in self.snapshot.registered_models[name].versions:
            self.version(version, why)
