"""The parts of `Artifacts`: roots, files, model folders, what nobody owns, what lies in quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import NamedTuple

from mlflow_compliance.snapshot.litter import is_litter
from mlflow_compliance.snapshot.presence import Why
from mlflow_compliance.snapshot.refs import EntityRef

MLMODEL = "MLmodel"
"""File of a model folder that says how to load it."""
WRITTEN_BY_MLFLOW = frozenset({MLMODEL, "registered_model_meta"})
"""Files of a model folder that MLflow writes for the place that it lies in: the second one into a local store, when
somebody loads a model by its name."""
WRITTEN_ANEW = frozenset({MLMODEL, "model.skops", "model.pkl"})
"""Files of a model folder that differ each time that the same model is saved: times, ids, addresses in memory."""
REQUIREMENTS = "requirements.txt"
"""File of a model folder with the packages that it needs."""
META = "meta.yaml"
"""File of a file store: the row of an experiment, run or model."""
TRASH = ".trash"
"""Folder of a file store for deleted experiments."""
JOURNALS = ".compliance"
"""Folder beside a store: journals of repairs, hashes on record."""
SERVED = "mlflow-artifacts:"
"""How a location begins that a tracking server gives out."""
QUARANTINE = ".quarantine"
"""Folder of an artifact root for what was moved aside."""
OWNER_NOTE = ".compliance-owner"
"""File in an artifact root in which a repair notes whose the root is."""
LINK = "link:"
"""How the `copy` of a symbolic link begins: a copy of its own, that is no file."""


def in_folder(path: str) -> bool:
    """Whether a path is one of this machine's; else it is a location in an object store (s3://bucket/key)."""
    return path.startswith("/")


def parent(path: str) -> str:
    """The folder that holds what a normal absolute path names: what os.path.dirname gives, at a third of its cost."""
    cut = path.rfind("/")
    return path[:cut] or "/" if cut >= 0 else ""


def upwards(path: str) -> Iterator[str]:
    """A path and the folders that hold it, the innermost first."""
    while True:
        yield path
        above = parent(path)
        if above == path:
            return
        path = above


class ArtifactRoot(NamedTuple):
    """A folder that artifacts lie under. `key` is opaque ('0', '1', ...), in the order of the paths."""

    key: str
    path: str
    device: int

    @property
    def ref(self) -> EntityRef:
        return EntityRef("artifact_root", self.key, self.path)


class ArtifactFile(NamedTuple):
    """One path. Two paths with equal `copy` are one physical copy: hard links of an inode, or clones that share
    extents.
    """

    size: int
    copy: str
    owner: EntityRef | None
    logged: bool
    """False for what lies in an owner's folder but is no artifact (a file store's own meta.yaml, params, metrics)."""


class Ownerless(NamedTuple):
    """The topmost folder (or file) that no row owns. `keep` says why it must not be moved; empty where it may be.

    `way` is what whoever knows better can do, where `keep` does not say so itself.
    """

    root: str
    path: str
    files: int
    size: int
    keep: str
    way: str = ""


class Unreachable(NamedTuple):
    """Rows whose files cannot be reached from here, below one place and for one reason."""

    place: str
    """What their locations have in common, without credentials."""
    rows: int
    example: EntityRef
    experiments: tuple[str, ...]
    """Ids of their experiments, sorted; '' for a version of no experiment."""
    reason: str
    why: Why | None = None
    """None where the place was looked at and nothing is there."""
    root: str = ""
    """Of a folder that is not there, the artifact root that it would lie in; empty where that is none."""


class ModelFolder(NamedTuple):
    """A folder with an MLmodel file. `missing` and `empty` are relative to it; `error` where MLmodel cannot be read."""

    path: str
    owner: EntityRef | None
    missing: tuple[str, ...]
    empty: tuple[str, ...]
    artifact_path: str
    error: str

    @property
    def problem(self) -> str:
        """What is wrong with it, for people; empty where nothing is."""
        parts = [self.error] if self.error else []
        parts += [f"missing: {', '.join(self.missing)}"] if self.missing else []
        parts += [f"empty: {', '.join(self.empty)}"] if self.empty else []
        return "; ".join(parts)


class DuplicateGroup(NamedTuple):
    """Paths with the same bytes in more than one physical copy; `paths` sorted, the first one stays as it is."""

    sha256: str
    size: int
    paths: tuple[str, ...]


class Pointer(NamedTuple):
    """What is written beside an object in a bucket whose content is in `kept` too; `quarantined` is a copy of its
    own, put aside by `journal`.
    """

    kept: str
    checksum: str
    size: int
    quarantined: str
    journal: str


@dataclass(frozen=True)
class DuplicateRules:
    """What counts as a duplicate: files of at least `min_size` bytes whose name matches no `boilerplate` pattern. Those
    of more than `max_size` are not read to the end, and what they are is not known.
    """

    min_size: int = 1024
    boilerplate: tuple[str, ...] = (MLMODEL, "conda.yaml", "python_env.yaml", REQUIREMENTS, "*.lock")
    max_size: int = 1 << 40

    def apply_to(self, path: str, size: int) -> bool:
        name = path[path.rfind("/") + 1 :]
        return (
            size >= self.min_size
            and not is_litter(name)
            and not any(fnmatch(name, pattern) for pattern in self.boilerplate)
        )

    def applied(self) -> Callable[[str, int], bool]:
        """`apply_to` for a million files: the patterns see the name only, so they are asked once a name."""
        smallest, known = self.min_size, dict[str, bool]()

        def apply_to(path: str, size: int) -> bool:
            name = path[path.rfind("/") + 1 :]
            if name not in known:
                known[name] = self.apply_to(name, smallest)
            return size >= smallest and known[name]

        return apply_to


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


UNKNOWN_SIZE = -1
"""Of a file that is written anew with the ids of its copy: known once written."""
METADATA = "model_metadata.json"
