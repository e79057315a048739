"""File stores with files that MLflow cannot read: one finding each, that names the user's own file, and the rest is
audited as ever.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from gates import POLICIES, Gate, state, told
from mlflow import MlflowClient
from mlflow.entities import TraceInfo, TraceLocation, TraceState

FILE = re.compile(r"^ STO005 \w+ +file (\S+): (it .*)$", re.MULTILINE)


@dataclass
class Files:
    """A file store: experiment `kept` with a run, experiment `spoilt` with two, a logged model, a trace's and a
    registered model's rows.
    """

    root: Path
    client: MlflowClient
    kept: Path
    spoilt: Path
    run: Path
    model: Path

    @property
    def meta(self) -> Path:
        return self.run / "meta.yaml"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("file_store")
    code = """
import sys, mlflow
from mlflow import MlflowClient
place = "file://" + sys.argv[1] + "/mlruns"
client = MlflowClient(tracking_uri=place, registry_uri=place)
for name, runs in (("kept", 1), ("spoilt", 2)):
    key = client.create_experiment(name, tags={"lifecycle": "reference"})
    for number in range(runs):
        run = client.create_run(key, run_name=f"{name} {number}").info.run_id
        client.log_metric(run, "auc", 0.5, step=1); client.log_metric(run, "auc", 0.75, step=2)
        client.log_param(run, "depth", "3"); client.set_tag(run, "owner", "ann")
        client.log_text(run, "evidence " * 300 + name + str(number), "report.txt")
        client.set_terminated(run)
    client.create_logged_model(key, name="model", source_run_id=run, tags={"a": "b"}, params={"depth": "3"})
