"""What the rows of runs and logged models say of their lives, without what was logged to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlflow_compliance.snapshot.entities import is_retracted
from mlflow_compliance.snapshot.refs import EntityRef


@dataclass(frozen=True, slots=True)
class RowFacts:
    """A run or logged model. Times are milliseconds since the epoch, 0 where the store does not tell them."""

    kind: str
    key: str
    name: str
    experiment_id: str
    lifecycle: str
    begun: int = 0
    """When it was started, or made."""
    deleted_at: int = 0
    run_id: str = ""
    """Of a logged model: the run that it says wrote it."""
    reads: tuple[str, ...] = ()
    """Of a run: the logged models that it read."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Those that say whose child or copy it is, and, of a run, what has to do with production."""

    @property
    def ref(self) -> EntityRef:
        return EntityRef(self.kind, self.key, self.name)

    @property
    def retracted(self) -> bool:
        """Whether it is a copy that a repair took back."""
        return is_retracted(self.lifecycle, self.tags)
