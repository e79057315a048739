"""What a Change is: a small frozen value that says and predicts one change of the store; its effect is registered
in `store/write/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache
from itertools import chain
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.entities import Experiment, Run
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot


class Applicability(str, Enum):
    """How far a kind of change reaches. Both can be undone."""

    SAFE = "safe"
    """Tags and descriptions: everything stays where it is, and as it is called."""
    REVERSIBLE = "reversible"
    """Names, lifecycles, places, files, aliases."""


class Change(ABC):
    """One change. Subclasses are frozen dataclasses of plain values, so that a journal can hold them."""

    kinds: ClassVar[dict[str, type[Change]]] = {}
    applicability: ClassVar[Applicability] = Applicability.REVERSIBLE
    """Each kind says it; what does not is not called safe."""
    in_total: ClassVar[str] = "other change{s}"
    """What a plan says of so many of this kind; {s}, {es} and {y} are the endings for one and for several."""
    by_itself: ClassVar[bool] = False
    """Whether it does good whatever comes of the changes beside it in a remedy."""

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

    @property
    def number(self) -> int:
        """How many of what is counted it is."""
        return 1

    @abstractmethod
    def describe(self) -> str:
        """One line for people."""

    @abstractmethod
    def predict(self, snapshot: Snapshot) -> Snapshot:
        """What the store will be. Raises ChangeError where the change does not apply to it."""

    @abstractmethod
    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The facts that it touches, before and after, for the journal."""

    def lasting(self) -> dict[str, Any]:
        """As JSON values, without what is made anew each time that the same change is planned."""
        return dump(self)


@cache
def _values(kind: type[Change]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def dump(change: Change) -> dict[str, Any]:
    """A change as JSON values."""
    return {"kind": type(change).__name__, **_values(type(change)).dump_python(change, mode="json")}


def holds_secrets(change: Change) -> bool:
    """Whether a journal of the change would hold a password or token: what is to be brought back must be written
    down as it is.
    """
    return any(without_secrets(text, sure=True) != text for text in texts_in(dump(change)))


def texts_in(value: object) -> Iterator[str]:
    """Every text in JSON values, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in chain(value.keys(), value.values()):
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


def load(data: Mapping[str, Any]) -> Change:
    """The change that `dump` wrote. Raises ChangeError for a kind, or fields, that this version does not know."""
    fields = dict(data)
    kind = Change.kinds.get(fields.pop("kind", ""))
    if kind is None:
        raise ChangeError(
            f"the journal holds a change of kind {data.get('kind')!r}, which this version does not know: use the "
            "version that wrote it"
        )
    try:
        loaded: Change = _values(kind).validate_python(fields)
    except ValidationError as error:
        raise ChangeError(
            f"the journal holds a {kind.__name__} that this version cannot read: use the version that wrote it"
        ) from error
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
