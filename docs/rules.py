"""Writes the pages of docs/rules, one a rule and one about clauses, from the rules, the texts beside them and the
fixers: `python docs/rules.py docs/rules`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_compliance.report.explain import clauses_page, index_of, page_of
from mlflow_compliance.rules.clauses import CLAUSES
from mlflow_compliance.rules.explained import Explained, explained
from mlflow_compliance.rules.packs import load_fixers
from mlflow_compliance.rules.policy import ATTRIBUTE

if TYPE_CHECKING:
    from collections.abc import Mapping


def rules() -> list[Explained]:
    """Every built-in rule, by id."""
    package, found = importlib.import_module("mlflow_compliance.policies"), {}
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        found |= {
            value.__name__: getattr(value, ATTRIBUTE) for value in vars(module).values() if hasattr(value, ATTRIBUTE)
        }
    fixers = load_fixers(["mlflow_compliance.fixers"], Path.cwd())
    return sorted((explained(rule, fixers.get(rule.id)) for rule in found.values()), key=lambda rule: rule.id)


def pages() -> Mapping[str, str]:
    """Name of a file -> what is in it."""
    found = rules()
    return {
        "index.md": index_of(found),
        "clauses.md": clauses_page(found, list(CLAUSES)),
        **{f"{rule.id}.md": page_of(rule) for rule in found},
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")
