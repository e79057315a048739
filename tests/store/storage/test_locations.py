from __future__ import annotations

import os
from pathlib import Path

import pytest
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from mlflow_compliance.snapshot.presence import Why
from mlflow_compliance.store.storage.locations import Resolved, Resolver, shown


@pytest.mark.parametrize(
    "uri",
    [
        "/data/mlruns/1",
        "/data//mlruns/./1/../2",
        "/data/with%20space/1",
        "/data/100%/1",
        "/data/#1/?2",
        "file:///data/mlruns/1",
        "file:/data/mlruns/1",
        "file:///data/%C3%A9t%C3%A9/1",
        "file:///data/a;b/1",
        "file://fileserver/share/1",
        "file:///D:/code/mlruns/0",
    ],
)
def test_a_location_is_read_as_mlflow_reads_it(uri: str) -> None:
    assert Resolver({})(uri).path == os.path.abspath(LocalArtifactRepository(uri).artifact_dir)


@pytest.mark.parametrize("uri", ["mlruns/1", "./mlruns/1", "file:mlruns/1", "file:./mlruns/1", "x/../mlruns/1"])
def test_a_relative_location_starts_from_the_folder_of_its_store(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow starts from whatever folder its process is in; this program, from nowhere where it does not know the
    store's.
    """
    monkeypatch.chdir(tmp_path)
    assert Resolver({}, "/data")(uri).path == "/data/mlruns/1"
    unknown = Resolver({})(uri)
    assert (unknown.path, unknown.why) == ("", Why.ELSEWHERE)
    assert "only the server" in unknown.reason


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("s3://bucket/1", "s3"),
        ("S3://bucket/1", "s3"),
        ("mlflow-artifacts:/1/abc/artifacts", "mlflow-artifacts"),
        ("dbfs:/databricks/mlflow/1", "dbfs"),
        ("wasbs://container@account/1", "wasbs"),
    ],
)
def test_a_scheme_that_is_not_local_says_so(uri: str, scheme: str) -> None:
    found = Resolver({})(uri)
    assert (found.path, found.prefix) == ("", None)
    if scheme == "mlflow-artifacts":
        assert (found.why, "give its address (--tracking-uri)" in found.reason) == (Why.SERVER, True)
    else:
        assert (found.why, found.reason) == (
            Why.SCHEME,
            f"{scheme} locations are not read by this version; map it with [store.relocate]",
        )


@pytest.mark.parametrize("uri", ["D:\\code\\mlruns\\0", "D:/code/mlruns/0", "file:///D:/code/mlruns/0"])
def test_a_windows_path_is_no_scheme_and_is_shown_without_the_slash(uri: str) -> None:
    assert shown(Resolver({})(uri).path) == "D:/code/mlruns/0"


@pytest.mark.parametrize(
    ("uri", "path", "key"),
    [
        ("file:///D:/code/mlruns/1/a%20b", "/here/mlruns/1/a b", "file:///D:/code"),
        ("file:///D:/code", "/here", "file:///D:/code"),
        ("file:///D:/code/special/1", "/special/1", "file:///D:/code/special/"),
        ("D:\\code\\mlruns\\1", "/windows/mlruns/1", "D:\\code"),
        ("s3://bucket/a%20b/1", "/bucket/a%20b/1", "s3://bucket"),
        ("mlflow-artifacts:/1/abc/artifacts", "/served/1/abc/artifacts", "mlflow-artifacts:/"),
    ],
)
def test_the_longest_prefix_maps_a_location(uri: str, path: str, key: str) -> None:
    resolve = Resolver(
        {
            "file:///D:/code": "/here",
            "file:///D:/code/special/": "/special",
            "D:\\code": "/windows",
            "s3://bucket": "/bucket",
            "mlflow-artifacts:/": "/served",
        }
    )
    assert resolve(uri) == Resolved(path, "", key)


def test_a_prefix_ends_at_a_separator() -> None:
    assert Resolver({"/data/mlruns": "/here"})("/data/mlruns-old/1") == Resolved("/data/mlruns-old/1")


def test_a_location_cannot_lead_out_of_the_mapped_folder() -> None:
    found = Resolver({"s3://bucket": "/here/store"})("s3://bucket/../../etc")
    assert (found.path, found.prefix) == ("", "s3://bucket")
    assert "leads out of the folder" in found.reason


@pytest.mark.parametrize("uri", ["", "/data/\0/1"])
def test_what_is_no_path_is_a_reason(uri: str) -> None:
    assert Resolver({})(uri).reason == "its location is not a path"
