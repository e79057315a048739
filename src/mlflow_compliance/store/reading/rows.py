"""What a reader knows beyond the Snapshot: where the rows say that files lie."""

from __future__ import annotations

from typing import NamedTuple

from mlflow_compliance.entities import Location
from mlflow_compliance.snapshot.moved import PlaceInRow


class Rows(NamedTuple):
    """Every artifact location in the store, deleted rows included, and the ids of the logged models that say READY."""

    locations: tuple[Location, ...]
    ready_models: frozenset[str]
    folders: tuple[Location, ...] = ()
    """Folders that belong to a row and hold no artifacts of their own: those of a file store's rows."""
    elsewhere: tuple[PlaceInRow, ...] = ()
    """What could be rewritten of the places that are read through [store.relocate]; nothing where the rows are not read by SQL."""
    newest: int = 0
    """The latest time that a run or model is dated, in milliseconds; 0 where none is."""
