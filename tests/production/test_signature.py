"""Bundles of OpenSSF Model Signing: each takes what the other signed, the judge and we, and no changed model."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from signing import judged, signed_by_judge, write_keys

from mlflow_compliance.production.keys import Keys, keys_of
from mlflow_compliance.production.signature import bundle_of, made_bundle, owner_in, verdict
from mlflow_compliance.settings.schema import ModelSettings, Settings
from mlflow_compliance.store.models.scan import scan_model

NAME = "m-" + "1" * 32
FILES = {
    "MLmodel": b"flavors: {}\n",
    "model.skops": b"weights",
    "empty": b"",
    ".hidden": b"h",
    "a/b.txt": b"1",
    "a.txt": b"2",
    "a/c/größe \n 1.csv": b"3",
    "a-b": b"4",
}


def keys(folder: Path, name: str = "key") -> Keys:
    settings = Settings.model_validate(
        {"evidence": {"sign_with": str(folder / f"{name}.pem"), "verify_with": str(folder / f"{name}.pub")}}
    )
    return keys_of(settings)


def hashes(model: Path) -> dict[str, str]:
    return dict(scan_model(str(model), ModelSettings()).hashes)


def sign(model: Path, name: str = "key") -> Path:
    bundle = Path(bundle_of(str(model)))
    key = keys(model.parents[1], name).signing
    assert key is not None
    bundle.write_bytes(made_bundle(NAME, hashes(model), key))
    return bundle


def codes(model: Path, bundle: bytes | None, name: str = "key") -> list[str]:
    key = keys(model.parents[1], name).judging
    assert key is not None
    return [problem.code for problem in verdict(bundle, str(model), hashes(model), key)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / NAME / "artifacts"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_keys(tmp_path)
    return folder


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_each_accepts_what_the_other_signed(model: Path, curve: ec.EllipticCurve) -> None:
    folder = model.parents[1]
    write_keys(folder, curve=curve)
    bundle = sign(model)
    assert judged(model, bundle, folder / "key.pub") == ""
    assert codes(model, bundle.read_bytes()) == []
    theirs = folder / "theirs.sig"
    signed_by_judge(model, theirs, folder / "key.pem")
    assert codes(model, theirs.read_bytes()) == []


def test_what_mlflow_and_git_leave_in_a_folder(model: Path) -> None:
    folder = model.parents[1]
    (model / ".gitignore").write_text("*.tmp\n")
    (model / ".git").mkdir()
    (model / ".git" / "config").write_text("[core]\n")
    bundle, theirs = sign(model), folder / "theirs.sig"
    signed_by_judge(model, theirs, folder / "key.pem")
    (model / "registered_model_meta").write_text("model_name: credit\n")  # by a load through the registry
    assert judged(model, bundle, folder / "key.pub") == ""
    for each in (bundle, theirs):
        assert codes(model, each.read_bytes()) == []
    (model / "a" / ".gitignore").write_text("one deeper\n")
    (model / "registered_model_meta").unlink()
    (model / "registered_model_meta").mkdir()
    (model / "registered_model_meta" / "more.py").write_text("import os\n")
    for each in (bundle, theirs):
        assert codes(model, each.read_bytes()) == ["file-not-signed"]


def test_gits_files_count_where_the_signer_did_not_leave_them_out(model: Path) -> None:
    bundle = sign(model)
    (model / ".gitattributes").write_text("* text\n")
    assert codes(model, bundle.read_bytes()) == ["file-not-signed"]


TAMPERED: dict[str, Callable[[Path], object]] = {
    "signed-file-changed": lambda model: (model / "model.skops").write_bytes(b"Weights"),
    "signed-file-changed MLmodel": lambda model: (model / "MLmodel").write_bytes(b"flavors: {python_function: {}}\n"),
    "signed-file-changed to empty": lambda model: (model / "a.txt").write_bytes(b""),
    "signed-file-missing": lambda model: (model / "a" / "b.txt").unlink(),
    "signed-file-missing empty": lambda model: (model / "empty").unlink(),
    "file-not-signed": lambda model: (model / "more.py").write_bytes(b""),
    "file-not-signed deep": lambda model: (model / "a" / "c" / "more.bin").write_bytes(b"x"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_both_refuse_a_changed_model(model: Path, name: str) -> None:
    bundle = sign(model)
    TAMPERED[name](model)
    assert codes(model, bundle.read_bytes()) == [name.partition(" ")[0]]
    assert judged(model, bundle, model.parents[1] / "key.pub").startswith("ValueError: Signature mismatch")


def test_a_renamed_file_is_one_missing_and_one_not_signed(model: Path) -> None:
    bundle = sign(model)
    (model / "a.txt").rename(model / "b.txt")
    assert codes(model, bundle.read_bytes()) == ["signed-file-missing", "file-not-signed"]


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """A bundle with something changed in it."""

    def apply(content: bytes) -> bytes:
        bundle = json.loads(content)
        change(bundle)
        return json.dumps(bundle).encode()

    return apply


def restated(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """A bundle with something changed in what was signed."""

    def apply(bundle: dict[str, Any]) -> None:
        envelope = bundle["dsseEnvelope"]
        statement = json.loads(base64.b64decode(envelope["payload"]))
        change(statement)
        envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    return edited(apply)


NO_BUNDLES: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty": ("bundle-unreadable", lambda _: b""),
    "no JSON": ("bundle-unreadable", lambda _: b"\x80\x04K\x01."),
    "a list": ("bundle-unreadable", lambda _: b"[]"),
    "deep": ("bundle-unreadable", lambda _: b"[" * 200_000),
    "large": ("bundle-unreadable", lambda content: content + b" " * (1 << 24)),
    "half": ("bundle-unreadable", lambda content: content[: len(content) // 2]),
    "other media type": ("bundle-unreadable", edited(lambda it: it.update(mediaType="text/plain"))),
    "a certificate": (
        "bundle-unreadable",
        edited(lambda it: it.update(verificationMaterial={"certificate": {"rawBytes": ""}})),
    ),
    "no signature": ("bundle-unreadable", edited(lambda it: it["dsseEnvelope"].update(signatures=[]))),
    "two signatures": (
        "bundle-unreadable",
        edited(lambda it: it["dsseEnvelope"]["signatures"].append(it["dsseEnvelope"]["signatures"][0])),
    ),
    "no base64": ("bundle-unreadable", edited(lambda it: it["dsseEnvelope"].update(payload="ü"))),
    "other type": ("signature-does-not-verify", edited(lambda it: it["dsseEnvelope"].update(payloadType="text/plain"))),
    "other signature": (
        "signature-does-not-verify",
        edited(lambda it: it["dsseEnvelope"]["signatures"][0].update(sig=base64.b64encode(b"x").decode())),
    ),
    "other hash": (
        "signature-does-not-verify",
        restated(lambda it: it["predicate"]["resources"][0].update(digest="0" * 64)),
    ),
    "a file fewer": ("signature-does-not-verify", restated(lambda it: it["predicate"]["resources"].pop())),
    "more left out": (
        "signature-does-not-verify",
        restated(lambda it: it["predicate"]["serialization"].update(ignore_paths=["."])),
    ),
    "only written anew": ("signature-does-not-verify", restated(lambda it: it.update(more=1))),
    "no hint": ("", edited(lambda it: it["verificationMaterial"]["publicKey"].pop("hint"))),
}


@pytest.mark.parametrize("name", NO_BUNDLES)
def test_a_changed_bundle_says_nothing(model: Path, name: str) -> None:
    code, change = NO_BUNDLES[name]
    assert codes(model, change(sign(model).read_bytes())) == ([code] if code else [])


def test_without_a_bundle_and_with_that_of_another_key(model: Path) -> None:
    folder = model.parents[1]
    write_keys(folder, "other")
    assert codes(model, None) == ["model-not-signed"]
    bundle = sign(model, "other").read_bytes()
    assert codes(model, bundle) == ["signed-with-another-key"]
    hinted = edited(lambda it: it["verificationMaterial"]["publicKey"].update(hint=keys(folder).judging.fingerprint))  # type: ignore[union-attr]
    assert codes(model, hinted(bundle)) == ["signature-does-not-verify"]


CARELESS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no MLmodel": lambda it: it["predicate"]["resources"].pop(0),
    "other hashes": lambda it: it["predicate"]["serialization"].update(hash_type="blake3"),
    "shards": lambda it: it["predicate"]["serialization"].update(method="shards"),
    "other statement": lambda it: it.update(predicateType="https://slsa.dev/provenance/v1"),
    "other digest": lambda it: it["subject"][0]["digest"].update(sha256="0" * 64),
    "a name twice": lambda it: it["predicate"]["resources"].append(it["predicate"]["resources"][0]),
    "no subject": lambda it: it.update(subject=[]),
}


@pytest.mark.parametrize("name", CARELESS)
def test_a_statement_that_says_less_proves_nothing(model: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed with the right key, and all the same no statement about every file."""
    real = json.dumps

    def careless(value: Any, **given: Any) -> str:
        if "predicate" in value:
            CARELESS[name](value)
        return real(value, **given)

    monkeypatch.setattr("mlflow_compliance.production.signature.json.dumps", careless)
    content = sign(model).read_bytes()
    monkeypatch.undo()
    assert codes(model, content) == ["bundle-unreadable"]


