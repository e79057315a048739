"""The start of a session and of its collection: flags, fixtures, parameters, and what stops a run before its checks."""

from __future__ import annotations

import ast
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.session.options import LEFT, flags_of
from mlflow_compliance.session.packs import folders_of_policies
from mlflow_compliance.session.state import ATTRIBUTE, AUDIT, EXAMINED, STOPPED, VIOLATIONS, audit_of, rule_of
from mlflow_compliance.session.xdist import WORKER_ERROR

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit
    from mlflow_compliance.rules.finding import Violations
    from mlflow_compliance.rules.policy import Policy

_LEFT_OUT = "left-out"
"""Case of a rule that `--compliance-metadata-only` or `--compliance-rules` deselects: its cases are not looked for,
since that may read files.
"""
_COVERED: pytest.StashKey[bool] = pytest.StashKey()
_UNMATCHED: pytest.StashKey[set[str]] = pytest.StashKey()
"""Words of -k that look like ids of rules, and that no check has answered to so far."""


def cover(collector: pytest.Collector, value: object) -> None:
    """Give a module its fixtures when its first policy is met: a global fixture named `settings` would break other
    suites.
    """
    module = collector.getparent(pytest.Module)
    if not hasattr(value, ATTRIBUTE) or module is None or module.stash.get(_COVERED, False):
        return
    from mlflow_compliance.rules.policy import PARAMETERS

    module.stash[_COVERED] = True
    audit = ensure_audit(collector.config)
    for name in PARAMETERS:
        pytest.register_fixture(name=name, func=_member, node=module)
    pytest.register_fixture(
        name="store", func=lambda request: audit.snapshot(artifacts=_policy(request.node).reads_artifacts), node=module
    )
    pytest.register_fixture(name="artifacts", func=lambda: audit.snapshot(artifacts=True).artifacts, node=module)
    pytest.register_fixture(name="evidence", func=lambda: audit.snapshot(artifacts=True).evidence, node=module)
    pytest.register_fixture(
        name="context", func=lambda request: audit.context(artifacts=_policy(request.node).reads_artifacts), node=module
    )
    pytest.register_fixture(name="settings", func=lambda: audit.settings, node=module)
    pytest.register_fixture(name="violations", func=_violations, node=module)


def _policy(item: pytest.Item) -> Policy:
    found = rule_of(item)
    assert found is not None
    return found


def _member(request: pytest.FixtureRequest) -> object:
    """The entity behind a parameter, from the store as it was last read."""
    from mlflow_compliance.rules.policy import NONE, PARAMETERS

    audit, parameter, rule = request.config.stash[AUDIT], str(request.fixturename), _policy(request.node)
    found = audit.resolve(parameter, request.param, artifacts=rule.reads_artifacts)
    if found is not None:
        request.node.stash.setdefault(EXAMINED, []).append(PARAMETERS[parameter].ref(found))
    elif request.param != NONE or parameter not in rule.optional:
        pytest.fail(
            f"there is no {request.fixturename} to examine: a rule that looks at nothing proves nothing", pytrace=False
        )
    return found


