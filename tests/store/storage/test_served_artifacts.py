"""Artifacts that a tracking server serves: listed, read, compared and copied through its own endpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from serving import Server, serving_artifacts
from stores import BIG, CREDIT, model_files

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.store.storage.transfer import copy_folder, put_aside
from mlflow_compliance.store.store import open_store


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A store behind `mlflow server --serve-artifacts`, backed by a folder."""
    folder = tmp_path_factory.mktemp("served")
    uri = f"sqlite:///{folder}/mlflow.db"
    SqlAlchemyStore(uri, "mlflow-artifacts:/").engine.dispose()
    server = Server(
        folder / "server",
        "uvicorn",
        "mlflow.server.fastapi_app:app",
        "--log-level",
        "warning",
        **serving_artifacts(uri, folder / "kept"),
    )
    try:
        yield server.start().wait(), uri, folder
    finally:
        server.stop()


def test_served_artifacts_are_audited_and_copied(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, database, folder = served
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    client = MlflowClient(server.url)
    one = client.create_experiment("credit_delivery")
    runs = [client.create_run(one) for _ in range(2)]
    for run in runs:
        for name, content in {
            "same.bin": BIG,
            "deep/er/ü 1.txt": b"x",
            **model_files("", "", "model", {"model.pkl": b"weights"}),
        }.items():
            path = folder / "staging" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run.info.run_id, str(folder / "staging"))
    home = f"mlflow-artifacts:/{one}/{runs[0].info.run_id}/artifacts"
    (folder / "kept" / one / runs[0].info.run_id / "artifacts" / "1 +&=.txt").write_bytes(b"not as MLflow writes it")
    (folder / "kept" / "9" / "lost").mkdir(parents=True)
    (folder / "kept" / "stray.txt").write_bytes(b"s")
    store = open_store(server.url, Settings.model_validate({"products": [CREDIT]}), str(folder))

    found = store.read(artifacts=True).artifacts

    assert found is not None
    assert found.unreachable == ()
    assert {path[len(home) + 1 :]: file.size for path, file in found.under(home).items()} == {
        "same.bin": len(BIG),
        "deep/er/ü 1.txt": 1,
        "1 +&=.txt": 23,
        "model.pkl": 7,
        "MLmodel": found.files[f"{home}/MLmodel"].size,
    }
    assert [len(group.paths) for group in found.duplicates()] == [2]
    assert found.models[home].problem == ""

    # A copy, counted on both sides; one that is there already is never replaced; one that was taken back is told no
    # more.
    third = client.create_run(one).info
    copy_folder(store.places, home, third.artifact_uri, lambda content: content + b"# copy\n")
    again = store.read(artifacts=True).artifacts
    assert again is not None
    assert len(again.under(third.artifact_uri)) == 5
    with pytest.raises(ChangeError, match="is there already"):
        copy_folder(store.places, home, third.artifact_uri, lambda content: content)
    put_aside(store.places, third.artifact_uri.removesuffix("/artifacts"), "journal")
    aside = store.read(artifacts=True).artifacts
    assert aside is not None
    assert aside.files.keys() == found.files.keys()

    # Without the server nothing can be said of them.
    direct = open_store(database, store.settings, str(folder)).read(artifacts=True).artifacts
    assert direct is not None
    assert all("give its address (--tracking-uri)" in item.reason for item in direct.unreachable)
    assert direct.unreachable
