"""A store that --fix made and signed, through the command line and through `load_production_model`: whole, and tampered
with in every way that a signature tells.
"""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gates import FIXERS, POLICIES, Gate, plan_in, told
from producing import copied, model_folder, unproduced
from repairs import carry_out, findings, plan_for
from signing import judged, signed_by_judge, write_keys
from stores import Lab, model_files

from mlflow_compliance import load_production_model
from mlflow_compliance.changes import SignModel
from mlflow_compliance.loader.model import ModelError
from mlflow_compliance.production.keys import keys_of
from mlflow_compliance.production.signature import made_bundle
from mlflow_compliance.store.models.scan import scan_model
from mlflow_compliance.store.storage.recorded_hashes import add_records

ART004 = POLICIES / "test_artifacts.py"


class Signed(NamedTuple):
    """A signed store; `folder` is that of its production model."""

    lab: Lab
    folder: Path

    @property
    def bundle(self) -> Path:
        return self.folder.parent / "model.sig"

    def name_keys(self, **keys: str) -> None:
        path = self.lab.folder / "compliance.toml"
        before = path.read_text().partition("[evidence]")[0]
        path.write_text(
            before + "[evidence]\n" + "".join(f"{key} = {json.dumps(name)}\n" for key, name in keys.items())
        )
        self.lab.reload()

    def codes(self) -> list[str]:
        return [finding.code for finding in findings(self.lab, "ART004")]

    def load(self) -> Any:
        return load_production_model(config=self.lab.folder / "compliance.toml")

    def refused(self) -> str:
        with pytest.raises(ModelError) as caught:
            self.load()
        assert "\n" not in str(caught.value)
        return str(caught.value)


def run(gate: Gate, lab: Lab, *arguments: object, rules: tuple[object, ...] = (ART004, "-k", "ART004")) -> Any:
    return gate(f"--compliance-config={lab.folder / 'compliance.toml'}", *arguments, rules=rules)


def elsewhere(built: Lab, folder: Path) -> Lab:
    """A copy whose settings name the copied database."""
    lab = copied(built, folder)
    path = folder / "compliance.toml"
    path.write_text(path.read_text().replace(str(built.folder), str(folder)))
    lab.reload()
    return lab


