"""Changes of the note in an artifact root that says whose it is."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from mlflow_compliance.changes.base import Applicability, Change, artifacts_in
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.files import OWNER_NOTE
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot


@dataclass(frozen=True)
class ClaimRoot(Change):
    """Note in an artifact root that this store owns it, before the first change of what lies there; `insisted`
    where the user said so.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "artifact root{s} noted as owned"

    root: str
    insisted: bool = False

    @property
    def entity(self) -> EntityRef:
        return EntityRef("artifact_root", self.root)

    def describe(self) -> str:
        return (
            f"note in {os.path.join(self.root, OWNER_NOTE)} that this store owns the "
            f"folder{', as --fix-owned-root says' * self.insisted}"
        )

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        if self.root not in {root.path for root in artifacts.roots}:
            raise ChangeError(f"{self.root} is no artifact root of this store")
        return replace(snapshot, artifacts=replace(artifacts, claimed=artifacts.claimed | {self.root}))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"root": self.root, "noted": False}, {"root": self.root, "noted": True}


@dataclass(frozen=True)
class ReleaseRoot(Change):
    """Take back the last note in an artifact root, the one that a journal wrote (empty in journals of older versions);
    one that was there before it counts again.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "note{s} in artifact roots taken back"

    root: str
    journal: str = ""

    @property
    def entity(self) -> EntityRef:
        return EntityRef("artifact_root", self.root)

    def describe(self) -> str:
        return f"take back the note in {os.path.join(self.root, OWNER_NOTE)} that this store owns the folder"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        return replace(snapshot, artifacts=replace(artifacts, claimed=artifacts.claimed - {self.root}))

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"root": self.root, "noted": True}, {"root": self.root, "noted": False}
