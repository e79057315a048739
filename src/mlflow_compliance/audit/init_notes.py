"""What is unusual about a store, in sentences for people who meet it for the first time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from mlflow_compliance.production.context import Context
from mlflow_compliance.production.families import sounds_like_production
from mlflow_compliance.safe_text import first_of, printable
from mlflow_compliance.settings.schema import folded
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import DEFAULT
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.words import several

FEW = 3
"""Names in one sentence."""


def unusual(context: Context, without_files: str) -> Iterator[str]:
    """Each thing by itself, with the rule that tells more; `without_files` says why no file was looked at."""
    yield from _database(context.snapshot)
    yield from _experiments(context.snapshot)
    yield from _registry(context)
    if without_files:
        yield f"no file was looked at: {without_files}"
    if context.snapshot.artifacts is not None:
        yield from _files(context.snapshot.artifacts)


def _database(snapshot: Snapshot) -> Iterator[str]:
    if snapshot.schema is not None and snapshot.schema.problem:
        yield f"the database {snapshot.schema.problem}: {snapshot.schema.observed} (STO003)"
    if snapshot.lost_rows:
        yield "rows whose parent row is not there (STO002)"
    if snapshot.damaged:
        yield f"{several(len(snapshot.damaged), 'file')} of the store cannot be read (STO005)"
    if snapshot.other_workspaces:
        yield f"not read: {_names(snapshot.other_workspaces)} (other workspaces)"


def _experiments(snapshot: Snapshot) -> Iterator[str]:
    active = list(snapshot.active_experiments())
    default = snapshot.experiments.get(DEFAULT)
    if default is not None and default.active and default.count():
        yield f"{several(default.count(), 'run')} in MLflow's Default experiment, where runs go that name none (EXP003)"
    if default is not None and not default.active:
        yield "MLflow's Default experiment is deleted (EXP005)"
    running = sum(item.count(status="RUNNING") for item in active)
    if running:
        yield f"{several(running, 'run')} RUNNING; RUN001 tells those without a sign of life ([runs] running_max_hours)"
    alike = defaultdict(list)
    for item in active:
        alike[folded(item.name)].append(item.name)
    for names in alike.values():
        if len(names) > 1:
            yield f"names that people take for one: {_names([repr(name) for name in names])}"
    odd = [repr(item.name) for item in active if printable(item.name) != item.name or item.name != item.name.strip()]
    if odd:
        what = "of experiments with spaces at an end, or characters that nobody sees"
        yield f"{several(len(odd), 'name')} {what}: {_names(odd)}"
    kept = [item.name for item in snapshot.experiments.values() if not item.active and item.name != item.retired_name]
    if kept:
        yield f"{several(len(kept), 'deleted experiment')} whose names nobody can use again: {_names(kept)} (EXP004)"


def _registry(context: Context) -> Iterator[str]:
    models = [model for _, model in sorted(context.snapshot.registered_models.items())]
    named = {product.production.registered_model for product in context.settings.products}
    left = [model.name for model in models if model.name not in named]
    if left:
        what = "in no product, since nothing says that they are in production"
        yield f"{several(len(left), 'registered model')} {what}: {_names(left)}"
    staged = [
        f"{model.name} {version.version}"
        for model in models
        for version in model.versions
        if version.stage not in ("", "None")
    ]
    if staged:
        yield f"{several(len(staged), 'version')} with stages, which MLflow gives up: {_names(staged)} (REG003)"
    dangling = [
        f"{model.name}@{alias}"
        for model in models
        for alias, number in model.aliases.items()
        if not model.version(number)
    ]
    if dangling:
        yield f"aliases of versions that are not there: {_names(dangling)} (REG005)"
    for model in models:
        rivals = {alias: number for alias, number in sorted(model.aliases.items()) if sounds_like_production(alias)}
        if len(set(rivals.values())) > 1:
            shown = [f"{alias} (version {number})" for alias, number in rivals.items()]
            yield f"aliases of {model.name} that sound like production and differ: {_names(shown)}"


def _files(artifacts: Artifacts) -> Iterator[str]:
    for moved in artifacts.moved:
        if not moved.folder:
            yield f"files of rows that name {moved.prefix} are in several folders: {_names(moved.folders)} (ART003)"
    known = {place for moved in artifacts.moved for place in moved.places}
    away = [item for item in artifacts.unreachable if item.place not in known]
    if away:
        rows, places = sum(item.rows for item in away), [item.place for item in away]
        yield f"the files of {several(rows, 'row')} are not to be reached: {_names(places)} (ART003)"
    if artifacts.ownerless:
        size = sum(item.size for item in artifacts.ownerless.values())
        yield f"{several(len(artifacts.ownerless), 'folder')} of {size} bytes that no row owns (ART002)"
    if artifacts.unread:
        yield f"{several(len(artifacts.unread), 'path')} that cannot be read: {_names(list(artifacts.unread))}"


def _names(names: list[str] | tuple[str, ...]) -> str:
    return first_of([printable(name, 80) for name in names], FEW)
