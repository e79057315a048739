"""The text of a compliance.toml that says what a store shows: products as settings, guesses and what is unusual as
comments. A function of what was read of the store.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from mlflow_compliance.audit.init_notes import unusual
from mlflow_compliance.production.agreement import COSTS
from mlflow_compliance.production.candidates import Candidate, candidates, product_lines
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.facts import threshold_in_force
from mlflow_compliance.production.families import patterns
from mlflow_compliance.production.marks import BUILT_IN, said_in
from mlflow_compliance.production.proposed import MOST, likely_tests, list_of_tests, relocations, unclassified
from mlflow_compliance.safe_text import first_of, printable, without_secrets
from mlflow_compliance.settings.schema import Settings, StoreSettings
from mlflow_compliance.settings.toml import parse, quoted
from mlflow_compliance.snapshot.entities import Experiment, Run
from mlflow_compliance.snapshot.snapshot import Snapshot

PRODUCTS = 100
"""Products in one file: nobody reads more, and PRD008 and REG006 tell of the others."""
WEAK = 10
"""Products in one file where they are registered models that nothing says is in production."""
NAMES = 12
"""Names of params or metrics in one line."""
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)(/[^?]*)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Beside:
    """Files beside the store that production may have been made from: paths from the folder of the settings."""

    models: tuple[str, ...] = ()
    predictions: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A settings file as text, and what to tell of it."""

    text: str
    store: str
    """The store and how much it holds."""
    products: tuple[Candidate, ...]
    relocated: int
    tests: int
    unclassified: int
    unusual: tuple[str, ...] = ()


@dataclass(frozen=True)
class Read:
    """What was read of a store: where it is, as it was named, its snapshot, and why no files are in that."""

    uri: str
    snapshot: Snapshot
    folder: Path
    """Where the settings will lie."""
    without_files: str = ""
    beside: Beside = field(default_factory=Beside)


def draft(read: Read) -> Draft:
    """The settings for a store. Raises ValueError where they would not be read back: that is a mistake here."""
    context = Context(read.snapshot, Settings())
    found = candidates(context)
    strong = [item for item in found if item.primary or item.alias or "stage" in " ".join(item.seen)]
    most = PRODUCTS if strong else WEAK
    for item in found[:most]:
        item.offers = list(_offers(item, context, read.beside))
    products = list(product_lines(found, context.settings, most))
    said = Context(read.snapshot, Settings.model_validate(parse("\n".join(products))))
    tests, silent = likely_tests(said), unclassified(said)
    notes = tuple(unusual(said, read.without_files))
    moved = _moved(read)
    lines = [
        *_head(read, found),
        *_store(read),
        *([] if not moved else ["", "[store.relocate]", *moved]),
        "",
        *_about_products(found),
        *products,
        *_experiments(tests, silent, said),
        *_notes(notes),
    ]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n") + "\n"
    Settings.model_validate(parse(text))
    relocated = sum(not line.startswith("#") for line in moved)
    store = f"{read.snapshot.info.uri}: {contents(read.snapshot)}"
    return Draft(text, store, tuple(found[:most]), relocated, len(tests), len(silent), notes)


def _head(read: Read, found: Sequence[Candidate]) -> Iterator[str]:
    snapshot = read.snapshot
    day = datetime.fromtimestamp(snapshot.taken_at / 1000, timezone.utc).strftime("%Y-%m-%d")
    yield f"# Settings of pytest-mlflow-compliance. --compliance-init wrote them on {day} from what the store showed:"
    yield f"# {contents(snapshot)}."
    yield "# What stands here holds from now on, so read it once, the products first. Lines that begin with '#' and no"
    yield "# space are guesses that wait for your word: take the sign off where they are right."
    yield ""
    if not found:
        yield "# Nothing here looks like production: no alias, stage, tag or name says so. If that is right, say it:"
        yield "#products = []"
        yield ""


