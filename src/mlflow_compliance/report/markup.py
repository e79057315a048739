"""Small pieces of HTML, with every text that a store brought along escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Any

from mlflow_compliance.safe_text import printable
from mlflow_compliance.words import several, size_of

_WORD_END = re.compile(r"(?<=[_./-])(?=\w)")
"""Where a name without spaces may go on in the next line."""
_CODE = re.compile(r"`([^`]+)`")


def safe(text: object, limit: int = 2000) -> str:
    """A text that may stand in a page as it is."""
    return escape(printable(str(text), limit), quote=True)


def prose(text: str, limit: int = 2000) -> str:
    """A sentence with what stands between backticks, to be copied, as code."""
    return _CODE.sub(r"<code>\1</code>", safe(text, limit))


def deeply_safe(value: Any) -> Any:
    """Plain values with every text in them safe."""
    if isinstance(value, dict):
        return {safe(key): deeply_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [deeply_safe(item) for item in value]
    return safe(value)


def named(text: object, limit: int = 120) -> str:
    """A name that somebody gave: it is cut where it is long, breaks between its words where it can, and its direction
    does not spread to what stands beside it.
    """
    return f"<bdi>{_WORD_END.sub('<wbr>', safe(text, limit))}</bdi>"


def day(time: str) -> str:
    """The day of a time in ISO 8601, or of one as the head of a report spells it."""
    return safe(time[:10])


def size(number: int | None) -> str:
    """Bytes as people read them."""
    return "not read" if number is None else size_of(number)


def left_out(number: int, what: str, told: str = "") -> str:
    """The line below a table that does not show all; nothing where it does."""
    return f'<p class="c-note">and {several(number, f"more {what}")}{told}</p>' if number > 0 else ""


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
