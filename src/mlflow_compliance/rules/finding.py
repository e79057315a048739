"""What a policy found: Finding, its severity and fingerprint, and the collector that policies add to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, NoReturn

import pytest

from mlflow_compliance.rules.outcome import Unevaluated
from mlflow_compliance.snapshot.refs import EntityRef

ASSERTION = "assertion"
"""Code of what a plain assert found."""
CRASHED = "crashed"
"""Code of a check that could not be carried out."""
NOTHING_TO_EXAMINE = "nothing-to-examine"
"""Code of a check that had nothing to look at, where a store must have something."""


class Severity(str, Enum):
    """How much a finding matters, from least to most."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for the least."""
        return list(Severity).index(self)


class Cause(NamedTuple):
    """The check of another rule that tells what a finding follows from: `subject` is what that check is about."""

    policy: str
    subject: EntityRef


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which the store breaks one rule. `code` stays the same within its policy when the words change."""

    policy: str
    entity: EntityRef
    code: str
    message: str
    observed: str = ""
    expected: str = ""
    severity: Severity | None = None
    """Where it matters less or more than the policy says; None for the policy's own."""
    toml: str = ""
    """Lines for compliance.toml that say what the store shows, ready to be copied."""
    name: str = ""
    """Which param, metric, tag or fact of the entity it is about, where one rule may find several of them wrong."""
    cause: Cause | None = None
    """Where that check was asked too and failed, the table tells the way out there, once."""
    advice: str = ""
    """What people can do about it, where that is not what the rule says of all its findings."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that stay the same while the same thing is wrong with the same entity, whatever the
        counts and the words.
        """
        facts = "\0".join(
            [self.policy, self.code, self.entity.kind, self.entity.key, *([self.name] if self.name else [])]
        )
        return hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()[:16]

    def __str__(self) -> str:
        parts = [f"{self.entity}: {self.message}"]
        if self.observed:
            parts.append(f"found: {self.observed}")
        if self.expected:
            parts.append(f"expected: {self.expected}")
        return "; ".join(parts)


@dataclass
class Violations:
    """What one run of one policy gathers. `subject` is the entity that a finding is about unless it names another."""

    policy: str
    subject: EntityRef
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unevaluated: list[Unevaluated] = field(default_factory=list)
    offers: list[Finding] = field(default_factory=list)

    def add(
        self,
        code: str,
        message: str,
        *,
        entity: EntityRef | None = None,
        observed: object = "",
        expected: object = "",
        severity: Severity | None = None,
        toml: str = "",
        name: str = "",
        cause: Cause | None = None,
        advice: str = "",
    ) -> None:
        """Record a finding; the check goes on, so that one run tells everything."""
        self.findings.append(
            Finding(
                self.policy,
                entity or self.subject,
                code,
                message,
                str(observed),
                str(expected),
                severity,
                toml,
                name,
                cause,
                advice,
            )
        )

    def offer(self, code: str, message: str, *, entity: EntityRef | None = None) -> None:
        """Record something that breaks no rule and that --fix can put in order all the same; a reader is told."""
        self.offers.append(Finding(self.policy, entity or self.subject, code, message))
        self.note(message)

    def not_evaluated(self, code: str, reason: str, *, entity: EntityRef | None = None) -> None:
        """Record that evidence exists or is asked for and could not be looked at; the check goes on."""
        self.unevaluated.append(Unevaluated(self.policy, entity or self.subject, code, reason))

    def not_applicable(self, reason: str) -> NoReturn:
        """End the check: there is nothing that the rule could judge."""
        pytest.skip(reason)

    def note(self, text: str) -> None:
        """Record something that a reader should know and that breaks no rule."""
        self.notes.append(text)
