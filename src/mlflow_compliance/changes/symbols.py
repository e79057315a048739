"""What stands in a plan for values that only the writing will know."""

from __future__ import annotations

import re
from collections.abc import Mapping

NOW = "⟨time of writing⟩"
JOURNAL = "⟨journal⟩"
WHO = "⟨who repairs⟩"
"""The user who carries a plan out, who need not be the one who made it."""
_SYMBOL = re.compile("⟨[^⟨⟩]*⟩")


def copy_of(kind: str, key: str) -> str:
    """The symbol for the id that MLflow will give to the copy of a run or logged model."""
    return f"⟨copy of {kind} {key}⟩"


def bind(text: str, binding: Mapping[str, str]) -> str:
    """A text with every symbol that has a value replaced by it."""
    return _SYMBOL.sub(lambda match: binding.get(match[0], match[0]), text) if "⟨" in text else text


def is_planned(text: str) -> bool:
    """Whether something in a text will only be known when it is written."""
    return _SYMBOL.search(text) is not None
