"""Runs that are or were in production, since when and until when, by what rows prove; and how long they are kept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from typing import NamedTuple

from mlflow_compliance.production.claims import production_runs
from mlflow_compliance.production.context import Context
from mlflow_compliance.settings.schema import Product, Settings
from mlflow_compliance.snapshot.entities import DELETED
from mlflow_compliance.snapshot.row_facts import RowFacts
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import (
    BUILD,
    BUILT_FOR,
    COMPLETE_BUILD,
    COPY_STATE,
    PARENT,
    SOURCE_RUN,
    SUPERSEDED,
    SUPERSEDED_BY,
)

HOLD, PRODUCTION, SUPERSEDED_RUN = "hold", "production_years", "superseded_years"
"""The rules by which things are kept."""
_YEAR = 365.25
"""Days, of what is left of a year."""


class Retained(NamedTuple):
    """Why something is kept. `until` is the last day, None where no end is known."""

    rule: str
    """'hold', 'production_years' or 'superseded_years'."""
    why: str
    until: date | None


class Service(NamedTuple):
    """A run that is or was in production, as far as rows prove it. Times in milliseconds, 0 where none is proven."""

    run_id: str
    product: str
    since: int
    """When it was put into service, at the latest."""
    ended: int
    """When it left service, at the latest. Means something where `former` alone."""
    former: bool


def service_tags(settings: Settings) -> frozenset[str]:
    """The tags by which a run may show that it is or was in production."""
    marks = {key for product in settings.products for key in product.production_tags}
    return frozenset({SUPERSEDED_BY, BUILT_FOR, *marks, *(SUPERSEDED + key for key in marks)})


def tag_names(settings: Settings) -> frozenset[str]:
    """The same, and those that say what a run has to do with others."""
    return service_tags(settings) | {BUILD, COPY_STATE, SOURCE_RUN, PARENT}


def shows_service(tags: Iterable[tuple[str, str]], settings: Settings) -> bool:
    """Whether some tags of a run show that it is or was in production."""
    marks = {pair for product in settings.products for pair in product.production_tags.items()}
    return any(
        key in (SUPERSEDED_BY, BUILT_FOR) or (key.removeprefix(SUPERSEDED), value) in marks for key, value in tags
    )


def services(context: Context) -> list[Service]:
    """The runs that are in production, and those that were, by what rows prove."""
    return context.once(_services)


def _services(context: Context) -> list[Service]:
    snapshot, found = context.snapshot, dict[tuple[str, str], Service]()
    shown = service_tags(context.settings)
    for product in context.settings.products:
        for run in production_runs(product, context):
            found[run.run_id, product.name] = Service(run.run_id, product.name, 0, 0, former=False)
    for row in snapshot.row_facts.values():
        tags = snapshot.runs[row.key].tags if row.key in snapshot.runs else row.tags
        # Of a hundred thousand rows a few have such tags.
        shows = row.kind == "run" and tags and not shown.isdisjoint(tags) and not row.retracted
        for name in _products_of(row, tags, context) if shows else ():
            found.setdefault((row.key, name), _service(row, tags, name, snapshot))
    return [found[key] for key in sorted(found)]


def _products_of(row: RowFacts, tags: Mapping[str, str], context: Context) -> set[str]:
    """The products that a run is or was the production of."""
    home = context.snapshot.experiments.get(row.experiment_id)
    built = {tags[BUILT_FOR]} if BUILT_FOR in tags and tags.get(BUILD) == COMPLETE_BUILD else set()
    if home is None or context.settings.is_test(home):
        return built
    return built | {
        product.name for product in context.settings.products if product.covers(home) and _marked(tags, product)
    }


def _marked(tags: Mapping[str, str], product: Product) -> bool:
    """Whether tags say production, or said so before a repair let another run take the place."""
    return any(value in (tags.get(key), tags.get(SUPERSEDED + key)) for key, value in product.production_tags.items())


def _service(row: RowFacts, tags: Mapping[str, str], product: str, snapshot: Snapshot) -> Service:
    """When a run left service shows the build of the run that took its place, and its own deletion. What was put into
    service was so before it left.
    """
    by = snapshot.row_facts.get(("run", tags.get(SUPERSEDED_BY, "")))
    ended = [by.begun] if by is not None and BUILT_FOR in by.tags else []
    ended += [row.deleted_at] if row.lifecycle == DELETED else []
    left = min(filter(None, ended), default=0)
    since = row.begun if tags.get(BUILD) == COMPLETE_BUILD and BUILT_FOR in tags else left
    return Service(row.key, product, since, left, former=SUPERSEDED_BY in tags or row.lifecycle == DELETED)


def kept_for(service: Service, settings: Settings) -> Iterator[Retained]:
    """Why a run is kept for being or having been in production, whether or not that is over by now."""
    if not service.former:
        yield from in_service(service.product, settings)
        return
    what, rules = f"was production of {service.product}", settings.retention
    for rule, years, start, words in (
        (PRODUCTION, rules.production_years, service.since, "after it went into service"),
        (SUPERSEDED_RUN, rules.superseded_years, service.ended, "after it was superseded"),
    ):
        if years:
            end = years_after(start, years) if start else None
            said = f"until {end}, {years:g} years {words}" if end else f"{years:g} years {words}: no row tells when"
            yield Retained(rule, f"{what} ({rule}: {said})", end)


def in_service(product: str, settings: Settings) -> Iterator[Retained]:
    """What is in production has not begun to leave."""
    for rule in (PRODUCTION, SUPERSEDED_RUN):
        if getattr(settings.retention, rule):
            yield Retained(rule, f"is in production of {product} ({rule})", None)


def years_after(milliseconds: int, years: float) -> date | None:
    """The day so many years after a time; None where the calendar ends before."""
    start = datetime.fromtimestamp(milliseconds / 1000, timezone.utc).date()
    year = start.year + int(years)
    if year > date.max.year:
        return None
    try:
        end = start.replace(year=year)
    except ValueError:
        end = date(year, 3, 1)  # from 29 February: never a day too early
    try:
        return end + timedelta(days=math.ceil((years - int(years)) * _YEAR))
    except OverflowError:
        return None
