"""Destroys for good: the files of one thing, then its row. The only place that removes what cannot be brought back."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from functools import partial

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.snapshot.entities import DELETED
from mlflow_compliance.store.backends.listing import get_or_none
from mlflow_compliance.store.storage.safe_io import digest_of, opened, raise_it
from mlflow_compliance.store.write.bulk import tracking_store
from mlflow_compliance.store.write.effects import OpenStore
from mlflow_compliance.store.write.errors import one_sentence


def files_at(place: str) -> dict[str, tuple[int, str]]:
    """Path of every file at or below a place, relative to it ('.' for a file itself) -> size and SHA-256. Raises
    ChangeError where anything there is no ordinary file, or cannot be read.
    """
    found: dict[str, tuple[int, str]] = {}
    with one_sentence(f"{place} could not be looked at"):
        if not os.path.lexists(place):
            return found
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            return {os.curdir: _ordinary(place)}
        for folder, folders, names in os.walk(place, onerror=raise_it):
            for name in (*names, *(name for name in folders if os.path.islink(os.path.join(folder, name)))):
                path = os.path.join(folder, name)
                found[os.path.relpath(path, place)] = _ordinary(path)
    return dict(sorted(found.items()))


def _ordinary(path: str) -> tuple[int, str]:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise ChangeError(f"{path} is no ordinary file: see to it by hand")
    with opened(path) as file:
        return os.fstat(file).st_size, digest_of(file, path)


def destroy_files(place: str, planned: Mapping[str, tuple[int, str]], *, begun: bool, own: str) -> int:
    """Remove exactly the planned files of a place, and the folders that are empty then, up to the one named `own`;
    how many bytes of blocks that frees. Raises ChangeError where something else is there than was planned; less may
    be, where an earlier purge had `begun`.
    """
    there = files_at(place)
    odd = [path for path, facts in there.items() if planned.get(path) != facts]
    gone = [path for path in planned if path not in there]
    if odd or (gone and not begun):
        example = (odd or gone)[0]
        raise ChangeError(f"{place} is not as it was planned ({example}): nothing of it was removed; make a new plan")
    freed = 0
    with one_sentence(f"{place} could not be removed whole"):
        for relative in there:
            freed += unlink(place if relative == os.curdir else os.path.join(place, relative))
        _prune(place, own)
    return freed


def unlink(path: str) -> int:
    """Remove one name of a file; the bytes of its blocks where it was the last one."""
    facts = os.lstat(path)
    os.unlink(path)
    return facts.st_blocks * 512 if facts.st_nlink == 1 else 0


def _prune(place: str, own: str) -> None:
    if os.path.isdir(place):
        for folder, _, _ in os.walk(place, topdown=False):
            os.rmdir(folder)
    above = os.path.dirname(place)
    while own and own in above.split(os.sep) and os.path.isdir(above) and not os.listdir(above):
        os.rmdir(above)
        above = os.path.dirname(above)


def refuse_what_is_back(kind: str, key: str, to: OpenStore) -> None:
    """Raise ChangeError where a run or logged model was restored, by itself or with its experiment."""
    store = tracking_store(to.client)
    with one_sentence(f"{kind.replace('_', ' ')} {key} could not be looked up"):
        if kind == "run":
            back = store.get_run(key).info.lifecycle_stage != DELETED
        else:
            home = store.get_logged_model(key, allow_deleted=True).experiment_id
            back = (
                get_or_none(store.get_logged_model, key) is not None
                and store.get_experiment(home).lifecycle_stage != DELETED
            )
    if back:
        raise ChangeError("it is not deleted any more: nothing of it was removed")


def destroy_row(kind: str, key: str, to: OpenStore) -> None:
    """Remove the row of a run or logged model for good, as MLflow itself does."""
    store = tracking_store(to.client)
    with one_sentence(f"the row of {kind.replace('_', ' ')} {key} could not be removed"):
        (store._hard_delete_run if kind == "run" else store._hard_delete_logged_model)(key)


def is_there(kind: str, key: str, to: OpenStore) -> bool:
    """Whether a run or logged model has a row, deleted or not."""
    store = tracking_store(to.client)
    with one_sentence(f"{kind.replace('_', ' ')} {key} could not be looked up"):
        get = store.get_run if kind == "run" else partial(store.get_logged_model, allow_deleted=True)
        return get_or_none(get, key) is not None
