"""Rules about what is in production and what its run carries: each required name, numbers that follow from the
predictions, one value a fact.
"""

from __future__ import annotations

import os
import sys
from fnmatch import fnmatch

from mlflow_compliance.api import (
    Artifacts,
    Cause,
    Context,
    EntityRef,
    Evidence,
    Product,
    Requirement,
    Run,
    Settings,
    Severity,
    Snapshot,
    Violations,
    agree,
    as_toml,
    candidates,
    contradictions,
    counted,
    differs,
    fact_values,
    number,
    policy,
    production_models,
    production_runs,
    unseen_run,
)


def _missing(requirement: Requirement, context: Context, violations: Violations) -> list[Run]:
    """The production runs that are to carry something; that there is none is a finding of its own."""
    runs = production_runs(requirement.product, context)
    unseen = unseen_run(requirement.product, context)
    if unseen:
        violations.not_evaluated("no-production-run", unseen)
    elif not runs:
        violations.add(
            "no-production-run",
            f"there is no production run of product {requirement.product.name} to carry this {requirement.kind}",
            cause=Cause("RUN002", EntityRef("product", requirement.product.name, requirement.product.name)),
        )
    return runs


MOST = 5
"""Notes about models that look like production where the settings say that none is."""
NAME_THEM = (
    "; the settings say which file it is, and which columns (products.production.predictions, target, probability)"
)
"""The way out where predictions were logged that the settings do not speak of."""
INFINITE = sys.float_info.max
"""What MLflow's tables hold for infinity."""


@policy(
    "PRD001",
    "The production run has each required param",
    Severity.HIGH,
    advice='log it with the value that was used: `MlflowClient().log_param("RUN_ID", "NAME", value)`; '
    "if it is not needed, take it out of `required_params`",
)
def test_production_run_has_param(required_param: Requirement, context: Context, violations: Violations) -> None:
    """What a model was made with cannot be asked of anybody later."""
    for run in _missing(required_param, context, violations):
        if not run.params.get(required_param.name, "").strip():
            violations.add("missing", f"has no param {required_param.name}", entity=run.ref, name=required_param.name)


@policy(
    "PRD002",
    "The production run has each required metric",
    Severity.HIGH,
    advice='log it as it was computed: `MlflowClient().log_metric("RUN_ID", "NAME", value)`; if it is '
    "not needed, take it out of `required_metrics`",
)
def test_production_run_has_metric(required_metric: Requirement, context: Context, violations: Violations) -> None:
    """A model is accepted on numbers; without them nobody can say why it was."""
    for run in _missing(required_metric, context, violations):
        value = run.latest.get(required_metric.name)
        if value is None:
            violations.add(
                "missing", f"has no metric {required_metric.name}", entity=run.ref, name=required_metric.name
            )
        elif value != value or abs(value) >= INFINITE:
            violations.add(
                "not-a-number",
                f"its metric {required_metric.name} is not a number",
                entity=run.ref,
                observed="NaN" if value != value else "infinity",
                name=required_metric.name,
            )


@policy(
    "PRD003",
    "The production run has each required tag",
    Severity.MEDIUM,
    advice='set it: `MlflowClient().set_tag("RUN_ID", "NAME", "...")`; if it is not needed, take it '
    "out of `required_tags`",
)
def test_production_run_has_tag(required_tag: Requirement, context: Context, violations: Violations) -> None:
    """Tags are what searches, people and programs find it by."""
    for run in _missing(required_tag, context, violations):
        if not run.tags.get(required_tag.name, "").strip():
            violations.add("missing", f"has no tag {required_tag.name}", entity=run.ref, name=required_tag.name)


