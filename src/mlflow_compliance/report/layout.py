"""Lines for a terminal: text beside a heading, broken between words, and cut where there is too much of it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NARROW = 30
"""Columns that a text gets at least, however narrow the terminal is."""
NAME = 44
"""Characters of a name that stands for an example."""
EXAMPLES = 3


@dataclass(frozen=True)
class Shown:
    """One line, and the style of its first `styled` characters (of all where that is 0)."""

    text: str
    style: str = ""
    styled: int = 0


def beside(
    head: str, text: str, width: int | None, style: str = "", most: int = 0, *, keep: str = ""
) -> Iterator[Shown]:
    """The text beside its heading, further lines below the first; at most so many where `most` is given, with the end
    that it must `keep`. Without a width it is one line.
    """
    if width is None:
        yield Shown(f"{head}{text}{keep}".rstrip(), style, len(head) if text else 0)
        return
    room = max(width - len(head), NARROW)
    lines = textwrap.wrap(text + keep, room, break_on_hyphens=False) or [""]
    if most and len(lines) > most:
        lines = textwrap.wrap(text, room, break_on_hyphens=False)
        last = f"{_cut(lines[most - 1], room - 2 - len(keep))} …{keep}"
        lines = [*lines[: most - 1], *(textwrap.wrap(last, room, break_on_hyphens=False))]
    yield Shown(f"{head}{lines[0]}".rstrip(), style, len(head) if text else 0)
    for line in lines[1:]:
        yield Shown(" " * len(head) + line)


def plain(text: str, width: int | None, style: str = "", most: int = 0) -> Iterator[Shown]:
    """A line by itself; what does not fit is below it, a little further in."""
    if width is None or len(text) <= width:
        yield Shown(text, style)
        return
    lines = textwrap.wrap(text, width, subsequent_indent="    ", break_on_hyphens=False)
    if most and len(lines) > most:
        lines = [*lines[: most - 1], f"{_cut(lines[most - 1], width - 2)} …"]
    for line in lines:
        yield Shown(line, style)


def _cut(line: str, room: int) -> str:
    """The beginning of a line in so many columns, without half a word at its end where that leaves something."""
    if len(line) <= room:
        return line.rstrip()
    begun = line[: max(room, 0)]
    return (begun if line[len(begun)].isspace() else begun.rpartition(" ")[0] or begun).rstrip()


def examples(names: Sequence[str], most: int = EXAMPLES) -> str:
    """The first names, and how many more there are: 'a, b, ... +263'."""
    few = ", ".join(map(_short, names[:most]))
    return f"{few}, ... +{len(names) - most:,}" if len(names) > most else few


def _short(name: str) -> str:
    """Of a path its end tells most, of any other name its beginning."""
    if len(name) <= NAME:
        return name
    return f"…{name[1 - NAME :]}" if "/" in name else f"{name[: NAME - 1]}…"


def folded(lines: Sequence[str], width: int | None) -> list[str]:
    """Lines of TOML with the members of an array side by side, as many as fit."""
    if width is None:
        return list(lines)
    made: list[str] = []
    joining = False
    for line in lines:
        member = line.startswith("  ") and line.endswith(",") and "#" not in line
        if member and joining and len(made[-1]) + len(line) - 1 <= width:
            made[-1] += f" {line.strip()}"
        else:
            made.append(line)
        joining = member
    return made
