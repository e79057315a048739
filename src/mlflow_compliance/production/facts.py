"""What a store says about one fact of a product: every value of it, and the place that says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from mlflow_compliance.production.claims import claimed_by, production_runs
from mlflow_compliance.production.context import Context
from mlflow_compliance.settings.schema import Product
from mlflow_compliance.snapshot.entities import Run
from mlflow_compliance.snapshot.evidence import Evidence
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import SUPERSEDED_BY


class FactValue(NamedTuple):
    """One value of a fact; `place` says where it stands, `owner` whose it is."""

    value: str
    place: str
    owner: EntityRef
    experiment_id: str = ""
    """Of the run that says so; empty where it is no run."""


def number(text: str) -> str:
    """A text that is a number in one spelling ('0.480' and '0.48' are one value); any other text as it is."""
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return text.strip()
    if not value.is_finite():
        return str(value)
    return f"{value.normalize():f}" if value else "0"


def fact_values(product: Product, context: Context, evidence: Evidence | None) -> dict[str, list[FactValue]]:
    """Fact -> every value that the production experiment and the registry hold. A run that was superseded is
    history and says nothing; so are all others beside the one that an alias names.
    """
    found: dict[str, list[FactValue]] = {}
    for fact, keys in product.production.facts.items():
        found[fact] = [value for run in _speaking(product, context) for value in in_run(keys, run)]
        found[fact] += _in_registry(keys, product, context.snapshot)
        for run in production_runs(product, context):
            metadata = evidence.metadata.get(run.run_id) if evidence else None
            if metadata is not None and metadata.document.get(fact) is not None:
                found[fact].append(
                    FactValue(
                        str(metadata.document[fact]),
                        f"model_metadata.json of run {run.run_id}",
                        run.ref,
                        run.experiment_id,
                    )
                )
    return found


def _speaking(product: Product, context: Context) -> list[Run]:
    """The runs that say something about a product."""
    if product.by_alias:
        return production_runs(product, context)
    homes = claimed_by(product, context)
    runs = (run for experiment_id in homes for run in context.snapshot.runs_of(experiment_id))
    return [run for run in runs if SUPERSEDED_BY not in run.tags]


def in_run(keys: tuple[str, ...], run: Run) -> Iterator[FactValue]:
    """The values that one run holds under some names."""
    for value, place in _named(keys, run.params, run.latest, run.tags):
        yield FactValue(value, f"{place} of run {run.run_id}", run.ref, run.experiment_id)


def _named(
    keys: tuple[str, ...], params: Mapping[str, str], metrics: Mapping[str, float], tags: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """What stands under some names, and where: params first, then metrics, then tags."""
    spelled = {key: str(value) for key, value in metrics.items()}
    for kind, values in (("param", params), ("metric", spelled), ("tag", tags)):
        yield from ((values[key], f"{kind} {key}") for key in keys if key in values)


def threshold_in_force(
    product: Product, params: Mapping[str, str], metrics: Mapping[str, float], tags: Mapping[str, str]
) -> tuple[float, str] | None:
    """The threshold that a run's decisions are made at, and where it stands; None where it holds none.

    The one answer for the rules and for programs that load the model. Raises ValueError, which says where, for a
    value that is no number from 0 to 1.
    """
    keys = product.production.facts.get("threshold", ())
    for text, place in _named(keys, params, metrics, tags):
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise ValueError(f"{place} is {text!r}, which is no threshold from 0 to 1")
        return value, place
    return None


def _in_registry(keys: tuple[str, ...], product: Product, snapshot: Snapshot) -> Iterator[FactValue]:
    """The tags of the registered model and of the version in force: earlier versions are history."""
    registered = snapshot.registered_models.get(product.production.registered_model or "")
    if registered is None:
        return
    version = registered.version(registered.aliases.get(product.production.alias))
    for owner, tags in ((registered.ref, registered.tags), *(((version.ref, version.tags),) if version else ())):
        for key in keys:
            if key in tags:
                yield FactValue(tags[key], f"tag {key} of {owner}", owner)
