"""Whether it is known whose a file is, and whether the database is older than its files: then nothing is changed,
and the reason is told.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import NamedTuple


class Dated(NamedTuple):
    """The folder of a run or model (by its name) that no row owns; times in milliseconds."""

    made: int
    """When the folder itself was last given or lost an entry."""
    files: int
    oldest: int
    newest: int


class Outdated(NamedTuple):
    """An artifact root in which folders of runs or models that no row knows are newer than the newest row."""

    root: str
    folders: tuple[str, ...]
    """Their paths, sorted."""
    last_row: int
    """When the newest row is dated, in milliseconds."""
    newest: int
    """When the newest of the folders was written to, in milliseconds."""

    @property
    def doubt(self) -> Doubt:
        """Why nothing in the root is touched."""
        return Doubt(
            f"the database is older than what lies in {self.root} (see STO004), so a newer one may own it",
            "bring that one back first",
        )


def as_time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


class Doubt(NamedTuple):
    """Why files are perhaps not this store's alone, and what whoever knows better can do."""

    reason: str
    way: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.way}"
