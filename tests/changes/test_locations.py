"""Rewritten locations, held to the laws of every Change: some experiments of a store moved, others did not, in any
spelling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from repairs import plan_for
from stores import BIG, Lab, there_and_back

from mlflow_compliance.changes import RewriteLocations, Rewriting
from mlflow_compliance.errors import ChangeError

PLACES = {"/app/mlruns": "/", "file:///srv/a%20b/mlruns": "/", "D:\\mlruns": "\\", "./mlruns": "/"}


def moved_to(lab: Lab, experiment_id: str, prefix: str) -> None:
    """Let the rows of one experiment say that it lies elsewhere."""
    start, separator = f"{lab.mlruns}/{experiment_id}", PLACES[prefix]
    new = f"{prefix}{separator}{experiment_id}"
    for table, column in (
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "storage_location"),
        ("model_versions", "source"),
    ):
        lab.sql(
            f"UPDATE {table} SET {column} = ? || replace(substr({column}, length(?) + 1), '/', ?) WHERE {column} "
            "LIKE ? || '%'",
            *(new, start, separator, start),
        )


@given(chosen=st.lists(st.sampled_from([*PLACES, None]), min_size=3, max_size=3).filter(any))
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_the_laws_hold_whatever_moved(make_lab: Callable[..., Lab], chosen: list[str | None]) -> None:
    lab = make_lab()
    for number, prefix in enumerate(chosen):
        key = lab.experiment(f"experiment {number}")
        run = lab.run(
            key, files={"a.bin": BIG, "model/MLmodel": b"flavors: {python_function: {data: w}}\n", "model/w": b"w"}
        )
        lab.registered(f"of a model {number}", f"models:/{lab.model(key, run)}", run)
        lab.registered(f"of a folder {number}", str(lab.folder_of(run) / "model"), run)
        if prefix:
            moved_to(lab, key, prefix)
    relocate: dict[str, Any] = {prefix: str(lab.mlruns) for prefix in chosen if prefix}
    mapped = Lab(
        lab.folder,
        lab.settings.model_copy(update={"store": lab.settings.store.model_copy(update={"relocate": relocate})}),
    )
    plan = plan_for(mapped, "ART003")
    assert plan.unfixed == ()
    assert {change.prefix for change in plan.changes if isinstance(change, RewriteLocations)} == set(relocate)
    between, _ = there_and_back(mapped, *plan.changes)
    assert between.artifacts is not None
    assert not between.artifacts.relocated
    assert not between.artifacts.elsewhere
    assert all(
        item.artifact_location == f"{lab.mlruns}/{key}"
        for key, item in between.experiments.items()
        if "a%20b" not in str(chosen)
    )


@pytest.mark.parametrize("kind", ["experiment", "run", "logged_model", "model_version", "version_source"])
def test_it_is_not_planned_on_a_row_that_says_something_else(lab: Lab, kind: str) -> None:
    key = lab.experiment("work")
    run = lab.rich_run(key)
    model = lab.model(key, run)
    number = lab.registered("scorer", f"models:/{model}", run)
    keys = {"experiment": (key,), "run": (run,), "logged_model": (model,)}
    change = RewriteLocations(
        "/old", "/new", 1, (Rewriting(kind, keys.get(kind, ("scorer", number)), "/old/1", "/new/1"),)
    )
    with pytest.raises(ChangeError, match=r"was '/old/1' when the plan was made"):
        change.predict(lab.everything())
