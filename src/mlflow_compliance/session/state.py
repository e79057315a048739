"""What the hooks share: keys of pytest's stashes, and the audit of a session.

The engine is imported when the first policy is collected, so that other test suites start as fast as without the plugin.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mlflow_compliance.audit import Audit
    from mlflow_compliance.entities import EntityRef
    from mlflow_compliance.rules.finding import Finding, Violations
    from mlflow_compliance.rules.policy import Policy

AUDIT: pytest.StashKey[Audit] = pytest.StashKey()
VIOLATIONS: pytest.StashKey[Violations] = pytest.StashKey()
EXAMINED: pytest.StashKey[list[EntityRef]] = pytest.StashKey()
"""On a check: the entities that it was given."""
BEFORE: pytest.StashKey[dict[str, list[Finding]]] = pytest.StashKey()
"""Node id -> its findings before the repair."""
STOPPED: pytest.StashKey[str] = pytest.StashKey()
"""Why a run ended before its checks; a report says so, that it may not be taken for a good one."""
ATTRIBUTE = "__compliance_policy__"
MARK = "compliance"
"""Attribute of a report that carries plain values, so that it survives the way from a worker of pytest-xdist."""


def rule_of(item: object) -> Policy | None:
    """The policy behind a collected test, None for a test that is none."""
    found: Policy | None = getattr(getattr(item, "function", None), ATTRIBUTE, None)
    return found


def audit_of(config: pytest.Config) -> Audit | None:
    """The audit of this session, if a policy was collected."""
    return config.stash.get(AUDIT, None)


def ensure_audit(config: pytest.Config) -> Audit:
    """The audit of this session, made when its first policy is met."""
    audit = audit_of(config)
    if audit is None:
        from mlflow_compliance.audit import Audit, Options
        from mlflow_compliance.progress import RichProgress, Silent
        from mlflow_compliance.rules.selecting import words_in
        from mlflow_compliance.session.sharing import sharing_of

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
            executor=config.option.executor,
            hash_cache=config.option.hash_cache,
            metadata_only=config.option.metadata_only,
            rules=words_in(config.option.compliance_rules),
            owned_roots=tuple(config.option.fix_owned_root),
        )
        audit = config.stash[AUDIT] = Audit(options, lambda: RichProgress(shown) if on_terminal else Silent(), sharing_of(config))
    return audit
