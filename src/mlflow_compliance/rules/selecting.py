"""Which rules are asked for: exact ids, or patterns of ids."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from mlflow_compliance.errors import ComplianceError

RULES = "--compliance-rules"
"""The flag that most of this is about."""


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


def refuse_unknown(words: Collection[str], known: Collection[str], flag: str = RULES, most: int = 1) -> None:
    """Raise ComplianceError where no rule at hand answers to a word, with the one that was probably meant, or `most`
    of them.
    """
    from mlflow_compliance.settings.errors import unknown

    wrong = [word for word in words if not any(fnmatchcase(policy_id, word) for policy_id in known)]
    if wrong:
        said = "; ".join(f"{word!r} is an {unknown('policy id', word, known, most)}" for word in wrong)
        raise ComplianceError(f"{flag}: {said}")
