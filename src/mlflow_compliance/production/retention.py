"""What must be kept: by a legal hold of the settings, and by how long they say that production is kept."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from fnmatch import translate
from functools import lru_cache
from typing import NamedTuple

from mlflow_compliance.production.claims import production_runs
from mlflow_compliance.production.context import Context
from mlflow_compliance.settings.schema import Hold, Product, Settings
from mlflow_compliance.snapshot.entities import DELETED, Experiment, ModelVersion
from mlflow_compliance.snapshot.refs import EntityRef
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
from mlflow_compliance.snapshot.ties import How, is_model, named_in

Place = tuple[str, str]
"""(kind, key) of an entity."""
HOLD, PRODUCTION, SUPERSEDED_RUN = "hold", "production_years", "superseded_years"
_YEAR = 365.25
"""Days, of what is left of a year."""


class Retained(NamedTuple):
    """Why something is kept. `until` is the last day, None where no end is known."""

    rule: str
    """'hold', 'production_years' or 'superseded_years'."""
    why: str
    until: date | None


class Matched(NamedTuple):
    """What the patterns of a hold match by themselves, before what belongs to it."""

    experiments: tuple[str, ...]
    runs: tuple[str, ...]
    models: tuple[str, ...]
    """Names of registered models, and ids of logged ones."""

    @property
    def nothing(self) -> bool:
        return not any(self)


class Service(NamedTuple):
    """A run that is or was in production, as far as rows prove it. Times in milliseconds, 0 where none is proven."""

    run_id: str
    product: str
    since: int
    """When it was put into service, at the latest."""
    ended: int
    """When it left service, at the latest. Means something where `former` alone."""
    former: bool


def spelled(text: str) -> str:
    """A name as holds compare it: in any case, and whichever way its accents are written."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


@lru_cache(maxsize=64)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(spelled(pattern)) for pattern in patterns) or r"(?!)")


def matches(names: Iterable[str], patterns: tuple[str, ...]) -> bool:
    """Whether a pattern means one of some names. A hold that misses a name for its capitals would hold nothing."""
    return any(_compiled(patterns).match(spelled(name)) for name in names) if patterns else False


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


def names_runs(settings: Settings) -> bool:
    """Whether a hold names runs by themselves."""
    return any(hold.runs for hold in settings.retention.hold)


def holds_run(settings: Settings, *names: str) -> bool:
    """Whether a hold names a run, by its name or id."""
    return any(matches(names, hold.runs) for hold in settings.retention.hold)


def holds_model(settings: Settings, model_id: str) -> bool:
    """Whether a hold names a logged model, by its id."""
    return any(matches([model_id], hold.models) for hold in settings.retention.hold)


def held_homes(settings: Settings, experiments: Mapping[str, Experiment]) -> set[str]:
    """Ids of the experiments that a hold names, whether or not it is over."""
    return {
        key
        for key, item in experiments.items()
        if any(holds_experiment(hold, item) for hold in settings.retention.hold)
    }


def holds_experiment(hold: Hold, experiment: Experiment) -> bool:
    """By its name, the one that it had before it was retired, or its id."""
    return matches({experiment.name, experiment.own_name, experiment.experiment_id}, hold.experiments)


def today(snapshot: Snapshot) -> date:
    """The day on which a store was read, in UTC."""
    return datetime.fromtimestamp(snapshot.taken_at / 1000, timezone.utc).date()


def in_force(settings: Settings, day: date) -> Iterator[tuple[int, Hold]]:
    """The holds that hold on a day, the last one included, each with its number in the settings."""
    for number, hold in enumerate(settings.retention.hold):
        if hold.until is None or day <= hold.until:
            yield number, hold


def matched(hold: Hold, snapshot: Snapshot) -> Matched:
    """What a hold names."""
    runs = {key: [run.name, key] for key, run in snapshot.runs.items()}
    runs |= {row.key: [row.name, row.key] for row in snapshot.row_facts.values() if row.kind == "run"}
    logged = {row.key for row in snapshot.row_facts.values() if row.kind == "logged_model"} | {*snapshot.logged_models}
    logged |= {key for key in snapshot.behind_versions if is_model(key)}
    return Matched(
        tuple(sorted(key for key, item in snapshot.experiments.items() if holds_experiment(hold, item))),
        tuple(sorted(key for key, names in runs.items() if matches(names, hold.runs))),
        tuple(sorted(key for key in {*snapshot.registered_models, *logged} if matches([key], hold.models))),
    )


