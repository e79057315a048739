"""What is said of a rule to somebody who meets it: what it looks for, an example, how to mend or waive it, and what it
gives evidence for. The texts lie beside the module of the rule: `test_runs.toml` beside `test_runs.py`, a table a rule.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.rules.clauses import CLAUSES
from mlflow_compliance.rules.fixer import summary_of
from mlflow_compliance.rules.reach import changes_of, kind_of
from mlflow_compliance.settings.toml import TomlSyntaxError, parse, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_compliance.rules.fixer import Fixer
    from mlflow_compliance.rules.policy import Policy

LARGEST = 1 << 20
"""Bytes: a larger file holds no texts about rules."""


@dataclass(frozen=True)
class Texts:
    """The table of one rule. All of it may be left out."""

    what: str = ""
    """What it looks at, and when that is a finding."""
    example: str = ""
    entity: str = "*"
    """What the entity of a waiver looks like."""
    settings: tuple[str, ...] = ()
    """Keys, as docs/settings.md spells them."""
    clauses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explained:
    """All that is known of a rule without a store."""

    id: str
    title: str
    severity: str
    why: str
    texts: Texts
    remedy: str
    """What --fix does, empty where it has no remedy."""
    kind: str
    """'safe', 'reversible' or 'advice'."""
    changes: tuple[str, ...]
    """Names of the kinds of change that the remedy may make."""
    advice: str

    def waiver(self, expires: str) -> str:
        """Lines for compliance.toml that waive its findings until the end of a day (ISO 8601)."""
        return "\n".join(
            [
                "[[waivers]]",
                f"policy = {quoted(self.id)}",
                f"entity = {quoted(self.texts.entity)}",
                'reason = "why it may stay as it is"',
                'owner = "who answers for that"',
                f"expires = {expires}",
            ]
        )


def explained(rule: Policy, remedy: Fixer | None) -> Explained:
    """What is to be said of a rule. Raises ComplianceError where the file of its texts cannot be used."""
    return Explained(
        rule.id,
        rule.title,
        rule.severity.value,
        _in_lines(inspect.getdoc(rule.check) or ""),
        texts_of(rule),
        summary_of(remedy) if remedy else "",
        kind_of(remedy),
        tuple(change.__name__ for change in changes_of(remedy)),
        rule.advice,
    )


def texts_of(rule: Policy) -> Texts:
    """The texts beside a rule, empty ones where there are none."""
    path = Path(inspect.unwrap(rule.check).__code__.co_filename).with_suffix(".toml")
    table = _tables(str(path), _state_of(path)).get(rule.id, {})
    known = {item.name for item in fields(Texts)}
    found: dict[str, Any] = table if isinstance(table, dict) else {rule.id: table}
    bad = [key for key, value in found.items() if key not in known or not _fits(key, value)]
    if bad:
        raise ComplianceError(
            f"{path}: the texts about {rule.id} are {', '.join(sorted(known))} (settings and clauses are lists of "
            f"texts), and {bad[0]!r} is none of them: mend it"
        )
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    return Texts(**values)


def clauses_of(rule: Policy) -> tuple[str, ...]:
    """What a rule gives evidence for; none where its texts cannot be used, which --compliance-explain tells."""
    try:
        return texts_of(rule).clauses
    except ComplianceError:
        return ()


def about(clause: str) -> str:
    """What a clause asks for, empty where it is not known here."""
    return CLAUSES.get(clause, "")


def _fits(key: str, value: object) -> bool:
    if key in ("settings", "clauses"):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, str)


def _state_of(path: Path) -> tuple[int, int]:
    """What changes with a file."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=64)
def _tables(path: str, _state: tuple[int, int]) -> Mapping[str, Any]:
    try:
        with open(path, "rb") as file:
            return parse(file.read(LARGEST).decode("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ComplianceError(f"{path}: the texts about its rules cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ComplianceError(f"{path}: the texts about its rules are not UTF-8") from None
    except TomlSyntaxError as error:
        raise ComplianceError(f"{path}:{error.line}: this is not TOML: {error.reason}") from None


def _in_lines(text: str) -> str:
    """A docstring with each paragraph on one line."""
    return "\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
