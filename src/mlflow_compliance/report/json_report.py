"""The report as JSON: every value of the Report, under a version and a published schema."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_compliance.audit.results import Report

VERSION = 1
SCHEMA_ID = f"urn:mlflow-compliance:report:{VERSION}"


def document_of(report: Report) -> dict[str, Any]:
    """The report as values that JSON knows."""
    return {
        "schema": SCHEMA_ID,
        "version": VERSION,
        "ok": report.ok,
        "partial": report.partial,
        "counts": asdict(report.counts),
        "summary": asdict(report.summary),
        "results": [result.plain() for result in report.results],
    }


def as_json(report: Report) -> str:
    return json.dumps(document_of(report), indent=1, sort_keys=True) + "\n"
