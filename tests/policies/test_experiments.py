"""EXP001 to EXP003: each rule on a store that keeps it and on one that breaks it, and what their remedies refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.cli import gc
from repairs import carry_out, findings, plan_for, take_back, unfixed
from stores import BIG, Lab, contents

from mlflow_compliance.rules.finding import Severity
from mlflow_compliance.settings.schema import Settings, load_settings


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab(experiments={"development": ["dev_*"], "test_tags": {"purpose": "test"}})


def said(lab: Lab, policy: str) -> list[str]:
    return [f"{finding.entity.kind} {finding.entity.key}: {finding.message}" for finding in findings(lab, policy)]


def test_exp001_one_production_experiment(lab: Lab) -> None:
    lab.run(lab.experiment("credit_delivery"), stage="production")
    lab.experiment("other_production")  # of no product: no rival
    assert said(lab, "EXP001") == []


def test_exp001_none(lab: Lab) -> None:
    assert said(lab, "EXP001") == [
        "product credit: the primary experiment that the settings name is not there",
        "product credit: no experiment is marked as production",
    ]


@pytest.mark.parametrize("mark", ["name", "tag of the experiment", "tag of a run"])
def test_exp001_a_rival_is_merged(lab: Lab, mark: str) -> None:
    lab.run(lab.experiment("credit_delivery"), stage="production")
    rival = lab.experiment(
        "credit_production" if mark == "name" else "credit_new",
        **({"stage": "production"} if mark.endswith("experiment") else {}),
    )
    lab.run(rival, "a", **({"stage": "production"} if mark.endswith("run") else {}))
    lab.run(rival, "b")
    assert said(lab, "EXP001") == [f"experiment {rival}: a second production experiment of product credit"]
    done = carry_out(lab, plan_for(lab))
    assert done.differing == []
    assert said(lab, "EXP001") == []
    copies = {run.info.run_name: run.data.tags for run in lab.runs("1") if "compliance.copy" in run.data.tags}
    assert copies.keys() == {"a", "b"}
    assert all(tags["compliance.source_experiment_id"] == rival for tags in copies.values())


def test_exp001_a_rival_whose_name_is_written_in_another_case(lab: Lab) -> None:
    lab.experiment("credit_delivery")
    rival = lab.experiment("Credit_PRODUCTION", lifecycle="reference")
    assert said(lab, "EXP001") == [f"experiment {rival}: a second production experiment of product credit"]


def test_exp003_what_says_that_it_is_production_and_is_counted_by_no_rule(lab: Lab) -> None:
    lab.experiment("credit_delivery", lifecycle="production")
    more = [lab.experiment(name, lifecycle="production") for name in ("credit_v2", "churn")]
    assert said(lab, "EXP001") == []
    assert said(lab, "EXP003") == [
        f"experiment {key}: says that it is production, and is that of no product" for key in more
    ]


@pytest.mark.parametrize(
    ("name", "written"), [("credit_PRODUCTION_v2", False), ("old-credit-prod", False), ("credit_PRODUCTION_v2", True)]
)
def test_exp001_a_name_that_only_a_built_in_pattern_takes_for_production(
    make_lab: Callable[..., Lab], name: str, written: bool
) -> None:
    """The very words that are built in count once somebody wrote them."""
    product = {
        "name": "credit",
        "primary": "credit_delivery",
        **({"production_names": ["*production*", "*prod"]} if written else {}),
    }
    lab = make_lab(products=[product])
    lab.run(lab.experiment("credit_delivery"), stage="production")
    rival = lab.experiment(name)
    lab.run(rival, "a")
    (found,) = findings(lab, "EXP001")
    plan = plan_for(lab, "EXP001")
    if written:
        assert (found.code, found.severity) == ("rival", None)
        assert "(production_names: the settings)" in found.observed
        assert plan.changes
        return
    assert (found.code, found.entity.key, found.severity) == ("named-like-production", rival, Severity.LOW)
    assert "(built in)" in found.observed
    assert plan.changes == ()
    assert f'production_names = ["{name}"]' in plan.unfixed[0].reason


def test_exp001_what_people_said_comes_before_a_name(make_lab: Callable[..., Lab]) -> None:
    """One experiment is marked; that another is named like production does not put it in doubt."""
    lab = make_lab(products=[{"name": "credit"}])
    marked = lab.experiment("delivery")
    lab.run(marked, stage="production")
    named = lab.experiment("credit_production")
    assert [(item.code, item.entity.key) for item in findings(lab, "EXP001")] == [("named-like-production", named)]
    assert findings(lab, "RUN002") == []


def test_exp001_a_marked_rival_that_is_named_like_a_test_is_for_people(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(experiments={}, products=[{"name": "credit", "primary": "delivery"}])
    lab.settings = Settings.model_validate({"products": [{"name": "credit", "primary": "delivery"}]})
    lab.experiment("delivery")
    rival = lab.experiment("ab_test")
    lab.run(rival, stage="production")
    assert said(lab, "EXP001") == [f"experiment {rival}: a second production experiment of product credit"]
    assert said(lab, "EXP002") == []
    plan = plan_for(lab, "EXP001", "EXP002")
    assert plan.changes == ()
    assert "named like a test (built in)" in plan.unfixed[0].reason


def test_exp001_rivals_without_a_primary_are_for_people(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(products=[{"name": "credit"}])
    for name in ("a_production", "b_production"):
        lab.experiment(name)
    assert said(lab, "EXP001") == ["product credit: more than one production experiment"]
    lines = '`primary = "a_production"` or `primary = "b_production"`'
    assert lines in unfixed(plan_for(lab, "EXP001"), "EXP001")[0].reason


def test_exp001_a_child_run_is_copied_after_its_parent(lab: Lab) -> None:
    lab.experiment("credit_delivery")
    rival = lab.experiment("credit_production")
    parent = lab.run(rival, "parent")
    lab.run(rival, "child", start=1_000, **{"mlflow.parentRunId": parent})
    done = carry_out(lab, plan_for(lab))
    assert done.differing == []
    copies = {run.info.run_name: run for run in lab.runs("1")}
    assert copies["child"].data.tags["mlflow.parentRunId"] == copies["parent"].info.run_id


def test_exp002_no_test_experiment(lab: Lab) -> None:
    lab.experiment("contest_2024")
    assert said(lab, "EXP002") == []


@pytest.mark.parametrize(
    ("name", "tags"), [("test_experiment", {}), ("Credit-TEST", {}), ("sandbox", {"purpose": "test"})]
)
def test_exp002_a_test_experiment_is_retired(lab: Lab, name: str, tags: dict[str, str]) -> None:
    key = lab.experiment(name, **tags)
    lab.run(key)
    assert said(lab, "EXP002") == [f"experiment {key}: looks like a test"]
    carry_out(lab, plan_for(lab))
    assert said(lab, "EXP002") == []
    retired = lab.client.get_experiment(key)
    assert (retired.lifecycle_stage, retired.tags["compliance.retired_from"]) == ("deleted", name)


GUESSED = ("pricing_ab_test", "AB_Test", "smoke-test", "test_of_time", "TEST")


def test_exp002_a_name_that_only_a_built_in_pattern_takes_for_a_test(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.settings = Settings.model_validate({"products": [{"name": "credit"}]})
    keys = [lab.experiment(name) for name in GUESSED]
    found = findings(lab, "EXP002")
    assert [(item.entity.key, item.code, item.severity) for item in found] == [
        (key, "named-like-a-test", Severity.LOW) for key in keys
    ]
    assert all("(built in)" in item.expected for item in found)
    plan = plan_for(lab)
    assert [change for change in plan.changes if change.entity.kind == "experiment"] == []
    assert '"pricing_ab_test"' in unfixed(plan, "EXP002")[0].reason
    assert [item.code for item in findings(lab, "EXP003")] == [], "one line each is enough"
    # Copied as it stands, the block is the user's word.
    path = lab.folder / "compliance.toml"
    path.write_text(found[0].toml)
    lab.settings = load_settings(path)
    assert [(item.code, item.severity) for item in findings(lab, "EXP002")] == [("test", None)] * len(GUESSED)
    assert "test_names: " in findings(lab, "EXP002")[0].expected
    assert plan_for(lab, "EXP002").changes


@pytest.mark.parametrize(
    ("settings", "tags"),
    [
        ({}, {"lifecycle": "reference"}),
        ({"experiments": {"development": ["ab_*"]}}, {}),
        ({"experiments": {"test_names": []}}, {}),
        ({"products": [{"name": "ab", "primary": "ab_test"}]}, {}),
    ],
    ids=["its lifecycle tag", "development", "no test names", "primary"],
)
def test_exp002_what_people_said_comes_before_a_name(lab: Lab, settings: dict[str, Any], tags: dict[str, str]) -> None:
    lab.settings = Settings.model_validate(settings)
    lab.run(lab.experiment("ab_test", **tags))
    assert said(lab, "EXP002") == []


def test_exp002_the_built_in_words_written_down_are_the_users(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.settings = Settings.model_validate({"experiments": {"test_names": list(Settings().experiments.test_names)}})
    lab.experiment("pricing_ab_test")
    assert [item.code for item in findings(lab, "EXP002")] == ["test"]
    assert plan_for(lab, "EXP002").changes


def test_exp002_a_test_with_a_mark_in_another_spelling_is_kept(lab: Lab) -> None:
    lab.run(lab.experiment("test_1"), Stage="PRODUCTION")
    assert "is marked as production" in unfixed(plan_for(lab, "EXP002"), "EXP002")[0].reason


def test_trap_20_the_name_is_free_again_and_the_reason_is_on_the_experiment(lab: Lab) -> None:
    """A deleted experiment can neither be renamed nor tagged: both come first."""
    key = lab.experiment("test_1")
    carry_out(lab, plan_for(lab))
    assert lab.client.create_experiment("test_1") != key
    tags = lab.client.get_experiment(key).tags
    assert tags["compliance.retired_reason"] == "test experiment"
    assert {"compliance.retired_by", "compliance.retired_at", "compliance.retired_in"} <= tags.keys()


def test_exp003_classified(lab: Lab) -> None:
    lab.experiment("reference data", lifecycle="reference")
    lab.experiment("dev_1", **{"lifecycle": "archived", "mlflow.note.content": "ARCHIVED in June"})
    lab.experiment("credit_delivery")
    assert said(lab, "EXP003") == []


def test_exp003_unclassified_is_for_people_and_development_is_archived(lab: Lab) -> None:
    unknown = lab.experiment("unknown", lifecycle="whatever")
    work = lab.experiment("dev_1", **{"mlflow.note.content": "What Ann tried."})
    silent = lab.experiment("archived", lifecycle="archived")
    assert said(lab, "EXP003") == [
        f"experiment {unknown}: not classified",
        f"experiment {work}: development work that is not archived",
        f"experiment {silent}: archived, but the MLflow UI does not say so",
    ]
    done = carry_out(lab, plan_for(lab, "EXP003"))
    assert done.differing == []
    assert said(lab, "EXP003") == [f"experiment {unknown}: not classified"]
    note = lab.client.get_experiment(work).tags["mlflow.note.content"]
    assert note.startswith("[ARCHIVED]")
    assert note.endswith("What Ann tried."), "what people wrote stays"


def test_trap_6_the_default_experiment_is_no_finding_while_empty_and_is_never_retired(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(experiments={"test_names": ["Default"]})
    assert said(lab, "EXP003") == []
    lab.run("0")
    assert "Default experiment cannot be retired" in unfixed(plan_for(lab, "EXP002"), "EXP002")[0].reason
    used = make_lab()
    used.run("0")
    assert said(used, "EXP003") == ["experiment 0: real work in MLflow's Default experiment"]


def test_trap_6_another_workspace_is_not_looked_at(lab: Lab) -> None:
    key = lab.experiment("test_1")
    lab.run(key, stage="production")
    lab.sql("UPDATE experiments SET workspace = 'theirs' WHERE experiment_id = ?", int(key))
    snapshot = lab.read()
    assert (snapshot.experiments.keys(), dict(snapshot.runs)) == ({"0"}, {})
    assert said(lab, "EXP002") == []


Reach = Callable[[Lab, str], Any]


def _by_model(lab: Lab, key: str) -> None:
    run_id = lab.run(key)
    lab.registered("scorer", f"models:/{lab.model(key, run_id)}", run_id, alias="champion")


def _by_model_of_another_run(lab: Lab, key: str) -> None:
    other = lab.run("0")
    lab.registered("scorer", f"models:/{lab.model(key, lab.run(key))}", other, alias="champion")


def _by_run_path(lab: Lab, key: str) -> None:
    lab.registered("scorer", f"runs:/{lab.run(key, files={'model/MLmodel': b'flavors: {}'})}/model")


def _by_plain_path(lab: Lab, key: str) -> None:
    lab.registered("scorer", str(lab.folder_of(lab.run(key, files={"model/MLmodel": b"flavors: {}"})) / "model"))


def _by_copied_version(lab: Lab, key: str) -> None:
    """Trap 14: a promoted version shares the files of its source, which may be deleted afterwards."""
    _by_model(lab, key)
    lab.client.copy_model_version("models:/scorer/1", "promoted")
    lab.client.delete_registered_model("scorer")


REACHED: dict[str, tuple[Reach, str]] = {
    "an alias": (_by_model, "scorer version 1 relies on"),
    "a version of another run": (_by_model_of_another_run, "scorer version 1 relies on"),
    "a version from a run's folder": (_by_run_path, "scorer version 1 relies on"),
    "a version from a plain path": (_by_plain_path, "scorer version 1 relies on"),
    "a promoted version": (_by_copied_version, "promoted version 1 relies on"),
    "the production tag of a run": (lambda lab, key: lab.run(key, stage="production"), "is marked as production"),
    "its own production tag": (
        lambda lab, key: lab.client.set_experiment_tag(key, "stage", "production"),
        "is itself marked as production",
    ),
}


@pytest.mark.parametrize("by", REACHED)
def test_trap_13_nothing_that_is_reached_is_retired(lab: Lab, by: str) -> None:
    lab.experiment("credit_delivery")
    key = lab.experiment("test_1")
    reach, reason = REACHED[by]
    reach(lab, key)
    plan = plan_for(lab, "EXP001", "EXP002", "EXP003")
    assert [step for step in plan.steps if step.finding.policy == "EXP002"] == []
    assert reason in unfixed(plan, "EXP002")[0].reason


def test_trap_13_a_rival_with_the_champion_is_not_merged_away(lab: Lab) -> None:
    lab.experiment("credit_delivery")
    rival = lab.experiment("credit_production")
    _by_model(lab, rival)
    plan = plan_for(lab)
    assert plan.steps == ()
    assert "relies on" in unfixed(plan, "EXP001")[0].reason


def test_trap_17_what_gc_leaves_of_a_retired_experiment_is_found_and_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleting an experiment leaves its logged models active; `mlflow gc` drops their rows and leaves their files
    to nobody.
    """
    lab.experiment("credit_delivery")
    key = lab.experiment("test_1")
    run_id = lab.run(key, files={"notes.txt": b"x"})
    model = lab.model(key, run_id, files={"weights.bin": BIG})
    carry_out(lab, plan_for(lab))
    assert lab.client.get_logged_model(model).status == "READY"
    assert findings(lab, "ART002") == [], "what is only soft-deleted still has its owner"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", lab.uri)
    left_by = CliRunner().invoke(gc, ["--backend-store-uri", lab.uri, "--experiment-ids", key])
    assert left_by.exit_code == 0, left_by.output
    weights = lab.mlruns / key / "models" / model / "artifacts" / "weights.bin"
    assert weights.read_bytes() == BIG
    (found,) = findings(lab, "ART002")
    assert str(weights).startswith(found.entity.key)
    before = contents(lab.mlruns)
    done = carry_out(lab, plan_for(lab, "ART002"))
    assert done.differing == []
    assert findings(lab, "ART002") == []
    assert set(before.values()) <= set(contents(lab.mlruns).values()), "nothing is lost"
    assert not weights.exists()


