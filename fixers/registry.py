"""Remedies for the model registry: the production run's model as a version with the alias."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_compliance.api import (
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
    version_of,
)


@fixer("REG001")
def point_alias(finding: Finding, context: Context) -> Iterator[Change]:
    """Register the production run's model where it is no version yet, and let the alias name it. Earlier versions
    stay.
    """
    product = _product_of(finding, context.settings)
    current = current_run(product, context)
    if current is None:
        raise Unfixable("there is no one production run whose model the alias could name: see RUN002")
    models = context.snapshot.models_of(current.run_id)
    if len(models) != 1:
        raise Unfixable(
            f"its {current.ref} has {len(models)} logged models: which one is meant is not for this program to guess"
        )
    unknown = context.snapshot.unknown_files(current)
    if unknown:
        raise Unfixable(
            f"the files of its {current.ref} could not be looked at ({unknown.reason}): an alias is not moved to "
            "what nobody has seen"
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


def _product_of(finding: Finding, settings: Settings) -> Product:
    """The product that a finding is about: by its own name, or by that of its registered model."""
    for product in settings.products:
        name = product.production.registered_model
        if finding.entity.key in (product.name, name) or (name and finding.entity.key.startswith(f"{name}/")):
            return product
    raise Unfixable("no product in the settings has this registered model")
