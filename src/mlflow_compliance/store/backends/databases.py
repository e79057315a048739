"""Stores in a PostgreSQL, MySQL or MariaDB database, read by SQL."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from sqlalchemy import Connection, Engine, create_engine, exc, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from mlflow_compliance.errors import StoreError, first_line
from mlflow_compliance.store.backends.by_sql import SqlBackend
from mlflow_compliance.store.backends.tls import way_out
from mlflow_compliance.uris import without_secrets

DIALECTS = ("postgresql", "mysql")
"""What MLflow takes; it calls MariaDB mysql."""
_BROUGHT = {"postgresql": "postgresql+psycopg2", "mysql": "mysql+pymysql"}
"""The drivers that the extras of this package bring."""
_PORTS = {"postgresql": 5432, "mysql": 3306}
_CONNECT = 10
"""Seconds for a server to take a connection, where the URI does not say."""
_SNAPSHOT: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "SET LOCAL lock_timeout = {milliseconds}"),
    "mysql": (
        "SET SESSION lock_wait_timeout = {seconds}",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
    ),
}
"""One moment of the store, on a connection that refuses to write. The locks of a migration that is running are not waited for without end."""
_LOCK = {"postgresql": "SELECT CAST(pg_try_advisory_lock(:key) AS INTEGER)", "mysql": "SELECT GET_LOCK(:key, 0)"}
_SERVER = {
    "postgresql": ("SELECT system_identifier FROM pg_control_system()", "SELECT CONCAT(inet_server_addr(), ':', inet_server_port())"),
    "mysql": ("SELECT @@server_uuid", "SELECT CONCAT(@@hostname, ':', @@port, @@datadir)"),
}
"""What tells one server from others: the first that it answers to. MariaDB has no such id, and PostgreSQL may not show it to everybody."""
_DATABASE = {
    "postgresql": "SELECT CONCAT(oid, ' ', current_schema()) FROM pg_database WHERE datname = current_database()",
    "mysql": "SELECT DATABASE()",
}
_IDLE = {
    "postgresql": "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'",
    "mysql": "SET SESSION wait_timeout = 2147483",  # the most that it takes on every system
}
"""The connection of the lock says nothing while a repair runs: a server must not end it for that, and the lock with it."""


@dataclass(frozen=True)
class DatabaseBackend(SqlBackend):
    """A database behind a server; MLflow reaches it by the same URI."""

    dialects: ClassVar[tuple[str, ...]] = DIALECTS

    @property
    def name(self) -> str:
        return self.info.uri

    @property
    def tells_spellings_apart(self) -> bool:
        return self.info.backend != "mysql"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with self._connected() as connection:
            seconds = max(1, round(self.settings.store.busy_timeout))
            for statement in _SNAPSHOT[connection.dialect.name]:
                connection.exec_driver_sql(statement.format(seconds=seconds, milliseconds=seconds * 1000))
            yield connection

    def reach(self) -> None:
        with self._connected():
            pass

    def identity(self) -> str:
        with self._connected() as connection:
            dialect = connection.dialect.name
            database = connection.exec_driver_sql(_DATABASE[dialect]).scalar()
            for asked in _SERVER[dialect]:
                with suppress(exc.DBAPIError):
                    return f"{dialect} {connection.exec_driver_sql(asked).scalar()} {database}"
        raise StoreError(f"the store {self.info.uri} does not say which server it is on")

    def silent(self, timeout: float = _CONNECT) -> str:
        """Why nobody answers where the URI says that the server is, empty where somebody does; `timeout` in seconds."""
        url = make_url(self.uri)
        if not url.host:
            return ""  # a socket in the file system, which the driver finds
        try:
            socket.create_connection((url.host, url.port or _PORTS[url.get_backend_name()]), timeout=timeout).close()
        except OSError as error:
            return (error.strerror or str(error)).lower()
        return ""

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a repair out that runs on another machine. The lock goes with the connection, however that ends."""
        with self._connected() as connection:
            connection.exec_driver_sql(_IDLE[connection.dialect.name])
            if not connection.execute(text(_LOCK[connection.dialect.name]), {"key": self._key(connection)}).scalar():
                raise StoreError(f"another repair of the store {self.info.uri} is running, perhaps on another machine: wait for it to end")
            yield

    def _key(self, connection: Connection) -> int | str:
        """A PostgreSQL lock belongs to a database, a MySQL one to the whole server, which may not tell MLflow from mlflow."""
        if connection.dialect.name == "postgresql":
            return int.from_bytes(hashlib.sha256(b"mlflow-compliance").digest()[:8], "big", signed=True)
        database = connection.exec_driver_sql("SELECT DATABASE()").scalar()
        return f"mlflow-compliance {hashlib.sha256(f'mlflow-compliance {database}'.encode()).hexdigest()[:32]}"

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A connection of its own, not in a transaction; what goes wrong on it is told in one sentence."""
        engine = self._engine()
        try:
            connection = engine.connect()
        except (exc.SQLAlchemyError, OSError, TypeError, ValueError) as error:
            # A driver answers an argument that it does not know with a TypeError.
            raise StoreError(self._sentence(error)) from error
        try:
            yield connection
        except exc.SQLAlchemyError as error:
            raise StoreError(self._sentence(error)) from error
        finally:
            with suppress(exc.SQLAlchemyError):
                connection.close()
            engine.dispose()

    def _engine(self) -> Engine:
        try:
            url = make_url(self.uri)
            return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=_arguments(url), pool_reset_on_return=None)
        except ImportError as error:
            extra = self.uri.partition(":")[0].partition("+")[0]
            how = f"install it, or pip install 'pytest-mlflow-compliance[{extra}]' and write {_BROUGHT[extra]}://"
            raise StoreError(f"the store {self.info.uri} cannot be read: the driver {error.name} is not installed ({how})") from error
        except (exc.ArgumentError, exc.NoSuchModuleError, ValueError) as error:
            raise StoreError(self._sentence(error)) from error

    def _sentence(self, error: Exception) -> str:
        cause = getattr(error, "orig", None) or error
        told = cause.args[1] if len(cause.args) > 1 and isinstance(cause.args[0], int) else str(cause)  # MySQL: a number and a text
        url = _parsed(self.uri)
        dialect, asked = (url.get_backend_name(), list(url.query)) if url else ("", [])
        said, way = way_out(dialect, [line.strip() for line in str(told).splitlines()], asked)
        if not said:
            said, way = first_line(Exception(told)), "check the tracking URI, and that its server runs and lets you in"
        if isinstance(cause, FileNotFoundError | PermissionError | IsADirectoryError):
            # PyMySQL opens the files before it connects, and tells neither that nor which.
            said, way = f"a certificate or key cannot be read: {said}", "check the files that ssl_ca, ssl_cert and ssl_key name"
        said = without_secrets(said, self.uri)
        user = unquote(urlsplit(self.uri).username or "")
        for quote in "\"'" if user else "":
            said = said.replace(f"{quote}{user}{quote}", f"{quote}***{quote}")
        return f"the store {self.info.uri} cannot be read ({said}): {way}"


def _parsed(uri: str) -> URL | None:
    try:
        return make_url(uri)
    except (exc.ArgumentError, ValueError):
        return None


def _arguments(url: URL) -> dict[str, object]:
    """What the driver is told besides the URI: not to wait without end, and MLflow's own settings for TLS."""
    known = {"psycopg2", "psycopg", "pymysql", "mysqldb"}
    found: dict[str, object] = {}
    if url.get_driver_name() in known and "connect_timeout" not in url.query:
        found["connect_timeout"] = _CONNECT
    if url.get_backend_name() == "mysql":
        for name in ("ssl_ca", "ssl_cert", "ssl_key"):
            if value := os.environ.get(f"MLFLOW_MYSQL_{name.upper()}"):
                found[name] = value
    return found
