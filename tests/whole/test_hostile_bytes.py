"""Files that cost far more than they weigh, through the command line: each is one finding, and the audit goes on."""

from __future__ import annotations

import json
import os
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
SPARSE = 1 << 43


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
    lab.run(work, "number", files=model(f"{FLAVORS}run_id: {'1:' * 50_000}1\n"))
    history = lab.run(work, "history", files={"small.txt": b"x"}, **{"mlflow.log-model.history": FLAT, "compliance.source_datasets": DEEP})
    signature = f"signature: {{inputs: '{FLAT}', outputs: '{FLAT}'}}\n"
    markers = f"a; {'(' * 2000}python_version > '3'{')' * 2000}\nb=={'1' * 5000}\n"
    described = model(FLAVORS + signature, requirements_txt=markers)
    delivery = lab.experiment("credit_delivery")
    production = lab.run(
        delivery, "production", files={**described, "model_metadata.json": FLAT.encode()}, stage="production"
    )
    for name in ("one.bin", "two.bin"):
        with (lab.folder_of(history) / name).open("wb") as file:
            file.truncate(SPARSE)
    deeper = lab.mlruns / ".quarantine" / "20260101T000000Z-abcdef"
    deeper.mkdir(parents=True)
    (deeper / "manifest.jsonl").write_text(f'{{"from": "/a", "to": {DEEP}}}\n')
    (lab.mlruns / ".compliance-owner").write_text(f"{DEEP}\n")
    result = gate(rules=(POLICIES, "--deselect=SRV"))
    said = told(result)
    for words in (
        "MLmodel repeats more than 10,000 parts of itself by anchors or merge keys",
        "MLmodel holds a number of more than 1,000 characters",
        "the inputs of its signature in MLmodel cannot be read: the text is nested more than 200 levels deep",
        "predictions.parquet cannot be scored within the 1024 MiB that a file and what it holds may take in memory",
        "not hashed: a sparse file with more than 256 mib of holes",
    ):
        assert words in said
    assert said.count("could not be compared") >= 2
    assert "model_metadata.json" in said
    assert production
