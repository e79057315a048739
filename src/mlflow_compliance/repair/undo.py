"""Takes a repair back: the inverse of each of its changes, the last one first, each only where the thing is still as
the repair left it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from mlflow_compliance.changes import Change, bind, load
from mlflow_compliance.errors import ChangeError, StoreError
from mlflow_compliance.repair.expected import bound
from mlflow_compliance.repair.journal import only_one
from mlflow_compliance.repair.reading import BEGUN, FAILED, NOT_THERE, Entry, JournalRecord
from mlflow_compliance.repair.run import keep_journal, open_journal, told_of_keeping
from mlflow_compliance.snapshot.diff import differences

if TYPE_CHECKING:
    from mlflow_compliance.progress import Progress
    from mlflow_compliance.repair.apply import Writer
    from mlflow_compliance.repair.journal import Journal
    from mlflow_compliance.repair.run import Target
    from mlflow_compliance.snapshot.snapshot import Snapshot

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
_IDS = re.compile(r"(m-)?[0-9a-f]{32}")


@dataclass(frozen=True)
class Past:
    """What an undo is told of the journal that it takes back."""

    record: JournalRecord
    undone: Collection[int] = ()
    """Numbers of its changes that stand taken back already."""
    begun: Collection[int] = ()
    """Numbers of those that an undo which was broken off had begun: nobody knows whether it got there."""
    known: Mapping[str, str] = field(default_factory=dict)
    """Symbol -> id, from what is not done again."""

    @property
    def ids(self) -> set[str]:
        """Everything in it that may be the id of a run."""
        texts = [entry.do for entry in self.record.entries] + [entry.undo for entry in self.record.entries]
        return set(_ID.findall(repr(texts))) | set(_ID.findall(repr([item.bound for item in self.record.entries])))


@dataclass(frozen=True)
class Back:
    """One change that is taken back: what it was, and by what."""

    entry: Entry
    change: Change
    sure: bool
    """Whether it was surely made, and surely not taken back yet."""
    already: bool = False
    """Whether it is as it was already, by an undo that was broken off or by somebody: it is told of in the journal, and
    nothing is written.
    """

    @property
    def original(self) -> Change:
        return load(self.entry.do)


@dataclass(frozen=True)
class UndoPlan:
    """What an undo will do, exactly, and what it leaves with the reason."""

    past: Past
    start: Snapshot
    steps: tuple[Back, ...]
    left: tuple[tuple[str, str], ...]
    stay: tuple[str, ...] = ()
    """What nobody wants back: a copy that was broken off and cleared away."""

    @property
    def title(self) -> str:
        record = self.past.record
        what = f"the undo of {record.undo_of}" if record.is_undo else "the repair"
        return f"undo of {record.id}: {what} by {record.text('user')} at {record.text('at')[:19]}"

    def lines(self) -> Iterator[str]:
        """The plan for people: the same text whether it is carried out or not."""
        yield self.title
        if not self.past.record.ended:
            record = self.past.record
            yield (
                f"    (its journal has no end: it was broken off, or was cut off after {len(record.entries)} of "
                f"{record.text('changes')} changes; what it does not tell of stays)"
            )
        for step in self.steps:
            yield f"    - {step.change.describe()}{' (is so already)' if step.already else ''}"
        for what in self.stay:
            yield f"    . stays: {what}"
        for what, reason in self.left:
            yield f"    ! left: {what}: {reason}"
        if not (self.steps or self.left):
            yield "nothing of it is left that could be taken back"
            return
        rest = f"; left: {len(self.left)}" if self.left else ""
        yield f"{len(self.steps)} of {len(self.steps) + len(self.left)} changes can be taken back{rest}"


@dataclass
class Undo:
    """What --fix-undo did, or would do."""

    plan: UndoPlan
    journal: str = ""
    done: list[Back] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    """Changes that a repair which was broken off had begun, and that are not there."""
    kept: str = ""
    not_kept: str = ""
    differing: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return not (self.plan.left or self.failed or self.differing or self.not_kept)

    def lines(self) -> Iterator[tuple[str, bool]]:
        """What was done, in lines for people, each with whether all is well with it."""
        if not self.journal:
            return
        yield f"taken back: {len(self.done)} of {len(self.plan.steps)} changes; journal: {self.journal}", True
        yield from told_of_keeping(self.kept, self.not_kept)
        if made := [key for step in self.done for key in step.entry.bound.values() if _IDS.fullmatch(key)]:
            yield f"made by the repair and soft-deleted now: {', '.join(made)}", True
        for what in self.absent:
            yield f"was not there: {what}", True
        for what, reason in self.failed:
            yield f"left: {what}: {reason}", False
        if left := len(self.plan.left) + len(self.failed):
            yield f"not taken back: {left} of the changes, each with its reason above", False
        if not self.differing:
            rest = "the rest of the store" if left else "the store"
            yield f"verified: {rest}, read anew, is what was planned", True
        for line in self.differing:
            yield f"not as planned: {line}", False


def plan_undo(past: Past, snapshot: Snapshot) -> UndoPlan:
    """The plan that takes back what a journal says was done, or may have been. Nothing is written on top of what
    somebody changed since.
    """
    now, steps, left, stay = snapshot, list[Back](), list[tuple[str, str]](), list[str]()
    for entry in reversed(past.record.entries):
        if entry.state == FAILED or entry.number in past.undone:
            continue
        if entry.undo is None:
            stay.append(_told(entry, past.record))
            continue
        sure = entry.state != BEGUN and entry.number not in past.begun
        try:
            change = _inverse_of(entry, past.known)
        except ChangeError as error:
            left.append((_told(entry, past.record), str(error)))
            continue
        try:
            now = change.predict(now)
        except ChangeError as error:
            if not _is_back(entry, past, now):
                left.append((_told(entry, past.record), str(error)))
            elif entry.state != BEGUN:
                steps.append(Back(entry, change, sure, already=True))
            continue
        steps.append(Back(entry, change, sure))
    return UndoPlan(past, snapshot, tuple(steps), tuple(left), tuple(stay))


def _inverse_of(entry: Entry, known: Mapping[str, str]) -> Change:
    assert entry.undo is not None
    return load(_with_ids(entry.undo, known))


def _with_ids(value: Any, known: Mapping[str, str]) -> Any:
    """JSON values with the ids that symbols in their texts stand for, as far as they are known."""
    if isinstance(value, str):
        return bind(value, known)
    if isinstance(value, Mapping):
        return {key: _with_ids(item, known) for key, item in value.items()}
    return [_with_ids(item, known) for item in value] if isinstance(value, list) else value


def _told(entry: Entry, record: JournalRecord) -> str:
    """What a change did, with what its symbols stood for."""
    try:
        return bind(load(entry.do).describe(), record.bound)
    except ChangeError:
        return f"change {entry.number}"


def _is_back(entry: Entry, past: Past, snapshot: Snapshot) -> bool:
    """Whether a change is surely not there: it could be made as it was, which would change something, and taking it
    back would change nothing, or nothing else than that.
    """
    try:
        inverse = _inverse_of(entry, past.known)
        again = load(_with_ids(entry.do, {**past.known, **past.record.bound})).predict(snapshot)
    except ChangeError:
        return False
    if not differences(again, snapshot):
        return False
    try:
        return not differences(inverse.predict(snapshot), snapshot)
    except ChangeError:
        pass
    try:
        # That a copy could be made once more does not say that the first one is gone.
        return not differences(inverse.predict(again), snapshot)
    except ChangeError:
        return False


def carry_out_undo(
    target: Target, plan: Callable[[], UndoPlan], tell: Callable[[UndoPlan], None], progress: Progress
) -> Undo:
    """Plan under the lock, `tell` the plan, carry it out, read the store anew and compare. Raises StoreError."""
    with only_one(target.folder), target.lock():
        target.forget()
        undo = Undo(plan())
        tell(undo.plan)
        if undo.plan.steps:
            _write(undo, target, progress)
    return undo


def _write(undo: Undo, target: Target, progress: Progress) -> None:
    binding: dict[str, str] = {}
    writer = target.writer(binding)
    at = datetime.now(timezone.utc)
    record = undo.plan.past.record
    heading = target.heading("", record.id, record.undo_of if record.is_undo else "")
    journal = open_journal(target, heading, at)
    undo.journal = journal.path
    binding |= journal.symbols(at)
    progress.start("Taking back", len(undo.plan.steps))
    try:
        journal.header(target.uri, at, len(undo.plan.steps))
        for number, step in enumerate(undo.plan.steps, 1):
            progress.advance(1)
            _take_back(number, step, undo, writer, binding, journal)
        journal.close(len(undo.done), len(undo.failed))
        undo.kept, undo.not_kept = keep_journal(target, heading, writer)
    except StoreError as gone:
        raise StoreError(
            f"the undo stopped after {len(undo.done)} of {len(undo.plan.steps)} changes (journal: {journal.path}): "
            f"give the same --fix-undo again to finish it; {gone}"
        ) from gone
    finally:
        progress.stop()
        target.forget()
    _compare(undo, target, binding)


def _take_back(number: int, step: Back, undo: Undo, writer: Writer, binding: dict[str, str], journal: Journal) -> None:
    known, begun = set(binding), False
    again, record = undo.plan.past.record.is_undo, undo.plan.past.record
    try:
        # What is done again is another thing than before, with an inverse of its own.
        inverse = writer.inverse(step.change) if again and not step.already else step.original
        journal.begin_all(step.entry.policy, [(number, step.change, inverse)], takes_back=step.entry.number)
        begun = True
        if not step.already:
            writer.write(step.change)
    except ChangeError as error:
        there = step.sure or not _is_back(step.entry, undo.plan.past, undo.plan.start)
        if begun and not there and step.entry.state != BEGUN:
            step = replace(step, already=True)
        else:
            journal.failed(number, str(error) if there else NOT_THERE)
            told = _told(step.entry, record)
            if there:
                undo.failed.append((told, str(error)))
            else:
                undo.absent.append(told)
            writer.reach()
            return
    journal.done_all([(number, {key: value for key, value in binding.items() if key not in known})])
    undo.done.append(step)


def _compare(undo: Undo, target: Target, binding: Mapping[str, str]) -> None:
    """The store, read anew, with what was planned of the changes that were carried out."""
    now = undo.plan.start
    try:
        for step in undo.done:
            now = now if step.already else step.change.predict(now)
    except ChangeError as error:
        undo.differing = [f"what the store must be now cannot be told: {error}"]
        return
    expected = bound(now, binding)
    undo.differing = differences(expected, target.read_anew(tuple(expected.runs)))
