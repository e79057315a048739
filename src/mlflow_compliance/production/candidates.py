"""What a store shows of models in production, for settings that name none: where it was seen, and lines of TOML
that would say so.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass, field

from mlflow_compliance.production.context import Context
from mlflow_compliance.production.marks import ALIASES, BUILT_IN, Mark, marks_in
from mlflow_compliance.safe_text import printable
from mlflow_compliance.settings.schema import Settings, folded
from mlflow_compliance.settings.toml import key, quoted
from mlflow_compliance.snapshot.entities import Experiment, RegisteredModel
from mlflow_compliance.snapshot.snapshot import Snapshot

MOST = 20
"""Products proposed at once: nobody mends more than that."""
SEEN = 5
"""Places named for one of them."""


@dataclass
class Candidate:
    """A product that the store seems to have."""

    name: str
    primary: str = ""
    registered_model: str = ""
    alias: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)


def candidates(context: Context) -> list[Candidate]:
    """By registered model, then by experiment. A model without alias and stage counts only where nothing says more."""
    experiments = {item.experiment_id: (item, _signs(item, context)) for item in context.snapshot.active_experiments()}
    found = [_of_model(model, context.snapshot) for _, model in sorted(context.snapshot.registered_models.items())]
    told = [item for item in found if item.alias or any("stage" in place for place in item.seen)]
    homes = {item.primary: item for item in told}
    for experiment, (seen, tags) in experiments.values():
        if not seen:
            continue
        item = homes.get(experiment.name) or Candidate(experiment.name, primary=experiment.name)
        item.seen += seen
        item.tags = item.tags or tags
        told += [] if item in told else [item]
    return told or found


def _of_model(model: RegisteredModel, snapshot: Snapshot) -> Candidate:
    """The alias that sounds most like production is the one that is proposed."""
    item = Candidate(model.name, registered_model=model.name)
    aliases = sorted(model.aliases, key=lambda alias: (folded(alias) not in ALIASES, alias))
    item.alias = next(iter(aliases), "")
    item.seen = [
        f"alias {alias} of registered model {model.name} names version {model.aliases[alias]}" for alias in aliases
    ]
    staged = [version for version in model.versions if folded(version.stage) == "production"]
    item.seen += [
        f"version {version.version} of registered model {model.name} has the stage {version.stage}"
        for version in staged
    ]
    item.seen = item.seen or [f"registered model {model.name} has {len(model.versions)} versions and no alias"]
    meant = model.version(model.aliases.get(item.alias)) or next(iter(staged), None)
    home = snapshot.experiments.get(meant.experiment_id) if meant else None
    if home is not None and home.active and home.experiment_id != "0":
        item.primary = home.name
    return item


def _signs(experiment: Experiment, context: Context) -> tuple[list[str], dict[str, str]]:
    """Where an experiment says production, and the tags that do."""
    marks = marks_in(context).get(experiment.experiment_id, [])
    seen, tags = [f"{mark.owner} of experiment {experiment.name} has the tag {_pair(mark)}" for mark in marks], {}
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
    return "\n".join(_lines(found, settings))


def _lines(found: list[Candidate], settings: Settings) -> Iterator[str]:
    table = ".".join(map(str, (*settings.prefix, "products")))
    where = (
        f"in the table [{'.'.join(map(str, settings.prefix))}]"
        if settings.prefix
        else "above the first table of the file"
    )
    if not found:
        yield f"# Nothing here looks like production. Say so, {where}:"
        yield "products = []"
        return
    if len(found) > MOST:
        yield f"# {len(found) - MOST} more are left out"
    names: set[str] = set()
    for item in found[:MOST]:
        name = item.name
        while name in names:
            name += " 2"
        names.add(name)
        yield from (f"# {printable(place)}" for place in item.seen[:SEEN])
        if len(item.seen) > SEEN:
            yield f"# ... and {len(item.seen) - SEEN} more places"
        yield f"[[{table}]]"
        yield f"name = {quoted(name)}"
        if item.primary:
            pattern = quoted(glob.escape(item.primary))
            yield f"primary = {quoted(item.primary)}"
            yield f"experiments = [{pattern}]"
            yield f"production_names = [{pattern}]"
        tags = item.tags or BUILT_IN.production_tags
        yield f"production_tags = {{ {', '.join(f'{key(name)} = {quoted(value)}' for name, value in tags.items())} }}"
        if item.registered_model:
            yield f"[{table}.production]"
            yield f"registered_model = {quoted(item.registered_model)}"
            if item.alias:
                yield f"alias = {quoted(item.alias)}"
        yield ""
    yield f"# If no model is in production here, write instead, {where}: products = []"
