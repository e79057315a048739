"""Where a store of some kind lives, and the tests' tools for a store in any place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from packaging.version import Version
from stores import Lab

from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.store.store import open_store


@dataclass(frozen=True)
class Place:
    """One empty store: its tracking URI and where experiments are to put their artifacts."""

    uri: str
    artifacts: str
    """Folder or URI prefix under which experiments get their artifact_location; empty where the server is to choose
    it.
    """
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the client needs."""
    settings: str = ""
    """What compliance.toml says beside what it says for every kind."""
    database: str = ""
    """The database behind a server."""
    kept: Path | None = None
    """The folder in which a server keeps the artifacts that it serves."""


Kind = Callable[[Path], AbstractContextManager[Place]]
"""Makes a store of one kind, new and empty; what it needs on disk goes below the folder. It skips, saying what to
install.
"""


class Guest(Lab):
    """A store in some place, with the tools that tests use on a SQLite store of their own."""

    def __init__(self, place: Place, folder: Path, settings: Settings) -> None:
        self.place = place
        self.folder = folder
        self.mlruns = Path(place.artifacts)
        self.uri = place.uri
        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self.settings = settings
        self.store = open_store(self.uri, settings, str(folder))
        if not place.artifacts and Version(mlflow.__version__) < Version("3.13"):
            # Where a name is not ASCII, that server answers 500 in the file's stead: it puts the name as it is into a
            # header.
            self.odd_name = "groesse 1.csv"

    @property
    def local(self) -> bool:
        """Whether artifacts lie in a folder of this machine."""
        return self.place.artifacts.startswith("/")

    def experiment(self, name: str, **tags: str) -> str:
        number = max(int(item.experiment_id) for item in self.client.search_experiments(view_type=3)) + 1
        location = f"{self.place.artifacts}/{number}" if self.place.artifacts else None
        return str(self.client.create_experiment(name, artifact_location=location, tags=tags))
