"""The store for `--fix` merging an experiment against mlflow-export-import: a rival with runs, histories, datasets, models and artifacts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, LoggedModelStatus, Metric, Param, RunTag

CHECKOUT = Path(__file__).parents[1]
START = 1_750_000_000_000
SETTINGS = """[[products]]
name = "credit"
primary = "credit_delivery"
experiments = ["credit_*"]
production_names = ["*_production", "*_delivery"]
"""
SHARED = bytes(range(250)) * 20
"""5 kB that every run logged: the duplicate."""
MODEL_EVERY = int(os.environ.get("MODEL_EVERY", "5"))


def build(folder: Path, runs: int) -> None:
    """A store whose experiment credit_production rivals credit_delivery, built with MLflow itself."""
    folder.mkdir(parents=True)
    (folder / "compliance.toml").write_text(SETTINGS)
    client = MlflowClient(tracking_uri=uri_of(folder))
    primary, rival = (
        client.create_experiment(name, artifact_location=str(folder / "mlruns" / name)) for name in ("credit_delivery", "credit_production")
    )
    kept = client.create_run(primary, start_time=START, run_name="in force", tags={"mlflow.user": "ann"})
    client.set_terminated(kept.info.run_id, end_time=START + 1000)
    for number in range(runs):
        _run(client, rival, number)


def _run(client: MlflowClient, rival: str, number: int) -> None:
    begun = START + 100_000 * number
    tags = {"mlflow.user": "ann", "mlflow.source.name": "train.py", **{f"tag{n}": f"value {n} of {number}" for n in range(5)}}
    run = client.create_run(rival, start_time=begun, run_name=f"run {number}", tags=tags)
    run_id = run.info.run_id
    metrics = [
        Metric(f"metric{key}", (number * 31 + key * 7 + step) % 101 / 100, begun + 100 * step, step) for key in range(10) for step in range(20)
    ]
    client.log_batch(run_id, metrics=metrics, params=[Param(f"param{key}", str(number * key)) for key in range(10)], tags=[RunTag("more", "1")])
    data = Dataset("applicants", f"d{number % 3}", "local", '{"uri": "applicants.parquet"}', '{"columns": ["a"]}', '{"rows": 10}')
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "train")])])
    write(
        Path(run.info.artifact_uri),
        {"data/shared.bin": SHARED, "notes.txt": b"%d" % number, "own.bin": b"%08d" % number * 300, "log/out.txt": b"done\n" * 20},
    )
    if number % MODEL_EVERY == 0:
        model = client.create_logged_model(rival, name="model", source_run_id=run_id, params={"depth": "3"}, model_type="clf", tags={"made": "here"})
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        place, key = model.artifact_location, model.model_id
        text = f"artifact_path: {place}\nflavors:\n  own:\n    data: model.bin\nmodel_id: {key}\nmodel_uuid: {key}\nrun_id: {run_id}\n"
        write(Path(model.artifact_location), {"MLmodel": text.encode(), "model.bin": b"%06d" % number * 500})
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.set_terminated(run_id, end_time=begun + 60_000)


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def uri_of(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def main() -> None:
    """`python bench/merge.py FOLDER RUNS` builds the store. Timing both sides is still to be written here."""
    build(Path(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    main()
