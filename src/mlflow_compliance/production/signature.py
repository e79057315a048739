"""Bundles of OpenSSF Model Signing (v1.0) beside model folders: made with a bare elliptic curve key, and judged."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.production.claims import production_models
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.keys import PublicKey, SigningKey
from mlflow_compliance.production.resolution import SnapshotLookup, folder_of, resolve
from mlflow_compliance.safe_text import first_of
from mlflow_compliance.settings.schema import Product
from mlflow_compliance.snapshot.evidence import Unsigned
from mlflow_compliance.snapshot.files import MLMODEL, WRITTEN_BY_MLFLOW

BUNDLE = "model.sig"
"""Name of the bundle of a logged model, beside its folder `artifacts`."""
LARGEST = 1 << 24
"""Bytes of a bundle: it names every file of a model, and no more."""
NOT_SIGNED = (Unsigned("model-not-signed", "is not signed: no bundle lies beside it"),)
"""What is wrong with a model without a bundle."""

_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_ARTIFACTS = "/artifacts"
_IGNORED = WRITTEN_BY_MLFLOW - {MLMODEL}
"""What MLflow writes into a model folder after it was signed."""
_OF_GIT = frozenset({".git", ".gitattributes", ".github", ".gitignore"})
"""Left out by the verifier of OpenSSF Model Signing, whatever a bundle says; nothing that loads a model reads them."""
_ID = re.compile(r"(m-)?[0-9a-f]{32}")
"""An id that MLflow gave to a model or run."""
_FEW = 5


class _NoBundle(Exception):  # noqa: N818  it is an answer, not an error
    """Why a bundle says nothing, as an `Unsigned`."""

    def __init__(self, problem: Unsigned) -> None:
        super().__init__(*problem)
        self.problem = problem


class _Content(NamedTuple):
    """What a bundle says: the name that the model was signed under, path -> SHA-256, the names that were left out."""

    name: str
    files: dict[str, str]
    left_out: frozenset[str]


def bundle_of(folder: str) -> str:
    """Where the bundle of a model folder, or of its location, lies: beside the folder `artifacts` of the model or run,
    where nothing lists, copies or downloads it along. A model among a run's artifacts gives it its name.
    """
    head, marked, rest = f"{folder.rstrip('/')}/".rpartition(f"{_ARTIFACTS}/")
    if not marked:
        return f"{folder.rstrip('/')}.sig"
    return f"{head}/{rest.rstrip('/').replace('/', '.')}.sig" if rest else f"{head}/{BUNDLE}"


def models_in_production(product: Product, context: Context) -> list[str]:
    """The model folders of a product's production runs, and the one that programs load where that is another."""
    found = [folder for _, folder in production_models(product, context)]
    production, artifacts = product.production, context.snapshot.artifacts
    try:
        loaded = resolve(
            SnapshotLookup(context.snapshot, product, context.settings),
            registered_model=production.registered_model,
            alias=production.alias,
        )
    except ComplianceError:
        return found  # SRV001 says why nothing would be loaded
    folder = folder_of(loaded, product, context.snapshot)
    return [*found, folder] if artifacts and folder in artifacts.models and folder not in found else found


def made_bundle(name: str, hashes: Mapping[str, str], key: SigningKey) -> bytes:
    """A bundle for the files of a model: relative path -> SHA-256 (hex)."""
    resources = [
        {"name": path, "algorithm": "sha256", "digest": hashes[path]}
        for path in sorted(hashes, key=PurePosixPath)
        if not _is_ignored(path, _IGNORED | _OF_GIT)
    ]
    left_out = _IGNORED | {path.partition("/")[0] for path in hashes if _is_ignored(path, _OF_GIT)}
    statement = {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _digest_of(item["digest"] for item in resources)}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": sorted(left_out),
            },
            "resources": resources,
        },
    }
    payload = json.dumps(statement, indent=2).encode()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": _PAYLOAD_TYPE,
        "signatures": [{"sig": base64.b64encode(key.sign(_encoded(payload))).decode(), "keyid": ""}],
    }
    material = {"publicKey": {"hint": key.public.fingerprint}, "tlogEntries": []}
    bundle = {"mediaType": _MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}
    return json.dumps(bundle, indent=1).encode() + b"\n"


def owner_in(folder: str) -> str:
    """The id of the model or run that a model folder, or its location, lies in; empty where MLflow did not lay it
    out.
    """
    owner = f"{folder.rstrip('/')}/".rpartition(f"{_ARTIFACTS}/")[0].rpartition("/")[2]
    return owner if _ID.fullmatch(owner) else ""


