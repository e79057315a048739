"""What a policy found: Finding, its severity and fingerprint, and the collector that policies add to."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum

from mlflow_compliance.entities import EntityRef


class Severity(str, Enum):
    """How much a finding matters, from least to most."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which the store breaks one rule."""

    policy: str
    entity: EntityRef
    message: str
    observed: str = ""
    expected: str = ""

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that stay the same while the same thing is wrong with the same entity."""
        facts = "\0".join([self.policy, self.entity.kind, self.entity.key, self.message])
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

    def add(self, message: str, *, entity: EntityRef | None = None, observed: object = "", expected: object = "") -> None:
        """Record a finding; the check goes on, so that one run tells everything."""
        self.findings.append(Finding(self.policy, entity or self.subject, message, str(observed), str(expected)))

    def note(self, text: str) -> None:
        """Record something that a reader should know and that breaks no rule."""
        self.notes.append(text)
