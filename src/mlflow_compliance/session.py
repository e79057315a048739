"""What the plugin's hooks do: collection, judging, repairing and telling, all on the Audit of this session.

The engine is imported when the first policy is collected, so that other test suites start as fast as without the plugin.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.errors import ComplianceError

if TYPE_CHECKING:
    from mlflow_compliance.audit import Audit
    from mlflow_compliance.entities import EntityRef
    from mlflow_compliance.findings import Finding, Violations
    from mlflow_compliance.plan import Plan
    from mlflow_compliance.rules import Policy

Status = tuple[str, str, str | tuple[str, Mapping[str, bool]]]
AUDIT: pytest.StashKey[Audit] = pytest.StashKey()
VIOLATIONS: pytest.StashKey[Violations] = pytest.StashKey()
BEFORE: pytest.StashKey[dict[str, list[Finding]]] = pytest.StashKey()
"""Node id -> its findings before the repair."""
ATTRIBUTE = "__compliance_policy__"
MARK = "compliance"
"""Attribute of a report that carries plain values, so that it survives the way from a worker of pytest-xdist."""


STOPPED: pytest.StashKey[str] = pytest.StashKey()
"""Why a run ended before its checks; a report says so, that it may not be taken for a good one."""
WORKER_ERROR = "compliance_error"
"""Key under which a worker of pytest-xdist hands over why it could not collect: raised there, it would be an internal error."""


def begin(config: pytest.Config) -> None:
    """Check the flags against each other; hook up the HTML report where pytest-html is used."""
    option = config.option
    if (option.fix or option.fix_dry_run) and (getattr(option, "numprocesses", None) or hasattr(config, "workerinput")):
        raise pytest.UsageError("--fix and --fix-dry-run do not run under pytest-xdist: leave -n out (checks alone may run with it)")
    if option.fix and option.fix_dry_run:
        raise pytest.UsageError("--fix and --fix-dry-run exclude each other: the dry run shows what --fix will do")
    if option.fix_max is not None and option.fix_max < 0:
        raise pytest.UsageError("--fix-max takes a number of entities, 0 or more")
    if option.fix_max is not None and not (option.fix or option.fix_dry_run):
        raise pytest.UsageError("--fix-max limits --fix or --fix-dry-run: give one of them")
    if config.pluginmanager.hasplugin("html"):
        from mlflow_compliance.report.html import HtmlReport

        config.pluginmanager.register(HtmlReport(config), "mlflow_compliance.report.html")


def audit_of(config: pytest.Config) -> Audit | None:
    """The audit of this session, if a policy was collected."""
    return config.stash.get(AUDIT, None)


def _ensure(config: pytest.Config) -> Audit:
    audit = audit_of(config)
    if audit is None:
        from mlflow_compliance.audit import Audit, Options
        from mlflow_compliance.progress import RichProgress, Silent

        reporter = config.pluginmanager.getplugin("terminalreporter")
        capture = config.pluginmanager.getplugin("capturemanager")
        # The store is read while pytest collects, and what is written then goes into pytest's capture.
        shown = capture.global_and_fixture_disabled if capture else nullcontext
        on_terminal = reporter is not None and reporter.isatty and config.get_verbosity() >= 0
        options = Options(
            rootdir=config.rootpath,
            workdir=config.invocation_params.dir,
            tracking_uri=config.option.tracking_uri,
            config=config.option.compliance_config,
            fixers=tuple(config.getini("compliance_fixers")),
            fix=config.option.fix,
            limit=config.option.fix_max,
        )
        audit = config.stash[AUDIT] = Audit(options, lambda: RichProgress(shown) if on_terminal else Silent())
    return audit


def cover(collector: pytest.Collector, value: object) -> None:
    """Give a module its fixtures when its first policy is met: a global fixture named `settings` would break other suites."""
    module = collector.getparent(pytest.Module)
    if not hasattr(value, ATTRIBUTE) or module is None or module.stash.get(_COVERED, False):
        return
    from mlflow_compliance.rules import AXES

    module.stash[_COVERED] = True
    audit = _ensure(collector.config)
    for name in AXES:
        pytest.register_fixture(name=name, func=_member, node=module)
    pytest.register_fixture(name="store", func=lambda request: audit.snapshot(artifacts=_policy(request.node).reads_artifacts), node=module)
    pytest.register_fixture(name="artifacts", func=lambda: audit.snapshot(artifacts=True).artifacts, node=module)
    pytest.register_fixture(name="settings", func=lambda: audit.settings, node=module)
    pytest.register_fixture(name="violations", func=_violations, node=module)


_COVERED: pytest.StashKey[bool] = pytest.StashKey()


def _policy(item: pytest.Item) -> Policy:
    found: Policy = getattr(item.function, ATTRIBUTE)  # type: ignore[attr-defined]
    return found


def _member(request: pytest.FixtureRequest) -> object:
    """The entity behind a parameter, from the store as it was last read."""
    audit = request.config.stash[AUDIT]
    found = audit.resolve(str(request.fixturename), request.param, artifacts=_policy(request.node).reads_artifacts)
    if found is None:
        pytest.fail(f"there is no {request.fixturename} to examine: a rule that looks at nothing proves nothing", pytrace=False)
    return found


def _violations(request: pytest.FixtureRequest) -> Violations:
    """The collector of a check; what it holds when the check ends fails the check."""
    from mlflow_compliance.entities import EntityRef
    from mlflow_compliance.findings import Violations
    from mlflow_compliance.rules import AXES

    rule = _policy(request.node)
    subject = EntityRef("store", "store", request.config.stash[AUDIT].store.info.uri)
    if rule.axes:
        subject = AXES[rule.axes[0]].ref(request.getfixturevalue(rule.axes[0]))
    found = request.node.stash[VIOLATIONS] = Violations(rule.id, subject)
    return found


def rows(metafunc: pytest.Metafunc) -> None:
    """Parametrize a policy by the entities of the store, under opaque ids that stay the same while the store changes."""
    rule = getattr(metafunc.function, ATTRIBUTE, None)
    if rule is None:
        return
    from mlflow_compliance.rules import MAY_BE_EMPTY

    audit = _ensure(metafunc.config)
    audit.add(rule)
    for axis in rule.axes:
        keys = audit.keys(rule, axis)
        if not keys and axis not in MAY_BE_EMPTY:
            keys = ["none"]
        metafunc.parametrize(axis, keys, ids=keys, indirect=True)


def name(item: pytest.Item) -> None:
    """Let `-k EXP001` select a policy by its id."""
    rule = getattr(getattr(item, "function", None), ATTRIBUTE, None)
    if rule is not None:
        item.extra_keyword_matches.add(rule.id)


def collected(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Stop with one sentence where the store or the settings cannot be used; skip what the settings switch off."""
    audit = audit_of(session.config)
    if audit is None:
        return
    try:
        if audit.error is not None:
            raise audit.error
        audit.check(_pack_ids(items))
        audit.check_any_enabled(rule for item in items if (rule := getattr(getattr(item, "function", None), ATTRIBUTE, None)) is not None)
        if session.config.option.fix or session.config.option.fix_dry_run:
            audit.remedies  # noqa: B018  a broken fixer is told before anything is read or written
    except ComplianceError as error:
        if not hasattr(session.config, "workerinput"):
            session.config.stash[STOPPED] = str(error)
            raise pytest.UsageError(str(error)) from error
        session.config.workeroutput[WORKER_ERROR] = str(error)  # type: ignore[attr-defined]
        items.clear()
    for item in items:
        rule = getattr(getattr(item, "function", None), ATTRIBUTE, None)
        if rule is not None and not audit.enabled(rule):
            item.add_marker(pytest.mark.skip(reason=f"{rule.id} is switched off in the settings"))


