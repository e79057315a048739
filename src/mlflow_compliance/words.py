"""Numbers as people read them: how many of what, and how many bytes."""

from __future__ import annotations

import re

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def several(number: int, kind: str) -> str:
    """'1 experiment', '2,000 registered models'."""
    words = kind.replace("_", " ")
    if number != 1:
        words = f"{words[:-1]}ies" if re.search("[^aeiou]y$", words) else f"{words}s"
    return f"{number:,} {words}"


def size_of(number: int) -> str:
    """A number of bytes, in units of a thousand."""
    amount, unit = float(number), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    if not unit:
        return several(number, "byte")
    return f"{amount:.{0 if amount >= 99.95 else 1}f} {_UNITS[unit]}"
