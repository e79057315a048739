"""Which rules are asked for: exact ids, or patterns of ids."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from mlflow_compliance.errors import ComplianceError

RULES = "--compliance-rules"
"""The flag that most of this is about."""

_LIKE_AN_ID = re.compile(r"[A-Za-z]{2,5}[-_]?[0-9]{1,4}")
_NEAR = 3
"""Ids that are named for one that is none."""


def words_in(given: Sequence[str] | None, flag: str = RULES) -> tuple[str, ...]:
    """The ids and patterns in what a flag was given, empty where it was not. Raises ComplianceError where it names
    nothing.
    """
    found = tuple(word.strip() for words in given or () for word in words.split(",") if word.strip())
    if given is not None and not found:
        raise ComplianceError(f"{flag} takes ids of rules with commas between them, patterns too: EXP001,ART*")
    return found


def selects(words: Collection[str], policy_id: str) -> bool:
    """Whether a rule is asked for; without any word every rule is."""
    return not words or any(fnmatchcase(policy_id, word) for word in words)


def like_ids(expression: str) -> set[str]:
    """The words of a -k expression that look like ids of rules."""
    return {word for word in re.findall(r"[\w.-]+", expression) if _LIKE_AN_ID.fullmatch(word)}


def refuse_unmatched(words: Collection[str], known: Collection[str]) -> None:
    """Raise ComplianceError where words of -k that look like ids, and that nothing answered to, are none."""
    heads = {policy_id.rstrip("0123456789") for policy_id in known}
    for word in sorted(words):
        head = word.upper().rstrip("0123456789").rstrip("-_")
        if head in heads or (word.isupper() and len(head) == 3):
            near = get_close_matches(word.upper(), sorted(known), n=_NEAR, cutoff=0.5)
            near = near or [policy_id for policy_id in sorted(known) if policy_id.startswith(head)][:_NEAR]
            said = f"near it: {', '.join(near)}" if near else "the README lists them"
            raise ComplianceError(f"-k {word}: no rule has this id; {said}")


def refuse_unknown(words: Collection[str], known: Collection[str], flag: str = RULES, most: int = 1) -> None:
    """Raise ComplianceError where no rule at hand answers to a word, with the one that was probably meant, or `most`
    of them.
    """
    from mlflow_compliance.settings.errors import unknown

    wrong = [word for word in words if not any(fnmatchcase(policy_id, word) for policy_id in known)]
    if wrong:
        said = "; ".join(f"{word!r} is an {unknown('policy id', word, known, most)}" for word in wrong)
        raise ComplianceError(f"{flag}: {said}")
