"""SRV001 and SRV002: what programs would load, and what people see."""

from __future__ import annotations

from pathlib import Path

import pytest
from producing import copied, model_folder
from repairs import findings
from stores import Lab

from mlflow_compliance import load_production_model
from mlflow_compliance.loader.model import ModelError


@pytest.fixture
def whole(produced_built: Lab, tmp_path: Path) -> Lab:
    return copied(produced_built, tmp_path / "store")


def production(lab: Lab) -> str:
    (run,) = [run for run in lab.runs("1") if run.data.tags.get("stage") == "production"]
    return str(run.info.run_id)


def test_srv001_the_production_runs_model(whole: Lab) -> None:
    assert findings(whole, "SRV001") == []
    whole.client.delete_registered_model("credit")
    assert findings(whole, "SRV001") == []  # found by its run then


def test_srv001_the_alias_names_another_model(whole: Lab) -> None:
    other = whole.run("1", "other")
    whole.registered("credit", f"models:/{whole.model('1', other)}", other, alias="production")
    (found,) = findings(whole, "SRV001")
    assert found.message == "another model would be loaded"
    assert f"made by run {other}" in found.observed


def test_srv001_one_byte_of_it_changed(whole: Lab) -> None:
    path = model_folder(whole) / "requirements.txt"
    path.write_bytes(path.read_bytes() + b"# one more\n")
    (found,) = findings(whole, "SRV001")
    assert found.message == "the files that would be loaded are not those on record"
    assert found.observed == "requirements.txt has changed"


def test_srv001_a_file_that_is_not_on_record(whole: Lab) -> None:
    """Programs refuse such a model: the gate says the same of it."""
    (model_folder(whole) / "extra.txt").write_text("x")
    (found,) = findings(whole, "SRV001")
    assert found.observed == "extra.txt is not on record"
    with pytest.raises(ModelError, match=r"extra\.txt is not on record"):
        load_production_model(tracking_uri=whole.uri, config=str(whole.folder / "compliance.toml"))


@pytest.mark.parametrize("spelled", ["plain", "file"])
def test_a_version_that_is_fetched_from_elsewhere_than_it_was_registered_from(whole: Lab, spelled: str) -> None:
    """MLflow loads a version from its storage location, whatever its source says."""
    other = whole.run("1", "other")
    model = whole.model("1", other, files={"model.pkl": b"something else"})
    (place,) = [item.artifact_location for item in whole.client.search_logged_models(["1"]) if item.model_id == model]
    whole.sql("UPDATE model_versions SET storage_location = ?", f"file://{place}" if spelled == "file" else place)
    (found,) = findings(whole, "SRV001")
    assert found.code == "another-model"
    (found,) = findings(whole, "REG001")
    assert found.code == "version-fetched-from-elsewhere"
    with pytest.raises(ModelError):
        load_production_model(tracking_uri=whole.uri, config=str(whole.folder / "compliance.toml"))


def test_srv001_nothing_would_be_loaded(lab: Lab) -> None:
    lab.experiment("credit_delivery")
    (found,) = findings(lab, "SRV001")
    assert found.message == "what the settings name leads to no model"


def test_srv002_everything_is_shown_and_given(whole: Lab) -> None:
    snapshot = whole.read()
    assert snapshot.evidence is not None
    served = snapshot.evidence.served[production(whole)]
    assert served.problems == ()
    assert served.checked > 40


def test_srv002_relative_locations_start_from_the_folder_of_the_database(
    whole: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for table, column in (
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "storage_location"),
    ):
        whole.sql(f"UPDATE {table} SET {column} = replace({column}, ?, './mlruns')", str(whole.mlruns))
    monkeypatch.chdir(tmp_path)
    assert findings(whole, "SRV002") == []


def test_srv002_a_file_that_is_gone_when_it_is_asked_for(whole: Lab) -> None:
    snapshot = whole.read()
    (Path(whole.client.get_run(production(whole)).info.artifact_uri) / "model.pkl").unlink()
    assert snapshot.evidence is not None
    assert any("model.pkl" in problem for problem in snapshot.evidence.served[production(whole)].problems)
