"""Rules about loading models: safe, possible, described, and with the predictions that are on record."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from mlflow_compliance.api import (
    ArtifactRoot,
    Artifacts,
    Cause,
    Context,
    EntityRef,
    Evidence,
    Product,
    Run,
    Scan,
    Settings,
    Severity,
    Violations,
    first_of,
    policy,
    production_models,
    production_runs,
    quoted,
    unseen_run,
)

FEW = 5
"""Models named in one finding of what may be allowed; of what may not, all are."""
CLOSE = 1e-6
"""The largest difference between a served and a recorded probability: both come from the same trees, one perhaps
through a file of text.
"""


def without_model(
    what: str, models: Sequence[tuple[Run, str]], product: Product, context: Context, violations: Violations
) -> None:
    """Say that there is no production model, that it has no files here, or that nobody knows because its place was
    not looked at.
    """
    seen, runs = {run.run_id for run, _ in models}, production_runs(product, context)
    if runs and all(map(context.snapshot.hosted_elsewhere, runs)):
        violations.not_applicable(
            f"the production model of product {product.name} is hosted elsewhere (mlflow.model.isExternal)"
        )
    unseen = unseen_run(product, context)
    if unseen:
        violations.not_evaluated("no-model", unseen)
    for run in runs:
        unknown = context.snapshot.unknown_files(run)
        if run.run_id not in seen and unknown:
            violations.not_evaluated("no-model", unknown.reason, entity=run.ref)
    if not models and not violations.unevaluated:
        cause = Cause("MOD001", violations.subject)
        violations.add("no-model", f"there is no production model to {what}", cause=cause)


@policy(
    "MOD002",
    "Models are safe to load",
    Severity.HIGH,
    advice='log the model again as skops, `mlflow.sklearn.log_model(model, name="model", '
    'serialization_format="skops")`; what you know to be harmless goes into [models] of '
    'compliance.toml: `allowed_globals = ["module.name"]`, a model as it is by its hash, '
    '`allowed_models = ["sha256:..."]`, else `loaders` or `allow_code`',
)
def test_models_are_safe_to_load(
    artifact_root: ArtifactRoot, artifacts: Artifacts, evidence: Evidence, settings: Settings, violations: Violations
) -> None:
    """Loading a pickle runs what it says. What is not known to be harmless is not loaded, by this program or by
    anybody.
    """
    scans = {path: scan for path, scan in sorted(evidence.scans.items()) if artifacts.root_of(path) == artifact_root}
    lines = _allowing({artifacts.relative(path): scan for path, scan in evidence.scans.items()}, settings)
    holding: dict[str, dict[str, str]] = {}
    for path, scan in scans.items():
        place = artifacts.relative(path)
        if scan.allowed:
            where = settings.origin("models.allowed_models")
            violations.note(f"{place} is allowed as it is, by its hash ({where}): {first_of(scan.allowed, 1)}")
        for problem in scan.problems:
            if path not in artifacts.models and not scan.hashes:
                violations.not_evaluated("not-known-to-be-safe", f"{place}: {problem}")  # it could not be opened
            elif problem in scan.names:
                holding.setdefault(scan.names[problem], {}).setdefault(path, problem)
            else:
                entity = EntityRef("model_folder", path, place)
                violations.add(
                    "not-known-to-be-safe", problem, entity=entity, expected=_expected([scan], settings), toml=lines
                )
    for name, problems in sorted(holding.items()):
        models = [scans[path] for path in problems]
        places = [artifacts.relative(path) for path in problems]
        allowable = any(name in scan.allowable for scan in models)
        violations.add(
            "not-known-to-be-safe",
            next(iter(problems.values())),
            observed=f"in {_counted(places, FEW if allowable else len(places))}",
            expected=_expected(models, settings),
            toml=lines,
            name=name,
        )


def _counted(places: Sequence[str], most: int) -> str:
    """Models, counted where there are several."""
    return places[0] if len(places) == 1 else f"{len(places)} models: {first_of(places, most)}"


def _expected(models: Sequence[Scan], settings: Settings) -> str:
    """What is known to be safe, and the line by which one model would be allowed as it is."""
    own = settings.origin("models.allowed_globals")
    more = "" if own == "built in" else f", and models.allowed_globals: {own}"
    known = f"only what is known to be safe (a built-in table{more})"
    hashes = {scan.digest for scan in models}
    alone = hashes.pop() if len(hashes) == 1 else ""
    return f"{known}; as it is: allowed_models = [{quoted(alone)}]" if alone else known


def _allowing(scans: Mapping[str, Scan], settings: Settings) -> str:
    """Lines for the settings: the names that may be allowed, with those that are, and the hash of each model."""
    found = {place: scan for place, scan in scans.items() if scan.problems}
    names = sorted({*settings.models.allowed_globals, *(name for scan in found.values() for name in scan.allowable)})
    table = ".".join(map(str, (*settings.prefix, "models")))
    there = "models" in settings.model_fields_set
    lines = [f"# into the table [{table}] that is there:" if there else f"[{table}]"]
    if names:
        listed = (f"    {quoted(name)}," for name in names)
        lines += ["allowed_globals = [  # leave what you know to be harmless", *listed, "]"]
    hashed = [f"#     {quoted(scan.digest)},  # {quoted(place)}" for place, scan in found.items() if scan.digest]
    if hashed:
        lines += ["# allowed_models = [  # whole models of which you know where they come from", *hashed, "# ]"]
    return "\n".join(lines) if len(lines) > 1 else ""


@policy(
    "MOD003",
    "The production model loads and scores",
    Severity.CRITICAL,
    advice="see what stops it, `mlflow models predict -m runs:/RUN_ID/model -i input.csv -t csv "
    "--env-manager uv`, and log a model that loads",
)
def test_production_model_loads_and_scores(
    product: Product, evidence: Evidence, settings: Settings, context: Context, violations: Violations
) -> None:
    """Files that are complete may still not load. Tried in a process of its own, with limits and without anybody's
    credentials.
    """
    models = production_models(product, context)
    time, memory = (f"({settings.origin(f'models.{name}')})" for name in ("time_limit", "memory_limit"))
    limits = f"within {settings.models.time_limit:g} seconds {time} and {settings.models.memory_limit} MiB {memory}"
    without_model("try", models, product, context, violations)
    for run, folder in models:
        probe = evidence.probes[folder]
        for sentence in probe.unconfined:
            violations.note(f"{run.ref}: the process that tried its model {sentence}")
        if probe.problem:
            violations.add(
                "does-not-load",
                "its model does not load and score",
                entity=run.ref,
                observed=probe.problem,
                expected=limits,
            )


@policy(
    "MOD004",
    "The production model is described",
    Severity.HIGH,
    advice='log it again with all three: `mlflow.sklearn.log_model(model, name="model", '
    "signature=mlflow.models.infer_signature(frame, model.predict(frame)), "
    'input_example=frame[:5], pip_requirements=["scikit-learn==1.7.2"])`',
)
def test_production_model_is_described(
    product: Product, evidence: Evidence, context: Context, violations: Violations
) -> None:
    """Without signature, example and pinned environment nobody can say later what went in, what came out, and with
    which versions.
    """
    models = production_models(product, context)
    without_model("look at", models, product, context, violations)
    for run, folder in models:
        card = evidence.cards[folder]
        if not card.signed:
            violations.add(
                "no-signature",
                "its model has no signature",
                entity=run.ref,
                observed=card.problem,
                expected="names and types of inputs and outputs",
            )
        if not card.example:
            violations.add(
                "no-example",
                "its model has no input example",
                entity=run.ref,
                advice='log it again with one: `mlflow.sklearn.log_model(model, name="model", signature=signature, '
                "input_example=frame[:5])`",
            )
        if not card.requirements:
            violations.add(
                "no-environment",
                "its model names no environment",
                entity=run.ref,
                expected="requirements.txt beside MLmodel",
            )
        elif card.unpinned:
            violations.add(
                "not-pinned",
                "its model's environment is not pinned",
                entity=run.ref,
                observed=", ".join(card.unpinned),
                expected="one version each, with ==",
                advice='log it again with versions: `mlflow.sklearn.log_model(model, name="model", '
                'signature=signature, input_example=frame[:5], pip_requirements=["scikit-learn==1.7.2"])`',
            )


@policy(
    "MOD005",
    "Served probabilities are the recorded ones",
    Severity.HIGH,
    advice="score the features again with the model that is to serve, "
    '`mlflow.pyfunc.load_model("runs:/RUN_ID/model").predict(features)`, and name those: '
    '`predictions = "results/predictions.parquet"` under [products.production]; or name the '
    "model that made these",
)
def test_served_probabilities_are_the_recorded_ones(
    product: Product, evidence: Evidence, context: Context, violations: Violations
) -> None:
    """Metrics of another model's predictions say nothing about the one that is served."""
    if product.production.features is None:
        violations.not_applicable(
            f"the settings name no features of product {product.name} to score again (products.production.features)"
        )
    models = production_models(product, context)
    without_model("score with", models, product, context, violations)
    for run, folder in models:
        probe = evidence.probes[folder]
        if probe.sample_unread and not probe.problem:
            violations.not_evaluated("does-not-score", probe.sample_unread, entity=run.ref)
        elif probe.problem or probe.sample_problem:
            violations.add(
                "does-not-score",
                "its model could not score the features at hand",
                entity=run.ref,
                observed=probe.problem or probe.sample_problem,
            )
        elif not probe.sampled or probe.worst > CLOSE:
            observed = (
                f"{probe.sampled} rows of {os.path.basename(product.production.features)}, largest "
                f"difference {probe.worst:g}"
            )
            violations.add(
                "other-probabilities",
                "serves other probabilities than were recorded",
                entity=run.ref,
                observed=observed,
                expected=f"at most {CLOSE:g} apart (built in)",
            )
