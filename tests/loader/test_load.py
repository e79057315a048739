"""The production model is loaded only where it is safe and on record, and a pickle stands in only while MLflow is
away.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers import Quiet, handled_by
from serving import (
    ALIAS,
    FEATURES,
    NAME,
    QUICKLY,
    SETTINGS,
    Evil,
    Logged,
    applicants,
    expected,
    log_production,
    metadata,
)
from stores import Lab

import mlflow_compliance
from mlflow_compliance import ProductionModel, find_production_model, load_production_model
from mlflow_compliance.errors import ComplianceError, SettingsError, StoreError
from mlflow_compliance.loader.load import HASH_OF_PICKLE
from mlflow_compliance.loader.model import ModelError, UnreachableError
from mlflow_compliance.production.resolution import ResolutionError
from mlflow_compliance.store.write.registry import default_store

FRAME = applicants(5)


class Production:
    """A store with one production model in SQLite, its settings beside it, and an empty working directory."""

    def __init__(self, lab: Lab, logged: Logged) -> None:
        self.lab = lab
        self.logged = logged
        self.config = lab.folder / "compliance.toml"
        self.model = lab.location_of(logged.model_id)
        self.notes = lab.folder_of(logged.run_id) / "model_metadata.json"
        self.fallback = lab.folder / "model.pkl"
        self.record = lab.folder / "record.json"
        self.marker = lab.folder / "it ran"

    def load(self, **given: Any) -> ProductionModel:
        return load_production_model(**{"config": self.config, **given})

    def load_with_fallback(self) -> ProductionModel:
        return self.load(fallback=self.fallback, record=self.record)

    def refused(self, error: type[ComplianceError] = ModelError, **given: Any) -> str:
        with pytest.raises(error) as caught:
            self.load(**given)
        assert type(caught.value) is error
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def write_down(self, *without: str) -> None:
        """Record the files of the model as they are now."""
        self.notes.write_text(json.dumps(metadata(self.model, *without)), encoding="utf-8")


@pytest.fixture(scope="module")
def built(empty_store: bytes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Logged]:
    lab = Lab.new(tmp_path_factory.mktemp("built") / "store", empty_store, {})
    (lab.folder / "compliance.toml").write_text(SETTINGS, encoding="utf-8")
    return lab.folder, log_production(lab.uri, lab.experiment("credit_delivery"), 0)


@pytest.fixture
def production(built: tuple[Path, Logged], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Production:
    folder, logged = built
    lab = Lab.moved(folder, tmp_path / "store")
    lab.sql(
        "UPDATE model_versions SET storage_location = replace(storage_location, ?, ?)", f"{folder}/", f"{lab.folder}/"
    )
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = Production(lab, logged)
    made.fallback.write_bytes(logged.pickled)
    return made


def test_loads_what_the_alias_names(production: Production) -> None:
    before = production.lab.database.read_bytes()
    loaded = production.load()
    assert type(loaded.model).__name__ == "LGBMClassifier"
    assert (loaded.source, loaded.version, loaded.run_id, loaded.threshold) == (
        "alias",
        "1",
        production.logged.run_id,
        0.4,
    )
    assert loaded.uri == f"models:/{production.logged.model_id}"
    assert loaded.features == tuple(FEATURES)
    assert loaded.takes_missing
    assert loaded.probabilities(FRAME) == expected(0, FRAME)
    assert loaded.probabilities(FRAME[FEATURES[::-1]].assign(more=1)) == expected(0, FRAME), "columns go by name"
    assert loaded.sha256 == {
        str(path.relative_to(production.model)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in production.model.iterdir()
    }
    assert loaded.why == (
        f"alias {ALIAS} of {NAME} names version 1, made by run {production.logged.run_id}; its files are those "
        "that the run recorded"
    )
    assert os.listdir() == [], "MLflow leaves nothing in the working directory"
    assert production.lab.database.read_bytes() == before


def test_a_frame_without_a_column_is_refused(production: Production) -> None:
    with pytest.raises(ModelError, match="1 columns that the model needs are missing: AMT_CREDIT"):
        production.load().probabilities(FRAME.drop(columns="AMT_CREDIT"))


def test_without_an_alias_the_marked_run(production: Production) -> None:
    production.lab.client.delete_registered_model_alias(NAME, ALIAS)
    loaded = production.load()
    assert (loaded.source, loaded.version, loaded.run_id) == ("run", None, production.logged.run_id)
    assert loaded.probabilities(FRAME) == expected(0, FRAME)


def test_finds_without_loading(production: Production) -> None:
    (production.model / "model.skops").unlink()
    found = find_production_model(config=production.config)
    assert (found.via, found.version, found.location) == ("alias", "1", str(production.model))


def test_a_run_that_recorded_nothing_is_loaded_and_told(production: Production) -> None:
    production.notes.unlink()
    loaded = production.load()
    assert loaded.why.endswith("; nothing was recorded to compare its files with")
    assert loaded.probabilities(FRAME) == expected(0, FRAME)


def test_a_run_that_was_built_with_metadata_is_not_loaded_without(production: Production) -> None:
    digest = hashlib.sha256(production.notes.read_bytes()).hexdigest()
    tags = {"compliance.build": "complete", "compliance.sha256.model_metadata": digest}
    production.lab.tag_run(production.logged.run_id, **tags)
    production.load()
    production.notes.unlink()
    assert production.refused() == (
        f"run {production.logged.run_id} was built with a model_metadata.json that is not there any more: put it back"
    )


def test_a_run_without_a_threshold_is_loaded_and_told(production: Production) -> None:
    production.lab.sql("DELETE FROM params WHERE key = 'optimal_threshold'")
    loaded = production.load()
    assert loaded.threshold is None
    assert loaded.why.endswith("; no threshold is on record")


def add_a_line(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda model: add_a_line(model / "requirements.txt"), "requirements.txt has changed"),
        (lambda model: (model / "conda.yaml").unlink(), "conda.yaml is missing"),
        (lambda model: (model / "notes.txt").write_text("more"), "notes.txt is not on record"),
        (lambda model: add_a_line(model / "MLmodel"), "MLmodel has changed"),
    ],
)
def test_a_model_that_is_not_the_one_on_record_is_refused(
    production: Production, spoil: Callable[[Path], None], said: str
) -> None:
    production.load_with_fallback()
    spoil(production.model)
    sentence = production.refused(fallback=production.fallback, record=production.record)
    assert (
        f"run {production.logged.run_id} is not the one on record, so it was not loaded: {said}; put the recorded "
        "files back"
    ) in sentence


def test_one_changed_byte_of_the_model_itself_is_refused(production: Production) -> None:
    path = production.model / "model.skops"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "so it was not loaded" in production.refused()


def test_an_mlmodel_that_is_not_on_record_may_differ(production: Production) -> None:
    production.write_down("MLmodel")
    add_a_line(production.model / "MLmodel")
    assert production.load().probabilities(FRAME) == expected(0, FRAME)


@pytest.mark.parametrize("text", ["{", "[]", '{"artifacts": [{"path": "model/x"}]}', '{"artifacts": 3}'])
def test_metadata_that_lists_nothing_is_refused(production: Production, text: str) -> None:
    production.notes.write_text(text, encoding="utf-8")
    assert "model_metadata.json of run" in production.refused()


def test_files_that_are_gone_are_told(production: Production) -> None:
    production.load_with_fallback()
    shutil.rmtree(production.model)
    sentence = production.refused(fallback=production.fallback, record=production.record)
    assert f"has no MLmodel at {production.model}: put its files back" in sentence


def spoil_with_a_pickle(production: Production) -> None:
    """Make the model one of cloudpickle's that does something when it is loaded, and record it as it is."""
    (production.model / "model.skops").unlink()
    (production.model / "model.pkl").write_bytes(pickle.dumps(Evil(production.marker)))
    text = (
        (production.model / "MLmodel")
        .read_text(encoding="utf-8")
        .replace("model.skops", "model.pkl")
        .replace("format: skops", "format: cloudpickle")
    )
    (production.model / "MLmodel").write_text(text, encoding="utf-8")


