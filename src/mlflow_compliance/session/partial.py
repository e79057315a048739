"""Whether every rule was asked of everything: a report of some rules must not read as one of all."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlflow_compliance.safe_text import first_of
from mlflow_compliance.session.state import results_of, rule_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    from mlflow_compliance.audit.results import Summary

_FEW = 8
"""Ids in one line of the head."""
OWN = "pytest-mlflow-compliance "


def told_as_partial(summary: Summary, session: pytest.Session) -> Summary:
    """The summary with the rules counted that ran, and what was left out in front where anything was."""
    from mlflow_compliance.audit.gate_summary import not_whole
    from mlflow_compliance.audit.results import SWITCHED_OFF

    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    results = results_of(reporter)
    asked = {result.policy for _, result in results if result.outcome != SWITCHED_OFF}
    collected = [*session.items, *getattr(reporter, "stats", {}).get("deselected", [])]
    left = _of_policies(collected, {nodeid for nodeid, _ in results})
    left = (left | not_whole(summary, [result for _, result in results])) & asked
    missing = sorted(set(summary.known) - asked)
    summary = replace(summary, policies=len(asked), head=(*summary.head, *_others(session.config)))
    owner = session.config.option.compliance_owner
    if not missing and not left and owner is None:
        return summary
    parts = [f"{len(asked)} of {len(asked | set(summary.known))} rules were asked"]
    parts += [f"not asked: {first_of(missing, _FEW)}"] if missing else []
    parts += [f"not asked of everything: {first_of(sorted(left), _FEW)}"] if left else []
    if owner is not None:
        others = sum(result.others for _, result in results)
        parts.append(f"limited by --compliance-owner to what {owner!r} owns: {others} findings of others are not told")
    return replace(summary, head=(f"PARTIAL: {'; '.join(parts)}", *summary.head))


def _others(config: pytest.Config) -> list[str]:
    """What else may change how checks run and what is told of them: other plugins, and conftest.py files that are not
    this project's.
    """
    manager = config.pluginmanager
    named = {f"{item.project_name} {item.version}" for _, item in manager.list_plugin_distinfo()}
    named = {name for name in named if not name.startswith(OWN)}
    loose = [path for item in manager.get_plugins() if (path := _conftest(item))]
    loose += [name for name in config.known_args_namespace.plugins or () if not name.startswith("no:")]
    lines = [f"other pytest plugins: {', '.join(sorted(named))}"] if named else []
    return lines + ([f"plugins without a version: {', '.join(sorted(loose))}"] if loose else [])


def _conftest(plugin: object) -> str:
    """The path of a conftest.py that pytest took in, empty for any other plugin."""
    path = str(getattr(plugin, "__file__", "") or "")
    return path if path.endswith(f"{os.sep}conftest.py") else ""


def tell_junit(summary: Summary, config: pytest.Config) -> None:
    """Put the same into the JUnit file, where one is written."""
    from _pytest.junitxml import xml_key

    xml = config.stash.get(xml_key, None)
    if xml is not None and summary.head and summary.head[0].startswith("PARTIAL"):
        xml.add_global_property("compliance", summary.head[0])


def _of_policies(items: Iterable[Any], told: set[str]) -> set[str]:
    """Ids of the rules of checks that were collected and of which nothing is told."""
    return {rule.id for item in items if item.nodeid not in told and (rule := rule_of(item)) is not None}
