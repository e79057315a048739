"""Changes of where rows say that their files lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from mlflow_compliance.changes.base import Applicability, Change, artifacts_in, still
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import ModelVersion, RegisteredModel, Run
from mlflow_compliance.snapshot.moved import HISTORY, PlaceInRow
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot

_WORDS = {
    "experiment": "experiments",
    "run": "runs",
    "logged_model": "logged models",
    "model_version": "versions",
    "version_source": "sources of versions",
    HISTORY: "records of logged models",
    "trace": "traces",
    "trace_archive": "archives of traces",
    "skill": "skills",
}


class Rewriting(NamedTuple):
    """One place in one row: what holds it (a kind of `PlaceInRow`), the row, and its text before and after."""

    kind: str
    key: tuple[str, ...]
    before: str
    after: str


@dataclass(frozen=True)
class RewriteLocations(Change):
    """Let rows name the folder in which [store.relocate] reads their files, in the place of a prefix; no file is
    touched.

    `rows` is how many rows are read by that prefix. `restores` says that the rows name it again afterwards.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "place{s} in rows rewritten"

    prefix: str
    folder: str
    rows: int
    rewritings: tuple[Rewriting, ...]
    restores: bool = False

    @property
    def entity(self) -> EntityRef:
        return EntityRef("place", self.prefix, self.prefix)

    @property
    def entities(self) -> tuple[EntityRef, ...]:
        owners = {"version_source": "model_version", HISTORY: "run", "trace_archive": "trace"}
        return tuple(EntityRef(owners.get(item.kind, item.kind), "/".join(item.key)) for item in self.rewritings)

    @property
    def number(self) -> int:
        return len(self.rewritings)

    def describe(self) -> str:
        counts = Counter(item.kind for item in self.rewritings)
        counted = ", ".join(f"{counts[kind]} {words}" for kind, words in _WORDS.items() if counts[kind])
        old, new = (self.folder, self.prefix) if self.restores else (self.prefix, self.folder)
        return f"let rows name {new} in the place of {old} ({counted})"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        new: dict[str, dict[str, Rewriting]] = {kind: {} for kind in _WORDS}
        for item in self.rewritings:
            new[item.kind]["/".join(item.key)] = item
        experiments = {
            key: replace(
                found,
                artifact_location=_after(
                    found.artifact_location, new["experiment"].get(key), f"the place of experiment {key}"
                ),
            )
            for key, found in snapshot.experiments.items()
        }
        models = {
            key: replace(
                found,
                artifact_location=_after(
                    found.artifact_location, new["logged_model"].get(key), f"the place of logged model {key}"
                ),
            )
            for key, found in snapshot.logged_models.items()
        }
        return replace(
            snapshot,
            experiments=experiments,
            runs={key: _run(run, new) for key, run in snapshot.runs.items()},
            logged_models=models,
            registered_models={name: _registered(model, new) for name, model in snapshot.registered_models.items()},
            artifacts=self._read_by_itself(artifacts),
        )

    def _read_by_itself(self, artifacts: Artifacts) -> Artifacts:
        """The files are where they were; only by which way the rows lead to them has changed."""
        relocated = {prefix: rows for prefix, rows in artifacts.relocated.items() if prefix != self.prefix}
        elsewhere = tuple(item for item in artifacts.elsewhere if item.prefix != self.prefix)
        if self.restores:
            relocated |= {self.prefix: self.rows} if self.rows else {}
            elsewhere += tuple(PlaceInRow(*item[:2], item.after, item.before, self.prefix) for item in self.rewritings)
        return replace(artifacts, relocated=relocated, elsewhere=elsewhere)

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        # Each row's own before and after is in the change itself: of a large store nobody wants it twice.
        old, new = (self.folder, self.prefix) if self.restores else (self.prefix, self.folder)
        return {"prefix": old, "places": len(self.rewritings)}, {"prefix": new, "places": len(self.rewritings)}


def _after(now: str, item: Rewriting | None, what: str) -> str:
    if item is None:
        return now
    still(now, item.before, what)
    return item.after


def _run(run: Run, new: Mapping[str, Mapping[str, Rewriting]]) -> Run:
    key, tags = run.run_id, run.tags
    history = new[HISTORY].get(key)
    if history:
        tags = {tag: history.after if value == history.before else value for tag, value in tags.items()}
    return replace(
        run, artifact_uri=_after(run.artifact_uri, new["run"].get(key), f"the place of run {key}"), tags=tags
    )


def _registered(model: RegisteredModel, new: Mapping[str, Mapping[str, Rewriting]]) -> RegisteredModel:
    return replace(model, versions=tuple(_version(version, new) for version in model.versions))


def _version(version: ModelVersion, new: Mapping[str, Mapping[str, Rewriting]]) -> ModelVersion:
    key = version.ref.key
    source = _after(version.source, new["version_source"].get(key), f"the source of {version.ref}")
    stored = new["model_version"].get(key)
    if stored is None and version.location == version.source:
        return replace(version, source=source, location=source)  # its files are looked for at its source
    return replace(version, source=source, location=_after(version.location, stored, f"the place of {version.ref}"))
