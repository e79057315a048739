"""Small pieces of HTML, with every text that a store brought along escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any

from mlflow_compliance.safe_text import printable

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def safe(text: object, limit: int = 2000) -> str:
    """A text that may stand in a page as it is."""
    return escape(printable(str(text), limit), quote=True)


def deeply_safe(value: Any) -> Any:
    """Plain values with every text in them safe."""
    if isinstance(value, dict):
        return {safe(key): deeply_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [deeply_safe(item) for item in value]
    return safe(value)


def named(text: object, limit: int = 120) -> str:
    """A name that somebody gave: it is cut where it is long, and its direction does not spread to what stands beside
    it.
    """
    return f"<bdi>{safe(text, limit)}</bdi>"


def day(time: str) -> str:
    """The day of a time in ISO 8601, or of one as the head of a report spells it."""
    return safe(time[:10])


def size(number: float | None) -> str:
    """Bytes as people read them."""
    if number is None:
        return "not read"
    step = 0
    while number >= 1000 and step < len(_UNITS) - 1:
        number, step = number / 1000, step + 1
    return f"{number:.0f} {_UNITS[step]}" if step == 0 or number >= 100 else f"{number:.1f} {_UNITS[step]}"


def many(number: int, what: str) -> str:
    """A number and its noun."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def severity_mark(severity: str) -> str:
    """A severity as a small label."""
    return f'<span class="c-sev c-{safe(severity)}">{safe(severity)}</span>'


def table(heads: Iterable[str], rows: Iterable[Iterable[str]], caption: str, kind: str = "") -> str:
    """A table whose first column names each row; cells are HTML already. It scrolls by itself where it is too wide."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = ""
    for first, *others in rows:
        cells = "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in others)
        body += f'<tr><th scope="row">{first}</th>{cells}</tr>'
    return (
        f'<div class="c-scroll" tabindex="0" role="group" aria-label="{caption}"><table class="c-table {kind}">'
        f"<caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
