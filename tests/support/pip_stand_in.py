"""Stands for pip where documents are tried: installs nothing, and fails for what pyproject.toml does not have."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlflow_compliance.settings.toml import parse

PYPROJECT = parse((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
OWN: dict[str, Any] = PYPROJECT["project"]
ALSO = {"pip", "tox"}
"""What documents install that no test needs."""


def declared() -> set[str]:
    """The names of all that the project, its extras and its groups ask for."""
    lists = [
        OWN["dependencies"],
        *OWN["optional-dependencies"].values(),
        *PYPROJECT["dependency-groups"].values(),
    ]
    return {canonicalize_name(Requirement(item).name) for items in lists for item in items}


def refused(word: str) -> str | None:
    """Why a thing to install is not what there is; None where it is."""
    if place := re.fullmatch(r"\.(?:\[([\w,-]+)\])?", word):
        return unknown_extras(set((place[1] or "").split(",")) - {""})
    try:
        asked = Requirement(word)
    except InvalidRequirement as error:
        return f"{word!r} is nothing that pip installs: {error}"
    name = canonicalize_name(asked.name)
    if name == OWN["name"]:
        return unknown_extras(asked.extras)
    if name in declared() | ALSO:
        return None
    try:
        distribution(name)
    except PackageNotFoundError:
        return f"{name} is neither installed nor in pyproject.toml"
    return None


def unknown_extras(asked: set[str]) -> str | None:
    wrong = asked - set(OWN["optional-dependencies"])
    return f"there is no extra {', '.join(sorted(wrong))}" if wrong else None


def main(words: list[str]) -> int:
    if words[:1] != ["install"]:
        sys.stdout.write(f"pip {' '.join(words)}: only install is tried in documents\n")
        return 1
    problems, rest = [], iter(words[1:])
    for word in rest:
        if word == "--group":
            group = next(rest, "")
            problems += [] if group in PYPROJECT["dependency-groups"] else [f"there is no dependency group {group!r}"]
        elif not word.startswith("-") and (why := refused(word)):
            problems.append(why)
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
