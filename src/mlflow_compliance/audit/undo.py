"""The undo of an audit's store: which journal, what of it stands taken back already, and whether it may be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_compliance.audit.audit import Audit, AuditTarget
from mlflow_compliance.audit.journals import LAST, Shelf
from mlflow_compliance.errors import StoreError
from mlflow_compliance.repair.reading import FAILED, JournalRecord
from mlflow_compliance.repair.undo import Past, Undo, UndoPlan, carry_out_undo, plan_undo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def take_back(audit: Audit, name: str, tell: Callable[[UndoPlan], None], *, dry_run: bool) -> Undo:
    """Take back the repair of a journal (a path, an id, or 'last'); with `dry_run` only say what that would do.

    Raises StoreError where there is no such journal, or where it is not as it was written.
    """
    from mlflow_compliance.store.store import refuse_writing

    target = AuditTarget(audit)

    def pasts() -> Iterator[Past]:
        shelf = Shelf(audit.store)
        return (_past(shelf, record, name) for record in (_standing(shelf) if name == LAST else [shelf.named(name)]))

    def plan() -> UndoPlan:
        for past in pasts():
            made = plan_undo(past, target.read_anew(tuple(sorted(past.ids))))
            # A repair that was broken off may have begun a change that it did not make: the one before it is meant.
            if made.steps or made.left or name != LAST:
                return made
        raise nothing_left

    nothing_left = StoreError(
        f"no repair of {audit.store.info.uri} is left that could be taken back: --fix-journals lists them all"
    )
    if next(pasts(), None) is None:  # before the lock, which makes the folder of the journals
        raise nothing_left
    if dry_run:
        undo = Undo(plan())
        tell(undo.plan)
        return undo
    refuse_writing(audit.store, audit.snapshot(artifacts=True))
    return carry_out_undo(target, plan, tell, audit.progress())


def _past(shelf: Shelf, record: JournalRecord, name: str) -> Past:
    if record.problem:
        raise StoreError(
            f"the journal {record.id or name} is not as it was written ({record.problem}): nothing is taken back by "
            "it; a copy that the store or a backup keeps may be whole"
        )
    if record.is_purge:
        raise StoreError(f"journal {record.id} is that of a purge: what it destroyed cannot be brought back")
    undone = shelf.undone(record)
    return Past(record, undone, shelf.begun(record), _known(shelf, record, undone))


def _standing(shelf: Shelf) -> Iterator[JournalRecord]:
    """The repairs of which something may still stand, the newest first; an undo is taken back by its id alone."""
    for key in sorted(shelf.records, reverse=True):
        record = shelf.records[key]
        if not record.is_undo and not record.is_purge and (record.problem or _stands(record, shelf)):
            yield record


def _stands(record: JournalRecord, shelf: Shelf) -> bool:
    kept = {entry.number for entry in record.entries if entry.state != FAILED and entry.undo is not None}
    return bool(kept - shelf.undone(record) - shelf.absent(record))


def _known(shelf: Shelf, record: JournalRecord, undone: set[int]) -> dict[str, str]:
    """The ids of what a repair had made and an undo of it had left, for what is done again beside it."""
    original = shelf.records.get(record.undo_of)
    if original is None:
        return {}
    again = {entry.takes_back for entry in record.entries if entry.number not in undone}
    return {
        symbol: value for entry in original.done if entry.number not in again for symbol, value in entry.bound.items()
    }
