"""What earlier repairs did, as their journals tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_compliance.audit.journals import Shelf
from mlflow_compliance.repair.reading import FAILED
from mlflow_compliance.repair.saved_plan import keys_of

if TYPE_CHECKING:
    from mlflow_compliance.store.store import Store


def made_before(store: Store) -> set[str]:
    """The keys of the changes that repairs of a store made and nobody took back. Raises StoreError."""
    shelf, done = Shelf(store), []
    for record in shelf.records.values():
        back = shelf.undone(record)
        # What was begun and is asked for no more was made: a repair that was killed wrote nothing behind it.
        done += [entry.do for entry in record.entries if entry.state != FAILED and entry.number not in back]
    return keys_of(done)
