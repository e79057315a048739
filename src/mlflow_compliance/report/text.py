"""Text that a store brought along, made safe to print: no control characters, no direction overrides, a bounded length."""

from __future__ import annotations

import unicodedata

LIMIT = 400
_DANGEROUS = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: str, limit: int = LIMIT) -> str:
    """The text on one line, with what could steer a terminal or a reader's eye written as an escape."""
    safe = "".join(char if unicodedata.category(char) not in _DANGEROUS else _escape(char) for char in text[: limit + 1])
    return safe if len(text) <= limit else safe[: limit - 1] + "…"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
