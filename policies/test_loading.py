"""Rules about loading models: safe, possible, described, and with the predictions that are on record."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mlflow_compliance.api import (
    ArtifactRoot,
    Artifacts,
    Cause,
    Context,
    EntityRef,
    Evidence,
    Product,
    Run,
    Settings,
    Severity,
    Violations,
    policy,
    production_models,
    production_runs,
)

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
    advice="log the model again as skops or in its native format; what you know to be harmless goes into [models] "
    "allowed_globals, loaders or "
    "allow_code",
)
def test_models_are_safe_to_load(
    artifact_root: ArtifactRoot, artifacts: Artifacts, evidence: Evidence, settings: Settings, violations: Violations
) -> None:
    """Loading a pickle runs what it says. What is not known to be harmless is not loaded, by this program or by
    anybody.
    """
    own = settings.origin("models.allowed_globals")
    more = "" if own == "built in" else f", and models.allowed_globals: {own}"
    expected = f"only what is known to be safe (a built-in table{more})"
    for path, scan in sorted(evidence.scans.items()):
        if artifacts.root_of(path) == artifact_root:
            for problem in scan.problems:
                entity = EntityRef("model_folder", path, artifacts.relative(path))
                violations.add("not-known-to-be-safe", problem, entity=entity, expected=expected)


@policy("MOD003", "The production model loads and scores", Severity.CRITICAL)
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


@policy("MOD004", "The production model is described", Severity.HIGH)
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
            violations.add("no-example", "its model has no input example", entity=run.ref)
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
            )


@policy(
    "MOD005",
    "Served probabilities are the recorded ones",
    Severity.HIGH,
    advice="score the features again with the model that is to serve, and name those predictions; or name the "
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
