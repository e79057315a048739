"""Packs of other distributions: packages that they name by the entry points `mlflow_compliance.policies` and
`mlflow_compliance.fixers`.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from mlflow_compliance.errors import ComplianceError, first_line

POLICIES = "mlflow_compliance.policies"
FIXERS = "mlflow_compliance.fixers"


class Pack(NamedTuple):
    """One entry point. `package` is what it names, importable."""

    group: str
    name: str
    package: str
    distribution: str
    """With its version."""

    def __str__(self) -> str:
        return f"the entry point {self.name!r} of {self.distribution} ({self.group} = {self.package})"

    def broken(self, why: str) -> ComplianceError:
        return ComplianceError(f"{self} {why}: mend that distribution or uninstall it")

    def folder(self) -> Path:
        """Where a package of policies lies. Raises ComplianceError where there is none, or no policy in it."""
        try:
            spec = find_spec(self.package)
        except Exception as error:  # what is above the package is imported, and that may raise anything
            raise self.broken(f"cannot be imported ({type(error).__name__}: {first_line(error)})") from error
        places = [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]
        if not places:
            raise self.broken("names no package")
        found = next((place for place in places if any(place.glob("test_*.py"))), None)
        if found is None:
            raise self.broken("names a package without test_*.py, so without policies")
        return found


def installed(group: str) -> list[Pack]:
    """The packs of one group, by the name of their distribution; a package that is named twice counts once."""
    found: dict[str, Pack] = {}
    for point in entry_points(group=group):
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
        found.setdefault(point.value, Pack(group, point.name, point.value, distribution))
    return sorted(found.values(), key=lambda pack: (pack.distribution, pack.name))
