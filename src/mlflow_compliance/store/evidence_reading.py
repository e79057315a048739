"""Puts together what files prove, each thing computed when a rule first asks for it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from mlflow_compliance.artifacts import in_folder
from mlflow_compliance.changes.production import METADATA
from mlflow_compliance.entities import Run, Snapshot
from mlflow_compliance.errors import ComplianceError, StoreError
from mlflow_compliance.evidence import Bundle, Computed, Evidence, Metadata, ModelCard, Probe, Scan, Scored, Served, Source
from mlflow_compliance.executors import THREADS, executor_of, run
from mlflow_compliance.facts import in_run
from mlflow_compliance.metadata import problems_in
from mlflow_compliance.progress import Progress
from mlflow_compliance.scope import production_runs
from mlflow_compliance.settings import ModelSettings, Product, Settings
from mlflow_compliance.store.disk.content import digest_of, opened
from mlflow_compliance.store.models.building import build, made_in
from mlflow_compliance.store.models.cards import read_card
from mlflow_compliance.store.models.probing import Limits, Sample, probe
from mlflow_compliance.store.models.scanning import scan_file, scan_model
from mlflow_compliance.store.models.scoring import score
from mlflow_compliance.store.reading.sqlite import sqlite_path
from mlflow_compliance.store.remote.base import RemoteError
from mlflow_compliance.store.remote.fetching import Fetcher
from mlflow_compliance.store.remote.places import Places

_LOOSE = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".skops")
_Trial = tuple[str, dict[str, str], Limits, Sample | None]
"""The arguments of `probe`."""
_LARGEST_METADATA = 1 << 24
_AT_ONCE = 50  # scans in one unit


class Workshop:
    """What one session computed from bytes that do not change: kept while they stay the same, so that reading the store again costs nothing twice."""

    def __init__(self, settings: Settings, places: Places, executor: str = THREADS) -> None:
        self.settings = settings
        self.here = Fetcher(places, self._new_folder)
        self._executor = executor
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._probes: dict[tuple[object, ...], Probe] = {}
        self._sources: dict[tuple[object, ...], Source] = {}

    def sources(self, progress: Progress) -> Mapping[str, Source]:
        """Product -> its bundle, built when it is first asked for."""
        products = {product.name: product for product in self.settings.products}
        return Computed(products, lambda name: self._source(products[name], progress))

    def _source(self, product: Product, progress: Progress) -> Source:
        paths = [product.production.resolved(self.settings.base, name) for name in ("model", "predictions", "features")]
        key = (product.name, *(_state(path) for path in paths if path))
        if key not in self._sources:
            progress.start(f"Building the production run of {product.name}", None)
            try:
                made = build(product, self.settings.base, self.settings.models, self._new_folder())
            finally:
                progress.stop()
            self._sources[key] = replace(made, bundle=made.bundle and _told(made.bundle, self.settings))
        return self._sources[key]

    def _new_folder(self) -> str:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="mlflow-compliance-", ignore_cleanup_errors=True)
        return tempfile.mkdtemp(dir=self._folder.name)

    def scan(self, path: str) -> Scan:
        """What loading a model folder, or one file that is none, could do."""
        return _scan(path, self.settings.models)

    def scans(self, paths: Sequence[str]) -> dict[str, Scan]:
        """Of many models and files those scans that other machines made, and in which nothing was found: the rest is looked at here, by `scan`."""
        if self._executor == THREADS:
            return {}
        found: dict[str, Scan] = {}
        units = [(paths[start : start + _AT_ONCE], self.settings.models) for start in range(0, len(paths), _AT_ONCE)]
        with suppress(ComplianceError), executor_of(self._executor) as pool:
            for scans, _ in run(pool, _scan_all, units):
                found.update((path, scan) for path, scan in scans.items() if not scan.problems)
        return found

    def probe(self, folder: str, scan: Scan, sample: Sample | None) -> Probe:
        """What a model does when it is tried. One that is not known to be safe is not."""
        if scan.problems:
            return Probe(problem=f"it was not loaded, because it is not known to be safe: {scan.problems[0]}")
        files = (sample.path, sample.predictions) if sample else ()
        key = (folder, tuple(sorted(scan.hashes.items())), sample, *map(_state, files))
        if key not in self._probes:
            models = self.settings.models
            limits = Limits(models.time_limit, models.memory_limit)
            self._probes[key] = self._tried((folder, dict(scan.hashes), limits, sample))
        return self._probes[key]

    def _tried(self, unit: _Trial) -> Probe:
        if self._executor == THREADS:
            return _probe(unit)
        try:
            with executor_of(self._executor) as pool:
                ((found, host),) = run(pool, _probe, [unit])
        except ComplianceError:  # it was there when the files were read
            return _probe(unit)
        return replace(found, problem=f"{found.problem} (tried on {host})") if found.problem and host else found


def _scan(path: str, rules: ModelSettings) -> Scan:
    return scan_file(path, rules) if os.path.isfile(path) else scan_model(path, rules)


def _scan_all(unit: tuple[Sequence[str], ModelSettings]) -> dict[str, Scan]:
    """Scans as a work unit."""
    paths, rules = unit
    return {path: _scan(path, rules) for path in paths}


def _probe(unit: _Trial) -> Probe:
    """`probe` as a work unit."""
    return probe(*unit)


def with_evidence(snapshot: Snapshot, workshop: Workshop, uri: str, progress: Progress) -> Snapshot:
    """A snapshot whose rules and remedies may ask what files prove. `uri` is the store's tracking URI."""
    return replace(snapshot, evidence=_Reader(snapshot, workshop, uri, progress).evidence(), sources=workshop.sources(progress))


