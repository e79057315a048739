"""Which runs a reader must bring in full: the few that rules and remedies look into; SQL counts the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mlflow_compliance.production.context import Context
from mlflow_compliance.production.served import served
from mlflow_compliance.settings.schema import Product, Settings
from mlflow_compliance.snapshot.entities import Experiment, Run
from mlflow_compliance.snapshot.tags import BUILD, BUILT_FOR, COMPLETE_BUILD


class By(str, Enum):
    """By what an experiment claims to be a product's production one."""

    PRIMARY = "the settings name it as primary"
    TAG = "its tag"
    RUN = "the tag of a run in it"
    ALIAS = "the alias names a version of a run in it"
    NAME = "its name"
    GUESS = "its name, by a pattern that nobody wrote"


@dataclass(frozen=True)
class Claim:
    """An experiment that says of itself, by name, tag or a run in it, that it is a product's production."""

    product: str
    experiment_id: str
    by: By


def claims(
    settings: Settings, experiments: Mapping[str, Experiment], run_tags: Iterable[tuple[str, str, str]]
) -> set[Claim]:
    """The production claims by settings, tags and names; `run_tags` are (experiment id, key, value) of active runs with
    production tags. They make no production of a product whose alias does.
    """
    by_run = set(run_tags)
    found = set()
    for product in settings.products:
        if product.by_alias:
            continue
        for experiment in experiments.values():
            if (
                not experiment.active
                or settings.is_test(experiment)
                or is_archived(settings, experiment)
                or not product.covers(experiment)
            ):
                continue
            tagged = any(
                (experiment.experiment_id, key, value) in by_run for key, value in product.production_tags.items()
            )
            by = _claims_by(product, experiment, settings, tagged=tagged)
            if by is not None:
                found.add(Claim(product.name, experiment.experiment_id, by))
    return found


def _claims_by(product: Product, experiment: Experiment, settings: Settings, *, tagged: bool) -> By | None:
    """What people said counts before what a built-in pattern takes a name for."""
    if experiment.name == product.primary:
        return By.PRIMARY
    if product.marks(experiment):
        return By.TAG
    if tagged:
        return By.RUN
    if not product.named(experiment):
        return None
    if not product.guesses_names:
        return By.NAME
    return None if settings.looks_like_a_test(experiment) else By.GUESS


def is_archived(settings: Settings, experiment: Experiment) -> bool:
    """Whether an experiment's own lifecycle tag says that it is archived."""
    return experiment.tags.get(settings.experiments.lifecycle_tag) == "archived"


def primary_of(product: Product, experiments: Mapping[str, Experiment], claimed: Iterable[str]) -> str | None:
    """The id of the experiment that a product's others are merged into: the one named in the settings, or the only
    one.
    """
    if product.primary is not None:
        return next((key for key, item in experiments.items() if item.name == product.primary and item.active), None)
    ids = sorted(claimed)
    return ids[0] if len(ids) == 1 else None


class Retirable(NamedTuple):
    """Ids of the experiments that a remedy may retire, and of those among the others that it may copy runs into."""

    experiments: frozenset[str]
    into: frozenset[str]


def retirable(settings: Settings, experiments: Mapping[str, Experiment], claimed: Iterable[Claim]) -> Retirable:
    """Test experiments, and the rivals of each product's primary one: what may keep those alive is worth asking."""
    found = {key for key, item in experiments.items() if item.active and settings.is_test(item)}
    into = set()
    claimed = list(claimed)
    for product in settings.products:
        if product.by_alias:
            continue
        ids = {claim.experiment_id for claim in claimed if claim.product == product.name}
        primary = primary_of(product, experiments, ids)
        if primary and ids - {primary}:
            found |= ids - {primary}
            into.add(primary)
    return Retirable(frozenset(found), frozenset(into))


def production_tags(settings: Settings) -> set[tuple[str, str]]:
    """Every (key, value) that marks a run as production for some product."""
    return {pair for product in settings.products for pair in product.production_tags.items()}