def _pack_ids(items: list[pytest.Item]) -> set[str]:
    """Every policy id in the folders that policies were collected from, also where only some files were selected."""
    import ast

    folders = {item.path.parent for item in items if hasattr(getattr(item, "function", None), ATTRIBUTE)}
    found = {getattr(item.function, ATTRIBUTE).id for item in items if hasattr(getattr(item, "function", None), ATTRIBUTE)}  # type: ignore[attr-defined]
    # The built-in rules too: settings may speak of them while only a user's own are run.
    for folder in {*folders, Path(__file__).parent / "policies"}:
        for path in folder.glob("test_*.py"):
            try:
                tree = ast.parse(path.read_bytes())
            except (OSError, SyntaxError, ValueError):
                continue  # pytest tells of it when it is selected
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "policy" and node.args:
                    first = node.args[0]
                    if isinstance(first, ast.Constant):
                        found.add(str(first.value))
    return found


def judge(item: pytest.Function) -> None:
    """Fail a check whose violations are not empty, all of them told."""
    violations = item.stash.get(VIOLATIONS, None)
    if violations is not None and violations.findings:
        from mlflow_compliance.report.text import printable

        pytest.fail("\n".join(printable(str(finding)) for finding in violations.findings), pytrace=False)


def clean(item: pytest.Function, failure: AssertionError) -> None:
    """Make the message of a failing assertion safe to print: it may quote what somebody named in the store."""
    if hasattr(item.function, ATTRIBUTE):
        from mlflow_compliance.report.text import printable

        failure.args = tuple("\n".join(map(printable, arg.splitlines())) if isinstance(arg, str) else arg for arg in failure.args)


