"""Carrying a saved plan out: what both it and the plan of now propose is done, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mlflow_compliance.changes import Change, load
from mlflow_compliance.errors import ChangeError, PlanError
from mlflow_compliance.repair.limits import Admitted
from mlflow_compliance.repair.plan import Fates, Plan
from mlflow_compliance.repair.plan_document import PlannedChange, PlannedStep, SavedPlan, StoreFacts, key_of
from mlflow_compliance.repair.purge_document import PurgePlan
from mlflow_compliance.rules.finding import CRASHED, Finding
from mlflow_compliance.safe_text import first_of

OTHERS = "it is not in the saved plan: make a new plan to have it mended"
NOT_IN_IT = "what it is about has changed: the remedy of now has no such change"
GONE = "its finding is gone: the store was changed since the plan was made"
BUILDS_ON = "it builds on changes that are not made"
_NEW_PLAN = "make a new plan with --fix-dry-run"
_FEW = 3
"""Experiments in one line."""


def refuse_other(saved: SavedPlan | PurgePlan, store: StoreFacts, settings: str, versions: Mapping[str, str]) -> None:
    """Raise PlanError for a plan that was made for another store, other settings or other programs."""
    for name, version in versions.items():
        if saved.versions.get(name) != version:
            made_with = saved.versions.get(name, "another version")
            raise PlanError(
                f"the plan was made with {name} {made_with}, and {version} is installed: {_NEW_PLAN}, or install that"
            )
    for what, then, now in (
        ("store", saved.store.uri, store.uri),
        ("kind of store", saved.store.backend, store.backend),
        ("workspace", saved.store.workspace, store.workspace),
        ("database schema", saved.store.database_schema, store.database_schema),
    ):
        if then != now:
            raise PlanError(
                f"the plan is for the {what} {then or 'none'!r}, and this is {now or 'none'!r}: {_NEW_PLAN}"
            )
    there = {key: created for key, created in saved.store.experiments.items() if key in store.experiments}
    others = [key for key, created in there.items() if store.experiments[key] != created]
    if others or not there:
        told = f"experiment {first_of(others, _FEW)} was made at another time" if others else "none of its experiments"
        raise PlanError(f"the plan is for another store at {store.uri} ({told} here): {_NEW_PLAN}")
    if saved.settings != settings:
        raise PlanError(f"the settings in force are not those that the plan was made with: {_NEW_PLAN}, or use those")


def keys_of(done: Iterable[Mapping[str, Any]]) -> set[str]:
    """The keys of changes that journals hold as they were dumped."""
    found = set()
    for values in done:
        kind = Change.kinds.get(str(values.get("kind")))
        # What a kind leaves out of plans stands in its journal.
        whole = kind is not None and kind.lasting is not Change.lasting
        with suppress(ChangeError, ValueError):
            found.add(key_of(load(values).lasting() if whole else values))
    return found


@dataclass
class Followed:
    """A saved plan as the limit of a new one, and what becomes of its changes."""

    saved: SavedPlan
    _proposed: dict[str, list[tuple[str, Change]]] = field(default_factory=dict)
    """Fingerprint -> what would mend the finding by now, each with its key."""

    def __post_init__(self) -> None:
        self._wanted = {key_of(change.change) for change in self.saved.changes}

    def _key(self, change: Change) -> str:
        return key_of(change.lasting())

    def admit(self, finding: Finding, changes: tuple[Change, ...]) -> Admitted:
        """What of a remedy the saved plan holds, whichever finding it has it for: findings move when others are mended.

        A remedy that is another one by now is not begun, but for those of its changes that do good by themselves.
        """
        keys = [self._key(change) for change in changes]
        self._proposed[finding.fingerprint] = list(zip(keys, changes, strict=True))
        held = [key in self._wanted for key in keys]
        if all(held):
            return changes, ""
        first = held.index(False)
        why = (
            OTHERS if not any(held) else f"the saved plan does not hold all of its remedy: {changes[first].describe()}"
        )
        admitted = tuple(change for change, own in zip(changes, held, strict=True) if own)
        if all(change.by_itself for change in changes[first:]) and any(change.by_itself for change in admitted):
            return admitted, why
        return (), why

    def fates(self, plan: Plan, asked: Collection[str], before: Callable[[], Collection[str]]) -> Fates:
        """What becomes of each change of the saved plan where `plan` is carried out. `asked` are the ids of rules;
        `before` gives the keys of what earlier repairs made, and is asked only where something is left.
        """
        told = _Told(plan, self.saved)
        doing = {self._key(change) for change in plan.changes}
        earlier = unasked = 0
        refused: list[tuple[str, str]] = []
        made: Collection[str] | None = None
        for step in self.saved.steps:
            left = [change for change in step.changes if key_of(change.change) not in doing]
            found = step.finding.fingerprint
            if left and found not in told.unfixed:
                made = before() if made is None else made
                again = [change for change in left if key_of(change.change) not in made]
                earlier, left = earlier + len(left) - len(again), again
            if step.finding.policy not in asked:
                unasked += len(left)
            elif found in told.unfixed:
                refused += [(change.says, self._why(change, step, told.unfixed[found])) for change in left]
            elif found in told.mended:
                refused += [(change.says, NOT_IN_IT) for change in left]
            elif unknown := told.unknown(step):
                refused += [(change.says, unknown) for change in left]
            elif step.finding.policy in plan.unasked:
                unasked += len(left)
            else:
                gone = BUILDS_ON if step.follows and refused else GONE
                refused += [(change.says, gone) for change in left]
        return Fates(len(self.saved.changes), earlier, unasked, tuple(refused))

    def _why(self, change: PlannedChange, step: PlannedStep, reason: str) -> str:
        """Why a change is not made although its finding is still there."""
        by_now = self._proposed.get(step.finding.fingerprint, [])
        others = [other for key, other in by_now if key not in self._wanted]
        if not others:
            return reason
        if key_of(change.change) in dict(by_now):
            return f"its remedy is another one by now, with: {others[0].describe()}"
        like = next((other for other in others if _same_thing(other.lasting(), change.change)), None)
        if like is None:
            return NOT_IN_IT
        now = like.lasting()
        differing = ", ".join(
            f"other {name}" if isinstance(value, dict | list) else f"{name} {value!r} in place of {then!r}"
            for name, value in now.items()
            if key_of({name: value}) != key_of({name: (then := change.change.get(name))})
        )
        return f"by now it would be another one, with {differing}"


def _same_thing(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two changes do the same kind of thing to the same entity, which the value behind their kind names."""
    (_, kind), (name, value), *_ = one.items()
    return (kind, value, one.get("key")) == (other.get("kind"), other.get(name), other.get("key"))


class _Told:
    """What a new plan says of findings, by fingerprint."""

    def __init__(self, plan: Plan, saved: SavedPlan) -> None:
        self.unfixed = {item.finding.fingerprint: item.reason for item in plan.unfixed}
        self.mended = {step.finding.fingerprint for step in plan.steps}
        self._crashed = {item.finding.policy for item in plan.unfixed if item.finding.code == CRASHED}
        before = {(item.policy, item.entity.kind, item.entity.key, item.code) for item in saved.not_evaluated}
        self._unjudged = {
            item.policy: item.reason
            for item in plan.not_judged
            if (item.policy, item.entity.kind, item.entity.key, item.code) not in before
        }

    def unknown(self, step: PlannedStep) -> str:
        """Why nobody can say whether a finding that is not told any more is gone, '' where it is."""
        policy = step.finding.policy
        if policy in self._crashed:
            return "whether it is still needed is not known: its rule crashed"
        if policy in self._unjudged:
            return f"whether it is still needed is not known: {self._unjudged[policy]}"
        return ""
