"""Writes the JSON Schemas of saved plans (schemas/plan.schema.json, purge.schema.json) from their models."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from mlflow_compliance.repair.plan_document import SCHEMA_ID, SavedPlan
from mlflow_compliance.repair.purge_document import PURGE_ID, PurgePlan

FOLDER = Path(__file__).parents[1] / "src" / "mlflow_compliance" / "schemas"
KINDS: dict[str, tuple[type[BaseModel], str]] = {
    "plan.schema.json": (SavedPlan, SCHEMA_ID),
    "purge.schema.json": (PurgePlan, PURGE_ID),
}


def text(name: str = "plan.schema.json") -> str:
    """A schema as it stands in the package."""
    kind, key = KINDS[name]
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": key}
    return json.dumps({**dialect, **kind.model_json_schema()}, indent=2) + "\n"


if __name__ == "__main__":
    for name in KINDS:
        (FOLDER / name).write_text(text(name), encoding="utf-8")
