"""Two real stores that nobody made for this program: what is wrong with them is found, nothing else is said, and
nothing is changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from gates import CHECKOUT, POLICIES, ROW, Gate, state, told

from mlflow_compliance.safe_text import LIMIT
from mlflow_compliance.store.backends.sql_schema import installed_revisions

STORES = CHECKOUT.parent / "shared" / "data" / "stores"
ZOOMCAMP, CREDIT_RISK = STORES / "sqlite_zoomcamp", STORES / "filestore_credit_risk"
THERE = {
    ZOOMCAMP: ("file:///D:/code/nda-mlops-zoomcamp-2024/week-02/mlruns", ZOOMCAMP / "mlruns"),
    CREDIT_RISK: ("file:///C:/MachineLearning/credit-risk-engine/mlruns", CREDIT_RISK / "mlruns"),
}
STUCK = (
    "run sneaky-mouse-871: still RUNNING; found: nothing logged since 2024-06-08 11:14 UTC; expected: ended "
    "within 24 hours (built in)"
)
LIFECYCLE = "expected: tag lifecycle with one of production, archived, development, staging, reference (built in)"
SCHEMAS = f"found: revision 5b0e9adcef9c; expected: revision {installed_revisions()[-1]} of MLflow {mlflow.__version__}"
ONE_COPY = "expected: 1 copy of what has 1024 bytes or more (built in)"
ZOOMCAMP_ROWS = [
    f"store sqlite:///{ZOOMCAMP}/mlflow.db: it has an older schema than the installed MLflow; {SCHEMAS}",
    STUCK,
    f"experiment nyc-taxi-experiment: not classified; found: 15 runs, lifecycle=None; {LIFECYCLE}",
    f"experiment my-experiment-1: not classified; found: 2 runs, lifecycle=None; {LIFECYCLE}",
]
REPEATED = ("4f2d312c1bba4240afc5e9a054a6585b", "6258fcd9060f49fb81c7bf21cae264d4", "9d56b8b7a1c145e28169e8c788f01d68")
REPEATED += ("9dcce824c38f487aa79a1d7a2cfbe5a3", "eb1a8892bcdd4109a1c4e56b47839b2d")
CREDIT_RISK_ROWS = [
    f"experiment Default: real work in MLflow's Default experiment; found: 2 runs, lifecycle=None; {LIFECYCLE}",
    f"experiment credit_risk_experiment: not classified; found: 4 runs, lifecycle=None; {LIFECYCLE}",
    *(f"run {run}: metric points written more than once; found: 1 repeats; expected: 0" for run in REPEATED),
]


@pytest.fixture(autouse=True)
def _untouched() -> Iterator[None]:
    if not STORES.is_dir():
        pytest.skip(f"needs the real stores in {STORES}")
    before = state(STORES)
    yield
    assert state(STORES) == before


def findings(gate: Gate, store: Path, monkeypatch: pytest.MonkeyPatch, *, relocated: bool) -> list[str]:
    """Every finding that the gate prints."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"sqlite:///{store}/mlflow.db" if store == ZOOMCAMP else str(store / "mlruns")
    prefix, folder = THERE[store]
    more = f'[store.relocate]\n"{prefix}" = {json.dumps(str(folder))}\n' if relocated else ""
    (gate.folder / "compliance.toml").write_text(f"[store]\ntracking_uri = {json.dumps(uri)}\n{more}")
    result = gate()
    assert result.ret == 1
    return [text for _, _, text in ROW.findall(told(result))]  # what there is to copy has a test of its own


def unreachable(experiments: str, rows: int, folder: str, prefix: str, here: str) -> str:
    why = f"the folder {folder} does not exist here; map it with [store.relocate]"
    # Shortened as it is shown.
    line = (
        f"place {prefix}: its artifacts cannot be reached: {why}; found: {rows} rows of {experiments} below "
        f"{prefix}; {here}"
    )
    return line if len(line) <= LIMIT else f"{line[: LIMIT - 1]}…"


