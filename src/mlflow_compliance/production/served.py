"""Which version and run the alias of a product leads to: what programs load and, where the settings say so, what is in
production.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mlflow_compliance.production.context import Context
from mlflow_compliance.settings.schema import Product, Settings
from mlflow_compliance.snapshot.entities import ModelVersion, RegisteredModel, Run
from mlflow_compliance.snapshot.snapshot import Snapshot


def served_runs(settings: Settings, registry: Mapping[str, RegisteredModel]) -> set[str]:
    """Ids of the runs behind the versions that programs load: those that the products' aliases name."""
    versions = (served_version(product, registry) for product in settings.products)
    return {version.run_id for version in versions if version is not None and version.run_id}


def served_version(product: Product, registry: Mapping[str, RegisteredModel]) -> ModelVersion | None:
    """The version that a product's alias names."""
    registered = registry.get(product.production.registered_model or "")
    return registered.version(registered.aliases.get(product.production.alias)) if registered else None


class Served(NamedTuple):
    """The active run behind a product's alias; without one, `problem` says why, in a few words."""

    run: Run | None
    problem: str = ""
    unknown: bool = False
    """Whether the run may be where nobody looked."""


def served(product: Product, snapshot: Snapshot) -> Served:
    """What a product's alias leads to."""
    registered = snapshot.registered_models.get(product.production.registered_model or "")
    if registered is None:
        return Served(None, f"there is no registered model {product.production.registered_model}")
    number = registered.aliases.get(product.production.alias)
    if number is None:
        return Served(None, f"registered model {registered.name} has no alias {product.production.alias}")
    version, says = registered.version(number), f"{product.loaded_as} names version {number}"
    if version is None:
        return Served(None, f"{says}, which is not there")
    if not version.run_id:
        return Served(None, f"{says}, which was registered without a run")
    run, says = snapshot.runs.get(version.run_id), f"{says} of run {version.run_id}"
    home = snapshot.experiments.get(run.experiment_id) if run is not None else None
    if run is None or home is None:
        elsewhere = snapshot.may_lie_elsewhere
        why = "may lie in another workspace, which this server does not show" if elsewhere else "is not there"
        return Served(None, f"{says}, which {why}", unknown=elsewhere)
    if not home.active:
        return Served(None, f"{says}, which lies in the deleted experiment {home.name!r}")
    return Served(run) if run.active else Served(None, f"{says}, which is deleted")


def unseen_run(product: Product, context: Context) -> str:
    """Why nobody knows the production run of a product by alias; empty where it is known, or known not to be there."""
    found = served(product, context.snapshot) if product.by_alias else Served(None)
    return found.problem if found.unknown else ""


def named_by_alias(context: Context) -> Mapping[str, str]:
    """Each run that is in production because an alias says so -> the product."""
    return context.once(_named_by_alias)


def _named_by_alias(context: Context) -> dict[str, str]:
    found = ((served(item, context.snapshot).run, item.name) for item in context.settings.products if item.by_alias)
    return {run.run_id: name for run, name in found if run is not None}
