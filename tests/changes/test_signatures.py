"""The bundle beside a model: written once, taken back into the quarantine, never over another."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from signing import write_keys
from stores import Lab, there_and_back

from mlflow_compliance.changes import SignModel
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.write.writer import StoreWriter

DATA = pickle.dumps({"weights": [1, 2]})


@pytest.fixture
def lab(make_lab: Callable[..., Lab], tmp_path: Path) -> Lab:
    write_keys(tmp_path)
    named = {"sign_with": str(tmp_path / "key.pem"), "verify_with": str(tmp_path / "key.pub")}
    models = {"loaders": ["mlflow.flavor0", "mlflow.flavor1"]}
    return make_lab(evidence=named, models=models)


def logged(lab: Lab) -> str:
    key = lab.experiment("one")
    return str(lab.location_of(lab.model(key, lab.run(key), files={"weights.bin": DATA, "deep/a.txt": DATA})))


def change(lab: Lab, folder: str) -> SignModel:
    snapshot = lab.read()
    assert snapshot.artifacts is not None
    assert snapshot.evidence is not None
    owner = snapshot.artifacts.models[folder].owner
    assert owner is not None
    hashes = snapshot.evidence.scans[folder].hashes
    return SignModel(folder, str(lab.mlruns), owner.kind, owner.key, snapshot.evidence.signed_by, hashes)


def told(lab: Lab, folder: str) -> list[str]:
    evidence = lab.read().evidence
    assert evidence is not None
    return [problem.code for problem in evidence.signatures[folder].problems]


def test_signed_and_taken_back(lab: Lab) -> None:
    folder = logged(lab)
    bundle = Path(folder).parent / "model.sig"
    assert told(lab, folder) == ["model-not-signed"]
    planned = change(lab, folder)
    after = planned.predict(lab.read()).evidence
    assert after is not None
    assert after.signatures[folder].problems == ()
    there_and_back(lab, planned)
    assert not bundle.exists()
    aside, _ = lab.mlruns.glob(".quarantine/*-retracted/**/model.sig")
    assert json.loads(aside.read_bytes())["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    snapshot = lab.read()
    assert snapshot.artifacts is not None
    assert not snapshot.artifacts.quarantined, "nobody is told to put it back"
    assert not snapshot.artifacts.ownerless
    assert str(bundle) not in snapshot.artifacts.recorded
    assert told(lab, folder) == ["model-not-signed"]


def test_signed_again_after_it_was_taken_back(lab: Lab) -> None:
    folder = logged(lab)
    there_and_back(lab, change(lab, folder))
    lab.carry_out(change(lab, folder))
    assert told(lab, folder) == []


def test_nothing_is_signed_over_another_bundle(lab: Lab) -> None:
    folder = logged(lab)
    planned = change(lab, folder)
    bundle = Path(folder).parent / "model.sig"
    bundle.write_bytes(b"{}")
    with pytest.raises(ChangeError, match=r"model\.sig is there already"):
        planned.predict(lab.read())
    with pytest.raises(ChangeError, match=r"model\.sig"):
        StoreWriter(lab.store, {}).write(planned)
    assert bundle.read_bytes() == b"{}"


MEANWHILE: dict[str, Callable[[Path], Any]] = {
    "changed": lambda folder: (folder / "weights.bin").write_bytes(pickle.dumps([2])),
    "added": lambda folder: (folder / "more.txt").write_bytes(b"more"),
    "removed": lambda folder: (folder / "deep" / "a.txt").unlink(),
    "linked": lambda folder: (folder / "link").symlink_to("/etc/hostname"),
}


@pytest.mark.parametrize("how", MEANWHILE)
def test_what_changed_since_the_plan_is_not_signed(lab: Lab, how: str) -> None:
    folder = logged(lab)
    planned = change(lab, folder)
    MEANWHILE[how](Path(folder))
    with pytest.raises(ChangeError, match=r"was not signed: (its files changed meanwhile|link: is a symbolic link)"):
        StoreWriter(lab.store, {}).write(planned)
    assert not (Path(folder).parent / "model.sig").exists()


def test_the_key_is_the_one_that_was_planned_with(lab: Lab, tmp_path: Path) -> None:
    folder = logged(lab)
    planned = change(lab, folder)
    write_keys(tmp_path)
    with pytest.raises(ChangeError, match="the key is not the one that was planned with"):
        StoreWriter(lab.store, {}).write(planned)
    (tmp_path / "key.pem").unlink()
    with pytest.raises(ChangeError, match="cannot be read"):
        StoreWriter(lab.store, {}).write(planned)