def _cases(items: list[pytest.Item]) -> dict[str, tuple[str, str]]:
    """Node id -> (policy id, case key) of the checks that were selected and are not switched off."""
    found = {}
    for item in items:
        rule = getattr(getattr(item, "function", None), ATTRIBUTE, None)
        if rule is not None and item.get_closest_marker("skip") is None:
            params = item.callspec.params if hasattr(item, "callspec") else {}
            found[item.nodeid] = (rule.id, "-".join(str(params[axis]) for axis in rule.axes))
    return found


def repair(session: pytest.Session) -> None:
    """With --fix or --fix-dry-run: plan on the selected checks, carry the plan out, collect anew."""
    option, audit = session.config.option, audit_of(session.config)
    if not (option.fix or option.fix_dry_run) or session.testsfailed or option.collectonly:
        return
    if audit is None:
        raise pytest.UsageError("--fix needs policies: none was collected here")
    selected = _cases(session.items)
    only: dict[str, set[str]] = {}
    for policy_id, key in selected.values():
        only.setdefault(policy_id, set()).add(key)
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    try:
        before = audit.findings_by_case()
        audit.mend({policy_id: frozenset(keys) for policy_id, keys in only.items()}, lambda plan: _tell(reporter, plan))
    except ComplianceError as error:
        session.config.stash[STOPPED] = str(error)
        raise pytest.UsageError(str(error)) from error
    session.config.stash[BEFORE] = {node: before[case] for node, case in selected.items() if before.get(case)}
    if audit.repair is not None and audit.repair.outcome is not None:
        _recollect(session, reporter)


def _tell(reporter: Any, plan: Plan) -> None:
    if reporter is None:
        return
    from mlflow_compliance.report.text import printable

    reporter.section("plan", sep="-")
    for line in plan.lines():
        reporter.write_line(printable(line, 2000))


class Removed(pytest.Item):
    """A check that failed before the repair and whose entity is gone: it reads FIXED (removed)."""

    rule: Policy

    def runtest(self) -> None:
        """Nothing is left to check."""

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, self.name


def _recollect(session: pytest.Session, reporter: Any) -> None:
    """Collect again, since the repair may have made or removed entities, and keep a row for each failing check that is gone."""
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
            removed.rule = _policy(gone[nodeid])
            session.items.append(removed)
    session.testscollected = len(session.items)


