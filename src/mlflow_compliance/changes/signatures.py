"""Changes of the bundle that says who signed a model: beside its folder, never in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mlflow_compliance.changes.base import Applicability, Change, artifacts_in, dump
from mlflow_compliance.changes.symbols import is_planned
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.production.signature import NOT_SIGNED, bundle_of
from mlflow_compliance.snapshot.evidence import Signed
from mlflow_compliance.snapshot.files import UNKNOWN_SIZE, WRITTEN_ANEW, ArtifactFile
from mlflow_compliance.snapshot.refs import EntityRef
from mlflow_compliance.snapshot.snapshot import Snapshot


@dataclass(frozen=True)
class _BesideModel:
    """The bundle beside the model in `folder`, below the artifact root `root`."""

    folder: str
    root: str

    @property
    def entity(self) -> EntityRef:
        return EntityRef("model_folder", self.folder)

    @property
    def path(self) -> str:
        """Where the bundle lies, or goes."""
        return bundle_of(self.folder)


@dataclass(frozen=True)
class SignModel(_BesideModel, Change):
    """Write a bundle beside the model in `folder`, where none lies, with the key of a fingerprint.

    `hashes` are the files that were looked at when it was planned, path -> SHA-256: others are not signed. MLmodel is
    left out of a model that is not logged yet.
    """

    applicability = Applicability.REVERSIBLE
    in_total = "model{s} signed"

    owner_kind: str
    owner: str
    fingerprint: str
    hashes: Mapping[str, str]

    def describe(self) -> str:
        return f"sign the model in {self.folder} with the key {self.fingerprint[:16]}: write {self.path}"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        if self.folder not in artifacts.models:
            raise ChangeError(f"there is no model in {self.folder} to sign")
        if self.path in artifacts.files:
            raise ChangeError(f"{self.path} is there already: nothing is signed over another bundle")
        file = ArtifactFile(UNKNOWN_SIZE, f"own:{self.path}", EntityRef(self.owner_kind, self.owner), logged=False)
        evidence = snapshot.evidence and snapshot.evidence.with_signature(self.folder, Signed(self.path))
        return replace(snapshot, artifacts=artifacts.with_files({self.path: file}, {}), evidence=evidence)

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"bundle": ""}, {"bundle": self.path, "key": self.fingerprint, "files": len(self.hashes)}

    def lasting(self) -> dict[str, Any]:
        """Without the hashes of what saving a model that is only planned gives others each time."""
        anew = WRITTEN_ANEW if is_planned(self.folder) else frozenset()
        hashes = {path: digest for path, digest in self.hashes.items() if path not in anew}
        return {**dump(self), "hashes": hashes}


@dataclass(frozen=True)
class RetractSignature(_BesideModel, Change):
    """Move the bundle that a journal wrote beside a model into the quarantine."""

    applicability = Applicability.REVERSIBLE
    in_total = "signature{s} taken back"

    fingerprint: str
    journal: str

    def describe(self) -> str:
        return f"take back the bundle {self.path} that {self.journal} wrote"

    def predict(self, snapshot: Snapshot) -> Snapshot:
        artifacts = artifacts_in(snapshot)
        if self.path not in artifacts.files:
            raise ChangeError(f"{self.path} is not there any more")
        evidence, unsigned = snapshot.evidence, Signed(self.path, NOT_SIGNED)
        evidence = evidence and evidence.with_signature(self.folder, unsigned)
        return replace(snapshot, artifacts=artifacts.without(self.path), evidence=evidence)

    def facts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"bundle": self.path, "key": self.fingerprint}, {"bundle": ""}
