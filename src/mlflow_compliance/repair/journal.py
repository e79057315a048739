"""The journal of a repair: one JSON line before and one after every change, on disk before the next step is taken."""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mlflow_compliance.changes import Change, dump
from mlflow_compliance.errors import StoreError


def user_name() -> str:
    """Who runs this, as the system knows them; 'unknown' where it does not."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def version_of(distribution: str) -> str:
    """The installed version of a distribution, 'unknown' where it is not installed as one."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        # A checkout on the path, or mlflow-skinny in the place of mlflow.
        return "unknown"


class Journal:
    """An append-only file `<id>.jsonl` in a folder that belongs to the store.

    `kept_as` is the mark of the store that will keep a copy of it; `recorded` gives the hashes that the repair put on
    record, when it ends.
    """

    def __init__(
        self, folder: str, at: datetime, kept_as: str = "", recorded: Callable[[], Mapping[str, str]] = dict
    ) -> None:
        self._kept_as = kept_as
        self._recorded = recorded
        try:
            os.makedirs(folder, exist_ok=True)
            while True:
                # In the order of time, within a second too: where two speak of the same thing, the later one counts.
                self.id = f"{at.astimezone(timezone.utc):%Y%m%dT%H%M%SZ}-{at.microsecond:05x}{os.urandom(1).hex()[0]}"
                self.path = os.path.join(folder, f"{self.id}.jsonl")
                try:
                    self._file = open(self.path, "x", encoding="utf-8")  # noqa: SIM115  open as long as the repair
                    break
                except FileExistsError:
                    at += timedelta(microseconds=1)
        except OSError as error:
            raise StoreError(
                f"no journal can be written in {folder} ({error.strerror}): nothing was changed; set [journal] "
                "folder to a writable one"
            ) from error

    def header(self, store: str, at: datetime, changes: int) -> None:
        versions = {name: version_of(name) for name in ("pytest-mlflow-compliance", "mlflow")}
        self._write(
            {
                "journal": self.id,
                "store": store,
                "user": user_name(),
                "at": at.isoformat(),
                "changes": changes,
                "versions": versions,
                **({"kept_as": self._kept_as} if self._kept_as else {}),
            }
        )

    def begin_all(self, policy: str, changes: Sequence[tuple[int, Change, Change | None]]) -> None:
        """Before changes that are made together: a line for each, on disk before the first of them is made.

        It says what the change is, what it touches and how it is taken back.
        """
        lines = []
        for number, change, inverse in changes:
            before, after = change.facts()
            facts = {
                "policy": policy,
                "before": before,
                "after": after,
                "do": dump(change),
                "undo": inverse and dump(inverse),
            }
            lines.append({"change": number, "state": "begin", **facts})
        self._write(*lines)

    def done_all(self, changes: Sequence[tuple[int, dict[str, str]]]) -> None:
        """After changes that were made together: the ids that MLflow made for the symbols of each."""
        if changes:
            self._write(*({"change": number, "state": "done", "bound": bound} for number, bound in changes))

    def failed(self, number: int, reason: str) -> None:
        self._write({"change": number, "state": "failed", "reason": reason})

    def close(self, applied: int, failed: int) -> None:
        hashes = self._recorded()
        if hashes:
            self._write({"state": "recorded", "hashes": dict(hashes)})
        self._write({"state": "end", "applied": applied, "failed": failed})
        self._file.close()

    def _write(self, *lines: dict[str, Any]) -> None:
        try:
            self._file.write("".join(json.dumps(line) + "\n" for line in lines))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(
                f"the journal {self.path} cannot be written ({error.strerror}): the repair stopped before its "
                "next change"
            ) from error


@contextmanager
def only_one(folder: str) -> Iterator[None]:
    """Keeps a second repair of the same store out. The lock goes with the process, however it ends."""
    import fcntl

    try:
        os.makedirs(folder, exist_ok=True)
        lock = open(os.path.join(folder, "lock"), "w")  # noqa: SIM115
    except OSError as error:
        raise StoreError(
            f"the folder {folder} cannot be written ({error.strerror}): nothing was changed; set [journal] folder "
            "to a writable one"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"another repair of this store is running (it holds {lock.name}): wait for it to end"
            ) from None
        yield
