"""The journal of a repair: one JSON line before and one after every change, on disk before the next step is taken. Each
line carries the hash of the one before it.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from mlflow_compliance.changes import JOURNAL, NOW, WHO, Change, dump
from mlflow_compliance.errors import StoreError
from mlflow_compliance.production.keys import SigningKey

CHAIN = "sha256"
"""What the header of a journal calls the hash that each line carries of the one before it."""


def user_name() -> str:
    """Who runs this, as the system knows them; 'unknown' where it does not."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"


def host_name() -> str:
    """What this machine calls itself; 'unknown' where it has no name."""
    return socket.gethostname() or "unknown"


def version_of(distribution: str) -> str:
    """The installed version of a distribution, 'unknown' where it is not installed as one."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        # A checkout on the path, or mlflow-skinny in the place of mlflow.
        return "unknown"


def versions() -> dict[str, str]:
    """Of the distributions that decide what a plan says and does."""
    return {name: version_of(name) for name in ("pytest-mlflow-compliance", "mlflow")}


class Heading(NamedTuple):
    """What the header of a journal says beside its store."""

    kept_as: str = ""
    """The mark of the store that will keep a copy of it."""
    plan: str = ""
    """SHA-256 (hex) of the plan that is carried out."""
    settings: str = ""
    """SHA-256 (hex) of the settings in force."""
    undo_of: str = ""
    """Id of the journal that is taken back."""
    again: str = ""
    """Id of the journal whose repair is done again by that: the other one was its undo."""
    purge: str = ""
    """'yes' where it is the record of a purge: nothing in it can be taken back, and nothing removes it."""


class Journal:
    """An append-only file `<id>.jsonl` in a folder that belongs to the store.

    `recorded` gives the hashes that the repair put on record, when it ends; `key` signs the end.
    """

    def __init__(
        self,
        folder: str,
        at: datetime,
        heading: Heading = Heading(),  # noqa: B008  a frozen value
        recorded: Callable[[], Mapping[str, str]] = dict,
        key: SigningKey | None = None,
    ) -> None:
        self._heading = heading
        self._recorded = recorded
        self._key = key
        self._before = ""
        """Hash of the line that was written last."""
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
        self._write(
            {
                "journal": self.id,
                "store": store,
                "user": user_name(),
                "host": host_name(),
                "at": at.isoformat(),
                "changes": changes,
                "versions": versions(),
                **{name: value for name, value in self._heading._asdict().items() if value},
                "chain": CHAIN,
            }
        )

    def symbols(self, at: datetime) -> dict[str, str]:
        """What symbols stand for in every change of this journal."""
        return {JOURNAL: self.id, NOW: at.isoformat(timespec="seconds"), WHO: user_name()}

    def begin_all(
        self, policy: str, changes: Sequence[tuple[int, Change, Change | None]], takes_back: int | None = None
    ) -> None:
        """Before changes that are made together: a line for each, on disk before the first of them is made.

        It says what the change is, what it touches and how it is taken back; `takes_back` is the number of the change
        in the other journal that an undo is at.
        """
        lines = []
        for number, change, inverse in changes:
            before, after = change.facts()
            facts = {
                "policy": policy,
                **({} if takes_back is None else {"takes_back": takes_back}),
                "before": before,
                "after": after,
                "do": dump(change),
                "undo": inverse and dump(inverse),
            }
            lines.append({"change": number, "state": "begin", **facts})
        self._write(*lines)

    def begin_purge(self, number: int, item: Mapping[str, Any]) -> None:
        """Before one thing is destroyed for good: all that will be known of it afterwards, on disk."""
        facts = {"policy": "PURGE", "before": dict(item), "after": {}, "do": {"kind": "Purge", **item}, "undo": None}
        self._write({"change": number, "state": "begin", **facts})

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
        end: dict[str, Any] = {"state": "end", "applied": applied, "failed": failed}
        if self._key is not None:
            end["key"] = self._key.public.fingerprint
        self._write(end, signed=True)
        self._file.close()

    def _chained(self, line: dict[str, Any], *, signed: bool) -> str:
        """The text of a line, with the hash of the one before it; `signed` where there is a key."""
        whole = {**line, "prev": self._before} if self._before else line
        if signed and self._key is not None:
            whole["signature"] = base64.b64encode(self._key.sign(json.dumps(whole).encode(), plain=True)).decode()
        text = json.dumps(whole)
        self._before = hashlib.sha256(text.encode()).hexdigest()
        return f"{text}\n"

    def _write(self, *lines: dict[str, Any], signed: bool = False) -> None:
        try:
            self._file.write("".join(self._chained(line, signed=signed) for line in lines))
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
