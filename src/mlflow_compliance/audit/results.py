"""What an audit has to say, as typed values: one Result a check, one Summary a session. Every report is made of
these alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

FIXED = "fixed"
"""Outcome of a check that failed before the repair and passes now; the others are in `rules.outcome`."""
SWITCHED_OFF = "switched off"


@dataclass(frozen=True)
class FoundProblem:
    """One finding, in words for people, and what --fix would do about it."""

    text: str
    code: str
    fingerprint: str
    severity: str
    entity: str
    message: str
    observed: str
    expected: str
    remedy: str
    toml: str = ""
    cause: tuple[str, str] | None = None
    """Policy and entity of the check that tells what this follows from, where there is one."""


@dataclass(frozen=True)
class NotJudged:
    """One entity that a check could not judge, and why."""

    entity: str
    code: str
    reason: str


@dataclass(frozen=True)
class Result:
    """How one check ended. Plain values, so that a worker of pytest-xdist can hand it over."""

    policy: str
    title: str
    severity: str
    outcome: str
    """Passed, failed, not evaluated, not applicable, fixed or switched off."""
    entity: str = ""
    removed: bool = False
    """Whether it was fixed by putting its entity away."""
    done: tuple[str, ...] = ()
    """What the repair did about it."""
    findings: tuple[FoundProblem, ...] = ()
    unevaluated: tuple[NotJudged, ...] = ()
    reason: str = ""
    """Why it was skipped."""
    reported: bool = False
    """Whether the failure that pytest shows tells the same."""
    notes: tuple[str, ...] = ()
    examined: tuple[tuple[str, str], ...] = ()
    """(kind, key) of the entities that it was given."""

    @property
    def fixed(self) -> bool:
        return self.outcome == FIXED

    def plain(self) -> dict[str, Any]:
        """As values that JSON knows."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Result:
        """From what `plain` gave, also after a way through JSON, which makes lists of tuples."""
        known = {field.name: plain[field.name] for field in fields(cls)}
        known["findings"] = tuple(
            FoundProblem(**{**item, "cause": item["cause"] and tuple(item["cause"])}) for item in known["findings"]
        )
        known["unevaluated"] = tuple(NotJudged(**item) for item in known["unevaluated"])
        known["examined"] = tuple((kind, key) for kind, key in known["examined"])
        for name in ("done", "notes"):
            known[name] = tuple(known[name])
        return cls(**known)


@dataclass(frozen=True)
class Line:
    """A line for people, and whether all is well with what it tells."""

    text: str
    ok: bool = True


@dataclass(frozen=True)
class Summary:
    """What is said of an audit as a whole."""

    head: tuple[str, ...]
    """What was audited, a line each."""
    read_at: str
    known: tuple[str, ...] = ()
    """Ids of every rule of the packs that were collected from, and of the built-in ones."""
    repair: tuple[Line, ...] = ()
    """What --fix did, or why it did nothing."""
    policies: int = 0
    """Rules that were asked."""
