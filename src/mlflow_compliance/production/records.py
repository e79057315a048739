"""Every hash on record, and where it stands: of production runs, and of what a repair made share a copy."""

from __future__ import annotations

import os
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mlflow_compliance.production.claims import production_runs
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.metadata import MODEL_FILES
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import Run
from mlflow_compliance.snapshot.evidence import Digest
from mlflow_compliance.snapshot.files import METADATA, MLMODEL
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import BUILD, COMPLETE_BUILD, METADATA_HASH, SHA256, SOURCE_MODEL

PICKLE, PREDICTIONS = "model.pkl", "predictions"
"""Where a run that --fix built holds what it was built from, among its artifacts."""
OF_REPAIRS = "hashes.jsonl beside the journals"


class Record(NamedTuple):
    """A hash on record. `sha256` is None where it is only on record that the file was there."""

    sha256: str | None
    where: str
    of_production: bool


def hashes_on_record(context: Context) -> Mapping[str, list[Record]]:
    """Path -> every record of its hash, sorted by path."""
    return context.once(_hashes_on_record)


def _hashes_on_record(context: Context) -> Mapping[str, list[Record]]:
    snapshot, found = context.snapshot, defaultdict[str, list[Record]](list)
    for path, digest in snapshot.artifacts.recorded.items() if snapshot.artifacts else ():
        found[path].append(Record(digest, OF_REPAIRS, of_production=False))
    for run in runs_on_record(context):
        for path, said, where in _of_run(run, snapshot):
            found[path].append(Record(said, where, of_production=True))
    return dict(sorted(found.items()))


def runs_on_record(context: Context) -> list[Run]:
    """The production runs of all products, each once."""
    found = {run.run_id: run for product in context.settings.products for run in production_runs(product, context)}
    return list(found.values())


def held(path: str, snapshot: Snapshot) -> Digest | None:
    """What a file with a hash on record holds; None where nobody read it, as in a plan, or where it is not there."""
    if snapshot.evidence is not None and path in snapshot.evidence.digests:
        return snapshot.evidence.digests[path]
    found = snapshot.artifacts.hashes.get(path) if snapshot.artifacts else None
    return Digest(found) if found else None


def without_hash(run: Run, snapshot: Snapshot) -> str:
    """The path of the metadata of a run that --fix built, where no tag of the run holds its hash; else empty."""
    path = os.path.join(_home(run, snapshot), METADATA)
    built = run.tags.get(BUILD) == COMPLETE_BUILD
    there = snapshot.artifacts is not None and path in snapshot.artifacts.files
    return path if built and there and METADATA_HASH not in run.tags else ""


def _home(run: Run, snapshot: Snapshot) -> str:
    return snapshot.artifacts.locations.get(run.ref.place, "") if snapshot.artifacts else ""


def _of_run(run: Run, snapshot: Snapshot) -> Iterator[tuple[str, str | None, str]]:
    """(path, hash, where it stands) of all that is on record of a production run."""
    home, artifacts = _home(run, snapshot), snapshot.artifacts
    if not home or artifacts is None:
        return
    metadata = snapshot.evidence.metadata.get(run.run_id) if snapshot.evidence else None
    document = metadata.document if metadata else {}
    own = os.path.join(home, METADATA)
    if METADATA_HASH in run.tags:
        yield own, run.tags[METADATA_HASH], f"tag {METADATA_HASH} of run {run.run_id}"
    elif run.tags.get(BUILD) == COMPLETE_BUILD:
        yield own, None, f"tag {BUILD} of run {run.run_id}"
    said = snapshot.evidence.journalled.get(run.run_id) if snapshot.evidence else None
    if said is not None and said.sha256:
        yield own, said.sha256, f"journal {said.journal}"
    sources = dict(_listed(document.get("sources"), "role"))
    for role, path in _sources(home, document, artifacts).items():
        if f"{SHA256}{role}" in run.tags:
            yield path, run.tags[f"{SHA256}{role}"], f"tag {SHA256}{role} of run {run.run_id}"
        if role in sources:
            yield path, sources[role], f"sources of {METADATA} of run {run.run_id}"
    folder = _model_folder(run, home, document, snapshot)
    for path, digest in _listed(document.get("artifacts"), "path"):
        place = posixpath.normpath(path)
        if place.startswith(("/", "..")):
            continue  # it leads out of the run's own folder
        of_model = folder != "" and place.startswith(MODEL_FILES)
        relative = place.removeprefix(MODEL_FILES)
        if of_model and relative == MLMODEL and document.get("run_id", run.run_id) != run.run_id:
            continue  # in a copy of a run it names the ids of the copy
        yield f"{folder}/{relative}" if of_model else f"{home}/{place}", digest, f"{METADATA} of run {run.run_id}"


def _listed(items: Any, name: str) -> Iterator[tuple[str, str]]:
    """(name, hash) of the items of a list in a document; one of another make may hold anything there."""
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and isinstance(item.get(name), str) and isinstance(item.get("sha256"), str):
            yield item[name], item["sha256"]


def _sources(home: str, document: Mapping[str, Any], artifacts: Artifacts) -> dict[str, str]:
    """'model' and 'predictions' -> the path of the run's own copy, for those that it holds."""
    items = document.get("sources")
    named = {
        str(item["role"]): str(item["path"])
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict) and "role" in item and "path" in item
    }
    found = {"model": f"{home}/{PICKLE}"}
    if PREDICTIONS in named:
        found[PREDICTIONS] = f"{home}/{PREDICTIONS}/{os.path.basename(named[PREDICTIONS])}"
    return {role: path for role, path in found.items() if path in artifacts.files}


def _model_folder(run: Run, home: str, document: Mapping[str, Any], snapshot: Snapshot) -> str:
    """The folder of the model that a run's metadata speaks of; empty where it lies among the run's own artifacts."""
    models = snapshot.models_of(run.run_id)
    named = [model for model in models if document.get("model_id") in (model.model_id, model.tags.get(SOURCE_MODEL))]
    locations = snapshot.artifacts.locations if snapshot.artifacts else {}
    found = [locations[model.ref.place] for model in named or models if model.ref.place in locations]
    return found[0] if len(found) == 1 else ""
