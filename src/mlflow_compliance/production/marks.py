"""Marks of production in any spelling: what people read as one, and a search for the very words does not find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mlflow_compliance.production.claims import claims_in, is_archived, production_runs, production_tags
from mlflow_compliance.production.context import Context
from mlflow_compliance.settings.schema import Product, Settings, folded
from mlflow_compliance.snapshot.entities import Experiment, RegisteredModel
from mlflow_compliance.snapshot.refs import EntityRef

BUILT_IN = Product(name="built in")
"""Where the settings name no product, these are what production may look like."""
ALIASES = frozenset({"production", "prod", "champion"})
"""Aliases that people take for production whatever the settings say, folded."""


class Mark(NamedTuple):
    """A tag of an experiment or a run that says production, as it is written; `exact` where the settings spell it
    so.
    """

    owner: EntityRef
    experiment_id: str
    key: str
    value: str
    exact: bool

    def __str__(self) -> str:
        return f"{self.key}={self.value}" if self.exact else f"{self.key!r}={self.value!r}"


def sought(settings: Settings) -> set[tuple[str, str]]:
    """The (key, value) that mark production for the products, or by the built-in settings where there is none."""
    return production_tags(settings) if settings.products else set(BUILT_IN.production_tags.items())


def sought_folded(settings: Settings) -> frozenset[tuple[str, str]]:
    """The same without regard to case and space."""
    return frozenset((folded(key), folded(value)) for key, value in sought(settings))


def said_in(tags: Mapping[str, str], settings: Settings) -> Iterator[tuple[str, str]]:
    """The tags that say production in some spelling."""
    marks = sought_folded(settings)
    return ((key, value) for key, value in sorted(tags.items()) if (folded(key), folded(value)) in marks)


def marks_in(context: Context) -> Mapping[str, list[Mark]]:
    """Experiment -> every mark of production on it and on its active runs, in any spelling. Only active experiments
    are looked at.
    """
    return context.once(_marks_in)


def _marks_in(context: Context) -> dict[str, list[Mark]]:
    exact, found = sought(context.settings), dict[str, list[Mark]]()
    for experiment in context.snapshot.active_experiments():
        key = experiment.experiment_id
        tagged = [(experiment.ref, experiment.tags), *((run.ref, run.tags) for run in context.snapshot.runs_of(key))]
        marks = [
            Mark(ref, key, *pair, pair in exact) for ref, tags in tagged for pair in said_in(tags, context.settings)
        ]
        if marks:
            found[key] = marks
    return found


def unseen_marks(experiment: Experiment, context: Context) -> Iterator[Mark]:
    """Marks of an experiment and its runs that no product counts: of another spelling, or where no product looks."""
    marks = marks_in(context).get(experiment.experiment_id)
    if not marks:
        return
    claimed = any(claim.experiment_id == experiment.experiment_id for claim in claims_in(context))
    counted = {run.run_id for product in context.settings.products for run in production_runs(product, context)}
    # RUN002 tells of those.
    archived = is_archived(context.settings, experiment) and any(
        product.covers(experiment) for product in context.settings.products if not product.by_alias
    )
    for mark in marks:
        seen = mark.owner.key in counted or (archived and mark.exact) if mark.owner.kind == "run" else claimed
        if not seen:
            yield mark


def unseen_aliases(model: RegisteredModel, settings: Settings) -> Iterator[tuple[str, str]]:
    """(alias, version) of a model that sound like production and are no product's: on a model of no product, or in
    another spelling.
    """
    wanted = [product.production for product in settings.products]
    own = {item.alias for item in wanted if item.registered_model == model.name}
    spelled = {folded(item.alias) for item in wanted}
    for alias, version in sorted(model.aliases.items()):
        if alias in own:
            continue
        if own:
            # Beside the alias that programs load by, a challenger called champion is nobody's mistake; another spelling
            # of it is one.
            rivals = [model.aliases.get(name) for name in own if folded(name) == folded(alias)]
            if rivals and version not in rivals:
                yield alias, version
        elif folded(alias) in spelled | ALIASES:
            yield alias, version
