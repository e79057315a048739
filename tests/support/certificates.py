"""Certificate authorities of the tests' own, made anew for each session, and what they sign."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = "127.0.0.1"
"""The host that servers get their certificates for; by another name of this machine they are not who was asked for."""


class Signed(NamedTuple):
    """A certificate and its key, each in a file (PEM), and both in one, as requests takes them."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """One certificate authority; what it makes lies in a folder."""

    def __init__(self, folder: Path, name: str) -> None:
        pytest.importorskip("cryptography", reason="needs cryptography")
        from cryptography.hazmat.primitives.asymmetric import ec

        self.folder, self.name, self._key = folder, name, ec.generate_private_key(ec.SECP256R1())
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate = self._signed(name, self._key, server=False, authority=True).certificate

    def server(self, name: str) -> Signed:
        """For a server at HERE."""
        return self._new(name, server=True)

    def client(self, name: str) -> Signed:
        return self._new(name, server=False)

    def _new(self, name: str, *, server: bool) -> Signed:
        from cryptography.hazmat.primitives.asymmetric import ec

        return self._signed(name, ec.generate_private_key(ec.SECP256R1()), server=server, authority=False)

    def _signed(self, name: str, key: object, *, server: bool, authority: bool) -> Signed:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

        assert isinstance(key, EllipticCurvePrivateKey)
        subject, issuer = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in (name, self.name)
        )
        now, day = datetime.now(timezone.utc), timedelta(days=1)
        own, above = (x509.SubjectKeyIdentifier.from_public_key(item.public_key()) for item in (key, self._key))
        made = (
            x509.CertificateBuilder(
                issuer, subject, key.public_key(), x509.random_serial_number(), now - day, now + day
            )
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(own, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above), critical=False)
        )
        if authority:
            made = made.add_extension(
                x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
            )
        if server:
            made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(HERE))]), critical=False)
        certificate = made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files = Signed(*(self.folder / f"{name}.{ending}" for ending in ("crt", "key", "pem")))
        for path, content in zip(files, (certificate, private, certificate + private), strict=True):
            path.write_bytes(content)
            path.chmod(0o600)
        return files
