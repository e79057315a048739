"""Who answers for what a finding is about: the settings, else tags of the experiment, else who started the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.holds import matches
from mlflow_compliance.safe_text import first_of, printable
from mlflow_compliance.settings.schema import folded
from mlflow_compliance.snapshot.entities import Experiment, Run
from mlflow_compliance.snapshot.files import upwards
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.tags import USER

TAGS = ("owner", "team")
"""Of an experiment, in the order in which they count."""
_FEW = 8
"""Owners in one line."""


class Owned(NamedTuple):
    """Who answers for something, and how they are reached; empty texts where nobody says so."""

    owner: str = ""
    contact: str = ""


def owner_of(entity: EntityRef, context: Context) -> Owned:
    """Who answers for an entity. What lies in experiments of several owners has none."""
    found = set(_owners(entity, context))
    return found.pop() if len(found) == 1 else Owned()


def is_of(owned: Owned, wanted: str) -> bool:
    """Whether something is an owner's, as people spell the name."""
    return folded(owned.owner) == folded(wanted)


def refuse_unknown(wanted: str, context: Context) -> None:
    """Raise ComplianceError where nothing at all is an owner's: a name that is mistyped finds nothing wrong."""
    snapshot = context.snapshot
    known = {item.team for item in context.settings.owners}
    known |= {_of_experiment(item, context).owner for item in snapshot.experiments.values()}
    known |= {_user(item).owner for item in snapshot.runs.values()}
    known.discard("")
    if not any(is_of(Owned(name), wanted) for name in known):
        names = first_of(sorted(map(printable, known)), _FEW) if known else "none"
        raise ComplianceError(f"--compliance-owner: nothing here is owned by {wanted!r}; owners here: {names}")


def _owners(entity: EntityRef, context: Context) -> Iterator[Owned]:
    snapshot = context.snapshot
    if entity.kind == "run":
        run = snapshot.runs.get(entity.key)
        yield _of(run.experiment_id if run else _of_row(entity, context), run, context)
    elif entity.kind == "logged_model":
        model = snapshot.logged_models.get(entity.key)
        run = _run(model.source_run_id if model else "", context)
        yield _of(model.experiment_id if model else _of_row(entity, context), run, context)
    elif entity.kind in ("registered_model", "model_version"):
        name, _, number = entity.key.rpartition("/")
        registered = snapshot.registered_models.get(name if entity.kind == "model_version" else entity.key)
        for version in registered.versions if registered else ():
            if entity.kind == "registered_model" or version.version == number:
                run = _run(version.run_id, context)
                yield _of(run.experiment_id if run else version.experiment_id, run, context)
    elif entity.kind == "artifact" and snapshot.artifacts is not None:
        group = snapshot.artifacts.duplicate(entity.key)
        for path in group.paths if group else (entity.key,):
            file = snapshot.artifacts.files.get(path)
            if file is not None and file.owner is not None and file.owner.kind != "artifact":
                yield from _owners(file.owner, context)
    else:
        yield _of(_home(entity, context), None, context)


def _of_row(entity: EntityRef, context: Context) -> str:
    """Id of the experiment of a run or model that was not read in full: the one whose folder its files lie in."""
    artifacts = context.snapshot.artifacts
    place = artifacts.locations.get(entity.place) if artifacts is not None else None
    folders = context.once(_folders)
    return next((folders[above] for above in upwards(place) if above in folders), "") if place else ""


def _folders(context: Context) -> dict[str, str]:
    artifacts = context.snapshot.artifacts
    locations = artifacts.locations.items() if artifacts is not None else ()
    return {place: key for (kind, key), place in locations if kind == "experiment"}


def _home(entity: EntityRef, context: Context) -> str:
    """Id of the experiment of a product, or of an experiment itself; empty for what lies in none."""
    if entity.kind == "experiment":
        return entity.key
    if entity.kind != "product" and not entity.kind.startswith("required_"):
        return ""
    name = entity.key if entity.kind == "product" else entity.key.partition("/")[0]
    primary = next((item.primary for item in context.settings.products if item.name == name), None)
    found = context.snapshot.experiments.items()
    return next((key for key, item in found if primary is not None and item.name == primary), "")


def _of(experiment_id: str, run: Run | None, context: Context) -> Owned:
    experiment = context.snapshot.experiments.get(experiment_id)
    found = _of_experiment(experiment, context) if experiment is not None else Owned()
    return found if found.owner or run is None else _user(run)


def _of_experiment(experiment: Experiment, context: Context) -> Owned:
    names = {experiment.name, experiment.own_name}
    for item in context.settings.owners:
        if matches(names, item.experiments):
            return Owned(item.team, item.contact)
    return _said(experiment.tags.get(tag, "") for tag in TAGS)


def _user(run: Run) -> Owned:
    return _said((run.tags.get(USER, ""), run.user))


def _said(names: Iterable[str]) -> Owned:
    return Owned(next((name.strip() for name in names if name.strip()), ""))


def _run(run_id: str | None, context: Context) -> Run | None:
    return context.snapshot.runs.get(run_id or "")
