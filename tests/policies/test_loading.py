"""MOD002 to MOD005: models that are safe, that load and score, that are described, and that made the recorded
predictions.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from producing import copied, model_folder, settings_for
from repairs import EVERY, findings, notes, plan_for, unfixed, verdict
from stores import Lab, model_files

from mlflow_compliance.rules.outcome import Outcome
from mlflow_compliance.store.store import open_store

LabMaker = Callable[..., Lab]


class Hostile:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def whole(produced_built: Lab, tmp_path: Path) -> Lab:
    return copied(produced_built, tmp_path / "store")


@pytest.mark.parametrize("place", ["in a model", "beside models"])
def test_mod002_a_pickle_that_would_run_code_is_told_and_never_loaded(lab: Lab, tmp_path: Path, place: str) -> None:
    marker = tmp_path / "it ran"
    content = pickle.dumps(Hostile(marker))
    files = {f"model/{name}": body for name, body in model_files("", "", "model", {"model.pkl": content}).items()}
    run_id = lab.run(
        lab.experiment("credit_delivery"),
        stage="production",
        files=files if place == "in a model" else {"scaler.pkl": content},
    )
    found = findings(lab, "MOD002", "MOD003")
    assert any("mkdir" in finding.message for finding in found)
    assert "log the model again as skops" in unfixed(plan_for(lab, "MOD002"), "MOD002")[0].reason
    if place == "in a model":
        assert [finding.observed[:19] for finding in found if finding.entity.key == run_id] == ["it was not loaded, "]
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()  # it would have


def with_model(content: bytes) -> dict[str, bytes]:
    return {f"model/{name}": body for name, body in model_files("", "", "model", {"model.pkl": content}).items()}


def test_mod002_tells_a_name_once_with_the_models_that_hold_it_and_a_model_is_allowed_by_its_hash(
    make_lab: LabMaker, tmp_path: Path
) -> None:
    loaders = ["mlflow.flavor0"]
    lab = make_lab(models={"loaders": loaders})
    key = lab.experiment("credit_delivery")
    number, marker = pickle.dumps(Decimal(1)), tmp_path / "it ran"
    for _ in range(3):
        lab.run(key, files=with_model(number))
    evil = lab.run(key, files={**with_model(pickle.dumps([Decimal(2), Hostile(marker)])), "table.csv": b"a,b\n1,2\n"})
    lab.run(key, files={"preprocessor/prep": pickle.dumps(Hostile(marker)), "notes.txt": b"channels:\n- a\n"})
    known, command = sorted(findings(lab, "MOD002"), key=lambda finding: finding.name)
    assert (known.name, command.name) == ("decimal.Decimal", "posix.mkdir")
    assert known.observed.startswith("in 4 models: ")
    assert command.observed.startswith("in 2 models: ")
    assert all(part in command.observed for part in (evil, "preprocessor/prep"))
    assert 'allowed_globals = [  # leave what you know to be harmless\n    "decimal.Decimal",\n]' in known.toml
    assert "mkdir" not in known.toml

    allow(lab, loaders=loaders, allowed_globals=["decimal.Decimal"])
    (command,) = findings(lab, "MOD002")
    assert command.name == "posix.mkdir"
    folder = next(Path(path) for path in lab.read().evidence.scans if evil in path)
    digest = lab.read().evidence.scans[str(folder)].digest
    assert digest in command.toml
    allow(lab, loaders=loaders, allowed_globals=["decimal.Decimal"], allowed_models=[digest])
    (command,) = findings(lab, "MOD002")
    assert command.observed.endswith("preprocessor/prep")
    assert any("is allowed as it is, by its hash" in note for note in notes(lab, "MOD002", "0"))

    (folder / "more.txt").write_text("")
    (command,) = findings(lab, "MOD002")
    assert command.observed.startswith("in 2 models: ")  # any change withdraws it
    assert not marker.exists()


def allow(lab: Lab, **models: Any) -> None:
    """Give a store other settings for models."""
    own = lab.settings.model_dump(exclude_unset=True)
    lab.settings = type(lab.settings).model_validate({**own, "models": models})
    lab.store = open_store(lab.uri, lab.settings, str(lab.folder))


@pytest.mark.parametrize(
    ("harm", "seconds", "observed"),
    [
        ("while True: pass", 15.0, "did not finish within 15 s"),
        ("held = [bytearray(1 << 27) for _ in range(1 << 12)]", 120.0, "memory"),
    ],
    ids=["loops for ever", "eats memory"],
)
def test_mod003_a_model_that_misbehaves_is_a_finding_and_no_hung_audit(
    make_lab: LabMaker, harm: str, seconds: float, observed: str
) -> None:
    """Its code is allowed here, as a team allows its own: what is safe to load may still be broken."""
    lab = make_lab(
        models={"allow_code": True, "loaders": ["loader_of_ours"], "time_limit": seconds, "memory_limit": 4096}
    )
    key = lab.experiment("credit_delivery")
    code = f"def _load_pyfunc(path):\n    {harm}\n"
    text = (
        "flavors:\n  python_function:\n    loader_module: loader_of_ours\n    code: code\n    env: requirements.txt\n"
    )
    files = {
        "model/MLmodel": text.encode(),
        "model/code/loader_of_ours.py": code.encode(),
        "model/requirements.txt": b"mlflow\n",
    }
    run_id = lab.run(key, stage="production", files=files)
    assert findings(lab, "MOD002") == []
    (found,) = findings(lab, "MOD003")
    assert found.entity.key == run_id
    assert observed in found.observed


def test_mod003_file_that_is_broken(whole: Lab) -> None:
    path = model_folder(whole) / "requirements.txt"
    assert findings(whole, "MOD003") == []
    (path.parent / "input_example.json").write_text("{}")
    assert [finding.message for finding in findings(whole, "MOD003")] == ["its model does not load and score"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("signature", "its model has no signature"),
        ("example", "its model has no input example"),
        ("requirements", "its model names no environment"),
        ("pins", "its model's environment is not pinned"),
    ],
)
def test_mod004_what_is_not_described(whole: Lab, harm: str, message: str) -> None:
    import yaml

    folder = model_folder(whole)
    document = yaml.safe_load((folder / "MLmodel").read_text())
    if harm == "signature":
        del document["signature"]
    elif harm == "example":
        del document["saved_input_example_info"]
    elif harm == "requirements":
        (folder / "requirements.txt").unlink()
    else:
        (folder / "requirements.txt").write_text("lightgbm\nscikit-learn>=1\nmlflow==3.1.0\n")
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    (found,) = findings(whole, "MOD004")
    assert found.message == message
    if harm == "pins":
        assert found.observed == "lightgbm, scikit-learn>=1"


def test_mod005_predictions_of_another_model(whole: Lab) -> None:
    import pandas as pd

    path = whole.folder / "results" / "predictions.parquet"
    frame = pd.read_parquet(path)
    frame.loc[100, "PROBABILITY"] += 0.25
    frame.to_parquet(path)
    (found,) = findings(whole, "MOD005")
    assert found.message == "serves other probabilities than were recorded"
    assert found.observed == "12 rows of sample.parquet, largest difference 0.25"


def test_mod005_features_that_are_not_the_models(whole: Lab) -> None:
    import pandas as pd

    path = whole.folder / "data" / "sample.parquet"
    pd.read_parquet(path).drop(columns="FEATURE_3").to_parquet(path)
    (found,) = findings(whole, "MOD005")
    assert "FEATURE_3" in found.observed


@pytest.mark.parametrize("away", ["data/sample.parquet", "results/predictions.parquet"])
def test_mod005_what_cannot_be_read_proves_nothing(whole: Lab, away: str) -> None:
    (whole.folder / away).unlink()
    found = verdict(whole, "MOD005", "credit")
    assert found.outcome == Outcome.NOT_EVALUATED
    assert found.unevaluated[0].reason == f"{Path(away).name}, which the settings name, is not there"


def test_without_a_production_model_nothing_is_green(make_lab: LabMaker) -> None:
    lab = make_lab(**settings_for(features="sample.parquet", predictions="predictions.parquet"))
    lab.experiment("credit_delivery")
    told = {finding.policy for finding in findings(lab, EVERY)}
    assert told >= {"MOD001", "MOD003", "MOD004", "MOD005", "PRD005", "PRD007", "RUN002", "SRV001", "SRV002"}
