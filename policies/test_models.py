"""Rules about models: there, with every file, brought to their end."""

from __future__ import annotations

from mlflow_compliance.api import (
    Artifacts,
    Cause,
    Context,
    HalfMade,
    Product,
    Settings,
    Severity,
    Snapshot,
    Violations,
    as_time,
    first_of,
    ids_in,
    last_sign,
    policy,
    production_runs,
    served,
    unseen_run,
)

HOUR = 3_600_000
"""Milliseconds."""
DAY = 24 * HOUR
MOST = 5
"""Versions and aliases named in one line."""


@policy(
    "MOD001",
    "The production run has a model artifact",
    Severity.CRITICAL,
    advice='log the model to the run that is marked, in `mlflow.start_run(run_id="RUN_ID")`: '
    '`mlflow.sklearn.log_model(model, name="model", signature=signature, '
    "input_example=frame[:5])`",
)
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
    unseen = unseen_run(product, context)
    if unseen:
        violations.not_evaluated("no-production-run", unseen)
    elif not runs and product.by_alias:
        violations.add(
            "no-production-run",
            f"{product.loaded_as} leads to no run",
            observed=served(product, store).problem,
            cause=Cause("RUN002", violations.subject),
        )
    elif not runs:
        marks = ", ".join(f"{key}={value}" for key, value in sorted(product.production_tags.items()))
        expected = f"a run with the tag {marks} ({settings.origin('production_tags', product)})"
        violations.add(
            "no-production-run",
            "no run is marked as production",
            observed="0 production runs",
            expected=expected,
            cause=Cause("RUN002", violations.subject),
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


@policy(
    "MOD006",
    "No logged model or version is half made for days",
    Severity.LOW,
    advice="log or register it again if it is good; then delete this one, once nothing loads it: "
    '`MlflowClient().delete_logged_model("MODEL_ID")`, or '
    '`MlflowClient().delete_model_version("MODEL_NAME", "VERSION")`',
)
def test_no_model_is_half_made_for_days(
    store: Snapshot, artifacts: Artifacts, settings: Settings, context: Context, violations: Violations
) -> None:
    """An upload or a registration that broke off leaves a row that never says READY, and MLflow loads by it all the
    same where there are files.
    """
    limit, origin = settings.models.half_made_max_days, settings.origin("models.half_made_max_days")
    for item in store.half_made:
        home = store.experiments.get(item.experiment_id)
        if home and not home.active:
            continue
        facts = "; ".join(filter(None, (_loads(item, artifacts), _relied_on(item, store))))
        if item.at > store.taken_at - limit * DAY:
            if item.status.startswith("FAILED"):
                violations.note(f"{item.ref} is {item.status} since {as_time(item.at)}: {facts}")
            continue
        alive = _still_made(item, store, settings, context)
        if alive:
            violations.note(f"{item.ref} is {item.status} and being made: {alive}")
            continue
        days = int((store.taken_at - item.at) / DAY)
        violations.add(
            "half-made",
            f"half made for {days} day{'s' * (days != 1)}" if item.at else "half made, and nothing of it is dated",
            entity=item.ref,
            observed=f"{item.status}; {facts}",
            expected=f"READY within {limit:g} days ({origin})",
            advice=_AWAY.get(item.ref.kind, ""),
        )


_AWAY = {
    "logged_model": "log it again if it is good; then, once nothing loads it by its id or a version, delete this one: "
    '`MlflowClient().delete_logged_model("MODEL_ID")`',
    "model_version": "register it again if it is good; then, once nothing loads it by an alias, delete this one: "
    '`MlflowClient().delete_model_version("MODEL_NAME", "VERSION")`',
}
"""The way out for each kind of thing that may be half made."""


def _still_made(item: HalfMade, store: Snapshot, settings: Settings, context: Context) -> str:
    """What shows that the run which makes a logged model is at work; empty where nothing does."""
    run = store.runs.get(item.run_id)
    if item.status != "PENDING" or run is None or run.status != "RUNNING" or not run.active:
        return ""
    sign = last_sign(context, run)
    alive = sign.at >= store.taken_at - settings.runs.running_max_hours * HOUR
    return f"{sign}, {as_time(sign.at)}" if alive else ""


def _loads(item: HalfMade, artifacts: Artifacts) -> str:
    """Whether MLflow, which looks at no status, has anything to load."""
    unknown, folder = artifacts.unknown.get(item.ref.place), artifacts.locations.get(item.ref.place)
    models = artifacts.models_in(folder) if folder else []
    if unknown:
        return f"whether it loads is not known: {unknown.reason}"
    if not models:
        return "there is no model to load"
    return f"its model is not complete: {models[0].problem}" if models[0].problem else "it still loads"


def _relied_on(item: HalfMade, store: Snapshot) -> str:
    """What leads to it: the versions of a logged model, the aliases of a version."""
    leading = []
    for registered in store.registered_models.values():
        for version in registered.versions:
            if item.ref == version.ref:
                leading += [
                    f"alias {alias}"
                    for alias, number in sorted(registered.aliases.items())
                    if number == version.version
                ]
            elif item.ref.kind == "logged_model" and item.ref.key in ids_in(version):
                leading.append(str(version.ref))
    return f"{first_of(leading, MOST)} lead{'s' * (len(leading) == 1)} to it" if leading else ""
