"""The effects of changes on the bundles beside models: written where none is, and put aside."""

from __future__ import annotations

import os

from mlflow_compliance.changes import JOURNAL, RetractSignature, SignModel
from mlflow_compliance.errors import ChangeError, SettingsError
from mlflow_compliance.production.keys import keys_of
from mlflow_compliance.production.signature import LARGEST, bundle_of, made_bundle, signed_with, verdict
from mlflow_compliance.snapshot.files import MLMODEL, QUARANTINE
from mlflow_compliance.store.artifacts.quarantined import RETRACTED
from mlflow_compliance.store.models.scan import scan_model
from mlflow_compliance.store.storage import files
from mlflow_compliance.store.storage.manifests import write_manifest
from mlflow_compliance.store.storage.recorded_hashes import add_records
from mlflow_compliance.store.storage.safe_io import digest_of, opened
from mlflow_compliance.store.storage.shared_copies import on_record
from mlflow_compliance.store.write.effects import OpenStore, inverse, write
from mlflow_compliance.store.write.errors import one_sentence


@write.register(SignModel)
def sign_model(change: SignModel, to: OpenStore) -> None:
    folder, owner = to.bind(change.folder), to.bind(change.owner)
    try:
        key = keys_of(to.store.settings).signing
    except SettingsError as error:
        raise ChangeError(f"the model in {folder} was not signed: {error}") from error
    if key is None or key.public.fingerprint != change.fingerprint:
        raise ChangeError(
            f"the model in {folder} was not signed: the key is not the one that was planned with, so run again"
        )
    found = scan_model(folder, to.store.settings.models)
    if found.problems:
        raise ChangeError(f"the model in {folder} was not signed: {found.problems[0]}")
    planned = dict(change.hashes)
    if MLMODEL not in planned:
        planned[MLMODEL] = found.hashes[MLMODEL]
    if planned != found.hashes:
        raise ChangeError(f"the model in {folder} was not signed: its files changed meanwhile, so run again")
    content, path = made_bundle(owner, found.hashes, key), bundle_of(folder)
    assert not verdict(content, folder, found.hashes, key.public)
    files.write_new(path, content)
    # On record, so that one that is gone some day is missed, and not written anew.
    with one_sentence(f"the hash of {path} could not go on record"), opened(path) as file:
        add_records(to.store.folder, digest_of(file, path), path)


@inverse.register(SignModel)
def undo_sign_model(change: SignModel, to: OpenStore) -> RetractSignature:
    return RetractSignature(to.bind(change.folder), change.root, change.fingerprint, to.bind(JOURNAL))


@write.register(RetractSignature)
def retract_signature(change: RetractSignature, to: OpenStore) -> None:
    path, root = change.path, change.root
    target = os.path.join(root, QUARANTINE, f"{change.journal}{RETRACTED}", os.path.relpath(path, root))
    if not os.path.lexists(path) and os.path.lexists(target):
        return
    with one_sentence(f"{path} could not be read"), opened(path) as file:
        content, known = os.pread(file, LARGEST, 0), on_record(to.store.folder, path)
        # Whoever has the records elsewhere asks the bundle which key signed it.
        own = digest_of(file, path) == known if known else signed_with(content) == change.fingerprint
    if not own:
        raise ChangeError(f"{path} is not the bundle that {change.journal} wrote any more: it is left as it is")
    write_manifest(path, target, root)
    files.quarantine(path, target)
    with one_sentence(f"the hash of {path} could not be taken off the record"):
        add_records(to.store.folder, "", path)


@inverse.register(RetractSignature)
def undo_retract_signature(change: RetractSignature, to: OpenStore) -> None:
    """Whoever has the key can sign again; what is in quarantine was taken back."""
