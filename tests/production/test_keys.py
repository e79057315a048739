"""The keys of signatures: every form that works, and one sentence with the way out for every other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from signing import write_key, write_keys

from mlflow_compliance.errors import SettingsError
from mlflow_compliance.production.keys import PASSWORD, Keys, keys_of
from mlflow_compliance.settings.schema import Settings, load_settings


def read(sign: str | None = None, verify: str | None = None) -> Keys:
    return keys_of(Settings.model_validate({"evidence": {"sign_with": sign, "verify_with": verify}}))


def refused(**named: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(**named)
    said = str(caught.value)
    assert "\n" not in said
    return said


def openssl(folder: Path, command: str) -> None:
    try:
        subprocess.run(f"openssl {command}", shell=True, cwd=folder, check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl does not do that here: {error}")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(PASSWORD, raising=False)
    write_keys(tmp_path)
    return tmp_path


def test_a_pair(folder: Path) -> None:
    found = read("key.pem", "key.pub")
    assert found.signing is not None
    assert found.verifying == found.judging == found.signing.public
    assert found.signing.warning == ""
    assert read(sign="key.pem").judging == found.judging, "the private key has the public one in it"
    assert read() == Keys()
    signature = found.signing.sign(b"content")
    assert found.signing.public.verifies(signature, b"content")
    assert not found.signing.public.verifies(signature, b"Content")
    assert "PRIVATE" not in repr(found)


FORMS: dict[str, str] = {
    "SEC1": "ecparam -name prime256v1 -genkey -noout -out made.pem",
    "SEC1 behind its parameters": "ecparam -name secp384r1 -genkey -out made.pem",
    "PKCS8": "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-521 -out made.pem",
}


@pytest.mark.parametrize("form", FORMS)
def test_what_openssl_makes(folder: Path, form: str) -> None:
    openssl(folder, FORMS[form])
    openssl(folder, "pkey -in made.pem -pubout -out made.pub")
    found = read("made.pem", "made.pub")
    assert found.judging is not None
    digest = subprocess.run(
        ["openssl", "dgst", "-sha256", "-r", "made.pub"], capture_output=True, text=True, check=True
    )
    assert digest.stdout.split()[0] == found.judging.fingerprint, "what people can compute themselves"


@pytest.mark.parametrize("how", ["PKCS8", "SEC1"])
def test_an_encrypted_key(folder: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "PKCS8":
        write_keys(folder, "locked", password="größe")
    else:
        openssl(folder, "ecparam -name prime256v1 -genkey -noout -out plain.pem")
        openssl(folder, "ec -in plain.pem -aes128 -passout pass:größe -out locked.pem")
    assert refused(sign="locked.pem") == (
        f"the key {folder}/locked.pem ([evidence] sign_with) is encrypted: give its password in the variable {PASSWORD}"
    )
    monkeypatch.setenv(PASSWORD, "wrong-S3CRET")
    said = refused(sign="locked.pem")
    assert said.endswith(f"is not opened by the password in {PASSWORD}: give the right one")
    assert "S3CRET" not in said
    monkeypatch.setenv(PASSWORD, "größe")
    assert read(sign="locked.pem").signing is not None
    assert read(sign="key.pem").signing is not None, "a password that is not needed does no harm"


KINDS: dict[str, tuple[Callable[[], object], str]] = {
    "RSA": (lambda: rsa.generate_private_key(65537, 2048), "a key of kind RSA"),
    "DSA": (lambda: dsa.generate_private_key(2048), "a key of kind DSA"),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate, "a key of kind Ed25519"),
    "Ed448": (ed448.Ed448PrivateKey.generate, "a key of kind Ed448"),
    "secp256k1": (lambda: ec.generate_private_key(ec.SECP256K1()), "a key on the curve secp256k1"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_other_kinds(folder: Path, kind: str) -> None:
    make, words = KINDS[kind]
    write_key(folder, make(), "other")
    for named in ({"sign": "other.pem"}, {"verify": "other.pub"}):
        said = refused(**named)
        assert f"holds {words}, and signatures take P-256, P-384 or P-521: make one with: openssl genpkey" in said
        assert f"{folder}/other.p" in said


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is no PEM file"),
    "DER": (b"0\x82\x01\x0a", "is no PEM file"),
    "half": (b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n", "is no PEM file"),
    "OpenSSH": (
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----\n",
        "is no PEM",
    ),
    "certificate": (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "is no PEM file"),
    "large": (b"x" * (1 << 17), "it is too large for a key"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_hold_no_key(folder: Path, name: str) -> None:
    content, words = FILES[name]
    (folder / "odd").write_bytes(content)
    assert words in refused(sign="odd")
    if b"PRIVATE KEY" not in content:
        assert words in refused(verify="odd")


def test_files_that_cannot_be_read(folder: Path) -> None:
    assert refused(sign="gone.pem") == (
        f"the key {folder}/gone.pem ([evidence] sign_with) cannot be read (no such file or directory): name the PEM "
        "file that holds it, or no key at all"
    )
    os.mkfifo(folder / "pipe")
    for odd in ("pipe", "."):
        assert "cannot be read (it is no file)" in refused(verify=odd)


def test_each_key_in_its_place(folder: Path) -> None:
    write_keys(folder, "other")
    assert "holds a public key, and signing takes the private one" in refused(sign="key.pub")
    assert "holds a private key, which verifying does not need" in refused(verify="key.pem")
    assert "are no pair, so what is signed would not verify" in refused(sign="key.pem", verify="other.pub")


def test_a_key_that_others_can_read_is_told(folder: Path) -> None:
    (folder / "key.pem").chmod(0o640)
    found = read(sign="key.pem").signing
    assert found is not None
    assert found.warning == f"{folder}/key.pem can be read by others (mode 640): chmod 600 {folder}/key.pem"


def test_paths_start_from_the_settings_and_from_where_the_environment_is_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / "team"
    home.mkdir()
    (home / "compliance.toml").write_text('[evidence]\nverify_with = "team.pub"\n')
    write_keys(home, "team")
    settings = load_settings(home / "compliance.toml")
    from_settings = keys_of(settings).verifying
    assert from_settings is not None
    monkeypatch.setenv("MLFLOW_COMPLIANCE_VERIFY_WITH", "key.pub")
    monkeypatch.setenv("MLFLOW_COMPLIANCE_SIGN_WITH", "")
    found = keys_of(settings)
    assert found.verifying not in (None, from_settings), "the environment counts first"
    assert found.signing is None
    monkeypatch.setenv("MLFLOW_COMPLIANCE_SIGN_WITH", "gone.pem")
    with pytest.raises(SettingsError, match=r"gone\.pem \(MLFLOW_COMPLIANCE_SIGN_WITH\) cannot be read"):
        keys_of(settings)
    assert keys_of(settings, verifying_only=True).verifying == found.verifying, "programs that load have no private key"


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    assert refused(sign="key.pem") == (
        "[evidence] sign_with names a key, and signatures need the package cryptography: "
        "pip install 'pytest-mlflow-compliance[signing]'"
    )
