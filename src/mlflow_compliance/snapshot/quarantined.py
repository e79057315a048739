"""What lies in the quarantine of an artifact root although a row owns its former place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow_compliance.entities import EntityRef

if TYPE_CHECKING:
    from mlflow_compliance.artifacts import ArtifactFile, ModelFolder


@dataclass(frozen=True)
class Quarantined:
    """A folder in quarantine whose former place a row owns."""

    path: str
    former: str
    root: str
    """Path of the artifact root whose quarantine it lies in."""
    owner: EntityRef
    files: Mapping[str, ArtifactFile]
    """The files as they will be at the former place, by their paths there."""
    models: Mapping[str, ModelFolder] = field(default_factory=dict)
    """The model folders as they will be, by their paths there."""
    rows: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(kind, key) of rows that miss it -> the folder that each of them names."""
    places: frozenset[str] = frozenset()
    """What the rows that miss it are told by in `Artifacts.unreachable`."""
    problem: str = ""
    """Why it must not be moved back as it is; empty where it may be."""

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files.values())
