"""--compliance-init: settings are written from what the store shows, guesses stay comments, nothing is written over."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from gates import CHECKOUT, POLICIES, Gate, state, told
from stores import BIG, Lab

from mlflow_compliance.settings.schema import Settings, load_settings

HOSTILE = "a \"b\" \\ 'c'\n[store]\nx = 1 # \x1b[31m \u202e [*?] é production"
STORES = CHECKOUT.parent / "shared" / "data" / "stores"


@pytest.fixture(autouse=True)
def _without_settings(gate: Gate) -> None:
    """The gate's folder holds none; it is where the command is given."""
    (gate.folder / "compliance.toml").unlink(missing_ok=True)


def init(gate: Gate, lab: Lab, *flags: str, ret: int = 0) -> str:
    result = gate("--compliance-init", f"--tracking-uri={lab.uri}", *flags, rules=())
    text = told(result)
    assert result.ret == ret, text
    return text


def written(gate: Gate) -> tuple[str, Settings]:
    path = gate.folder / "compliance.toml"
    return path.read_text("utf-8"), load_settings(path)


def with_signs_off(path: Path, lines: Sequence[str]) -> Settings:
    """The settings when all that waits for a word has got it."""
    path.write_text("\n".join(line[1:] if line.startswith("#") and line[1:2] != " " else line for line in lines))
    return load_settings(path)


def full(lab: Lab) -> None:
    """A store that shows three products in three ways, rivals, scratch work, and work of which nothing is said."""
    live = lab.experiment("prices_live")
    run_id = lab.run(live, "trained", metrics={"auc": 0.8})
    lab.registered("prices", f"models:/{lab.model(live, run_id)}", run_id, alias="champion")
    lab.registered("churn", str(lab.folder / "x"))
    lab.client.transition_model_version_stage("churn", "1", "Production")
    lab.registered("scratch model", str(lab.folder / "x"))
    lab.run(lab.experiment("risk_production"), "in force", stage="production")
    lab.experiment("risk_final_delivery")
    lab.run(lab.experiment("test_scratch"))
    for number in range(3):
        lab.run(lab.experiment(f"tuning {number}"), status="RUNNING")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_products_are_written_and_guesses_are_comments(gate: Gate, lab: Lab) -> None:
    full(lab)
    before = state(lab.folder)
    said = init(gate, lab)
    assert state(lab.folder) == before, "the store is only read"
    text, settings = written(gate)
    prices, churn, risk = (next(item for item in settings.products if item.name == name) for name in PRODUCTS)
    assert len(settings.products) == len(PRODUCTS)
    assert (prices.production_by, prices.primary, prices.production.registered_model, prices.production.alias) == (
        "alias",
        "prices_live",
        "prices",
        "champion",
    )
    assert (churn.production_by, churn.production.registered_model) == ("tags", "churn")
    assert (risk.primary, risk.production_names) == (None, ("risk_production", "risk_final_delivery"))
    assert settings.experiments.model_fields_set == set(), "tests and development work are for people to say"
    for comment in (
        "# alias champion of registered model prices names version 1",
        "# version 1 of registered model churn has the stage Production",
        "# run in force of experiment risk_production has the tag stage=production",
        '#primary = "risk_production"',
        '#primary = "risk_final_delivery"',
        '#required_metrics = ["auc"]',
        '#"test_scratch",',
        '#"tuning 0",',
        "# - 3 runs RUNNING",
        "# - 1 registered model in no product, since nothing says that they are in production: scratch model",
    ):
        assert comment in text.splitlines() or any(line.startswith(comment) for line in text.splitlines()), comment
    assert "products: 3 (churn, prices, risk)" in said
    assert "to decide: which experiment is the production of risk" in said
    assert "1 experiment named like tests, 3 experiments of which nothing says what they are" in said
    assert said.rstrip().endswith("read it, then run: pytest --pyargs mlflow_compliance.policies")


