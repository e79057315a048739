"""Opens a SQLite file so that nothing is created and nothing is changed, or says in one sentence why not."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote, unquote

from sqlalchemy import Connection, create_engine, exc
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from mlflow_compliance.errors import StoreError

_MAGIC = b"SQLite format 3\0"
_WAL = 2
"""The 'read version' at byte 19 of a database in write-ahead-log mode."""


def sqlite_path(uri: str) -> str:
    """The file behind a sqlite URI, as an absolute path. Raises StoreError for one that names no file."""
    try:
        database = make_url(uri).database or ""
    except exc.ArgumentError:
        database = ""
    if database.startswith("file:"):
        database = unquote(database.removeprefix("file:").split("?")[0])
    if database in ("", ":memory:"):
        rest = uri.partition(":")[2]
        proposed = meant(rest) or meant(f"/{rest.strip('/')}") or "sqlite:///path/to/mlflow.db"
        raise StoreError(f"the tracking URI {uri!r} names no database file: write {proposed}")
    return os.path.abspath(database)


def meant(path: str) -> str:
    """The tracking URI of a database that lies at a path or, as mlflow.db, in the folder there; empty where none
    does.
    """
    found = next((place for place in (path, f"{path}/mlflow.db") if is_sqlite(place)), "")
    return f"sqlite:///{os.path.abspath(found)}" if found else ""


def is_sqlite(path: str) -> bool:
    """Whether a path is a readable file that begins as a SQLite database does."""
    try:
        with open(path, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


@contextmanager
def reading(uri: str, busy_timeout: float) -> Iterator[Connection]:
    """A connection in one read transaction on a database that exists; `busy_timeout` in seconds."""
    with reading_file(sqlite_path(uri), busy_timeout) as connection:
        yield connection


@contextmanager
def reading_file(path: str, busy_timeout: float) -> Iterator[Connection]:
    """The same, by path."""
    with _unchanged(path) as source:
        engine = create_engine("sqlite://", creator=lambda: _connect(source, busy_timeout), poolclass=NullPool)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql("BEGIN")
                yield connection
        except (exc.DBAPIError, sqlite3.Error) as error:
            raise StoreError(_sentence(path, error)) from error


def refuse_unwritable(path: str, busy_timeout: float) -> None:
    """Raise StoreError where a transaction that writes cannot be begun; `busy_timeout` in seconds."""
    folder = os.path.dirname(path)
    read_only = next((place for place in (path, folder) if not os.access(place, os.W_OK)), "")
    if read_only:
        raise StoreError(
            f"the database {path} cannot be written ({read_only} is read-only here): run as the user who owns it"
        )
    try:
        with closing(_connect(f"file:{quote(path)}?mode=rw", busy_timeout)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise StoreError(_sentence(path, error)) from error


def _connect(source: str, busy_timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(source, uri=True, timeout=busy_timeout, isolation_level=None, check_same_thread=False)


def _opener(path: str, flags: int) -> int:
    if stat.S_ISFIFO(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "is not a regular file")  # reading it would wait for ever
    return os.open(path, flags | os.O_CLOEXEC)


@contextmanager
def _unchanged(path: str) -> Iterator[str]:
    """The URI under which SQLite reads the file without leaving anything beside it."""
    try:
        with open(path, "rb", opener=_opener) as file:
            head = file.read(20)
    except FileNotFoundError:
        # A slash too few makes a relative path of an absolute one.
        proposed = meant(f"/{os.path.relpath(path)}")
        way = f"write {proposed}" if proposed else "check the tracking URI"
        raise StoreError(f"there is no database at {path}: {way} (nothing was created)") from None
    except OSError as error:
        raise StoreError(f"the database {path} cannot be read: {error.strerror}") from error
    if not head.startswith(_MAGIC):
        raise StoreError(f"{path} is not a SQLite database: check the tracking URI")
    plain = f"file:{quote(path)}?mode=ro"
    if head[19] != _WAL:
        yield plain
    elif not os.path.exists(path + "-wal"):
        # Nobody has it open. A plain read-only connection would make -wal and -shm beside it.
        yield plain + "&immutable=1"
    elif os.path.exists(path + "-shm"):
        yield plain
    else:
        with tempfile.TemporaryDirectory(prefix="mlflow-compliance-") as folder:
            copied = shutil.copy(path, os.path.join(folder, "store.db"))
            shutil.copy(path + "-wal", copied + "-wal")
            yield f"file:{quote(copied)}"


def _sentence(path: str, error: Exception) -> str:
    cause = str(getattr(error, "orig", error))
    if "locked" in cause:
        return (
            f"the database {path} is locked by another process: try again when it is done, or raise [store] "
            "busy_timeout"
        )
    if "readonly database" in cause or "unable to open" in cause:
        return (
            f"the database {path} was left in the middle of a write (see its -journal file): open it once with "
            "MLflow so that SQLite recovers it"
        )
    if "no such column" in cause or "no such table" in cause:
        return (
            f"the database {path} has a schema that cannot be read ({cause}): check that it is MLflow's, then "
            "run 'mlflow db upgrade' on a copy"
        )
    return f"the database {path} cannot be read: {cause}"
