"""What is said about settings that cannot be used: file, line, key, what is wrong, what may have been meant."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mlflow_compliance.errors import SettingsError
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.settings.toml import line_of

Loc = tuple[str | int, ...]

OWN = "compliance"
"""The type of the errors that our own validators raise: their message is said as it is."""

_EXPECTED = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "model_type": "a table",
    "string_type": "text in quotes",
    "tuple_type": "a list",
}


def shown_path(path: Path) -> str:
    """A path as people read it: relative where it lies below the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


@dataclass(frozen=True)
class SettingsFile:
    """The text that settings were read from; `prefix` leads to them within the document."""

    path: Path | None = None
    text: str = field(default="", repr=False)  # it may hold a URI with credentials
    prefix: Loc = ()
    sha256: str = ""
    """Of the file as it was read (hex)."""

    def line(self, loc: Loc) -> str:
        """The file and line where a key of these settings stands."""
        return "the settings" if self.path is None else f"{shown_path(self.path)}:{_line(self.text, self.prefix + loc)}"

    def error(self, problems: Iterable[tuple[Loc, str]]) -> SettingsError:
        """All problems as one error, a line each, in the order of the file."""
        placed = sorted((line_of(self.text, self.prefix + loc), f"{_key(loc)}: {message}") for loc, message in problems)
        if self.path is None:
            return SettingsError("\n".join(f"settings: {problem}" for _, problem in placed))
        return SettingsError("\n".join(f"{shown_path(self.path)}:{line}: {problem}" for line, problem in placed))


@lru_cache(maxsize=256)
def _line(text: str, loc: Loc) -> int:
    """`line_of`, once for each key: a finding for each of a thousand runs names the same one."""
    return line_of(text, loc)


def problems_in(error: ValidationError, model: type[BaseModel], prefix: Loc = ()) -> list[tuple[Loc, str]]:
    """What a validation error of `model` says, in our words: (where, what). `prefix` leads to it within its file."""
    return [(details["loc"], _message(details, model, prefix)) for details in error.errors(include_url=False)]


def unknown(what: str, word: str, known: Iterable[str], most: int = 1) -> str:
    """That a word is not known, with the one that was probably meant (or `most` of them), else with all that there
    are.
    """
    by_lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), by_lower, n=most)
    hint = (
        f"did you mean {' or '.join(repr(by_lower[name]) for name in close)}?"
        if close
        else f"known here: {', '.join(sorted(by_lower.values())) or 'none'}"
    )
    return f"unknown {what}; {hint}"


def _message(details: ErrorDetails, model: type[BaseModel], prefix: Loc) -> str:
    kind, loc, value = details["type"], details["loc"], details["input"]
    if kind == OWN:
        return details["msg"]
    if kind == "extra_forbidden":
        return unknown("key", str(loc[-1]), _model_at(loc[:-1], model).model_fields)
    if kind == "missing":
        return "is required"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "literal_error":
        return f"must be {details['ctx']['expected']}, not {_shown(value)}"
    declared = field_at(loc, model)
    table = ".".join(str(part) for part in (*prefix, *loc) if isinstance(part, str))
    if kind == "tuple_type" and isinstance(value, dict) and declared and _model_in(declared.annotation):
        return f"there may be several: write [[{table}]] in place of [{table}]"
    if kind == "model_type" and isinstance(value, list) and isinstance(loc[-1], str):
        return f"there is only one: write [{table}] in place of [[{table}]]"
    if kind != "finite_number" and declared and declared.description:
        return f"must be {declared.description}, not {_shown(value)}"
    if kind in _EXPECTED:
        return f"must be {_EXPECTED[kind]}, not {_shown(value)}"
    return f"{details['msg'][:1].lower()}{details['msg'][1:]}, not {_shown(value)}"


def _model_at(loc: Loc, model: type[BaseModel]) -> type[BaseModel]:
    """The model of the table at `loc`; indices and the keys of a mapping lead no further down."""
    for part in loc:
        declared = model.model_fields.get(str(part))
        model = (declared and _model_in(declared.annotation)) or model
    return model


def field_at(loc: Loc, model: type[BaseModel]) -> FieldInfo | None:
    """What is declared for a key, None where nothing is."""
    return _model_at(loc[:-1], model).model_fields.get(str(loc[-1]))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner))), None)


def _key(loc: Loc) -> str:
    """products[0].name, with quotes where TOML wants them; hostile characters come out escaped."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part))
    return text


def _shown(value: object) -> str:
    """A value as TOML has it, short; lists and tables only by kind."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    text = without_secrets(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
