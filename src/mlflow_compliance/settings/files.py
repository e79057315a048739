"""The files that settings stand in: finding the nearest one, reading the table in it."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from mlflow_compliance.errors import SettingsError
from mlflow_compliance.settings.errors import SettingsFile, shown_path
from mlflow_compliance.settings.toml import TomlSyntaxError, parse, quoted

FILE = "compliance.toml"
PYPROJECT = "pyproject.toml"
TABLE = ("tool", "mlflow-compliance")
WITHOUT_SETTINGS = "no settings file: defaults; write one with --compliance-init"
"""What the head says where there is none."""
_LARGEST = 1 << 22
"""Bytes: a device has no end, and a file that was named by mistake may have a long one."""

_EXPIRES = re.compile(
    r"""(?<![\w.-])(expires[ \t]*=[ \t]*)  # a key
    ([^\s"'\[\]{},#=][^"'\[\]{},#=\n]*?)  # a value that is no string, list or table
    (?=[ \t]*(?:[},#\n]|\Z))""",
    re.VERBOSE,
)
"""The last day of a waiver, without quotes."""


def find_settings(start: Path) -> Path | None:
    """
    The settings file for `start` (a folder, or a file in it): the nearest one upwards, no further than the repository.

    A pyproject.toml that cannot be read counts, so that reading it says why instead of the defaults ruling in silence.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        if os.path.lexists(folder / FILE) and not (folder / FILE).is_dir():
            return folder / FILE
        if (folder / PYPROJECT).is_file() and has_table(folder / PYPROJECT):
            return folder / PYPROJECT
        if (folder / ".git").exists():
            return None
    return None


def read_settings(path: Path) -> tuple[SettingsFile, dict[str, Any]]:
    """The text of a settings file and the table of settings in it, not yet validated. Raises SettingsError."""
    text, sha256 = _read(path)
    table: Any = _document(path, text)
    prefix = TABLE if path.name == PYPROJECT else ()
    for depth, key in enumerate(prefix, 1):
        if key not in table:
            raise SettingsError(f"{shown_path(path)}: there is no table [{'.'.join(TABLE)}]")
        table = table[key]
        if not isinstance(table, dict):
            raise SettingsFile(path, text).error([(prefix[:depth], "must be a table")])
    return SettingsFile(path, text, prefix, sha256), table


def _read(path: Path) -> tuple[str, str]:
    """The text of a file and the SHA-256 of its bytes (hex)."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise SettingsError(
                f"{shown_path(path)}: the settings cannot be read: more than {_LARGEST} bytes are no settings file"
            )
        return content.decode("utf-8-sig"), hashlib.sha256(content).hexdigest()
    except FileNotFoundError:
        raise SettingsError(f"{shown_path(path)}: there is no such settings file") from None
    except OSError as error:
        raise SettingsError(f"{shown_path(path)}: the settings cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{shown_path(path)}:{line}: the settings are not UTF-8 text") from None


def _document(path: Path, text: str) -> dict[str, Any]:
    try:
        return _parsed(text)
    except TomlSyntaxError as error:
        raise SettingsError(f"{shown_path(path)}:{error.line}: this is not TOML: {error.reason}") from None


def _parsed(text: str) -> dict[str, Any]:
    """The document in a text. A waiver that ends on no day that there is, such as 2027-02-30, has ended: the words are
    taken as they are, and whoever judges waivers tells it.
    """
    try:
        return parse(text)
    except TomlSyntaxError as error:
        legible = _EXPIRES.sub(lambda found: found[1] + _in_quotes(found[2]), text)
        try:
            return parse(legible)
        except TomlSyntaxError:
            raise error from None


def _in_quotes(value: str) -> str:
    try:
        parse(f"value = {value}")
    except TomlSyntaxError:
        return quoted(value)
    return value


def has_table(pyproject: Path) -> bool:
    """Whether a pyproject.toml holds settings; one that cannot be read may."""
    try:
        table: Any = _document(pyproject, _read(pyproject)[0])
    except SettingsError:
        return True
    tool = table.get(TABLE[0])
    return isinstance(tool, dict) and TABLE[1] in tool
