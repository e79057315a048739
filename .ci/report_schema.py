"""Writes the JSON Schema of a report (schemas/report.schema.json) from the types that it is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mlflow_compliance.audit import results as values
from mlflow_compliance.report.json_report import SCHEMA_ID, VERSION
from mlflow_compliance.rules.finding import Severity
from mlflow_compliance.rules.outcome import Outcome

TARGET = Path(__file__).parents[1] / "src" / "mlflow_compliance" / "schemas" / "report.schema.json"
SEVERITIES = [item.value for item in Severity]
ENUMS = {
    ("FoundProblem", "severity"): SEVERITIES,
    ("FoundProblem", "status"): list(values.STATUSES),
    ("Result", "severity"): SEVERITIES,
    ("Result", "outcome"): [
        *(item.value for item in Outcome), values.FIXED, values.SWITCHED_OFF, *values.STATUSES[1:]
    ],
    ("RuleFacts", "severity"): SEVERITIES,
}  # fmt: skip
"""What a text may be, by the type and the field that it stands in."""

values.Mapping = Mapping  # type: ignore[attr-defined]  that module needs it for type checkers alone
for kind in vars(values).values():
    if is_dataclass(kind):
        kind.__pydantic_config__ = ConfigDict(use_attribute_docstrings=True)  # type: ignore[attr-defined]


class Report(BaseModel):
    """One audit. A version only gains fields: what reads one passes over those that it does not know."""

    schema_: Literal[SCHEMA_ID] = Field(alias="schema")  # type: ignore[valid-type]
    version: Literal[VERSION]  # type: ignore[valid-type]
    ok: bool = Field(description="Whether something was checked and nothing fails the gate.")
    partial: bool = Field(description="Whether some rules were not asked, or not of everything.")
    counts: values.Counts
    summary: values.Summary
    results: tuple[values.Result, ...] = Field(description="One for each check, in the order of the report.")


def text() -> str:
    """The schema as it stands in the package."""
    schema: dict[str, Any] = Report.model_json_schema(mode="serialization", by_alias=True)
    for (kind, name), words in ENUMS.items():
        schema["$defs"][kind]["properties"][name]["enum"] = words
    for found in (schema, *schema["$defs"].values()):
        found["required"] = sorted(found["properties"])  # every field is written, also an empty one
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
    return json.dumps({**dialect, **schema}, indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
