"""The effects of changes on artifacts: shared, pointed to, moved aside and back."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from mlflow.entities import ViewType

from mlflow_compliance.changes import (
    JOURNAL,
    GiveBack,
    LinkDuplicate,
    MoveToQuarantine,
    PointToCopy,
    PutAsideAgain,
    RestoreFromQuarantine,
    RetractPointer,
    UnlinkDuplicate,
)
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.files import Pointer
from mlflow_compliance.store.backends.listing import get_or_none, pages
from mlflow_compliance.store.ownership.orphans import IDENTIFIER
from mlflow_compliance.store.storage import files, pointer_files
from mlflow_compliance.store.storage.locations import local_folder
from mlflow_compliance.store.storage.manifests import write_manifest
from mlflow_compliance.store.storage.recorded_hashes import add_records
from mlflow_compliance.store.storage.shared_copies import (
    add_shared,
    copy_of_file,
    give_back,
    is_shared,
    on_record,
    refuse_unless_shared,
)
from mlflow_compliance.store.storage.storages import is_remote
from mlflow_compliance.store.write.effects import OpenStore, inverse, write
from mlflow_compliance.store.write.errors import one_sentence
from mlflow_compliance.store.write.retract import not_there, remove_empty


@write.register(LinkDuplicate)
def link_duplicate(change: LinkDuplicate, to: OpenStore) -> None:
    path, kept = to.bind(change.path), to.bind(change.kept)
    # On record first: should the program die in between, the record is still true of both files.
    with one_sentence(f"the hash of {path} could not go on record"):
        add_shared(to.store.folder, change.sha256, kept, path)
    files.share(kept, path, change.sha256)


@inverse.register(LinkDuplicate)
def undo_link_duplicate(change: LinkDuplicate, to: OpenStore) -> UnlinkDuplicate:
    path, kept = to.bind(change.path), to.bind(change.kept)
    with one_sentence(f"{path} could not be read"):
        state = os.lstat(path)
        recorded = bool(on_record(to.store.folder, path))
        mates = tuple(mate for mate in map(to.bind, change.mates) if _is_one_file(path, mate))
    mode, mtime = state.st_mode & 0o7777, state.st_mtime_ns
    return UnlinkDuplicate(path, kept, change.sha256, change.size, mode, mtime, recorded, mates)


def _is_one_file(path: str, other: str) -> bool:
    return os.path.lexists(path) and os.path.lexists(other) and copy_of_file(path) == copy_of_file(other)


@write.register(UnlinkDuplicate)
def unlink_duplicate(change: UnlinkDuplicate, to: OpenStore) -> None:
    path, kept = change.path, change.kept
    with one_sentence(f"{path} could not be read"):
        copy = copy_of_file(path)
    if refuse_unless_shared(path, kept, change.sha256, (change.mode, change.mtime_ns)):
        mate = next((other for other in change.mates if os.path.isfile(other) and not is_shared(other, path)), None)
        if mate is None or not files.rejoin(mate, path, change.sha256):
            files.unshare(path, change.mode, change.mtime_ns, change.sha256)
    with one_sentence(f"the hash of {path} could not be taken off the record"):
        if not change.recorded:
            add_records(to.store.folder, "", path)
        # It may have been kept for a path that was itself parted meanwhile: then the copy is another file's.
        others = () if os.path.lexists(kept) and copy_of_file(kept) == copy else (copy,)
        give_back(to.store.folder, (kept,), others)


@inverse.register(UnlinkDuplicate)
def undo_unlink_duplicate(change: UnlinkDuplicate, to: OpenStore) -> LinkDuplicate:
    return LinkDuplicate(change.path, change.kept, change.sha256, change.size, change.mates)


@write.register(MoveToQuarantine)
def move_to_quarantine(change: MoveToQuarantine, to: OpenStore) -> None:
    path, target = change.path, to.bind(change.target)
    if any(own == path or own.startswith(path + os.sep) for own in map(os.path.realpath, to.store.backend.own())):
        raise ChangeError(f"{path} is, or holds, the database of this store: it stays")
    with one_sentence(f"{path} could not be moved"):
        owner = _owner_by_now(to, path)
    if owner:
        raise ChangeError(f"{path} belongs to {owner}, which began after the rows were read: it stays")
    write_manifest(path, target, change.root)
    files.quarantine(path, target)


def _owner_by_now(to: OpenStore, path: str) -> str:
    """The row whose folder this is, '' where there is none: listing a server takes a while, and a plan may be
    minutes old.
    """
    name = os.path.basename(path)
    if not IDENTIFIER.fullmatch(name):
        return ""
    found: Any
    if name.startswith("m-"):
        kind, found = "logged model", get_or_none(to.client.get_logged_model, name)
        uri = found.artifact_location if found else ""
    elif name.isdigit():
        # By the list: PostgreSQL does not take a number for an id that is larger than any of its ids.
        everywhere = pages(to.client.search_experiments, view_type=ViewType.ALL, max_results=1000)
        kind, found = "experiment", next((item for item in everywhere if item.experiment_id == name), None)
        uri = found.artifact_location if found else ""
    else:
        kind, found = "run", get_or_none(to.client.get_run, name)
        uri = found.info.artifact_uri if found else ""
    place = local_folder(uri, to.store.backend.home) if uri and not is_remote(uri) else None
    return f"{kind} {name}" if place and f"{place}/".startswith(f"{path}/") else ""


@inverse.register(MoveToQuarantine)
def undo_move_to_quarantine(change: MoveToQuarantine, to: OpenStore) -> RestoreFromQuarantine:
    path = change.path
    with one_sentence(f"{path} could not be read"):
        listed = files.manifest_of(path)
    contents = tuple((os.path.normpath(os.path.join(path, item["path"])), item["size"]) for item in listed)
    return RestoreFromQuarantine(path, to.bind(change.target), change.root, contents, _hash_of(listed))


def _hash_of(listed: Sequence[Mapping[str, Any]]) -> str:
    """One hash of the files that a manifest lists."""
    facts = repr([(item["path"], item["size"], item["sha256"]) for item in listed])
    return hashlib.sha256(facts.encode(errors="surrogateescape")).hexdigest()


def _is_still(path: str, sha256: str) -> bool:
    """Whether what lies at a path is what it was; where nothing was noted of it nobody can tell."""
    with one_sentence(f"{path} could not be read"):
        return not sha256 or _hash_of(files.manifest_of(path)) == sha256


@write.register(RestoreFromQuarantine)
def restore_from_quarantine(change: RestoreFromQuarantine, to: OpenStore) -> None:
    path, source = change.path, change.source
    if not os.path.lexists(source) and os.path.lexists(path) and change.sha256 and _is_still(path, change.sha256):
        return
    if os.path.lexists(path):
        raise ChangeError(f"something new lies at {path}: {source} stays in quarantine")
    if not _is_still(source, change.sha256):
        raise ChangeError(f"{source} is not what was put aside any more: it stays in quarantine")
    files.restore(source, path)


@write.register(GiveBack)
def give_back_what_is_owned(change: GiveBack, to: OpenStore) -> None:
    files.restore(change.source, change.path)


@inverse.register(RestoreFromQuarantine)
def undo_restore_from_quarantine(change: RestoreFromQuarantine, to: OpenStore) -> MoveToQuarantine:
    return MoveToQuarantine(change.path, change.root, len(change.contents), change.size)


@inverse.register(GiveBack)
def undo_give_back(change: GiveBack, to: OpenStore) -> PutAsideAgain:
    with one_sentence(f"{change.source} could not be read"):
        sha256 = _hash_of(files.manifest_of(change.source))
    folders = not_there([os.path.dirname(change.path)])
    return PutAsideAgain(change.path, change.source, change.root, change.files, change.size, sha256, folders)


@write.register(PutAsideAgain)
def put_aside_again(change: PutAsideAgain, to: OpenStore) -> None:
    path, source = change.path, change.source
    if not os.path.lexists(path) and os.path.lexists(source) and change.sha256 and _is_still(source, change.sha256):
        return
    if not _is_still(path, change.sha256):
        raise ChangeError(f"{path} is not what was given back any more: it is left where it is")
    files.quarantine(path, source)
    remove_empty(change.folders)


@inverse.register(PutAsideAgain)
def undo_put_aside_again(change: PutAsideAgain, to: OpenStore) -> GiveBack:
    return GiveBack(change.path, change.source, change.root, change.files, change.size)


@write.register(PointToCopy)
def point_to_copy(change: PointToCopy, to: OpenStore) -> None:
    planned = change.pointer
    pointer = Pointer(
        to.bind(planned.kept), planned.checksum, planned.size, to.bind(planned.quarantined), to.bind(planned.journal)
    )
    pointer_files.write_pointer(to.store.places, to.bind(change.path), pointer)


@inverse.register(PointToCopy)
def undo_point_to_copy(change: PointToCopy, to: OpenStore) -> RetractPointer:
    return RetractPointer(
        to.bind(change.path), change.root, to.bind(change.kept), change.checksum, change.size, to.bind(JOURNAL)
    )


@write.register(RetractPointer)
def retract_pointer(change: RetractPointer, to: OpenStore) -> None:
    pointer_files.retract_pointer(
        to.store.places, change.path, change.journal, (change.kept, change.checksum, change.size)
    )


@inverse.register(RetractPointer)
def undo_retract_pointer(change: RetractPointer, to: OpenStore) -> PointToCopy:
    return PointToCopy(change.path, change.root, change.kept, change.checksum, change.size)
