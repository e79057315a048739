"""The start of a session and of its collection: flags, fixtures, parameters, and what stops a run before its checks."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.session.state import ATTRIBUTE, AUDIT, EXAMINED, STOPPED, VIOLATIONS, audit_of, ensure_audit, rule_of

if TYPE_CHECKING:
    from mlflow_compliance.audit import Audit
    from mlflow_compliance.rules.finding import Violations
    from mlflow_compliance.rules.policy import Policy

WORKER_ERROR = "compliance_error"
"""Key under which a worker of pytest-xdist hands over why it could not collect: raised there, it would be an internal error."""
_LEFT_OUT = "left-out"
"""Case of a rule that `--metadata-only` or `--compliance-rules` deselects: its cases are not looked for, since that may read files."""
_COVERED: pytest.StashKey[bool] = pytest.StashKey()


def begin(config: pytest.Config) -> None:
    """Check the flags against each other; hook up the HTML report where pytest-html is used."""
    option = config.option
    if (option.fix or option.fix_dry_run) and (getattr(option, "numprocesses", None) or hasattr(config, "workerinput")):
        raise pytest.UsageError("--fix and --fix-dry-run do not run under pytest-xdist: leave -n out (checks alone may run with it)")
    if option.fix and (option.setuponly or option.setupplan):
        raise pytest.UsageError("--fix changes the store, and --setup-only and --setup-plan run no test that could verify it: leave them out")
    if option.fix and option.fix_dry_run:
        raise pytest.UsageError("--fix and --fix-dry-run exclude each other: the dry run shows what --fix will do")
    if option.fix_max is not None and option.fix_max < 0:
        raise pytest.UsageError("--fix-max takes a number of entities, 0 or more")
    if option.fix_max is not None and not (option.fix or option.fix_dry_run):
        raise pytest.UsageError("--fix-max limits --fix or --fix-dry-run: give one of them")
    if option.fix_owned_root and not (option.fix or option.fix_dry_run):
        raise pytest.UsageError("--fix-owned-root is about what --fix or --fix-dry-run may change: give one of them")
    if option.executor != "threads":
        from mlflow_compliance.executors import check_executor

        try:
            check_executor(option.executor)
        except ComplianceError as error:
            raise pytest.UsageError(str(error)) from error
    if option.compliance_rules is not None:
        from mlflow_compliance.rules.selecting import words_in

        try:
            words_in(option.compliance_rules)
        except ComplianceError as error:
            raise pytest.UsageError(str(error)) from error
    if option.hash_cache is not None and not option.hash_cache.strip():
        raise pytest.UsageError("--hash-cache takes a folder, 'user' for the user's cache folder, or 'off'")
    if config.pluginmanager.hasplugin("html"):
        from mlflow_compliance.report.html import HtmlReport

        config.pluginmanager.register(HtmlReport(config), "mlflow_compliance.report.html")


def cover(collector: pytest.Collector, value: object) -> None:
    """Give a module its fixtures when its first policy is met: a global fixture named `settings` would break other suites."""
    module = collector.getparent(pytest.Module)
    if not hasattr(value, ATTRIBUTE) or module is None or module.stash.get(_COVERED, False):
        return
    from mlflow_compliance.rules.policy import AXES

    module.stash[_COVERED] = True
    audit = ensure_audit(collector.config)
    for name in AXES:
        pytest.register_fixture(name=name, func=_member, node=module)
    pytest.register_fixture(name="store", func=lambda request: audit.snapshot(artifacts=_policy(request.node).reads_artifacts), node=module)
    pytest.register_fixture(name="artifacts", func=lambda: audit.snapshot(artifacts=True).artifacts, node=module)
    pytest.register_fixture(name="evidence", func=lambda: audit.snapshot(artifacts=True).evidence, node=module)
    pytest.register_fixture(name="settings", func=lambda: audit.settings, node=module)
    pytest.register_fixture(name="violations", func=_violations, node=module)


def _policy(item: pytest.Item) -> Policy:
    found = rule_of(item)
    assert found is not None
    return found


def _member(request: pytest.FixtureRequest) -> object:
    """The entity behind a parameter, from the store as it was last read."""
    from mlflow_compliance.rules.policy import AXES, NONE

    audit, axis, rule = request.config.stash[AUDIT], str(request.fixturename), _policy(request.node)
    found = audit.resolve(axis, request.param, artifacts=rule.reads_artifacts)
    if found is not None:
        request.node.stash.setdefault(EXAMINED, []).append(AXES[axis].ref(found))
    elif request.param != NONE or axis not in rule.optional:
        pytest.fail(f"there is no {request.fixturename} to examine: a rule that looks at nothing proves nothing", pytrace=False)
    return found


def _violations(request: pytest.FixtureRequest) -> Violations:
    """The collector of a check; what it holds when the check ends fails the check."""
    from mlflow_compliance.entities import EntityRef
    from mlflow_compliance.rules.finding import Violations
    from mlflow_compliance.rules.policy import AXES

    rule = _policy(request.node)
    subject = EntityRef("store", "store", request.config.stash[AUDIT].store.info.uri)
    first = request.getfixturevalue(rule.axes[0]) if rule.axes else None
    if first is not None:
        subject = AXES[rule.axes[0]].ref(first)
    found = request.node.stash[VIOLATIONS] = Violations(rule.id, subject)
    return found


def rows(metafunc: pytest.Metafunc) -> None:
    """Parametrize a policy by the entities of the store, under opaque ids that stay the same while the store changes."""
    rule = getattr(metafunc.function, ATTRIBUTE, None)
    if rule is None:
        return
    audit = ensure_audit(metafunc.config)
    audit.add(rule)
    for axis in rule.axes:
        keys = [_LEFT_OUT] if audit.left_out(rule) or not audit.asked(rule) else audit.keys(rule, axis)
        metafunc.parametrize(axis, keys or _none(rule, axis, audit), ids=keys or None, indirect=True)


def _none(rule: Policy, axis: str, audit: Audit) -> list[Any]:
    """The one case of an axis that nothing is on: a failure where a store must have something, else told as NOT APPLICABLE."""
    from mlflow_compliance.rules.policy import MAY_BE_EMPTY, NONE, without_any

    if axis not in MAY_BE_EMPTY or axis in rule.optional:
        return [pytest.param(NONE, id=NONE)]
    reason = without_any(axis, audit.settings)
    return [pytest.param(NONE, id=NONE, marks=pytest.mark.skip(reason=reason))] if reason else []


def name(item: pytest.Item) -> None:
    """Let `-k EXP001` select a policy by its id."""
    rule = rule_of(item)
    if rule is not None:
        item.extra_keyword_matches.add(rule.id)


def collected(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Stop with one sentence where the store or the settings cannot be used; skip what the settings switch off."""
    audit = audit_of(session.config)
    if audit is None:
        return
    from mlflow_compliance.rules.selecting import refuse_unknown

    known = _pack_ids(items)
    left = {item for item in items if (rule := rule_of(item)) is not None and (audit.left_out(rule) or not audit.asked(rule))}
    if left:
        session.config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]
    try:
        refuse_unknown(audit.options.rules, known | audit.policies.keys())
        if audit.error is not None:
            raise audit.error
        audit.check(known)
        rules = [rule for item in items if (rule := rule_of(item)) is not None]
        audit.check_any_enabled(rules)
        if any(rule.reads_artifacts and audit.enabled(rule) for rule in rules) and not session.config.option.collectonly:
            audit.snapshot(artifacts=True)  # here, that a store whose files cannot be read stops the session as any other
        if session.config.option.fix or session.config.option.fix_dry_run:
            audit.remedies  # noqa: B018  a broken fixer is told before anything is read or written
    except ComplianceError as error:
        if not hasattr(session.config, "workerinput"):
            session.config.stash[STOPPED] = str(error)
            raise pytest.UsageError(str(error)) from error
        session.config.workeroutput[WORKER_ERROR] = str(error)  # type: ignore[attr-defined]
        items.clear()
    for item in items:
        switch_off(item, audit)


def switch_off(item: pytest.Item, audit: Audit) -> None:
    """Skip a check that the settings switch off."""
    rule = rule_of(item)
    if rule is not None and not audit.enabled(rule):
        item.add_marker(pytest.mark.skip(reason=f"{rule.id} is switched off in the settings"))


def _pack_ids(items: list[pytest.Item]) -> set[str]:
    """Every policy id in the folders that policies were collected from, also where only some files were selected."""
    rules = {item: rule for item in items if (rule := rule_of(item)) is not None}
    folders, found = {item.path.parent for item in rules}, {rule.id for rule in rules.values()}
    # The built-in rules too: settings may speak of them while only a user's own are run.
    for folder in {*folders, Path(__file__).parents[1] / "policies"}:
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


def hear(node: Any) -> None:
    """On the controller of pytest-xdist: keep what a worker handed over."""
    error = getattr(node, "workeroutput", {}).get(WORKER_ERROR)
    if error:
        node.config.stash[STOPPED] = error


def stop(config: pytest.Config) -> None:
    """On the controller of pytest-xdist: stop as a run without workers does."""
    if STOPPED in config.stash:
        raise pytest.UsageError(config.stash[STOPPED])