def fact_keys(product: Product) -> frozenset[str]:
    """The names under which runs may carry a fact that must have one value: as param, metric or tag."""
    return frozenset(key for keys in product.production.facts.values() for key in keys)


EVERY_RUN = frozenset({""})
"""Stands for every run of an experiment where names of facts stand otherwise."""


def runs_in_full(
    settings: Settings, experiments: Mapping[str, Experiment], tagged: Iterable[tuple[str, str, str]]
) -> dict[str, frozenset[str]]:
    """Experiment -> which of its active runs every reader brings in full, besides those that are marked, RUNNING or
    made by a repair: those that carry one of these names, or `EVERY_RUN` of an experiment that is to be merged.
    """
    found = claims(settings, experiments, tagged)
    needs: dict[str, frozenset[str]] = {}
    for product in settings.products:  # of one by alias nothing: `served_runs` has its run
        said = set(standing(product, found))
        primary = primary_of(product, experiments, said)
        rivals = said - {primary} if primary and len(said) > 1 else set()
        for key in {claim.experiment_id for claim in found if claim.product == product.name}:
            needs[key] = (
                needs.get(key, frozenset()) | fact_keys(product) | (EVERY_RUN if key in rivals else frozenset())
            )
    return needs


def claims_in(context: Context) -> set[Claim]:
    """The production claims in a snapshot, whose detailed runs hold every run with a production tag."""
    return context.once(_claims_in)


def _claims_in(context: Context) -> set[Claim]:
    marks = production_tags(context.settings)
    tagged = [
        (run.experiment_id, key, value)
        for run in context.snapshot.runs.values()
        if run.active
        for key, value in run.tags.items()
        if (key, value) in marks
    ]
    found = claims(context.settings, context.snapshot.experiments, tagged)
    for product in context.settings.products:
        run = served(product, context.snapshot).run if product.by_alias else None
        if run is not None:
            found.add(Claim(product.name, run.experiment_id, By.ALIAS))
    return found


def standing(product: Product, found: Iterable[Claim]) -> list[str]:
    """Ids of the experiments that people said to be a product's production; where nobody said any, of those whose
    names look like it. Sorted.
    """
    own = [claim for claim in found if claim.product == product.name]
    said = [claim for claim in own if claim.by is not By.GUESS]
    return sorted(claim.experiment_id for claim in said or own)


def guessed_by(product: Product, context: Context) -> frozenset[str]:
    """Ids of the experiments that only a built-in pattern takes for a product's production: nothing is changed for
    that.
    """
    return frozenset(
        claim.experiment_id for claim in claims_in(context) if claim.product == product.name and claim.by is By.GUESS
    )


def claimed_by(product: Product, context: Context) -> list[str]:
    """Ids of the experiments that claim to be a product's production, sorted."""
    return sorted(claim.experiment_id for claim in claims_in(context) if claim.product == product.name)


def current_run(product: Product, context: Context) -> Run | None:
    """The production run that is in force where there is no doubt: the only one, or else the one that a repair
    built last.
    """
    runs = production_runs(product, context)
    built = [run for run in runs if run.tags.get(BUILT_FOR) == product.name and run.tags.get(BUILD) == COMPLETE_BUILD]
    return runs[0] if len(runs) == 1 else max(built, key=lambda run: (run.start_time or 0, run.run_id), default=None)


def production_models(product: Product, context: Context) -> list[tuple[Run, str]]:
    """Each production run of a product with each folder of a model that it logged."""
    return [
        (run, folder) for run in production_runs(product, context) for folder in context.snapshot.model_folders(run)
    ]


def production_runs(product: Product, context: Context) -> list[Run]:
    """The active runs marked as a product's production in the experiments that claim it, oldest first; of a product by
    alias the run behind that.
    """
    if product.by_alias:
        run = served(product, context.snapshot).run
        return [] if run is None else [run]
    return [
        run
        for experiment_id in claimed_by(product, context)
        for run in context.snapshot.runs_of(experiment_id)
        if product.marks(run)
    ]
