"""Carries out a plan: journalled change by change, then the store is read anew and compared with what was planned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Protocol

from mlflow_compliance.changes import Change, CopyRun
from mlflow_compliance.errors import ChangeError, StoreError
from mlflow_compliance.repair.journal import Journal
from mlflow_compliance.repair.plan import Plan, Step, batches
from mlflow_compliance.snapshot.refs import EntityRef

RUNS_AT_ONCE = 50
"""Runs that are copied together: they share the transactions, and a program that is killed has so many to copy
again at most.
"""


class Writer(Protocol):
    """Writes changes to a store. Its methods raise ChangeError with one sentence; StoreError where the store is
    gone.
    """

    def write(self, change: Change) -> None:
        """Carry a change out, or leave the store as it was."""

    def inverse(self, change: Change) -> Change | None:
        """How to take a change back, asked before it is written; None where nothing was there that anybody wants
        back.
        """

    def write_together(self, changes: Sequence[CopyRun]) -> list[dict[str, str]]:
        """Copy runs together, all or none: the symbols that each of them bound."""

    def reach(self) -> None:
        """Raise StoreError where the store cannot be reached any more."""

    def bind(self, text: str) -> str:
        """A text with the values that symbols have by now."""


@dataclass
class Outcome:
    """What was done: the changes that were carried out, and per finding the change that failed and why."""

    applied: list[Change] = field(default_factory=list)
    failed: list[tuple[Step, str]] = field(default_factory=list)
    done: dict[str, list[str]] = field(default_factory=dict)
    """Fingerprint of a finding -> what was done about it, in lines for people."""


def apply_plan(
    plan: Plan, writer: Writer, binding: dict[str, str], journal: Journal, store: str, progress: Callable[[], None]
) -> Outcome:
    """Carry out every step. A change that fails ends its own step, since the rest of it builds on it; the other
    steps go on.
    """
    at = datetime.now(timezone.utc)
    binding |= journal.symbols(at)
    journal.header(store, at, len(plan.changes))
    outcome, number, lost = Outcome(), 0, set[EntityRef]()
    for step in plan.steps:
        for alike in batches(step.changes, RUNS_AT_ONCE):
            numbers = range(number + 1, number + 1 + len(alike))
            bound: list[dict[str, str]] = []
            failure: ChangeError | None = None
            for _ in alike:
                progress()
            try:
                for change in alike:
                    _refuse_after_failure(change, lost)
                journal.begin_all(
                    step.finding.policy,
                    [(n, change, writer.inverse(change)) for n, change in zip(numbers, alike, strict=True)],
                )
                number = numbers[-1]
                bound, failure = _write(alike, writer, binding)
            except ChangeError as error:
                # Nothing of it was begun.
                number, failure = numbers[0], error
            journal.done_all(list(zip(numbers, bound, strict=False)))
            done = alike[: len(bound)]
            outcome.applied += done
            outcome.done.setdefault(step.finding.fingerprint, []).extend(
                writer.bind(change.describe()) for change in done
            )
            if failure is not None:
                first = numbers[len(bound)]
                journal.failed(first, str(failure))
                for later in range(first + 1, number + 1):
                    journal.failed(later, f"change {first} failed before it")
                outcome.failed.append((step, f"{alike[len(bound)].describe()}: {failure}"))
                lost.update(_key(other) for other in step.changes)
                _refuse_to_go_on_without(writer, journal, len(outcome.applied), len(plan.changes))
                break
    journal.close(len(outcome.applied), len(outcome.failed))
    return outcome


def _refuse_to_go_on_without(writer: Writer, journal: Journal, made: int, planned: int) -> None:
    """A change may have failed because its store went away: every other one would fail too."""
    try:
        writer.reach()
    except StoreError as gone:
        done = f"{made} of {planned} changes were made, journal: {journal.path}"
        raise StoreError(
            f"the store went away during the repair ({done}): bring it back, then run --fix again to finish; {gone}"
        ) from gone


def _write(
    alike: Sequence[Change], writer: Writer, binding: Mapping[str, str]
) -> tuple[list[dict[str, str]], ChangeError | None]:
    """Make changes in order: the symbols that each one bound, and what stopped the first that could not be made."""
    copies = [change for change in alike if isinstance(change, CopyRun)]
    if len(copies) == len(alike) > 1:
        # Where that fails nothing of it is left, and one by one shows which of them it was.
        with suppress(ChangeError):
            return writer.write_together(copies), None
    bound: list[dict[str, str]] = []
    for change in alike:
        known = set(binding)
        try:
            writer.write(change)
        except ChangeError as error:
            return bound, error
        bound.append({symbol: value for symbol, value in binding.items() if symbol not in known})
    return bound, None


def _refuse_after_failure(change: Change, lost: set[EntityRef]) -> None:
    if _key(change) in lost:
        raise ChangeError(f"an earlier change of {change.entity} failed")


def _key(change: Change) -> EntityRef:
    return EntityRef(change.entity.kind, change.entity.key)
