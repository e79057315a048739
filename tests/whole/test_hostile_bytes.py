"""Files that cost far more than they weigh, through the command line: each is one finding, and the audit goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gates import Gate, told
from stores import Lab

POLICIES = Path(__file__).parents[2] / "policies"
DEEP = "[" * 100_000 + "]" * 100_000
FLAT = "[" * 900 + "]" * 900
"""Json takes it; whoever walks through it stops half-way."""
MANY = "".join(f"a{level}: &a{level} {{{{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}}}\n" for level in range(1, 10))
MERGES = ("a0: &a0 {k0: v}\n" + MANY).replace("{{", "{").replace("}}", "}")
LISTS = MERGES.replace("<<: ", "k: ")
FLAVORS = "flavors:\n  sklearn: {pickled_model: model.pkl}\n"
SPARSE, LARGE = 1 << 39, 1 << 43


def model(mlmodel: str, **files: str) -> dict[str, bytes]:
    return {
        "model/MLmodel": mlmodel.encode(),
        "model/model.pkl": b"N.",
        **{f"model/{name.replace('_', '.')}": text.encode() for name, text in files.items()},
    }


def settings_of(gate: Gate, lab: Lab, predictions: Path, more: str = "") -> None:
    (gate.folder / "compliance.toml").write_text(
        f"[store]\ntracking_uri = {lab.uri!r}\n[models]\nmemory_limit = 1024\n{more}"
        f"[[products]]\nname = 'credit'\nprimary = 'credit_delivery'\nexperiments = ['credit_*']\n"
        f"[products.production]\npredictions = {str(predictions)!r}\nthreshold = 0.5\n"
    )


def bomb(path: Path) -> None:
    """A small file of a column whose one value, of a MiB, stands in every row."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["0" * (1 << 20)]))
    table = pa.table({"TARGET": text, "PROBABILITY": pa.array([0.5] * 3000)})
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 100_000


def test_each_is_a_finding_that_names_it(make_lab: Callable[..., Lab], gate: Gate, tmp_path: Path) -> None:
    lab, predictions = make_lab(), tmp_path / "predictions.parquet"
    bomb(predictions)
    settings_of(gate, lab, predictions)
    work = lab.experiment("credit_work", lifecycle="development")
    lab.run(work, "merges", files=model(MERGES + FLAVORS))
    lab.run(work, "lists", files=model(LISTS + FLAVORS))
    lab.run(work, "number", files=model(f"{FLAVORS}code: {'1:' * 50_000}1\n"))
    history = lab.run(
        work,
        "history",
        files={"small.txt": b"x"},
        **{"mlflow.log-model.history": FLAT, "compliance.source_datasets": DEEP},
    )
    signature = f"signature: {{inputs: '{FLAT}', outputs: '{FLAT}'}}\n"
    markers = f"a; {'(' * 2000}python_version > '3'{')' * 2000}\nb=={'1' * 5000}\n"
    described = model(FLAVORS + signature, requirements_txt=markers)
    delivery = lab.experiment("credit_delivery")
    lab.run(delivery, "production", files={**described, "model_metadata.json": FLAT.encode()}, stage="production")
    sizes = {"one.bin": SPARSE, "two.bin": SPARSE, "three.bin": LARGE, "four.bin": LARGE}
    for name, size in sizes.items():
        with (lab.folder_of(history) / name).open("wb") as file:
            file.truncate(size)
    deeper = lab.mlruns / ".quarantine" / "20260101T000000Z-abcdef"
    deeper.mkdir(parents=True)
    (deeper / "manifest.jsonl").write_text(f'{{"from": "/a", "to": {DEEP}}}\n')
    (lab.mlruns / ".compliance-owner").write_text(f"{DEEP}\n")
    said = told(gate("-k", "not SRV002", rules=(POLICIES,)))
    for words in (
        "MLmodel repeats more than 10,000 parts of itself by anchors or merge keys",
        "MLmodel holds a number of more than 1,000 characters",
        "the inputs of its signature in MLmodel cannot be read: the text is nested more than 200 levels deep",
        "predictions.parquet cannot be scored: the process that reads it, which has limits (models.memory_limit",
        "one.bin: could not be compared; found: not hashed: a sparse file with more than 268,435,456 bytes of holes",
        "four.bin: could not be compared; found: not hashed: larger than 1,099,511,627,776 bytes (duplicates.max_size)",
        "manifest.jsonl: the manifest of a quarantine cannot be understood: line 1 is not as it was written",
        "its model_metadata.json cannot be used: it is nested more than 200 levels deep",
    ):
        assert words in said
    assert "stored 2 times" not in said


def test_what_is_on_record_is_not_hashed_for_ever(make_lab: Callable[..., Lab], gate: Gate) -> None:
    lab = make_lab()
    gate.settings(lab.uri)
    folder = lab.folder_of(lab.run(lab.experiment("credit_delivery"), files={"kept.bin": b"x"}))
    with (folder / "kept.bin").open("wb") as file:
        file.truncate(SPARSE)
    records = Path(lab.store.folder) / "hashes.jsonl"
    records.parent.mkdir(exist_ok=True)
    record = json.dumps({"path": str(folder / "kept.bin"), "sha256": "0" * 64})
    records.write_text(f"{record}\n")
    rules = (POLICIES / "test_artifacts.py",)
    result = gate("-k", "ART004", rules=rules)
    assert "cannot be read, so nobody knows whether its bytes are those on record; found: not hashed" in told(result)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for spoiled in (f"{DEEP}\n{record}\n", f'{{"path": {FLAT}, "sha256": ""}}\n{record}\n'):
        records.write_text(spoiled)
        result = gate("-k", "ART004", rules=rules)
        assert f"line 1 of {records} is not a record of a hash" in told(result)
        assert result.ret not in (pytest.ExitCode.OK, pytest.ExitCode.INTERNAL_ERROR)
    with records.open("wb") as file:
        file.truncate(LARGE)
    assert f"the hashes on record in {records} cannot be read: it is larger than 1024 MiB" in told(
        gate("-k", "ART004", rules=rules)
    )


def test_of_a_file_store_each_is_a_damaged_file(
    make_lab: Callable[..., Lab], gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    key = client.create_experiment("credit_work")
    runs = [client.create_run(key).info.run_id for _ in range(6)]
    folders = [tmp_path / "mlruns" / key / run for run in runs]
    for run in runs:
        client.log_metric(run, "auc", 0.5)
        client.log_param(run, "depth", 3)
        client.set_terminated(run)
    meta = (folders[0] / "meta.yaml").read_text()
    (folders[0] / "meta.yaml").write_text(MERGES + meta)
    (folders[1] / "meta.yaml").write_text(LISTS + meta.replace(f"run_id: {runs[0]}", "run_id: *a9"))
    (folders[2] / "meta.yaml").write_text(meta.replace(f"run_id: {runs[0]}", f"run_id: 0x{'F' * 9000}"))
    with (folders[3] / "metrics" / "auc").open("wb") as file:
        file.truncate(LARGE)
    with (folders[4] / "params" / "depth").open("wb") as file:
        file.truncate(LARGE)
    (gate.folder / "compliance.toml").write_text(f"[store]\ntracking_uri = {str(tmp_path / 'mlruns')!r}\n")
    said = told(gate("-k", "STO", rules=(POLICIES,)))
    for words in (
        "repeats more than 10,000 parts of itself by anchors or merge keys",
        "holds a number of more than 1,000 characters",
        "metrics/auc: it is larger than 256 MiB",
        "params/depth: it is larger than 16 MiB",
        "MLflow writes no such file",
    ):
        assert words in said