def verdict(
    bundle: bytes | None, folder: str, hashes: Mapping[str, str], key: PublicKey, unread: Collection[str] = ()
) -> tuple[Unsigned, ...]:
    """Why a model is not the one that was signed with a key; empty where it is. The one answer for the rules and for
    programs that load the model.

    `bundle` is what lies beside its `folder` (or location), None where nothing does; `hashes` are its files, path ->
    SHA-256; `unread` are those of them that cannot be read.
    """
    if bundle is None:
        return NOT_SIGNED
    try:
        name, signed, left_out = _opened(bundle, key)
    except _NoBundle as answer:
        return (answer.problem,)
    owner = owner_in(folder)
    if owner and name != owner and _ID.fullmatch(name):  # a whole model may be put in the place of another
        return (Unsigned("signed-as-another", f"was signed as another model ({name}, not {owner})"),)
    there = {path for path in hashes if path in signed or not _is_ignored(path, left_out)}
    closed = {path for path in unread if path in signed or not _is_ignored(path, left_out)}
    found = {
        ("signed-file-changed", "holds files that changed since it was signed"): {
            path for path in there & signed.keys() if hashes[path] != signed[path]
        },
        ("signed-file-missing", "misses files that it was signed with"): signed.keys() - there - closed,
        ("file-not-signed", "holds files that were not signed with it"): there - signed.keys(),
        ("file-unreadable", "holds what cannot be read, so nobody knows whether it was signed"): closed - there,
    }
    return tuple(
        Unsigned(code, f"{what}: {first_of(sorted(paths), _FEW)}") for (code, what), paths in found.items() if paths
    )


def signed_with(bundle: bytes) -> str:
    """The fingerprint of the key that a bundle says it was signed with; empty where it says none."""
    try:
        return str(json.loads(bundle)["verificationMaterial"]["publicKey"]["hint"])
    except _MALFORMED:
        return ""


def _opened(bundle: bytes, key: PublicKey) -> _Content:
    """What was signed. Raises _NoBundle."""
    try:
        if len(bundle) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
        outer: Any = json.loads(bundle)
        if outer["mediaType"] != _MEDIA_TYPE:
            raise ValueError(f"it is not of the type {_MEDIA_TYPE}")
        if "publicKey" not in outer["verificationMaterial"]:
            raise ValueError("it was not made with a bare key")
        hint = str(outer["verificationMaterial"]["publicKey"].get("hint", ""))
        envelope = outer["dsseEnvelope"]
        (signature,) = (base64.b64decode(item["sig"], validate=True) for item in envelope["signatures"])
        payload = base64.b64decode(envelope["payload"], validate=True)
        kind = envelope["payloadType"]
    except _MALFORMED as error:
        raise _malformed(error) from None
    if hint and hint != key.fingerprint:
        other = f"was signed with another key (sha256 {hint[:16]}, expected {key.fingerprint[:16]})"
        raise _NoBundle(Unsigned("signed-with-another-key", other))
    if kind != _PAYLOAD_TYPE or not key.verifies(signature, _encoded(payload)):
        raise _NoBundle(Unsigned("signature-does-not-verify", "has a bundle whose signature does not verify"))
    try:
        return _content_of(json.loads(payload))
    except _MALFORMED as error:
        raise _malformed(error) from None


_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _malformed(error: Exception) -> _NoBundle:
    reason = str(error) if type(error) is ValueError else "it is not laid out as one"
    return _NoBundle(unreadable(f"it is none of OpenSSF Model Signing v1.0: {reason}"))


def unreadable(reason: str = "it is no file that can be opened here") -> Unsigned:
    """What is wrong with a model whose bundle cannot be read."""
    return Unsigned("bundle-unreadable", f"has a bundle that cannot be read ({reason})")


def _content_of(statement: Any) -> _Content:
    """What a statement says, its signature verified. Raises ValueError where it says less than it must."""
    predicate = statement["predicate"]
    if statement["_type"] != _STATEMENT or statement["predicateType"] != _PREDICATE:
        raise ValueError("it makes another statement")
    way = predicate["serialization"]
    if (way["method"], way["hash_type"]) != ("files", "sha256"):
        raise ValueError("it does not name the SHA-256 of whole files")
    (subject,) = statement["subject"]
    listed = [(str(item["name"]), str(item["digest"]).lower()) for item in predicate["resources"]]
    files = dict(listed)
    kinds = {item["algorithm"] for item in predicate["resources"]}
    together = _digest_of(digest for _, digest in listed)
    if kinds != {"sha256"} or len(files) != len(listed) or subject["digest"]["sha256"] != together:
        raise ValueError("its own list of files does not hold together")
    if MLMODEL not in files:
        raise ValueError(f"it leaves {MLMODEL} out")
    # Of what else a signer left out nobody knows what it is: it counts as not signed.
    return _Content(str(subject["name"]), files, _IGNORED | (_OF_GIT & frozenset(way.get("ignore_paths", ()))))


def _is_ignored(path: str, names: Collection[str]) -> bool:
    """Whether a file is one of these, or lies in a folder of git's among them."""
    first = path.partition("/")[0]
    return first in names and (path == first or first in _OF_GIT)


def _digest_of(digests: Iterable[str]) -> str:
    """The one hash over all files: over their hashes, in the order of the list."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, digests))).hexdigest()


def _encoded(payload: bytes) -> bytes:
    """What is signed of an envelope: its type and content with their lengths (DSSE v1)."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)