def contents(snapshot: Snapshot) -> str:
    """How much a store holds, in a few words."""
    active = list(snapshot.active_experiments())
    numbers = (
        (len(active), "experiment"),
        (sum(item.count() for item in active), "run"),
        (len(snapshot.registered_models), "registered model"),
    )
    return ", ".join(f"{number} {what}{'s' * (number != 1)}" for number, what in numbers)


def _store(read: Read) -> Iterator[str]:
    yield "[store]"
    uri = tracking_uri(read.uri, read.folder)
    if uri is not None:
        yield f"tracking_uri = {quoted(uri)}"
        return
    yield "# Its URI holds credentials, which belong in no file: set MLFLOW_TRACKING_URI, or give --tracking-uri."
    yield f"#tracking_uri = {quoted(without_secrets(read.uri))}"


def tracking_uri(uri: str, folder: Path) -> str | None:
    """A tracking URI as settings in a folder spell it, from that folder where the store lies in it; None where it holds
    credentials.
    """
    absolute = StoreSettings(tracking_uri=uri).resolved_uri(Path.cwd()) or uri
    if without_secrets(absolute) != absolute or without_secrets(uri) != uri:
        return None
    sqlite = _SQLITE.fullmatch(absolute)
    start, path, rest = sqlite.groups() if sqlite else ("", absolute.removeprefix("file://"), "")
    relative = start + within(path, folder) + rest
    same = StoreSettings(tracking_uri=relative).resolved_uri(folder) in (absolute, path)
    spelled = path.startswith("/") and ("%" not in path or bool(sqlite))  # of a file: URI that is an escape
    return relative if same and spelled else absolute


def within(path: str, folder: Path) -> str:
    """A path from a folder where it lies below that; else as it is."""
    return os.path.relpath(path, folder) if Path(path).is_relative_to(folder) and Path(path) != folder else path


def _moved(read: Read) -> list[str]:
    artifacts = read.snapshot.artifacts
    lines: list[str] = []
    for found in artifacts.moved if artifacts else ():
        lines.append(f"# {printable(found.prefix)}:")
        number = f"the ids of {found.rows} of {found.of} of its rows"
        if found.folder:
            near = found._replace(folders=(within(found.folder, read.folder),))
            lines += [f"# {number} are in this folder, which is read in its place; --fix rewrites the rows (ART003)"]
            lines += relocations([near])
        else:
            places = [
                f"#{line}" for folder in found.folders for line in relocations([found._replace(folders=(folder,))])
            ]
            lines += [f"# {number} are in each of these folders: take the sign off the right one", *places]
    return lines


def _about_products(found: Sequence[Candidate]) -> Iterator[str]:
    if found:
        yield "# One table for each model in production. Take out what is not; add what is missing."


def _offers(item: Candidate, context: Context, beside: Beside) -> Iterator[str]:
    """What the production run shows and the settings may hold it to, and what may be missing; comments all."""
    run = _production_run(item, context)
    if not item.registered_model:
        yield "# No registered model goes by this name. Once one does, programs load it by name and alias:"
        yield f"#registered_model = {quoted(item.name)}"
    if run is None:
        return
    carried = {"required_params": sorted(run.params), "required_metrics": sorted(run.metrics)}
    if any(carried.values()):
        yield f"# What run {printable(run.name or run.run_id)} carries, and the next one may be held to:"
    for name, keys in carried.items():
        if keys:
            more = f"  # and {len(keys) - NAMES} more" if len(keys) > NAMES else ""
            yield f"#{name} = [{', '.join(map(quoted, keys[:NAMES]))}]{more}"
    snapshot = context.snapshot
    if snapshot.artifacts is None or snapshot.model_folders(run) or snapshot.unknown_files(run):
        return
    yield "# That run has no model. If its files were kept elsewhere, name them: --fix logs a production run from them."
    yield f"#run_name = {quoted(f'{run.name or item.name}_complete')}"
    yield from (f"#model = {quoted(path)}" for path in beside.models)
    yield from (f"#predictions = {quoted(path)}" for path in beside.predictions)
    yield from (f"#features = {quoted(path)}  # some of the predicted rows" for path in beside.features)
    if not beside.models:
        yield '#model = "model.pkl"'
    if not beside.predictions:
        yield '#predictions = "predictions.parquet"'
    try:
        threshold = threshold_in_force(BUILT_IN, run.params, run.latest, run.tags)
    except ValueError:
        threshold = None
    if threshold is not None:
        yield f"#threshold = {threshold[0]!r}  # decides where runs disagree; this is what that run says"
    for kind, names in COSTS.items():
        costs = [run.params[name] for name in names if re.fullmatch(r"\d{1,12}(\.\d{1,6})?", run.params.get(name, ""))]
        yield from (f"#{kind}_cost = {cost}" for cost in costs[:1])


