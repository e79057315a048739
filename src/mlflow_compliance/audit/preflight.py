"""What `mlflow gc` would destroy and what of that is still needed, found and told without changing anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from mlflow_compliance.production.context import Context
from mlflow_compliance.production.needed import needed
from mlflow_compliance.production.reachability import Kept
from mlflow_compliance.safe_text import first_of, without_secrets
from mlflow_compliance.snapshot.doomed import Doom, Doomed, DoomedFolder
from mlflow_compliance.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit

Place = tuple[str, str]
_KINDS = {"run": "run", "logged_model": "logged model", "experiment": "experiment", "job": "job"}
_FEW = 3


@dataclass(frozen=True)
class Preflight:
    """What one call of gc would do in one workspace."""

    command: str
    doom: Doom
    snapshot: Snapshot
    folders: Mapping[Place, DoomedFolder]
    needed: Mapping[Place, tuple[Kept, ...]]

    @property
    def files(self) -> dict[str, int]:
        """Path of every file that goes -> the bytes that its removal frees."""
        return {
            path: file.frees
            for item in self.doom.things
            if item.files_go and item.ref.place in self.folders
            for path, file in self.folders[item.ref.place].files.items()
        }

    @property
    def left(self) -> list[tuple[str, int]]:
        """Folders that gc leaves behind without an owner, each with its bytes."""
        return [
            (folder.place, sum(file.size for file in folder.files.values()))
            for item in self.doom.things
            if not item.files_go and item.ref.kind != "experiment"
            for folder in [self.folders.get(item.ref.place)]
            if folder is not None and folder.files
        ]


def preflight(audit: Audit) -> list[Preflight]:
    """One for each workspace that gc goes through. Raises StoreError where it cannot be told."""
    options, older_than = audit.options.gc_options or "", audit.options.gc_older_than
    words = " ".join(filter(None, ("mlflow gc", f"--older-than {older_than}" if older_than else "", options)))
    found = []
    for doom, snapshot, folders in audit.store.doomed(options, older_than, audit.progress()):
        context = Context(snapshot, audit.settings)
        found.append(Preflight(words, doom, snapshot, folders, needed(context, doom, folders)))
    return found


def lines_of(found: list[Preflight]) -> Iterator[tuple[str, bool]]:
    """Lines for people, each with whether all is well with it."""
    for item in found:
        where = f", workspace {item.doom.workspace}" if item.doom.workspace else ""
        what = f"{without_secrets(item.command)} (MLflow {item.doom.version}) on {item.snapshot.info.uri}{where}"
        yield f"{what} would destroy:" if item.doom.things else f"{what} would destroy nothing", True
        for thing in sorted(item.doom.things, key=_order):
            needs = item.needed.get(thing.ref.place, ())
            yield _line(thing, item), not needs
            for kept in needs[:_FEW]:
                yield f"    still needed: {kept}", False
            if len(needs) > _FEW:
                yield f"    and {len(needs) - _FEW} more reasons", False
        for stop in item.doom.stops:
            after = "which of these runs are gone by then is chance, and it comes to nothing after them"
            yield f"gc gives up at {stop.at} ({stop.why}): {after}", False
        if item.doom.things:
            yield _totals(item), not item.needed
        if item.doom.rows:
            yield "rows: " + ", ".join(f"{number} {table}" for table, number in item.doom.rows.items()), True
        yield from ((f"scope: {line}", True) for line in _scope(item))


def _order(thing: Doomed) -> tuple[int, str, int, str]:
    """By kind, what goes along with an experiment last."""
    return [*_KINDS].index(thing.ref.kind), thing.along_with, thing.deleted_at, thing.ref.key


def _line(thing: Doomed, item: Preflight) -> str:
    name = f" {thing.ref.label!r}" if thing.ref.label else ""
    words = [f"{_KINDS[thing.ref.kind]} {thing.ref.key}{name}"]
    if thing.ref.kind in ("run", "logged_model"):
        words[0] += f" of experiment {thing.experiment_id}"
    if thing.along_with:
        words.append(f"goes with experiment {thing.along_with}{', not deleted itself' if thing.active else ''}")
    if thing.ref.kind != "job" and not thing.active:
        words.append(f"deleted {_time(thing.deleted_at)}" if thing.deleted_at else "no row tells when it was deleted")
    if thing.ref.kind == "experiment":
        words += _content(thing, item)
    elif thing.ref.kind != "job":
        words.append(_bytes(thing, item.folders.get(thing.ref.place)))
    return "; ".join(words)


def _content(thing: Doomed, item: Preflight) -> Iterator[str]:
    inside = [other for other in item.doom.things if other.experiment_id == thing.ref.key and other is not thing]
    for kind in ("run", "logged_model"):
        number = sum(other.ref.kind == kind for other in inside)
        if number:
            yield f"{number} {_KINDS[kind]}{'s' * (number != 1)}"
    row = item.snapshot.experiments.get(thing.ref.key)
    if row is not None and row.traces:
        yield f"{row.traces} trace{'s' * (row.traces != 1)}"
    if row is not None:
        yield from (f"{number} {what}" for what, number in row.dependents)


def _bytes(thing: Doomed, folder: DoomedFolder | None) -> str:
    if folder is None:
        return "no files"
    if folder.unknown:
        return f"how many bytes is not known: {without_secrets(folder.unknown)}"
    size, freed = (sum(file[at] for file in folder.files.values()) for at in (0, 1))
    counted = f"{len(folder.files)} file{'s' * (len(folder.files) != 1)}"
    if not thing.files_go:
        return f"its {counted}, {size} bytes, stay on disk" if folder.files else "no files"
    shared = f" ({size - freed} more are shared with what stays, or counted already)" if size > freed else ""
    return f"{freed} bytes in {counted}{shared}"


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def _totals(item: Preflight) -> str:
    number = len(item.doom.things)
    unknown = sum(bool(folder.unknown) for folder in item.folders.values())
    more = f", and those of {unknown} that could not be looked at" if unknown else ""
    freed = sum(item.files.values())
    return f"{number} thing{'s' * (number != 1)}, {freed} bytes{more}; {len(item.needed)} of them still needed"


def _scope(item: Preflight) -> Iterator[str]:
    """What gc leaves behind and gets wrong, and what was not looked at."""
    left = item.left
    if left:
        places = first_of([without_secrets(place) for place, _ in left], _FEW)
        yield (
            f"gc leaves {len(left)} folder{'s' * (len(left) != 1)} of models and runs on disk whose rows it drops, "
            f"{sum(size for _, size in left)} bytes: {places}"
        )
    gone = [thing for thing in item.doom.things if thing.ref.kind == "experiment"]
    if item.doom.reused:
        yield (
            f"SQLite gives the number {item.doom.reused} to the next experiment that is made, with the folder of the "
            "one that had it"
        )
    if gone:
        yield "gc leaves the folders of experiments, and of traces in them, on disk"
    if any(thing.files_go and thing.uri.startswith("s3:") for thing in item.doom.things):
        yield "in a bucket that keeps versions of objects nothing is freed by this"
    artifacts = item.snapshot.artifacts
    if artifacts is not None and artifacts.relocated:
        yield "gc knows nothing of [store.relocate]: it looks where the rows say"
    if item.snapshot.other_workspaces and not item.doom.workspace:
        yield f"not looked at: {first_of(item.snapshot.other_workspaces, _FEW)} (other workspaces)"
    if artifacts is not None and artifacts.unknown:
        yield (
            f"not looked at: the files of {len(artifacts.unknown)} rows, such as those of "
            f"{' '.join(min(artifacts.unknown))}: what leads from there is not known"
        )
    if item.doom.things:
        yield "files that share blocks by a clone (reflink) are counted in full"
