"""Remedies for serving: advice, since what is served follows from what is logged and registered."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_compliance.api import CannotFix, Change, Finding, Settings, Snapshot, fixer


@fixer("SRV001")
def advise_model(finding: Finding, snapshot: Snapshot, settings: Settings) -> Iterator[Change]:
    """What would be loaded follows from the production run and the alias."""
    raise CannotFix("mend what RUN002, MOD001 and REG001 say first; files that differ from those on record come back from a backup")
    yield


@fixer("SRV002")
def advise_server(finding: Finding, snapshot: Snapshot, settings: Settings) -> Iterator[Change]:
    """What a server does not give is to be seen to where it lies."""
    raise CannotFix("see to the file or its name: what the server refuses can be logged again under a plain name")
    yield
