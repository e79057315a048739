"""The lowest versions that are tried (.ci/oldest.txt) are the lowest that pyproject.toml allows."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mlflow_compliance.settings.toml import parse

CHECKOUT = Path(__file__).parents[1]


def test_the_oldest_that_are_tried_are_the_lowest_that_are_allowed() -> None:
    project = parse((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name, extra in extras.items() if name != "s3" for line in extra)]
    lines = (CHECKOUT / ".ci" / "oldest.txt").read_text().splitlines()
    tried = {bound for line in lines if line and not line.startswith("#") for bound in bounds(line, "==")}
    assert tried == {bound for line in wanted for bound in bounds(line, ">=")}


def bounds(line: str, operator: str) -> list[tuple[str, Version]]:
    asked = Requirement(line)
    return [
        (canonicalize_name(asked.name), Version(item.version)) for item in asked.specifier if item.operator == operator
    ]
