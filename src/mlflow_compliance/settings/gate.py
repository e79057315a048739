"""Settings of the gate: which findings fail it, which are waived, and who owns what."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from mlflow_compliance.settings.errors import OWN
from mlflow_compliance.settings.flags import SEVERITIES
from mlflow_compliance.settings.tables import STRICT, SeverityName, Text, Texts

Severities = Annotated[tuple[SeverityName, ...], Field(strict=False)]


class _Table(BaseModel):
    model_config = STRICT


class GateSettings(_Table):
    """What fails the gate: findings from the severity `fail_on` on that are not in the baseline, and, for rules of the
    severities `require_evidence`, checks that could not judge. There one word means that severity and the worse ones.
    """

    require_evidence: Severities = ("critical",)
    fail_on: SeverityName = "low"
    baseline: Text | None = None

    def resolved_baseline(self, base: Path) -> Path | None:
        """The baseline's file as an absolute path; None where none is set."""
        return None if self.baseline is None else Path(os.path.abspath(base / os.path.expanduser(self.baseline)))

    @field_validator("require_evidence", mode="before")
    @classmethod
    def _from_this_one_on(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in (*SEVERITIES, "never"):
            words = ", ".join(SEVERITIES)
            raise PydanticCustomError(
                OWN,
                "must be one of {words} or never, or a list of severities, not {value}",
                {"words": words, "value": value},
            )
        return () if value == "never" else SEVERITIES[SEVERITIES.index(value) :]


def _day_or_words(value: Any) -> Any:
    """The day where it is one, else what was written: nobody knows then when the waiver ends, and it waives nothing."""
    if isinstance(value, dt.datetime | dt.time):
        return value.isoformat()
    if isinstance(value, str):
        try:
            return dt.date.fromisoformat(value) if len(value) == len("2027-03-31") else value
        except ValueError:
            return value
    return value if isinstance(value, dt.date) else repr(value)


class Waiver(_Table):
    """Findings that do not fail the gate until the end of the day `expires`."""

    policy: Text
    entity: Text
    reason: Text
    owner: Text
    expires: Annotated[dt.date | str, BeforeValidator(_day_or_words)]

    @field_validator("reason", "owner")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise PydanticCustomError(OWN, "must not be empty")
        return value

    @property
    def last_day(self) -> dt.date | None:
        """The last day on which it counts; None where what is written there is no day."""
        return self.expires if isinstance(self.expires, dt.date) else None


class Owner(_Table):
    """Who answers for the experiments that patterns match by name, in any case."""

    experiments: Annotated[Texts, BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]
    team: Text
    contact: str = ""