@policy(
    "PRD004",
    "The production run has each required artifact",
    Severity.HIGH,
    advice="log it to the run: `mlflow artifacts log-artifact --run-id RUN_ID --local-file FILE "
    "--artifact-path FOLDER`; if it is not needed, take it out of `required_artifacts`",
)
def test_production_run_has_artifact(
    required_artifact: Requirement,
    store: Snapshot,
    artifacts: Artifacts,
    context: Context,
    violations: Violations,
) -> None:
    """An explanation that cannot be opened explains nothing."""
    for run in _missing(required_artifact, context, violations):
        if _has_artifact(required_artifact.name, run, store, artifacts):
            continue
        unknown = store.unknown_files(run)
        if unknown:
            violations.not_evaluated("missing", unknown.reason, entity=run.ref)
        else:
            wanted = required_artifact.name
            violations.add(
                "missing", f"has no artifact {wanted}", entity=run.ref, expected="a file that is not empty", name=wanted
            )


def _has_artifact(pattern: str, run: Run, store: Snapshot, artifacts: Artifacts) -> bool:
    """Whether a run logged a file, or a folder with files, that a pattern names; a logged model counts under its
    name, as in the UI.
    """
    places = [("", artifacts.locations.get(run.ref.place))]
    places += [(model.name, artifacts.locations.get(model.ref.place)) for model in store.models_of(run.run_id)]
    for prefix, folder in places:
        for path, file in artifacts.under(folder).items() if folder else ():
            name = os.path.join(prefix, os.path.relpath(path, folder))
            above = [name]
            while os.path.dirname(above[-1]):
                above.append(os.path.dirname(above[-1]))
            # A plan does not know the size of what is written with its ids: it is never 0.
            if file.size and any(fnmatch(item, pattern) for item in above):
                return True
    return False


@policy(
    "PRD005",
    "Metrics follow from the recorded predictions, and from one another",
    Severity.CRITICAL,
    advice='if these are its predictions, log what they give: `MlflowClient().log_metric("RUN_ID", '
    '"NAME", value)`; else name the right ones, `predictions = "results/predictions.parquet"` '
    "under [products.production] in compliance.toml",
)
def test_metrics_follow_from_predictions(
    product: Product, store: Snapshot, evidence: Evidence, settings: Settings, context: Context, violations: Violations
) -> None:
    """A number that was typed in, or that belongs to another model, looks like any other number."""
    wanted = product.production
    within = f"within {wanted.tolerance:g} ({settings.origin('production.tolerance', product)})"
    runs, unseen = production_runs(product, context), unseen_run(product, context)
    if unseen:
        violations.not_evaluated("no-production-run", unseen)
    elif not runs:
        cause = Cause("RUN002", violations.subject)
        violations.add("no-production-run", "there is no production run to look at", cause=cause)
    for run in runs:
        recorded = run.latest
        scored = evidence.scored.get(run.run_id)
        if scored is not None and scored.problem:
            reason = f"its metrics cannot be recomputed: {scored.problem}{'' if wanted.predictions else NAME_THEM}"
            violations.not_evaluated("not-recomputed", reason, entity=run.ref)
        if scored is not None and scored.fault:
            violations.add("not-recomputed", "its metrics cannot be recomputed", entity=run.ref, observed=scored.fault)
        for name, value in sorted((scored.values if scored else {}).items()):
            if scored and name in recorded and differs(name, recorded[name], value, wanted.tolerance):
                expected = (
                    f"{value:.6g} from {os.path.basename(scored.path)} ({scored.rows} rows) at threshold "
                    f"{scored.threshold:g}, {within}"
                )
                violations.add(
                    "does-not-follow",
                    f"metric {name} does not follow from its predictions",
                    entity=run.ref,
                    observed=f"{recorded[name]:g}",
                    expected=expected,
                    name=name,
                )
        costs = (wanted.false_negative_cost, wanted.false_positive_cost)
        for sentence in agree(
            recorded, false_negative_cost=costs[0], false_positive_cost=costs[1], tolerance=wanted.tolerance
        ):
            violations.add(
                "contradiction",
                "its metrics contradict one another",
                entity=run.ref,
                observed=sentence,
                expected=f"agreement, {within}",
            )
        unknown = store.unknown_files(run)
        if scored is None and unknown:
            violations.not_evaluated("not-recomputed", unknown.reason, entity=run.ref)
        elif scored is None:
            compared = "its metrics were only compared with one another"
            violations.note(f"{run.ref}: no predictions are recorded or named, so {compared}")
    if (
        runs
        and not (violations.findings or violations.unevaluated)
        and not any(run.run_id in evidence.scored for run in runs)
    ):
        violations.not_applicable(
            f"the settings name no predictions of product {product.name}, and its production run logged none"
        )


