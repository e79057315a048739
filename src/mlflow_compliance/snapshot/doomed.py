"""What `mlflow gc` would destroy, as a value: things, what goes along with them, and what lies in their folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.ties import Tie


@dataclass(frozen=True, slots=True)
class Doomed:
    """A run, logged model, experiment or job. Times are milliseconds since the epoch, 0 where no row tells them."""

    ref: EntityRef
    experiment_id: str
    deleted_at: int = 0
    uri: str = ""
    """Where its row says that its files lie."""
    files_go: bool = False
    """Whether its files are destroyed too; else they stay where they are, and nothing owns them any more."""
    along_with: str = ""
    """Id of the experiment that takes it along; empty for what is selected itself."""
    active: bool = False
    """Whether nobody deleted it: it only lies in a deleted experiment."""
    at_work: bool = False
    """Whether it is a run that says it is still going on, and not for longer than runs may."""
    parent: str = ""
    """Of a run: the one that it names as its parent."""
    run_id: str = ""
    """Of a logged model: the run that wrote it."""
    reads: tuple[str, ...] = ()
    """Of a run: the logged models that it read."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Of a run or an experiment: what has to do with production and copies."""


class Stop(NamedTuple):
    """Where gc gives up: at which thing, and what it says. What comes after is not destroyed."""

    at: str
    why: str


@dataclass(frozen=True)
class Doom:
    """All that one call of gc selects, in one workspace."""

    version: str
    """Of the MLflow whose gc was asked."""
    workspace: str
    """Empty where gc is told of none."""
    things: tuple[Doomed, ...]
    stops: tuple[Stop, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    """Table -> how many of its rows go."""
    ties: tuple[Tie, ...] = ()
    """What of the rows that stay has to do with what goes."""
    reused: str = ""
    """Id of an experiment that SQLite will give to the next one that is made; empty where it will not."""

    @property
    def places(self) -> frozenset[tuple[str, str]]:
        """(kind, key) of every thing."""
        return frozenset(item.ref.place for item in self.things)


class DoomedFile(NamedTuple):
    """One path. `frees` is what its removal gives back: nothing while another name of the same bytes stays."""

    size: int
    frees: int


class DoomedFolder(NamedTuple):
    """What lies where a thing's row says, as far as it could be looked at."""

    place: str
    """The folder, or location in a bucket; empty where it is neither."""
    files: Mapping[str, DoomedFile]
    unknown: str = ""
    """Why it was not looked at; empty where it was."""
