"""Text that a store brought along, made safe to print: no secrets, no control characters, no direction overrides, a bounded length."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from mlflow_compliance.uris import without_secrets

LIMIT = 400
WHOLE = 8000
"""Characters of a line that is there to be copied: it must not be cut."""
_DANGEROUS = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def printable(text: str, limit: int = LIMIT) -> str:
    """The text on one line, with what is secret cut, and what could steer a terminal or a reader's eye written as an escape."""
    text = without_secrets(text)  # before it is made shorter: half a URI cannot be told from a word
    safe = "".join(char if unicodedata.category(char) not in _DANGEROUS else _escape(char) for char in text[: limit + 1])
    return safe if len(text) <= limit else safe[: limit - 1] + "…"


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def to_copy(blocks: Iterable[str]) -> list[str]:
    """Blocks of TOML as lines of one: what belongs to the same table stands in it together, each line once."""
    tables: dict[str, dict[str, None]] = {}
    for block in filter(None, blocks):
        head, *lines = block.splitlines()
        # Of an array of tables each is one by itself.
        tables.setdefault(block if head.startswith("[[") else head, {}).update(dict.fromkeys(lines))
    return [printable(line, WHOLE) for head, lines in tables.items() for line in (head.partition("\n")[0], *lines)]