@policy(
    "PRD006",
    "One fact has one value",
    Severity.HIGH,
    advice='say which value counts, under [products.production] in compliance.toml: `decisions = { NAME = "0.48" }`',
)
def test_one_fact_has_one_value(
    product: Product, evidence: Evidence, settings: Settings, context: Context, violations: Violations
) -> None:
    """With two thresholds on record, the next person will use the wrong one."""
    for fact, found in sorted(fact_values(product, context, evidence).items()):
        values: dict[str, list[str]] = {}
        for item in found:
            values.setdefault(number(item.value), []).append(item.place)
        if len(values) > 1:
            told = "; ".join(
                f"{value} in {', '.join(places[:3])}{' ...' if len(places) > 3 else ''}"
                for value, places in sorted(values.items())
            )
            decided = product.production.decided.get(fact)
            names = (
                f"under {', '.join(product.production.facts[fact])} ({settings.origin('production.facts', product)})"
            )
            expected = (
                f"one value {names}, {decided} by the settings"
                if decided
                else f"one value {names}; say which in the settings"
            )
            violations.add(
                "several-values", f"{fact} has {len(values)} values", observed=told, expected=expected, name=fact
            )
    runs, unseen = production_runs(product, context), unseen_run(product, context)
    if unseen:
        violations.not_evaluated("no-production-run", unseen)
    elif not runs and product.by_alias:  # where tags say it, an experiment's other runs were looked at all the same
        cause = Cause("RUN002", violations.subject)
        violations.add("no-production-run", "there is no production run to look at", cause=cause)
    for run in runs:
        metadata = evidence.metadata.get(run.run_id)
        if metadata is not None and not metadata.document and metadata.problem:
            violations.not_evaluated(
                "metadata-unusable", f"its model_metadata.json cannot be used: {metadata.problem}", entity=run.ref
            )


