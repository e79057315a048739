"""What is in production and what each experiment takes, as facts for the outputs: functions of a Snapshot and its
settings.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from mlflow_compliance.audit.owners import owner_of
from mlflow_compliance.audit.results import ExperimentFacts, ProductFacts
from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.production.claims import claimed_by, current_run, primary_of
from mlflow_compliance.production.facts import threshold_in_force
from mlflow_compliance.production.resolution import SnapshotLookup, folder_of, resolve
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.files import WRITTEN_ANEW, parent, upwards
from mlflow_compliance.snapshot.tags import BUILD, BUILT_FOR, COMPLETE_BUILD, SHA256

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_compliance.production.context import Context
    from mlflow_compliance.production.resolution import Resolution
    from mlflow_compliance.settings.schema import Product
    from mlflow_compliance.snapshot.artifacts import Artifacts
    from mlflow_compliance.snapshot.entities import Run
    from mlflow_compliance.snapshot.snapshot import Snapshot


def products_of(context: Context) -> tuple[ProductFacts, ...]:
    """What is in production for each product, as far as the store says it; no file is opened for it."""
    return tuple(_product(product, context) for product in context.settings.products)


def _product(product: Product, context: Context) -> ProductFacts:
    snapshot, named = context.snapshot, product.production
    loaded = _loaded(product, context)
    run = snapshot.runs.get(loaded.run_id) if loaded else current_run(product, context)
    home = run.experiment_id if run else primary_of(product, snapshot.experiments, claimed_by(product, context))
    experiment = snapshot.experiments.get(home or "")
    registered = snapshot.registered_models.get(named.registered_model or "")
    return ProductFacts(
        name=product.name,
        experiment=without_secrets(experiment.name) if experiment else "",
        experiment_id=experiment.experiment_id if experiment else "",
        run=without_secrets(run.name) if run else "",
        run_id=run.run_id if run else loaded.run_id if loaded else "",
        since=_since(run, product) if run else "",
        registered_model=without_secrets(named.registered_model or ""),
        alias=named.alias if named.registered_model else "",
        version=(registered.aliases.get(named.alias, "") if registered else ""),
        threshold=_threshold(run, product),
        model_sha256=_hash_of(run, loaded, product, snapshot),
    )


def _loaded(product: Product, context: Context) -> Resolution | None:
    """What programs load; None where the store does not say, which rules tell."""
    try:
        return resolve(
            SnapshotLookup(context.snapshot, product, context.settings),
            registered_model=product.production.registered_model,
            alias=product.production.alias,
        )
    except ComplianceError:
        return None


def _since(run: Run, product: Product) -> str:
    """When a repair put the run in production, else when it ended: MLflow keeps no time of an alias or a tag."""
    built = run.tags.get(BUILD) == COMPLETE_BUILD and run.tags.get(BUILT_FOR) == product.name
    time = run.start_time if built else run.end_time
    try:
        return datetime.fromtimestamp(time / 1000, timezone.utc).isoformat(timespec="seconds") if time else ""
    except (OverflowError, OSError, ValueError):
        return ""  # rows may hold any number


def _threshold(run: Run | None, product: Product) -> str:
    if run is None:
        return ""
    try:
        found = threshold_in_force(product, run.params, run.latest, run.tags)
    except ValueError:
        return ""
    return f"{found[0]:g}" if found else ""


def _hash_of(run: Run | None, loaded: Resolution | None, product: Product, snapshot: Snapshot) -> str:
    """The hash of the model that is on record with its run, else the one that was read of its file."""
    recorded = run.tags.get(f"{SHA256}model", "") if run else ""
    if recorded or loaded is None or snapshot.artifacts is None:
        return recorded
    folder, hashes = folder_of(loaded, product, snapshot), snapshot.artifacts.hashes
    found = (hashes.get(f"{folder}/{name}", "") for name in sorted(WRITTEN_ANEW))
    return next((digest for digest in found if digest and ":" not in digest), "")


def experiments_of(context: Context) -> tuple[ExperimentFacts, ...]:
    """Every experiment with its owner, its runs and, where files were read, the bytes that it takes."""
    snapshot = context.snapshot
    taken, repeats = _bytes_of(snapshot.artifacts) if snapshot.artifacts else (Counter[str](), Counter[str]())
    read = snapshot.artifacts is not None
    return tuple(
        ExperimentFacts(
            experiment_id=key,
            name=without_secrets(item.name),
            lifecycle=item.lifecycle,
            runs=sum(item.runs.values()) if snapshot.counted else None,
            owner=without_secrets(owner_of(item.ref, context).owner),
            bytes=taken[key] if read and not _unknown(key, snapshot) else None,
            reclaimable=repeats[key] if read and not _unknown(key, snapshot) else None,
        )
        for key, item in sorted(snapshot.experiments.items(), key=lambda entry: entry[0].zfill(20))
    )


def _unknown(experiment_id: str, snapshot: Snapshot) -> bool:
    """Whether the folder of an experiment was not looked at: what it takes is then not known, and not nothing."""
    return snapshot.artifacts is not None and ("experiment", experiment_id) in snapshot.artifacts.unknown


def _bytes_of(artifacts: Artifacts) -> tuple[Counter[str], Counter[str]]:
    """Experiment -> bytes of the physical copies in it, each counted where its first path lies; and of the repeats
    that a repair would give back.
    """
    home = _Homes(artifacts)
    taken, repeats, seen = Counter[str](), Counter[str](), set[str]()
    for path in sorted(artifacts.files):
        file = artifacts.files[path]
        if file.copy not in seen:
            seen.add(file.copy)
            taken[home.of(path)] += file.size
    for group in artifacts.duplicates():
        for path in artifacts.extras(group):
            repeats[home.of(path)] += group.size
    return taken, repeats


class _Homes:
    """In which experiment a path lies: by the folders of rows, remembered for each folder."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._known: dict[str, str] = {
            folder.rstrip("/"): key for (kind, key), folder in artifacts.locations.items() if kind == "experiment"
        }

    def of(self, path: str) -> str:
        """The id of the experiment; empty where none has the path below its folder."""
        folders = list(self._up_to_known(parent(path)))
        found = self._known.get(folders[-1], "")
        self._known.update(dict.fromkeys(folders, found))
        return found

    def _up_to_known(self, folder: str) -> Iterator[str]:
        for above in upwards(folder):
            yield above
            if above in self._known:
                return