client.create_registered_model("credit"); client.create_model_version("credit", "file:///nowhere", run)
"""
    environment = {"MLFLOW_ALLOW_FILE_STORE": "true", "PATH": "/usr/bin:/bin"}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder)], check=True, env=environment, capture_output=True
    )
    return folder / "mlruns"


@pytest.fixture
def files(built: Path, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    root = tmp_path / "mlruns"
    shutil.copytree(built, root)
    for meta in root.rglob("meta.yaml"):
        meta.write_text(meta.read_text().replace(str(built), str(root)))
    homes = {
        yaml.safe_load((path / "meta.yaml").read_text())["name"]: path for path in root.iterdir() if path.name.isdigit()
    }
    spoilt = homes["spoilt"]
    run = min(path for path in spoilt.iterdir() if (path / "metrics").is_dir() and path.name != "models")
    gate.settings(str(root))
    return Files(
        root, MlflowClient(tracking_uri=root.as_uri()), homes["kept"], spoilt, run, next((spoilt / "models").iterdir())
    )


def said(gate: Gate, *flags: str) -> tuple[dict[str, str], str]:
    """Path -> what STO005 says of it, and all that was told; never a path of a copy."""
    result = gate(
        *(flags or ("-k", "ART002 or EXP003 or STO")),
        rules=[f"{POLICIES}/test_{name}.py" for name in ("artifacts", "experiments", "store")],
    )
    text = told(result)
    assert "/mlflow-compliance-" not in text
    found = FILE.findall(text)
    assert len(found) == len(dict(found))
    assert result.ret == (1 if found else 0)
    return dict(found), text


def _latin(path: Path) -> None:
    path.write_bytes("größer".encode("latin-1"))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(200))  # what a journalling file system leaves after a power cut


def _broken(path: Path) -> None:
    path.write_text("experiment_id: '1'\n: [broken")


def _list(path: Path) -> None:
    path.write_text("- 1\n- 2\n")


def _conflict(path: Path) -> None:
    path.write_text("<<<<<<< HEAD\n" + path.read_text() + "=======\n>>>>>>> other\n")


def _short(path: Path) -> None:
    path.write_text("\n".join(path.read_text().splitlines()[:1]) + "\n")


def _gone(path: Path) -> None:
    path.unlink()


def _of_another(path: Path) -> None:
    path.write_text(re.sub(r"experiment_id: .*", "experiment_id: '77'", path.read_text()))


METAS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (_gone, "it is not there"),
    "empty": (_empty, "it is empty"),
    "zeros": (_zeros, "it holds nothing but blanks"),
    "broken": (_broken, "it is not YAML"),
    "a list": (_list, "it is not a mapping"),
    "a conflict of git's": (_conflict, "it is not YAML"),
    "cut short": (_short, "it lacks"),
    "not UTF-8": (_latin, "it is not UTF-8 text"),
    "of another": (_of_another, "it names"),
}


OWNERS = ("experiment", "run", "model")


@pytest.mark.parametrize(
    ("kind", "owner"),
    # A folder without rows below models/ may be anything.
    [(kind, owner) for kind in METAS for owner in OWNERS if (kind, owner) != ("missing", "model")],
)
def test_a_meta_yaml_that_cannot_be_read(gate: Gate, files: Files, kind: str, owner: str) -> None:
    spoil, words = METAS[kind]
    path = {"experiment": files.spoilt, "run": files.run, "model": files.model}[owner] / "meta.yaml"
    spoil(path)
    before = state(files.root)
    found, text = said(gate)
    assert list(found) == [str(path)]
    assert found[str(path)].startswith(words)
    assert "ownerless" not in text
    assert "owns it" not in text, "its folder has an owner that cannot be read"
    runs = {"experiment": 1, "run": 2, "model": 3}[owner]
    assert f"runs: {runs} ({runs} FINISHED)" in text, "everything else is audited"
    assert ("its runs would be left without an experiment; found: 2 runs" in text) == (owner == "experiment")
    assert state(files.root) == before


VALUES: dict[str, tuple[str, Callable[[Path], None], str, str]] = {
    "empty metric": ("metrics/auc", _empty, "it is empty", "high"),
    "a metric that is not UTF-8": ("metrics/auc", _latin, "it is not UTF-8 text", "high"),
    "a metric of words": (
        "metrics/auc",
        lambda path: path.write_text("one two three\n") and None,
        "it has 1 of 1 lines that hold no point",
        "high",
    ),
    "a metric with one bad line": (
        "metrics/auc",
        lambda path: path.write_text(path.read_text() + "17\n") and None,
        "it has 1 of 3 lines that hold no point (line 3 is the first)",
        "high",
    ),
    "a metric that was cut within a line": (
        "metrics/auc",
        lambda path: path.write_text(path.read_text()[:-12]) and None,
        "it has 1 of 2 lines that hold no point",
        "high",
    ),
    "a param that is not UTF-8": ("params/depth", _latin, "it is not UTF-8 text", "high"),
    "a tag that is not UTF-8": ("tags/owner", _latin, "it is not UTF-8 text", "high"),
    "empty param": ("params/depth", _empty, "it is empty", "low"),
    "empty tag": ("tags/owner", _empty, "it is empty", "low"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_that_cannot_be_read(gate: Gate, files: Files, kind: str) -> None:
    name, spoil, words, severity = VALUES[kind]
    spoil(files.run / name)
    before = state(files.root)
    found, text = said(gate)
    assert list(found) == [str(files.run / name)]
    assert found[str(files.run / name)].startswith(words)
    assert "runs: 3 (3 FINISHED)" in text, "the run itself is there"
    low = told(gate("-k", "STO005", "--tb=no", rules=[f"{POLICIES}/test_store.py"])).partition("= compliance =")[2]
    assert ("if that is what was logged" in low) == (severity == "low")
    assert state(files.root) == before


@pytest.mark.parametrize(
    ("place", "spoil"),
    [
        ("experiment/tags/lifecycle", _latin),
        ("model/tags/a", _latin),
        ("model/params/depth", _latin),
        ("registry/meta.yaml", _broken),
        ("registry/version-1/meta.yaml", _empty),
    ],
)
def test_rows_of_other_kinds(gate: Gate, files: Files, place: str, spoil: Callable[[Path], None]) -> None:
    owner, _, name = place.partition("/")
    path = {"experiment": files.spoilt, "model": files.model, "registry": files.root / "models" / "credit"}[
        owner
    ] / name
    spoil(path)
    assert list(said(gate)[0]) == [str(path)]


def test_many_at_once_are_each_told_and_none_is_repaired(gate: Gate, files: Files) -> None:
    paths = [files.kept / "meta.yaml", files.meta, files.model / "params" / "depth"]
    for path, spoil in zip(paths, (_empty, _broken, _latin), strict=True):
        spoil(path)
    before = state(files.root)
    assert sorted(said(gate, "--fix")[0]) == sorted(map(str, paths))
    assert state(files.root) == before


def test_damage_is_told_whatever_was_selected(gate: Gate, files: Files) -> None:
    """No other rule sees such a run: a selection of them would be green by absence."""
    _broken(files.meta)
    assert list(said(gate, "-k", "EXP002")[0]) == [str(files.meta)]


def test_an_ordinary_file_store_has_none(gate: Gate, files: Files) -> None:
    found, text = said(gate, "-v", "-k", "ART002 or EXP003 or STO")
    assert found == {}
    assert "test_every_row_can_be_read PASSED" in text
    assert "test_schema_is_that_of_the_installed_mlflow NOT APPLICABLE" in text


def test_what_lies_in_the_trash_is_deleted_whatever_it_says(gate: Gate, files: Files) -> None:
    files.client.delete_experiment(files.spoilt.name)
    meta = files.root / ".trash" / files.spoilt.name / "meta.yaml"
    meta.write_text(meta.read_text().replace("lifecycle_stage: deleted", "lifecycle_stage: active"))
    _, text = said(gate)
    assert "experiments: 2 active, 1 deleted" in text
    assert "experiment spoilt" not in text


def test_what_deleted_runs_hold_and_traces_without_rows(gate: Gate, files: Files) -> None:
    """A file store says when a run was deleted; the folder of a trace that has no trace_info.yaml has no row."""
    files.client.delete_run(files.run.name)
    place = TraceLocation.from_experiment_id(files.kept.name)
    key = f"tr-{'0' * 32}"
    files.client._tracking_client.store.start_trace(TraceInfo(key, place, 5, TraceState.IN_PROGRESS))
    lost = files.kept / "traces" / f"tr-{'1' * 32}"
    for trace in (files.kept / "traces" / key, lost):
        (trace / "artifacts").mkdir(parents=True, exist_ok=True)
        (trace / "artifacts" / "traces.json").write_text("{}")
    rules = [f"{POLICIES}/test_{name}.py" for name in ("runs", "traces")]
    text = told(gate("-k", "deleted_runs or traces", rules=rules))
    assert re.search(r"deleted runs hold \d+ bytes: \d+ by 1 deleted less than 30 days ago", text)
    assert "experiment kept: 1 trace in progress for more than 24 hours" in text
    assert f"1 folder with 1 file, 2 bytes, in mlruns/{files.kept.name}/traces, such as {lost.name}" in text


@pytest.mark.parametrize("thrown", ["a run", "a run without its meta.yaml", "an experiment without its meta.yaml"])
def test_a_broken_entry_of_the_trash_is_one_finding(gate: Gate, files: Files, thrown: str) -> None:
    trash = files.root / ".trash"
    trash.mkdir(exist_ok=True)
    if thrown == "an experiment without its meta.yaml":
        (files.spoilt / "meta.yaml").unlink()
        shutil.move(files.spoilt, trash)
        expected = [str(trash / files.spoilt.name / "meta.yaml")]
    else:
        expected = [str(trash / files.run.name / "meta.yaml")]
        if thrown == "a run without its meta.yaml":
            files.meta.unlink()
            expected = []  # nobody can tell it from anything else that was thrown there
        shutil.move(files.run, trash)
    assert list(said(gate)[0]) == expected


@pytest.mark.parametrize("elsewhere", ["elsewhere", "mlruns/elsewhere"])
def test_an_experiments_own_folder_is_its_own_wherever_its_artifacts_lie(
    gate: Gate, files: Files, tmp_path: Path, elsewhere: str
) -> None:
    key = files.client.create_experiment(
        "far", artifact_location=str(tmp_path / elsewhere), tags={"lifecycle": "reference"}
    )
    run = files.client.create_run(key).info.run_id
    files.client.log_text(run, "x", "x.txt")
    files.client.set_terminated(run)
    found, text = said(gate)
    assert found == {}
    assert "owns it" not in text


def test_a_migrated_store_keeps_what_the_migration_left(gate: Gate, files: Files, tmp_path: Path) -> None:
    """STO001 told the runs beforehand; afterwards they have rows without an experiment, and nothing of them is
    anybody's stray.
    """
    (files.spoilt / "meta.yaml").unlink()
    lost = files.kept / next(
        path.name for path in files.kept.iterdir() if (path / "metrics").is_dir() and path.name != "models"
    )
    (lost / "meta.yaml").unlink()
    database = tmp_path / "new.db"
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "mlflow",
        "migrate-filestore",
        "--source",
        str(files.root),
        "--target",
        f"sqlite:///{database}",
    ]
    subprocess.run(command, check=True, capture_output=True)
    with closing(sqlite3.connect(database)) as connection:
        without = connection.execute(
            "SELECT COUNT(*) FROM runs WHERE experiment_id NOT IN (SELECT experiment_id FROM experiments)"
        ).fetchone()
    assert without == (2,)
    gate.settings(f"sqlite:///{database}")
    before = state(files.root)
    result = gate("--fix", "-k", "ART002 or STO002")
    assert result.ret == 1
    assert "rows of runs whose experiments are not there; found: 2 rows" in told(result)
    assert f"artifact mlruns/{files.spoilt.name}" not in told(result)
    assert state(files.root) == before
