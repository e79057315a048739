"""The checks of what the store is read from go before all others, and run in every session that checks anything:
the others depend on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.session.collection import cover, switch_off
from mlflow_compliance.session.packs import built_in
from mlflow_compliance.session.state import ATTRIBUTE, STOPPED, audit_of, rule_of
from mlflow_compliance.session.xdist import WORKER_ERROR, share_summary

if TYPE_CHECKING:
    from mlflow_compliance.audit.audit import Audit


_SCHEMA = "STO003"
_DAMAGE = "STO005"
_FILE = "test_store.py"
_COLLECTED: pytest.StashKey[dict[str, pytest.Item]] = pytest.StashKey()


def remember(item: pytest.Item) -> None:
    """Keep the checks where they were collected: `-k` may deselect them."""
    rule = rule_of(item)
    if rule is not None and rule.id in (_SCHEMA, _DAMAGE):
        item.config.stash.setdefault(_COLLECTED, {})[rule.id] = item


def lead(session: pytest.Session) -> None:
    """Put them in front of the checks that were selected; where none was, a selection that fits nothing stays one."""
    config, audit = session.config, audit_of(session.config)
    if audit is None or STOPPED in config.stash or WORKER_ERROR in getattr(config, "workeroutput", {}):
        return
    rules = {rule.id: item for item in reversed(session.items) if (rule := rule_of(item)) is not None}
    if rules:
        folders = list(dict.fromkeys(item.path.parent for item in session.items if rule_of(item) is not None))
        wanted = (_SCHEMA, _DAMAGE) if _is_damaged(audit) else (_SCHEMA,)
        found = [
            rules.get(name) or _brought_back(config, name) or _made(session, audit, folders, name) for name in wanted
        ]
        first = [item for item in found if item is not None]
        for item in first:
            if item.get_closest_marker("skip") is None:
                switch_off(item, audit)
        session.items[:] = [*first, *(item for item in session.items if item not in first)]
    share_summary(config, audit)


def _is_damaged(audit: Audit) -> bool:
    """Whether the store has rows that no other rule sees, because they cannot be read."""
    try:
        return bool(audit.snapshot(artifacts=False).damaged)
    except ComplianceError:
        return False  # the checks say why the store cannot be read


def _brought_back(config: pytest.Config, name: str) -> pytest.Item | None:
    """A check that was collected and deselected."""
    item = config.stash.get(_COLLECTED, {}).get(name)
    deselected = _stats(config).get("deselected", [])
    if item in deselected:
        deselected.remove(item)
    return item


def _made(session: pytest.Session, audit: Audit, folders: list[Path], wanted: str) -> pytest.Item | None:
    """A check of a pack that none of it was collected from: by a node id, say, or where a user's own pack runs
    alone.
    """
    # Beside the rules that were selected first: a checkout has its own.
    for path in dict.fromkeys(folder / _FILE for folder in (*folders, built_in())):
        if path.is_file() and f'"{wanted}"' in path.read_text("utf-8", "replace"):
            module = pytest.Module.from_parent(session, path=path)
            for name, value in vars(module.obj).items():
                rule = getattr(value, ATTRIBUTE, None)
                if rule is not None and rule.id == wanted:
                    cover(module, value)
                    audit.add(rule)
                    item: pytest.Item = pytest.Function.from_parent(module, name=name)
                    item.extra_keyword_matches.add(wanted)
                    reporter = session.config.pluginmanager.getplugin("terminalreporter")
                    if hasattr(reporter, "_numcollected"):
                        reporter._numcollected += 1
                    return item
    return None


def _stats(config: pytest.Config) -> dict[str, list[Any]]:
    return getattr(config.pluginmanager.getplugin("terminalreporter"), "stats", {})
