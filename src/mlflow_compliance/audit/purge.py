"""A purge: the one act that cannot be taken back. Planned from journals, carried out by a plan that somebody read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compliance.audit.audit import AuditTarget
from mlflow_compliance.audit.plan_files import read_purge, refuse_to_replace, write_plan
from mlflow_compliance.audit.purge_plan import NO_LIMIT, Proven, Purgeable, proven, purgeable
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.repair.journal import only_one, versions
from mlflow_compliance.repair.plan_document import Made, facts_of
from mlflow_compliance.repair.purge_document import PurgeItem, PurgePlan, lines_of, purge_document, word_of
from mlflow_compliance.repair.run import keep_journal, open_journal
from mlflow_compliance.repair.saved_plan import refuse_other
from mlflow_compliance.settings.errors import shown_path
from mlflow_compliance.snapshot.files import QUARANTINE
from mlflow_compliance.store.storage.recorded_hashes import take_off
from mlflow_compliance.store.write.purging import destroy_files, destroy_row, is_there, refuse_what_is_back

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.store.write.effects import OpenStore


@dataclass
class Purge:
    """What became of a purge."""

    lines: list[tuple[str, bool]] = field(default_factory=list)
    """For people, each with whether all is well with it."""
    well: bool = True

    def tell(self, line: str, *, well: bool = True) -> None:
        self.lines.append((line, well))
        self.well = self.well and well


def plan_purge(audit: Audit) -> Purge:
    """Say what a purge would destroy, and write that to a file where one is named. Changes nothing."""
    path = _path(audit)
    audit.store.backend.refuse_purge()
    if path is not None:
        refuse_to_replace(path)
    found = purgeable(audit, proven(audit))
    document = _document(audit, found)
    purge = Purge([(line, True) for line in _told(audit, found)])
    if path is not None:
        write_plan(path, document)
        purge.tell(
            f"the plan is in {shown_path(path)}, sha256 {document['plan']}: --fix-purge --fix-plan carries it out"
        )
    return purge


def carry_out_purge(audit: Audit, confirm: Callable[[list[str], int], bool]) -> Purge:
    """Destroy what a saved plan says, or what is found now and `confirm` is told of and agrees to. Raises PlanError
    and StoreError; nothing is destroyed then but what the journal says.
    """
    from mlflow_compliance.store.store import refuse_writing

    audit.store.backend.refuse_purge()
    path, target = _path(audit), AuditTarget(audit)
    saved = read_purge(path) if path is not None else None
    refuse_writing(audit.store, audit.snapshot(artifacts=True))
    with only_one(target.folder), target.lock():
        target.forget()
        known = proven(audit)
        found = purgeable(audit, known)
        if saved is None:
            document = _document(audit, found)
            if not found.items:
                return Purge([(line, True) for line in _told(audit, found)])
            if not confirm(list(_told(audit, found)), len(found.items)):
                return Purge([("nothing was destroyed", True)])
            saved = PurgePlan.model_validate(document)
        else:
            home = audit.store.backend.home or ""
            refuse_other(saved, facts_of(found.snapshot, home), audit.settings.fingerprint, versions())
        return _Carrying(audit, target, saved, known, found).run()


class _Carrying:
    def __init__(self, audit: Audit, target: AuditTarget, saved: PurgePlan, known: Proven, found: Purgeable) -> None:
        self.audit, self.target, self.saved, self.known = audit, target, saved, known
        self.now = {(item.kind, item.key): item for item in found.items}
        self.kept = {(item.kind, item.key): item.why for item in found.kept}
        self.purge = Purge()
        self.gone = 0
        """Things that were destroyed."""
        self.freed = 0
        """Bytes of the blocks of their files."""

    def run(self) -> Purge:
        todo = [item for item in self.saved.items if self._key(item) not in self.known.done]
        before = len(self.saved.items) - len(todo)
        ready = [item for item in todo if self._may_go(item)]
        if ready:
            self._destroy(ready)
        more = f"; {before} by an earlier purge of this plan" if before else ""
        self.purge.lines.insert(0, (f"purge: {self.gone} of {len(self.saved.items)} things destroyed{more}", True))
        return self.purge

    def _key(self, item: PurgeItem) -> tuple[str, str, str]:
        return self.saved.plan, item.kind, item.key

    def _may_go(self, item: PurgeItem) -> bool:
        """Asked anew: it must still be what the plan says, and nothing may need it by now."""
        begun, now = self._key(item) in self.known.begun, self.now.get((item.kind, item.key))
        if now is not None and (begun or now.files == item.files) and now.place == item.place:
            return True
        if now is None and begun and (item.kind, item.key) not in self.kept:
            return True  # its row or its last file is gone already
        why = self.kept.get((item.kind, item.key)) or (
            "its files are not those of the plan any more" if now else "it is not what repairs left behind any more"
        )
        self.purge.tell(f"stays: {word_of(item)}: {why}", well=False)
        return False

    def _destroy(self, items: list[PurgeItem]) -> None:
        from mlflow_compliance.store.write.writer import StoreWriter

        writer = self.target.writer({})
        assert isinstance(writer, StoreWriter)
        heading = self.target.heading(self.saved.plan)._replace(purge="yes")
        at = datetime.now(timezone.utc)
        journal = open_journal(self.target, heading, at)
        free = _free(items)
        failed = 0
        journal.header(self.target.uri, at, len(items))
        for number, item in enumerate(items, 1):
            journal.begin_purge(number, _tombstone(item))
            try:
                self.freed += self._one(item, writer)
            except ChangeError as error:
                failed += 1
                journal.failed(number, str(error))
                self.purge.tell(f"stays: {word_of(item)}: {error}", well=False)
                continue
            journal.done_all([(number, {})])
            self.gone += 1
            self.purge.tell(f"destroyed: {word_of(item)}, {len(item.files)} files")
        journal.close(self.gone, failed)
        self._measured(items, free)
        self.purge.tell(f"what it was is in {journal.path}, which stays")
        kept, not_kept = keep_journal(self.target, heading, writer)
        if kept:
            self.purge.tell(f"that is kept in the store too: {kept}")
        if not_kept:
            self.purge.tell(f"that is not kept in the store: {not_kept}", well=False)
        self.target.forget()

    def _one(self, item: PurgeItem, writer: OpenStore) -> int:
        """Files first: what has a row is found again by whoever goes on with this."""
        planned = {file.path: (file.size, file.sha256) for file in item.files}
        begun = self._key(item) in self.known.begun
        has_row = item.kind != "quarantined" and (not begun or is_there(item.kind, item.key, writer))
        if has_row:
            refuse_what_is_back(item.kind, item.key, writer)
        if planned:
            take_off(self.target.folder, [item.place])
        freed = destroy_files(item.place, planned, begun=begun, own=_own(item)) if item.place else 0
        if has_row:
            destroy_row(item.kind, item.key, writer)
        return freed

    def _measured(self, items: list[PurgeItem], before: Mapping[int, int]) -> None:
        planned = sum(item.freed for item in items)
        grown = sum(after - before[place] for place, after in _free(items).items() if place in before)
        more = f"{abs(grown)} bytes {'more' if grown >= 0 else 'less'} are free on disk, where others write too"
        self.purge.tell(f"{planned} bytes by the plan, {self.freed} by the blocks of the files; {more}")


def _own(item: PurgeItem) -> str:
    """The innermost folder above its files that goes with them when it is empty."""
    return item.key if item.kind != "quarantined" else QUARANTINE


def _free(items: list[PurgeItem]) -> dict[int, int]:
    """Device of a file system -> the bytes that are free on it."""
    found: dict[int, int] = {}
    for item in items:
        folder = item.place
        while folder and not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        if folder:
            device = os.stat(folder).st_dev
            if device not in found:
                facts = os.statvfs(folder)
                found[device] = facts.f_bfree * facts.f_frsize
    return found


def _tombstone(item: PurgeItem) -> dict[str, Any]:
    told = item.model_dump(mode="json")
    return {"kind_of": told.pop("kind"), **told}


def _path(audit: Audit) -> Path | None:
    named = audit.options.plan
    return None if named is None else audit.options.workdir / Path(named).expanduser()


def _told(audit: Audit, found: Purgeable) -> Iterator[str]:
    yield from lines_of(found.items, found.kept)
    if found.items and audit.settings.retention.deleted_days is None:
        yield NO_LIMIT
    if found.items:
        yield "the rows of experiments stay, deleted, so that their ids are not given away again"
    freed = sum(item.freed for item in found.items)
    yield f"{len(found.items)} things to destroy for good, {freed} bytes; {len(found.kept)} stay"


def _document(audit: Audit, found: Purgeable) -> dict[str, Any]:
    facts = facts_of(found.snapshot, audit.store.backend.home or "")
    return purge_document(found.items, found.kept, Made.now(), versions(), facts, audit.settings.fingerprint)