@pytest.fixture(scope="module")
def signed_built(produced_built: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A produced store that `--fix` signed, as a user would have it: to be copied, not to be changed."""
    lab = elsewhere(produced_built, tmp_path_factory.mktemp("signed") / "store")
    write_keys(lab.folder)
    Signed(lab, model_folder(lab)).name_keys(sign_with="key.pem", verify_with="key.pub")
    ini = lab.folder / "pytest.ini"
    ini.write_text(f"[pytest]\naddopts = --import-mode=importlib -W ignore\ncompliance_fixers =\n    {FIXERS}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(ART004), "-k", "ART004", "--fix", f"-c={ini}", f"--rootdir={lab.folder}"],
        cwd=lab.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verified: the store, read anew, is what was planned" in done.stdout
    return lab


@pytest.fixture
def signed(signed_built: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_COMPLIANCE_SIGN_WITH", "MLFLOW_COMPLIANCE_VERIFY_WITH"):
        monkeypatch.delenv(name, raising=False)
    lab = elsewhere(signed_built, tmp_path / "store")
    return Signed(lab, model_folder(lab))


def test_signed_by_fix_and_taken_by_everybody(signed: Signed) -> None:
    assert signed.codes() == []
    assert findings(signed.lab, "ART001", "ART002", "ART005", "ART006", "MOD001", "PRD004", "SRV001") == []
    assert judged(signed.folder, signed.bundle, signed.lab.folder / "key.pub") == ""
    key = keys_of(signed.lab.settings).verifying
    assert key is not None
    assert signed.load().why.endswith(f"; they are those that were signed with the key {key.fingerprint[:16]}")
    assert list(signed.folder.rglob("*.sig")) == []


def test_what_the_judge_signed_is_taken_too(signed: Signed) -> None:
    signed.bundle.unlink()
    signed_by_judge(signed.folder, signed.bundle, signed.lab.folder / "key.pem")
    assert signed.codes() == []
    assert signed.load().version == "1"


def _others(signed: Signed) -> None:
    write_keys(signed.lab.folder, "other")
    signed.bundle.unlink()
    signed_by_judge(signed.folder, signed.bundle, signed.lab.folder / "other.pem")


def _other_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _resigned(signed: Signed) -> None:
    bundle = json.loads(signed.bundle.read_bytes())
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA"
    signed.bundle.write_text(json.dumps(bundle))


TAMPERED: dict[str, tuple[str, Callable[[Signed], Any]]] = {
    "no bundle": ("model-not-signed", lambda it: it.bundle.unlink()),
    "an empty bundle": ("bundle-unreadable", lambda it: it.bundle.write_bytes(b"")),
    "a folder": ("bundle-unreadable", lambda it: (it.bundle.unlink(), it.bundle.mkdir())),
    "a link": (
        "bundle-unreadable",
        lambda it: (shutil.move(it.bundle, it.lab.folder / "b"), it.bundle.symlink_to(it.lab.folder / "b")),
    ),
    "another key": ("signed-with-another-key", _others),
    "another signature": ("signature-does-not-verify", _resigned),
    "requirements changed": (
        "signed-file-changed",
        lambda it: (it.folder / "requirements.txt").write_text("lightgbm\n"),
    ),
    "MLmodel changed": ("signed-file-changed", lambda it: _appended(it.folder / "MLmodel", "# more\n")),
    "a file added": ("file-not-signed", lambda it: (it.folder / "notes.txt").write_text("more")),
    "a file removed": ("signed-file-missing", lambda it: (it.folder / "python_env.yaml").unlink()),
}


def _appended(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


RECORDED = {"gone", "changed", "unreadable"}
"""What ART004 says of hashes on record, signed or not."""


@pytest.mark.parametrize("how", TAMPERED)
def test_rule_and_loader_refuse_in_the_same_words(signed: Signed, how: str) -> None:
    code, tamper = TAMPERED[how]
    tamper(signed)
    # What is on record of the files besides says so too.
    (found,) = [item for item in findings(signed.lab, "ART004") if item.code not in RECORDED]
    assert (found.code, found.severity) == (code, "critical")
    assert found.message in signed.refused()
    # Whoever serves the model needs the public key alone.
    signed.name_keys(verify_with="key.pub")
    (signed.lab.folder / "key.pem").unlink()
    assert found.message in signed.refused()
    assert [found for found in signed.codes() if found not in RECORDED] == [code]
    # Without keys nothing of it is asked; what went on record still is.
    signed.name_keys()
    assert set(signed.codes()) <= RECORDED


def test_the_model_and_what_its_run_records_of_it_changed_together(signed: Signed) -> None:
    """What a hash on record cannot tell, a signature does."""
    (signed.folder / "requirements.txt").write_text("evil\n")
    (metadata,) = signed.lab.mlruns.glob("1/*/artifacts/model_metadata.json")
    document = json.loads(metadata.read_text())
    for item in document["artifacts"]:
        if item["path"] == "model/requirements.txt":
            item.update(sha256=sha256(b"evil\n").hexdigest(), size=5)
    metadata.write_text(json.dumps(document))
    digest = sha256(metadata.read_bytes()).hexdigest()
    signed.lab.tag_run(metadata.parents[1].name, **{"compliance.sha256.model_metadata": digest})
    assert findings(signed.lab, "SRV001") == []
    assert "signed-file-changed" in signed.codes()
    assert "holds files that changed since it was signed: requirements.txt, so it was not loaded" in signed.refused()


def test_another_signed_model_in_its_place(signed: Signed) -> None:
    """Roll-back: files and bundle of an older model of the same team, whole."""
    older = signed.folder.parent.with_name("m-" + "0" * 32)
    shutil.copytree(signed.folder.parent, older)
    key = keys_of(signed.lab.settings).signing
    assert key is not None
    hashes = scan_model(str(signed.folder), signed.lab.settings.models).hashes
    signed.bundle.write_bytes(made_bundle(older.name, hashes, key))
    shutil.rmtree(older)
    assert signed.codes() == ["signed-as-another"]
    assert f"was signed as another model ({older.name}, not {signed.folder.parent.name})" in signed.refused()


def test_the_gate_is_red_and_fix_signs_over_nothing(signed: Signed, gate: Gate) -> None:
    (signed.folder / "requirements.txt").write_text("lightgbm\n")
    (signed.folder / "notes.txt").write_text("more")
    (signed.folder / "python_env.yaml").unlink()
    before = signed.bundle.read_bytes()
    result = run(gate, signed.lab, "--fix")
    assert result.ret == 1
    text = told(result)
    for words in (
        "holds files that changed since it was signed: requirements.txt",
        "holds files that were not signed with it: notes.txt",
        "misses files that it was signed with: python_env.yaml",
        "nothing is signed over another bundle: put the model's files and its bundle back from a backup",
    ):
        assert words in text
    assert signed.bundle.read_bytes() == before


def _on_record(signed: Signed) -> None:
    # The hash of the bundle went on record where the store was signed; a copy of a store has other paths.
    add_records(signed.lab.store.folder, "0" * 64, str(signed.bundle))


SUSPECT: dict[str, tuple[str, Callable[[Signed], Any]]] = {
    "not on record": (
        "it is not the model on record, so it is not signed (requirements.txt has changed): mend SRV001 first",
        lambda it: (it.folder / "requirements.txt").write_text("lightgbm\n"),
    ),
    "not complete": (
        "a model that is not complete is not signed: mend ART005 first",
        lambda it: (it.folder / "python_env.yaml").unlink(),
    ),
    "not safe": (
        "a model that is not known to be safe is not signed (more.py: brings code",
        lambda it: (it.folder / "more.py").write_text("import os\n"),
    ),
    "signed before": ("it was signed before, and its bundle is gone: put that back from a backup", _on_record),
}


@pytest.mark.parametrize("how", SUSPECT)
def test_a_model_that_something_speaks_against_is_not_signed(signed: Signed, how: str) -> None:
    words, make = SUSPECT[how]
    signed.bundle.unlink()
    make(signed)
    plan = plan_for(signed.lab, "ART004")
    assert plan.changes == ()
    (reason,) = [item.reason for item in plan.unfixed if item.finding.code == "model-not-signed"]
    assert reason.startswith(words)


@pytest.mark.parametrize("logged", [True, False], ids=["a logged model", "a folder among the run's artifacts"])
def test_a_copy_that_the_repair_makes_is_signed_by_it(
    make_lab: Callable[..., Lab], tmp_path: Path, *, logged: bool
) -> None:
    """The production run of another experiment is merged into the primary one, and its MLmodel gets other ids."""
    write_keys(tmp_path)
    named = {"sign_with": str(tmp_path / "key.pem")}
    lab = make_lab(evidence=named, models={"loaders": ["mlflow.flavor0"]})
    lab.run(lab.experiment("credit_delivery"), "other")
    source = lab.experiment("credit_production")
    data = {"model.pkl": pickle.dumps({"weights": [1, 2]})}
    inside = {} if logged else {f"model/{name}": text for name, text in model_files("", "", "model", data).items()}
    run_id = lab.run(source, "champion", files=inside, stage="production")
    if logged:
        lab.model(source, run_id, files=data)
    plan = plan_for(lab, "EXP001", "ART004", "RUN002")
    done = carry_out(lab, plan)
    assert done.differing == []
    assert done.outcome.failed == []
    assert findings(lab, "ART002", "ART004") == []
    (bundle,) = lab.mlruns.glob("1/**/model.sig")
    (made,) = bundle.parent.glob("artifacts" if logged else "artifacts/model")
    assert judged(made, bundle, tmp_path / "key.pub") == ""


def test_what_the_same_plan_replaces_is_not_signed(make_lab: Callable[..., Lab]) -> None:
    """Signed last: of a production run that is superseded nobody says any more that it is good."""
    lab = unproduced(make_lab)
    write_keys(lab.folder)
    with open(lab.folder / "compliance.toml", "a") as settings:
        settings.write('[models]\nloaders = ["mlflow.flavor0"]\n[evidence]\nsign_with = "key.pem"\n')
    lab.reload()
    (old,) = lab.runs("1")
    files = model_files("", "", "model", {"model.pkl": pickle.dumps({"weights": [1, 2]})})
    lab.upload(old.info.artifact_uri, {f"model/{name}": text for name, text in files.items()})
    signed = [change for change in plan_for(lab).changes if isinstance(change, SignModel)]
    assert [change.owner for change in signed] == ["⟨production model of credit⟩"]


def test_without_a_private_key_nothing_is_written(signed: Signed, gate: Gate) -> None:
    signed.bundle.unlink()
    signed.name_keys(verify_with="key.pub")
    result = run(gate, signed.lab, "--fix")
    assert result.ret == 1
    way = "the private key is not here: run --fix where it is, and name it under [evidence]"
    assert way in told(result)
    assert not signed.bundle.exists()


def test_dry_run_and_signing_from_the_environment(signed: Signed, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    signed.bundle.unlink()
    signed.name_keys()
    monkeypatch.setenv("MLFLOW_COMPLIANCE_SIGN_WITH", str(signed.lab.folder / "key.pem"))
    (line,) = [line for line in plan_in(run(gate, signed.lab, "--fix-dry-run")) if "sign the model" in line]
    assert line.endswith(f"write {signed.bundle}")
    assert not signed.bundle.exists()
    result = run(gate, signed.lab, "--fix", f"--fix-owned-root={signed.lab.mlruns}")
    assert result.ret == 0, told(result)
    assert judged(signed.folder, signed.bundle, signed.lab.folder / "key.pub") == ""
    key = (signed.lab.folder / "key.pem").read_text().split("-----")[2].split()
    journals = [path.read_text() for path in (signed.lab.folder / ".compliance").glob("*.jsonl")]
    assert any("SignModel" in text for text in journals)
    assert not [line for line in key for text in (*journals, told(result)) if line in text]


BAD_KEYS: dict[str, tuple[str, str]] = {
    "gone": ("gone.pem", "cannot be read (no such file or directory)"),
    "public": ("key.pub", "holds a public key, and signing takes the private one"),
    "no key": ("compliance.toml", "is no PEM file with a private key"),
}


def test_a_key_that_cannot_be_used_stops_the_run(signed: Signed, gate: Gate) -> None:
    for name, words in BAD_KEYS.values():
        signed.name_keys(sign_with=name)
        result = run(gate, signed.lab, "--fix", "--html=audit.html")
        assert result.ret == 4
        assert words in told(result)
        assert not (gate.folder / "audit.html.sig").exists()