def _violations(request: pytest.FixtureRequest) -> Violations:
    """The collector of a check; what it holds when the check ends fails the check."""
    from mlflow_compliance.rules.finding import Violations
    from mlflow_compliance.rules.policy import PARAMETERS

    rule = _policy(request.node)
    subject = request.config.stash[AUDIT].store.info.ref
    first = request.getfixturevalue(rule.parameters[0]) if rule.parameters else None
    if first is not None:
        subject = PARAMETERS[rule.parameters[0]].ref(first)
    found = request.node.stash[VIOLATIONS] = Violations(rule.id, subject)
    return found


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Parametrize a policy by the entities of the store, under opaque ids that stay the same while the store
    changes.
    """
    rule = getattr(metafunc.function, ATTRIBUTE, None)
    if rule is None:
        return
    audit = ensure_audit(metafunc.config)
    audit.add(rule)
    for parameter in rule.parameters:
        keys = [_LEFT_OUT] if audit.left_out(rule) or not audit.asked(rule) else audit.keys(rule, parameter)
        metafunc.parametrize(parameter, keys or _none(rule, parameter, audit), ids=keys or None, indirect=True)


def _none(rule: Policy, parameter: str, audit: Audit) -> list[Any]:
    """The one case of a parameter that nothing is there for: a failure where a store must have something, else told
    as NOT APPLICABLE.
    """
    from mlflow_compliance.rules.policy import MAY_BE_EMPTY, NONE, without_any

    if parameter not in MAY_BE_EMPTY or parameter in rule.optional:
        return [pytest.param(NONE, id=NONE)]
    reason = without_any(parameter, audit.settings)
    return [pytest.param(NONE, id=NONE, marks=pytest.mark.skip(reason=reason))] if reason else []


def name(item: pytest.Item) -> None:
    """Let `-k EXP001` select a policy by its id, and see which words of -k answer to nothing."""
    rule = rule_of(item)
    if rule is not None:
        item.extra_keyword_matches.add(rule.id)
        mark(item, rule)
    keyword = item.config.option.keyword
    if not keyword:
        return
    words = item.config.stash.get(_UNMATCHED, None)
    if words is None:
        from mlflow_compliance.rules.selecting import like_ids

        words = item.config.stash[_UNMATCHED] = like_ids(keyword)
    if words:
        names = [*item.listextrakeywords(), *(node.name for node in item.listchain()), *item.keywords]
        words -= {word for word in words if any(word.lower() in known.lower() for known in names)}


def mark(item: pytest.Item, rule: Policy) -> None:
    """Mark a check with the severity that is in force for its rule, for `-m`."""
    audit = ensure_audit(item.config)
    try:
        item.add_marker(audit.severity(rule).value)
    except ComplianceError as error:
        audit.error = audit.error or error  # the end of the collection tells it


def collected(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Stop with one sentence where the store or the settings cannot be used; skip what the settings switch off."""
    audit = audit_of(session.config)
    if audit is None:
        return
    for name, sentence in session.config.stash.get(LEFT, {}).items():
        if name in session.config.invocation_params.args:
            audit.tell(f"compliance: {sentence}")
    from mlflow_compliance.rules.selecting import refuse_unknown, refuse_unmatched

    known, unmatched = _pack_ids(items), session.config.stash.get(_UNMATCHED, set[str]())
    left = {
        item
        for item in items
        if (rule := rule_of(item)) is not None and (audit.left_out(rule) or not audit.asked(rule))
    }
    if left:
        session.config.hook.pytest_deselected(items=[item for item in items if item in left])
        items[:] = [item for item in items if item not in left]
    try:
        refuse_unknown(audit.options.rules, known | audit.policies.keys())
        refuse_unmatched(unmatched, known | audit.policies.keys())
        if audit.error is not None:
            raise audit.error
        audit.check(known)
        rules = [rule for item in items if (rule := rule_of(item)) is not None]
        audit.check_any_enabled(rules)
        if rules:
            audit.judge  # noqa: B018  a baseline that cannot be used is told before anything is checked
        if (
            any(rule.reads_artifacts and audit.enabled(rule) for rule in rules)
            and not session.config.option.collectonly
        ):
            audit.snapshot(
                artifacts=True
            )  # here, that a store whose files cannot be read stops the session as any other
        if session.config.option.compliance_fix or session.config.option.fix_dry_run:
            audit.remedies  # noqa: B018  a broken fixer is told before anything is read or written
            audit.planning.check()
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
    for folder in {*folders, *folders_of_policies()}:
        for path in folder.glob("test_*.py"):
            try:
                tree = ast.parse(path.read_bytes())
            except (OSError, SyntaxError, ValueError):
                continue  # pytest tells of it when it is selected
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Call)
                    and getattr(node.func, "id", getattr(node.func, "attr", "")) == "policy"
                    and node.args
                ):
                    first = node.args[0]
                    if isinstance(first, ast.Constant):
                        found.add(str(first.value))
    return found


def ensure_audit(config: pytest.Config) -> Audit:
    """The audit of this session, made when its first policy is met."""
    audit = audit_of(config)
    if audit is None:
        audit = config.stash[AUDIT] = new_audit(config)
    return audit


def new_audit(config: pytest.Config) -> Audit:
    """An audit as the command line asks for it; nothing is read yet."""
    from mlflow_compliance.audit.audit import Audit, Options
    from mlflow_compliance.progress import RichProgress, Silent
    from mlflow_compliance.safe_text import printable
    from mlflow_compliance.session.xdist import sharing_of

    reporter = config.pluginmanager.getplugin("terminalreporter")
    capture = config.pluginmanager.getplugin("capturemanager")
    # The store is read while pytest collects, and what is written then goes into pytest's capture.
    shown = capture.global_and_fixture_disabled if capture else nullcontext
    on_terminal = reporter is not None and reporter.isatty and config.get_verbosity() >= 0
    options = Options(
        config.rootpath,
        config.invocation_params.dir,
        tuple(config.getini("compliance_fixers")),
        **vars(flags_of(config)),
    )

    def tell(line: str) -> None:
        if reporter is not None:
            with shown():
                reporter.ensure_newline()
                reporter.write_line(printable(line))

    return Audit(options, lambda: RichProgress(shown) if on_terminal else Silent(), sharing_of(config), tell)
