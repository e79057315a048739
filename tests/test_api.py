"""The example's API in a process of its own, in front of a real tracking server that is stopped, moved on and
spoilt under it.
"""

from __future__ import annotations

import json
import pickle
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient
from servers import Quiet, handled_by
from serving import (
    FEATURES,
    SETTINGS,
    Evil,
    Logged,
    Server,
    api,
    applicants,
    expected,
    log_production,
    mlflow_server,
    move_alias,
    numbers,
)

from mlflow_compliance import load_production_model

FRAME = applicants(4)
ROWS = [numbers(row) for row in FRAME.to_dict("records")]
ROW = ROWS[0]


class Site:
    """A tracking server with two versions of the model, the API that serves one of them, and the files that it was
    given.
    """

    first: Logged
    second: Logged

    def __init__(self, folder: Path, empty_store: bytes) -> None:
        self.folder = folder
        self.marker = folder / "it ran"
        self.config = folder / "compliance.toml"
        self.config.write_text(SETTINGS, encoding="utf-8")
        (folder / "mlflow.db").write_bytes(empty_store)
        self.mlflow = mlflow_server(folder, folder / "mlflow.db")
        self.record, self.fallback = folder / "record.json", folder / "model.pkl"
        self.api = self.another("api", self.record, self.fallback)

    def another(self, name: str, record: Path, fallback: Path) -> Server:
        given = {
            "CREDIT_MODEL_RECORD": str(record),
            "CREDIT_FALLBACK_MODEL": str(fallback),
            "COMPLIANCE_CONFIG": str(self.config),
        }
        return api(self.folder / name, self.mlflow.url, **given)

    def log(self, seed: int, threshold: str, experiment: str = "credit_delivery", place: str | None = None) -> Logged:
        client = MlflowClient(self.mlflow.url)
        found = client.get_experiment_by_name(experiment)
        home = found.experiment_id if found else client.create_experiment(experiment, place)
        return log_production(self.mlflow.url, home, seed, threshold=threshold)

    def use(self, logged: Logged) -> None:
        """Let the API serve one of the versions."""
        move_alias(self.mlflow.url, logged.version)
        assert self.api.post("/reload").status_code == 200


