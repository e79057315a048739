"""MLflow's tracking servers for tests, each one process: with users and workspaces where a test asks for them."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from certificates import Authority
from serving import Server

ADMIN, PASSWORD = "admin", "pass:word@of/admin"


@contextmanager
def tracking_server(
    folder: Path,
    database: str,
    artifacts: Path,
    *,
    users: str = "",
    cached: int = 600,
    workspaces: bool = False,
    authority: Authority | None = None,
) -> Iterator[Server]:
    """What `mlflow server --no-serve-artifacts` serves. `users` is the permission of MLflow's basic-auth app for who
    was granted none.

    With an `authority` it speaks TLS, and answers those alone who have a certificate from there.
    """
    environment = {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(artifacts),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_WORKSPACES": str(workspaces).lower(),
        "MLFLOW_WORKSPACE": "",
    }
    app = ["mlflow.server.fastapi_app:app"]
    if users:
        if find_spec("flask_wtf") is None:
            pytest.skip("needs MLflow's server with users: pip install 'mlflow[auth]'")
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / "users.ini"
        settings.write_text(
            f"[mlflow]\ndefault_permission = {users}\ndatabase_uri = sqlite:///{folder}/users.db\nadmin_username "
            f"= {ADMIN}\n"
            f"admin_password = {PASSWORD}\nauthorization_function = "
            "mlflow.server.auth:authenticate_request_basic_auth\n"
            # Without it every request hashes the password for long.
            f"auth_cache_ttl_seconds = {cached}\n"
        )
        environment |= {"MLFLOW_AUTH_CONFIG_PATH": str(settings), "MLFLOW_FLASK_SERVER_SECRET_KEY": "for tests"}
        environment["_MLFLOW_SGI_NAME"] = "uvicorn"  # as `mlflow server` tells the factory what serves it
        app = ["--factory", "mlflow.server.auth:create_app"]
    if authority:
        own = authority.server("tracking-server")
        app += [
            "--ssl-certfile",
            str(own.certificate),
            "--ssl-keyfile",
            str(own.key),
            "--ssl-ca-certs",
            str(authority.certificate),
        ]
        app += ["--ssl-cert-reqs", str(int(ssl.CERT_REQUIRED))]
    server = Server(folder / "server", "uvicorn", *app, "--log-level", "warning", **environment)
    if authority:
        server.url = server.url.replace("http:", "https:")
        server.asking = {"verify": str(authority.certificate), "cert": str(authority.client("test").both)}
    try:
        yield server.start().wait()
    finally:
        server.stop()


class Quiet(BaseHTTPRequestHandler):
    """Gives a test's own answer to whatever it is asked."""

    def answer(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.answer()

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def log_message(self, *_: object) -> None: ...


@contextmanager
def handled_by(handler: type[Quiet]) -> Iterator[str]:
    """The address of a server in this process."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


class Proxy:
    """Passes connections on to a server as they are, unless `interfere`, given the first bytes of a request,
    answers in its place.
    """

    def __init__(self, port: int, interfere: Callable[[bytes], bytes | None]) -> None:
        self.port, self.interfere, self.asked = port, interfere, 0
        self.tls: ssl.SSLContext | None = None
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)  # which ends the waiting for connections
        self.listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        # One request for each connection: every one of them is seen here.
        with suppress(OSError), self.tls.wrap_socket(client, server_side=True) if self.tls else client as client:
            request = b""
            while b"\r\n\r\n" not in request:
                received = client.recv(65536)
                if not received:
                    return
                request += received
            head, _, body = request.partition(b"\r\n\r\n")
            length = next(
                (
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                ),
                0,
            )
            chunked = b"transfer-encoding: chunked" in head.lower()  # of an empty file
            while len(body) < length or (chunked and not body.endswith(b"0\r\n\r\n")):
                body += client.recv(65536)
            self.asked += 1
            answer = self.interfere(head)
            if answer is not None:
                client.sendall(answer)
                return
            with socket.create_connection(("127.0.0.1", self.port)) as server:
                lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
                server.sendall(b"\r\n".join(lines) + b"\r\nConnection: close\r\n\r\n" + body)
                while chunk := server.recv(65536):
                    client.sendall(chunk)


def answer(status: str, body: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nContent-Type: text/html\r\nConnection: "
        f"close\r\n\r\n{body}"
    ).encode()
