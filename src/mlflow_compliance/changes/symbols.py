"""What stands in a plan for values that only the writing will know."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

NOW = "⟨time of writing⟩"
JOURNAL = "⟨journal⟩"
WHO = "⟨who repairs⟩"
"""The user who carries a plan out, who need not be the one who made it."""
_SYMBOL = re.compile("⟨[^⟨⟩]*⟩")
_MADE = re.compile(
    "⟨(?:copy of (?:run|logged model)|production (?:run|model) of|version of logged model|sha256 of) [^⟨⟩]*⟩"
)
"""What another change makes: people may write the brackets too."""


def copy_of(kind: str, key: str) -> str:
    """The symbol for the id that MLflow will give to the copy of a run or logged model."""
    return f"⟨copy of {kind} {key}⟩"


def bind(text: str, binding: Mapping[str, str]) -> str:
    """A text with every symbol that has a value replaced by it."""
    return _SYMBOL.sub(lambda match: binding.get(match[0], match[0]), text) if "⟨" in text else text


def unmade(texts: Iterable[str], binding: Mapping[str, str]) -> str:
    """The first symbol in some texts that another change should have made and that has no value; '' where there is
    none.
    """
    found = (match[0] for text in texts if "⟨" in text for match in _MADE.finditer(text))
    return next((symbol for symbol in found if symbol not in binding), "")


def is_planned(text: str) -> bool:
    """Whether something in a text will only be known when it is written."""
    return _SYMBOL.search(text) is not None
