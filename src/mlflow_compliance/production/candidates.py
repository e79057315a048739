"""What a store shows of models in production, for settings that name none: where it was seen, and lines of TOML
that would say so.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from mlflow_compliance.production.claims import is_archived
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.families import NAMED, family, sounds_like_production, words
from mlflow_compliance.production.marks import ALIASES, BUILT_IN, Mark, marks_in
from mlflow_compliance.safe_text import first_of, printable
from mlflow_compliance.settings.schema import Settings, folded
from mlflow_compliance.settings.toml import key, quoted
from mlflow_compliance.snapshot.entities import DEFAULT, Experiment, RegisteredModel
from mlflow_compliance.snapshot.snapshot import Snapshot

MOST = 20
"""Products proposed at once: nobody mends more than that."""
SEEN = 5
"""Places named for one of them."""
HOMES = 10
"""Experiments named that versions of one model come from."""


@dataclass
class Candidate:
    """A product that the store seems to have. What it has besides is named by the names of experiments."""

    name: str
    primary: str = ""
    rivals: list[str] = field(default_factory=list)
    """Experiments beside the primary one that look like its production too."""
    homes: list[str] = field(default_factory=list)
    """Experiments that versions of its registered model come from."""
    registered_model: str = ""
    alias: str = ""
    aliases: list[str] = field(default_factory=list)
    """Aliases of its registered model, where none sounds like production."""
    leads: bool = False
    """Whether the alias leads to a version that a run made."""
    tags: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    offers: list[str] = field(default_factory=list)
    """Lines for its table [products.production], comments all."""

    @property
    def by_alias(self) -> bool:
        """Whether the alias says which run is in production: it leads somewhere, or nothing else says anything."""
        return bool(self.alias) and (self.leads or not self.tags)

    @property
    def families(self) -> set[str]:
        return {family(name) for name in (self.primary, self.registered_model) if name} - {""}


def candidates(context: Context) -> list[Candidate]:
    """By registered model, then by experiment; experiments of one family are one product. A model without alias and
    stage counts only where nothing says more.
    """
    settings, snapshot = context.settings, context.snapshot
    found = [_of_model(model, snapshot) for _, model in sorted(snapshot.registered_models.items())]
    told = [item for item in found if item.alias or any("stage" in place for place in item.seen)]
    homes = {item.primary: item for item in told}
    silent = []
    for experiment in snapshot.active_experiments():
        seen, tags = _signs(experiment, context)
        if not seen or is_archived(settings, experiment):
            silent += [] if experiment.tags.get(settings.experiments.lifecycle_tag) or seen else [experiment]
            continue
        item = homes.get(experiment.name) or _relative(experiment, told)
        if item is None:
            item = Candidate(experiment.name, primary=experiment.name)
            told.append(item)
        elif experiment.name != item.primary:
            item.primary, item.rivals = item.primary or experiment.name, [*item.rivals, experiment.name]
        item.seen += seen
        item.tags = item.tags or tags
    for experiment in silent:
        if NAMED & {*words(experiment.name)} and not settings.looks_like_a_test(experiment):
            item = _relative(experiment, told)
            if item is not None and experiment.name not in (item.primary, *item.homes):
                item.rivals.append(experiment.name)
                item.seen.append(f"experiment {experiment.name} is named like its production")
    for item in told:
        item.rivals = [name for name in item.rivals if name != item.primary]
        item.name = item.name if item.registered_model else _common(item)
    return told or found


def _relative(experiment: Experiment, told: list[Candidate]) -> Candidate | None:
    """The product whose name differs from an experiment's by words about state alone."""
    return next((item for item in told if family(experiment.name) in item.families), None)


def _common(item: Candidate) -> str:
    """The name of a product that several experiments compete for: what they begin with."""
    if not item.rivals:
        return item.name
    names = sorted([item.primary, *item.rivals])
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(names[0], names[-1], strict=False))
    return "".join(letter for letter, _ in pairs).rstrip(" _-.:/") or item.name


def _of_model(model: RegisteredModel, snapshot: Snapshot) -> Candidate:
    """The alias that sounds most like production is the one that is proposed; none that does not."""
    item = Candidate(model.name, registered_model=model.name)
    wanted = folded(BUILT_IN.production.alias)
    aliases = sorted(model.aliases, key=lambda alias: (folded(alias) != wanted, folded(alias) not in ALIASES, alias))
    item.alias = next(filter(sounds_like_production, aliases), "")
    item.seen = [
        f"alias {alias} of registered model {model.name} names version {model.aliases[alias]}" for alias in aliases
    ]
    staged = [version for version in model.versions if folded(version.stage) == "production"]
    item.seen += [
        f"version {version.version} of registered model {model.name} has the stage {version.stage}"
        for version in staged
    ]
    if not item.seen:
        item.seen = [f"registered model {model.name} has {len(model.versions)} versions and no alias"]
    elif not (item.alias or staged):
        item.seen.append("none of these aliases sounds like production")
        item.aliases = aliases
    named = model.version(model.aliases.get(item.alias))
    item.leads = named is not None and bool(named.run_id)
    meant = named or next(iter(staged), None)
    home = snapshot.experiments.get(meant.experiment_id) if meant else None
    if home is not None and home.active and home.experiment_id != DEFAULT:
        item.primary = home.name
    made_in = (snapshot.experiments.get(version.experiment_id) for version in model.versions[::-1])
    item.homes = list(dict.fromkeys(found.name for found in made_in if found is not None and found.active))[:HOMES]
    return item


