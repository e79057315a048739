"""The threshold in force is told in one place: by the rules and by what programs load alike."""

from __future__ import annotations

import pytest
from stores import Lab

from mlflow_compliance.production.facts import threshold_in_force
from mlflow_compliance.production.resolution import ResolutionError, SnapshotLookup, resolve

PARAM, METRIC, TAG = {"optimal_threshold": "0.4"}, {"optimal_threshold": 0.5}, {"optimal_threshold": "0.6"}


@pytest.mark.parametrize(
    ("params", "metrics", "tags", "wanted"),
    [
        (PARAM, METRIC, TAG, (0.4, "param optimal_threshold")),
        ({}, METRIC, TAG, (0.5, "metric optimal_threshold")),
        ({}, {}, TAG, (0.6, "tag optimal_threshold")),
        ({}, {}, {}, None),
    ],
)
def test_params_come_first(
    lab: Lab,
    params: dict[str, str],
    metrics: dict[str, float],
    tags: dict[str, str],
    wanted: tuple[float, str] | None,
) -> None:
    (product,) = lab.settings.products
    assert threshold_in_force(product, params, metrics, tags) == wanted


def test_what_is_none_is_told_with_its_place(lab: Lab) -> None:
    (product,) = lab.settings.products
    with pytest.raises(ValueError, match=r"metric optimal_threshold is '1\.5', which is no threshold from 0 to 1"):
        threshold_in_force(product, {}, {"optimal_threshold": 1.5}, {})


def test_a_metric_is_seen_by_what_programs_load(lab: Lab) -> None:
    """It counted for the rules alone, once."""
    run = lab.run(lab.experiment("credit_production"), "production", stage="production")
    lab.client.log_metric(run, "optimal_threshold", 0.25)
    lab.model(lab.client.get_run(run).info.experiment_id, run, "model")
    (product,) = lab.settings.products
    assert (
        resolve(
            SnapshotLookup(lab.read(), product, lab.settings), registered_model="credit", alias="production"
        ).threshold
        == 0.25
    )
    lab.client.log_metric(run, "optimal_threshold", 2.0, step=1)
    with pytest.raises(ResolutionError, match="metric optimal_threshold of run"):
        resolve(SnapshotLookup(lab.read(), product, lab.settings), registered_model="credit", alias="production")