def test_the_old_sqlite_store_as_it_is(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files lie on another machine's drive D:."""
    prefix, folder = THERE[ZOOMCAMP][0], "D:/code/nda-mlops-zoomcamp-2024/week-02"
    expected = [
        *ZOOMCAMP_ROWS,
        unreachable(
            "'nyc-taxi-experiment', 'my-experiment-1'",
            24,
            folder,
            prefix,
            f"the ids of 6 of 22 of them are in {ZOOMCAMP.resolve()}/mlruns",
        ),
    ]
    assert sorted(findings(gate, ZOOMCAMP, monkeypatch, relocated=False)) == sorted(expected)


def test_the_old_sqlite_store_relocated(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    run, registered = (
        "mlruns/1/821d9118ed7c4637bb3a0e020cc59e0d/artifacts",
        "mlruns/1/92025337761b47258bb509b166789a29/artifacts",
    )
    # A model that the run logged, by its own record; the run's artifact folder is not there.
    logged = "2/05e1247c0ded4579835ec988a587c5a2/artifacts/models"
    lost = f"its artifacts cannot be reached: the folder {ZOOMCAMP}/mlruns/{logged} does not exist here"
    missing = "found: missing: model.xgb; expected: every file that MLmodel names, none empty"
    expected = [
        *ZOOMCAMP_ROWS,
        f"artifact {run}/feature_importance_weight.json: stored 2 times; found: 6750 bytes too many; {ONE_COPY}",
        f"artifact {run}/feature_importance_weight.png: stored 2 times; found: 320488 bytes too many; {ONE_COPY}",
        (
            f"run_model 05e1247c0ded4579835ec988a587c5a2/models: {lost}; found: 1 row of 'my-experiment-1' below "
            f"{THERE[ZOOMCAMP][0]}/{logged}"
        ),
        f"model_folder {run}/model: an incomplete model; {missing}",
        f"model_folder {registered}/model: an incomplete model, registered as nyc-taxi-model/1; {missing}",
        f"model_folder {registered}/models_mlflow: an incomplete model; {missing}",
    ]
    assert 6750 + 320488 == 327_238
    assert sorted(findings(gate, ZOOMCAMP, monkeypatch, relocated=True)) == sorted(expected)


def test_the_file_store_as_it_is(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix, folder = THERE[CREDIT_RISK][0], "C:/MachineLearning/credit-risk-engine"
    expected = [
        *CREDIT_RISK_ROWS,
        unreachable(
            "'Default', 'credit_risk_experiment'",
            13,
            folder,
            prefix,
            f"the ids of 11 of 11 of them are in {CREDIT_RISK}/mlruns",
        ),
    ]
    assert sorted(findings(gate, CREDIT_RISK, monkeypatch, relocated=False)) == sorted(expected)


def test_the_file_store_relocated(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups of equal files among its models, 821,949 bytes too many; its models are complete."""
    found = findings(gate, CREDIT_RISK, monkeypatch, relocated=True)
    copies = [line for line in found if line.startswith("artifact ")]
    assert len(copies) == 2
    assert all("stored 2 times" in line and "/models/m-" in line for line in copies)
    assert sum(int(line.partition("found: ")[2].split()[0]) for line in copies) == 821_949
    assert sorted(line for line in found if line not in copies) == sorted(CREDIT_RISK_ROWS)


@pytest.mark.parametrize("store", [ZOOMCAMP, CREDIT_RISK], ids=["sqlite", "file store"])
def test_neither_is_repaired(gate: Gate, monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    findings(gate, store, monkeypatch, relocated=True)
    result = gate("--fix")
    assert result.ret == 4
    assert "nothing was changed" in told(result)


@pytest.mark.parametrize(
    ("store", "seen"),
    [(ZOOMCAMP, "alias"), (CREDIT_RISK, "products = []")],
    ids=["sqlite", "file store"],
)
def test_both_are_asked_what_is_in_production(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, store: Path, seen: str
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"sqlite:///{store}/mlflow.db" if store == ZOOMCAMP else str(store / "mlruns")
    (gate.folder / "compliance.toml").write_text(f"[store]\ntracking_uri = {json.dumps(uri)}\n")
    result = gate("--compliance-rules=PRD*,EXP001,SRV*", rules=(POLICIES,))
    text = told(result)
    assert result.parseoutcomes()["failed"] == 1 + (store == ZOOMCAMP), "its old schema is told in every run"
    assert "PRD008" in text
    assert seen in text


def test_a_file_store_says_what_mlflow_needs(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    result = gate(f"--tracking-uri={CREDIT_RISK / 'mlruns'}")
    assert result.ret == 4
    assert "set MLFLOW_ALLOW_FILE_STORE=true, or migrate it" in told(result)


def test_a_dry_run_says_that_the_repair_would_refuse(gate: Gate) -> None:
    """Its schema is an old one."""
    (gate.folder / "compliance.toml").write_text(f'[store]\ntracking_uri = "sqlite:///{ZOOMCAMP}/mlflow.db"\n')
    result = gate("--fix-dry-run")
    assert "--fix would not carry this plan out" in told(result)
