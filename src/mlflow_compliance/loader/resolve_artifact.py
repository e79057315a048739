"""Which object to read in the place of an artifact: another copy, where a pointer that still holds is beside it."""

from __future__ import annotations

from pathlib import Path

from mlflow_compliance.errors import StoreError
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.store.storage.locations import scheme_of
from mlflow_compliance.store.storage.pointer_files import where_to_read
from mlflow_compliance.store.storage.storages import Storages, remote_path
from mlflow_compliance.store.store import open_store


def resolve_artifact(uri: str, *, tracking_uri: str | None = None) -> str:
    """The URI to read an artifact from.

    For an object in S3 with a pointer beside it: the copy that the pointer names where that still has the size and
    checksum written down, else
    the copy in the quarantine, else the object itself. A pointer counts as long as its object is gone or still has that
    content. `runs:/` URIs
    are looked up in the store at `tracking_uri` (MLFLOW_TRACKING_URI without one); what lies elsewhere than in S3 has
    no pointers and is
    given back as it is.

    Raises a ComplianceError of one sentence where none of these objects exists.
    """
    place = _place(uri, tracking_uri) if scheme_of(uri) == "runs" else uri
    if scheme_of(place) != "s3":
        return place
    path = remote_path(place)
    found = where_to_read(Storages(tracking_uri or ""), path)
    if not found:
        raise StoreError(f"{path} does not exist, and no pointer leads to a copy of it: restore it from a backup")
    return place if found == path else found


def _place(uri: str, tracking_uri: str | None) -> str:
    """Where a file of a run lies, by its row alone: nothing is opened for writing."""
    settings, here = Settings(), Path.cwd()
    store = open_store(settings.store.wanted_uri(tracking_uri, here), settings, str(here))
    run_id, _, path = uri[len("runs:") :].strip("/").partition("/")
    run = store.details([run_id])[0].get(run_id)
    if run is None:
        raise StoreError(
            f"there is no run {run_id} in {store.info.uri}: check the URI and the store that it is looked up in"
        )
    return f"{run.artifact_uri.rstrip('/')}/{path}" if path else run.artifact_uri
