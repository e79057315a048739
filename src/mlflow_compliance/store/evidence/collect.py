"""Puts together what files prove, each thing computed when a rule first asks for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from mlflow_compliance.errors import ComplianceError, StoreError
from mlflow_compliance.production.claims import production_runs
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.facts import threshold_in_force
from mlflow_compliance.production.metadata import problems_in
from mlflow_compliance.progress import Progress
from mlflow_compliance.settings.schema import Product, Settings
from mlflow_compliance.snapshot.evidence import Computed, Evidence, Metadata, ModelCard, Probe, Scan, Scored, Served
from mlflow_compliance.snapshot.files import LINK, METADATA, in_folder, parent, upwards
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import SHA256
from mlflow_compliance.store.backends.sqlite_file import sqlite_path
from mlflow_compliance.store.evidence.cache import EvidenceCache
from mlflow_compliance.store.models.content import PICKLES
from mlflow_compliance.store.models.mlmodel import read_card
from mlflow_compliance.store.models.probe import Sample
from mlflow_compliance.store.models.scoring import score
from mlflow_compliance.store.models.skops_scan import SKOPS_SUFFIX
from mlflow_compliance.store.storage.base import RemoteError
from mlflow_compliance.store.storage.safe_io import digest_of, opened

_FETCHED = (*PICKLES, SKOPS_SUFFIX)
"""What is fetched from an object store to be looked at, where no model holds it: by its name, because its content is
not here.
"""
_LARGEST_METADATA = 1 << 24


def with_evidence(snapshot: Snapshot, evidence_cache: EvidenceCache, uri: str, progress: Progress) -> Snapshot:
    """A snapshot whose rules and remedies may ask what files prove. `uri` is the store's tracking URI."""
    return replace(
        snapshot,
        evidence=_Reader(snapshot, evidence_cache, uri, progress).evidence(),
        sources=evidence_cache.sources(progress),
    )


