"""TOML text with line numbers: tomllib gives values without lines, and an error without a line is hard to act on."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*""")
# A multi-line string may end in up to five quotes, the first two being content. Anything that is neither string, array
# nor inline table (numbers, dates, true) ends where the next mark begins.
_SCALAR = re.compile(
    r'''"""(?:[^\\]|\\.)*?""""{0,2}|\'\'\'.*?\'\'\''{0,2}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[^\s"'\[\]{},#=][^"'\[\]{},#=\n]*''',
    re.DOTALL,
)
_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")

_Loc = tuple[str | int, ...]


class TomlSyntaxError(ValueError):
    """A text is not TOML; `line` (1-based) says where, `reason` why."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


def parse(text: str) -> dict[str, Any]:
    """The document in a TOML text. Raises TomlSyntaxError."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise TomlSyntaxError(1, "nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and what int() says of a number with thousands of digits
        message = str(error)
        place = _PLACE.search(message)
        if place is None:
            raise TomlSyntaxError(1, message) from None
        reason = message[: place.start()]
        if place[1] is None:
            raise TomlSyntaxError(len(text.rstrip().splitlines()) or 1, f"{reason} at the end of the file") from None
        raise TomlSyntaxError(int(place[1]), f"{reason} at column {place[2]}") from None


def quoted(text: str) -> str:
    """A text as a TOML string in one line: in single quotes where that spares escapes, what could steer a terminal
    escaped.
    """
    if text.isprintable() and "'" not in text and ("\\" in text or '"' in text):
        return f"'{text}'"
    return f'"{"".join(map(_escaped, text))}"'


def key(text: str) -> str:
    """A text as a TOML key."""
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else quoted(text)


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    kind = unicodedata.category(char)
    if kind == "Cs":
        return "\\uFFFD"  # half a character: TOML has no way to write one
    if kind[0] != "C" and kind not in ("Zl", "Zp"):
        return char
    return f"\\u{ord(char):04X}" if ord(char) < 0x10000 else f"\\U{ord(char):08X}"


def line_of(text: str, loc: Sequence[str | int]) -> int:
    """
    The line (1-based) where the key or array element at `loc` stands; where it is missing, that of what would hold it.

    `text` is one that parse() accepts; for another the answer means nothing, or ValueError is raised.
    """
    lines = _Scanner(text).document()
    for length in range(len(loc), 0, -1):
        if tuple(loc[:length]) in lines:
            return lines[tuple(loc[:length])]
    return 1


class _Scanner:
    """Walks over a document and notes where each key and array element is first mentioned."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[_Loc, int] = {}
        self.tables: dict[_Loc, int] = {}
        """Array of tables -> how many of its tables were seen."""

    def document(self) -> dict[_Loc, int]:
        table: _Loc = ()
        while self._next():
            if self._next() == "[":
                table = self._header()
            else:
                self._pair(table)
        return self.lines

    def _header(self) -> _Loc:
        brackets = 2 if self.text.startswith("[[", self.at) else 1
        self.at += brackets
        loc: _Loc = ()
        *parents, last = self._keys()
        for key in parents:
            loc = self._note((*loc, key))
            if loc in self.tables:  # [products.tags] speaks of the latest of the [[products]]
                loc = (*loc, self.tables[loc] - 1)
        loc = self._note((*loc, last))
        if brackets == 2:
            self.tables[loc] = self.tables.get(loc, 0) + 1
            loc = self._note((*loc, self.tables[loc] - 1))
        self.at += brackets
        return loc

    def _pair(self, table: _Loc) -> None:
        loc = table
        for key in self._keys():
            loc = self._note((*loc, key))
        self._pass("=")
        self._value(loc)

    def _value(self, loc: _Loc) -> None:
        opening = self._next()
        if opening not in ("[", "{"):
            self._match(_SCALAR)
            return
        closing = "]" if opening == "[" else "}"
        self._pass(opening)
        index = 0
        while self._next() != closing:
            if opening == "[":
                self._value(self._note((*loc, index)))
                index += 1
            else:
                self._pair(loc)
            if self._next() != closing:
                self._pass(",")
        self._pass(closing)

    def _keys(self) -> list[str]:
        keys = [self._key()]
        while self.text.startswith(".", self.at):
            self.at += 1
            keys.append(self._key())
        return keys

    def _key(self) -> str:
        raw = self._match(_KEY)[1]
        return str(next(iter(parse(f"{raw} = 0"))))  # the parser knows every escape

    def _note(self, loc: _Loc) -> _Loc:
        self.lines.setdefault(loc, self.text.count("\n", 0, self.at) + 1)
        return loc

    def _next(self) -> str:
        """The next character that is neither blank nor comment; empty at the end."""
        self._match(_BLANK)
        return self.text[self.at : self.at + 1]

    def _pass(self, mark: str) -> None:
        if self._next() != mark:
            raise ValueError(f"no TOML: {mark!r} expected at offset {self.at}")
        self.at += 1

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise ValueError(f"no TOML at offset {self.at}")
        self.at = found.end()
        return found
