"""What a repair did, or would do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_compliance.repair.apply import Outcome
    from mlflow_compliance.repair.plan import Plan


@dataclass
class Repair:
    """What --fix did, or --fix-dry-run would do."""

    plan: Plan
    outcome: Outcome | None = None
    journal: str = ""
    unlike: list[str] = field(default_factory=list)
    """Where the store read afterwards differs from the plan. Anything here fails the run."""

    def lines(self) -> Iterator[tuple[str, bool]]:
        """What was done, in lines for people, each with whether all is well with it; none where nothing was carried out."""
        if self.outcome is None:
            return
        yield f"repair: {len(self.outcome.applied)} of {len(self.plan.changes)} changes made; journal: {self.journal}", True
        for _, reason in self.outcome.failed:
            yield f"not done: {reason}", False
        if not self.unlike:
            yield "verified: the store, read anew, is what was planned", True
        for line in self.unlike:
            yield f"not as planned: {line}", False
