"""What a Change is: a small frozen value that says, predicts, does and takes back one change of the store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import TypeAdapter

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import DatasetInput, Experiment, Run
from mlflow_compliance.snapshot.files import Pointer
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot

if TYPE_CHECKING:
    from mlflow_compliance.changes.copies import CopyRun
    from mlflow_compliance.changes.locations import Rewriting
    from mlflow_compliance.changes.production import LogProductionRun


class Writer(Protocol):
    """What a Change may do to a store; the methods raise ChangeError with one sentence, `reach` StoreError where the store is gone."""

    def bind(self, text: str) -> str: ...

    def reach(self) -> None: ...

    def experiment(self, experiment_id: str) -> Experiment: ...

    def counted_experiment(self, experiment_id: str) -> Experiment: ...

    def set_experiment_tag(self, experiment_id: str, key: str, value: str) -> None: ...

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None: ...

    def rename_experiment(self, experiment_id: str, name: str) -> None: ...

    def delete_experiment(self, experiment_id: str) -> None: ...

    def restore_experiment(self, experiment_id: str, deleted_runs: tuple[str, ...]) -> None: ...

    def written_since_copied(self, experiment_id: str, into: str) -> str:
        """What a run of the one experiment holds that its copy in the other does not, in one sentence; '' where all is there."""

    def run_status(self, run_id: str) -> tuple[str, str]: ...

    def end_run(self, run_id: str, status: str, end_time: int) -> None: ...

    def reopen_run(self, run_id: str) -> None: ...

    def copy_run(self, source_run_id: str, experiment_id: str, tags: Mapping[str, str], datasets: Sequence[DatasetInput]) -> None: ...

    def copy_runs(self, copies: Sequence[CopyRun]) -> list[dict[str, str]]:
        """Copy runs together, all or none: the symbols that each of them bound. Raises ChangeError where that cannot be."""

    def retract_copy(self, source_run_id: str, experiment_id: str, journal: str) -> None: ...

    def run_tags(self, run_id: str) -> Mapping[str, str]: ...

    def set_run_tag(self, run_id: str, key: str, value: str | None) -> None: ...

    def log_production_run(self, change: LogProductionRun) -> None: ...

    def retract_production_run(self, experiment_id: str, journal: str, product: str) -> None: ...

    def register_version(self, name: str, model_id: str, run_id: str, symbol: str, *, makes_model: bool) -> None: ...

    def retract_version(self, name: str, model_id: str, *, removes_model: bool) -> None: ...

    def aliases(self, name: str) -> Mapping[str, str]: ...

    def set_alias(self, name: str, alias: str, version: str | None) -> None: ...

    def rewrite_locations(self, rewritings: Sequence[Rewriting]) -> None:
        """Let every one of these rows say what it is to say, all or none. Raises ChangeError where a row says something else by now."""

    def file_state(self, path: str) -> tuple[int, int]: ...

    def contents(self, path: str) -> tuple[tuple[str, int], ...]: ...

    def share_file(self, path: str, kept: str, sha256: str) -> None: ...

    def unshare_file(self, path: str, sha256: str, mode: int, mtime_ns: int) -> None: ...

    def repeats_state(self, path: str) -> tuple[int, str]: ...

    def remove_repeats(self, path: str, sha256: str, journal: str) -> None: ...

    def restore_metric_file(self, path: str, now: str, sha256: str, journal: str) -> None: ...

    def point_to_copy(self, path: str, pointer: Pointer) -> None: ...

    def retract_pointer(self, path: str, journal: str) -> None: ...

    def claim_root(self, root: str, journal: str) -> None: ...

    def release_root(self, root: str) -> None: ...

    def quarantine(self, path: str, target: str, root: str) -> None: ...

    def restore_from_quarantine(self, target: str, path: str) -> None: ...

    def put_aside_again(self, path: str, target: str) -> None: ...


class Change(ABC):
    """One change. Subclasses are frozen dataclasses of plain values, so that a journal can hold them."""

    kinds: ClassVar[dict[str, type[Change]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Change.kinds[cls.__name__] = cls

    @property
    @abstractmethod
    def entity(self) -> EntityRef:
        """What is changed."""

    @property
    def entities(self) -> tuple[EntityRef, ...]:
        """All that is changed; the limit of --fix-max counts these."""
        return (self.entity,)

    @abstractmethod
    def says(self) -> str:
        """One line for people."""

    @abstractmethod
    def on(self, snapshot: Snapshot) -> Snapshot:
        """What the store will be. Raises ChangeError where the change does not apply to it."""

    @abstractmethod
    def write(self, store: Writer) -> None:
        """Carry it out, or raise ChangeError and leave the store as it was."""

    @abstractmethod
    def inverse(self, store: Writer) -> Change | None:
        """How to take it back; None where nothing was there that anybody wants back.

        Asked before `write`, since some of it (a file's mode, an old tag) must be read first.
        """

    @abstractmethod
    def effect(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The facts that it touches, before and after, for the journal."""


@cache
def _values(kind: type[Change]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def dump(change: Change) -> dict[str, Any]:
    """A change as JSON values."""
    return {"kind": type(change).__name__, **_values(type(change)).dump_python(change, mode="json")}


def holds_secrets(change: Change) -> bool:
    """Whether a journal of the change would hold a password or token: what is to be brought back must be written down as it is."""
    return any(without_secrets(text, sure=True) != text for text in _texts(dump(change)))


def _texts(value: object) -> Iterator[str]:
    """Every text in JSON values, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in chain(value.keys(), value.values()):
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def load(data: Mapping[str, Any]) -> Change:
    """The change that `dump` wrote. Raises ChangeError for a kind that this version does not know."""
    fields = dict(data)
    kind = Change.kinds.get(fields.pop("kind", ""))
    if kind is None:
        raise ChangeError(f"the journal holds a change of kind {data.get('kind')!r}, which this version does not know: use the version that wrote it")
    loaded: Change = _values(kind).validate_python(fields)
    return loaded


def still(found: object, planned: object, what: str) -> None:
    """Nothing is written on top of what somebody else changed since the plan was made."""
    if found != planned:
        raise ChangeError(f"{what} is now {found!r} and was {planned!r} when the plan was made: run again to plan anew")


def experiment_in(snapshot: Snapshot, experiment_id: str) -> Experiment:
    """An active experiment of a snapshot, or ChangeError: MLflow changes nothing about a deleted one."""
    found = snapshot.experiments.get(experiment_id)
    if found is None or not found.active:
        raise ChangeError(f"experiment {experiment_id} is not there or is deleted: nothing about it can be changed")
    return found


def run_in(snapshot: Snapshot, run_id: str) -> Run:
    """A run that the snapshot holds in full, or ChangeError."""
    found = snapshot.runs.get(run_id)
    if found is None:
        raise ChangeError(f"run {run_id} was not read: nothing about it can be planned")
    return found


def artifacts_in(snapshot: Snapshot) -> Artifacts:
    """The artifact side of a snapshot, or ChangeError."""
    if snapshot.artifacts is None:
        raise ChangeError("artifacts were not read: nothing about them can be planned")
    return snapshot.artifacts