def describe(item: pytest.Item, report: pytest.TestReport, call: pytest.CallInfo[Any]) -> None:
    """Put on a report what the tables show: plain values only."""
    rule = item.rule if isinstance(item, Removed) else getattr(getattr(item, "function", None), ATTRIBUTE, None)
    if rule is None or not (report.when == "call" or report.outcome != "passed"):
        return
    audit = item.config.stash[AUDIT]
    violations = item.stash.get(VIOLATIONS, None)
    findings = violations.findings if violations else []
    before = item.config.stash.get(BEFORE, {}).get(item.nodeid, [])
    done = audit.done(before)
    fixed = report.when == "call" and report.outcome == "passed" and bool(before)
    if fixed and not done and not isinstance(item, Removed):
        done = ["mended along with another finding"]
    subject = violations.subject if violations else (before[0].entity if before else _subject(item, rule, audit))
    remedies = {finding: audit.remedy(finding) for finding in findings}
    if report.outcome == "failed" and not findings:
        found, remedy = _own_failure(rule, subject, call, audit)
        findings, remedies = [found], {found: remedy}
    setattr(
        report,
        MARK,
        {
            "policy": rule.id,
            "title": rule.title,
            "severity": audit.severity(rule).value,
            "entity": str(subject) if subject else "",
            "fixed": fixed,
            "removed": isinstance(item, Removed),
            "done": done if fixed else [],
            "findings": [
                {
                    "entity": str(finding.entity),
                    "message": finding.message,
                    "observed": finding.observed,
                    "expected": finding.expected,
                    "remedy": remedies[finding],
                }
                for finding in findings
            ],
            "told": bool(violations and violations.findings),
            "notes": list(violations.notes) if violations else [],
        },
    )


def _subject(item: pytest.Item, rule: Policy, audit: Audit) -> EntityRef | None:
    """What a check without a `violations` fixture is about."""
    from mlflow_compliance.entities import EntityRef
    from mlflow_compliance.rules import AXES

    if not rule.axes:
        return EntityRef("store", "store", audit.store.info.uri)
    key = item.callspec.params.get(rule.axes[0]) if hasattr(item, "callspec") else None
    found = audit.resolve(rule.axes[0], str(key), artifacts=rule.reads_artifacts)
    return None if found is None else AXES[rule.axes[0]].ref(found)


def _own_failure(rule: Policy, subject: EntityRef | None, call: pytest.CallInfo[Any], audit: Audit) -> tuple[Finding, str]:
    """A check that failed by an assertion, or that could not be carried out, as a row of the tables; and what --fix would do."""
    from mlflow_compliance.entities import EntityRef
    from mlflow_compliance.findings import Finding
    from mlflow_compliance.rules import said

    error = call.excinfo.value if call.excinfo else None
    entity = subject or EntityRef("store", "store", audit.store.info.uri)
    if call.when == "call" and isinstance(error, (AssertionError, pytest.fail.Exception)):
        finding = Finding(rule.id, entity, said(error))
        return finding, audit.remedy(finding)
    if isinstance(error, pytest.fail.Exception):
        return Finding(rule.id, entity, said(error)), "nothing: the settings or the store must hold something to examine"
    what = type(error).__name__ + (f": {said(error)}" if str(error).strip() else "") if error is not None else "no reason given"
    return Finding(rule.id, entity, f"the check could not be carried out ({what})"), "nothing: mend the policy; a check that crashed proves nothing"


def hear(node: Any) -> None:
    """On the controller of pytest-xdist: keep what a worker handed over."""
    error = getattr(node, "workeroutput", {}).get(WORKER_ERROR)
    if error:
        node.config.stash[STOPPED] = error


def stop(config: pytest.Config) -> None:
    """On the controller of pytest-xdist: stop as a run without workers does."""
    if STOPPED in config.stash:
        raise pytest.UsageError(config.stash[STOPPED])


def status(report: pytest.TestReport) -> Status | None:
    """FIXED for a check that failed before the repair and passes now."""
    facts = getattr(report, MARK, None)
    if facts and facts["fixed"]:
        return "fixed", "f", ("FIXED (removed)" if facts["removed"] else "FIXED", {"green": True, "bold": True})
    return None


def summarize(reporter: Any, config: pytest.Config) -> None:
    """The end of the terminal's output: what was audited, what is wrong and what --fix would do."""
    audit = audit_of(config)
    if audit is None or not audit.opened:
        return
    from mlflow_compliance.report.terminal import write_summary

    facts = [getattr(report, MARK) for reports in reporter.stats.values() for report in reports if hasattr(report, MARK)]
    write_summary(reporter, audit, facts)


def finish(session: pytest.Session) -> None:
    """A repair that failed in part, or a store that is not what was planned, is never a success."""
    audit = audit_of(session.config)
    made = audit.repair if audit else None
    if made is not None and (made.unlike or (made.outcome and made.outcome.failed)) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