@pytest.fixture(scope="module")
def running(empty_store: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"), empty_store)
    try:
        made.mlflow.start().wait()
        made.first = made.log(0, "0.4")
        made.second = made.log(1, "0.7")
        move_alias(made.mlflow.url, made.first.version)
        made.fallback.write_bytes(made.first.pickled)
        made.api.start().wait()
        yield made
    finally:
        made.api.stop()
        made.mlflow.stop()


@pytest.fixture
def site(running: Site) -> Site:
    """The site with its tracking server up, whatever a test did to it before."""
    if running.mlflow.process is None:
        running.mlflow.start().wait()
    return running


def test_health_says_what_serves_and_why(site: Site) -> None:
    answer = site.api.get("/health")
    assert answer.status_code == 200
    said = answer.json()
    assert (said["status"], said["source"], said["run_id"], said["version"], said["threshold"]) == (
        "ok",
        "alias",
        site.first.run_id,
        "1",
        0.4,
    )
    marked = ", ".join(sorted([site.first.run_id, site.second.run_id]))
    assert said["why"].endswith(
        f"run {site.first.run_id}, while marked as production: {marked}; its files are those that the run recorded"
    )
    assert "model.skops" in said["sha256"]
    assert (said["features"], said["unlike_features_txt"], said["last_reload"]) == (189, [], "ok")
    now = site.api.get("/health/mlflow").json()
    assert (now["reachable"], now["is_loaded"], now["would_load"]["version"]) == (True, True, "1")


def test_predictions_are_the_models_own(site: Site) -> None:
    wanted = expected(0, FRAME)
    answer = site.api.post("/predict", {"rows": ROWS})
    assert answer.status_code == 200, answer.text
    said = answer.json()["predictions"]
    assert [item["probability"] for item in said] == wanted
    assert [item["decision"] for item in said] == ["decline" if value >= 0.4 else "approve" for value in wanted]
    assert {item["decision"] for item in said} == {"decline", "approve"}
    backwards = dict(reversed(ROW.items()))
    assert site.api.post("/predict", {"features": backwards}).json() == {
        "probability": wanted[0],
        "decision": said[0]["decision"],
        "threshold": 0.4,
        "model_version": "1",
        "run_id": site.first.run_id,
    }


@pytest.mark.parametrize(
    ("body", "where", "problem"),
    [
        (
            {"features": {key: value for key, value in ROW.items() if key != "AMT_CREDIT"}},
            ["features", "AMT_CREDIT"],
            "Field required",
        ),
        ({"features": {**ROW, "AMT_OTHER": 1}}, ["features", "AMT_OTHER"], "Extra inputs are not permitted"),
        ({"features": {**ROW, "column0": 1}}, ["features", "column0"], "Extra inputs are not permitted"),
        ({"features": {**ROW, "AMT_CREDIT": "12"}}, ["features", "AMT_CREDIT"], "valid number"),
        ({"features": {**ROW, "AMT_CREDIT": True}}, ["features", "AMT_CREDIT"], "valid number"),
        ({"features": {**ROW, "AMT_CREDIT": [1]}}, ["features", "AMT_CREDIT"], "valid number"),
        ({"features": {**ROW, "AMT_CREDIT": float("nan")}}, ["features", "AMT_CREDIT"], "finite number"),
        ({"features": {**ROW, "AMT_CREDIT": float("inf")}}, ["features", "AMT_CREDIT"], "finite number"),
        ({"features": {**ROW, "AMT_CREDIT": 10**400}}, ["features", "AMT_CREDIT"], "number"),
        ({"features": list(ROW.values())}, ["features"], "valid dictionary"),
        ({"rows": [ROW, {**ROW, "AMT_CREDIT": "x"}]}, ["rows", 1, "AMT_CREDIT"], "valid number"),
        ({"rows": []}, ["rows"], "at least 1 item"),
        ({"rows": [{}] * 1001}, ["rows"], "at most 1000 items"),
        ({"rows": [ROW], "features": ROW}, ["features"], "Extra inputs are not permitted"),
        ({}, ["features"], "Field required"),
        ([], ["body"], "valid dictionary"),
    ],
)
def test_a_request_that_is_no_applicant_is_told_what_is_wrong(
    site: Site, body: Any, where: list[str | int], problem: str
) -> None:
    # Not json=: what JSON does not know (NaN, Infinity) is what some clients send.
    answer = requests.post(
        site.api.url + "/predict", data=json.dumps(body), headers={"Content-Type": "application/json"}, timeout=30
    )
    assert answer.status_code == 422, answer.text
    found = {json.dumps(item["where"]): item["problem"] for item in answer.json()["detail"]}
    assert problem in found[json.dumps(where)]


def test_every_missing_name_is_told(site: Site) -> None:
    answer = site.api.post("/predict", {"features": {}})
    assert [item["where"][1] for item in answer.json()["detail"]] == FEATURES
    many = site.api.post("/predict", {"rows": [{}] * 10}).json()
    assert (len(many["detail"]), many["problems"]) == (200, 1890)


def test_no_request_fails_and_none_mixes_two_models_while_the_alias_moves(site: Site) -> None:
    wanted = {
        site.first.run_id: (expected(0, FRAME), 0.4, site.first.version),
        site.second.run_id: (expected(1, FRAME), 0.7, site.second.version),
    }
    stop = threading.Event()
    failures: list[str] = []
    seen: list[str] = []

    def ask() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                answer = session.post(site.api.url + "/predict", json={"rows": ROWS}, timeout=30)
                if answer.status_code != 200:
                    failures.append(answer.text)
                    continue
                items = answer.json()["predictions"]
                told = {(item["run_id"], item["threshold"], item["model_version"]) for item in items}
                run_id = items[0]["run_id"]
                seen.append(run_id)
                if (
                    told != {(run_id, *wanted[run_id][1:])}
                    or [item["probability"] for item in items] != wanted[run_id][0]
                ):
                    failures.append(answer.text)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for logged in (site.second, site.first, site.second, site.first):
            asked = len(seen)
            site.use(logged)
            while len(seen) < asked + 10 and not failures:
                threads[0].join(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert set(seen) == {site.first.run_id, site.second.run_id}


def test_what_would_be_loaded_now_is_told_before_a_reload(site: Site) -> None:
    move_alias(site.mlflow.url, site.second.version)
    try:
        now = site.api.get("/health/mlflow").json()
        assert (now["reachable"], now["is_loaded"], now["would_load"]["run_id"]) == (True, False, site.second.run_id)
        assert site.api.get("/health").json()["version"] == site.first.version
    finally:
        move_alias(site.mlflow.url, site.first.version)


def test_a_model_that_was_changed_in_the_store_does_not_replace_the_one_that_serves(site: Site) -> None:
    spoilt = site.log(2, "0.5")
    try:
        path = next((site.folder / "mlartifacts").rglob(f"{spoilt.model_id}/**/model.skops"))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        answer = site.api.post("/reload")
        assert answer.status_code == 409
        assert "so it was not loaded" in answer.json()["detail"]
        said = site.api.get("/health").json()
        assert (said["version"], said["last_reload"]) == (site.first.version, answer.json()["detail"])
        assert site.api.post("/predict", {"features": ROW}).json()["run_id"] == site.first.run_id
    finally:
        site.use(site.first)


def test_a_server_may_also_leave_its_artifacts_in_a_folder_that_the_api_reads(site: Site) -> None:
    logged = site.log(0, "0.4", "credit_shared", str(site.folder / "shared"))
    try:
        loaded = load_production_model(tracking_uri=site.mlflow.url, config=site.config)
        assert (loaded.run_id, loaded.probabilities(FRAME)) == (logged.run_id, expected(0, FRAME))
        assert list((site.folder / "shared").rglob("model.skops"))
    finally:
        move_alias(site.mlflow.url, site.first.version)


@contextmanager
def going_away(url: str, after: int) -> Iterator[str]:
    """A way to a server that is cut after some requests."""
    lock, left = threading.Lock(), [after]

    class Handler(Quiet):
        def answer(self) -> None:
            with lock:
                left[0] -= 1
                if left[0] < 0:
                    self.close_connection = True
                    return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = requests.request(
                self.command, url + self.path, data=body, headers={"Content-Type": "application/json"}, timeout=30
            )
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

    with handled_by(Handler) as address:
        yield address


def test_whenever_mlflow_goes_away_during_a_load_the_fallback_stands_in(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    site.use(site.first)
    sources = []
    while "alias" not in sources:
        with going_away(site.mlflow.url, after=len(sources)) as url:
            loaded = load_production_model(
                tracking_uri=url, config=site.config, fallback=site.fallback, record=site.record
            )
        assert loaded.probabilities(FRAME) == expected(0, FRAME)
        sources.append(loaded.source)
    assert set(sources[:-1]) == {"fallback"}
    assert len(sources) > 10, "a load asks for the alias, the run, the files and what is on record of them"


def test_while_the_tracking_server_is_down(site: Site) -> None:
    """The API goes on with what it has; when it is started anew, the pickle that is on record stands in."""
    wanted = expected(0, FRAME)
    site.use(site.first)
    site.mlflow.stop()

    before = site.api.get("/health").json()
    assert (before["source"], before["run_id"]) == ("alias", site.first.run_id)
    assert [item["probability"] for item in site.api.post("/predict", {"rows": ROWS}).json()["predictions"]] == wanted
    now = site.api.get("/health/mlflow").json()
    assert (now["reachable"], now["is_loaded"], now["would_load"]) == (False, False, None)
    assert f"MLflow at {site.mlflow.url} cannot be reached (connection refused)" in now["why"]
    reloaded = site.api.post("/reload")
    assert (reloaded.status_code, "connection refused" in reloaded.json()["detail"]) == (503, True)
    assert site.api.get("/health").json()["source"] == "alias", "the model that serves is kept"

    site.api.stop()
    said = site.api.start().wait().get("/health").json()
    assert (said["source"], said["run_id"], said["version"], said["threshold"]) == (
        "fallback",
        site.first.run_id,
        site.first.version,
        0.4,
    )
    assert "cannot be reached (connection refused)" in said["why"]
    assert [item["probability"] for item in site.api.post("/predict", {"rows": ROWS}).json()["predictions"]] == wanted


def test_without_a_model_the_api_starts_and_says_why(running: Site) -> None:
    """No record of the pickle, then one that names another, then the right one; while the tracking server is down."""
    record, pickled = running.folder / "other.json", running.folder / "other.pkl"
    pickled.write_bytes(pickle.dumps(Evil(running.marker)))
    running.mlflow.stop()
    server = running.another("other", record, pickled)
    try:
        for answer in (server.start().wait().get("/health"), server.post("/predict", {"features": ROW})):
            assert answer.status_code == 503
            assert "there is no record of what" in answer.json()["detail"]
        shutil.copy(running.record, record)
        assert server.post("/reload").status_code == 409
        for answer in (server.get("/health"), server.post("/predict", {"features": ROW})):
            assert answer.status_code == 503
            assert "and not the recorded" in answer.json()["detail"]
        assert not running.marker.exists()
        pickled.write_bytes(running.first.pickled)
        assert server.post("/reload").json()["source"] == "fallback"
    finally:
        server.stop()
