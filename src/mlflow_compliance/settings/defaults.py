"""What holds for a key that the settings do not say, as TOML has it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from mlflow_compliance.settings.errors import field_at
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.settings.toml import quoted

NOT_SET = "not set"
REQUIRED = "required"


def default_of(key: str) -> str:
    """The built-in value of a dotted key as docs/settings.md spells it (`products[].primary`). Raises KeyError where
    there is no such key.
    """
    loc = tuple(part for word in key.split(".") for part in ((word[:-2], 0) if word.endswith("[]") else (word,)))
    declared = field_at(tuple(part for part in loc if part != 0), Settings)
    if declared is None:
        raise KeyError(key)
    value = declared.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return REQUIRED
    return NOT_SET if value is None or _holds_tables(value, key) else _as_toml(value)


def _holds_tables(value: Any, key: str) -> bool:
    return isinstance(value, BaseModel) or (not value and key in ("products", "retention.hold"))


def _as_toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return _as_toml(value.value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return f"{{{', '.join(f' {key} = {_as_toml(item)}' for key, item in value.items())} }}" if value else "{}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_as_toml, value))}]"
    return str(value)
