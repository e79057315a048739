"""Rules about what programs and people get: the model that would be loaded, and what a tracking server shows."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow_compliance.api import (
    ComplianceError,
    Evidence,
    Product,
    Resolution,
    Settings,
    Severity,
    Snapshot,
    SnapshotLookup,
    Unknown,
    Violations,
    current_run,
    policy,
    production_runs,
    resolve,
)


@policy("SRV001", "What would be loaded is the production run's model", Severity.CRITICAL)
def test_what_would_be_loaded(product: Product, store: Snapshot, evidence: Evidence, settings: Settings, violations: Violations) -> None:
    """The model that decides about people must be the one whose evidence was looked at, byte for byte."""
    wanted = product.production
    try:
        found = resolve(SnapshotLookup(store, product, settings), registered_model=wanted.registered_model, alias=wanted.alias)
    except ComplianceError as error:
        violations.add("nothing-loads", "no model would be loaded", observed=str(error))
        return
    current = current_run(product, store, settings)
    if current is None:
        violations.add("no-production-run", "there is no one production run to compare with", observed=found.why)
        return
    folders = store.model_folders(current)
    place = store.artifacts.locations.get(("logged_model", found.model_id)) if store.artifacts and found.model_id else None
    loaded = evidence.scans.get(place or found.location)
    own = [evidence.scans[folder].hashes for folder in folders]
    unknown = _unknown(found, store) if loaded is None else store.unknown_files(current) if not own else None
    if unknown:
        violations.not_evaluated("files-missing", unknown.reason, entity=current.ref)
    elif loaded is None:
        violations.add("files-missing", "the files that would be loaded are not there", entity=current.ref, observed=found.uri)
    elif loaded.hashes not in own:
        violations.add(
            "another-model",
            "another model would be loaded",
            entity=current.ref,
            observed=f"{found.uri} ({found.why})",
            expected="the production run's own",
        )
    else:
        for sentence in _unlike_metadata(current.run_id, loaded.hashes, evidence):
            violations.add("not-on-record", "the files that would be loaded are not those on record", entity=current.ref, observed=sentence)


def _unknown(found: Resolution, store: Snapshot) -> Unknown | None:
    """Why the files that would be loaded were not looked at, None where they were."""
    rows = [("logged_model", found.model_id or ""), ("run", found.run_id)]
    rows += [version.ref.place for item in store.registered_models.values() for version in item.versions if version.location == found.location]
    unknown = store.artifacts.unknown if store.artifacts else {}
    return next((unknown[row] for row in rows if row in unknown), None)


def _unlike_metadata(run_id: str, hashes: Mapping[str, str], evidence: Evidence) -> list[str]:
    """Files of the model that differ from what the run's metadata records of them."""
    metadata = evidence.metadata.get(run_id)
    listed = metadata.document.get("artifacts", []) if metadata else []
    recorded = {item["path"].removeprefix("model/"): item["sha256"] for item in listed if item["path"].startswith("model/")}
    return [
        f"{path} has sha256 {hashes.get(path, 'none')[:16]} and {digest[:16]} is on record"
        for path, digest in sorted(recorded.items())
        if hashes.get(path) != digest
    ]


@policy("SRV002", "A tracking server shows and gives everything", Severity.HIGH)
def test_tracking_server_gives_everything(product: Product, store: Snapshot, evidence: Evidence, settings: Settings, violations: Violations) -> None:
    """People look at the run in the UI: what it does not list, or cannot download, is not there for them."""
    runs = production_runs(product, store, settings)
    if not runs:
        violations.add("no-production-run", "there is no production run to ask for")
    for run in runs:
        unknown = store.unknown_files(run)
        if store.schema is not None and store.schema.problem:
            violations.not_evaluated("not-served", f"no tracking server opens a database that {store.schema.problem}: see STO003", entity=run.ref)
            continue
        if unknown:
            violations.not_evaluated("not-served", unknown.reason, entity=run.ref)
            continue
        for problem in evidence.served[run.run_id].problems:
            violations.add("not-served", "a tracking server does not give all of it", entity=run.ref, observed=problem)
