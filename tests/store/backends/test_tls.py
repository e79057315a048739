"""Stores that are reached over TLS alone: audited and repaired with the right certificates, told in one sentence
without them.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
from certificates import Authority
from databases import PASSWORD, QUOTED, mariadb_server, postgresql_server, postgresql_server_with_tls
from databases import Server as DatabaseServer
from gates import POLICIES, Gate, make_messy, owned, told
from places import Guest, Place
from servers import Proxy, answer, tracking_server
from serving import Server
from stores import Lab

from mlflow_compliance.errors import StoreError
from mlflow_compliance.settings.schema import Settings, load_settings
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.store.store import open_store

CERTIFIED, SESAME = "certified", "open-sesame"
"""A user of the databases who must show a certificate too, and the password."""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("known"), "known authority")


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("unknown"), "known authority")


@pytest.fixture(scope="module")
def postgresql(known: Authority) -> DatabaseServer:
    server, own = postgresql_server_with_tls(), known.server("postgresql")
    server.sql(server.home, f"CREATE ROLE {CERTIFIED} SUPERUSER LOGIN PASSWORD '{SESAME}'")
    rules = server.folder / "rules"
    rules.write_text(
        f"hostssl all {CERTIFIED} 127.0.0.1/32 scram-sha-256 clientcert=verify-full\nhostssl all all 127.0.0.1/32 "
        "scram-sha-256\n"
    )
    files = {
        "ssl_cert_file": server.given(own.certificate),
        "ssl_key_file": server.given(own.key),
        "ssl_ca_file": server.given(known.certificate),
    }
    server.restart(
        "-cssl=on", f"-chba_file={server.given(rules)}", *(f"-c{name}={path}" for name, path in files.items())
    )
    return server


@pytest.fixture(scope="module")
def mariadb(known: Authority) -> Iterator[DatabaseServer]:
    server, own = mariadb_server(), known.server("mariadb")
    create = f"CREATE USER IF NOT EXISTS '{CERTIFIED}'@'%' IDENTIFIED BY '{SESAME}' REQUIRE X509"
    server.sql(server.home, create, f"GRANT ALL ON *.* TO '{CERTIFIED}'@'%'")
    files = {"cert": server.given(own.certificate), "key": server.given(own.key), "ca": server.given(known.certificate)}
    server.restart("--require-secure-transport=ON", *(f"--ssl-{name}={path}" for name, path in files.items()))
    yield server
    server.restart()


def asked(uri: str, **query: object) -> str:
    return uri + "?" + "&".join(f"{name}={quote(str(value))}" for name, value in query.items())


def repaired(gate: Gate, uri: str, artifacts: Path) -> None:
    """The lock against a second repair has a connection of its own, and MLflow has its own engine."""
    gate.settings(uri)
    make_messy(Guest(Place(uri, str(artifacts)), gate.folder, load_settings(gate.folder / "compliance.toml")))
    fixed = gate("--fix", owned(artifacts))
    assert fixed.ret == 0, told(fixed)
    assert "verified: the store, read anew, is what was planned" in told(fixed)


def read(uri: str) -> Snapshot:
    return open_store(uri, Settings(), "/nowhere").read(artifacts=False)


def refused(uri: str) -> str:
    with pytest.raises(StoreError) as raised:
        read(uri)
    assert not [word for word in (PASSWORD, QUOTED, SESAME) if word in str(raised.value)]
    return str(raised.value)


def told_by_the_gate(gate: Gate, uri: str, sentence: str) -> None:
    gate.settings(uri)
    result = gate("-k", "EXP002")
    assert result.ret == 4
    assert sentence in told(result)
    assert not [word for word in (PASSWORD, QUOTED, SESAME) if word in told(result)]


def test_postgresql(
    postgresql: DatabaseServer, known: Authority, unknown: Authority, gate: Gate, tmp_path: Path
) -> None:
    uri = postgresql.store(str(tmp_path))
    verified = {"sslmode": "verify-full", "sslrootcert": known.certificate}
    repaired(gate, asked(uri, **verified), tmp_path)
    certified, client = postgresql.uri(uri.rpartition("/")[2], user=CERTIFIED, password=SESAME), known.client(CERTIFIED)
    assert read(asked(certified, **verified, sslcert=client.certificate, sslkey=client.key)).experiments
    stranger = unknown.client(CERTIFIED)
    for refusal, way in (
        (
            asked(uri, **{**verified, "sslrootcert": unknown.certificate}),
            "certificate verify failed.*: name .* sslrootcert",
        ),
        (
            asked(uri, **{**verified, "sslrootcert": "/no/such/file"}),
            '"/no/such/file" does not exist.*: name .* sslrootcert',
        ),
        (
            asked(uri.replace("127.0.0.1", "localhost"), **verified),
            'does not match host name "localhost".*: write the host name',
        ),
        (asked(uri, sslmode="disable"), "no encryption.*: .*set sslmode=verify-full and sslrootcert"),
        (asked(certified, **verified), "requires a valid client certificate.*: name .* sslcert and sslkey"),
        (
            asked(certified, **verified, sslcert=stranger.certificate, sslkey=stranger.key),
            "unknown ca.*: name .* sslcert and sslkey",
        ),
        (
            asked(postgresql_server().uri("postgres"), sslmode="require"),
            "server does not support SSL, but SSL was required.*: switch TLS on there",
        ),
    ):
        line = refused(refusal)
        assert re.search(way, line), line
    told_by_the_gate(gate, refusal, line)


def test_mariadb(
    mariadb: DatabaseServer,
    known: Authority,
    unknown: Authority,
    gate: Gate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = mariadb.store(str(tmp_path))
    repaired(gate, asked(uri, ssl_ca=known.certificate), tmp_path)
    certified, client = mariadb.uri(uri.rpartition("/")[2], user=CERTIFIED, password=SESAME), known.client(CERTIFIED)
    assert read(asked(certified, ssl_ca=known.certificate, ssl_cert=client.certificate, ssl_key=client.key)).experiments
    for refusal, way in (
        (asked(uri, ssl_ca=unknown.certificate), "certificate verify failed.*: name .* ssl_ca"),
        (
            asked(uri, ssl_ca=known.certificate, ssl_verify_cert="true"),
            "certificate verify failed.*: leave ssl_verify_cert out",
        ),
        (
            asked(uri.replace("127.0.0.1", "localhost"), ssl_ca=known.certificate),
            "not valid for 'localhost'.*: write the host name",
        ),
        (asked(uri, ssl_ca="/no/such/file"), "No such file.*: check the files that ssl_ca"),
        (
            asked(uri, ssl_ca=known.certificate, ssl_cert=client.certificate, ssl_key=known.certificate),
            "PEM.*: check the files that ssl_ca",
        ),
        (asked(uri, ssl_disabled="true"), "Access denied.*: check .*ssl_ca"),
        (asked(certified, ssl_ca=known.certificate), "Access denied.*: check .* client certificate"),
    ):
        line = refused(refusal)
        assert re.search(way, line), line
    told_by_the_gate(gate, refusal, line)
    # MLflow's own settings, as it hands them to PyMySQL.
    for name, path in {"CA": known.certificate, "CERT": client.certificate, "KEY": client.key}.items():
        monkeypatch.setenv(f"MLFLOW_MYSQL_SSL_{name}", str(path))
    assert read(certified).experiments
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.delenv(f"MLFLOW_MYSQL_SSL_{name}")
    mariadb.restart("--skip-ssl")
    assert re.search("SSL is required.*: switch TLS on there", refused(asked(uri, ssl_ca=known.certificate)))


@pytest.fixture(scope="module")
def https(
    tmp_path_factory: pytest.TempPathFactory, empty_store: bytes, known: Authority
) -> Iterator[tuple[Server, Lab]]:
    """A tracking server that asks for client certificates."""
    lab = Lab.new(tmp_path_factory.mktemp("https") / "lab", empty_store, {})
    make_messy(lab)
    with tracking_server(lab.folder.parent, lab.uri, lab.mlruns, authority=known) as server:
        yield server, lab


def test_a_tracking_server(
    https: tuple[Server, Lab], known: Authority, unknown: Authority, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, lab = https
    names = {name: f"MLFLOW_TRACKING_{name}" for name in ("SERVER_CERT_PATH", "CLIENT_CERT_PATH", "INSECURE_TLS")}

    def given(**variables: object) -> None:
        for name, variable in names.items():
            if name in variables:
                monkeypatch.setenv(variable, str(variables[name]))
            else:
                monkeypatch.delenv(variable, raising=False)

    ours, theirs = known.client("ann"), unknown.client("eve")
    other = server.url.replace("127.0.0.1", "localhost")
    trusted = {"SERVER_CERT_PATH": known.certificate}
    both = {**trusted, "CLIENT_CERT_PATH": ours.both}
    unfixed: list[tuple[str, Mapping[str, object], str]] = [
        (server.url, {}, "certificate is not accepted .*: name .* in MLFLOW_TRACKING_SERVER_CERT_PATH"),
        (
            server.url,
            {"SERVER_CERT_PATH": unknown.certificate},
            "certificate is not accepted .*: name .* in MLFLOW_TRACKING_SERVER_CERT_PATH",
        ),
        (server.url, trusted, r"asks for a client certificate \(MLFLOW_TRACKING_CLIENT_CERT_PATH"),
        (
            server.url,
            {**trusted, "CLIENT_CERT_PATH": theirs.both},
            "accepts the client certificate that MLFLOW_TRACKING_CLIENT_CERT_PATH names",
        ),
        (server.url, {**trusted, "CLIENT_CERT_PATH": ours.certificate}, "check the files .*CLIENT_CERT_PATH"),
        (
            server.url,
            {**trusted, "CLIENT_CERT_PATH": "/no/such/file"},
            "no TLS certificate file at /no/such/file: check .*CLIENT_CERT_PATH",
        ),
        (
            server.url,
            {**both, "SERVER_CERT_PATH": "/no/such/file"},
            "no TLS CA certificate bundle at /no/such/file: check .*SERVER_CERT_PATH",
        ),
        (server.url, {**both, "INSECURE_TLS": "true"}, "'server_cert_path' must not be set"),
        (other, both, "for another host .* 'localhost'.*: write the one that it is for"),
        (server.url.replace("https:", "http:"), {}, "it does not answer"),
    ]
    for uri, variables, way in unfixed:
        given(**variables)
        line = refused(uri)
        assert re.search(way, line), line
    given()
    told_by_the_gate(gate, server.url, "name that of its authority in MLFLOW_TRACKING_SERVER_CERT_PATH")
    with Proxy(0, lambda _: answer("400 Bad Request", "No required SSL certificate was sent")) as gateway:
        url, own = gateway.url.replace("http:", "https:"), known.server("gateway")
        gateway.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        gateway.tls.load_cert_chain(own.certificate, own.key)
        given(**trusted)
        assert "asks for a client certificate" in refused(url), "as nginx answers"
        gateway.tls.load_verify_locations(known.certificate)
        gateway.tls.verify_mode = ssl.CERT_REQUIRED
        assert re.search("asks for a client certificate .*MLFLOW_TRACKING_CLIENT_CERT_PATH", refused(url))
    given(INSECURE_TLS="true", CLIENT_CERT_PATH=ours.both)
    assert len(read(server.url).experiments) == 5
    given(**both)
    gate.settings(server.url)
    served = gate(rules=(POLICIES / "test_serving.py",))
    assert served.ret == 0, told(served)
    fixed = gate("--fix", owned(lab.mlruns))
    assert fixed.ret == 0, told(fixed)
