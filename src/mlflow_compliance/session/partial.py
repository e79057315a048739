"""Whether every rule was asked of everything: a report of some rules must not read as one of all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlflow_compliance.session.state import result_of, rule_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pytest

    from mlflow_compliance.audit.results import Summary

_FEW = 8
"""Ids in one line of the head."""


def told_as_partial(summary: Summary, session: pytest.Session) -> Summary:
    """The summary with the rules counted that ran, and what was left out in front where anything was."""
    from mlflow_compliance.audit.results import SWITCHED_OFF

    stats: dict[str, list[Any]] = getattr(session.config.pluginmanager.getplugin("terminalreporter"), "stats", {})
    results = {report.nodeid: found for some in stats.values() for report in some if (found := result_of(report))}
    asked = {result.policy for result in results.values() if result.outcome != SWITCHED_OFF}
    left = _of_policies([*session.items, *stats.get("deselected", [])], results.keys()) & asked
    missing = sorted(set(summary.known) - asked)
    summary = replace(summary, policies=len(asked))
    if not missing and not left:
        return summary
    parts = [f"{len(asked)} of {len(asked | set(summary.known))} rules were asked"]
    parts += [f"not asked: {_some(missing)}"] if missing else []
    parts += [f"not asked of everything: {_some(sorted(left))}"] if left else []
    return replace(summary, head=(f"PARTIAL: {'; '.join(parts)}", *summary.head))


def tell_junit(summary: Summary, config: pytest.Config) -> None:
    """Put the same into the JUnit file, where one is written."""
    from _pytest.junitxml import xml_key

    xml = config.stash.get(xml_key, None)
    if xml is not None and summary.head and summary.head[0].startswith("PARTIAL"):
        xml.add_global_property("compliance", summary.head[0])


def _of_policies(items: Iterable[Any], told: Iterable[str]) -> set[str]:
    """Ids of the rules of checks that were collected and of which nothing is told."""
    known = set(told)
    return {rule.id for item in items if item.nodeid not in known and (rule := rule_of(item)) is not None}


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_FEW]) + (f" and {len(ids) - _FEW} more" if len(ids) > _FEW else "")