def test_files_that_the_signer_left_out_are_not_signed(model: Path) -> None:
    """The judge takes the signer's word for it; nobody knows what a file does that was left out."""
    from importlib import import_module

    pytest.importorskip("model_signing")
    signing, hashing = import_module("model_signing.signing"), import_module("model_signing.hashing")
    folder = model.parents[1]
    config = hashing.Config().set_ignored_paths(paths=["model.skops"])
    signing.Config().use_elliptic_key_signer(private_key=folder / "key.pem").set_hashing_config(config).sign(
        model, folder / "theirs.sig"
    )
    assert judged(model, folder / "theirs.sig", folder / "key.pub") == ""
    assert codes(model, (folder / "theirs.sig").read_bytes()) == ["file-not-signed"]


def test_a_whole_model_in_the_place_of_another(model: Path) -> None:
    bundle = sign(model)
    other = model.parents[1] / ("m-" + "2" * 32)
    model.parent.rename(other)
    assert codes(other / "artifacts", (other / "model.sig").read_bytes()) == ["signed-as-another"]
    assert bundle.name == "model.sig"


@pytest.mark.parametrize(
    ("folder", "bundle", "owner"),
    [
        (f"/s/1/models/{NAME}/artifacts", f"/s/1/models/{NAME}/model.sig", NAME),
        (f"s3://b/1/models/{NAME}/artifacts/", f"s3://b/1/models/{NAME}/model.sig", NAME),
        (f"mlflow-artifacts:/1/models/{NAME}/artifacts", f"mlflow-artifacts:/1/models/{NAME}/model.sig", NAME),
        (f"file:///s/1/{'a' * 32}/artifacts/model", f"file:///s/1/{'a' * 32}/model.sig", "a" * 32),
        (f"/s/1/{'a' * 32}/artifacts/best/model", f"/s/1/{'a' * 32}/best.model.sig", "a" * 32),
        ("/s/1/models/⟨new⟩/artifacts", "/s/1/models/⟨new⟩/model.sig", ""),
        ("/data/model", "/data/model.sig", ""),
    ],
)
def test_where_a_bundle_lies(folder: str, bundle: str, owner: str) -> None:
    assert (bundle_of(folder), owner_in(folder)) == (bundle, owner)
