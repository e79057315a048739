from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from gates import state
from lightgbm import LGBMClassifier
from producing import FEATURES, PRODUCTION, THRESHOLD, lay_out, materials
from sklearn.linear_model import LogisticRegression

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.production.metadata import document, problems_in
from mlflow_compliance.settings.schema import ModelSettings, Product, ProductionSettings
from mlflow_compliance.snapshot.evidence import Bundle, Source
from mlflow_compliance.store.models import bundle as bundling
from mlflow_compliance.store.models.bundle import build, made_in
from mlflow_compliance.store.models.bundle_child import example_of, loaded, predicted
from mlflow_compliance.store.models.plots import SIZE, costs_by_threshold, draw_confusion_matrix, draw_threshold_curve
from mlflow_compliance.store.models.scoring import score

Write = Callable[[str, bytes], str]
PLOTS = ("confusion_matrix.png", "threshold_curve.png")
COSTS = {"false_negative_cost": 10.0, "false_positive_cost": 1.0}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the settings name."""
    folder = tmp_path_factory.mktemp("sources")
    lay_out(folder)
    return folder


@pytest.fixture(scope="module")
def built(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Everything that can be named is named, the model goes into skops, the predictions go along."""
    return bundle_of(attempt(sources, tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def sparse(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """No features are named, the model goes into a pickle, the predictions are too large."""
    given = {"features": None, "serialization": "cloudpickle", "largest_predictions": 100}
    return bundle_of(attempt(sources, tmp_path_factory.mktemp("sparse"), **given))


def attempt(base: Path, folder: Path, **production: Any) -> Source:
    product = Product(name="credit", production=ProductionSettings.model_validate({**PRODUCTION, **production}))
    return build(product, base, ModelSettings(), str(folder))


def bundle_of(source: Source) -> Bundle:
    assert source.problem == ""
    assert source.bundle is not None
    return source.bundle


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_run_gets_every_artifact(built: Bundle) -> None:
    names = [
        "confusion_matrix.png",
        "feature_importance.csv",
        "model.pkl",
        "predictions/predictions.parquet",
        "threshold_curve.png",
    ]
    assert [path for path, _, _ in built.files] == names


def test_the_model_is_complete(built: Bundle) -> None:
    names = [
        "MLmodel",
        "conda.yaml",
        "input_example.json",
        "model.skops",
        "python_env.yaml",
        "requirements.txt",
        "serving_input_example.json",
    ]
    assert [path for path, _, _ in built.model_files] == names


@pytest.mark.parametrize("kind", ["files", "model_files"])
def test_each_file_has_the_size_and_the_hash_that_are_told(built: Bundle, kind: str) -> None:
    place = Path(built.folder, "artifacts" if kind == "files" else "model")
    for path, size, sha256 in getattr(built, kind):
        assert ((place / path).stat().st_size, digest(place / path)) == (size, sha256)


@pytest.mark.parametrize(
    ("role", "source", "copy"),
    [
        ("model", "models/model.pkl", "model.pkl"),
        ("predictions", "results/predictions.parquet", "predictions/predictions.parquet"),
    ],
)
def test_sources_go_along_byte_by_byte(built: Bundle, sources: Path, role: str, source: str, copy: str) -> None:
    assert built.sources[role] == digest(sources / source) == digest(Path(built.folder, "artifacts", copy))
    assert made_in(built.folder).sources[role] == (source, (sources / source).stat().st_size, built.sources[role])


def test_the_model_says_what_it_takes(built: Bundle) -> None:
    card = built.evidence.card
    assert (card.inputs, card.signed, card.example, card.unpinned) == (FEATURES, True, "input_example.json", ())
    assert card.flavors == ("lightgbm", "python_function")
    names = {line.split("==")[0] for line in card.requirements}
    assert names == {"mlflow", "lightgbm", "scikit-learn", "numpy", "pandas", "scipy", "skops"}


def test_the_signature_is_that_of_doubles_and_of_what_predict_gives(built: Bundle) -> None:
    signature = yaml.safe_load(Path(built.folder, "model", "MLmodel").read_text())["signature"]
    assert {column["type"] for column in json.loads(signature["inputs"])} == {"double"}
    assert json.loads(signature["outputs"]) == [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]


def test_only_types_that_are_in_the_file_are_trusted(built: Bundle) -> None:
    flavor = yaml.safe_load(Path(built.folder, "model", "MLmodel").read_text())["flavors"]["lightgbm"]
    assert flavor["skops_trusted_types"] == [
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        "lightgbm.sklearn.LGBMClassifier",
    ]


def test_the_example_holds_the_first_recorded_rows(built: Bundle) -> None:
    example = json.loads(Path(built.folder, "model", "input_example.json").read_text())
    assert example["columns"] == list(FEATURES)
    assert example["data"] == materials()[2][list(FEATURES)].head(5).to_numpy().tolist()
    assert made_in(built.folder).example == "recorded"


def test_the_built_model_gives_what_is_recorded(built: Bundle) -> None:
    probe, (_, predictions, sample) = built.evidence.probe, materials()
    assert probe is not None
    assert (probe.problem, probe.sample_problem, probe.sampled, probe.features) == ("", "", len(sample), FEATURES)
    assert probe.worst < 1e-12
    assert list(probe.example) == predictions["PROBABILITY"].iloc[sample["ROW"][:5]].tolist()
    assert (probe.params["max_depth"], probe.params["n_estimators"]) == ("3", "5")


def test_nothing_in_the_built_model_is_unknown(built: Bundle) -> None:
    assert built.scan.problems == ()
    assert built.scan.hashes == {path: sha256 for path, _, sha256 in built.model_files}


def test_the_metrics_are_those_of_the_predictions(built: Bundle, sources: Path) -> None:
    path = str(sources / "results" / "predictions.parquet")
    assert built.evidence.scored == score(
        path, target="TARGET", probability="PROBABILITY", threshold=THRESHOLD, **COSTS
    )


def test_the_importance_of_features_is_the_booster_s(built: Bundle) -> None:
    with open(os.path.join(built.folder, "artifacts", "feature_importance.csv"), encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    booster = pickle.loads(materials()[0]).booster_
    wanted = {
        name: (split, gain)
        for name, split, gain in zip(
            FEATURES, booster.feature_importance("split"), booster.feature_importance("gain"), strict=True
        )
    }
    assert header == ["feature", "split", "gain"]
    assert {name: (int(split), float(gain)) for name, split, gain in rows} == wanted
    assert rows == sorted(rows, key=lambda row: (-float(row[2]), row[0]))
    assert [float(gain) for _, _, gain in rows].count(0.0) > 1  # names decide among those


def test_what_was_learnt_on_the_way_is_kept(built: Bundle) -> None:
    made = made_in(built.folder)
    assert made.features == FEATURES
    assert (made.params["max_depth"], made.params["class_weight"], made.params["learning_rate"]) == (3, None, 0.1)
    assert {"lightgbm", "scikit-learn", "numpy", "pandas", "scipy", "skops", "mlflow", "python"} == set(made.libraries)
    card = built.evidence.card
    assert {f"{name}=={version}" for name, version in made.libraries.items() if name != "python"} == set(
        card.requirements
    )


def test_its_metadata_can_be_composed(built: Bundle) -> None:
    made, scored = made_in(built.folder), built.evidence.scored
    assert scored is not None
    composed = document(
        product="credit",
        run_name="production_v2",
        run_id="r1",
        experiment_id="1",
        model_id="m-1",
        created_at="2026-01-03T16:30:44+00:00",
        threshold=scored.threshold,
        **COSTS,
        features=made.features,
        hyperparameters=made.params,
        metrics=scored.values,
        libraries=made.libraries,
        sources=made.sources,
        files=built.files,
        model_files=built.model_files,
        facts=[],
        supersedes=[],
        example=made.example,
        limitations="",
    )
    assert problems_in(composed) == []


def test_no_features_named_gives_an_example_of_zeros(sparse: Bundle) -> None:
    example = json.loads(Path(sparse.folder, "model", "input_example.json").read_text())
    assert (example["columns"], example["data"]) == (list(FEATURES), [[0.0] * len(FEATURES)] * 5)
    assert made_in(sparse.folder).example == "synthetic"


def test_large_predictions_are_referred_to(sparse: Bundle, sources: Path) -> None:
    path = sources / "results" / "predictions.parquet"
    reference = json.loads(Path(sparse.folder, "artifacts", "predictions", "reference.json").read_text())
    assert reference == {
        "path": PRODUCTION["predictions"],
        "sha256": digest(path),
        "size": path.stat().st_size,
        "rows": 600,
    }
    assert [name for name, _, _ in sparse.files if name.startswith("predictions/")] == ["predictions/reference.json"]
    assert not Path(sparse.folder, "predictions").exists()


def test_the_other_serialization(sparse: Bundle) -> None:
    assert "model.pkl" in [path for path, _, _ in sparse.model_files]
    names = {line.split("==")[0] for line in sparse.evidence.card.requirements}
    assert "cloudpickle" in names
    assert "skops" not in names
    assert (sparse.scan.problems, sparse.evidence.card.unpinned) == ((), ())
    assert sparse.evidence.probe is not None
    assert sparse.evidence.probe.problem == ""


@pytest.mark.parametrize("name", ["feature_importance.csv", "model.pkl", *PLOTS])
def test_the_same_inputs_give_the_same_bytes(built: Bundle, sparse: Bundle, name: str) -> None:
    assert digest(Path(built.folder, "artifacts", name)) == digest(Path(sparse.folder, "artifacts", name))


@pytest.mark.parametrize("name", PLOTS)
def test_the_pictures_hold_pixels_and_nothing_else(built: Bundle, name: str) -> None:
    data = Path(built.folder, "artifacts", name).read_bytes()
    assert struct.unpack(">II", data[16:24]) == SIZE
    assert not [kind for kind in (b"tEXt", b"zTXt", b"iTXt", b"tIME") if kind in data]


# What stands against a build. Each source is made beside the good ones.


@pytest.fixture
def write(sources: Path) -> Write:
    def writing(name: str, content: bytes) -> str:
        (sources / name).write_bytes(content)
        return name

    return writing


@pytest.fixture
def refused(sources: Path, tmp_path: Path) -> Callable[..., str]:
    """Builds in vain, and shows that nothing but the folder was written to."""

    def refusing(**production: Any) -> str:
        before = state(sources)
        source = attempt(sources, tmp_path, **production)
        assert source.bundle is None
        assert "\n" not in source.problem
        assert state(sources) == before
        return source.problem

    return refusing


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        (["model"], "products.production.model"),
        (["predictions"], "products.production.predictions"),
        (["threshold"], "products.production.threshold"),
        (["model", "threshold"], "products.production.model and products.production.threshold"),
    ],
)
def test_what_the_settings_do_not_name_is_told(refused: Callable[..., str], missing: list[str], named: str) -> None:
    problem = refused(**dict.fromkeys(missing))
    assert problem == f"the settings do not name {named} for product credit: a production run is built from them"


@pytest.mark.parametrize("role", ["model", "predictions"])
def test_a_source_that_is_not_there_is_told(refused: Callable[..., str], role: str) -> None:
    assert (
        refused(**{role: "gone/x"}) == f"gone/x (products.production.{role}) cannot be read: no such file or directory"
    )


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


def test_a_hostile_pickle_is_never_loaded(
    refused: Callable[..., str], write: Write, tmp_path_factory: pytest.TempPathFactory
) -> None:
    marker = tmp_path_factory.mktemp("marker") / "was loaded"
    content = pickle.dumps(Hostile(marker))
    problem = refused(model=write("hostile.pkl", content))
    assert problem.startswith("hostile.pkl is not safe to load: ")
    assert "system" in problem
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()


def numbers(rows: int = 60) -> pd.DataFrame:
    return pd.DataFrame(np.random.default_rng(1).normal(size=(rows, 3)), columns=["a", "b", "c"])


def fitted(frame: pd.DataFrame, target: Any) -> LGBMClassifier:
    return LGBMClassifier(n_estimators=2, num_leaves=3, min_child_samples=2, n_jobs=1, verbosity=-1).fit(frame, target)


REGRESSION = (
    "unfit.pkl holds a sklearn.linear_model._logistic.LogisticRegression, and a production model must be "
    "a lightgbm.LGBMClassifier"
)


def test_what_the_other_process_says_is_told(refused: Callable[..., str], write: Write) -> None:
    content = pickle.dumps(LogisticRegression().fit(numbers(), numbers()["a"] > 0))
    assert refused(model=write("unfit.pkl", content)) == REGRESSION


def test_a_pickle_that_is_cut_short_is_told(refused: Callable[..., str], write: Write) -> None:
    assert refused(model=write("short.pkl", materials()[0][:-10])).startswith("short.pkl is not safe to load: ")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (LogisticRegression, REGRESSION),
        (
            lambda: fitted(numbers(), [0, 1, 2] * 20),
            "unfit.pkl holds a classifier of 3 classes, and a production model must have 2",
        ),
        (LGBMClassifier, "unfit.pkl holds an LGBMClassifier that was never fitted"),
    ],
    ids=["another class", "three classes", "unfitted"],
)
def test_a_pickle_that_holds_no_production_model_is_told(tmp_path: Path, make: Callable[[], Any], problem: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(make()))
    with pytest.raises(ComplianceError) as told:
        loaded(str(path), "unfit.pkl")
    assert str(told.value) == problem


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"no pickle", "unfit.pkl: unpickling failed: "),
        (
            b"cno_such_library\nModel\n.",
            "unfit.pkl: a library that it needs is not installed here: No module named 'no_such_library'",
        ),
    ],
)
def test_a_pickle_that_cannot_be_unpickled_is_told(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "model.pkl").write_bytes(content)
    with pytest.raises(ComplianceError) as told:
        loaded(str(tmp_path / "model.pkl"), "unfit.pkl")
    assert str(told.value).startswith(problem)