class _Reader:
    def __init__(self, snapshot: Snapshot, evidence_cache: EvidenceCache, uri: str, progress: Progress) -> None:
        self.snapshot = snapshot
        self.evidence_cache = evidence_cache
        self.settings = evidence_cache.settings
        self.uri = uri
        self.progress = progress
        context = Context(snapshot, self.settings)
        self.runs = {
            run.run_id: (run, product)
            for product in self.settings.products
            for run in production_runs(product, context)
        }
        self.folders = {
            folder: product for run, product in self.runs.values() for folder in snapshot.model_folders(run)
        }
        self.scans = Computed(self._scanned, self._scan, self._scans)

    def evidence(self) -> Evidence:
        metadata = {run_id: path for run_id in self.runs if (path := self._artifact(run_id, METADATA))}
        return Evidence(
            scans=self.scans,
            cards=Computed(self.folders, self._card),
            probes=Computed(self.folders, self._probe),
            scored=Computed([run_id for run_id in self.runs if self._predictions(run_id)], self._score),
            metadata=Computed(metadata, lambda run_id: self._read_metadata(metadata[run_id])),
            served=Computed(self.runs, self._served),
        )

    def _scanned(self) -> list[str]:
        """Model folders, and files that somebody logged without one and that are more than plain data; one path for
        each physical copy.
        """
        artifacts = self.snapshot.artifacts
        if artifacts is None:
            return []
        found, seen = list(artifacts.models), set[str]()
        held = set(artifacts.models)
        for path, file in sorted(artifacts.files.items()):
            linked = file.copy.startswith(LINK) and file.owner is not None
            if not (file.logged or linked) or file.copy in seen or not file.size:
                continue
            if any(above in held for above in upwards(parent(path))):
                continue
            seen.add(file.copy)
            if self.evidence_cache.could_run(path) if in_folder(path) else path.lower().endswith(_FETCHED):
                found.append(path)
        return found

    def _here(self, path: str) -> str:
        """A path that can be opened: what is remote is fetched. Raises RemoteError."""
        return self.evidence_cache.here(path, self.snapshot.artifacts)

    def _scan(self, path: str) -> Scan:
        try:
            return self.evidence_cache.scan(self._here(path))
        except RemoteError as error:
            return Scan((f"cannot be looked into, so what loading it does is not known: {error}",), {})

    def _scans(self, paths: Sequence[str]) -> Mapping[str, Scan]:
        return self.evidence_cache.scans([path for path in paths if in_folder(path)])

    def _read_metadata(self, path: str) -> Metadata:
        try:
            return _metadata(self._here(path))
        except RemoteError as error:
            return Metadata(problem=str(error))

    def _card(self, folder: str) -> ModelCard:
        try:
            return read_card(self._here(folder))
        except RemoteError:
            return ModelCard()  # as of a folder whose files say nothing; its scan tells why

    def _probe(self, folder: str) -> Probe:
        self.progress.start("Trying the production model", None)
        try:
            scan = self.scans[folder]
            # One that could not be fetched has a problem, and is not tried.
            return self.evidence_cache.probe(
                folder if scan.problems else self._here(folder), scan, sample_of(self.folders[folder], self.settings)
            )
        finally:
            self.progress.stop()

    def _artifact(self, run_id: str, name: str) -> str:
        """The path of one of a run's own artifacts, empty where it is not there."""
        artifacts = self.snapshot.artifacts
        folder = artifacts.locations.get(("run", run_id)) if artifacts else None
        path = os.path.join(folder or "", name)
        return path if artifacts and folder and path in artifacts.files else ""

    def _predictions(self, run_id: str) -> str:
        """The recorded predictions of a run: among its artifacts, else the file that it refers to or that the
        settings name.
        """
        _, product = self.runs[run_id]
        named = product.production.resolved(self.settings.base, "predictions")
        if named is None:
            return ""
        return self._artifact(run_id, os.path.join("predictions", os.path.basename(named))) or named

    def _score(self, run_id: str) -> Scored:
        run, product = self.runs[run_id]
        wanted = product.production
        path = self._predictions(run_id)
        try:
            own = threshold_in_force(product, run.params, run.latest, run.tags)
        except ValueError as error:
            return Scored(path, problem=str(error))
        threshold = own[0] if own else wanted.threshold
        if threshold is None:
            return Scored(
                path, problem="neither the run nor the settings say which threshold its decisions were made at"
            )
        try:
            local = self._here(path)
        except RemoteError as error:
            return Scored(path, problem=str(error))
        found = score(
            local,
            target=wanted.target,
            probability=wanted.probability,
            threshold=threshold,
            false_negative_cost=wanted.false_negative_cost,
            false_positive_cost=wanted.false_positive_cost,
        )
        recorded = run.tags.get(f"{SHA256}predictions")
        found = replace(found, path=path)
        if not found.problem and recorded and recorded != found.sha256:
            return replace(
                found,
                values={},
                problem=f"{path} is not the file on record (sha256 {found.sha256[:16]}, on record {recorded[:16]})",
            )
        return found

    def _served(self, run_id: str) -> Served:
        from mlflow_compliance.store.evidence.server_check import check_run

        run, _ = self.runs[run_id]
        snapshot = self.snapshot
        models = snapshot.models_of(run_id)
        files = {model.model_id: self._listed(("logged_model", model.model_id)) for model in models}
        versions = [
            version
            for item in snapshot.registered_models.values()
            for version in item.versions
            if version.run_id == run_id
        ]
        experiment = snapshot.experiments[run.experiment_id]
        self.progress.start("Asking a tracking server", None)
        try:
            with self._server() as base_url:
                return check_run(
                    base_url, run, experiment, models, self._listed(run.ref.place), files, versions, self._workspace
                )
        except ComplianceError as error:
            return Served((str(error),))
        finally:
            self.progress.stop()

    @contextmanager
    def _server(self) -> Iterator[str]:
        """A tracking server for the store: itself where it is one, else one that reads a copy of its database."""
        from mlflow_compliance.store.evidence.tracking_server import tracking_server

        if self.uri.startswith(("http:", "https:")):
            yield self.uri
        elif self.uri.startswith("sqlite"):
            artifacts = self.snapshot.artifacts
            away = artifacts is not None and not all(in_folder(root.path) for root in artifacts.roots)
            timeout = self.settings.store.busy_timeout
            with tracking_server(sqlite_path(self.uri), timeout, storage=away, workspace=self._workspace) as base_url:
                yield base_url
        else:
            raise StoreError(
                "no tracking server was started on this database, because one would write to it: "
                "ask through the server that people use, --tracking-uri=http://... -k SRV002"
            )

    @property
    def _workspace(self) -> str:
        """The one that was read, where a database has several; a server is told of it by MLflow's own environment."""
        return self.snapshot.info.workspace if self.snapshot.other_workspaces else ""

    def _listed(self, place: tuple[str, str]) -> dict[str, tuple[int, str | None]]:
        """Relative path -> size and SHA-256 of the files in a row's folder."""
        artifacts = self.snapshot.artifacts
        folder = artifacts.locations.get(place) if artifacts else None
        if artifacts is None or folder is None:
            return {}
        return {
            path[len(folder) + 1 :]: (file.size, self._sha256(path))
            for path, file in artifacts.under(folder).items()
            if file.logged
        }

    def _sha256(self, path: str) -> str | None:
        try:
            return _digest(self._here(path))
        except RemoteError:
            return None


def sample_of(product: Product, settings: Settings) -> Sample | None:
    """The rows that can be scored again, where the settings name features and predictions."""
    wanted = product.production
    features, predictions = wanted.resolved(settings.base, "features"), wanted.resolved(settings.base, "predictions")
    return Sample(features, wanted.row, predictions, wanted.probability) if features and predictions else None


def _metadata(path: str) -> Metadata:
    try:
        with opened(path) as file:
            if os.fstat(file).st_size > _LARGEST_METADATA:
                return Metadata(problem="it is larger than 16 MiB")
        with open(path, encoding="utf-8") as text:
            document = json.load(text)
    except (OSError, ValueError, RecursionError) as error:
        return Metadata(problem=f"it cannot be read as JSON ({type(error).__name__})")
    problems = problems_in(document)
    return Metadata(document if isinstance(document, dict) else {}, problems[0] if problems else "")


def _digest(path: str) -> str | None:
    try:
        with opened(path) as file:
            return digest_of(file, path)
    except OSError:
        return None
