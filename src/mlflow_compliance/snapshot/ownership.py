"""Whether it is known whose a file is. Where it is not, nothing about it is changed, and the reason and the way out are told."""

from __future__ import annotations

from typing import NamedTuple


class Doubt(NamedTuple):
    """Why files are perhaps not this store's alone, and what whoever knows better can do."""

    reason: str
    way: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.way}"
