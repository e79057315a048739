"""Builds everything that a production run is logged from, in a folder of its own beside the store. What is built is
built from copies.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.settings.schema import ModelSettings, Product, ProductionSettings
from mlflow_compliance.snapshot.evidence import Bundle, RunEvidence, Scan, Scored, Source
from mlflow_compliance.store.models.bundle_child import REQUEST, RESULT
from mlflow_compliance.store.models.mlmodel import read_card
from mlflow_compliance.store.models.probe import Sample, probe
from mlflow_compliance.store.models.sandbox import Limits, run_limited
from mlflow_compliance.store.models.scan import scan_file, scan_model
from mlflow_compliance.store.models.scoring import Scoring, score_apart
from mlflow_compliance.store.storage.atomic_write import create, write_bytes
from mlflow_compliance.store.storage.safe_io import ChangedError, digest_of, opened, why_unread

REFERENCE = "predictions/reference.json"
"""Stands among the artifacts for predictions that are too large to be logged."""

_CHILD = "mlflow_compliance.store.models.bundle_child"
_BLOCK = 1 << 20
_NEEDED = ("model", "predictions", "threshold")


class BundledFile(NamedTuple):
    """A file that the settings name, as it was copied: `named` is how they spell it."""

    named: str
    size: int
    sha256: str


class Built(NamedTuple):
    """What building brought to light and no file of the run holds."""

    params: dict[str, Any]
    """`get_params()` of the model, as JSON has it."""
    features: tuple[str, ...]
    libraries: dict[str, str]
    """Name -> version of what wrote the model, and of Python."""
    example: str
    """'recorded' or 'synthetic': where the rows of the input example come from."""
    sources: dict[str, BundledFile]
    """'model' and 'predictions'."""


def build(product: Product, base: Path, models: ModelSettings, folder: str) -> Source:
    """Build into an empty folder; nothing outside it is written. `base` is what paths in the settings start from.

    The model is unpickled in a limited process, and only where its pickle holds nothing that is not known to be safe.
    Whether it gives what the
    predictions say is in the evidence, for the rules.
    """
    try:
        return Source(_Builder(product, base, models, os.path.realpath(folder)).bundle())
    except ComplianceError as error:
        return Source(problem=str(error))
    except OSError as error:
        return Source(
            problem=f"the production run of {product.name} could not be built in {folder}: {why_unread(error)}"
        )


def made_in(folder: str) -> Built:
    """What was learnt while the bundle in a folder was built."""
    child, request = (_json(os.path.join(folder, name)) for name in (RESULT, REQUEST))
    sources = {role: BundledFile(*values) for role, values in request["sources"].items()}
    return Built(child["params"], tuple(child["features"]), child["libraries"], child["example"], sources)


class _Builder:
    def __init__(self, product: Product, base: Path, models: ModelSettings, folder: str) -> None:
        self.wanted: ProductionSettings = product.production
        missing = [f"products.production.{name}" for name in _NEEDED if getattr(self.wanted, name) is None]
        if missing:
            raise ComplianceError(
                f"the settings do not name {' and '.join(missing)} for product {product.name}: a production run "
                "is built from them"
            )
        self.paths = {name: self.wanted.resolved(base, name) or "" for name in ("model", "predictions", "features")}
        self.models = models
        self.limits = Limits(models.time_limit, models.memory_limit)
        self.folder = folder
        self.artifacts, self.model = os.path.join(folder, "artifacts"), os.path.join(folder, "model")
        self.pickle = os.path.join(self.artifacts, "model.pkl")
        self.predictions = os.path.join(folder, "predictions", os.path.basename(self.paths["predictions"]))

    def bundle(self) -> Bundle:
        """All steps in turn; the first that does not succeed raises."""
        sources = {
            "model": self._copy("model", self.pickle),
            "predictions": self._copy("predictions", self.predictions),
        }
        self._refuse_unsafe(scan_file(self.pickle, self.models))
        scored = self._scored()
        self._run_child(scored, sources)
        scan = scan_model(self.model, self.models)
        if scan.problems:
            raise ComplianceError(
                f"the MLflow model built from {self.wanted.model} is not safe to load: {scan.problems[0]}"
            )
        probed = probe(self.model, scan.hashes, self.limits, self._sample())
        if probed.problem:
            raise ComplianceError(f"the MLflow model built from {self.wanted.model} was tried: {probed.problem}")
        self._file_predictions(sources["predictions"], scored.rows)
        return Bundle(
            folder=self.folder,
            files=_listed(self.artifacts),
            model_files=_listed(self.model),
            sources={role: copy.sha256 for role, copy in sources.items()},
            scan=scan,
            evidence=RunEvidence(read_card(self.model), probed, scored),
        )

    def _copy(self, role: str, target: str) -> BundledFile:
        """Copy a file that the settings name, in one read."""
        named = getattr(self.wanted, role)
        try:
            # Data sets are often links into a cache: the settings mean what they lead to.
            return BundledFile(named, *_copied(os.path.realpath(self.paths[role]), target))
        except OSError as error:
            raise ComplianceError(f"{named} (products.production.{role}) cannot be read: {why_unread(error)}") from None

    def _refuse_unsafe(self, scan: Scan) -> None:
        if scan.problems:
            why = scan.problems[0].removeprefix(f"{os.path.basename(self.pickle)}: ")
            raise ComplianceError(f"{self.wanted.model} is not safe to load: {why}")

    def _scored(self) -> Scored:
        wanted = self.wanted
        assert wanted.threshold is not None
        asked = Scoring(
            wanted.target,
            wanted.probability,
            wanted.threshold,
            wanted.false_negative_cost,
            wanted.false_positive_cost,
        )
        scored = score_apart(self.predictions, asked, self.limits)
        if scored.problem:
            raise ComplianceError(scored.problem)
        return replace(scored, path=self.paths["predictions"])

    def _run_child(self, scored: Scored, sources: dict[str, BundledFile]) -> None:
        wanted = self.wanted
        request = {
            "named": wanted.model,
            "model": self.pickle,
            "predictions": self.predictions,
            "features": self.paths["features"],
            "values": scored.values,
            "sources": sources,
            **{name: getattr(wanted, name) for name in ("target", "probability", "threshold", "serialization")},
            **{name: getattr(wanted, name) for name in ("false_negative_cost", "false_positive_cost")},
        }
        _write_json(os.path.join(self.folder, REQUEST), request)
        problem = run_limited(_CHILD, [], self.folder, self.limits)
        if problem:
            raise ComplianceError(f"no MLflow model can be built from {wanted.model}: {problem}")
        if said := _json(os.path.join(self.folder, RESULT)).get("problem"):
            raise ComplianceError(said)

    def _sample(self) -> Sample | None:
        features = self.paths["features"]
        return Sample(features, self.wanted.row, self.predictions, self.wanted.probability) if features else None

    def _file_predictions(self, copy: BundledFile, rows: int) -> None:
        """Among the artifacts in full, or as a reference to where they are."""
        target = os.path.join(self.artifacts, "predictions")
        if copy.size <= self.wanted.largest_predictions:
            os.rename(os.path.dirname(self.predictions), target)
            return
        shutil.rmtree(os.path.dirname(self.predictions))
        os.mkdir(target)
        reference = {"path": copy.named, "sha256": copy.sha256, "size": copy.size, "rows": rows}
        _write_json(os.path.join(self.artifacts, REFERENCE), reference)


def _copied(path: str, target: str) -> tuple[int, str]:
    """Size and SHA-256 of the copy; `ChangedError` where somebody wrote to the file meanwhile."""
    os.makedirs(os.path.dirname(target))
    digest, size = hashlib.sha256(), 0
    with opened(path) as file, create(target) as copy:
        before = os.fstat(file)
        while data := os.read(file, _BLOCK):
            digest.update(data)
            write_bytes(copy, data)
            size += len(data)
        after = os.fstat(file)
    if size != before.st_size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise ChangedError(path)
    return size, digest.hexdigest()


def _listed(folder: str) -> tuple[tuple[str, int, str], ...]:
    """(path, size, SHA-256) of every file at or below a folder."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with opened(path) as file:
                found.append((os.path.relpath(path, folder), os.fstat(file).st_size, digest_of(file, path)))
    return tuple(sorted(found))


def _json(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _write_json(path: str, value: object) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
