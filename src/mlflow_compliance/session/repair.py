"""The repair within a session: before the checks run, on those that were selected."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.session.state import BEFORE, STOPPED, audit_of, rule_of
from mlflow_compliance.settings.flags import ALL

if TYPE_CHECKING:
    from mlflow_compliance.repair.plan import Plan
    from mlflow_compliance.rules.policy import Policy


def _cases(items: list[pytest.Item]) -> dict[str, tuple[str, str]]:
    """Node id -> (policy id, case key) of the checks that were selected and are not switched off."""
    found = {}
    for item in items:
        rule = rule_of(item)
        if rule is not None and item.get_closest_marker("skip") is None:
            params = item.callspec.params if hasattr(item, "callspec") else {}
            found[item.nodeid] = (rule.id, "-".join(str(params[parameter]) for parameter in rule.parameters))
    return found


def repair(session: pytest.Session) -> None:
    """With --fix or --fix-dry-run: plan on the selected checks, carry the plan out, collect anew."""
    option, audit = session.config.option, audit_of(session.config)
    if not (option.compliance_fix or option.fix_dry_run) or session.testsfailed or option.collectonly:
        return
    if audit is None:
        raise pytest.UsageError("--fix needs policies: none was collected here")
    from mlflow_compliance.audit.made_before import made_before

    selected = _cases(session.items)
    cases: dict[str, set[str]] = {}
    for policy_id, key in selected.values():
        cases.setdefault(policy_id, set()).add(key)
    only = {policy_id: frozenset(keys) for policy_id, keys in cases.items()}
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    show = session.config.option.compliance_show
    try:
        before = audit.findings_by_case(only)
        audit.carry_out(only, lambda plan: _tell(reporter, plan, show), lambda: made_before(audit.store))
    except ComplianceError as error:
        session.config.stash[STOPPED] = str(error)
        raise pytest.UsageError(str(error)) from error
    session.config.stash[BEFORE] = {node: before[case] for node, case in selected.items() if before.get(case)}
    if audit.repair is not None and audit.repair.outcome is not None:
        _recollect(session, reporter)


def _tell(reporter: Any, plan: Plan, show: str) -> None:
    if reporter is None:
        return
    from mlflow_compliance.repair.brief import brief
    from mlflow_compliance.report.layout import plain
    from mlflow_compliance.safe_text import WHOLE, printable

    reporter.section("plan", sep="-")
    columns = shutil.get_terminal_size((120, 24)).columns
    for line in plan.lines() if show == ALL else brief(plan, columns):
        # Elsewhere than on a terminal somebody searches in it: there no line is broken.
        for shown in plain(printable(line, WHOLE), columns if reporter.isatty else None):
            reporter.write_line(shown.text)


class Removed(pytest.Item):
    """A check that failed before the repair and whose entity is gone: it reads FIXED (removed)."""

    rule: Policy

    def runtest(self) -> None:
        """Nothing is left to check."""

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, self.name


def _recollect(session: pytest.Session, reporter: Any) -> None:
    """Collect again, since the repair may have made or removed entities, and keep a row for each failing check that
    is gone.
    """
    gone = {item.nodeid: item for item in session.items}
    if reporter is not None and hasattr(reporter, "_numcollected"):
        # Without this the second collection is announced as the sum of both.
        reporter._numcollected = 0
        reporter.stats.pop("deselected", None)
    session.perform_collect()
    here = {item.nodeid for item in session.items}
    for nodeid in session.config.stash[BEFORE]:
        if nodeid not in here:
            removed = Removed.from_parent(session, name=gone[nodeid].name, nodeid=nodeid)
            rule = rule_of(gone[nodeid])
            assert rule is not None
            removed.rule = rule
            session.items.append(removed)
    session.testscollected = len(session.items)
