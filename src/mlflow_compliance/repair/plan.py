"""Plans a repair: folds proposed changes over a Snapshot and asks the policies again until nothing fixable is left."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from mlflow_compliance.changes import Applicability, Change, CopyRun, LogProductionRun, RewriteLocations
from mlflow_compliance.errors import ChangeError, PlanError
from mlflow_compliance.production.context import Context
from mlflow_compliance.repair.limits import All, Limit
from mlflow_compliance.repair.totals import totals
from mlflow_compliance.rules.evaluation import Verdict, cases, verdict_of
from mlflow_compliance.rules.finding import CRASHED, Finding
from mlflow_compliance.rules.fixer import Fixer, comes_last, propose
from mlflow_compliance.rules.outcome import Unevaluated
from mlflow_compliance.rules.policy import Policy
from mlflow_compliance.safe_text import first_of
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot

ROUNDS = 10
"""A remedy may uncover work for another one; more rounds than this mean that two of them undo each other."""

_FEW = 8
"""Ids of rules in one line."""
_LONG = 50
"""Lines: the totals of a longer plan stand above it too."""
_WIDTH = max(len(item.value) for item in Applicability)
MEND_THE_POLICY = "its rule crashed: mend the policy, then run --fix again"
REWRITTEN_FIRST = "its rows are read through [store.relocate] and are rewritten first (ART003): run --fix again"


@dataclass(frozen=True)
class Step:
    """One finding and the changes that mend it, in order: the later ones rely on the earlier ones."""

    finding: Finding
    changes: tuple[Change, ...]
    follows: bool = False
    """Whether the finding only comes up when earlier steps are done."""


@dataclass(frozen=True)
class Unfixed:
    """A finding that stays, and why."""

    finding: Finding
    reason: str
    waived: bool = False
    """Whether that is what people want."""


@dataclass(frozen=True)
class Fates:
    """What became of the changes of a saved plan, when the store was planned anew."""

    planned: int
    """How many there are."""
    before: int = 0
    """Those that an earlier repair made."""
    unasked: int = 0
    """Those of rules that are not asked, or not of everything."""
    refused: tuple[tuple[str, str], ...] = ()
    """What a change says, and why it is not made."""


@dataclass(frozen=True)
class Plan:
    """What a repair will do, exactly. `outcome` is the store as it will be."""

    start: Snapshot
    steps: tuple[Step, ...]
    unfixed: tuple[Unfixed, ...]
    outcome: Snapshot
    unevaluated: int = 0
    """Checks that could not judge everything in the store as it will be."""
    unasked: tuple[str, ...] = ()
    """Ids of rules that were not asked, or not of everything."""
    note: str = ""
    """What else carrying it out will do."""
    not_judged: tuple[Unevaluated, ...] = ()
    """What could not be judged in the store as it is."""
    sha256: str = ""
    """Of the document that it makes, '' where nobody asked for it."""
    fates: Fates | None = None
    """Of a plan that carries a saved one out."""

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(change for step in self.steps for change in step.changes)

    @property
    def crashed(self) -> bool:
        """Whether a rule could not be asked about the store as it will be: nobody knows then whether it keeps the
        rule.
        """
        return any(refusal.finding.code == CRASHED for refusal in self.unfixed)

    @property
    def entities(self) -> set[EntityRef]:
        """The entities that it changes, by kind and key."""
        return {EntityRef(entity.kind, entity.key) for change in self.changes for entity in change.entities}

    def lines(self) -> Iterator[str]:
        """The plan for people: the same text whether it is carried out or not."""
        told, ending = list(self._told()), list(self.ending())
        yield from (*(ending[:-1] if len(told) > _LONG else ()), *told, *ending)

    def ending(self) -> Iterator[str]:
        """Its totals, and what stays."""
        sums = totals(self.changes, self.start)
        if sums:
            yield f"totals: {sums}"
        yield f"{len(self.changes)} changes to {len(self.entities)} entities; {self._left()}"

    def _told(self) -> Iterator[str]:
        for step in self.steps:
            yield f"{step.finding.policy}  {step.finding.entity}: {step.finding.message}"
            for change in step.changes:
                yield f"    + {change.applicability.value:<{_WIDTH}}  {change.describe()}"
        for refusal in self.unfixed:
            yield f"{refusal.finding.policy}  {refusal.finding.entity}: {refusal.finding.message}"
            yield f"    ! not fixed: {refusal.reason}"
            yield from (f"      {line}" for line in refusal.finding.toml.splitlines())
        if self.steps and self.note:
            yield self.note

    def _left(self) -> str:
        """What stays as it is: 'none' may be said of what was asked alone."""
        waived = sum(item.waived for item in self.unfixed)
        left = f"{len(self.unfixed) - waived} findings are left for people"
        left += f", {waived} stay as they are" if waived else ""
        if not (self.unasked or self.unevaluated):
            return left
        parts = [first_of(self.unasked, _FEW)] if self.unasked else []
        parts += [f"{self.unevaluated} checks whose evidence was not looked at"] if self.unevaluated else []
        return f"{f'{left}; ' if self.unfixed else ''}not evaluated: {'; '.join(parts)}"


def findings_of(
    policies: Sequence[Policy], context: Context, only: Mapping[str, frozenset[str]] | None = None
) -> list[Finding]:
    """Every finding of the policies on a snapshot, by policy id; `only` limits a policy to some of its cases."""
    return [finding for verdict in _verdicts(policies, context, only) for finding in verdict.findings]


def _verdicts(
    policies: Sequence[Policy], context: Context, only: Mapping[str, frozenset[str]] | None
) -> Iterator[Verdict]:
    for rule in sorted(policies, key=lambda rule: rule.id):
        for case in cases(rule, context):
            if only is None or case.key in only.get(rule.id, frozenset()):
                yield verdict_of(rule, case, context)


def make_plan(
    policies: Sequence[Policy],
    remedies: Mapping[str, Fixer],
    context: Context,
    only: Mapping[str, frozenset[str]] | None = None,
    limit: Limit | None = None,
    waived: Callable[[Finding], str] = lambda _: "",
) -> Plan:
    """The plan that mends what can be mended; `waived` says why a finding stays as it is, '' where it need not.
    Raises PlanError, naming the culprits, where remedies do not settle.
    """
    now, limit = context, limit or All()
    advice = {rule.id: rule.advice for rule in policies}
    steps: list[Step] = []
    mended: dict[str, list[Change]] = defaultdict(list)
    verdicts = list(_verdicts(policies, now, only))
    at_first = {item.fingerprint for verdict in verdicts for item in (*verdict.findings, *verdict.offers)}
    not_judged = tuple(item for verdict in verdicts for item in verdict.unevaluated)
    for number in range(ROUNDS):
        verdicts = list(_verdicts(policies, now, only)) if number else verdicts
        # What a rule had found before it crashed is told and not acted on.
        unfixed = [
            Unfixed(item, MEND_THE_POLICY)
            for verdict in verdicts
            if verdict.crash
            for item in (*verdict.findings, verdict.crash)
        ]
        progressed = False
        back: list[Finding] = []
        for turn in _turns(verdicts, remedies):
            if progressed:
                break
            for finding in turn:
                if stays := waived(finding):
                    unfixed.append(Unfixed(finding, stays, waived=True))
                    continue
                proposed = propose(remedies, finding, now, advice[finding.policy])
                changes, reason = proposed.changes, not_now(proposed.changes, context.snapshot) or proposed.refusal
                if not changes or reason:
                    unfixed.append(Unfixed(finding, reason or "its fixer proposes nothing"))
                    continue
                changes, left = limit.admit(finding, changes)
                if not changes:
                    unfixed.append(Unfixed(finding, left))
                    continue
                earlier = mended[finding.fingerprint]
                if any(change in earlier for change in changes):
                    raise _unsettled(finding)
                # With other changes it may be: a run that was copied into a bucket brings a duplicate of its own.
                back += [finding] if earlier else []
                try:
                    after = Context(fold(changes, now.snapshot), context.settings)
                except ChangeError as conflict:
                    unfixed.append(Unfixed(finding, str(conflict)))
                    continue
                now, progressed = after, True
                earlier += changes
                steps.append(Step(finding, changes, finding.fingerprint not in at_first))
        if not progressed:
            unevaluated = sum(bool(verdict.unevaluated) for verdict in verdicts)
            return Plan(
                context.snapshot, tuple(steps), tuple(unfixed), now.snapshot, unevaluated, not_judged=not_judged
            )
    if back:
        raise _unsettled(back[0])
    names = sorted({step.finding.policy for step in steps[-len(policies) :]})
    raise PlanError(
        f"the plan does not settle after {ROUNDS} rounds; the last ones to change something were the fixers of "
        f"{', '.join(names)}"
    )


def _turns(verdicts: Sequence[Verdict], remedies: Mapping[str, Fixer]) -> tuple[list[Finding], list[Finding]]:
    """What is mended at once, and what waits until nothing else changes the store any more."""
    found = [item for verdict in verdicts if not verdict.crash for item in (*verdict.findings, *verdict.offers)]
    waits = {item: comes_last(remedies.get(item.policy)) for item in found}
    return [item for item in found if not waits[item]], [item for item in found if waits[item]]


def not_now(changes: Sequence[Change], start: Snapshot) -> str:
    """Why changes must wait for what else is wrong with the store, '' where they need not."""
    artifacts = start.artifacts
    if artifacts is None:
        return ""
    if artifacts.elsewhere and not all(isinstance(change, RewriteLocations) for change in changes):
        return REWRITTEN_FIRST
    for change in changes:
        if isinstance(change, CopyRun | LogProductionRun):
            away = artifacts.unknown.get(("experiment", change.experiment_id))
            if away is not None:
                return (
                    f"it would be written to the place of experiment {change.experiment_id}, which was not "
                    f"looked at: {away.reason}"
                )
    return ""


def _unsettled(finding: Finding) -> PlanError:
    return PlanError(
        f"{finding.policy} does not settle: its fixer changes {finding.entity}, and then the same finding is back"
    )


def batches(changes: Sequence[Change], most: int = sys.maxsize) -> Iterator[tuple[Change, ...]]:
    """Changes in order: copies of runs that follow one another together, at most so many, and every other change by
    itself.
    """
    for copies, group in groupby(changes, lambda change: isinstance(change, CopyRun)):
        rest = tuple(group)
        while rest:
            size = most if copies else 1
            yield rest[:size]
            rest = rest[size:]


def fold(changes: Sequence[Change], snapshot: Snapshot) -> Snapshot:
    """The snapshot after changes, in order."""
    for alike in batches(changes):
        first = alike[0]
        if isinstance(first, CopyRun):
            snapshot = CopyRun.predict_all([change for change in alike if isinstance(change, CopyRun)], snapshot)
        else:
            snapshot = first.predict(snapshot)
    return snapshot
