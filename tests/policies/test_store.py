"""STO001: a file store that `mlflow migrate-filestore` can take over."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from repairs import rules

from mlflow_compliance.production.context import Context
from mlflow_compliance.rules.evaluation import cases, evaluate
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.store.store import open_store


@pytest.mark.parametrize("repeats", [0, 2])
def test_sto001_metric_points_written_more_than_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repeats: int
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = tmp_path / "mlruns"
    client = MlflowClient(tracking_uri=folder.as_uri())
    run_id = client.create_run(client.create_experiment("one")).info.run_id
    for step in range(3):
        client.log_metric(run_id, "auc", 0.5, timestamp=5, step=step)
    for _ in range(repeats):
        client.log_metric(run_id, "auc", 0.5, timestamp=5, step=0)
    settings = Settings()
    snapshot = open_store(str(folder), settings, str(tmp_path)).read(artifacts=False)
    (rule,) = (rule for rule in rules() if rule.id == "STO001")
    (case,) = cases(rule, Context(snapshot, settings))
    found = evaluate(rule, case, Context(snapshot, settings)).findings
    assert [(finding.entity.key, finding.observed) for finding in found] == ([(run_id, "2 repeats")] if repeats else [])
