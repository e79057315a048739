"""Every kind of Change has an effect on a store, and an inverse."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import isabstract
from typing import TYPE_CHECKING, Any

import pytest
from stores import Lab

import mlflow_compliance.changes
from mlflow_compliance.changes import Change
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.store.write.effects import inverse, write
from mlflow_compliance.store.write.writer import StoreWriter

if TYPE_CHECKING:
    from mlflow_compliance.snapshot.snapshot import Snapshot

KINDS = {
    name: kind
    for name, kind in Change.kinds.items()
    if kind.__module__.startswith(mlflow_compliance.changes.__name__) and not isabstract(kind)
}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_of_change_can_be_written_and_taken_back(name: str) -> None:
    assert write.dispatch(KINDS[name]) is not write.dispatch(object)
    assert inverse.dispatch(KINDS[name]) is not inverse.dispatch(object)


def test_every_kind_of_change_is_asked() -> None:
    names = [getattr(mlflow_compliance.changes, name) for name in mlflow_compliance.changes.__all__]
    exported = {item.__name__ for item in names if isinstance(item, type) and issubclass(item, Change)}
    assert exported - {"Change"} == KINDS.keys()


def test_a_change_without_an_effect_is_refused_in_one_sentence(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack of somebody's own may define one."""
    monkeypatch.setattr(Change, "kinds", dict(Change.kinds))

    @dataclass(frozen=True)
    class Paint(Change):
        @property
        def entity(self) -> EntityRef:
            return EntityRef("run", "1")

        def describe(self) -> str:
            return "paint it"

        def predict(self, snapshot: Snapshot) -> Snapshot:
            return snapshot

        def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
            return {}, {}

    writer = StoreWriter(lab.store, {})
    with pytest.raises(ChangeError, match="no inverse is registered for a change of kind Paint"):
        writer.inverse(Paint())
    with pytest.raises(ChangeError, match="no effect is registered for a change of kind Paint"):
        writer.write(Paint())
