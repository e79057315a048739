"""How an entity of the store is named, and where its row says that its files lie."""

from __future__ import annotations

from typing import NamedTuple


class EntityRef(NamedTuple):
    """What a finding is about. `kind` and `key` are safe in an id; `label` is what people call it and may be
    hostile.
    """

    kind: str
    key: str
    label: str = ""

    @property
    def place(self) -> tuple[str, str]:
        """What it is looked up by in `Artifacts.locations`."""
        return self.kind, self.key

    def __str__(self) -> str:
        return f"{self.kind} {self.label or self.key}"


class Location(NamedTuple):
    """Where a row says that its files lie, as written in the row."""

    owner: EntityRef
    experiment_id: str
    uri: str
