"""Stores in a PostgreSQL, MySQL or MariaDB database, read by SQL."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from sqlalchemy import Connection, Engine, create_engine, exc, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import NullPool

from mlflow_compliance.errors import StoreError, first_line
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.store.backends.sql import SqlBackend

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
"""One moment of the store, on a connection that refuses to write. The locks of a migration that is running are not
waited for without end.
"""
_LOCK = {"postgresql": "SELECT CAST(pg_try_advisory_lock(:key) AS INTEGER)", "mysql": "SELECT GET_LOCK(:key, 0)"}
_SERVER = {
    "postgresql": (
        "SELECT system_identifier FROM pg_control_system()",
        "SELECT CONCAT(inet_server_addr(), ':', inet_server_port())",
    ),
    "mysql": ("SELECT @@server_uuid", "SELECT CONCAT(@@hostname, ':', @@port, @@datadir)"),
}
"""What tells one server from others: the first that it answers to. MariaDB has no such id, and PostgreSQL may not
show it to everybody.
"""
_DATABASE = {
    "postgresql": "SELECT CONCAT(oid, ' ', current_schema()) FROM pg_database WHERE datname = current_database()",
    "mysql": "SELECT DATABASE()",
}
_IDLE = {
    "postgresql": "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'",
    "mysql": "SET SESSION wait_timeout = 2147483",  # the most that it takes on every system
}
"""The connection of the lock says nothing while a repair runs: a server must not end it for that, and the lock with
it.
"""


@dataclass(frozen=True)
class DatabaseBackend(SqlBackend):
    """A database behind a server; MLflow reaches it by the same URI."""

    keeps_journals: ClassVar[bool] = True

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
                raise StoreError(
                    f"another repair of the store {self.info.uri} is running, perhaps on another machine: wait "
                    "for it to end"
                )
            yield

    def _key(self, connection: Connection) -> int | str:
        """A PostgreSQL lock belongs to a database, a MySQL one to the whole server, which may not tell MLflow from
        mlflow.
        """
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
            return create_engine(
                url,
                poolclass=NullPool,
                isolation_level="AUTOCOMMIT",
                connect_args=_arguments(url),
                pool_reset_on_return=None,
            )
        except ImportError as error:
            extra = self.uri.partition(":")[0].partition("+")[0]
            how = f"install it, or pip install 'pytest-mlflow-compliance[{extra}]' and write {_BROUGHT[extra]}://"
            raise StoreError(
                f"the store {self.info.uri} cannot be read: the driver {error.name} is not installed ({how})"
            ) from error
        except (exc.ArgumentError, exc.NoSuchModuleError, ValueError) as error:
            raise StoreError(self._sentence(error)) from error

    def _sentence(self, error: Exception) -> str:
        cause = getattr(error, "orig", None) or error
        told = (
            cause.args[1] if len(cause.args) > 1 and isinstance(cause.args[0], int) else str(cause)
        )  # MySQL: a number and a text
        url = _parsed(self.uri)
        dialect, asked = (url.get_backend_name(), list(url.query)) if url else ("", [])
        said, way = way_out(dialect, [line.strip() for line in str(told).splitlines()], asked)
        if not said:
            said, way = first_line(Exception(told)), "check the tracking URI, and that its server runs and lets you in"
        if isinstance(cause, FileNotFoundError | PermissionError | IsADirectoryError):
            # PyMySQL opens the files before it connects, and tells neither that nor which.
            said, way = (
                f"a certificate or key cannot be read: {said}",
                "check the files that ssl_ca, ssl_cert and ssl_key name",
            )
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


_OF_POSTGRESQL = (
    ("does not support SSL", "switch TLS on there, or do not ask for it: sslmode in the tracking URI"),
    ("does not match host name", "write the host name that its certificate is for into the tracking URI"),
    (
        "certificate verify failed|root certificate",
        "name the certificate of the authority that signed its own in sslrootcert of the tracking URI",
    ),
    (
        r"client certificate|certificate authentication|certificate required|unknown ca|private key|certificate file",
        "name a certificate that the server accepts, and its key, in sslcert and sslkey of the tracking URI",
    ),
    (
        "no encryption|SSL off",
        "where it takes connections over TLS only, set sslmode=verify-full and sslrootcert in the tracking URI",
    ),
    (
        r"\bSSL (error|connection|negotiation)|(invalid|unknown|weak) ssl|ssl\w+ value",
        "check sslmode, sslrootcert, sslcert and sslkey in the tracking URI",
    ),
)
_OF_MYSQL = (
    (
        "SSL is required but",
        "switch TLS on there, or leave the parameters that begin with ssl_ out of the tracking URI",
    ),
    (
        "insecure transport",
        "it takes connections over TLS only: name the certificate of its authority in ssl_ca of the tracking URI",
    ),
    ("is not valid for", "write the host name that its certificate is for into the tracking URI"),
    (
        "certificate verify failed",
        "name the certificate of the authority that signed its own in ssl_ca of the tracking URI",
    ),
    (
        "certificate required|unknown ca",
        "name a certificate that the server accepts, and its key, in ssl_cert and ssl_key of the tracking URI",
    ),
    (
        "Access denied",
        (
            "check user and password, and whether it asks for TLS (ssl_ca in the tracking URI) or for a client "
            "certificate (ssl_cert and ssl_key)"
        ),
    ),
    (r"\[SSL|\[X509|\bPEM\b", "check the files that ssl_ca, ssl_cert and ssl_key name"),
)
_WAYS = {"postgresql": _OF_POSTGRESQL, "mysql": _OF_MYSQL}
_FORGETFUL = ("ssl_verify_cert", "ssl_verify_identity")
"""Where the URI has one of these, PyMySQL looks for the authority among its own arguments, but SQLAlchemy has put
ssl_ca into its `ssl`.
"""


def way_out(dialect: str, lines: Sequence[str], asked: Sequence[str]) -> tuple[str, str]:
    """The line that tells of TLS and what to do about it, empty where none does. `asked` are the names of the URI's
    parameters.

    A driver tells of every address that it tried, a line for each, and TLS is what stopped it where something answered.
    """
    for pattern, way in _WAYS.get(dialect, ()):
        line = next((line for line in lines if re.search(pattern, line, re.IGNORECASE)), "")
        if line:
            return line, ("verify failed" in line and _unforgetting(asked)) or way
    return "", ""


def _unforgetting(asked: Sequence[str]) -> str:
    found = " and ".join(name for name in _FORGETFUL if name in asked and "ssl_ca" in asked)
    return found and (
        f"leave {found} out of the tracking URI: ssl_ca alone has the server verified, and beside the others "
        "it is not used"
    )
