"""Rules about experiments: one production experiment a product, no test ones, everything else classified."""

from __future__ import annotations

from mlflow_compliance.api import (
    Experiment,
    Product,
    Settings,
    Severity,
    Snapshot,
    Violations,
    claimed_by,
    claims_in,
    is_archived,
    policy,
    primary_of,
)


@policy("EXP001", "Exactly one production experiment per product", Severity.CRITICAL)
def test_product_has_exactly_one_production_experiment(product: Product, store: Snapshot, settings: Settings, violations: Violations) -> None:
    """With two of them nobody can say which run's threshold and metrics are the ones in force."""
    claimed = claimed_by(product, store, settings)
    primary = primary_of(product, store.experiments, claimed)
    if product.primary is not None and primary is None:
        violations.add(
            "primary-missing", "the primary experiment that the settings name is not there", observed=product.primary, expected="an active experiment"
        )
    main = store.experiments.get(primary or "")
    if main is not None and (settings.is_test(main) or is_archived(settings, main)):
        violations.add("primary-not-in-force", "its primary experiment is a test or archived one", entity=main.ref, expected="an experiment in force")
    if not claimed:
        violations.add("no-production", "no experiment is marked as production", observed="0 production experiments", expected="exactly 1")
    elif primary is None:
        names = ", ".join(repr(store.experiments[key].name) for key in claimed)
        violations.add("several-productions", "more than one production experiment", observed=names, expected="exactly 1")
    for key in claimed:
        if primary is not None and key != primary:
            name = store.experiments[primary].name
            violations.add(
                "rival", f"a second production experiment of product {product.name}", entity=store.experiments[key].ref, expected=f"only {name!r}"
            )


@policy("EXP002", "No test experiments", Severity.HIGH)
def test_no_test_experiment_is_active(experiment: Experiment, settings: Settings, violations: Violations) -> None:
    """Scratch work beside production is picked up by name searches and misleads readers."""
    if settings.is_test(experiment):
        violations.add("looks-like-a-test", "looks like a test", observed=experiment.name, expected="retired")


@policy("EXP003", "Every other experiment is classified, development work is archived", Severity.MEDIUM)
def test_experiment_is_classified(experiment: Experiment, store: Snapshot, settings: Settings, violations: Violations) -> None:
    """An experiment that does not say what it is gets used as if it were in force, or deleted as if it were scratch."""
    rules = settings.experiments
    runs = experiment.count()
    unused = experiment.experiment_id == "0" and not runs
    produces = any(claim.experiment_id == experiment.experiment_id for claim in claims_in(store, settings))
    if unused or produces or settings.is_test(experiment):
        return
    value = experiment.tags.get(rules.lifecycle_tag)
    if settings.is_development(experiment) and value != "archived":
        violations.add(
            "development-not-archived",
            "development work that is not archived",
            observed=f"{rules.lifecycle_tag}={value}",
            expected=f"{rules.lifecycle_tag}=archived",
        )
    elif value not in rules.lifecycle_values:
        place = "real work in MLflow's Default experiment" if experiment.experiment_id == "0" else "not classified"
        expected = f"tag {rules.lifecycle_tag} with one of {', '.join(rules.lifecycle_values)}"
        violations.add("unclassified", place, observed=f"{runs} runs, {rules.lifecycle_tag}={value}", expected=expected)
    elif value == "production":
        # EXP001 counts those that a product claims: one more that says so would be seen by no rule.
        expected = f"a product in compliance.toml whose experiments and production_names cover it, or another {rules.lifecycle_tag}"
        violations.add(
            "production-of-no-product",
            "says that it is production, and is that of no product",
            observed=f"{rules.lifecycle_tag}={value}",
            expected=expected,
        )
    elif is_archived(settings, experiment) and "ARCHIVED" not in experiment.tags.get("mlflow.note.content", ""):
        violations.add("archive-not-described", "archived, but the MLflow UI does not say so", expected="ARCHIVED in its description")
