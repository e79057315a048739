"""Where rows name a place that is not here: the folder that their ids show to be it, and what `[store.relocate]`
maps already.
"""

from __future__ import annotations

from typing import NamedTuple

HISTORY = "model_history"
"""The kind of a place that stands in a run's own record of the models that it logged."""


def begins_with(uri: str, prefix: str) -> bool:
    """Whether a location lies at or below a prefix, as [store.relocate] reads it: only at a separator."""
    start = prefix.rstrip("/\\")
    return uri.startswith(start) and uri[len(start) : len(start) + 1] in ("", "/", "\\")


class Moved(NamedTuple):
    """A prefix of rows whose files are not where it says, and the folders here that bear the ids of those rows."""

    prefix: str
    """As the rows spell it."""
    folders: tuple[str, ...]
    """The folder that bears the most of their ids; several where they bear equally many, and nobody can tell which
    one it is.
    """
    rows: int
    """Rows whose id is there."""
    of: int
    """Rows with this prefix that name an id at all."""
    places: tuple[str, ...]
    """The places that such rows are told by, as in `Unknown.place`."""

    @property
    def folder(self) -> str:
        """Where the rows' files are, '' where that is not clear."""
        return self.folders[0] if len(self.folders) == 1 else ""


class PlaceInRow(NamedTuple):
    """A place that a row names and that is read elsewhere through `[store.relocate]`."""

    kind: str
    """What holds it: a key of `COLUMNS` in store/backends/sql_locations.py."""
    key: tuple[str, ...]
    before: str
    """As it stands in the row."""
    after: str
    """As it must stand there to be read at the same place without a mapping; '' where it cannot be spelt so."""
    prefix: str
    """The key of `[store.relocate]` that it is read by."""
    has_files: bool = False
    """Whether files must be there: a READY model, a version."""

    @property
    def row(self) -> tuple[str, str]:
        """What it is looked up by in `Artifacts.locations`."""
        return self.kind, "/".join(self.key)
