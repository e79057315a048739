"""Which runs a reader must bring in full: the few that rules and remedies look into; SQL counts the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlflow_compliance.entities import Experiment, Run, Snapshot
from mlflow_compliance.settings import Product, Settings

RETRACTED = "retracted"
"""Value of the tag `compliance.copy` on a copy that was taken back: readers pass it over once it is deleted."""


@dataclass(frozen=True)
class Claim:
    """An experiment that says of itself, by name, tag or a run in it, that it is a product's production."""

    product: str
    experiment_id: str


def claims(settings: Settings, experiments: Mapping[str, Experiment], run_tags: Iterable[tuple[str, str, str]]) -> set[Claim]:
    """The production claims in a store; `run_tags` are (experiment id, key, value) of active runs with production tags."""
    by_run = set(run_tags)
    found = set()
    for product in settings.products:
        for experiment in experiments.values():
            if not experiment.active or settings.is_test(experiment) or is_archived(settings, experiment):
                continue
            tagged = product.covers(experiment) and any(
                (experiment.experiment_id, key, value) in by_run for key, value in product.production_tags.items()
            )
            if tagged or product.claims(experiment):
                found.add(Claim(product.name, experiment.experiment_id))
    return found


def is_archived(settings: Settings, experiment: Experiment) -> bool:
    """Whether an experiment's own lifecycle tag says that it is archived."""
    return experiment.tags.get(settings.experiments.lifecycle_tag) == "archived"


def primary_of(product: Product, experiments: Mapping[str, Experiment], claimed: Iterable[str]) -> str | None:
    """The id of the experiment that a product's others are merged into: the one named in the settings, or the only one."""
    if product.primary is not None:
        return next((key for key, item in experiments.items() if item.name == product.primary and item.active), None)
    ids = sorted(claimed)
    return ids[0] if len(ids) == 1 else None


def production_tags(settings: Settings) -> set[tuple[str, str]]:
    """Every (key, value) that marks a run as production for some product."""
    return {pair for product in settings.products for pair in product.production_tags.items()}


def claims_in(snapshot: Snapshot, settings: Settings) -> set[Claim]:
    """The production claims in a snapshot, whose detailed runs hold every run with a production tag."""
    marks = production_tags(settings)
    tagged = [
        (run.experiment_id, key, value) for run in snapshot.runs.values() if run.active for key, value in run.tags.items() if (key, value) in marks
    ]
    return claims(settings, snapshot.experiments, tagged)


def claimed_by(product: Product, snapshot: Snapshot, settings: Settings) -> list[str]:
    """Ids of the experiments that claim to be a product's production, sorted."""
    return sorted(claim.experiment_id for claim in claims_in(snapshot, settings) if claim.product == product.name)


def production_runs(product: Product, snapshot: Snapshot, settings: Settings) -> list[Run]:
    """The active runs marked as a product's production in the experiments that claim it, oldest first."""
    return [run for experiment_id in claimed_by(product, snapshot, settings) for run in snapshot.runs_of(experiment_id) if product.marks(run)]
