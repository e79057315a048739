"""Rules about models: there, with every file."""

from __future__ import annotations

from mlflow_compliance.api import (
    Artifacts,
    Context,
    Product,
    Settings,
    Severity,
    Snapshot,
    Violations,
    policy,
    production_runs,
)


@policy("MOD001", "The production run has a model artifact", Severity.CRITICAL)
def test_production_run_has_a_model_artifact(
    product: Product,
    store: Snapshot,
    artifacts: Artifacts,
    settings: Settings,
    context: Context,
    violations: Violations,
) -> None:
    """A production run without its model cannot be served again, checked again or explained; READY in a row proves
    nothing.
    """
    runs = production_runs(product, context)
    if not runs:
        marks = ", ".join(f"{key}={value}" for key, value in sorted(product.production_tags.items()))
        expected = f"a run with the tag {marks} ({settings.origin('production_tags', product)})"
        violations.add(
            "no-production-run", "no run is marked as production", observed="0 production runs", expected=expected
        )
    for run in runs:
        folders, unknown = store.model_folders(run), store.unknown_files(run)
        if not folders and unknown:
            violations.not_evaluated("no-model", unknown.reason, entity=run.ref)
        elif store.hosted_elsewhere(run):
            violations.note(f"{run.ref}: its model is hosted elsewhere, so there are no files to look at")
        elif not folders:
            rows = [run.ref.place, *(model.ref.place for model in store.models_of(run.run_id))]
            aside = next((item for row in rows if (item := artifacts.aside(row))), None)
            violations.add(
                "no-model",
                "has no model artifact",
                entity=run.ref,
                observed="no MLmodel among its "
                f"artifacts{f'; what it misses lies in {aside.path}, see ART006' if aside else ''}",
                expected="MLmodel and every file that it names",
            )
        for folder in folders:
            if artifacts.models[folder].problem:
                observed = artifacts.models[folder].problem
                violations.add(
                    "incomplete",
                    "its model is not complete",
                    entity=run.ref,
                    observed=observed,
                    expected="every file that MLmodel names, none empty",
                )
