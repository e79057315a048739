"""Changes of the tags of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mlflow_compliance.changes.base import Change, Writer, run_in, still
from mlflow_compliance.entities import EntityRef, Snapshot


@dataclass(frozen=True)
class SetRunTag(Change):
    """Set a tag of a run, or delete it where `value` is None; `before` is what it was, None where it was not set."""

    run_id: str
    key: str
    value: str | None
    before: str | None

    @property
    def entity(self) -> EntityRef:
        return EntityRef("run", self.run_id)

    def says(self) -> str:
        return f"delete tag {self.key} of run {self.run_id}" if self.value is None else f"set tag {self.key} of run {self.run_id} to {self.value!r}"

    def on(self, snapshot: Snapshot) -> Snapshot:
        run = run_in(snapshot, self.run_id)
        tags = {key: value for key, value in run.tags.items() if key != self.key}
        if self.value is not None:
            tags[self.key] = self.value
        return snapshot.with_run(replace(run, tags=tags))

    def write(self, store: Writer) -> None:
        run_id = store.bind(self.run_id)
        still(store.run_tags(run_id).get(self.key), self.before, f"tag {self.key} of run {run_id}")
        store.set_run_tag(run_id, self.key, None if self.value is None else store.bind(self.value))

    def inverse(self, store: Writer) -> Change:
        return SetRunTag(store.bind(self.run_id), self.key, self.before, None if self.value is None else store.bind(self.value))

    def effect(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {self.key: self.before}, {self.key: self.value}
