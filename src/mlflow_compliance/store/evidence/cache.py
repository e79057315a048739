"""What a session computes from bytes that do not change: models scanned, tried and built, here or on other machines."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.executors import THREADS, executor_of, run
from mlflow_compliance.progress import Progress
from mlflow_compliance.settings.schema import ModelSettings, Product, Settings
from mlflow_compliance.snapshot.evidence import Bundle, Computed, Digest, Probe, Scan, Scored, Source, Value
from mlflow_compliance.store.models.bundle import build, made_in
from mlflow_compliance.store.models.probe import Sample, probe
from mlflow_compliance.store.models.sandbox import Limits
from mlflow_compliance.store.models.scan import could_run, scan_file, scan_model
from mlflow_compliance.store.models.scoring import Scoring, score_apart
from mlflow_compliance.store.storage.file_states import mark_of_file
from mlflow_compliance.store.storage.folder_scan import state_of
from mlflow_compliance.store.storage.safe_io import digest_of, opened, why_unread
from mlflow_compliance.store.storage.storages import Storages
from mlflow_compliance.store.storage.transfer import Fetcher

_Trial = tuple[str, dict[str, str], Limits, Sample | None]
"""The arguments of `probe`."""
_AT_ONCE = 50  # scans in one unit


class EvidenceCache:
    """What one session computed from bytes that do not change: kept while they stay the same, so that reading the
    store again costs nothing twice.
    """

    def __init__(self, settings: Settings, places: Storages, executor: str = THREADS, *, again: bool = False) -> None:
        """`again` is whether the same files will be asked for more than once."""
        self.settings = settings
        self.places = places
        self.here = Fetcher(places, self._new_folder)
        self._executor = executor
        self._again = again
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._probes: dict[tuple[object, ...], Probe] = {}
        self._scored: dict[tuple[object, ...], Scored] = {}
        self._sources: dict[tuple[object, ...], Source] = {}
        self._could_run: dict[tuple[str, str], bool] = {}
        self._scans: dict[tuple[str, str], Scan] = {}
        self._digests: dict[tuple[str, str], Digest] = {}

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
        self._folder = self._folder or tempfile.TemporaryDirectory(
            prefix="mlflow-compliance-", ignore_cleanup_errors=True
        )
        return tempfile.mkdtemp(dir=self._folder.name)

    def could_run(self, path: str) -> bool:
        """Whether a file of this machine is more than plain data, told by how it begins."""
        return self._unless_same(path, self._could_run, could_run)

    def scan(self, path: str) -> Scan:
        """What loading a model folder, or one file that is none, could do."""
        rules = self.settings.models
        return self._unless_same(path, self._scans, lambda folder: _scan(folder, rules), lambda scan: scan.whole)

    def digest(self, path: str) -> Digest:
        """What a file holds."""
        return self._unless_same(path, self._digests, _digest, lambda digest: not digest.problem)

    def _unless_same(
        self,
        path: str,
        known: dict[tuple[str, str], Value],
        compute: Callable[[str], Value],
        lasts: Callable[[Value], bool] = lambda _: True,
    ) -> Value:
        """What was computed from a file or folder, computed anew where it may not be what it was."""
        mark = mark_of_file(path) if self._again else ""
        if (path, mark) in known:
            return known[path, mark]
        value = compute(path)
        if mark and lasts(value):
            known[path, mark] = value
        return value

    def scans(self, paths: Sequence[str]) -> dict[str, Scan]:
        """Of many models and files those scans that other machines made, and in which nothing was found: the rest
        is looked at here, by `scan`.
        """
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

    def score(self, path: str, wanted: Scoring) -> Scored:
        """The metrics that follow from a file of predictions."""
        key = (_state(path), wanted)
        if key not in self._scored:
            models = self.settings.models
            self._scored[key] = score_apart(path, wanted, Limits(models.time_limit, models.memory_limit))
        return self._scored[key]

    def _tried(self, unit: _Trial) -> Probe:
        if self._executor == THREADS:
            return _probe(unit)
        try:
            with executor_of(self._executor) as pool:
                ((found, host),) = run(pool, _probe, [unit])
        except ComplianceError:  # it was there when the files were read
            return _probe(unit)
        return replace(found, problem=f"{found.problem} (tried on {host})") if found.problem and host else found


def _digest(path: str) -> Digest:
    try:
        with opened(path) as file:
            return Digest(digest_of(file, path))
    except OSError as error:
        return Digest(problem=why_unread(error))


def _scan(path: str, rules: ModelSettings) -> Scan:
    return scan_file(path, rules, pickled=False) if os.path.isfile(path) else scan_model(path, rules)


def _scan_all(unit: tuple[Sequence[str], ModelSettings]) -> dict[str, Scan]:
    """Scans as a work unit."""
    paths, rules = unit
    return {path: _scan(path, rules) for path in paths}


def _probe(unit: _Trial) -> Probe:
    """`probe` as a work unit."""
    return probe(*unit)


def _told(bundle: Bundle, settings: Settings) -> Bundle:
    """A bundle with what was learnt while it was built."""
    made = made_in(bundle.folder)
    origins = {role: (copy.named, copy.size, copy.sha256) for role, copy in made.sources.items()}
    return replace(
        bundle, origins=origins, libraries=made.libraries, example=made.example, commit=_commit(str(settings.base))
    )


def _state(path: str) -> tuple[str | int, ...]:
    """What changes when a file does."""
    try:
        facts = os.stat(path)
    except OSError:
        return path, -1
    return (path, *state_of(facts))


def _commit(folder: str) -> str:
    """The git commit that a folder is at, empty where there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
