"""Puts together what files prove, each thing computed when a rule first asks for it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from mlflow_compliance.errors import ComplianceError, NotAskedError
from mlflow_compliance.production.claims import production_runs
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.facts import threshold_in_force
from mlflow_compliance.production.keys import keys_of
from mlflow_compliance.production.metadata import problems_in
from mlflow_compliance.production.signature import bundle_of, unreadable, verdict
from mlflow_compliance.progress import Progress
from mlflow_compliance.safe_text import first_of
from mlflow_compliance.settings.schema import Product, Settings
from mlflow_compliance.snapshot.evidence import (
    Computed,
    Digest,
    Evidence,
    Journalled,
    Metadata,
    ModelCard,
    Probe,
    Scan,
    Scored,
    Served,
    Signed,
)
from mlflow_compliance.snapshot.files import LINK, METADATA, in_folder, parent, upwards
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import BUILT_IN, SHA256, SOURCE_RUN
from mlflow_compliance.store.backends.sqlite_file import sqlite_path
from mlflow_compliance.store.evidence.cache import EvidenceCache
from mlflow_compliance.store.evidence.journalled import path_in, read_journal
from mlflow_compliance.store.models.content import PICKLES
from mlflow_compliance.store.models.mlmodel import read_card
from mlflow_compliance.store.models.probe import Sample
from mlflow_compliance.store.models.scoring import Scoring
from mlflow_compliance.store.models.signatures import read_bundle
from mlflow_compliance.store.models.skops_scan import SKOPS_SUFFIX
from mlflow_compliance.store.storage.base import RemoteError
from mlflow_compliance.store.storage.parsing import LARGEST_METADATA, parse_json, read_at_most
from mlflow_compliance.store.storage.safe_io import opened, why_unread

_FETCHED = (*PICKLES, SKOPS_SUFFIX)
"""What is fetched from an object store to be looked at, where no model holds it: by its name, because its content is
not here.
"""
_LOGGED_PREDICTIONS = re.compile(r"(?:predictions/[^/]+|predictions)\.(?:csv|parquet)", re.IGNORECASE)
_FEW = 3
"""Names in one sentence."""


def with_evidence(
    snapshot: Snapshot, evidence_cache: EvidenceCache, uri: str, progress: Progress, journals: str = ""
) -> Snapshot:
    """A snapshot whose rules and remedies may ask what files prove. `uri` is the store's tracking URI, `journals` the
    folder of its journals.
    """
    return replace(
        snapshot,
        evidence=_Reader(snapshot, evidence_cache, uri, progress, journals).evidence(),
        sources=evidence_cache.sources(progress),
    )


class _Reader:
    def __init__(
        self, snapshot: Snapshot, evidence_cache: EvidenceCache, uri: str, progress: Progress, journals: str
    ) -> None:
        self.snapshot = snapshot
        self.journals = journals
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
        self.digests = Computed(self._of_production, self._digest)
        self.keys = keys_of(self.settings)

    def evidence(self) -> Evidence:
        metadata = {run_id: path for run_id in self.runs if (path := self._artifact(run_id, METADATA))}
        return Evidence(
            scans=self.scans,
            cards=Computed(self.folders, self._card),
            probes=Computed(self.folders, self._probe),
            scored=Computed([run_id for run_id in self.runs if self._predictions(run_id)], self._score),
            metadata=Computed(metadata, lambda run_id: self._read_metadata(metadata[run_id])),
            served=Computed(self.runs, self._served),
            digests=self.digests,
            journalled=Computed([run_id for run_id, (run, _) in self.runs.items() if BUILT_IN in run.tags], self._said),
            signatures=Computed(self._judged, self._signature),
            judged_by=self.keys.judging.fingerprint if self.keys.judging else "",
            signed_by=self.keys.signing.public.fingerprint if self.keys.signing else "",
        )

    def _judged(self) -> list[str]:
        """Model folders that are held to a signature: any may be in production once a rule asks."""
        artifacts = self.snapshot.artifacts
        return list(artifacts.models) if artifacts and self.keys.judging else []

    def _signature(self, folder: str) -> Signed:
        key, path, scan = self.keys.judging, bundle_of(folder), self.scans[folder]
        assert key is not None
        if not scan.hashes:
            return Signed(path, unknown=scan.problems[0])
        try:
            bundle = read_bundle(path, self.evidence_cache.places)
        except RemoteError:
            return Signed(path, (unreadable(),))
        artifacts = self.snapshot.artifacts
        there = (*artifacts.under(folder), *artifacts.unread) if artifacts else ()
        names = {name[len(folder) + 1 :] for name in there if name.startswith(f"{folder}/")}
        return Signed(path, verdict(bundle, folder, scan.hashes, key, names - scan.hashes.keys()))

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
            sample = sample_of(self.folders[folder], self.settings)
            unread = _unread(self.folders[folder], sample)
            # One that could not be fetched has a problem, and is not tried.
            found = self.evidence_cache.probe(
                folder if scan.problems else self._here(folder), scan, None if unread else sample
            )
            return replace(found, sample_unread=unread)
        finally:
            self.progress.stop()

    def _artifact(self, run_id: str, name: str) -> str:
        """The path of one of a run's own artifacts, empty where it is not there."""
        artifacts = self.snapshot.artifacts
        folder = artifacts.locations.get(("run", run_id)) if artifacts else None
        path = os.path.join(folder or "", name)
        return path if artifacts and folder and path in artifacts.files else ""

    def _predictions(self, run_id: str) -> tuple[str, ...]:
        """The recorded predictions of a run: among its artifacts, else the file that it refers to or that the
        settings name. Without their word, what the run logged under that name: it is evidence too, and several files
        cannot be told apart.
        """
        _, product = self.runs[run_id]
        named = product.production.resolved(self.settings.base, "predictions")
        if named is None:
            return self._logged_predictions(run_id)
        return (self._artifact(run_id, os.path.join("predictions", os.path.basename(named))) or named,)

    def _logged_predictions(self, run_id: str) -> tuple[str, ...]:
        artifacts = self.snapshot.artifacts
        folder = artifacts.locations.get(("run", run_id)) if artifacts else None
        if artifacts is None or folder is None:
            return ()
        return tuple(
            sorted(
                path
                for path, file in artifacts.under(folder).items()
                if file.logged and _LOGGED_PREDICTIONS.fullmatch(os.path.relpath(path, folder))
            )
        )

    def _score(self, run_id: str) -> Scored:
        run, product = self.runs[run_id]
        wanted = product.production
        paths = self._predictions(run_id)
        if len(paths) > 1:
            names = first_of(list(map(os.path.basename, paths)), _FEW)
            return Scored(paths[0], problem=f"it logged {len(paths)} files of predictions ({names})")
        path = paths[0]
        try:
            own = threshold_in_force(product, run.params, run.latest, run.tags)
        except ValueError as error:
            return Scored(path, fault=str(error))
        threshold = own[0] if own else wanted.threshold
        if threshold is None:
            return Scored(
                path, problem="neither the run nor the settings say which threshold its decisions were made at"
            )
        try:
            local = self._here(path)
        except RemoteError as error:
            return Scored(path, problem=str(error))
        asked = Scoring(
            wanted.target,
            wanted.probability,
            threshold,
            wanted.false_negative_cost,
            wanted.false_positive_cost,
        )
        found = self.evidence_cache.score(local, asked)
        recorded = run.tags.get(f"{SHA256}predictions")
        found = replace(found, path=path)
        if not found.problem and recorded and recorded != found.sha256:
            return replace(
                found,
                values={},
                fault=f"{path} is not the file on record (sha256 {found.sha256[:16]}, on record {recorded[:16]})",
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
        except NotAskedError as error:
            return Served(unasked=str(error))
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
            raise NotAskedError(
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
            path[len(folder) + 1 :]: (file.size, self.digests[path].sha256 or None)
            for path, file in artifacts.under(folder).items()
            if file.logged
        }

    def _of_production(self) -> list[str]:
        """The files of the production runs and of their models."""
        artifacts = self.snapshot.artifacts
        if artifacts is None:
            return []
        places = {run.ref.place for run, _ in self.runs.values()}
        places |= {model.ref.place for run_id in self.runs for model in self.snapshot.models_of(run_id)}
        folders = [artifacts.locations[place] for place in sorted(places) if place in artifacts.locations]
        return [path for folder in folders for path in artifacts.under(folder)]

    def _digest(self, path: str) -> Digest:
        try:
            # What a link leads to is what everybody reads there.
            return self.evidence_cache.digest(os.path.realpath(self._here(path)))
        except RemoteError as error:
            return Digest(problem=str(error))

    def _said(self, run_id: str) -> Journalled:
        """By the journal in its folder, else by the one that the store keeps."""
        tags = self.runs[run_id][0].tags
        journal, ids = tags[BUILT_IN], {run_id, tags.get(SOURCE_RUN, run_id)}
        paths = [path_in(self.journals, journal)]
        paths += [kept.path for kept in self.snapshot.journals.whole if kept.journal == journal]
        for path in filter(None, paths):
            with suppress(RemoteError):
                said = read_journal(self._here(path), journal, ids)
                if said.sha256:
                    return said
        return Journalled()


def sample_of(product: Product, settings: Settings) -> Sample | None:
    """The rows that can be scored again, where the settings name features and predictions."""
    wanted = product.production
    features, predictions = wanted.resolved(settings.base, "features"), wanted.resolved(settings.base, "predictions")
    return Sample(features, wanted.row, predictions, wanted.probability) if features and predictions else None


def _unread(product: Product, sample: Sample | None) -> str:
    """Why there is nothing to score again though the settings name features; empty where they name none."""
    if sample is None:
        asked = product.production.features is not None
        return "the settings name features and no predictions that they belong to" if asked else ""
    for path in (sample.path, sample.predictions):
        name = os.path.basename(path)
        if not os.path.exists(path):
            return f"{name}, which the settings name, is not there"
        if not (os.path.isfile(path) and os.access(path, os.R_OK)):
            return f"{name}, which the settings name, is no file that can be read"
    return ""


def _metadata(path: str) -> Metadata:
    try:
        with opened(path) as file:
            document = parse_json(read_at_most(file, LARGEST_METADATA))
    except OSError as error:
        return Metadata(problem=f"it cannot be read ({why_unread(error)})")
    except ValueError as error:
        return Metadata(problem=f"it {error}")
    problems = problems_in(document)
    return Metadata(document if isinstance(document, dict) else {}, problems[0] if problems else "")