def retained(context: Context) -> Mapping[Place, tuple[Retained, ...]]:
    """(kind, key) of every run, experiment, logged model, registered model and model version that a hold or retention
    covers on the day of the snapshot -> why, worst first: holds, then what ends last.
    """
    return context.once(_retained)


def _retained(context: Context) -> dict[Place, tuple[Retained, ...]]:
    if not context.settings.retention.keeps:
        return {}
    day = today(context.snapshot)
    covering = _Covering(context.snapshot)
    for _, hold in in_force(context.settings, day):
        found = matched(hold, context.snapshot)
        for key in found.experiments:
            covering.experiment(key, _of_hold(hold, context.snapshot.experiments[key].ref))
        for key in found.runs:
            covering.run(key, _of_hold(hold, EntityRef("run", key)))
        for key in found.models:
            if key in context.snapshot.registered_models:
                covering.registered(key, _of_hold(hold, EntityRef("registered model", key)))
            else:
                covering.model(key, _of_hold(hold, EntityRef("logged model", key)))
    for service in services(context):
        for why in kept_for(service, context.settings):
            if why.until is None or day <= why.until:
                covering.run(service.run_id, why)
    for product in context.settings.products:
        wanted = product.production
        registered = context.snapshot.registered_models.get(wanted.registered_model or "")
        version = registered.version(registered.aliases.get(wanted.alias)) if registered else None
        if version is not None:
            for why in _in_service(product.name, context.settings):
                covering.version(version, why)
    return {place: tuple(sorted(set(found), key=_worst_first)) for place, found in covering.found.items()}


def _of_hold(hold: Hold, on: EntityRef) -> Retained:
    end = f", until {hold.until}" if hold.until else ""
    return Retained(HOLD, f"legal hold on {on} ({hold.reason}{end})", hold.until)


def _worst_first(item: Retained) -> tuple[bool, date, str]:
    """No end comes before every date."""
    order = date.max - (item.until or date.max)
    return item.rule != HOLD, date.min + order, item.why


def services(context: Context) -> list[Service]:
    """The runs that are in production, and those that were, by what rows prove."""
    return context.once(_services)


def _services(context: Context) -> list[Service]:
    snapshot, found = context.snapshot, dict[tuple[str, str], Service]()
    for product in context.settings.products:
        for run in production_runs(product, context):
            found[run.run_id, product.name] = Service(run.run_id, product.name, 0, 0, former=False)
    for row in snapshot.row_facts.values():
        tags = snapshot.runs[row.key].tags if row.key in snapshot.runs else row.tags
        for name in _products_of(row, tags, context) if row.kind == "run" and not row.retracted else ():
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
        yield from _in_service(service.product, settings)
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


def _in_service(product: str, settings: Settings) -> Iterator[Retained]:
    """What is in production has not begun to leave."""
    for rule in (PRODUCTION, SUPERSEDED_RUN):
        if getattr(settings.retention, rule):
            yield Retained(rule, f"is in production of {product} ({rule})", None)


def years_after(milliseconds: int, years: float) -> date | None:
    """The day so many years after a time; None where the calendar ends before."""
    start = datetime.fromtimestamp(milliseconds / 1000, timezone.utc).date()
    whole = int(years)
    try:
        # From 29 February a year leads to 1 March: never a day too early.
        leap = (start.month, start.day) == (2, 29)
        end = date(start.year + whole, 3, 1) if leap and whole % 4 else start.replace(year=start.year + whole)
        return end + timedelta(days=math.ceil((years - whole) * _YEAR))
    except (ValueError, OverflowError):
        return None


