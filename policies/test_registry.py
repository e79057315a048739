"""Rules about the model registry: the alias leads to production and no other one says so, sources exist, stages are
gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlflow_compliance.api import (
    ACTIVE,
    Artifacts,
    ComplianceError,
    Context,
    EntityRef,
    ModelVersion,
    Product,
    RegisteredModel,
    Settings,
    Severity,
    Snapshot,
    SnapshotLookup,
    Violations,
    current_run,
    first_of,
    folded,
    is_model,
    named_in,
    policy,
    resolve,
    served,
    sources_of,
    unseen_aliases,
    unseen_run,
    without_any,
)

FEW = 3
"""Runs or models in one line."""
ELSEWHERE = "may lie in another workspace, which this server does not show"
KEPT = "kept as long as the version is: the next mlflow gc takes what is deleted"
MOST = 20
"""Numbers of versions, or aliases, named in one line."""


@policy(
    "REG001",
    "The production alias resolves to the production run",
    Severity.CRITICAL,
    advice="register the model of the run in production and point the alias to it: "
    '`MlflowClient().set_registered_model_alias("MODEL_NAME", "production", '
    'mlflow.register_model("runs:/RUN_ID/model", "MODEL_NAME").version)`',
)
def test_alias_resolves_to_the_production_run(
    product: Product, store: Snapshot, settings: Settings, context: Context, violations: Violations
) -> None:
    """Programs load by alias; people look at the run. They must mean the same model."""
    wanted = product.production
    if wanted.registered_model is None:
        violations.not_applicable(
            f"the settings name no registered model of product {product.name} (products.production.registered_model)"
        )
    registered = store.registered_models.get(wanted.registered_model)
    if registered is None:
        violations.add(
            "no-registered-model",
            "the registered model that the settings name is not there",
            expected=f"{wanted.registered_model} ({settings.origin('production.registered_model', product)})",
        )
        return
    version = registered.version(registered.aliases.get(wanted.alias))
    origin = settings.origin("production.alias", product)
    if version is None:
        expected = f"a version of the production run under this alias ({origin})"
        violations.add(
            "alias-does-not-resolve", f"alias {wanted.alias} does not resolve", entity=registered.ref, expected=expected
        )
        return
    current, unseen = current_run(product, context), unseen_run(product, context)
    if unseen:
        violations.not_evaluated("alias-names-no-run", unseen, entity=version.ref)
        return
    if current is None and product.by_alias:
        violations.add(
            "alias-names-no-run",
            f"alias {wanted.alias} leads to no run",
            entity=version.ref,
            observed=served(product, store).problem,
            expected=f"a version whose run is there (alias: {origin})",
        )
        return
    if current is None or version.run_id != current.run_id:
        expected = f"run {current.run_id}" if current else "the one production run, which is in doubt"
        violations.add(
            "alias-names-another-run",
            f"alias {wanted.alias} names another run's version",
            entity=version.ref,
            observed=f"run {version.run_id}",
            expected=f"{expected} (alias: {origin})",
        )
        return
    try:
        found = resolve(
            SnapshotLookup(store, product, settings), registered_model=wanted.registered_model, alias=wanted.alias
        )
    except ComplianceError:
        return  # SRV001 says what stands against it
    registered_from = store.logged_models.get(version.source.removeprefix("models:/").strip("/"))
    if registered_from is not None and found.model_id is None:
        violations.add(
            "version-fetched-from-elsewhere",
            f"alias {wanted.alias} names a version whose files are fetched from elsewhere than its model's",
            entity=version.ref,
            observed=found.location,
            expected=registered_from.artifact_location,
        )


@policy(
    "REG002",
    "Every version's source exists",
    Severity.HIGH,
    advice="put the files back where its source says; if nothing relies on it, "
    '`MlflowClient().delete_model_version("MODEL_NAME", "VERSION")`',
)
def test_every_version_has_its_source(
    registered_model: RegisteredModel, artifacts: Artifacts, violations: Violations
) -> None:
    """A version whose files are gone says READY until somebody needs it."""
    gone: list[tuple[ModelVersion, str]] = []
    incomplete: list[tuple[ModelVersion, str]] = []
    for version in registered_model.versions:
        folder = artifacts.locations.get(version.ref.place)
        unknown = artifacts.unknown.get(version.ref.place)
        models = artifacts.models_in(folder) if folder else []
        if unknown:
            violations.not_evaluated("no-model", unknown.reason, entity=version.ref)
        elif not models and not version.external:
            aside = artifacts.aside(version.ref.place)
            missed = f"; what it misses lies in {aside.path}, see ART006" if aside else ""
            gone.append((version, f"{version.source}{missed}"))
        incomplete += [(version, model.problem) for model in models if model.problem]
    for entity, message, observed in _lines(gone, "source holds no model", registered_model):
        violations.add("no-model", message, entity=entity, observed=observed, expected="a folder with an MLmodel")
    for entity, message, observed in _lines(incomplete, "source is not complete", registered_model):
        violations.add("incomplete", message, entity=entity, observed=observed)


def _lines(
    found: Sequence[tuple[ModelVersion, str]], what: str, registered: RegisteredModel
) -> Iterator[tuple[EntityRef, str, str]]:
    """One version by itself; several of one registered model in one line, which names them and what leads there."""
    numbers = list(dict.fromkeys(version.version for version, _ in found))
    if len(numbers) <= 1:
        yield from ((version.ref, f"its {what}", observed) for version, observed in found)
        return
    aliases = [f"{alias} ({number})" for alias, number in sorted(registered.aliases.items()) if number in numbers]
    led = f", aliases {first_of(aliases, MOST)}" if aliases else ""
    yield (
        registered.ref,
        f"of {len(numbers)} of its {len(registered.versions)} versions the {what}",
        f"versions {first_of(numbers, MOST)}{led}; version {numbers[0]}: {found[0][1]}",
    )


@policy(
    "REG003",
    "No deprecated stages",
    Severity.LOW,
    advice='give it an alias, `MlflowClient().set_registered_model_alias("MODEL_NAME", "ALIAS", '
    '"VERSION")`, move who asks for the stage over to it, then '
    '`MlflowClient().transition_model_version_stage("MODEL_NAME", "VERSION", "None")`',
)
def test_no_version_has_a_stage(registered_model: RegisteredModel, violations: Violations) -> None:
    """MLflow gives stages up; what relies on 'Production' will find nothing, aliases stay."""
    for version in registered_model.versions:
        if version.stage not in ("", "None"):
            violations.add("stage", "has a stage", entity=version.ref, observed=version.stage, expected="an alias")


@policy(
    "REG004",
    "What every version comes from is kept",
    Severity.HIGH,
    advice="before the next `mlflow gc`: `mlflow runs restore --run-id RUN_ID`, or for its experiment "
    "`mlflow experiments restore --experiment-id EXPERIMENT_ID`",
)
def test_what_every_version_comes_from_is_kept(
    registered_model: RegisteredModel, store: Snapshot, violations: Violations
) -> None:
    """A version whose run or logged model is deleted loads until the next `mlflow gc`, and never again."""
    for version in registered_model.versions:
        # A path may hold the id of a run or model of another store: of that a deleted row alone says something.
        states = {key: state for key in named_in(version) if (state := store.state_of(key))}
        lost = [
            key for key in sources_of(version) if key not in states and not (version.run_link and key == version.run_id)
        ]
        deleted = [key for key, state in states.items() if state.lifecycle != ACTIVE]
        # MLflow shows nobody a deleted logged model: to most readers it is as one that is gone.
        models = [f"logged model {key}" for key in (*lost, *deleted) if is_model(key)]
        homes = (store.experiments.get(state.experiment_id) for state in states.values())
        away = {home.experiment_id: str(home.ref) for home in homes if home and not home.active}
        # A run that went with its experiment comes back with it.
        runs = [f"run {key}" for key in deleted if not is_model(key) and states[key].experiment_id not in away]
        gone = [f"run {key}" for key in lost if not is_model(key)]
        if runs:
            violations.add(
                "run-deleted",
                "its run is deleted",
                observed=first_of(runs, FEW),
                entity=version.ref,
                expected=KEPT,
                advice=f"before the next `mlflow gc`: `mlflow runs restore --run-id {runs[0].removeprefix('run ')}`",
            )
        if models:
            violations.add(
                "model-deleted",
                "its logged model is deleted",
                observed=first_of(models, FEW),
                entity=version.ref,
                expected=KEPT,
            )
        if away:
            found = first_of([*away.values()], FEW)
            violations.add(
                "experiment-deleted",
                "it lies in a deleted experiment",
                observed=found,
                entity=version.ref,
                expected=KEPT,
                advice=f"before the next `mlflow gc`: `mlflow experiments restore --experiment-id {next(iter(away))}`, "
                "which brings all its runs back",
            )
        if gone and store.may_lie_elsewhere:
            violations.not_evaluated("run-gone", f"{first_of(gone, FEW)} {ELSEWHERE}", entity=version.ref)
        elif gone:
            violations.add(
                "run-gone",
                "its run is not there any more",
                observed=first_of(gone, FEW),
                entity=version.ref,
                expected=KEPT,
            )


@policy(
    "REG005",
    "No alias without its version",
    Severity.MEDIUM,
    advice='`MlflowClient().delete_registered_model_alias("MODEL_NAME", "NAME")`, or give it a '
    'version that is there: `MlflowClient().set_registered_model_alias("MODEL_NAME", "NAME", '
    '"VERSION")`',
)
def test_no_alias_without_its_version(registered_model: RegisteredModel, violations: Violations) -> None:
    """Who loads by such an alias gets an error, and the next version of that number gets a name that nobody gave it."""
    for alias, number in sorted(registered_model.aliases.items()):
        if registered_model.version(number) is None:
            violations.add(
                "alias-without-version",
                f"alias {alias!r} names a version that is not there",
                observed=f"version {number}",
                expected="a version that is there, or no such alias",
                name=alias,
            )


@policy(
    "REG006",
    "No other alias says production",
    Severity.HIGH,
    advice='if it is in production, name it in a product: `registered_model = "MODEL_NAME"` and '
    '`alias = "NAME"` under [products.production]; else '
    '`MlflowClient().delete_registered_model_alias("MODEL_NAME", "NAME")`',
)
def test_no_other_alias_says_production(
    registered_model: RegisteredModel, settings: Settings, violations: Violations
) -> None:
    """Who loads by an alias that sounds like production gets a model whose evidence no rule looks at."""
    if not settings.products:
        violations.not_applicable(without_any("product", settings))
    wanted = ", ".join(
        f"{item.production.alias} of {item.production.registered_model} ({settings.origin('production.alias', item)})"
        for item in settings.products
        if item.production.registered_model
    )
    spelled = {folded(item.production.alias) for item in settings.products}
    for alias, version in unseen_aliases(registered_model, settings):
        if registered_model.version(version) is None:
            continue  # it loads nothing: REG005 tells of it
        known = folded(alias) in spelled
        violations.add(
            "alias-of-no-product",
            f"alias {alias!r} sounds like production{'' if known else ' (built in)'}, and no product loads by it",
            observed=f"version {version}",
            expected=f"only {wanted}" if wanted else "a product whose registered_model and alias it is",
            severity=None if known else Severity.LOW,
            name=alias,
        )
