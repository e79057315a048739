"""Rules about what programs and people get: the model that would be loaded, and what a tracking server shows."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow_compliance.api import (
    Cause,
    ComplianceError,
    Context,
    Evidence,
    Product,
    RegisteredModel,
    Resolution,
    Run,
    Settings,
    Severity,
    Snapshot,
    SnapshotLookup,
    Unknown,
    Violations,
    current_run,
    differing_files,
    folder_of,
    policy,
    production_runs,
    recorded_files,
    resolve,
    unseen_run,
    without_any,
)

MOST = 20
"""Aliases that are told one by one."""


@policy(
    "SRV001",
    "What would be loaded is the production run's model",
    Severity.CRITICAL,
    advice="mend what RUN002, MOD001 and REG001 say first, `pytest --pyargs "
    "mlflow_compliance.policies --compliance-rules=RUN002,MOD001,REG001 --fix-dry-run`; files "
    "that differ from those on record come back from a backup",
)
def test_what_would_be_loaded(
    product: Product | None,
    store: Snapshot,
    evidence: Evidence,
    settings: Settings,
    context: Context,
    violations: Violations,
) -> None:
    """The model that decides about people must be the one whose evidence was looked at, byte for byte."""
    if product is None:
        _tell_aliases(store, violations)
        violations.not_applicable(without_any("product", settings))
    wanted = product.production
    try:
        found = resolve(
            SnapshotLookup(store, product, settings), registered_model=wanted.registered_model, alias=wanted.alias
        )
    except ComplianceError as error:
        violations.add("nothing-loads", "what the settings name leads to no model", observed=str(error))
        _tell_aliases(store, violations)
        return
    current, unseen = current_run(product, context), unseen_run(product, context)
    if unseen:
        violations.not_evaluated("no-production-run", unseen)
        return
    if current is None:
        violations.add(
            "no-production-run",
            "there is no one production run to compare with",
            observed=found.why,
            cause=Cause("RUN002", violations.subject),
        )
        return
    folders, meant = store.model_folders(current), store.logged_models.get(found.model_id or "")
    if store.hosted_elsewhere(current) and meant and meant.external and meant.source_run_id == current.run_id:
        violations.not_applicable(
            f"the production model of product {product.name} is hosted elsewhere (mlflow.model.isExternal)"
        )
    loaded = evidence.scans.get(folder_of(found, product, store))
    own = [evidence.scans[folder].hashes for folder in folders]
    unknown = _unknown(found, store) if loaded is None else store.unknown_files(current) if not own else None
    if unknown:
        violations.not_evaluated("files-missing", unknown.reason, entity=current.ref)
    elif loaded is None:
        violations.add(
            "files-missing",
            "the files that would be loaded are not there",
            entity=current.ref,
            observed=found.uri,
            cause=Cause("MOD001", violations.subject),
        )
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
            violations.add(
                "not-on-record",
                "the files that would be loaded are not those on record",
                entity=current.ref,
                observed=sentence,
            )


def _tell_aliases(store: Snapshot, violations: Violations) -> None:
    """Note what every alias of the store loads, whatever the settings name."""
    told = [
        _loads(alias, model, store)
        for _, model in sorted(store.registered_models.items())
        for alias in sorted(model.aliases)
    ]
    for sentence in told[:MOST]:
        violations.note(sentence)
    if len(told) > MOST:
        violations.note(f"... and {len(told) - MOST} aliases more")


def _loads(alias: str, model: RegisteredModel, store: Snapshot) -> str:
    """Alias -> version -> what it comes from -> whether its files are there."""
    said = f"models:/{model.name}@{alias} loads version {model.aliases[alias]}"
    version = model.version(model.aliases[alias])
    if version is None:
        return f"{said}, which is not there"
    home = store.experiments.get(version.experiment_id)
    run = f", of run {version.run_id}" if version.run_id else ""
    said += f" ({version.source}{run}{f' in experiment {home.name!r}' if home else ''})"
    artifacts = store.artifacts
    unknown = artifacts.unknown.get(version.ref.place) if artifacts else None
    if unknown:
        return f"{said}; whether its files are there is not known: {unknown.reason}"
    folder = artifacts.locations.get(version.ref.place) if artifacts else None
    models = artifacts.models_in(folder) if artifacts and folder else []
    if not models:
        return f"{said}; its files are not there"
    problem = next((item.problem for item in models if item.problem), "")
    return f"{said}; its files are there{f', not complete: {problem}' if problem else ''}"


def _unknown(found: Resolution, store: Snapshot) -> Unknown | None:
    """Why the files that would be loaded were not looked at, None where they were."""
    rows = [("logged_model", found.model_id or ""), ("run", found.run_id)]
    rows += [
        version.ref.place
        for item in store.registered_models.values()
        for version in item.versions
        if version.location == found.location
    ]
    unknown = store.artifacts.unknown if store.artifacts else {}
    return next((unknown[row] for row in rows if row in unknown), None)


def _unlike_metadata(run_id: str, hashes: Mapping[str, str], evidence: Evidence) -> list[str]:
    """How the files of the model differ from what the run's metadata records of them."""
    metadata = evidence.metadata.get(run_id)
    recorded = recorded_files(metadata.document, run_id) if metadata else {}
    return differing_files(recorded, hashes) if recorded else []


@policy(
    "SRV002",
    "A tracking server shows and gives everything",
    Severity.HIGH,
    advice="log what the server refuses again under a plain name: `mlflow artifacts log-artifact "
    "--run-id RUN_ID --local-file report.html`",
)
def test_tracking_server_gives_everything(
    product: Product, store: Snapshot, evidence: Evidence, context: Context, violations: Violations
) -> None:
    """People look at the run in the UI: what it does not list, or cannot download, is not there for them."""
    runs, unseen = production_runs(product, context), unseen_run(product, context)
    if unseen:
        violations.not_evaluated("no-production-run", unseen)
    elif not runs:
        cause = Cause("RUN002", violations.subject)
        violations.add("no-production-run", "there is no production run to ask for", cause=cause)
    for run in runs:
        unknown = store.unknown_files(run)
        if store.schema is not None and store.schema.problem:
            violations.not_evaluated(
                "not-served",
                f"no tracking server opens a database that {store.schema.problem}: see STO003",
                entity=run.ref,
            )
            continue
        if unknown:
            violations.not_evaluated("not-served", unknown.reason, entity=run.ref)
            continue
        mapped = _read_elsewhere(run, store)
        if mapped:
            reason = (
                f"a server would serve by the rows, which name {mapped}: let --fix rewrite them, or bring "
                "the files back there"
            )
            violations.not_evaluated("not-served", reason, entity=run.ref)
            continue
        served = evidence.served[run.run_id]
        if served.unasked:
            violations.not_evaluated("not-served", served.unasked, entity=run.ref)
        for problem in served.problems:
            violations.add("not-served", "a tracking server does not give all of it", entity=run.ref, observed=problem)


def _read_elsewhere(run: Run, store: Snapshot) -> str:
    """The prefix by which files of a run are read elsewhere than its rows say, '' where they are not, or where
    their own server is asked.
    """
    if store.artifacts is None or store.info.backend.startswith("http"):
        return ""
    places = (run.artifact_uri, *(model.artifact_location for model in store.models_of(run.run_id)))
    return next(filter(None, map(store.artifacts.mapped, places)), "")