@policy(
    "PRD007",
    "Hyperparameters on the run, in its metadata and in the model agree",
    Severity.HIGH,
    advice="params do not change: log the run anew with the model's own, "
    "`mlflow.log_params(model.get_params())`, and mark that one as production",
)
def test_hyperparameters_agree(
    product: Product, store: Snapshot, evidence: Evidence, context: Context, violations: Violations
) -> None:
    """Params are text that somebody logged; the model knows what it was really made with."""
    models, runs = production_models(product, context), production_runs(product, context)
    if runs and all(map(store.hosted_elsewhere, runs)):
        violations.not_applicable(
            f"the production model of product {product.name} is hosted elsewhere (mlflow.model.isExternal)"
        )
    for run in runs:
        unknown = store.unknown_files(run)
        if unknown and run not in [seen for seen, _ in models]:
            violations.not_evaluated("no-model", unknown.reason, entity=run.ref)
    unseen = unseen_run(product, context)
    if unseen:
        violations.not_evaluated("no-model", unseen)
    if not models and not violations.unevaluated:
        violations.add("no-model", "there is no production model to ask", cause=Cause("MOD001", violations.subject))
    for run, folder in models:
        probe, card = evidence.probes[folder], evidence.cards[folder]
        if probe.problem:
            violations.add("model-not-asked", "its model could not be asked", entity=run.ref, observed=probe.problem)
            continue
        metadata = evidence.metadata.get(run.run_id)
        if metadata is not None and metadata.problem:
            violations.add(
                "metadata-unusable", "its model_metadata.json cannot be used", entity=run.ref, observed=metadata.problem
            )
        document = metadata.document if metadata else {}
        described = {key: str(value) for key, value in document.get("hyperparameters", {}).items()}
        for key, value in sorted(probe.params.items()):
            for where, other in (("on the run", run.params.get(key)), ("in model_metadata.json", described.get(key))):
                if other is not None and number(other) != number(value):
                    violations.add(
                        "hyperparameter-differs",
                        f"{key} differs from the model {where}",
                        entity=run.ref,
                        observed=other,
                        expected=value,
                        name=key,
                    )
        counts = {"on the run": run.params.get("n_features"), "in model_metadata.json": document.get("n_features")}
        for where, count in counts.items():
            if count is not None and probe.features and number(str(count)) != str(len(probe.features)):
                violations.add(
                    "feature-count-differs",
                    f"n_features differs from the model {where}",
                    entity=run.ref,
                    observed=count,
                    expected=len(probe.features),
                )
        names = {"in the signature": list(card.inputs), "in model_metadata.json": document.get("features")}
        for where, listed in names.items():
            if listed and probe.features and list(listed) != list(probe.features):
                differing = next(
                    (f"{a!r} and not {b!r}" for a, b in zip(listed, probe.features, strict=False) if a != b),
                    f"{len(listed)} names",
                )
                violations.add(
                    "feature-names-differ",
                    f"feature names differ from the model {where}",
                    entity=run.ref,
                    observed=differing,
                )


@policy(
    "PRD009",
    "What is on record of the production run agrees with its rows",
    Severity.HIGH,
    advice="compare with a backup, `mlflow artifacts download --run-id RUN_ID --artifact-path "
    "model_metadata.json`, and put back what was changed; if the change was meant, log a new "
    "production run",
)
def test_records_agree_with_rows(
    product: Product, store: Snapshot, evidence: Evidence, context: Context, violations: Violations
) -> None:
    """Ids, dates and numbers that stand in two places and differ were changed in one of them."""
    runs, unseen = production_runs(product, context), unseen_run(product, context)
    if unseen:
        violations.not_evaluated("no-production-run", unseen)
    elif not runs and product.by_alias:
        cause = Cause("RUN002", violations.subject)
        violations.add("no-production-run", "there is no production run to compare with records", cause=cause)
    elif not runs:
        violations.not_applicable(f"product {product.name} has no production run: see RUN002")
    for run in runs:
        for item in contradictions(run, product, store):
            violations.add(
                item.code, item.message, entity=run.ref, observed=item.observed, expected=item.expected, name=item.name
            )
        metadata, unknown = evidence.metadata.get(run.run_id), store.unknown_files(run)
        if metadata is None and unknown:
            violations.not_evaluated("not-looked-at", unknown.reason, entity=run.ref)
        elif metadata is not None and metadata.problem and not metadata.document:
            reason = f"its model_metadata.json cannot be used: {metadata.problem}"
            violations.not_evaluated("not-looked-at", reason, entity=run.ref)


@policy(
    "PRD008",
    "The settings say which models are in production",
    Severity.CRITICAL,
    advice="copy the lines for compliance.toml, leave those models that are in production and mend "
    "what is not so; or write `products = []`",
)
def test_settings_name_the_products(settings: Settings, context: Context, violations: Violations) -> None:
    """What is in force is for people to say: without their word no rule about production has anything to judge."""
    if settings.products:
        return
    found = candidates(context)
    if settings.says_products:
        for item in found[:MOST]:
            violations.note(f"the settings say that no model is in production (products = []), and {item.seen[0]}")
        return
    violations.add(
        "no-product",
        "the settings name no product, so nothing of it can be judged",
        observed=counted(context),
        expected="[[products]] in the settings file, or products = []",
        toml=as_toml(found, settings),
    )
