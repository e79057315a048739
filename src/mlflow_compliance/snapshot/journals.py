"""The journals of repairs as values: those in the folder beside a store, and those that the store itself keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mlflow_compliance.snapshot.entities import Experiment
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.tags import KEPT_AS

EXPERIMENT = "compliance-journals"
"""Name of the experiment that keeps journals; one whose name was taken has the mark of its tag behind it."""


@dataclass(frozen=True)
class KeptJournal:
    """A run in an experiment that keeps journals. It is one where there is neither a problem nor anything unknown."""

    run: EntityRef
    experiment_id: str
    journal: str
    """Which journal it says it keeps."""
    path: str = ""
    """Where the file lies."""
    problem: str = ""
    """Why it is not what a repair wrote, empty where it is."""
    unknown: str = ""
    """Why its file could not be looked at, empty where it was."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Path -> the SHA-256 that this repair put on record, empty where it took the path off."""


@dataclass(frozen=True)
class Journals:
    """What was found of the journals of a store."""

    folder: str = ""
    here: frozenset[str] = frozenset()
    """Ids of the journals in the folder, which may be that of several stores."""
    own: Mapping[str, str] = field(default_factory=dict)
    """Those of them that were written for this store, with the mark in each, empty where it has none."""
    unreadable: str = ""
    """Why the folder could not be looked into, empty where it was or is not there."""
    lost: str = ""
    """A journal in the folder that put hashes on record, where the file that held them is not there or is empty."""
    kept: tuple[KeptJournal, ...] = ()
    home: str = ""
    """Id of the active experiment that keeps journals, empty where there is none."""
    mark: str = ""
    """The value of its tag."""
    others: Mapping[EntityRef, int] = field(default_factory=dict)
    """Experiment that says it keeps journals -> how many runs in it do not even say which one they keep."""
    apart: frozenset[str] = frozenset()
    """Ids of the experiments that hold kept journals and nothing else."""

    @property
    def whole(self) -> list[KeptJournal]:
        """The kept journals that are what a repair wrote, in the order of time."""
        found = [kept for kept in self.kept if not kept.problem and not kept.unknown]
        return sorted(found, key=lambda kept: kept.journal)

    @property
    def hashes(self) -> dict[str, str]:
        """Path -> what the kept journals say last of its hash."""
        return _folded(self.whole)

    def on_record(self, lines: Mapping[str, str]) -> dict[str, str]:
        """Path -> SHA-256 on record. `lines` are what the folder says: more than the journals that were kept before its
        newest one, less than those that were kept since, from another folder.
        """
        latest = max(self.own, default=None)
        older = [kept for kept in self.whole if latest is None or kept.journal <= latest]
        newer = [kept for kept in self.whole if latest is not None and kept.journal > latest]
        return {path: digest for path, digest in {**_folded(older), **lines, **_folded(newer)}.items() if digest}

    def missing(self, named: Iterable[str]) -> list[str]:
        """Those of some journals that were found nowhere."""
        found = {*self.here, *(kept.journal for kept in self.whole)}
        return sorted(set(named) - found)


def _folded(kept: Iterable[KeptJournal]) -> dict[str, str]:
    return {path: digest for journal in kept for path, digest in journal.hashes.items()}


def keeps_journals(experiment: Experiment) -> bool:
    """Whether an active experiment says that it keeps journals."""
    return experiment.active and bool(experiment.tags.get(KEPT_AS))


def holds_nothing_else(experiment: Experiment, kept: Iterable[KeptJournal]) -> bool:
    """Whether an experiment is as a repair made it, and every run in it a journal that is kept."""
    own = (EXPERIMENT, f"{EXPERIMENT}-{experiment.tags.get(KEPT_AS)}")
    ours = [item for item in kept if item.experiment_id == experiment.experiment_id and not item.problem]
    others = (experiment.count() - len(ours), experiment.traces, experiment.loose_models, *experiment.dependents)
    tags = [key for key in experiment.tags if key != KEPT_AS and not key.startswith("mlflow.")]
    return experiment.name in own and not any(others) and not tags
