"""Decides what may be moved and what may share a copy: a file is changed only where it is proven whose it is."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from mlflow_compliance.errors import StoreError
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import OWNER_NOTE, Ownerless, in_folder
from mlflow_compliance.snapshot.ownership import Doubt
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.store.backends.base import Backend, Rows
from mlflow_compliance.store.backends.sql import SqlBackend
from mlflow_compliance.store.ownership.entries import Entry, entries_of
from mlflow_compliance.store.ownership.other_stores import Database, above, leads_to, look_into, neighbours_of
from mlflow_compliance.store.ownership.outdated import compare_with_rows
from mlflow_compliance.store.ownership.texts import Named, named_in
from mlflow_compliance.store.ownership.unresolved import Meant, meant_by
from mlflow_compliance.store.storage.interrupted import broken_off
from mlflow_compliance.store.storage.locations import is_relative
from mlflow_compliance.store.storage.owner_notes import read_note

_MOVED = "map the place that the rows name with [store.relocate] if these are its files"
_BY_HAND = "see whose it is, and move it by hand if it is nobody's"
_ANOTHER_WORKSPACE = "another workspace of this store owns it"


def with_ownership(
    found: Artifacts, snapshot: Snapshot, rows: Rows, backend: Backend, insisted: Collection[str], *, journals: str = ""
) -> Artifacts:
    """Artifacts with what is known of whose they are. `insisted` are the roots that the user says are this store's.

    `journals` is the folder of its journals.

    Raises StoreError where one of those is no root. What takes time is only looked at where something could be moved or
    share a copy.
    """
    roots = [root.path for root in found.roots if in_folder(root.path)]
    strange = sorted(set(insisted) - set(roots))
    if strange:
        named = ", ".join(roots) or "none in a folder of this machine"
        raise StoreError(
            f"--fix-owned-root names {strange[0]}, which is no artifact root of the store {backend.info.uri}; its "
            f"roots: {named}"
        )
    notes = _Notes(roots, backend)
    found = replace(found, claimed=frozenset(notes.ours), insisted=frozenset(insisted))
    if not found.ownerless and len(set(found.hashes.values())) == len(found.hashes):
        return found
    meant = meant_by(rows.locations, found, snapshot.experiments)
    entries = entries_of(found)
    ids = {key for entry in entries for key in entry.ids}
    neighbours = list(neighbours_of(found, backend.home, backend.own(), ids, meant.known))
    doubts = {
        root: Doubt(reason, f"if all in it is this store's own, insist with --fix-owned-root={shlex.quote(root)}")
        for root in roots
        if root not in insisted
        and (
            reason := notes.reason(root)
            or ("" if root in notes.ours else _strange(root, found, rows, backend, neighbours))
        )
    }
    doubts |= _meant_by_others(found, meant)
    found = replace(found, doubts=doubts)
    if not entries:
        return found
    kept = _kept(entries, found, meant, rows, backend, neighbours)
    # What a copy of this very database knows is no other store's: that copy is the newer one.
    copies = [other.path for other in neighbours if other.shares]
    others = [path for path, item in kept.items() if not any(copy in item.keep for copy in copies)]
    dated = compare_with_rows(
        found,
        [location.owner.key for location in rows.locations],
        others,
        snapshot,
        backend.newest_row,
        broken_off(journals),
    )
    return backend.keep_what_is_hidden(replace(dated, ownerless={**dated.ownerless, **kept}))


class _Notes:
    """What the notes of earlier repairs in the roots say."""

    def __init__(self, roots: Iterable[str], backend: Backend) -> None:
        self.ours: set[str] = set()
        self._reasons: dict[str, str] = {}
        for root in roots:
            try:
                note = read_note(root)
            except (OSError, ValueError, TypeError, KeyError):
                self._reasons[root] = f"the note {OWNER_NOTE} in it, which says whose it is, cannot be read"
                continue
            if note and note.copied:
                self._reasons[root] = f"the note {OWNER_NOTE} in it was copied, and the whole root with it"
            elif note and note.database != backend.identity():
                self._reasons[root] = (
                    f"the note {OWNER_NOTE} in it says that another database owns it, then at {note.store}"
                )
            elif note:
                self.ours.add(root)

    def reason(self, root: str) -> str:
        """Why a note speaks against this store, empty where none does."""
        return self._reasons.get(root, "")


def _strange(root: str, found: Artifacts, rows: Rows, backend: Backend, neighbours: Sequence[Database]) -> str:
    """Why a root without a note is perhaps not this store's alone; empty where it evidently is."""
    home = backend.home
    way = above(root, home)
    near = [other for other in neighbours if os.path.dirname(other.path) in way]
    beside = next((f"; {other.path} lies beside it" for other in near if not other.failed), "")
    if home is None:
        return f"nothing here tells that {backend.info.uri}, which lies in no folder, owns it alone{beside}"
    if home not in way:
        return f"it does not lie in {home}, the folder of this store{beside}"
    for other in near:
        if other.failed:
            return f"{other.path} beside it cannot be read, and may own it"
        if other.shares:
            return f"{other.path} holds runs of this store too, as a copy of its database does"
        if os.path.dirname(other.path) != home:
            return f"the database {other.path} lies nearer to it than that of this store"
    relative = any(is_relative(location.uri) for location in rows.locations)
    if relative and not any(file.owner for file in found.under(root).values()):
        return "rows name it by a relative path, and nothing of theirs lies in it"
    return ""