PRODUCTS = ("prices", "churn", "risk")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_waits_for_a_word_is_right_when_its_sign_is_taken_off(gate: Gate, lab: Lab) -> None:
    full(lab)
    init(gate, lab)
    path = gate.folder / "compliance.toml"
    lines = path.read_text("utf-8").splitlines()
    taken = [line for line in lines if line != '#primary = "risk_final_delivery"']
    settings = with_signs_off(path, taken)
    assert settings.experiments.test_names == ("test_scratch",)
    assert settings.experiments.development == ("tuning 0", "tuning 1", "tuning 2")
    assert [item.primary for item in settings.products if item.name == "risk"] == ["risk_production"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_gate_runs_with_it_as_it_stands(gate: Gate, lab: Lab) -> None:
    full(lab)
    init(gate, lab)
    result = gate(
        "--compliance-rules=EXP*,PRD008,REG*,RUN002", "--compliance-report=json:found.json", rules=(POLICIES,)
    )
    assert result.ret == 1, told(result)
    found = {
        (item["policy"], problem["code"])
        for item in json.loads((gate.folder / "found.json").read_text())["results"]
        for problem in item["findings"]
    }
    assert found >= {
        ("EXP001", "several-productions"),
        ("EXP002", "named-like-a-test"),
        ("EXP003", "unclassified"),
        ("REG001", "alias-does-not-resolve"),
    }
    assert not {policy for policy, _ in found} & {"PRD008", "REG006"}


@pytest.mark.parametrize("flags", [["-n", "2"], ["-q"], ["--collect-only"], ["--compliance-metadata-only"]], ids=str)
def test_other_flags_do_no_harm(gate: Gate, lab: Lab, flags: Sequence[str]) -> None:
    lab.run(lab.experiment("credit_production"), stage="production")
    assert "products: 1 (credit_production)" in init(gate, lab, *flags)
    text, settings = written(gate)
    assert [item.primary for item in settings.products] == ["credit_production"]
    assert ("no file was looked at" in text) == ("--compliance-metadata-only" in flags)


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_nothing_is_written_over(gate: Gate, lab: Lab, kind: str) -> None:
    path = gate.folder / "compliance.toml"
    if kind == "file":
        path.write_text("# mine\n")
    elif kind == "link":
        path.symlink_to(gate.folder / "nowhere")
    else:
        path.mkdir()
    before = state(gate.folder)
    said = init(gate, lab, ret=4)
    assert "ERROR: compliance.toml is there, and --compliance-init writes over nothing" in said
    assert state(gate.folder) == before


def test_a_table_in_pyproject_is_not_hidden(gate: Gate, lab: Lab) -> None:
    (gate.folder / "pyproject.toml").write_text("[tool.mlflow-compliance]\n")
    assert "the settings are in pyproject.toml, and compliance.toml would hide them" in init(gate, lab, ret=4)
    assert not (gate.folder / "compliance.toml").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--compliance-config=none/rules.toml"], "there is no folder none to write rules.toml to"),
        (["--compliance-config=pyproject.toml"], "writes a file of its own and not into pyproject.toml"),
        (["--fix"], "--compliance-init and --fix exclude each other"),
        (["--fix-journals"], "--compliance-init and --fix-journals exclude each other"),
        (["--tracking-uri=sqlite:////nowhere/mlflow.db"], "there is no database at"),
        (["--tracking-uri=sqlite:///notes.txt"], "notes.txt"),
        (["--tracking-uri=http://127.0.0.1:9"], "127.0.0.1:9"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_told_in_one_sentence(gate: Gate, lab: Lab, flags: Sequence[str], said: str) -> None:
    (gate.folder / "notes.txt").write_text("no database")
    before = state(gate.folder)
    text = init(gate, lab, *flags, ret=4)
    assert said in text
    assert len([line for line in text.splitlines() if line.startswith("ERROR: ")]) == 1
    assert state(gate.folder) == before


@pytest.mark.skipif(not os.path.isdir("/proc/sys"), reason="needs a folder that takes no files, also of root")
def test_a_folder_that_takes_no_files(gate: Gate, lab: Lab) -> None:
    text = init(gate, lab, "--compliance-config=/proc/sys/rules.toml", ret=4)
    assert "/proc/sys/rules.toml c" in text
    assert "could not be written" in text or "cannot be written" in text


def test_settings_elsewhere(gate: Gate, lab: Lab) -> None:
    """Paths in them start from where they lie, and the next command names them."""
    said = init(gate, lab, f"--compliance-config={lab.folder / 'my rules.toml'}")
    path = lab.folder / "my rules.toml"
    assert f"--compliance-config='{path}'" in said
    assert load_settings(path).store.tracking_uri == "sqlite:///mlflow.db"
    assert load_settings(path).store.resolved_uri(lab.folder) == lab.uri


def test_without_a_name_of_the_store(gate: Gate, lab: Lab) -> None:
    """MLflow itself would take the database in this folder."""
    text = told(gate("--compliance-init", rules=()))
    assert "no store is named, and neither mlflow.db nor mlruns is in this folder" in text
    assert not (gate.folder / "mlflow.db").exists()
    shutil.copyfile(lab.database, gate.folder / "mlflow.db")
    assert gate("--compliance-init", rules=()).ret == 0
    assert written(gate)[1].store.tracking_uri == "sqlite:///mlflow.db"


def test_an_empty_store_is_none_without_production(gate: Gate, lab: Lab) -> None:
    init(gate, lab)
    text, settings = written(gate)
    assert settings.says_products is False, "that there is none is for people to say"
    assert "\n#products = []\n" in text
    path = gate.folder / "compliance.toml"
    path.write_text(text.replace("\n#products", "\nproducts"))
    assert load_settings(path).says_products


def test_names_that_would_break_out_of_their_quotes(gate: Gate, lab: Lab) -> None:
    key = lab.experiment(HOSTILE)
    lab.run(key, HOSTILE, stage="production")
    for name in ("[a] *", "[a] b", 'test_"\n[products]', "trial [1]\\", "trial [2]", "trial [3]"):
        lab.run(lab.experiment(name))
    said = init(gate, lab)
    text, settings = written(gate)
    (product,) = settings.products
    assert product.primary == HOSTILE
    experiments = lab.read(artifacts=False).experiments
    assert [key for key, item in experiments.items() if product.covers(item)] == [key]
    assert all(line.isprintable() for line in (*text.splitlines(), *said.splitlines()))
    again = with_signs_off(gate.folder / "compliance.toml", text.splitlines())
    assert {item.name for item in experiments.values() if again.is_test(item)} == {'test_"\n[products]'}
    developed = {item.name for item in experiments.values() if again.is_development(item)}
    assert developed == {"[a] *", "[a] b", "trial [1]\\", "trial [2]", "trial [3]"}


def test_moved_files_are_found_by_their_ids(gate: Gate, lab: Lab) -> None:
    lab.run(lab.experiment("work", lifecycle="reference"), files={"a.bin": BIG})
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        lab.sql(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", str(lab.folder), "file:///D:/old")
    path = lab.folder / "compliance.toml"
    init(gate, lab, f"--compliance-config={path}")
    assert load_settings(path).store.relocate == {"file:///D:/old/mlruns": "mlruns"}
    result = gate("--compliance-rules=ART003", f"--compliance-config={path}", f"--compliance-report=json:{path}.json")
    findings = [item["findings"] for item in json.loads(Path(f"{path}.json").read_text())["results"]]
    assert "cannot be reached" not in json.dumps(findings), told(result)


def test_three_hundred_experiments_stay_readable(gate: Gate, lab: Lab) -> None:
    statement = (
        "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, creation_time, workspace) "
    )
    statement += "VALUES (?, ?, ?, 'active', 0, 'default')"
    for number in range(300):
        team, area = ("fraud", "credit", "churn")[number % 3], ("lgbm", "xgb")[number % 2]
        lab.sql(statement, 100 + number, f"{team}-{area}-{number:03d}", str(lab.mlruns / str(100 + number)))
    said = init(gate, lab)
    text, _ = written(gate)
    assert "300 experiments of which nothing says what they are" in said
    assert len(said.strip().splitlines()) <= 10
    assert len(text.splitlines()) <= 60
    assert '#"fraud-lgbm-*",  # 50 experiments' in text


@pytest.mark.parametrize("name", ["sqlite_zoomcamp", "filestore_credit_risk"])
def test_real_stores(gate: Gate, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    if not STORES.is_dir():
        pytest.skip(f"needs the real stores in {STORES}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    before = state(STORES)
    uri = f"sqlite:///{STORES}/{name}/mlflow.db" if name == "sqlite_zoomcamp" else f"{STORES}/{name}/mlruns"
    result = gate("--compliance-init", f"--tracking-uri={uri}", rules=())
    assert result.ret == 0, told(result)
    _, settings = written(gate)
    (folder,) = settings.store.relocate.values()
    assert Path(folder).samefile(STORES / name / "mlruns")
    assert [item.production.registered_model for item in settings.products] == ["nyc-taxi-model"][
        : name == "sqlite_zoomcamp"
    ]
    assert gate("--compliance-rules=EXP*,PRD008,ART003", rules=(POLICIES,)).ret == 1
    assert state(STORES) == before
