"""Rules about models."""

from __future__ import annotations

from mlflow_compliance.api import Artifacts, Product, Settings, Severity, Snapshot, Violations, policy, production_runs


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
        places = [artifacts.locations.get(("run", run.run_id))]
        places += [artifacts.locations.get(("logged_model", model.model_id)) for model in store.models_of(run.run_id)]
        models = [model for place in places if place for model in artifacts.models_in(place)]
        if not models:
            violations.add(
                "has no model artifact", entity=run.ref, observed="no MLmodel among its artifacts", expected="MLmodel and every file that it names"
            )
        for model in models:
            if model.error or model.missing or model.empty:
                violations.add(
                    "its model is not complete", entity=run.ref, observed=model.problem, expected="every file that MLmodel names, none empty"
                )
