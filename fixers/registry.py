"""Remedies for the model registry: the production run's model as a version with the alias, what versions come from
is kept, aliases name versions.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from mlflow_compliance.api import (
    DELETED,
    Change,
    Context,
    Finding,
    Product,
    RegisterVersion,
    SetAlias,
    Settings,
    Unfixable,
    current_run,
    fixer,
    is_model,
    named_in,
    version_of,
)

from .restoring import restore, way_back

_DELETE = 'if nothing relies on the version, `MlflowClient().delete_model_version("MODEL_NAME", "VERSION")`'


@fixer("REG001")
def point_alias(finding: Finding, context: Context) -> Iterator[Change]:
    """Register the production run's model where it is no version yet, and let the alias name it. Earlier versions
    stay.
    """
    product = _product_of(finding, context.settings)
    if product.by_alias:
        name, alias = product.production.registered_model or "", product.production.alias
        raise Unfixable(
            f"{product.loaded_as} says what is in production, so nobody but you can tell where it leads",
            advice="let it lead there: "
            f"`MlflowClient().set_registered_model_alias({name!r}, {alias!r}, VERSION_IN_FORCE)`",
        )
    current = current_run(product, context)
    if current is None:
        raise Unfixable(
            "there is no one production run whose model the alias could name",
            advice="mend RUN002 first: `pytest --compliance-explain=RUN002` says how",
        )
    models = context.snapshot.models_of(current.run_id)
    if len(models) != 1:
        name, alias = product.production.registered_model or "MODEL_NAME", product.production.alias
        raise Unfixable(
            f"its {current.ref} has {len(models)} logged models: which one is meant is not for this program to guess",
            advice=f"register the one that is meant: `MlflowClient().set_registered_model_alias({json.dumps(name)}, "
            f'{json.dumps(alias)}, mlflow.register_model("models:/MODEL_ID", {json.dumps(name)}).version)`',
        )
    unknown = context.snapshot.unknown_files(current)
    if unknown:
        raise Unfixable(
            f"the files of its {current.ref} could not be looked at ({unknown.reason}): an alias is not moved to "
            "what nobody has seen",
            advice="mend ART003 first: `pytest --compliance-explain=ART003` says how",
        )
    name, alias = product.production.registered_model or "", product.production.alias
    registered = context.snapshot.registered_models.get(name)
    versions = registered.versions if registered else ()
    version = next((item.version for item in versions if item.source == f"models:/{models[0].model_id}"), None)
    if version is None:
        yield RegisterVersion(
            name, models[0].model_id, current.run_id, current.experiment_id, makes_model=registered is None
        )
        version = version_of(models[0].model_id)
    before = registered.aliases.get(alias) if registered else None
    if before != version:
        yield SetAlias(name, alias, version, before)


@fixer("REG004")
def keep_what_versions_come_from(finding: Finding, context: Context) -> Iterator[Change]:
    """Restore the runs that versions come from; a deleted logged model MLflow cannot restore."""
    snapshot = context.snapshot
    name, _, number = finding.entity.key.rpartition("/")
    version = snapshot.registered_models[name].version(number)
    if version is None:
        return
    if finding.code == "model-deleted":
        raise Unfixable(
            "MLflow cannot restore a logged model",
            advice=f"before the next `mlflow gc`, keep its files and log the model again: `mlflow artifacts download "
            f"--artifact-uri {shlex.quote(f'models:/{name}/{number}')} --dst-path kept`; {_DELETE}",
        )
    if finding.code == "run-gone":
        raise Unfixable(
            "its run is gone for good",
            advice=f"{_DELETE}; else log its model again, in a run that is kept, and register that: "
            '`mlflow.register_model("runs:/RUN_ID/model", "MODEL_NAME")`',
        )
    named = {key: state for key in named_in(version) if (state := snapshot.state_of(key))}
    if finding.code == "experiment-deleted":
        homes = (snapshot.experiments.get(state.experiment_id) for state in named.values())
        away = {home.experiment_id: way_back(home.experiment_id) for home in homes if home and not home.active}
        raise Unfixable(
            "restoring an experiment brings all its runs back",
            advice=f"{'; '.join(away.values())}; then run --fix again",
        )
    for key, state in named.items():
        if state.lifecycle == DELETED and not is_model(key):
            yield from restore(key, context)


@fixer("REG005")
def take_alias_away(finding: Finding, context: Context) -> Iterator[Change]:
    """Delete the alias; the others stay."""
    registered = context.snapshot.registered_models[finding.entity.key]
    number = registered.aliases.get(finding.name)
    for product in context.settings.products:
        wanted = product.production
        if product.by_alias and (wanted.registered_model, wanted.alias) == (registered.name, finding.name):
            raise Unfixable(
                f"it says what is in production of {product.name}",
                advice="let it name a version that is there: "
                f"`MlflowClient().set_registered_model_alias({registered.name!r}, {finding.name!r}, VERSION_IN_FORCE)`",
            )
    if number is not None and registered.version(number) is None:
        yield SetAlias(registered.name, finding.name, None, number)


def _product_of(finding: Finding, settings: Settings) -> Product:
    """The product that a finding is about: by its own name, or by that of its registered model."""
    for product in settings.products:
        name = product.production.registered_model
        if finding.entity.key in (product.name, name) or (name and finding.entity.key.startswith(f"{name}/")):
            return product
    raise Unfixable(
        "no product in the settings has this registered model",
        advice='name it under [products.production] in compliance.toml: `registered_model = "MODEL_NAME"`',
    )
