"""What all tables of the settings have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

Text = Annotated[str, Field(min_length=1)]
# TOML has lists, a frozen model wants tuples: only here is a conversion allowed.
Texts = Annotated[tuple[Text, ...], Field(strict=False)]
SeverityName = Literal["low", "medium", "high", "critical"]

# Strict, so that "24" is no number and 1 is not true; extra keys are typing mistakes until shown otherwise.
STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)