class _Reader:
    def __init__(self, snapshot: Snapshot, workshop: Workshop, uri: str, progress: Progress) -> None:
        self.snapshot = snapshot
        self.workshop = workshop
        self.settings = workshop.settings
        self.uri = uri
        self.progress = progress
        self.runs = {run.run_id: (run, product) for product in self.settings.products for run in production_runs(product, snapshot, self.settings)}
        self.folders = {folder: product for run, product in self.runs.values() for folder in snapshot.model_folders(run)}
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
        """Model folders, and pickles that somebody logged without one; one path for each physical copy."""
        artifacts = self.snapshot.artifacts
        if artifacts is None:
            return []
        found, seen = list(artifacts.models), set[str]()
        pickles = sorted(path for path, file in artifacts.files.items() if path.endswith(_LOOSE) and file.logged)
        for path in pickles:
            copy = artifacts.files[path].copy
            if copy not in seen and not any(above in artifacts.models for above in _above(path)):
                seen.add(copy)
                found.append(path)
        return found

    def _here(self, path: str) -> str:
        """A path that can be opened: what is remote is fetched. Raises RemoteError."""
        return self.workshop.here(path, self.snapshot.artifacts)

    def _scan(self, path: str) -> Scan:
        try:
            return self.workshop.scan(self._here(path))
        except RemoteError as error:
            return Scan((f"cannot be looked into, so what loading it does is not known: {error}",), {})

    def _scans(self, paths: Sequence[str]) -> Mapping[str, Scan]:
        return self.workshop.scans([path for path in paths if in_folder(path)])

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
            return self.workshop.probe(folder if scan.problems else self._here(folder), scan, sample_of(self.folders[folder], self.settings))
        finally:
            self.progress.stop()

    def _artifact(self, run_id: str, name: str) -> str:
        """The path of one of a run's own artifacts, empty where it is not there."""
        artifacts = self.snapshot.artifacts
        folder = artifacts.locations.get(("run", run_id)) if artifacts else None
        path = os.path.join(folder or "", name)
        return path if artifacts and folder and path in artifacts.files else ""

    def _predictions(self, run_id: str) -> str:
        """The recorded predictions of a run: among its artifacts, else the file that it refers to or that the settings name."""
        _, product = self.runs[run_id]
        named = product.production.resolved(self.settings.base, "predictions")
        if named is None:
            return ""
        return self._artifact(run_id, os.path.join("predictions", os.path.basename(named))) or named

    def _score(self, run_id: str) -> Scored:
        run, product = self.runs[run_id]
        wanted = product.production
        path = self._predictions(run_id)
        threshold = threshold_of(run, product)
        if threshold is None:
            return Scored(path, problem="neither the run nor the settings say which threshold its decisions were made at")
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
        recorded = run.tags.get("compliance.sha256.predictions")
        found = replace(found, path=path)
        if not found.problem and recorded and recorded != found.sha256:
            return replace(found, values={}, problem=f"{path} is not the file on record (sha256 {found.sha256[:16]}, on record {recorded[:16]})")
        return found

    def _served(self, run_id: str) -> Served:
        from mlflow_compliance.store.serving.serving_check import check_run

        run, _ = self.runs[run_id]
        snapshot = self.snapshot
        models = snapshot.models_of(run_id)
        files = {model.model_id: self._listed(("logged_model", model.model_id)) for model in models}
        versions = [version for item in snapshot.registered_models.values() for version in item.versions if version.run_id == run_id]
        experiment = snapshot.experiments[run.experiment_id]
        self.progress.start("Asking a tracking server", None)
        try:
            with self._server() as base_url:
                return check_run(base_url, run, experiment, models, self._listed(run.ref.place), files, versions)
        except ComplianceError as error:
            return Served((str(error),))
        finally:
            self.progress.stop()

    @contextmanager
    def _server(self) -> Iterator[str]:
        """A tracking server for the store: itself where it is one, else one that reads a copy of its database."""
        from mlflow_compliance.store.serving.tracking_server import tracking_server

        if self.uri.startswith(("http:", "https:")):
            yield self.uri
        elif self.uri.startswith("sqlite"):
            artifacts = self.snapshot.artifacts
            away = artifacts is not None and not all(in_folder(root.path) for root in artifacts.roots)
            with tracking_server(sqlite_path(self.uri), self.settings.store.busy_timeout, storage=away) as base_url:
                yield base_url
        else:
            raise StoreError(
                "no tracking server was started on this database, because one would write to it: "
                "ask through the server that people use, --tracking-uri=http://... -k SRV002"
            )

    def _listed(self, place: tuple[str, str]) -> dict[str, tuple[int, str | None]]:
        """Relative path -> size and SHA-256 of the files in a row's folder."""
        artifacts = self.snapshot.artifacts
        folder = artifacts.locations.get(place) if artifacts else None
        if artifacts is None or folder is None:
            return {}
        return {path[len(folder) + 1 :]: (file.size, self._sha256(path)) for path, file in artifacts.under(folder).items() if file.logged}

    def _sha256(self, path: str) -> str | None:
        try:
            return _digest(self._here(path))
        except RemoteError:
            return None


def _told(bundle: Bundle, settings: Settings) -> Bundle:
    """A bundle with what was learnt while it was built."""
    made = made_in(bundle.folder)
    origins = {role: (copy.named, copy.size, copy.sha256) for role, copy in made.sources.items()}
    return replace(bundle, origins=origins, libraries=made.libraries, example=made.example, commit=_commit(str(settings.base)))


def threshold_of(run: Run, product: Product) -> float | None:
    """The threshold that a run's decisions were made at: its own, else the one in the settings."""
    for found in in_run(product.production.facts.get("threshold", ()), run):
        try:
            return float(found.value)
        except ValueError:
            continue
    return product.production.threshold


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


def _state(path: str) -> tuple[str, int, int, int]:
    """What changes when a file does."""
    try:
        facts = os.stat(path)
    except OSError:
        return path, -1, 0, 0
    return path, facts.st_size, facts.st_mtime_ns, facts.st_ino


def _above(path: str) -> Iterator[str]:
    """The folders that hold a path, the innermost first."""
    while (above := path[: path.rfind("/")] or "/") != path:
        yield above
        path = above


def _commit(folder: str) -> str:
    """The git commit that a folder is at, empty where there is none."""
    try:
        done = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
