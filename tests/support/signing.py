"""Keys for tests, and the verifier of OpenSSF Model Signing as the judge of what the program signs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)


def write_keys(folder: Path, name: str = "key", *, curve: ec.EllipticCurve | None = None, password: str = "") -> None:
    """A pair in `<name>.pem` and `<name>.pub`."""
    write_key(folder, ec.generate_private_key(curve or ec.SECP256R1()), name, password=password)


def write_key(folder: Path, key: Any, name: str, *, password: str = "") -> None:
    """A private key of any kind with its public part."""
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    path = folder / f"{name}.pem"
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    path.chmod(0o600)
    text = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(text)


def judged(model: Path, bundle: Path, public: Path) -> str:
    """What the judge says against a bundle, '' where it accepts it."""
    verifying = pytest.importorskip("model_signing.verifying", reason="pip install model-signing pyopenssl")
    try:
        verifying.Config().use_elliptic_key_verifier(public_key=public).verify(model, bundle)
    except Exception as refusal:  # noqa: BLE001  it raises what its libraries raise
        return f"{type(refusal).__name__}: {refusal}"
    return ""


def signed_by_judge(model: Path, bundle: Path, private: Path) -> None:
    """A bundle that the judge itself makes."""
    signing = pytest.importorskip("model_signing.signing", reason="pip install model-signing pyopenssl")
    signing.Config().use_elliptic_key_signer(private_key=private).sign(model, bundle)