class _Covering:
    """What belongs to what is held, and what that needs."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.found: dict[Place, set[Retained]] = defaultdict(set)
        self._followed: set[tuple[str, str, Retained]] = set()
        self._runs: dict[str, list[str]] = defaultdict(list)
        self._models: dict[str, list[str]] = defaultdict(list)
        self._written: dict[str, list[str]] = defaultdict(list)
        self._homes: dict[Place, str] = {}
        self._writers: dict[str, str] = {}
        self._needs: dict[str, set[Place]] = defaultdict(set)
        self._versions: dict[str, list[ModelVersion]] = defaultdict(list)
        self._index()

    def _index(self) -> None:
        snapshot = self.snapshot
        for key, state in snapshot.behind_versions.items():
            self._homes["logged_model" if is_model(key) else "run", key] = state.experiment_id
        for row in snapshot.row_facts.values():
            self._homes[row.kind, row.key] = row.experiment_id
            if row.kind == "logged_model":
                self._writers[row.key] = row.run_id
            else:
                self._needs[row.key] |= {("logged_model", key) for key in row.reads}
                self._needs[row.key] |= {("run", row.tags[PARENT])} if PARENT in row.tags else set()
        for model in snapshot.logged_models.values():
            self._homes["logged_model", model.model_id] = model.experiment_id
            self._writers[model.model_id] = model.source_run_id or ""
        for run in snapshot.runs.values():
            self._homes["run", run.run_id] = run.experiment_id
            self._needs[run.run_id] |= {("logged_model", link.model_id) for link in run.models}
            self._needs[run.run_id] |= {("run", run.tags[PARENT])} if PARENT in run.tags else set()
        for tie in snapshot.ties:
            if tie.how in (How.CHILD, How.USED) and tie.source.kind == "run":
                self._needs[tie.source.key].add((tie.target.kind, tie.target.key))
                self._homes.setdefault((tie.target.kind, tie.target.key), tie.home)
        for (kind, key), home in self._homes.items():
            (self._runs if kind == "run" else self._models)[home].append(key)
        for key, run_id in self._writers.items():
            self._written[run_id].append(key)
        for registered in snapshot.registered_models.values():
            for version in registered.versions:
                for key in named_in(version):
                    self._versions[key].append(version)

    def _keep(self, kind: str, key: str, why: Retained) -> None:
        """By itself, and the experiment that it lies in."""
        if key:
            self.found[kind, key].add(why)
            home = self._homes.get((kind, key))
            if home:
                self.found["experiment", home].add(why)

    def _follows(self, kind: str, key: str, why: Retained) -> bool:
        """Whether what belongs to something was not looked for yet."""
        self._keep(kind, key, why)
        new = bool(key) and (kind, key, why) not in self._followed
        self._followed.add((kind, key, why))
        return new

    def experiment(self, key: str, why: Retained) -> None:
        """With its runs and logged models."""
        self.found["experiment", key].add(why)
        for run_id in self._runs[key]:
            self.run(run_id, why)
        for model_id in self._models[key]:
            self.model(model_id, why)

    def run(self, key: str, why: Retained) -> None:
        """With its logged models, the versions that were made from it, and what it needs."""
        if not self._follows("run", key, why):
            return
        for model_id in self._written[key]:
            self.model(model_id, why)
        for version in self._versions[key]:
            self.version(version, why)
        for kind, needed in self._needs[key]:
            self._keep(kind, needed, why)

    def model(self, key: str, why: Retained) -> None:
        """A logged model with the run that wrote it and the versions that were made from it."""
        if not self._follows("logged_model", key, why):
            return
        self._keep("run", self._writers.get(key, ""), why)
        for version in self._versions[key]:
            self.version(version, why)

    def version(self, version: ModelVersion, why: Retained) -> None:
        """With what it comes from; the registered model stays with its versions."""
        if not self._follows("model_version", version.ref.key, why):
            return
        self._keep("registered_model", version.name, why)
        for key in named_in(version):
            if ("logged_model", key) in self._homes:
                self.model(key, why)
            elif ("run", key) in self._homes:
                self.run(key, why)

    def registered(self, name: str, why: Retained) -> None:
        """With all its versions."""
        self._keep("registered_model", name, why)
        for version in self.snapshot.registered_models[name].versions:
            self.version(version, why)
