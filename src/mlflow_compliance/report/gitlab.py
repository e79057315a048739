"""The report as GitLab reads code quality: a list of issues, each with a fingerprint and a place in a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import WAIVED, WARNING
from mlflow_compliance.report.problems import place_of, problems_of

if TYPE_CHECKING:
    from mlflow_compliance.audit.results import Report

LEVELS = {"critical": "blocker", "high": "critical", "medium": "major", "low": "minor"}
_BELOW = "info"
"""Of what does not fail the gate."""


def as_gitlab(report: Report) -> str:
    """What is waived is left out: GitLab knows no word for it. What is in the baseline stays, since GitLab compares
    with the target branch itself.
    """
    issues = []
    for problem in problems_of(report):
        if problem.status == WAIVED:
            continue
        file, line = place_of(problem, report)
        issues.append(
            {
                "description": f"{problem.title}: {problem.text}",
                "check_name": problem.policy,
                "fingerprint": problem.fingerprint,
                "severity": _BELOW if problem.status == WARNING else LEVELS[problem.severity],
                "location": {"path": file, "lines": {"begin": line}},
            }
        )
    return json.dumps(issues, indent=1) + "\n"
