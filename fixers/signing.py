"""The bundle beside a model in production: written where none was, for a model that nothing speaks against."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from mlflow_compliance.api import (
    METADATA,
    MLMODEL,
    SOURCE_MODEL,
    SOURCE_RUN,
    Artifacts,
    Change,
    Context,
    Evidence,
    Finding,
    Run,
    SignModel,
    Snapshot,
    Unfixable,
    bundle_of,
    current_run,
    differing_files,
    first_of,
    in_folder,
    is_planned,
    recorded_files,
)

from .claiming import claim_roots

TAMPERED = "put the model's files and its bundle back from a backup, or build the production run anew (`--fix`)"

MOST = 5
"""Files named in one line."""


def sign(finding: Finding, context: Context) -> Iterator[Change]:
    """Sign the model with the key that the settings name."""
    snapshot, folder = context.snapshot, finding.entity.key
    artifacts, evidence = snapshot.artifacts, snapshot.evidence
    if artifacts is None or evidence is None:
        return
    if finding.code != "model-not-signed":
        raise Unfixable("nothing is signed over another bundle", advice=TAMPERED)
    if not evidence.signed_by:
        raise Unfixable(
            "the private key is not here",
            advice='run --fix where it is, and name it under [evidence] in compliance.toml: `sign_with = "key.pem"`',
        )
    run = next(
        (
            run
            for product in context.settings.products
            if (run := current_run(product, context)) and folder in snapshot.model_folders(run)
        ),
        None,
    )
    if run is None or run.status != "FINISHED":
        raise Unfixable(
            "it is not the model of the one finished production run",
            advice="mend that first: `pytest --compliance-explain=RUN002,SRV001` says how",
        )
    model, root = artifacts.models[folder], artifacts.root_of(folder)
    if not in_folder(folder) or root is None or model.owner is None or not _is_laid_out(folder, model.owner.key):
        raise Unfixable(
            "no bundle is written there by this program",
            advice=f"sign it with `model_signing sign key {shlex.quote(folder)} --private_key key.pem --signature "
            f"{shlex.quote(bundle_of(folder))}`",
        )
    looked_at, of_run = _origin(folder, run, snapshot, artifacts)
    _refuse_what_speaks_against_it(looked_at, of_run, artifacts, evidence)
    if bundle_of(folder) in artifacts.recorded:
        raise Unfixable(
            "it was signed before, and its bundle is gone",
            advice="put that back from a backup; if it was meant to go, take its line out of hashes.jsonl beside the "
            "journals",
        )
    doubt = artifacts.doubt(folder)
    if doubt:
        raise Unfixable(doubt.reason, advice=doubt.way)
    seen = evidence.scans[looked_at].hashes
    hashes = {path: digest for path, digest in seen.items() if path != MLMODEL or not is_planned(folder)}
    yield from claim_roots(artifacts, [folder])
    yield SignModel(folder, root.path, model.owner.kind, model.owner.key, evidence.signed_by, hashes)


def _origin(folder: str, run: Run, snapshot: Snapshot, artifacts: Artifacts) -> tuple[str, str]:
    """The model folder and the run that were looked at: of a copy that is only planned, what it is copied from."""
    source, owner = run.tags.get(SOURCE_RUN), artifacts.models[folder].owner
    if not (is_planned(run.run_id) and source and owner):
        return folder, run.run_id
    copied = snapshot.logged_models[owner.key].tags.get(SOURCE_MODEL, "") if owner.kind == "logged_model" else source
    there, here = artifacts.locations.get((owner.kind, copied)), artifacts.locations[owner.place]
    return f"{there}{folder[len(here) :]}", source


def _refuse_what_speaks_against_it(folder: str, run_id: str, artifacts: Artifacts, evidence: Evidence) -> None:
    """Raise Unfixable for a model that a signature must not vouch for."""
    scan, metadata = evidence.scans.get(folder), evidence.metadata.get(run_id)
    if scan is None:
        raise Unfixable("nobody looked at its files yet: run --fix again to sign them")
    if scan.problems:
        raise Unfixable(
            f"a model that is not known to be safe is not signed ({scan.problems[0]})", advice=_first("MOD002")
        )
    if artifacts.models[folder].problem:
        raise Unfixable("a model that is not complete is not signed", advice=_first("ART005"))
    if metadata is None:
        return
    try:
        differing = differing_files(recorded_files(metadata.document, run_id), scan.hashes)
    except (KeyError, TypeError, AttributeError):
        raise Unfixable(f"{METADATA} of its run does not say what the model holds, so it is not signed") from None
    if differing:
        raise Unfixable(
            f"it is not the model on record, so it is not signed ({first_of(differing, MOST)})", advice=_first("SRV001")
        )


def _first(rule: str) -> str:
    return f"mend {rule} first: `pytest --compliance-explain={rule}` says how"


def _is_laid_out(folder: str, owner: str) -> bool:
    """Whether its row's folder is one that MLflow made, with `artifacts` in it: a bundle beside that is its owner's."""
    return bundle_of(folder).rpartition("/")[0].endswith(f"/{owner}")
