"""What the hooks share: keys of pytest's stashes, and the audit of a session.

The engine is imported when the first policy is collected, so that other test suites start as fast as without the
plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.audit.results import Report, Result
    from mlflow_compliance.rules.finding import Finding, Violations
    from mlflow_compliance.rules.policy import Policy
    from mlflow_compliance.snapshot.refs import EntityRef


AUDIT: pytest.StashKey[Audit] = pytest.StashKey()
VIOLATIONS: pytest.StashKey[Violations] = pytest.StashKey()
EXAMINED: pytest.StashKey[list[EntityRef]] = pytest.StashKey()
"""On a check: the entities that it was given."""
BEFORE: pytest.StashKey[dict[str, list[Finding]]] = pytest.StashKey()
"""Node id -> its findings before the repair."""
STOPPED: pytest.StashKey[str] = pytest.StashKey()
"""Why a run ended before its checks; a report says so, that it may not be taken for a good one."""
ATTRIBUTE = "__compliance_policy__"
REPORT: pytest.StashKey[Report] = pytest.StashKey()
"""Made once, when the last check has ended."""
RESULT = "compliance"
"""Attribute of a report that carries a Result as plain values, so that it survives the way from a worker of
pytest-xdist.
"""


def rule_of(item: object) -> Policy | None:
    """The policy behind a collected test, None for a test that is none."""
    found: Policy | None = getattr(getattr(item, "function", None), ATTRIBUTE, None)
    return found


def case_of(item: pytest.Item, rule: Policy) -> str:
    """Which of a policy's cases a check is."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return "-".join(str(params[parameter]) for parameter in rule.parameters)


def result_of(report: object) -> Result | None:
    """What a check's report carries, None for the report of anything else."""
    plain = getattr(report, RESULT, None)
    if plain is None:
        return None
    from mlflow_compliance.audit.results import Result

    return Result.of(plain)


def results_of(reporter: object) -> list[tuple[str, Result]]:
    """Node id and Result of every check that pytest's terminal reporter was told of."""
    stats: dict[str, list[Any]] = getattr(reporter, "stats", {})
    return [(report.nodeid, found) for some in stats.values() for report in some if (found := result_of(report))]


def audit_of(config: pytest.Config) -> Audit | None:
    """The audit of this session, if a policy was collected."""
    return config.stash.get(AUDIT, None)