def test_a_model_that_takes_no_numbers_is_told() -> None:
    model = fitted(numbers().assign(a=pd.Categorical(["x", "y"] * 30)), [0, 1] * 30)
    with pytest.raises(ComplianceError, match=r"^unfit\.pkl: scoring rows of numbers failed: "):
        predicted(model, numbers(), "unfit.pkl")


def test_predictions_that_cannot_be_scored_are_told_before_anything_is_loaded(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    assert refused(probability="SCORE") == "predictions.parquet has no column SCORE; it has TARGET, PROBABILITY"
    assert not (tmp_path / "model").exists()


def test_a_build_that_takes_too_long_is_told(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    product = Product(name="credit", production=ProductionSettings.model_validate(PRODUCTION))
    (tmp_path / "first").mkdir()
    source = build(product, sources, ModelSettings(time_limit=0.01), str(tmp_path / "first"))
    assert source.problem.startswith("predictions.parquet cannot be scored: the process that reads it")
    assert source.problem.endswith("did not finish within 0.01 s")
    monkeypatch.setattr(bundling, "score_apart", lambda path, wanted, _: score(path, **wanted._asdict()))
    source = build(product, sources, ModelSettings(time_limit=0.01), str(tmp_path))
    assert source == Source(problem="no MLflow model can be built from models/model.pkl: did not finish within 0.01 s")


def test_a_folder_that_cannot_be_written_to_is_told(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "request.json").mkdir()
    source = attempt(sources, tmp_path)
    assert source == Source(problem=f"the production run of credit could not be built in {tmp_path}: is a directory")


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame({"FEATURE_0": [1.0]}),
        pd.DataFrame({name: ["text"] for name in FEATURES}),
        pd.DataFrame({name: [] for name in FEATURES}),
        None,
    ],
    ids=["other columns", "text", "no rows", "no file"],
)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_features_that_cannot_be_an_example_give_zeros(tmp_path: Path, rows: pd.DataFrame | None, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    if rows is not None:
        rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
    frame, origin = example_of(str(path), FEATURES)
    assert origin == "synthetic"
    assert frame.to_numpy().tolist() == [[0.0] * len(FEATURES)] * 5


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_features_of_any_kind_of_number_are_an_example(tmp_path: Path, suffix: str) -> None:
    rows = pd.DataFrame(
        {
            "ROW": range(9),
            "own car": [True, False] * 4 + [True],
            "age": range(9),
            "void": [np.nan] * 9,
            "income": ["1.5"] * 9,
        }
    )
    path = tmp_path / f"rows.{suffix}"
    rows.to_csv(path, index=False) if suffix == "csv" else rows.to_parquet(path)
    frame, origin = example_of(str(path), ["income", "own_car", "age", "void"])
    assert origin == "recorded"
    assert set(map(str, frame.dtypes)) == {"float64"}
    assert frame.drop(columns="void").to_numpy().tolist() == [[1.5, float(row % 2 == 0), row] for row in range(5)]
    assert frame["void"].isna().all()


# The pictures' numbers.


@pytest.fixture(scope="module")
def rolled() -> tuple[Any, Any]:
    dice = np.random.default_rng(3)
    probability = dice.integers(0, 21, 200) / 20
    return (dice.random(200) < probability).astype(float), probability


@pytest.mark.parametrize("chosen", [0.0, 0.1, 0.37, 0.5, 1.0])
def test_the_curve_is_the_cost_at_every_threshold(rolled: tuple[Any, Any], chosen: float) -> None:
    target, probability = rolled

    def cost(threshold: float) -> float:
        decided = probability >= threshold
        return float(10 * (target[~decided] == 1).sum() + (target[decided] == 0).sum())

    found = costs_by_threshold(target, probability, chosen, **COSTS)
    assert found.costs.tolist() == [cost(threshold) for threshold in found.thresholds]
    assert found.chosen == (chosen, cost(chosen))
    assert found.cheapest[1] == min(cost(threshold) for threshold in [*found.thresholds, *probability])
    assert cost(found.cheapest[0]) == found.cheapest[1]
    assert {chosen, found.cheapest[0], 0.0, 1.0} <= set(found.thresholds)


def test_a_chosen_threshold_is_the_cheapest_where_no_other_is_cheaper(rolled: tuple[Any, Any]) -> None:
    target, probability = rolled
    best = costs_by_threshold(target, probability, 0.9, **COSTS).cheapest
    assert costs_by_threshold(target, probability, best[0] - 0.01, **COSTS).cheapest == (best[0] - 0.01, best[1])


def test_a_picture_comes_from_its_numbers_alone(built: Bundle, tmp_path: Path) -> None:
    """Drawn here, in somebody's style, they are what another process drew."""
    import matplotlib as mpl

    predictions, scored = materials()[1], built.evidence.scored
    assert scored is not None
    target, probability = (predictions[name].to_numpy(dtype=float) for name in ("TARGET", "PROBABILITY"))
    curve = costs_by_threshold(target, probability, THRESHOLD, **COSTS)
    with mpl.rc_context({"font.size": 30, "figure.facecolor": "red", "savefig.dpi": 20, "lines.linewidth": 9}):
        before = dict(mpl.rcParams)
        draw_confusion_matrix(str(tmp_path / PLOTS[0]), scored.values, threshold=THRESHOLD, target="TARGET")
        draw_threshold_curve(str(tmp_path / PLOTS[1]), curve, rows=len(target), **COSTS)
        assert dict(mpl.rcParams) == before
    assert [digest(tmp_path / name) for name in PLOTS] == [
        digest(Path(built.folder, "artifacts", name)) for name in PLOTS
    ]
