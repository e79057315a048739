"""Rules about models: there, safe to load, loadable, described, and the ones that made the recorded predictions."""

from __future__ import annotations

import os

import pytest

from mlflow_compliance.api import (
    ArtifactRoot,
    Artifacts,
    EntityRef,
    Evidence,
    Product,
    Settings,
    Severity,
    Snapshot,
    Violations,
    policy,
    production_models,
    production_runs,
)

CLOSE = 1e-6
"""The largest difference between a served and a recorded probability: both come from the same trees, one perhaps through a file of text."""


@policy("MOD001", "The production run has a model artifact", Severity.CRITICAL)
def test_production_run_has_a_model_artifact(
    product: Product, store: Snapshot, artifacts: Artifacts, settings: Settings, violations: Violations
) -> None:
    """A production run without its model cannot be served again, checked again or explained; READY in a row proves nothing."""
    runs = production_runs(product, store, settings)
    if not runs:
        marks = ", ".join(f"{key}={value}" for key, value in sorted(product.production_tags.items()))
        violations.add("no run is marked as production", observed="0 production runs", expected=f"a run with the tag {marks}")
    for run in runs:
        folders = store.model_folders(run)
        if not folders:
            violations.add(
                "has no model artifact", entity=run.ref, observed="no MLmodel among its artifacts", expected="MLmodel and every file that it names"
            )
        for folder in folders:
            if artifacts.models[folder].problem:
                observed = artifacts.models[folder].problem
                violations.add("its model is not complete", entity=run.ref, observed=observed, expected="every file that MLmodel names, none empty")


@policy("MOD002", "Models are safe to load", Severity.HIGH)
def test_models_are_safe_to_load(artifact_root: ArtifactRoot, artifacts: Artifacts, evidence: Evidence, violations: Violations) -> None:
    """Loading a pickle runs what it says. What is not known to be harmless is not loaded, by this program or by anybody."""
    for path in sorted(evidence.scans):
        if artifacts.root_of(path) == artifact_root:
            for problem in evidence.scans[path].problems:
                entity = EntityRef("model_folder", path, artifacts.relative(path))
                violations.add(problem, entity=entity, expected="only what is known to be safe")


@policy("MOD003", "The production model loads and scores", Severity.CRITICAL)
def test_production_model_loads_and_scores(product: Product, store: Snapshot, evidence: Evidence, settings: Settings, violations: Violations) -> None:
    """Files that are complete may still not load. Tried in a process of its own, with limits and without anybody's credentials."""
    models = production_models(product, store, settings)
    if not models:
        violations.add("there is no production model to try")
    for run, folder in models:
        if evidence.probes[folder].problem:
            violations.add("its model does not load and score", entity=run.ref, observed=evidence.probes[folder].problem)


@policy("MOD004", "The production model is described", Severity.HIGH)
def test_production_model_is_described(product: Product, store: Snapshot, evidence: Evidence, settings: Settings, violations: Violations) -> None:
    """Without signature, example and pinned environment nobody can say later what went in, what came out, and with which versions."""
    models = production_models(product, store, settings)
    if not models:
        violations.add("there is no production model to look at")
    for run, folder in models:
        card = evidence.cards[folder]
        if not card.signed:
            violations.add("its model has no signature", entity=run.ref, expected="names and types of inputs and outputs")
        if not card.example:
            violations.add("its model has no input example", entity=run.ref)
        if not card.requirements:
            violations.add("its model names no environment", entity=run.ref, expected="requirements.txt beside MLmodel")
        elif card.unpinned:
            violations.add(
                "its model's environment is not pinned", entity=run.ref, observed=", ".join(card.unpinned), expected="one version each, with =="
            )


@policy("MOD005", "Served probabilities are the recorded ones", Severity.HIGH)
def test_served_probabilities_are_the_recorded_ones(
    product: Product, store: Snapshot, evidence: Evidence, settings: Settings, violations: Violations
) -> None:
    """Metrics of another model's predictions say nothing about the one that is served."""
    if product.production.features is None:
        pytest.skip(f"the settings name no features of product {product.name} to score again (products.production.features)")
    models = production_models(product, store, settings)
    if not models:
        violations.add("there is no production model to score with")
    for run, folder in models:
        probe = evidence.probes[folder]
        if probe.problem or probe.sample_problem:
            violations.add("its model could not score the features at hand", entity=run.ref, observed=probe.problem or probe.sample_problem)
        elif not probe.sampled or probe.worst > CLOSE:
            observed = f"{probe.sampled} rows of {os.path.basename(product.production.features)}, largest difference {probe.worst:g}"
            violations.add("serves other probabilities than were recorded", entity=run.ref, observed=observed, expected=f"at most {CLOSE:g} apart")
