"""Pointers beside objects that are stored elsewhere too: small objects that name the copy to read. Nothing is
replaced or deleted.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import Pointer
from mlflow_compliance.store.storage.base import ObjectInfo, RemoteError
from mlflow_compliance.store.storage.checksums import KIND, digest_of_listed
from mlflow_compliance.store.storage.parsing import parse_json
from mlflow_compliance.store.storage.s3 import Bucket
from mlflow_compliance.store.storage.storages import Storages, put

LARGEST = 1 << 14
"""Bytes: two keys of a kilobyte, escaped, and a few words."""
_NAME = re.compile(r"(?P<of>.+)\.compliance-pointer\.(?P<journal>[^/.]+)\.(?P<what>json|retracted)", re.DOTALL)
_AT_ONCE = 8
_BUCKETS_ONLY = "pointers are for objects in S3 buckets: see to {} with MLflow itself"


def pointer_path(path: str, journal: str) -> str:
    """Where the pointer of an object is written: a name of each repair's own, since nothing is ever replaced."""
    return f"{path}.compliance-pointer.{journal}.json"


def pointed(items: Iterable[ObjectInfo]) -> tuple[dict[str, str], set[str]]:
    """Object -> the pointer that counts for it (the last one that was not taken back); and every object that is
    such bookkeeping.
    """
    written: dict[str, set[str]] = {}
    retracted, names = set(), set()
    for item in items:
        # Asked of every object of a bucket: the plain search is the fast one.
        found = _NAME.fullmatch(item.path) if ".compliance-pointer." in item.path and item.size <= LARGEST else None
        if found is None:
            continue
        names.add(item.path)
        if found["what"] == "json":
            written.setdefault(found["of"], set()).add(found["journal"])
        else:
            retracted.add((found["of"], found["journal"]))
    standing = {
        of: sorted(journal for journal in journals if (of, journal) not in retracted)
        for of, journals in written.items()
    }
    return {of: pointer_path(of, journals[-1]) for of, journals in standing.items() if journals}, names


def read_pointers(places: Storages, paths: Mapping[str, str]) -> tuple[dict[str, Pointer], dict[str, str]]:
    """Object -> what its pointer says, where it says it in due form; pointer -> why it cannot be read."""
    unread: dict[str, str] = {}

    def read(path: str) -> Pointer | None:
        try:
            return _parsed(places.of(path).read(paths[path], LARGEST), path)
        except RemoteError as error:
            unread[paths[path]] = str(error)
            return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(paths, pool.map(read, paths), strict=True))
    return {path: pointer for path, pointer in found.items() if pointer}, unread


def with_holding(artifacts: Artifacts) -> Artifacts:
    """As this, with the pointers alone that hold: both objects have the content that was written down. One that
    leads in a circle leads nowhere.
    """
    hashes, files = artifacts.hashes, artifacts.files
    holding = {
        path: pointer
        for path, pointer in artifacts.pointers.items()
        if all(hashes.get(at) == pointer.checksum and files[at].size == pointer.size for at in (path, pointer.kept))
    }

    def ends(path: str) -> bool:
        passed = {path}
        while path in holding:
            path = holding[path].kept
            if path in passed:
                return False
            passed.add(path)
        return True

    return replace(artifacts, pointers={path: pointer for path, pointer in holding.items() if ends(path)})


def write_pointer(places: Storages, path: str, pointer: Pointer) -> None:
    """Copy the object into the quarantine, then write where else its content is. Raises ChangeError; what was
    copied by then stays aside.
    """
    try:
        place = _bucket(places, path)
        item = place.found(path)
        for at, now in ((path, item), (pointer.kept, _bucket(places, pointer.kept).found(pointer.kept))):
            if now is None or not _holds(places, now, pointer):
                raise ChangeError(
                    f"{at} does not hold the content that was planned with any more: run again to plan anew"
                )
        assert item is not None
        place.copy(item, pointer.quarantined)
        arrived = place.found(pointer.quarantined)
        if arrived is None or not _holds(places, arrived, pointer):
            raise ChangeError(
                f"{pointer.quarantined} does not hold what {path} does: look at the storage; no pointer was written"
            )
        text = json.dumps({"pointer": 1, "path": path, **pointer._asdict()}, indent=1)
        put(places, pointer_path(path, pointer.journal), text.encode())
    except RemoteError as error:
        raise ChangeError(str(error)) from error


def retract_pointer(places: Storages, path: str, journal: str, told: tuple[str, str, int]) -> None:
    """Mark a pointer as taken back, where it is not yet. It stays, as does the copy in the quarantine. `told` is what
    it said: the kept object, its checksum and its size.
    """
    written = pointer_path(path, journal)
    try:
        place = _bucket(places, path)
        if place.found(written.removesuffix("json") + "retracted") is not None:
            return
        if place.found(written) is None:
            raise ChangeError(f"{written} is not there any more: there is nothing to take back")
        now = _parsed(place.read(written, LARGEST), path)
        if now is None or (now.kept, now.checksum, now.size) != told:
            raise ChangeError(f"{written} does not say any more what was written into it: it is left as it is")
        put(places, written.removesuffix("json") + "retracted", b"the pointer of this name was taken back\n")
    except RemoteError as error:
        raise ChangeError(str(error)) from error


def where_to_read(places: Storages, path: str) -> str:
    """The path of an object that has, or had, the content of this one: see `resolve_artifact`. Empty where there is
    none.
    """
    place = _bucket(places, path)
    item, pointer = place.found(path), _standing(places, path)
    if pointer and (item is None or _holds(places, item, pointer)):
        for other in _led_to(places, pointer):
            found = _bucket(places, other).found(other)
            if found and _holds(places, found, pointer):
                return other
    return path if item or next(place.listed(path), None) else ""


def _standing(places: Storages, path: str) -> Pointer | None:
    at, _ = pointed(_bucket(places, path).beginning(f"{path}.compliance-pointer."))
    return read_pointers(places, {path: at[path]})[0].get(path) if path in at else None


def _led_to(places: Storages, pointer: Pointer) -> Iterator[str]:
    """Where to look for the content, in order: the kept copy, the one that is kept for that one, and so on, then
    the quarantine.
    """
    aside: list[str] = []
    passed: set[str] = set()
    now: Pointer | None = pointer
    while now and now.checksum == pointer.checksum and now.kept not in passed:
        yield now.kept
        aside.append(now.quarantined)
        passed.add(now.kept)
        now = _standing(places, now.kept)
    yield from aside


def _holds(places: Storages, item: ObjectInfo, pointer: Pointer) -> bool:
    return item.size == pointer.size and digest_of_listed(item, places) == pointer.checksum


def _bucket(places: Storages, path: str) -> Bucket:
    place = places.of(path)
    if not isinstance(place, Bucket):
        raise RemoteError(_BUCKETS_ONLY.format(path))
    return place


def _parsed(text: bytes, path: str) -> Pointer | None:
    """What a pointer says. None for what is none: another program's, or one that was copied from beside another
    object.
    """
    try:
        found: Any = parse_json(text)
        pointer = Pointer(*(found[name] for name in Pointer._fields))
        own = found["pointer"] == 1 and found["path"] == path
    except (ValueError, KeyError, TypeError):
        return None
    texts = (pointer.kept, pointer.checksum, pointer.quarantined, pointer.journal)
    due = (
        own
        and isinstance(pointer.size, int)
        and all(isinstance(item, str) for item in texts)
        and pointer.checksum.startswith(KIND)
    )
    places = (pointer.kept, pointer.quarantined) if due else ()
    return pointer if due and all(at.startswith("s3://") and os.path.basename(at) for at in places) else None
