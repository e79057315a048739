"""What is alive, and what keeps it so: every rule and remedy asks here, and is answered with the chain."""

from __future__ import annotations

import os
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import unquote

from mlflow_compliance.production.context import Context
from mlflow_compliance.production.file_ties import file_ties
from mlflow_compliance.production.served import named_by_alias
from mlflow_compliance.snapshot.entities import TERMINAL_STATUSES, Experiment, ModelVersion, Run, latest_time
from mlflow_compliance.snapshot.files import SERVED
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import PARENT
from mlflow_compliance.snapshot.ties import How, Tie

HOUR = 3_600_000
"""Milliseconds."""
Place = tuple[str, str]
"""(kind, key) of an entity."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?://[^/]*)?")
_OF_A_VERSION = re.compile(r"models:/+([^/@]+)(?:/(\d+)|@(.+))$")
_WAYS_OUT = {
    How.USED: "log that model elsewhere first",
    How.CHILD: "let it end first",
    How.TRACE: "wait until whoever logs them is done",
    How.MADE: "let it end first",
    How.DATASET: "add it to another experiment and take it off this one first",
    How.PROMPT: "link it to another experiment first (its tag _mlflow_experiment_ids)",
    How.ENDPOINT: "let it log elsewhere first, or end its usage tracking",
    How.SCORER: "register it elsewhere first, or delete it",
}
_UNLINK = "put the files themselves where the link, pointer or row leads from first"
NAMED = (How.DATASET, How.PROMPT, How.ENDPOINT, How.SCORER)
CONTENT = {
    How.DATASET: "belongs to it",
    How.PROMPT: "is linked to it",
    How.ENDPOINT: "logs its usage to it",
    How.SCORER: "is registered in it",
}


class Sign(NamedTuple):
    """The latest sign of life of something, in milliseconds (0 where nothing is dated), and the chain that leads
    from it.
    """

    at: int
    chain: tuple[str, ...]

    def __str__(self) -> str:
        return " -> ".join(self.chain)


class Kept(NamedTuple):
    """What keeps an experiment alive, in one sentence; the chain that leads to it; what a person may do about it."""

    why: str
    chain: tuple[str, ...]
    way_out: str

    def __str__(self) -> str:
        return f"{self.why} ({' -> '.join(self.chain)}): {self.way_out}"


def last_sign(context: Context, run: Run) -> Sign:
    """The latest time that rows date anything about a run: its own, those of its traces and models, and those of
    the runs below it.
    """
    children, made = context.once(_children), context.once(_made_for)
    best = Sign(0, ())
    for key, at, chain in _below(context.snapshot, run, children):
        for found, source in [(at, ""), *((tie.at, word(tie.source)) for tie in made.get(key, ()))]:
            if found > best.at:
                best = Sign(found, (source, *chain) if source else chain)
    return best


def last_written(context: Context, run: Run) -> Sign:
    """When the newest file of a run at work, or of one at work below it, was written, where the times of files say
    anything in this store.
    """
    nothing, artifacts = Sign(0, ()), context.snapshot.artifacts
    if artifacts is None or not _file_times_hold(context, run):
        return nothing
    children = context.once(_children)
    best = nothing
    for key, _, chain in _below(context.snapshot, run, children):
        if key in context.snapshot.runs and context.snapshot.runs[key].status not in TERMINAL_STATUSES:
            places = [("run", key), *(model.ref.place for model in context.snapshot.models_of(key))]
            at = latest_time(context.snapshot.taken_at, map(artifacts.newest.get, places), ())
            best = max(best, Sign(at, ("its files", *chain)))
    return best


def kept_by(context: Context, experiment: Experiment) -> Kept | None:
    """What outside of an experiment relies on it, or on a run or model in it; None where nothing does."""
    key = experiment.experiment_id
    leads = context.once(_leads)
    seen: set[Place] = set()
    waiting: deque[tuple[EntityRef, Kept]] = deque()
    for source, home, start in _roots(context, experiment):
        if home == key:
            return start
        waiting.append((source, start))
    while waiting:
        source, start = waiting.popleft()
        if source.place in seen:
            continue
        seen.add(source.place)
        for target, home in leads.get(source.place, ()):
            way_out = _UNLINK if target.kind == "artifact" else start.way_out
            told = start._replace(chain=(*start.chain, word(target)), way_out=way_out)
            if home == key:
                return told._replace(chain=(*told.chain, f"experiment {key}"))
            waiting.append((target, told))
    return None


def word(ref: EntityRef) -> str:
    """An entity as chains name it."""
    return str(EntityRef("model" if ref.kind == "logged_model" else ref.kind.replace("_", " "), ref.key, ref.label))


def _children(context: Context) -> Mapping[str, list[tuple[str, int]]]:
    """Run -> the runs that name it as their parent, each with the latest time of its rows. Of those that are held
    in full the Snapshot knows best.
    """
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for tie in context.snapshot.ties:
        if tie.how is How.CHILD:
            found[tie.target.key][tie.source.key] = tie.at
    for run in context.snapshot.runs.values():
        if PARENT in run.tags:
            at = latest_time(context.snapshot.taken_at, (context.snapshot.last_known_time(run), run.end_time), ())
            found[run.tags[PARENT]][run.run_id] = max(at, found[run.tags[PARENT]].get(run.run_id, 0))
    return {key: sorted(children.items()) for key, children in found.items()}


def _made_for(context: Context) -> Mapping[str, list[Tie]]:
    found: dict[str, list[Tie]] = defaultdict(list)
    for tie in context.snapshot.ties:
        if tie.how in (How.TRACE, How.MADE) and tie.target.kind == "run":
            found[tie.target.key].append(tie)
    return found


def _below(
    snapshot: Snapshot, run: Run, children: Mapping[str, Sequence[tuple[str, int]]]
) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """A run and all runs below it, each once however they are tied: id, latest time of its own rows, and the chain
    up to the run.
    """
    seen = {run.run_id}
    waiting: deque[tuple[str, int, tuple[str, ...]]] = deque(
        [(run.run_id, snapshot.last_known_time(run), (f"run {run.run_id}",))]
    )
    while waiting:
        key, at, chain = waiting.popleft()
        yield key, at, chain
        for child, last in children.get(key, ()):
            if child not in seen:
                seen.add(child)
                waiting.append((child, last, (f"run {child}", *chain)))


def _file_times_hold(context: Context, run: Run) -> bool:
    """Whether files were written when their rows say so: in a clone or a copy most folders are newer than every row."""
    newer, owners = context.once(lambda context: _newer_folders(context.snapshot, ""), "newer folders")
    if not owners:
        newer, owners = _newer_folders(context.snapshot, run.run_id)
    return context.snapshot.artifacts is not None and context.snapshot.artifacts.newest_row > 0 and newer * 2 <= owners


def _newer_folders(snapshot: Snapshot, run_id: str) -> tuple[int, int]:
    """Of the folders of what has ended, how many are newer than every row, and how many there are; with a run, of
    all that are at work beside it.
    """
    if snapshot.artifacts is None:
        return 0, 0
    working = {key: run for key, run in snapshot.runs.items() if run.status not in TERMINAL_STATUSES}
    newest = max(snapshot.artifacts.newest_row, 0, *(snapshot.last_known_time(run) for run in working.values()))
    owners = {place: place[1] for place in snapshot.artifacts.newest}
    owners |= {
        model.ref.place: model.source_run_id or ""
        for model in snapshot.logged_models.values()
        if model.ref.place in owners
    }
    times = [
        snapshot.artifacts.newest[place]
        for place, owner in owners.items()
        if (owner in working and owner != run_id) == bool(run_id)
    ]
    return sum(at > newest for at in times), len(times)


def _roots(context: Context, experiment: Experiment) -> Iterator[tuple[EntityRef, str, Kept]]:
    """What is alive by itself and lies outside of an experiment: its name, the experiment that it is tied to
    directly, what to say of it.
    """
    key = experiment.experiment_id
    for name in sorted(context.snapshot.registered_models):
        for version in context.snapshot.registered_models[name].versions:
            chain = named_by(context.snapshot, version)
            start = Kept(
                f"{version.ref} relies on a run or model in it", chain, "register the version from elsewhere first"
            )
            yield version.ref, "", start
            if version.experiment_id == key or _lies_in(version, experiment, context.snapshot):
                yield version.ref, key, start._replace(chain=(*chain, *_steps(version), f"experiment {key}"))
    for run in context.snapshot.runs.values():
        if run.active and run.experiment_id != key:
            if run.status == "RUNNING":
                why = f"run {run.run_id} of experiment {run.experiment_id} is at work below a run in it"
                yield run.ref, "", Kept(why, (f"run {run.run_id}",), _WAYS_OUT[How.CHILD])
            elif run.run_id in named_by_alias(context) or any(item.marks(run) for item in context.settings.products):
                by_alias = run.run_id in named_by_alias(context)
                why = (
                    f"run {run.run_id} of experiment {run.experiment_id}, which is "
                    f"{'in production by its alias' if by_alias else 'marked as production'}, relies on a run or model "
                    "in it"
                )
                way_out = "move the alias first" if by_alias else "take the mark off first"
                yield run.ref, "", Kept(why, (f"run {run.run_id}",), way_out)
    since = context.snapshot.taken_at - context.settings.runs.running_max_hours * HOUR
    for tie in context.snapshot.ties:
        kept = _of(tie, key, context.snapshot, since)
        if kept:
            yield tie.source, tie.home, kept


def _of(tie: Tie, key: str, snapshot: Snapshot, since: float) -> Kept | None:
    """What a tie that ends in an experiment keeps alive by itself; a run of a deleted experiment keeps nothing."""
    if tie.home != key:
        return None
    ends = () if tie.target.kind == "experiment" else (f"experiment {key}",)
    chain, way_out = (
        (word(tie.source), word(EntityRef(tie.target.kind, tie.target.key)), *ends),
        _WAYS_OUT.get(tie.how, ""),
    )
    if tie.how is How.USED and tie.experiment_id != key:
        home = snapshot.experiments.get(tie.experiment_id)
        if home is None or home.active:
            return Kept(f"{tie.source} of experiment {tie.experiment_id} relies on a model in it", chain, way_out)
    if tie.how is How.TRACE and tie.at > since:
        what = "it" if tie.target.kind == "experiment" else "a run in it"
        return Kept(f"traces are being logged for {what}", chain, way_out)
    if tie.how is How.MADE and tie.target.kind == "experiment" and tie.at > since:
        return Kept("a logged model is being made in it", chain, way_out)
    if tie.how in NAMED:
        return Kept(f"{word(tie.source)} {CONTENT[tie.how]}", chain, way_out)
    return None


def named_by(snapshot: Snapshot, version: ModelVersion) -> tuple[str, ...]:
    """How a chain begins that a version is the root of: with the aliases that lead to it."""
    registered = snapshot.registered_models[version.name]
    aliases = sorted(alias for alias, number in registered.aliases.items() if number == version.version)
    if not aliases:
        return (f"{version.name} version {version.version}",)
    return f"alias {' and '.join(aliases)} of {version.name}", f"version {version.version}"


def _steps(version: ModelVersion) -> tuple[str, ...]:
    """What lies between a version and the experiment that it comes from: its logged model and its run, as far as
    its row names them.
    """
    scheme, _, rest = version.source.partition(":/")
    model = rest.strip("/") if scheme == "models" and rest.strip("/").startswith("m-") else ""
    return (*((f"model {model}",) if model else ()), *((f"run {version.run_id}",) if version.run_id else ()))


def _leads(context: Context) -> Mapping[Place, list[tuple[EntityRef, str]]]:
    """Entity -> what it relies on, each with the experiment that it lies in ('' where it is a version)."""
    found: dict[Place, list[tuple[EntityRef, str]]] = defaultdict(list)
    homes: dict[Place, str] = {}
    for tie in context.snapshot.ties:
        if tie.how in (How.CHILD, How.WRITTEN_BY, How.USED, How.VERSION):
            found[tie.source.place].append((tie.target, tie.home))
            homes[tie.target.place] = tie.home
    for model in context.snapshot.logged_models.values():
        homes[model.ref.place] = model.experiment_id
    for file_tie in file_ties(context):
        found[file_tie.source.place].append((file_tie.by, ""))
        found[file_tie.by.place] += [(file_tie.target, home) for home in file_tie.homes]
    for run in context.snapshot.runs.values():
        # A run relies on the files of its models.
        for model in context.snapshot.models_of(run.run_id):
            found[run.ref.place].append((EntityRef("logged_model", model.model_id), model.experiment_id))
        # What a plan copies has no ties of its own.
        for link in run.models:
            target = EntityRef("logged_model", link.model_id)
            if target.place in homes:
                found[run.ref.place].append((target, homes[target.place]))
        parent = context.snapshot.runs.get(run.tags.get(PARENT, ""))
        if parent is not None:
            found[run.ref.place].append((EntityRef("run", parent.run_id), parent.experiment_id))
    for registered in context.snapshot.registered_models.values():
        for version in registered.versions:
            named = _OF_A_VERSION.match(version.source)
            other = context.snapshot.registered_models.get(unquote(named[1])) if named else None
            original = other.version(named[2] or other.aliases.get(named[3])) if named and other else None
            if original is not None:
                found[version.ref.place].append((original.ref, original.experiment_id))
    return found


def _lies_in(version: ModelVersion, experiment: Experiment, snapshot: Snapshot) -> bool:
    """Whether the files of a version lie in an experiment's folder. Where nobody looked at them, what the rows say
    counts.
    """
    places = snapshot.artifacts.locations if snapshot.artifacts else {}
    files, home = places.get(version.ref.place), places.get(experiment.ref.place)
    found = [(files, home)] if files and home else []
    found += [(_path(uri), _path(experiment.artifact_location)) for uri in (version.location, version.source)]
    return any(above and path.startswith(above + os.sep) for path, above in found)


def _path(uri: str) -> str:
    """A location as it is compared with others: without scheme and host where that is this machine or the server,
    in one spelling.
    """
    scheme = _SCHEME.match(uri)
    if scheme and scheme[1].lower() in ("file", "mlflow-artifacts"):
        uri = f"{'' if scheme[1].lower() == 'file' else SERVED}{unquote(uri[scheme.end() :])}"
    return uri.replace("\\", "/").rstrip("/")
