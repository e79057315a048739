"""What a hold and the retention of production cover: by rows of a real store, on the day of the snapshot."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from mlflow.entities import LoggedModelInput
from stores import START, Lab

from mlflow_compliance.production.context import Context
from mlflow_compliance.production.holds import matches, today, unmatched
from mlflow_compliance.production.retention import Retained, retained
from mlflow_compliance.production.service import services, years_after
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.store.store import open_store

DAY = 86_400_000
BEGUN = datetime.fromtimestamp(START / 1000, timezone.utc).date()


def with_retention(lab: Lab, **retention: Any) -> Context:
    settings = Settings.model_validate({**lab.settings.model_dump(exclude_unset=True), "retention": retention})
    return Context(open_store(lab.uri, settings, str(lab.folder)).read(artifacts=False), settings)


def on(context: Context, day: date) -> Context:
    """The same store on another day, in the last second of it."""
    at = datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=timezone.utc)
    return Context(replace(context.snapshot, taken_at=int(at.timestamp() * 1000)), context.settings)


def held(context: Context) -> dict[str, set[str]]:
    """Kind -> keys."""
    found: dict[str, set[str]] = {}
    for kind, key in retained(context):
        found.setdefault(kind, set()).add(key)
    return found


def rules(context: Context, run_id: str) -> dict[str, date | None]:
    return {why.rule: why.until for why in retained(context).get(("run", run_id), ())}


def test_nothing_said_nothing_held(lab: Lab) -> None:
    lab.client.delete_run(lab.run("0", stage="production"))
    assert Context(lab.read(artifacts=False), lab.settings).snapshot.row_facts == {}
    context = with_retention(lab, deleted_days=180)
    assert retained(context) == {}
    assert len(context.snapshot.row_facts) == 1


def test_a_hold_on_an_experiment_covers_what_is_in_it(lab: Lab) -> None:
    home, other = lab.experiment("Größe  fraud 2024"), lab.experiment("other")
    run, gone = lab.run(home), lab.run(home)
    model, lost = lab.model(home, run), lab.model(home, gone)
    read = lab.model(other, lab.run(other, "maker"), "base")
    lab.client.log_inputs(run, models=[LoggedModelInput(read)])
    version = lab.registered("fraud", f"models:/{model}", run)
    lab.registered("fraud", f"models:/{read}")
    lab.run(other)
    lab.client.delete_logged_model(lost)
    lab.client.delete_run(gone)
    context = with_retention(lab, hold=[{"experiments": ["GRO\u0308SSE  FRAUD*"], "reason": "case 7"}])
    assert held(context) == {
        "experiment": {home, other},
        "run": {run, gone},
        "logged_model": {model, lost, read},
        "registered_model": {"fraud"},
        "model_version": {f"fraud/{version}"},
    }
    (why,) = retained(context)["logged_model", lost]
    assert why == Retained("hold", "legal hold on experiment Größe  fraud 2024 (case 7)", None)


def test_a_hold_on_a_run_covers_what_it_needs_and_what_came_of_it(lab: Lab) -> None:
    """Not the rest of its experiment; and a model that it read, though that lies in an experiment that was deleted."""
    home, away = lab.experiment("churn"), lab.experiment("away")
    parent = lab.run(home, "sweep")
    run, other = lab.run(home, "Trial 7", **{"mlflow.parentRunId": parent}), lab.run(home, "trial 8")
    model, base = lab.model(home, run), lab.model(away, lab.run(away), "base")
    lab.model(home, other)
    lab.client.log_inputs(run, models=[LoggedModelInput(base)])
    version = lab.registered("churn", f"models:/{model}")
    lab.registered("churn", f"models:/{lab.model(home, other)}")
    lab.client.delete_experiment(away)
    for patterns in (["trial 7"], [run.upper()], [f"{run[:8]}*"]):
        assert held(with_retention(lab, hold=[{"runs": patterns, "reason": "case 7"}])) == {
            "experiment": {home, away},
            "run": {run, parent},
            "logged_model": {model, base},
            "registered_model": {"churn"},
            "model_version": {f"churn/{version}"},
        }
    assert held(with_retention(lab, hold=[{"runs": ["trial ?"], "reason": "all"}]))["run"] == {run, parent, other}


def test_a_hold_on_a_model_covers_its_versions_and_their_sources(lab: Lab) -> None:
    home = lab.experiment("churn")
    runs = [lab.run(home) for _ in range(3)]
    models = [lab.model(home, run) for run in runs]
    versions = [
        lab.registered("Kredit Größe", f"models:/{model}", run) for model, run in zip(models, runs, strict=True)
    ]
    lab.registered("other", f"runs:/{lab.run(home)}/model", None)
    lab.client.delete_run(runs[0])
    lab.client.delete_logged_model(models[1])
    whole = held(with_retention(lab, hold=[{"models": ["kredit gr*"], "reason": "case 7"}]))
    assert whole["run"] == {*runs}
    assert whole["logged_model"] == {*models}
    assert whole["model_version"] == {f"Kredit Größe/{number}" for number in versions}
    one = held(with_retention(lab, hold=[{"models": [models[1]], "reason": "case 7"}]))
    assert one["logged_model"] == {models[1]}
    assert one["run"] == {runs[1]}
    assert one["model_version"] == {f"Kredit Größe/{versions[1]}"}


def test_a_hold_names_an_experiment_by_what_it_was_called_before_it_was_retired(lab: Lab) -> None:
    key = lab.experiment("churn")
    lab.client.rename_experiment(key, f"churn (retired {key})")
    lab.client.delete_experiment(key)
    for pattern in ("Churn", key, f"churn (retired {key})"):
        assert held(with_retention(lab, hold=[{"experiments": [pattern], "reason": "x"}]))["experiment"] == {key}


@pytest.mark.parametrize(
    ("name", "pattern"), [("straße 1", "STRASSE *"), ("a[b", "a[[]b"), (" x", " ?"), ("x\ny", "x*")]
)
def test_patterns_match(name: str, pattern: str) -> None:
    assert matches([name], (pattern,))
    assert not matches([f"{name} "], (pattern.rstrip("*"),))


def test_a_pattern_that_matches_nothing_is_known(lab: Lab) -> None:
    lab.experiment("churn")
    hold = {"experiments": ["churn", "chrun"], "runs": ["x"], "models": ["*"], "reason": "case 7"}
    context = with_retention(lab, hold=[hold])
    (made,) = context.settings.retention.hold
    assert unmatched(made, context.snapshot) == [("experiments", "chrun"), ("runs", "x"), ("models", "*")]


def test_a_hold_holds_on_its_last_day(lab: Lab) -> None:
    key, last = lab.experiment("churn"), date(2031, 12, 31)
    context = with_retention(lab, hold=[{"experiments": ["churn"], "reason": "case 7", "until": last}])
    for day, found in ((last - timedelta(days=1), 1), (last, 1), (last + timedelta(days=1), 0)):
        assert len(retained(on(context, day))) == found, day
    (why,) = retained(context)["experiment", key]
    assert why == Retained("hold", "legal hold on experiment churn (case 7, until 2031-12-31)", last)


def test_why_is_told_worst_first(lab: Lab) -> None:
    key = lab.experiment("credit_delivery", lifecycle="production")
    run = lab.run(key, stage="production")
    holds = [
        {"experiments": ["credit*"], "reason": "short", "until": date(2090, 1, 1)},
        {"runs": [run], "reason": "long", "until": date(2091, 1, 1)},
        {"runs": ["run"], "reason": "no end"},
    ]
    context = with_retention(lab, production_years=10, hold=holds)
    found = [(why.rule, why.until and why.until.year) for why in retained(context)["run", run]]
    assert found == [("hold", None), ("hold", 2091), ("hold", 2090), ("production_years", None)]


class TestProduction:
    def test_what_is_in_production_is_kept_without_an_end(self, lab: Lab) -> None:
        key = lab.experiment("credit_delivery", lifecycle="production")
        run, other = lab.run(key, stage="production"), lab.run(key)
        model = lab.model(key, run)
        for years in ({"production_years": 0.1}, {"superseded_years": 0.1}):
            context = with_retention(lab, **years)
            assert rules(context, run) == dict.fromkeys(years)
            assert rules(on(context, date(2099, 1, 1)), run) == dict.fromkeys(years)
            assert ("run", other) not in retained(context)
            assert ("logged_model", model) in retained(context)

    def test_a_deleted_one_went_into_service_before_it_was_deleted(self, lab: Lab) -> None:
        key = lab.experiment("credit_delivery")
        run = lab.run(key, stage="production")
        lab.client.delete_run(run)
        lab.sql("UPDATE runs SET deleted_time = ? WHERE run_uuid = ?", START, run)
        context = with_retention(lab, production_years=3)
        end = BEGUN.replace(year=BEGUN.year + 3)
        assert rules(on(context, end), run) == {"production_years": end}
        assert rules(on(context, end + timedelta(days=1)), run) == {}
        lab.sql("UPDATE runs SET deleted_time = NULL")
        assert rules(on(with_retention(lab, production_years=3), date(2099, 1, 1)), run) == {"production_years": None}

    def test_a_superseded_one_by_the_build_of_its_successor(self, lab: Lab) -> None:
        """What the mark said before stands beside it; a run that was only overruled was never production."""
        key = lab.experiment("credit_delivery")
        built = {"compliance.built_for": "credit", "compliance.build": "complete"}
        new = lab.run(key, start=START + 365 * DAY, stage="production", **built)
        said = {"stage": "superseded", "compliance.superseded.stage": "production", "compliance.superseded_by": new}
        old, overruled = lab.run(key, **said), lab.run(key, **{"compliance.superseded_by": new})
        context = with_retention(lab, production_years=1, superseded_years=2)
        ended = (datetime.fromtimestamp(START / 1000, timezone.utc) + timedelta(days=365)).date()
        wanted = {
            "production_years": years_after(START + 365 * DAY, 1),
            "superseded_years": years_after(START + 365 * DAY, 2),
        }
        assert wanted["superseded_years"] == ended.replace(year=ended.year + 2)
        assert rules(on(context, ended), old) == wanted
        assert rules(on(context, ended), new) == dict.fromkeys(wanted)
        assert rules(context, overruled) == {}
        assert rules(on(context, date(2099, 1, 1)), old) == {}
        lab.client.delete_run(old)  # later than that
        assert rules(on(with_retention(lab, production_years=1, superseded_years=2), ended), old) == wanted

    def test_a_built_one_went_into_service_when_it_was_built(self, lab: Lab) -> None:
        key = lab.experiment("credit_delivery")
        built = {"compliance.built_for": "credit", "compliance.build": "complete"}
        new = lab.run(key, start=START + 1000 * DAY, stage="production", **built)
        old = lab.run(key, **built, **{"compliance.superseded_by": new})
        broken_off = lab.run(key, **{**built, "compliance.build": "incomplete"})
        context = with_retention(lab, production_years=10)
        assert rules(context, old) == {"production_years": BEGUN.replace(year=BEGUN.year + 10)}
        assert rules(context, broken_off) == {}

    def test_a_successor_that_no_repair_built_dates_nothing(self, lab: Lab) -> None:
        key = lab.experiment("credit_delivery")
        new = lab.run(key, stage="production")
        old = lab.run(key, **{"compliance.superseded.stage": "production", "compliance.superseded_by": new})
        context = on(with_retention(lab, superseded_years=1), date(2099, 1, 1))
        assert rules(context, old) == {"superseded_years": None}
        (why,) = [why for why in retained(context)["run", old] if "was production" in why.why]
        assert (
            why.why == "was production of credit (superseded_years: 1 years after it was superseded: no row tells when)"
        )

    def test_marks_elsewhere_are_nobodys_production(self, lab: Lab) -> None:
        """In an experiment that no product covers, in a test one, in a copy that was taken back."""
        other, scratch, home = lab.experiment("churn"), lab.experiment("credit_test"), lab.experiment("credit_delivery")
        for key, tags in ((other, {}), (scratch, {}), (home, {"compliance.copy": "retracted"})):
            lab.client.delete_run(lab.run(key, stage="production", **tags))
        context = with_retention(lab, production_years=10)
        assert services(context) == []
        assert retained(context) == {}

    def test_the_version_of_the_alias_with_its_sources(self, make_lab: Any) -> None:
        from stores import CREDIT

        lab = make_lab(products=[{**CREDIT, "production": {"registered_model": "credit", "alias": "live"}}])
        key = lab.experiment("credit_delivery")
        run, other = lab.run(key), lab.run(key)
        model = lab.model(key, run)
        lab.registered("credit", f"models:/{lab.model(key, other)}", other)
        version = lab.registered("credit", f"models:/{model}", run, alias="live")
        context = with_retention(lab, production_years=10)
        assert held(context) == {
            "experiment": {key},
            "run": {run},
            "logged_model": {model},
            "registered_model": {"credit"},
            "model_version": {f"credit/{version}"},
        }


@pytest.mark.parametrize(
    ("start", "years", "end"),
    [
        ("2024-02-29", 1, "2025-03-01"),
        ("2024-02-29", 4, "2028-02-29"),
        ("2096-02-29", 4, "2100-03-01"),
        ("2025-06-15", 10, "2035-06-15"),
        ("2025-06-15", 0.5, "2025-12-15"),
        ("2025-06-15", 8000, None),
        ("2025-06-15", 1e300, None),
    ],
)
def test_years_of_the_calendar(start: str, years: float, end: str | None) -> None:
    at = int(datetime.fromisoformat(f"{start}T12:00:00+00:00").timestamp() * 1000)
    assert years_after(at, years) == (end and date.fromisoformat(end))


def test_the_day_is_that_of_the_snapshot_in_utc(lab: Lab) -> None:
    snapshot = lab.read(artifacts=False)
    for text, day in (("2031-12-31T23:59:59.999", 31), ("2032-01-01T00:00:00", 1)):
        at = round(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)
        assert today(replace(snapshot, taken_at=at)).day == day
