"""The effects of changes on the note in an artifact root that says whose it is."""

from __future__ import annotations

from mlflow_compliance.changes import JOURNAL, ClaimRoot, ReleaseRoot
from mlflow_compliance.store.storage.owner_notes import add_note, drop_note
from mlflow_compliance.store.write.effects import OpenStore, inverse, write
from mlflow_compliance.store.write.errors import one_sentence


@write.register(ClaimRoot)
def claim_root(change: ClaimRoot, to: OpenStore) -> None:
    with one_sentence(f"{change.root} could not be claimed"):
        database = to.store.backend.identity()
    add_note(change.root, database, to.store.info.uri, to.bind(JOURNAL))


@inverse.register(ClaimRoot)
def undo_claim_root(change: ClaimRoot, to: OpenStore) -> ReleaseRoot:
    return ReleaseRoot(change.root, to.bind(JOURNAL))


@write.register(ReleaseRoot)
def release_root(change: ReleaseRoot, to: OpenStore) -> None:
    drop_note(change.root, change.journal)


@inverse.register(ReleaseRoot)
def undo_release_root(change: ReleaseRoot, to: OpenStore) -> ClaimRoot:
    return ClaimRoot(change.root)
