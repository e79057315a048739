"""The note in an artifact root that says whose it is, before the first change of what lies there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mlflow_compliance.api import Artifacts, Change, ClaimRoot


def claim_roots(artifacts: Artifacts, paths: Sequence[str]) -> Iterator[Change]:
    """A note in each root that nothing was changed in before: the next repair knows by it whose the root is."""
    roots = {found.path for path in paths if (found := artifacts.root_of(path))}
    for root in sorted(roots - artifacts.claimed - artifacts.models.keys()):
        yield ClaimRoot(root, insisted=root in artifacts.insisted)
