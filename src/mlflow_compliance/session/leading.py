"""The check of the schema goes before all others, and runs in every session that checks anything: what the others read depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.session.sharing import share_heading
from mlflow_compliance.session.starting import WORKER_ERROR, cover, switch_off
from mlflow_compliance.session.state import ATTRIBUTE, STOPPED, audit_of, rule_of

if TYPE_CHECKING:
    from mlflow_compliance.audit import Audit

FIRST = "STO003"
_FILE = "test_store.py"
_COLLECTED: pytest.StashKey[pytest.Item] = pytest.StashKey()


def remember(item: pytest.Item) -> None:
    """Keep the check where it was collected: `-k` may deselect it."""
    rule = rule_of(item)
    if rule is not None and rule.id == FIRST:
        item.config.stash[_COLLECTED] = item


def lead(session: pytest.Session) -> None:
    """Put it in front of the checks that were selected; where none was, a selection that fits nothing stays one."""
    config, audit = session.config, audit_of(session.config)
    if audit is None or STOPPED in config.stash or WORKER_ERROR in getattr(config, "workeroutput", {}):
        return
    rules = {item: rule for item in session.items if (rule := rule_of(item)) is not None}
    if rules:
        first = next((item for item, rule in rules.items() if rule.id == FIRST), None)
        if first is None:
            first = _brought_back(config) or _made(session, audit, [item.path.parent for item in rules])
        if first is not None:
            session.items[:] = [first, *(item for item in session.items if item is not first)]
    share_heading(config, audit)


def _brought_back(config: pytest.Config) -> pytest.Item | None:
    """The check that was collected and deselected."""
    item = config.stash.get(_COLLECTED, None)
    deselected = _stats(config).get("deselected", [])
    if item in deselected:
        deselected.remove(item)
    return item


def _made(session: pytest.Session, audit: Audit, folders: list[Path]) -> pytest.Item | None:
    """The check of a pack that none of it was collected from: by a node id, say, or where a user's own pack runs alone."""
    # Beside the rules that were selected first: a checkout has its own.
    installed = Path(__file__).parents[1] / "policies"
    for path in dict.fromkeys(folder / _FILE for folder in (*folders, installed)):
        if path.is_file() and FIRST in path.read_text("utf-8", "replace"):
            module = pytest.Module.from_parent(session, path=path)
            for name, value in vars(module.obj).items():
                rule = getattr(value, ATTRIBUTE, None)
                if rule is not None and rule.id == FIRST:
                    cover(module, value)
                    audit.add(rule)
                    item: pytest.Item = pytest.Function.from_parent(module, name=name)
                    item.extra_keyword_matches.add(FIRST)
                    switch_off(item, audit)
                    reporter = session.config.pluginmanager.getplugin("terminalreporter")
                    if hasattr(reporter, "_numcollected"):
                        reporter._numcollected += 1
                    return item
    return None


def _stats(config: pytest.Config) -> dict[str, list[Any]]:
    return getattr(config.pluginmanager.getplugin("terminalreporter"), "stats", {})