def _meant_by_others(found: Artifacts, meant: Meant) -> dict[str, Doubt]:
    """Files that share an id with a row whose place was not looked at: that row may mean them too."""
    doubts: dict[str, Doubt] = {}
    if meant.shared:
        for path in found.hashes:
            row = next((meant.shared[part] for part in path.split("/") if part in meant.shared), None)
            if row is not None:
                doubts[path] = Doubt(
                    f"{row} may mean it too, and its place was not looked at", "see what ART003 says of that place"
                )
    return doubts


def _kept(
    entries: Sequence[Entry],
    found: Artifacts,
    meant: Meant,
    rows: Rows,
    backend: Backend,
    neighbours: Sequence[Database],
) -> dict[str, Ownerless]:
    """Those ownerless entries that some row may mean, with the reason."""
    own, named = Database(), Named({}, {})
    if isinstance(backend, SqlBackend):
        with backend.reading() as connection:
            ids = {key for entry in entries for key in entry.ids}
            own = look_into(connection, backend.home, found, ids) or own
            named = named_in(connection, entries, {location.owner.kind for location in rows.locations})
    proofs: list[Callable[[Entry], Doubt | None]] = [
        lambda entry: _held(entry, own, neighbours),
        lambda entry: _bears_an_id(entry, meant, own, backend),
        lambda entry: _bears_an_id_of(entry, neighbours),
        lambda entry: _bears_a_name(entry, meant),
        lambda entry: _said(named.entries.get(entry.item.path)),
    ]
    kept: dict[str, Ownerless] = {}
    moved: dict[str, str] = {}
    for entry in entries:
        doubt = next(filter(None, (proof(entry) for proof in proofs)), None)
        if doubt is not None:
            kept[entry.item.path] = entry.item._replace(keep=doubt.reason, way=doubt.way)
        away = _away(entry, meant, own, backend)
        if away and (doubt is None or doubt.reason != _ANOTHER_WORKSPACE):
            moved.setdefault(entry.root, away)
    for entry in (entry for entry in entries if in_folder(entry.root)):
        doubt = _of_root(entry.root, moved, meant, named)
        if doubt is not None and entry.item.path not in kept and not entry.item.keep:
            kept[entry.item.path] = entry.item._replace(keep=doubt.reason, way=doubt.way)
    return kept


def _held(entry: Entry, own: Database, neighbours: Sequence[Database]) -> Doubt | None:
    if entry.item.path in own.held:
        return Doubt(_ANOTHER_WORKSPACE, "")
    other = next((other for other in neighbours if entry.item.path in other.held), None)
    return Doubt(f"the store in {other.path} owns it", "") if other else None


def _away(entry: Entry, meant: Meant, own: Database, backend: Backend) -> str:
    """A row of this store whose id an entry bears and that has no file where it says; empty where there is none."""
    for key in sorted(entry.ids):
        if key in meant.away:
            return str(meant.away[key])
        if key in own.bearers and key not in meant.known and not leads_to(own.bearers[key][1], backend.home, entry):
            return own.bearers[key][0]
    return ""


def _bears_an_id(entry: Entry, meant: Meant, own: Database, backend: Backend) -> Doubt | None:
    away = _away(entry, meant, own, backend)
    if away:
        return Doubt(f"it bears the id of {away}, of which no file lies where its row says", _MOVED)
    for key in sorted(entry.ids):
        if key in meant.known or key in own.bearers:
            name = str(meant.known[key]) if key in meant.known else own.bearers[key][0]
            return Doubt(
                f"it bears the id of {name}, whose row names another place",
                "compare the two, and move it by hand if it is a copy",
            )
    return None


def _bears_an_id_of(entry: Entry, neighbours: Sequence[Database]) -> Doubt | None:
    for other in neighbours:
        for key in sorted(entry.ids & other.bearers.keys()):
            return Doubt(f"it bears the id of {other.bearers[key][0]} of the store in {other.path}", _BY_HAND)
    return None


def _bears_a_name(entry: Entry, meant: Meant) -> Doubt | None:
    name = os.path.basename(entry.item.path)
    if os.path.dirname(entry.item.path) == entry.root and name in meant.experiments:
        return Doubt(
            f"it is called as the folder of an experiment is, and {meant.experiments[name]} of that one names a "
            "place not looked at",
            _MOVED,
        )
    for ending in sorted(entry.names & meant.endings.keys()):
        return Doubt(
            f"the place of {meant.endings[ending]}, which was not looked at, ends in "
            f"{json.dumps(ending, ensure_ascii=False)}",
            _MOVED,
        )
    return None


def _said(where: str | None) -> Doubt | None:
    return Doubt(where, _BY_HAND) if where else None


def _of_root(root: str, moved: dict[str, str], meant: Meant, named: Named) -> Doubt | None:
    """Why any entry of a root may be what a row means."""
    if root in moved:
        return Doubt(
            f"files lie in the same root of which the rows say that they lie elsewhere, such as {moved[root]} (a "
            "store that was moved?)",
            _MOVED,
        )
    if meant.served:
        return Doubt(
            f"{meant.served} and perhaps others lie in a folder that only a tracking server knows, which may be "
            "this one",
            _BY_HAND,
        )
    return _said(named.roots.get(root))
