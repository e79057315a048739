"""Writes the JSON Schema of saved plans (schemas/plan.schema.json) from the models that read them."""

from __future__ import annotations

import json
from pathlib import Path

from mlflow_compliance.repair.plan_document import SCHEMA_ID, SavedPlan

TARGET = Path(__file__).parents[1] / "src" / "mlflow_compliance" / "schemas" / "plan.schema.json"


def text() -> str:
    """The schema as it stands in the package."""
    made = SavedPlan.model_json_schema()
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
    return json.dumps({**dialect, **made}, indent=2) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf-8")
