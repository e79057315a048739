"""The law of what was not looked at: no finding says that it is missing, and no remedy acts on it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from repairs import remedies, rules
from stores import BIG, Lab

from mlflow_compliance.changes import Change, LogProductionRun, RegisterVersion, SetAlias
from mlflow_compliance.production.context import Context
from mlflow_compliance.progress import Silent
from mlflow_compliance.repair.plan import findings_of, make_plan
from mlflow_compliance.rules.evaluation import cases, evaluate
from mlflow_compliance.rules.outcome import Outcome
from mlflow_compliance.snapshot.presence import Unknown, Why
from mlflow_compliance.snapshot.snapshot import Snapshot

ABSENT = {"no-model", "missing", "gone", "files-missing", "nothing-loads", "incomplete", "not-recomputed"}
"""Codes of findings that say that something is not there."""
SLOW = ("MOD003", "MOD005", "SRV002")
"""They start processes; the law is held for them where they are tested."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_store: bytes) -> Lab:
    """A production run with a registered model, a rival, and development work with equal files: something for most
    remedies.
    """
    lab = Lab.new(
        tmp_path_factory.mktemp("law"),
        empty_store,
        {
            "products": [
                {
                    "name": "credit",
                    "primary": "credit_delivery",
                    "experiments": ["credit_*"],
                    "production_names": ["*_production", "*_delivery"],
                    "production": {
                        "registered_model": "credit",
                        "required_artifacts": ["report.txt"],
                        "required_tags": [],
                    },
                }
            ],
            "experiments": {"development": ["credit_selection"]},
        },
    )
    delivery, rival, selection = (
        lab.experiment(name) for name in ("credit_delivery", "credit_production", "credit_selection")
    )
    champion = lab.run(delivery, "champion", files={"report.txt": b"as it was accepted"}, stage="production")
    model = lab.model(delivery, champion)
    lab.registered("credit", f"models:/{model}", champion, alias="production")
    lab.run(rival, "rival", files={"report.txt": b"another"})
    for number in range(2):
        lab.run(selection, f"trial {number}", files={"shap.bin": BIG})
    lab.stray("77", {f"{'ab' * 16}/artifacts/left.bin": b"left behind" * 200})
    return lab


def unseen(lab: Lab, snapshot: Snapshot, rows: set[tuple[str, str]]) -> tuple[Snapshot, list[str]]:
    """The same store where the places of some rows were not looked at; and those places."""
    artifacts = snapshot.artifacts
    assert artifacts is not None
    places = [artifacts.locations[row] for row in rows]
    for place in places:
        artifacts = artifacts.without(place)
    found = replace(
        artifacts,
        locations={row: place for row, place in artifacts.locations.items() if row not in rows},
        unknown={row: Unknown(Why.ELSEWHERE, "/another/machine", "nobody looked") for row in rows},
    )
    return lab.store.with_evidence(replace(snapshot, artifacts=found), Silent()), places


def texts(value: object) -> Iterator[str]:
    """Every text in a change, however deep."""
    if isinstance(value, str):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for item in fields(value):
            yield from texts(getattr(value, item.name))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from texts(item)


def acts_on(change: Change, places: list[str]) -> bool:
    return any(text == place or text.startswith(place + "/") for text in texts(change) for place in places)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_nothing_is_called_missing_and_nothing_is_done_where_nobody_looked(store: Lab, data: st.DataObject) -> None:
    seen = store.read()
    assert seen.artifacts is not None
    kinds = ("run", "logged_model", "model_version")
    rows = data.draw(
        st.sets(st.sampled_from(sorted(row for row in seen.artifacts.locations if row[0] in kinds)), min_size=1)
    )
    snapshot, places = unseen(store, seen, rows)
    asked = [rule for rule in rules() if rule.id not in SLOW]
    unknown = snapshot.artifacts.unknown if snapshot.artifacts else {}
    for finding in findings_of(asked, Context(snapshot, store.settings)):
        run = snapshot.runs.get(finding.entity.key)
        hidden = finding.entity.place in unknown or (run is not None and snapshot.unknown_files(run) is not None)
        assert not (finding.code in ABSENT and hidden), str(finding)
    plan = make_plan(asked, remedies(), Context(snapshot, store.settings))
    assert not [change.describe() for change in plan.changes if acts_on(change, places)]
    if any(run.tags.get("stage") == "production" and snapshot.unknown_files(run) for run in snapshot.runs.values()):
        assert not [
            change.describe()
            for change in plan.changes
            if isinstance(change, (LogProductionRun, RegisterVersion, SetAlias))
        ]


@pytest.mark.parametrize("away", ["elsewhere", "empty", "gone"])
def test_rules_of_production_are_not_evaluated_and_act_on_nothing(store: Lab, tmp_path: Path, away: str) -> None:
    """Through the reader: the same store, its rows of another machine, its root empty, its root gone."""
    lab = copied(store, tmp_path / "here")
    if away == "elsewhere":
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("logged_models", "artifact_location"),
        ):
            lab.sql(f"UPDATE {table} SET {column} = replace({column}, ?, 'file:///C:/work')", str(lab.folder))
        lab.sql(
            "UPDATE model_versions SET storage_location = replace(storage_location, ?, 'file:///C:/work')",
            str(lab.folder),
        )
        shutil.rmtree(lab.mlruns)
    else:
        shutil.move(lab.mlruns, tmp_path / "volume")
        if away == "empty":
            lab.mlruns.mkdir()
    snapshot = lab.read()
    outcomes: dict[str, set[Outcome]] = {}
    for rule in rules():
        if rule.id not in SLOW:
            outcomes[rule.id] = {
                evaluate(rule, case, Context(snapshot, lab.settings)).outcome
                for case in cases(rule, Context(snapshot, lab.settings))
            }
    assert outcomes["ART003"] == {Outcome.FAILED}
    for policy in ("MOD001", "MOD004", "PRD004", "PRD005", "PRD007", "REG002", "SRV001"):
        assert Outcome.FAILED not in outcomes[policy], policy
        assert Outcome.NOT_EVALUATED in outcomes[policy], policy


def copied(store: Lab, folder: Path) -> Lab:
    """The same store elsewhere, its rows pointing to the copied files."""
    shutil.copytree(store.folder, folder)
    made = Lab(folder, store.settings)
    for table, column in (
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
    ):
        made.sql(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", f"{store.folder}/", f"{folder}/")
    made.sql(
        "UPDATE model_versions SET storage_location = replace(storage_location, ?, ?)", f"{store.folder}/", f"{folder}/"
    )
    return made