def test_an_unsafe_model_is_refused_and_not_run(production: Production) -> None:
    spoil_with_a_pickle(production)
    production.write_down()
    sentence = production.refused()
    assert "is not known to be safe, so it was not loaded: model.pkl" in sentence
    assert not production.marker.exists()


def test_a_model_that_cannot_be_loaded_is_told(production: Production) -> None:
    text = (production.model / "MLmodel").read_text(encoding="utf-8").replace("data: model.skops", "data: other.skops")
    (production.model / "MLmodel").write_text(text, encoding="utf-8")
    production.write_down()
    assert "cannot be loaded here (" in production.refused()


def test_what_mlflow_itself_writes_into_a_model_is_no_extra_file(production: Production) -> None:
    import mlflow

    with default_store(production.lab.uri):
        mlflow.lightgbm.load_model(f"models:/{NAME}@{ALIAS}")
    assert (production.model / "registered_model_meta").exists()
    assert production.load().probabilities(FRAME) == expected(0, FRAME)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.25, ""), (1, "does not give one probability for each row"), (1.5, "does not give one"), (math.nan, "does not")],
)
def test_a_model_of_no_library_must_give_probabilities(production: Production, value: float, said: str) -> None:
    import mlflow
    from mlflow.models import infer_signature

    production.config.write_text(SETTINGS + '[models]\nloaders = ["serving"]\n', encoding="utf-8")
    data = production.lab.folder / "weights.json"
    data.write_text(json.dumps(value), encoding="utf-8")
    shutil.rmtree(production.model)
    signature = infer_signature(FRAME.fillna(0.0))
    mlflow.pyfunc.save_model(
        production.model, loader_module="serving", data_path=str(data), signature=signature, pip_requirements=[]
    )
    production.write_down()
    loaded = production.load()
    assert loaded.features == tuple(FEATURES)
    if said:
        with pytest.raises(ModelError, match=said):
            loaded.probabilities(FRAME.fillna(0.0))
    else:
        assert loaded.probabilities(FRAME.fillna(0.0)) == [0.25] * 5


