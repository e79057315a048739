"""What a purge may destroy: what repairs of this store retired, took back or put aside, as their journals prove, as far
as nothing needs it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from mlflow_compliance.audit.journals import Shelf
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.needed import needed
from mlflow_compliance.repair.purge_document import KeptItem, PurgedFile, PurgeItem
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.doomed import Doom, Doomed, DoomedFolder
from mlflow_compliance.snapshot.files import QUARANTINE
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.snapshot.tags import COPIED_BY, COPY_STATE, RETIRED_IN, RETRACTED, SOURCE_RUN
from mlflow_compliance.store.storage.locations import scheme_of
from mlflow_compliance.store.write.purging import files_at

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.repair.reading import Entry, JournalRecord

NO_LIMIT = "the settings set no [retention] deleted_days, so nothing says how long what is deleted is kept"


class Proven(NamedTuple):
    """What journals prove that repairs left behind, each with the journal."""

    homes: Mapping[str, str]
    """Experiment that was retired."""
    copies: Mapping[tuple[str, str], str]
    """(source run, journal that copied it) of a copy that was taken back."""
    aside: Mapping[str, tuple[str, int]]
    """Path in a quarantine -> journal, and when that was, in milliseconds."""
    begun: Mapping[tuple[str, str, str], str]
    """(plan, kind, key) that a purge began and did not end -> its journal."""
    done: frozenset[tuple[str, str, str]]


@dataclass(frozen=True)
class Purgeable:
    """What could be purged now, and what is not, with the reason."""

    items: tuple[PurgeItem, ...]
    kept: tuple[KeptItem, ...]
    snapshot: Snapshot


def proven(audit: Audit) -> Proven:
    """What the verified journals of a store say. Raises StoreError where one cannot be read."""
    shelf = Shelf(audit.store)
    homes: dict[str, str] = {}
    copies: dict[tuple[str, str], str] = {}
    aside: dict[str, tuple[str, int]] = {}
    begun: dict[tuple[str, str, str], str] = {}
    done = set[tuple[str, str, str]]()
    for record in shelf.records.values():
        if record.problem or not record.chained:
            continue
        if record.is_purge:
            for entry in record.entries:
                key = (record.text("plan"), str(entry.do.get("kind_of")), str(entry.do.get("key")))
                done |= {key} if entry.state == "done" else set()
                begun |= {} if entry.state == "done" else {key: record.id}
            continue
        back = shelf.undone(record)
        for entry in record.done:
            if entry.number not in back:
                _take(record, entry, homes, copies, aside)
    return Proven(homes, copies, aside, {key: at for key, at in begun.items() if key not in done}, frozenset(done))


def _take(
    record: JournalRecord,
    entry: Entry,
    homes: dict[str, str],
    copies: dict[tuple[str, str], str],
    aside: dict[str, tuple[str, int]],
) -> None:
    do, kind = entry.do, entry.do.get("kind")
    if kind == "DeleteExperiment":
        homes[str(do["experiment_id"])] = record.id
    elif kind == "RetractCopy":
        copied_by = str(do["journal"])
        copies[str(do["run_id"]), entry.bound.get(copied_by, copied_by)] = record.id
    elif kind == "MoveToQuarantine":
        root, path = str(do["root"]), str(do["path"])
        target = os.path.join(root, QUARANTINE, record.id, os.path.relpath(path, root))
        if os.path.normpath(target) == target and os.path.lexists(target):
            at = datetime.fromisoformat(record.text("at")).timestamp()
            aside[target] = (record.id, int(at * 1000))


def purgeable(audit: Audit, known: Proven) -> Purgeable:
    """What may go now. Raises StoreError."""
    more = [
        Doomed(EntityRef("quarantined", path), "", at, path, files_go=True) for path, (_, at) in known.aside.items()
    ]
    doom, snapshot, folders = audit.store.left_by_repairs(list(known.homes), more, audit.progress())
    context = Context(snapshot, audit.settings)
    doom, by = _ours(doom.things, doom, known, snapshot)
    needs = needed(context, doom, folders)
    rows = audit.store.details([item.ref.key for item in doom.things if item.ref.kind == "run"])[0]
    items, kept = list[PurgeItem](), list[KeptItem]()
    for item in sorted(doom.things, key=lambda item: (_ORDER.index(item.ref.kind), item.ref.key)):
        place = item.ref.place
        folder = folders.get(place, DoomedFolder("", {}, "no row says where its files lie"))
        why = _stays(item, folder, snapshot, [str(reason) for reason in needs.get(place, ())])
        files: Mapping[str, tuple[int, str]] = {}
        if not why:
            try:
                files = files_at(folder.place)
            except ChangeError as error:
                why = str(error)
        if why:
            kept.append(KeptItem(kind=item.ref.kind, key=without_secrets(item.ref.key), why=without_secrets(why)))
            continue
        run = rows.get(item.ref.key)
        items.append(
            PurgeItem(
                kind=item.ref.kind,  # type: ignore[arg-type]
                key=item.ref.key,
                label=item.ref.label,
                experiment=item.experiment_id,
                place=folder.place,
                deleted_at=item.deleted_at,
                by=by[place],
                because=_because(item, audit),
                files=[PurgedFile(path=path, size=size, sha256=digest) for path, (size, digest) in files.items()],
                freed=sum(file.frees for file in folder.files.values()),
                row={}
                if run is None
                else {
                    "status": run.status,
                    "start_time": run.start_time,
                    "end_time": run.end_time,
                    "params": dict(run.params),
                    "metrics": {key: repr(value) for key, value in run.latest.items()},
                    "tags": dict(run.tags),
                },
            )
        )
    return Purgeable(tuple(items), tuple(kept), snapshot)


_ORDER = ("logged_model", "run", "quarantined")
"""A model goes before the run that wrote it."""


def _ours(
    things: Sequence[Doomed], doom: Doom, known: Proven, snapshot: Snapshot
) -> tuple[Doom, dict[tuple[str, str], str]]:
    """Only what a journal proves, with that journal."""
    retired = {
        key: journal
        for key, journal in known.homes.items()
        if key in snapshot.experiments and snapshot.experiments[key].tags.get(RETIRED_IN) == journal
    }
    by = dict[tuple[str, str], str]()
    for item in things:
        if item.ref.kind == "quarantined":
            by[item.ref.place] = known.aside[item.ref.key][0]
        elif item.experiment_id in retired:
            by[item.ref.place] = retired[item.experiment_id]
        elif item.tags.get(COPY_STATE) == RETRACTED:
            copied = (item.tags.get(SOURCE_RUN, ""), item.tags.get(COPIED_BY, ""))
            by |= {item.ref.place: known.copies[copied]} if copied in known.copies else {}
    for item in things:
        writer = ("run", item.run_id)
        if item.ref.kind == "logged_model" and item.ref.place not in by and writer in by:
            by[item.ref.place] = by[writer]
    return replace(doom, things=tuple(item for item in things if item.ref.place in by)), by


def _stays(item: Doomed, folder: DoomedFolder, snapshot: Snapshot, needs: list[str]) -> str:
    """Why something is not purged, empty where it may be. What cannot be looked at stays."""
    if needs:
        return needs[0]
    if scheme_of(item.uri) not in ("", "file"):
        return "its files do not lie in a folder: nothing is deleted from a bucket or behind a server"
    if folder.unknown:
        return folder.unknown
    artifacts, place = snapshot.artifacts, folder.place
    root = artifacts.root_of(place) if artifacts else None
    if artifacts is None or root is None or place == root.path:
        return f"{place} lies below no artifact root of this store" if os.path.lexists(place) else ""
    if item.ref.kind != "quarantined" and item.ref.key not in place.split(os.sep):
        return f"its folder {place} does not bear its id"
    if os.path.islink(place):
        return f"{place} is a symbolic link"
    doubt = artifacts.doubt(place)
    return str(doubt) if doubt else ""


def _because(item: Doomed, audit: Audit) -> str:
    days = audit.settings.retention.deleted_days
    what = "a repair deleted it"
    if item.tags.get(COPY_STATE) == RETRACTED:
        what = "a repair took it back"
    elif item.ref.kind == "quarantined":
        what = "a repair put it aside, and no row owns its former place"
    return (
        f"{what}; nothing needs it; {f'longer than deleted_days = {days:g} ago' if days else 'no deleted_days is set'}"
    )
