"""How the check of a rule can end."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from mlflow_compliance.snapshot.refs import EntityRef


class Outcome(str, Enum):
    """What a check says of its entity. Only PASSED is green."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_EVALUATED = "not evaluated"
    """Evidence is there or was asked for, and was not looked at or could not be."""
    NOT_APPLICABLE = "not applicable"
    """Nothing is there, or is named in the settings, that the rule could judge."""


class Unevaluated(NamedTuple):
    """Something that a rule could not judge, and why: evidence that nobody looked at is neither good nor bad."""

    policy: str
    entity: EntityRef
    code: str
    reason: str

    def __str__(self) -> str:
        return f"{self.entity}: not evaluated: {self.reason}"