def _production_run(item: Candidate, context: Context) -> Run | None:
    """The run that the alias leads to, else the only one of its experiments that is marked; None without one."""
    snapshot = context.snapshot
    model = snapshot.registered_models.get(item.registered_model)
    version = model.version(model.aliases.get(item.alias)) if model else None
    if version is not None and version.run_id:
        return snapshot.runs.get(version.run_id)
    names = {item.primary, *item.rivals}
    homes = [home.experiment_id for home in snapshot.active_experiments() if home.name in names]
    runs = [run for key in homes for run in snapshot.runs_of(key) if any(said_in(run.tags, context.settings))]
    return runs[0] if len(runs) == 1 else None


def _experiments(tests: list[Experiment], silent: list[Experiment], said: Context) -> Iterator[str]:
    if tests or silent:
        yield "[experiments]"
    if tests:
        yield "# Named like tests (EXP002). Once they are named here, --fix renames and deletes them:"
        yield from (f"#{line.lstrip()}" for line in list_of_tests(tests))
    if not silent:
        return
    rules = said.settings.experiments
    yield "# Nothing says what these are (EXP003). Leave in what was development work: --fix archives it by a tag."
    yield f"# The others need a tag {rules.lifecycle_tag}, one of {', '.join(rules.lifecycle_values)}."
    named = {item.own_name: item for item in silent}
    others = [item.own_name for item in said.snapshot.experiments.values() if item.own_name not in named]
    found = patterns(list(named), others, MOST)
    yield "#development = ["
    for pattern in found[:MOST]:
        yield f"#{quoted(pattern.text)},{f'  # {pattern.names} experiments' if pattern.names > 1 else ''}"
    if len(found) > MOST:
        left = sum(pattern.names for pattern in found[MOST:])
        yield f"## ... and {left} more experiments"
    yield "#]"


def _notes(notes: Sequence[str]) -> Iterator[str]:
    if notes:
        yield ""
        yield "# Unusual here; the rules in brackets tell more:"
        yield from (f"# - {printable(note)}" for note in notes)


def told(made: Draft, where: str, command: str) -> Iterator[str]:
    """What was found, in a few lines for people."""
    names = [printable(item.name, 60) for item in made.products]
    count = len(names)
    yield f"wrote {where}, for {made.store}"
    yield (
        f"  products: {count} ({first_of(names, 5)})"
        if names
        else "  products: none, nothing here looks like production"
    )
    doubtful = [printable(item.name, 60) for item in made.products if item.rivals and not item.by_alias]
    if doubtful:
        yield f"  to decide: which experiment is the production of {first_of(doubtful, 5)} ('primary' in the file)"
    if made.relocated:
        yield f"  moved files: {made.relocated} line{'s' * (made.relocated != 1)} of [store.relocate]"
    waiting = [(made.tests, "named like tests"), (made.unclassified, "of which nothing says what they are")]
    listed = [f"{number} experiment{'s' * (number != 1)} {what}" for number, what in waiting if number]
    if listed:
        yield f"  as comments, for your word: {', '.join(listed)}"
    if made.unusual:
        yield f"  unusual: {len(made.unusual)} thing{'s' * (len(made.unusual) != 1)}, at the end of the file"
    yield f"read it, then run: {command}"