def test_a_sklearn_model_is_loaded_as_such(production: Production) -> None:
    import mlflow
    from sklearn.linear_model import LogisticRegression

    full = FRAME.fillna(0.0)
    model = LogisticRegression().fit(full, [0, 1, 0, 1, 1])
    shutil.rmtree(production.model)
    mlflow.sklearn.save_model(model, production.model, serialization_format="skops", pip_requirements=["scikit-learn"])
    production.write_down()
    loaded = production.load()
    assert type(loaded.model) is LogisticRegression
    assert not loaded.takes_missing
    assert loaded.probabilities(full) == [float(value) for value in model.predict_proba(full)[:, 1]]


def test_rows_that_point_elsewhere_are_read_through_relocate(production: Production) -> None:
    for table, column in (
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "storage_location"),
    ):
        production.lab.sql(
            f"UPDATE {table} SET {column} = replace({column}, ?, 'file:///D:/code/mlruns')", str(production.lab.mlruns)
        )
    production.refused()
    moved = SETTINGS.replace("busy_timeout", 'relocate = { "file:///D:/code/mlruns" = "mlruns" }\nbusy_timeout')
    production.config.write_text(moved, encoding="utf-8")
    assert production.load().probabilities(FRAME) == expected(0, FRAME)


class TestRecord:
    def test_says_what_was_loaded(self, production: Production) -> None:
        production.record.write_text("old")
        loaded = production.load_with_fallback()
        found = json.loads(production.record.read_text(encoding="utf-8"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\+00:00", found.pop("resolved_at"))
        assert found == {
            "sha256": hashlib.sha256(production.logged.pickled).hexdigest(),
            "run_id": loaded.run_id,
            "version": "1",
            "uri": loaded.uri,
            "threshold": 0.4,
            "features": FEATURES,
        }
        assert not [path for path in production.lab.folder.iterdir() if ".tmp" in path.name]

    def test_that_cannot_be_written_does_not_stop_the_model(self, production: Production) -> None:
        loaded = production.load(record=production.lab.folder / "no" / "record.json")
        assert "could not be written" in loaded.why
        assert loaded.probabilities(FRAME) == expected(0, FRAME)


@contextmanager
def locked(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


class TestFallback:
    def test_stands_in_while_the_database_is_away(self, production: Production) -> None:
        production.load_with_fallback()
        production.lab.database.rename(production.lab.folder / "elsewhere.db")
        loaded = production.load_with_fallback()
        assert (loaded.source, loaded.version, loaded.run_id, loaded.threshold) == (
            "fallback",
            "1",
            production.logged.run_id,
            0.4,
        )
        assert loaded.probabilities(FRAME) == expected(0, FRAME)
        assert loaded.sha256 == {"model.pkl": hashlib.sha256(production.logged.pickled).hexdigest()}
        assert loaded.why.startswith(
            f"there is no database at {production.lab.database}: check the tracking URI (nothing was created); "
            "the fallback "
        )
        assert f"holds the model of run {production.logged.run_id} as recorded at" in loaded.why
        assert not production.lab.database.exists()

    def test_stands_in_while_the_database_is_locked(self, production: Production) -> None:
        production.load_with_fallback()
        with locked(production.lab.database):
            assert production.load_with_fallback().source == "fallback"
            assert "locked" in production.refused(UnreachableError)
        assert production.load_with_fallback().source == "alias"

    def test_is_asked_for(self, production: Production) -> None:
        production.load_with_fallback()
        production.lab.database.unlink()
        production.refused(UnreachableError, record=production.record)
        assert not production.lab.database.exists()

    @pytest.mark.parametrize(
        ("spoil", "error"),
        [
            (lambda lab: lab.database.write_bytes(b"no database" * 100), StoreError),
            (lambda lab: lab.sql("UPDATE alembic_version SET version_num = 'old'"), StoreError),
            (lambda lab: lab.sql("UPDATE model_versions SET run_id = NULL"), ResolutionError),
        ],
    )
    def test_does_not_stand_in_for_any_other_failure(
        self, production: Production, spoil: Callable[[Lab], None], error: type[ComplianceError]
    ) -> None:
        production.load_with_fallback()
        spoil(production.lab)
        production.refused(error, fallback=production.fallback, record=production.record)

    def away(self, production: Production, **given: Any) -> str:
        production.lab.database.unlink()
        sentence = production.refused(**{"fallback": production.fallback, "record": production.record, **given})
        assert not production.marker.exists()
        assert sentence.startswith("there is no database at")
        return sentence

    def test_with_another_hash_is_refused_and_not_run(self, production: Production) -> None:
        production.load_with_fallback()
        production.fallback.write_bytes(pickle.dumps(Evil(production.marker)))
        assert "and not the recorded" in self.away(production)

    def test_that_is_on_record_and_unsafe_is_refused_and_not_run(self, production: Production) -> None:
        content = pickle.dumps(Evil(production.marker))
        production.lab.tag_run(production.logged.run_id, **{HASH_OF_PICKLE: hashlib.sha256(content).hexdigest()})
        production.load_with_fallback()
        production.fallback.write_bytes(content)
        assert "is not known to be safe" in self.away(production)

    def test_without_a_record_is_refused(self, production: Production) -> None:
        assert "there is no record of what" in self.away(production)

    def test_without_a_record_named_is_refused(self, production: Production) -> None:
        production.load_with_fallback()
        assert "there is no record of what" in self.away(production, record=None)

    def test_with_a_record_of_no_hash_is_refused(self, production: Production) -> None:
        production.lab.client.delete_tag(production.logged.run_id, HASH_OF_PICKLE)
        production.load_with_fallback()
        assert "there is no record of what" in self.away(production)

    def test_with_a_broken_record_is_refused(self, production: Production) -> None:
        production.record.write_text('{"sha256": 3}', encoding="utf-8")
        assert f"the record {production.record} cannot be read" in self.away(production)

    def test_that_is_not_there_is_refused(self, production: Production) -> None:
        production.load_with_fallback()
        production.fallback.unlink()
        assert "cannot be read (No such file or directory) either" in self.away(production)

    def test_that_is_no_pickle_is_refused(self, production: Production) -> None:
        production.lab.tag_run(production.logged.run_id, **{HASH_OF_PICKLE: hashlib.sha256(b"plain").hexdigest()})
        production.load_with_fallback()
        production.fallback.write_bytes(b"plain")
        self.away(production)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that says one thing to whatever it is asked."""

    class Handler(Quiet):
        def answer(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with handled_by(Handler) as address:
        yield address


class TestServer:
    """What counts as a server that does not answer; one that does is in tests/test_api.py."""

    @pytest.fixture(autouse=True)
    def quickly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in QUICKLY.items():
            monkeypatch.setenv(name, value)

    @pytest.mark.parametrize("status", [500, 503])
    def test_errors_of_its_own_are_no_answer(self, production: Production, status: int) -> None:
        production.load_with_fallback()
        with answering(status, b'{"error_code": "INTERNAL_ERROR", "message": "no"}') as uri:
            loaded = production.load(tracking_uri=uri, fallback=production.fallback, record=production.record)
            assert loaded.source == "fallback"
            with pytest.raises(UnreachableError, match=f"cannot be reached .*{status}"):
                find_production_model(tracking_uri=uri, config=production.config)

    @pytest.mark.parametrize(
        ("status", "body"),
        [(403, b"{}"), (404, b"<html>"), (200, b"<html>"), (401, b'{"error_code": "PERMISSION_DENIED"}')],
    )
    def test_any_other_answer_is_one(self, production: Production, status: int, body: bytes) -> None:
        production.load_with_fallback()
        with answering(status, body) as uri:
            production.refused(StoreError, tracking_uri=uri, fallback=production.fallback, record=production.record)

    @pytest.mark.parametrize(
        ("host", "error", "said"),
        [
            ("127.0.0.1:1", UnreachableError, "cannot be reached (connection refused)"),
            (":5000", StoreError, "Invalid url: "),
        ],
    )
    def test_credentials_are_not_shown(
        self, production: Production, host: str, error: type[ComplianceError], said: str
    ) -> None:
        sentence = production.refused(error, tracking_uri=f"http://ann:s3cret@{host}")
        assert said in sentence
        assert "s3cret" not in sentence

    def test_a_name_that_nobody_knows(self, production: Production) -> None:
        production.refused(UnreachableError, tracking_uri="http://mlflow.invalid:5000")


class TestChoices:
    def test_the_nearest_settings_and_their_store(
        self, production: Production, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = production.lab.folder / "deep" / "er"
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        assert find_production_model().run_id == production.logged.run_id

    def test_the_environment_wins_over_the_settings_and_an_argument_over_both(
        self, production: Production, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///nowhere.db")
        assert "nowhere.db" in production.refused(UnreachableError)
        assert production.load(tracking_uri=production.lab.uri).run_id == production.logged.run_id

    def test_a_product_that_is_not_there(self, production: Production) -> None:
        assert "there is no product loans in the settings: name one of credit" in production.refused(
            SettingsError, product="loans"
        )

    def test_one_of_several_products_is_named(self, production: Production) -> None:
        production.config.write_text(
            SETTINGS + '[[products]]\nname = "loans"\nexperiments = ["loans_*"]\n', encoding="utf-8"
        )
        assert "the settings name credit, loans: say which product" in production.refused(SettingsError)
        assert production.load(product="credit").source == "alias"
        production.refused(ResolutionError, product="loans")

    def test_a_file_store_is_refused(self, production: Production) -> None:
        assert "is a file store" in production.refused(StoreError, tracking_uri=str(production.lab.mlruns))

    def test_no_store(self, production: Production) -> None:
        production.config.write_text(SETTINGS.replace("tracking_uri", "# tracking_uri"), encoding="utf-8")
        assert "no store is named" in production.refused(StoreError)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, mlflow_compliance; print(sorted({'mlflow', 'pandas', 'pydantic', 'sqlalchemy', 'numpy'} & "
        "set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
    with pytest.raises(AttributeError, match="has no attribute 'load_model'"):
        mlflow_compliance.load_model  # noqa: B018