def test_trap_21_undoing_a_retirement_leaves_deleted_what_was_deleted(lab: Lab) -> None:
    key = lab.experiment("test_1")
    lab.run(key, "kept")
    lab.client.delete_run(lab.run(key, "gone"))
    done = carry_out(lab, plan_for(lab))
    take_back(lab, done.lines)
    found = lab.client.get_experiment(key)
    assert (found.name, found.lifecycle_stage, dict(found.tags)) == ("test_1", "active", {})
    assert {run.info.run_name: run.info.lifecycle_stage for run in lab.runs(key)} == {
        "kept": "active",
        "gone": "deleted",
    }


def test_a_retirement_that_was_broken_off_is_finished_and_not_begun_again(lab: Lab) -> None:
    """The name that it was known by is gone by then; a rule that goes by names must still find it."""
    for name in ("old_test", "credit_production"):
        lab.experiment(name)
    lab.experiment("credit_delivery")
    for key, name in (("1", "old_test"), ("2", "credit_production")):
        lab.client.rename_experiment(key, f"{name} (retired {key})")
    carry_out(lab, plan_for(lab))
    retired = [lab.client.get_experiment(key) for key in "12"]
    assert [(item.name, item.lifecycle_stage) for item in retired] == [
        ("old_test (retired 1)", "deleted"),
        ("credit_production (retired 2)", "deleted"),
    ]
    assert [item.tags["compliance.retired_from"] for item in retired] == ["old_test", "credit_production"]
