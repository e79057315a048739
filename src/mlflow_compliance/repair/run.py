"""Carries a repair out, from the plan to the comparison with the store read anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Protocol

from mlflow_compliance.errors import ChangeError, StoreError
from mlflow_compliance.repair.apply import apply_plan
from mlflow_compliance.repair.expected import expected_after
from mlflow_compliance.repair.journal import Heading, Journal, only_one
from mlflow_compliance.snapshot.diff import differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from mlflow_compliance.production.keys import SigningKey
    from mlflow_compliance.progress import Progress
    from mlflow_compliance.repair.apply import Outcome, Writer
    from mlflow_compliance.repair.plan import Plan
    from mlflow_compliance.snapshot.snapshot import Snapshot


class Target(Protocol):
    """What a repair needs of the store that it writes to."""

    @property
    def uri(self) -> str:
        """Without credentials."""

    @property
    def folder(self) -> str:
        """Where its journals and quarantine lie."""

    def lock(self) -> AbstractContextManager[object]:
        """Held while it is written to: no other repair writes meanwhile."""

    def writer(self, binding: dict[str, str]) -> Writer:
        """What carries changes out. Raises StoreError where it cannot be opened for writing."""

    def heading(self, plan: str, undo_of: str = "", again: str = "") -> Heading:
        """What its journal says of itself, before anything is written."""

    def key(self) -> SigningKey | None:
        """What signs the journal's end, None where nothing does."""

    def recorded(self) -> Mapping[str, str]:
        """Path -> the hash that went on record since the plan was made, or that no journal in the store has yet."""

    def keep(self, writer: Writer) -> str:
        """Have the store keep the journals that it has not yet. Returns where. Raises ChangeError and StoreError."""

    def is_still(self, start: Snapshot) -> bool:
        """Look at the store again: whether it is surely as it was when `start` was read. Else what was read is
        forgotten. Raises StoreError.
        """

    def forget(self) -> None:
        """What was read is not so any more."""

    def read_anew(self, also: Sequence[str]) -> Snapshot:
        """The store as it is now, these runs in full with it. Raises StoreError."""


@dataclass
class Repair:
    """What --fix did, or --fix-dry-run would do."""

    plan: Plan
    outcome: Outcome | None = None
    journal: str = ""
    kept: str = ""
    """Where the store itself keeps the journal, empty where it does not."""
    not_kept: str = ""
    """Why it does not although it should."""
    differing: list[str] = field(default_factory=list)
    """Where the store read afterwards differs from the plan. Anything here fails the run."""
    saved_to: str = ""
    """The file that the plan was written to."""
    saved_from: str = ""
    """The file of the plan that is carried out."""

    @property
    def went_wrong(self) -> bool:
        """Whether it is no success whatever the checks say now."""
        refused = self.plan.fates is not None and self.plan.fates.refused
        return bool(self.differing or self.plan.crashed or refused or (self.outcome and self.outcome.failed))

    def of_saved_plan(self) -> Iterator[tuple[str, bool]]:
        """What became of a plan that was written, or carried out, in lines for people."""
        if self.saved_to:
            yield f"the plan is in {self.saved_to}, sha256 {self.plan.sha256}: --fix --fix-plan carries it out", True
        fates = self.plan.fates
        if fates is None:
            return
        made = len(self.outcome.applied) if self.outcome else 0
        more = [f"{fates.before} made before"] if fates.before else []
        more += [f"{fates.unasked} not asked for here"] if fates.unasked else []
        more += [f"{len(fates.refused)} refused"] if fates.refused else []
        rest = "".join(f"; {text}" for text in more)
        yield f"{self.saved_from}: {made} of {fates.planned} planned changes made{rest}", True
        for says, why in fates.refused:
            yield f"not done: {says}: {why}", False

    def lines(self) -> Iterator[tuple[str, bool]]:
        """What was done, in lines for people, each with whether all is well with it; none where nothing was carried
        out.
        """
        if self.outcome is None:
            return
        yield (
            f"repair: {len(self.outcome.applied)} of {len(self.plan.changes)} changes made; journal: {self.journal}",
            True,
        )
        yield from told_of_keeping(self.kept, self.not_kept)
        for _, reason in self.outcome.failed:
            yield f"not done: {reason}", False
        if not self.differing:
            yield "verified: the store, read anew, is what was planned", True
        for line in self.differing:
            yield f"not as planned: {line}", False


def carry_out(target: Target, plan: Callable[[], Plan], made: Callable[[Repair], None], progress: Progress) -> Repair:
    """Plan, and carry the plan out. `made` is told what there is of it whenever that is more: the plan before anything
    is written, then the rest.

    Raises PlanError and StoreError; what was carried out by then is in what `made` was told.
    """
    repair = Repair(plan())
    if not repair.plan.steps:
        made(repair)
        return repair
    with only_one(target.folder), target.lock():
        # Another repair may just have ended: the plan holds while all that it was made from is the same.
        if not target.is_still(repair.plan.start):
            repair = Repair(plan())
        made(repair)
        if repair.plan.steps:
            _write(repair, target, progress)
    return repair


def _write(repair: Repair, target: Target, progress: Progress) -> None:
    binding: dict[str, str] = {}
    writer = target.writer(binding)
    heading = target.heading(repair.plan.sha256)
    journal = open_journal(target, heading, datetime.now(timezone.utc))
    repair.journal = journal.path
    progress.start("Repairing", len(repair.plan.changes))
    try:
        repair.outcome = apply_plan(repair.plan, writer, binding, journal, target.uri, lambda: progress.advance(1))
        repair.kept, repair.not_kept = keep_journal(target, heading, writer)
    finally:
        progress.stop()
        target.forget()
    try:
        expected = expected_after(repair.plan.start, repair.outcome.applied, binding)
    except ChangeError as error:
        # A change was made although one that it was planned on had failed.
        repair.differing = [f"what the store must be now cannot be told: {error}"]
        return
    try:
        found = target.read_anew(tuple(expected.runs))
    except StoreError as error:
        done = f"{len(repair.outcome.applied)} of {len(repair.plan.changes)} changes were made, journal: {journal.path}"
        raise StoreError(
            f"the store cannot be read anew to see whether it is what was planned ({done}); {error}"
        ) from error
    repair.differing = differences(expected, found)


def open_journal(target: Target, heading: Heading, at: datetime) -> Journal:
    """The journal of what is about to be written to a store. Raises StoreError."""
    return Journal(target.folder, at, heading, target.recorded, target.key())


def keep_journal(target: Target, heading: Heading, writer: Writer) -> tuple[str, str]:
    """Where the store itself keeps the journal, and why it does not although it should; both empty where it keeps none.
    What was done counts either way, and the next repair tries again.
    """
    if not heading.kept_as:
        return "", ""
    try:
        return target.keep(writer), ""
    except (ChangeError, StoreError) as error:
        return "", str(error)


def told_of_keeping(kept: str, not_kept: str) -> Iterator[tuple[str, bool]]:
    """What `keep_journal` gave, in lines for people."""
    if kept:
        yield f"the journal is kept in the store too: {kept}", True
    if not_kept:
        yield f"the journal is not kept in the store, only in the folder above: {not_kept}", False
