"""The keys that production models and reports are signed with and held to: elliptic curve keys in PEM files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_compliance.errors import SettingsError
from mlflow_compliance.settings.schema import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

PASSWORD = "MLFLOW_COMPLIANCE_SIGN_PASSWORD"  # noqa: S105  the name of a variable
"""Environment variable with the password of an encrypted private key."""
CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
"""Curves that OpenSSF Model Signing takes -> the hash that it signs with on each."""
_LARGEST = 1 << 16
_NEW_KEY = "make one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem"
_NEW_PUBLIC = "write its public part with: openssl pkey -in key.pem -pubout -out key.pub"


@dataclass(frozen=True)
class PublicKey:
    """What signatures are held to. `fingerprint` is the SHA-256 (hex) of its PEM text, as bundles name a key."""

    fingerprint: str
    _key: EllipticCurvePublicKey = field(repr=False, compare=False)

    def verifies(self, signature: bytes, content: bytes, *, plain: bool = False) -> bool:
        """Whether a signature is this key's of a content; `plain` by SHA-256 on every curve."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        try:
            self._key.verify(signature, content, ECDSA(_hash(self._key.curve.name, plain=plain)))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class SigningKey:
    """What signs. Nothing of it is ever shown but the public part's fingerprint."""

    public: PublicKey
    warning: str
    """What is wrong with the file that it lies in; empty where nothing is."""
    _key: EllipticCurvePrivateKey = field(repr=False, compare=False)

    def sign(self, content: bytes, *, plain: bool = False) -> bytes:
        """The signature in DER; `plain` by SHA-256 on every curve, as `openssl dgst -sha256` has it."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        return self._key.sign(content, ECDSA(_hash(self._key.curve.name, plain=plain)))


class Keys(NamedTuple):
    """The keys that settings or environment name."""

    signing: SigningKey | None = None
    verifying: PublicKey | None = None

    @property
    def judging(self) -> PublicKey | None:
        """What bundles are held to in an audit: the public key, else that of the private one."""
        return self.verifying or (self.signing.public if self.signing else None)


def keys_of(settings: Settings, *, verifying_only: bool = False) -> Keys:
    """The keys in force. Raises SettingsError, which names the file and the way out, where one cannot be used.

    With `verifying_only` the private key is not looked at: programs that load a model have none.
    """
    private = None if verifying_only else settings.evidence.resolved_key(settings.base, "sign_with")
    public = settings.evidence.resolved_key(settings.base, "verify_with")
    signing = _signing(*private) if private else None
    verifying = _verifying(*public) if public else None
    if signing and verifying and private and public and signing.public != verifying:
        raise SettingsError(
            f"the keys {private[0]} ({private[1]}) and {public[0]} ({public[1]}) are no pair, so what is signed would "
            f"not verify: {_NEW_PUBLIC}"
        )
    return Keys(signing, verifying)


def _signing(path: str, by: str) -> SigningKey:
    serialization = _library(by)
    what, data = f"the key {path} ({by})", _content(path, by)
    key = _loaded(lambda password: serialization.load_pem_private_key(data, password), what, data)
    if key is None:
        raise SettingsError(
            f"{what} holds a public key, and signing takes the private one"
            if b"PUBLIC KEY" in data
            else f"{what} is no PEM file with a private key that can be read: {_NEW_KEY}"
        )
    _refuse_other_kinds(key, what)
    mode = os.stat(path).st_mode & 0o777
    exposed = mode & 0o077
    warning = f"{path} can be read by others (mode {mode:o}): chmod 600 {path}" if exposed else ""
    return SigningKey(_public(key.public_key()), warning, key)


def _loaded(load: Callable[[bytes | None], Any], what: str, data: bytes) -> Any:
    """The private key, with its password where it is encrypted; None where there is none."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load(None)
    except TypeError:  # it is encrypted
        password = os.environ.get(PASSWORD, "")
        if not password:
            raise SettingsError(f"{what} is encrypted: give its password in the variable {PASSWORD}") from None
    except (ValueError, UnsupportedAlgorithm):
        return None
    try:
        return load(password.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SettingsError(f"{what} is not opened by the password in {PASSWORD}: give the right one") from None


def _verifying(path: str, by: str) -> PublicKey:
    from_pem = _library(by)
    from cryptography.exceptions import UnsupportedAlgorithm

    what, data = f"the key {path} ({by})", _content(path, by)
    if b"PRIVATE KEY" in data:
        raise SettingsError(f"{what} holds a private key, which verifying does not need: {_NEW_PUBLIC}")
    try:
        key = from_pem.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"{what} is no PEM file with a public key that can be read: {_NEW_PUBLIC}") from None
    _refuse_other_kinds(key, what)
    return _public(key)


def _library(by: str) -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
    except ImportError:
        raise SettingsError(
            f"{by} names a key, and signatures need the package cryptography: "
            "pip install 'pytest-mlflow-compliance[signing]'"
        ) from None
    return serialization


def _content(path: str, by: str) -> bytes:
    reason = ""
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            reason = "it is no file"
        else:
            with open(path, "rb") as file:
                data = file.read(_LARGEST + 1)
            reason = "it is too large for a key" if len(data) > _LARGEST else ""
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
    if reason:
        raise SettingsError(
            f"the key {path} ({by}) cannot be read ({reason}): name the PEM file that holds it, or no key at all"
        )
    return data


def _refuse_other_kinds(key: Any, what: str) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    curve = getattr(getattr(key, "curve", None), "name", "")
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey) and curve in CURVES:
        return
    kind = type(key).__name__.lstrip("_").removesuffix("PrivateKey").removesuffix("PublicKey")
    found = f"a key on the curve {curve}" if curve else f"a key of kind {kind}"
    raise SettingsError(f"{what} holds {found}, and signatures take P-256, P-384 or P-521: {_NEW_KEY}")


def _public(key: EllipticCurvePublicKey) -> PublicKey:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    text = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(hashlib.sha256(text).hexdigest(), key)


def _hash(curve: str, *, plain: bool) -> HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    made: HashAlgorithm = getattr(hashes, "SHA256" if plain else CURVES[curve])()
    return made
