"""The journals of one store for people: which there are, what became of each, whether one is as it was written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from mlflow_compliance.errors import StoreError
from mlflow_compliance.production.keys import keys_of
from mlflow_compliance.repair.reading import BEGUN, DONE, NOT_THERE, Entry, JournalRecord, read_journal

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.snapshot.journals import Journals
    from mlflow_compliance.store.store import Store

LAST = "last"
_OLDER = "its lines carry no hashes of one another: an older version wrote it"


@dataclass(frozen=True)
class Shelf:
    """The journals of one store: those in its folder, and those that the store keeps itself and the folder has not."""

    store: Store

    @cached_property
    def records(self) -> dict[str, JournalRecord]:
        """Id -> journal, in the order of time. Raises StoreError where one cannot be read."""
        found = {key: self._read(os.path.join(self.store.folder, f"{key}.jsonl")) for key in self._here.own}
        for kept in self._here.whole:
            own, other = found.get(kept.journal), self._read(kept.path)
            if own is None or (other.ended and not (own.ended or own.problem)):
                found[kept.journal] = other  # what lies in the folder is cut off, or of before its end
            elif own != other and not own.problem:
                what = f"it is not what the copy that the store keeps says ({kept.path})"
                found[kept.journal] = replace(own, problem=what)
        return dict(sorted(found.items()))

    @cached_property
    def _here(self) -> Journals:
        found = self.store.read(artifacts=False).journals
        if found.unreadable:
            raise StoreError(f"{found.unreadable}: make it readable, then run again")
        return found

    @property
    def others(self) -> frozenset[str]:
        """Ids of the journals in its folder that were written for another store."""
        return self._here.here - self._here.own.keys()

    def _read(self, path: str) -> JournalRecord:
        try:
            return read_journal(self.store.finder.content(path))
        except OSError as error:
            raise StoreError(f"the journal {path} cannot be read ({error.strerror}): make it readable") from error

    def named(self, name: str) -> JournalRecord:
        """A journal by its path, its id, or 'last' for the newest one. Raises StoreError where there is none."""
        if name == LAST:
            if not self.records:
                raise StoreError(f"no journal of {self.store.info.uri} is in {self.store.folder}: nothing was repaired")
            return self.records[max(self.records)]
        if name in self.records:
            return self.records[name]
        path = os.path.expanduser(name)
        if not os.path.isfile(path):
            raise StoreError(
                f"{name} is neither a file nor a journal of {self.store.info.uri}: --fix-journals lists them"
            )
        found = self._read(os.path.abspath(path))
        known = self.records.get(found.id)
        if known and not known.problem and known != found and (known.ended or not found.ended):
            raise StoreError(
                f"{name} says something else than the journal {found.id} of this store: give that id, or move the one "
                "that is wrong away"
            )
        own = found.text("store") in ("", self.store.info.uri)
        if not own and found.text("kept_as") not in {self._here.mark, *self._here.own.values()} - {""}:
            raise StoreError(
                f"{name} is a journal of {found.text('store')}, not of {self.store.info.uri}: give --tracking-uri"
            )
        return found

    def undone(self, record: JournalRecord) -> set[int]:
        """Numbers of the changes of a journal that were taken back. What was done again after that is in the journal
        of its own.
        """
        return {number for number, entry in self._tried(record) if entry.state == DONE}

    def absent(self, record: JournalRecord) -> set[int]:
        """Numbers of the changes of a repair that was broken off that an undo looked for in vain."""
        return {number for number, entry in self._tried(record) if entry.reason == NOT_THERE}

    def begun(self, record: JournalRecord) -> set[int]:
        """Numbers of the changes that an undo which was broken off had begun to take back, and none took back."""
        return {number for number, entry in self._tried(record) if entry.state == BEGUN} - self.undone(record)

    def _tried(self, record: JournalRecord) -> Iterator[tuple[int, Entry]]:
        """Number of a change of a journal -> what an undo wrote down of it, from every undo of that journal."""
        for other in self.records.values():
            if other.undo_of == record.id:
                yield from ((entry.takes_back, entry) for entry in other.entries if entry.takes_back is not None)


def listed(audit: Audit) -> Iterator[str]:
    """The journals of a store, oldest first, in lines for people."""
    shelf = Shelf(audit.store)
    if not shelf.records:
        yield f"no journals of {audit.store.info.uri} in {audit.store.folder}"
    if shelf.others:
        yield f"journals there of other stores, or of this one at another place: {', '.join(sorted(shelf.others))}"
    for record in shelf.records.values():
        yield (
            f"{record.id}  {record.text('at')[:19]}  by {record.text('user')}@{record.text('host') or '?'}  "
            f"{len(record.done)} of {record.text('changes')} changes  {state_of(record, shelf)}"
        )


def state_of(record: JournalRecord, shelf: Shelf) -> str:
    """What became of a repair, in words."""
    if record.problem:
        return f"not as it was written: {record.problem}"
    words = ["a purge"] if record.is_purge else []
    words += [f"takes back {record.undo_of}"] if record.undo_of else []
    words += [f"does {record.text('again')} again"] if record.text("again") else []
    failed = sum(entry.state == "failed" for entry in record.entries)
    words += ["ended"] if record.ended else ["broken off"]
    words += [f"{failed} failed"] if failed else []
    done = {entry.number for entry in record.done if entry.undo is not None}
    if back := shelf.undone(record):
        words.append("taken back" if back >= done else f"{len(back & done)} of {len(done)} taken back")
    return ", ".join(words)


def verified(audit: Audit, name: str) -> tuple[list[str], bool]:
    """What is to be said of a journal as evidence, and whether all is well with it."""
    record = Shelf(audit.store).named(name)
    if record.problem:
        return [f"journal {record.id or name}: {record.problem}"], False
    what = f"journal {record.id}: {len(record.entries)} changes, {len(record.done)} of them done"
    lines = [f"{what}; every line follows the one before it" if record.chained else f"{what}; {_OLDER}"]
    lines += [] if record.ended else ["it has no end: the repair was broken off, or the end was cut off"]
    key, well = keys_of(audit.settings).judging, record.chained
    if key is not None:
        wrong = record.signed(key)
        lines.append(wrong or "its end is signed with the key in force")
        well = well and not wrong
    return lines, well
