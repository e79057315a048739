"""What is secret is cut out of every URI, and a URI that holds nothing secret stays as it is."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mlflow_compliance.errors import StoreError
from mlflow_compliance.safe_text import LIMIT, printable, without_secrets

SECRET = "S3CR3T"
SCHEMES = (
    "ftp",
    "sftp",
    "http",
    "https",
    "s3",
    "gs",
    "file",
    "viewfs",
    "hdfs",
    "postgresql",
    "mysql+pymysql",
    "mlflow-artifacts",
    "abfss",
    "dbfs",
    "HTTPS",
)
schemes = st.sampled_from(SCHEMES)
hosts = st.sampled_from(["files.company.example", "10.0.0.7:8443", "[::1]:21", "bucket", "host_1"])
paths = st.sampled_from(["", "/", "/artifacts/2", "/a b/größe.csv", "/2/m-1/artifacts"])
users = st.text("abcXYZ019._-+%", max_size=6)
around = st.text("abz09@:/?#&=+%!$,;~.\\()[]{}|^*-_", max_size=5)
"""Whatever may stand in a password, unescaped too."""
passwords = st.builds("{}{}{}".format, around, st.just(SECRET), around)
sentences = st.sampled_from(
    ["{}", "cannot read {}: refused", "found: {}; expected: a folder", "'{}', 'x'", "<{}>", "see ({}), then ask ann"]
)


@given(schemes, users, passwords, hosts, paths, sentences)
@example("ftp", "mlflow", "p@ss" + SECRET, "host", "/", "{}")
@example("s3", "KEY", f"a/b+{SECRET}/{SECRET}=", "bucket", "/x", "{}")
@example("ftp", "", f"@{SECRET}://", "files.company.example", "", "{}")
@example("ftp", "%0", f"//{SECRET}/", "files.company.example", "", "{}")
@example("viewfs", "u", f"1/{SECRET}", "cluster", "/x", "{}")
def test_no_password_survives(scheme: str, user: str, password: str, host: str, path: str, sentence: str) -> None:
    # Nobody could tell this one from a port and a path.
    assume(
        not (
            scheme.lower() in ("http", "https", "hdfs", "mlflow-artifacts")
            and re.match(r"[1-9][0-9]{1,4}[/?#\\]", password)
        )
    )
    uri = f"{scheme}://{user}:{password}@{host}{path}"
    cut = without_secrets(sentence.format(uri))
    assert SECRET not in cut
    assert cut.startswith(sentence.partition("{")[0] + scheme + ":")
    assert cut.endswith(sentence.partition("}")[2])
    assert without_secrets(cut) == cut


@given(schemes, users, st.text("aZ09@:/?#&=+%!$ \"'äß", min_size=1, max_size=8), hosts, paths)
def test_no_escaped_password_survives(scheme: str, user: str, password: str, host: str, path: str) -> None:
    cut = without_secrets(f"{scheme}://{user}:{quote(SECRET + password, safe='')}@{host}{path}")
    assert cut == f"{scheme}://***@{host}{path}"


@given(
    st.sampled_from(["https", "s3", "wasbs", "file"]),
    hosts,
    paths,
    st.sampled_from("?#"),
    st.text("abz09@:/?#&=%;", max_size=3),
    sentences,
)
def test_no_token_survives(scheme: str, host: str, path: str, mark: str, before: str, sentence: str) -> None:
    for query in (
        f"sig={SECRET}",
        f"a=1&token={SECRET}",
        f"{SECRET}",
        f"X-Amz-Signature={SECRET}&X-Amz-Date=1",
        f"x={before}{SECRET}",
    ):
        cut = without_secrets(sentence.format(f"{scheme}://{host}{path.replace(' ', '')}{mark}{query}"))
        assert SECRET not in cut
        assert without_secrets(cut) == cut


@given(
    st.lists(st.tuples(schemes, passwords, hosts), min_size=2, max_size=4),
    st.sampled_from([" ", ", ", ",", "\n", " and "]),
)
def test_each_uri_of_a_text_is_cut(uris: list[tuple[str, str, str]], between: str) -> None:
    text = between.join(f"{scheme}://u:{password}@{host}/x" for scheme, password, host in uris)
    assert SECRET not in without_secrets(text)


@given(schemes, st.text("abz09@:+%", max_size=4), hosts)
def test_json_stays_json(scheme: str, around: str, host: str) -> None:
    document = {"uri": f"{scheme}://u:{around}{SECRET}@{host}/x", "mail": "ann@example.com", "path": "a@b"}
    for text in (
        json.dumps(document),
        json.dumps(document, separators=(",", ":")),
        json.dumps(document).replace("/", "\\/"),
    ):
        cut = without_secrets(text)
        assert json.loads(cut) == {**document, "uri": f"{scheme}://***@{host}/x"}


@given(
    schemes,
    hosts,
    paths,
    st.sampled_from(
        ["", "?page=2", "?versionId=17", "?sslmode=require", "?mode=ro&uri=true", "#/experiments/4/runs/ab"]
    ),
    sentences,
)
def test_what_holds_no_secret_stays(scheme: str, host: str, path: str, rest: str, sentence: str) -> None:
    text = sentence.format(f"{scheme}://{host}{path}{rest}")
    assert without_secrets(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "models:/credit@production",
        "models:/m-0123456789abcdef",
        "runs:/0123456789abcdef/model",
        "/data/a@b/c",
        "D:\\data\\a@b",
        "C:/Users/ann@company/mlruns",
        "file:///C:/Users/ann@company/mlruns",
        "ann@example.com",
        "owner:ann@example.com",
        "mailto:ann@example.com",
        "git@github.com:team/repository.git",
        "python:3.11@sha256:0123abcd",
        "s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/point/x",
        "wasbs://container@account.blob.core.windows.net/x",
        "abfss://container@account.dfs.core.windows.net/x",
        "https://host:8080/models/credit@production",
        "hdfs://namenode:8020/a@b",
        "sqlite:////srv/a@b/mlflow.db",
        "dask:tcp://host:port",
        "lifecycle=archived, 12:30:11, what? x@y",
    ],
)
def test_what_only_looks_like_one_stays(text: str) -> None:
    assert without_secrets(text) == text
    assert without_secrets(text, sure=True) == text


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (f"postgresql:user:{SECRET}@host/db", "postgresql:***@host/db"),
        (f"file:user:{SECRET}@host/x", "file:***@host/x"),
        (f"/cwd/mlflow:{SECRET}@host/db", "/cwd/mlflow:***@host/db"),
        (f"ftp:/u:{SECRET}@host/x", "ftp:/***@host/x"),
        (f"s3://KEY:{SECRET} cannot be listed", "s3://***@ cannot be listed"),
        (f"https://{SECRET}@host/x", "https://***@host/x"),
        (f"https://COMPANY\\ann:{SECRET}@host/x", "https://COMPANY\\ann:***@host/x"),
        (f"ftp://u:{SECRET} {SECRET}@host/x", "ftp://***@host/x"),
        (f'ftp://u:{SECRET}"{SECRET}@host/x', "ftp://***@host/x"),
        (f"wasbs://container:{SECRET}@account.blob.core.windows.net/x", "wasbs://***@account.blob.core.windows.net/x"),
        (f"jdbc:oracle:thin:u/{SECRET}@host:1521:x", "jdbc:***@host:1521:x"),
        (f"jdbc:sqlserver://host;user=sa;password={SECRET}", "jdbc:sqlserver://host;user=sa;password=***"),
        (f"AccountName=a;AccountKey={SECRET}==;EndpointSuffix=b", "AccountName=a;AccountKey=***;EndpointSuffix=b"),
        (f"connection to host=db password={SECRET} failed", "connection to host=db password=*** failed"),
        (f"LocationParseError: Failed to parse: u:{SECRET}@host", "LocationParseError: Failed to parse: u:***@host"),
        (f"https%3A%2F%2Fu%3A{SECRET}%40host/x", "https%3A%2F%2F***%40host/x"),
        (f"Authorization: Bearer {SECRET}abcdef", "Authorization: Bearer ***"),
        (f"read https://host/x?sig={SECRET}&se=2026.", "read https://host/x?sig=***&se=2026."),
    ],
)
def test_what_hides_elsewhere(text: str, cut: str) -> None:
    assert without_secrets(text) == cut


def test_what_is_secret_in_a_known_uri_is_cut_where_it_stands_alone() -> None:
    uri = f"postgresql://ann:p%40{SECRET}@host/db?key=t0ken&sslmode=require"
    said = f"no rights for 'p@{SECRET}' nor 'p%40{SECRET}', key t0ken; sslmode=require at {uri}"
    assert (
        without_secrets(said, uri)
        == "no rights for '***' nor '***', key ***; sslmode=require at postgresql://***@host/db?key=***&sslmode=require"
    )


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        (f"ftp://u:{SECRET}@host", True),
        (f"https://host/x?sig={SECRET}", True),
        ("https://ghp0123456789abcdef@github.com/x", True),
        ("https://host/x?view=list", False),
        ("https://host/page#results", False),
        ("ssh://git@host/x", False),
    ],
)
def test_what_is_a_secret_beyond_doubt(text: str, sure: bool) -> None:
    assert (without_secrets(text, sure=True) != text) is sure
    assert without_secrets(text) != text


@pytest.mark.parametrize(
    "call",
    [
        'mlflow.sklearn.log_model(model, name="model", signature=signature, input_example=frame[:5])',
        "log_model(model, signature=mlflow.models.infer_signature(frame, model.predict(frame)))",
    ],
)
def test_the_signature_of_a_model_is_no_secret(call: str) -> None:
    """Advice is there to be copied."""
    assert without_secrets(call) == call


@pytest.mark.parametrize("secret", [SECRET, f"signature{SECRET}", f"{SECRET},", "signature"])
def test_the_signature_of_a_request_is_one(secret: str) -> None:
    assert without_secrets(f"signature={secret}").startswith("signature=***")


def test_what_is_made_shorter_is_cut_before() -> None:
    text = "x" * (LIMIT - 25) + f" ftp://mlflow:{SECRET}-{SECRET}@host/x"
    assert SECRET not in printable(text)
    assert without_secrets(f"ftp://mlflow:{SECRET}…") == "ftp://***@"


def test_no_error_of_the_program_holds_one() -> None:
    assert str(StoreError(f"ftp://u:{SECRET}@host cannot be read")) == "ftp://***@host cannot be read"
