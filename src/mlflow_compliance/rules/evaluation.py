"""How rules are asked on a Snapshot, outside of a pytest run."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from mlflow_compliance.production.context import Context
from mlflow_compliance.rules.finding import ASSERTION, CRASHED, Finding, Violations
from mlflow_compliance.rules.outcome import Outcome, Unevaluated
from mlflow_compliance.rules.policy import NONE, PARAMETERS, Policy
from mlflow_compliance.snapshot.refs import EntityRef


def message_of(failure: BaseException) -> str:
    """What a failing check said of itself, in one line."""
    return next(filter(None, map(str.strip, str(failure).splitlines())), "the check does not hold")


@dataclass(frozen=True)
class Case:
    """A policy about one entity (or a combination of them): `key` is the parameter part of the test's id."""

    key: str
    arguments: Mapping[str, object]
    subject: EntityRef


@dataclass(frozen=True)
class Verdict:
    """What one case said. A crash is never compliance."""

    findings: tuple[Finding, ...]
    crash: Finding | None = None
    """Set where the check could not be carried out; its findings are those that it had recorded by then."""
    unevaluated: tuple[Unevaluated, ...] = ()
    applicable: bool = True
    offers: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    ended_by: BaseException | None = field(default=None, compare=False)
    """What the check raised."""

    @property
    def outcome(self) -> Outcome:
        if self.findings or self.crash:
            return Outcome.FAILED
        if self.unevaluated:
            return Outcome.NOT_EVALUATED
        return Outcome.PASSED if self.applicable else Outcome.NOT_APPLICABLE


def cases(rule: Policy, context: Context) -> list[Case]:
    """Every case of a policy in a stable order."""
    members: list[list[tuple[str, str, object]]] = []
    for parameter in rule.parameters:
        found_for_it = [(parameter, key, item) for key, item in PARAMETERS[parameter].entities(context).items()]
        members.append(found_for_it or ([(parameter, NONE, None)] if parameter in rule.optional else []))
    found = []
    for combination in itertools.product(*members):
        first = combination[0] if combination else None
        named = first is not None and first[2] is not None
        subject = PARAMETERS[first[0]].ref(first[2]) if first and named else context.snapshot.info.ref
        found.append(
            Case("-".join(key for _, key, _ in combination), {name: item for name, _, item in combination}, subject)
        )
    return found


def verdict_of(rule: Policy, case: Case, context: Context) -> Verdict:
    """What `evaluate` gives, once for each snapshot: a repair asks before it plans, and its plan begins with the
    same store.
    """
    return context.once(lambda _: evaluate(rule, case, context), _name(rule, case.key))


def verdict_known(rule: Policy, key: str, context: Context) -> Verdict | None:
    """What `verdict_of` gave for a case; None where it was not asked."""
    found = context.known(_name(rule, key))
    return found if isinstance(found, Verdict) else None


def _name(rule: Policy, key: str) -> tuple[object, ...]:
    return rule.id, rule.check, key


def evaluate(rule: Policy, case: Case, context: Context) -> Verdict:
    """Run one check on a snapshot as pytest would; an assertion is a finding about the case's entity."""
    violations = Violations(rule.id, case.subject)
    facts = {
        "store": context.snapshot,
        "artifacts": context.snapshot.artifacts,
        "evidence": context.snapshot.evidence,
        "settings": context.settings,
        "context": context,
        "violations": violations,
    }
    wanted = {name: facts[name] for name in rule.arguments if name in facts}
    crash: Finding | None = None
    applicable = True
    ended_by: BaseException | None = None
    try:
        rule.check(**case.arguments, **wanted)
    except (AssertionError, pytest.fail.Exception) as failure:
        ended_by = failure
        if not violations.findings:
            violations.add(ASSERTION, message_of(failure))
    except pytest.skip.Exception as skipped:
        # What was found before the check saw that it does not apply counts all the same.
        ended_by, applicable = skipped, False
    except Exception as error:  # noqa: BLE001  a user's check may raise anything; the pytest run shows its traceback
        ended_by = error
        what = f"{type(error).__name__}: {message_of(error)}" if str(error).strip() else type(error).__name__
        crash = Finding(rule.id, case.subject, CRASHED, f"the rule crashed ({what})")
    return Verdict(
        tuple(violations.findings),
        crash,
        tuple(violations.unevaluated),
        applicable,
        tuple(violations.offers),
        tuple(violations.notes),
        ended_by,
    )
