"""The effects of changes on artifacts: shared, pointed to, moved aside."""

from __future__ import annotations

import os
from typing import Any

from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.files import Pointer
from mlflow_compliance.store.backends.listing import pages, there
from mlflow_compliance.store.ownership.orphans import IDENTIFIER
from mlflow_compliance.store.storage import files
from mlflow_compliance.store.storage import metric_files as metric_writing
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.manifests import write_manifest
from mlflow_compliance.store.storage.owner_notes import add_note, drop_note
from mlflow_compliance.store.storage.pointer_files import retract_pointer, write_pointer
from mlflow_compliance.store.storage.recorded_hashes import add_records
from mlflow_compliance.store.storage.storages import is_remote
from mlflow_compliance.store.store import Store
from mlflow_compliance.store.write.errors import one_sentence


class FileWriter:
    """Writes to the artifacts of one store; `client` tells whose a folder is by now."""

    store: Store
    client: MlflowClient

    def file_state(self, path: str) -> tuple[int, int]:
        """Mode bits and modification time (nanoseconds)."""
        with one_sentence(f"{path} could not be read"):
            state = os.lstat(path)
            return state.st_mode & 0o7777, state.st_mtime_ns

    def contents(self, path: str) -> tuple[tuple[str, int], ...]:
        """(path, size) of every file at or below a path, sorted."""
        with one_sentence(f"{path} could not be read"):
            return tuple((os.path.normpath(os.path.join(path, item["path"])), item["size"]) for item in files.manifest_of(path))

    def share_file(self, path: str, kept: str, sha256: str) -> None:
        # On record first: should the program die in between, the record is still true of both files.
        with one_sentence(f"the hash of {path} could not go on record"):
            add_records(self.store.folder, sha256, path, kept)
        files.share(kept, path, sha256)

    def unshare_file(self, path: str, sha256: str, mode: int, mtime_ns: int) -> None:
        files.unshare(path, mode, mtime_ns, sha256)
        with one_sentence(f"the hash of {path} could not be taken off the record"):
            add_records(self.store.folder, "", path)

    def repeats_state(self, path: str) -> tuple[int, str]:
        """Size of a metric file now, and its hash without its repeats."""
        return metric_writing.state_of(path)

    def remove_repeats(self, path: str, sha256: str, journal: str) -> None:
        metric_writing.remove_repeats(path, sha256, metric_writing.kept_at(self.store.folder, journal, sha256))

    def restore_metric_file(self, path: str, now: str, sha256: str, journal: str) -> None:
        metric_writing.restore_metric_file(path, now, sha256, metric_writing.kept_at(self.store.folder, journal, sha256))

    def point_to_copy(self, path: str, pointer: Pointer) -> None:
        write_pointer(self.store.places, path, pointer)

    def retract_pointer(self, path: str, journal: str) -> None:
        retract_pointer(self.store.places, path, journal)

    def claim_root(self, root: str, journal: str) -> None:
        with one_sentence(f"{root} could not be claimed"):
            database = self.store.backend.identity()
        add_note(root, database, self.store.info.uri, journal)

    def release_root(self, root: str) -> None:
        drop_note(root)

    def quarantine(self, path: str, target: str, root: str) -> None:
        if any(own == path or own.startswith(path + os.sep) for own in map(os.path.realpath, self.store.backend.own())):
            raise ChangeError(f"{path} is, or holds, the database of this store: it stays")
        with one_sentence(f"{path} could not be moved"):
            owner = self._owner_by_now(path)
        if owner:
            raise ChangeError(f"{path} belongs to {owner}, which began after the rows were read: it stays")
        write_manifest(path, target, root)
        files.quarantine(path, target)

    def _owner_by_now(self, path: str) -> str:
        """The row whose folder this is, '' where there is none: listing a server takes a while, and a plan may be minutes old."""
        name = os.path.basename(path)
        if not IDENTIFIER.fullmatch(name):
            return ""
        found: Any
        if name.startswith("m-"):
            kind, found = "logged model", there(self.client.get_logged_model, name)
            uri = found.artifact_location if found else ""
        elif name.isdigit():
            # By the list: PostgreSQL does not take a number for an id that is larger than any of its ids.
            everywhere = pages(self.client.search_experiments, view_type=ViewType.ALL, max_results=1000)
            kind, found = "experiment", next((item for item in everywhere if item.experiment_id == name), None)
            uri = found.artifact_location if found else ""
        else:
            kind, found = "run", there(self.client.get_run, name)
            uri = found.info.artifact_uri if found else ""
        place = local_folder(uri, self.store.backend.home) if uri and not is_remote(uri) else None
        return f"{kind} {name}" if place and f"{place}/".startswith(f"{path}/") else ""

    def restore_from_quarantine(self, target: str, path: str) -> None:
        files.restore(target, path)

    def put_aside_again(self, path: str, target: str) -> None:
        files.quarantine(path, target)