def _signs(experiment: Experiment, context: Context) -> tuple[list[str], dict[str, str]]:
    """Where an experiment says production, and the tags that do."""
    marks = marks_in(context).get(experiment.experiment_id, [])
    within = f" of experiment {experiment.name}"
    seen = [f"{mark.owner}{within * (mark.owner != experiment.ref)} has the tag {_pair(mark)}" for mark in marks]
    tags: dict[str, str] = {}
    for mark in sorted(marks, key=lambda mark: mark.exact):
        tags = {mark.key: mark.value}
    value = experiment.tags.get(context.settings.experiments.lifecycle_tag, "")
    if folded(value) == "production":
        seen.append(f"experiment {experiment.name} has the tag {context.settings.experiments.lifecycle_tag}={value}")
    if BUILT_IN.named(experiment) and not context.settings.is_test(experiment):
        seen.append(f"experiment {experiment.name} is named like one")
    return seen, tags


def _pair(mark: Mark) -> str:
    return f"{mark.key}={mark.value}"


def counted(context: Context) -> str:
    """What was looked for and how much of it is there."""
    models = context.snapshot.registered_models.values()
    marks = sum(map(len, marks_in(context).values()))
    named = sum(BUILT_IN.named(item) for item in context.snapshot.active_experiments())
    stages = sum(folded(version.stage) == "production" for model in models for version in model.versions)
    numbers = {
        "registered models": len(models),
        "aliases": sum(len(model.aliases) for model in models),
        "versions in stage Production": stages,
        "tags that say production": marks,
        "experiments named like production": named,
    }
    return ", ".join(f"{number} {what}" for what, number in numbers.items())


def as_toml(found: list[Candidate], settings: Settings) -> str:
    """Lines for the settings file that name the candidates as products, each with where it was seen."""
    where = (
        f"in the table [{'.'.join(map(str, settings.prefix))}]"
        if settings.prefix
        else "above the first table of the file"
    )
    if not found:
        return f"# Nothing here looks like production. Say so, {where}:\nproducts = []"
    lines = [
        *product_lines(found, settings),
        f"# If no model is in production here, write instead, {where}: products = []",
    ]
    return "\n".join(lines)


def product_lines(found: list[Candidate], settings: Settings, most: int = MOST) -> Iterator[str]:
    """The tables of the products alone."""
    table = ".".join(map(str, (*settings.prefix, "products")))
    if len(found) > most:
        yield f"# {len(found) - most} more are left out"
    names: set[str] = set()
    for item in found[:most]:
        name = item.name
        while name in names:
            name += " 2"
        names.add(name)
        yield from (f"# {printable(place)}" for place in item.seen[:SEEN])
        if len(item.seen) > SEEN:
            yield f"# ... and {len(item.seen) - SEEN} more places"
        yield f"[[{table}]]"
        yield f"name = {quoted(name)}"
        yield from _by_alias(item) if item.by_alias else _by_tags(item, alone=len(found) == 1)
        if item.registered_model or item.offers:
            yield f"[{table}.production]"
        if item.registered_model:
            yield f"registered_model = {quoted(item.registered_model)}"
        if item.alias:
            yield f"alias = {quoted(item.alias)}"
        elif item.aliases:
            yield "# Which of these do programs load production by? Take the sign off its line, and off the one above."
            yield from (f"#alias = {quoted(alias)}" for alias in item.aliases[:HOMES])
        yield from item.offers
        yield ""


def _by_alias(item: Candidate) -> Iterator[str]:
    yield f"production_by = {quoted('alias')}  # the run behind this alias is its production run, whatever tags say"
    if item.primary:
        yield f"primary = {quoted(item.primary)}"
    yield from _patterns("experiments", dict.fromkeys([*filter(None, [item.primary]), *item.homes]))
    if item.rivals:
        yield f"# Not counted, since the alias says what is in production: {printable(first_of(item.rivals, SEEN))}"


def _by_tags(item: Candidate, *, alone: bool) -> Iterator[str]:
    competing = [item.primary, *item.rivals] if item.primary else []
    if item.rivals:
        yield f"# {len(competing)} experiments look like its production, and one can be. Take the sign off its line:"
        yield "# --fix merges the others into it. Take out of production_names what is none of its production."
        yield from (f"#primary = {quoted(name)}" for name in competing[:HOMES])
        if len(competing) > HOMES:
            yield f"# ... or another one of the {len(competing)}"
    elif item.primary:
        yield f"primary = {quoted(item.primary)}"
    if competing:
        yield from _patterns("experiments", competing)
        yield from _patterns("production_names", competing)
    elif item.homes:
        yield from _patterns("experiments", item.homes)
    elif not alone:
        yield f"experiments = [{quoted(f'{glob.escape(item.name)}*')}]"
    if item.aliases:
        yield f"#production_by = {quoted('alias')}"
    tags = item.tags or BUILT_IN.production_tags
    yield f"production_tags = {{ {', '.join(f'{key(name)} = {quoted(value)}' for name, value in tags.items())} }}"


def _patterns(name: str, names: Iterable[str]) -> Iterator[str]:
    """A list of patterns that match these names and no others."""
    found = [quoted(glob.escape(item)) for item in names]
    if len(found) > SEEN:
        yield f"{name} = ["
        yield from (f"  {item}," for item in found)
        yield "]"
    elif found:
        yield f"{name} = [{', '.join(found)}]"
