"""Planning: exact, the same every time, bounded, and clear about what it will not do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from repairs import CHECKOUT, carry_out, findings, plan_for, remedies, rules, unfixed
from stores import BIG, START, Lab

from mlflow_compliance.api import Experiment, Severity, Violations, policy
from mlflow_compliance.audit.audit import Audit, Options
from mlflow_compliance.changes import Change, RenameExperiment, SetExperimentTag
from mlflow_compliance.errors import PlanError
from mlflow_compliance.production.context import Context
from mlflow_compliance.progress import Silent
from mlflow_compliance.repair.plan import make_plan
from mlflow_compliance.rules.finding import Finding
from mlflow_compliance.rules.fixer import Fixer, Unfixable


def messy(lab: Lab) -> None:
    """One of each fault that is repaired."""
    delivery, production = lab.experiment("credit_delivery"), lab.experiment("credit_production")
    lab.run(delivery, files={"data.bin": BIG})
    lab.run(production, stage="production", files={"data.bin": BIG})
    lab.run(lab.experiment("test_1"))
    lab.stray("3" * 32, {"artifacts/a.bin": b"x"})


def test_two_plans_of_one_store_are_equal(lab: Lab) -> None:
    messy(lab)
    first, second = plan_for(lab), plan_for(lab)
    assert first.steps == second.steps
    assert list(first.lines()) == list(second.lines())
    assert {step.finding.policy for step in first.steps} == {"ART001", "ART002", "EXP001", "EXP002"}


def test_planning_changes_nothing(lab: Lab) -> None:
    messy(lab)
    before = lab.database.read_bytes()
    plan_for(lab)
    assert lab.database.read_bytes() == before


def test_after_a_repair_nothing_is_left_to_plan(lab: Lab) -> None:
    messy(lab)
    plan = plan_for(lab)
    done = carry_out(lab, plan)
    assert done.differing == []
    assert not done.outcome.failed
    again = plan_for(lab)
    assert again.steps == ()
    # The run that is to be mended by hand is a copy, which has its id by now: the advice names it.
    assert [(item.finding.policy, re.sub(r"\b[0-9a-f]{32}\b", "RUN_ID", item.reason)) for item in again.unfixed] == [
        (item.finding.policy, item.reason) for item in plan.unfixed
    ]


def test_a_run_that_is_copied_while_stuck_is_ended_too(lab: Lab) -> None:
    """The copy has no id yet when its end is planned."""
    lab.run(lab.experiment("credit_delivery"), stage="production")
    lab.run(lab.experiment("credit_production"), "stuck", status="RUNNING", metrics={"auc": 0.5})
    done = carry_out(lab, plan_for(lab))
    assert done.differing == []
    assert not done.outcome.failed
    copied = next(run for run in lab.runs("1") if run.info.run_name == "stuck")
    assert (copied.info.status, copied.info.end_time) == ("KILLED", START + 1000)
    assert not [finding for finding in findings(lab) if finding.policy in ("RUN001", "EXP001")]


def test_the_copied_model_counts_for_the_plan(lab: Lab) -> None:
    """What the plan says about the store as it will be is what the store says afterwards."""
    lab.experiment("credit_delivery")
    production = lab.experiment("credit_production")
    run_id = lab.run(production, stage="production")
    lab.model(production, run_id)
    plan = plan_for(lab)
    assert unfixed(plan, "MOD001") == []
    carry_out(lab, plan)
    assert findings(lab, "MOD001") == []


def with_remedy(policy: str, remedy: Fixer) -> dict[str, Fixer]:
    return {**remedies(), policy: remedy}


@pytest.mark.parametrize(("more", "times"), [("", 3), ("x", 10)], ids=["the same change", "another change each time"])
def test_a_fixer_whose_finding_comes_back_is_named(lab: Lab, more: str, times: int) -> None:
    """At once where it would do the same again; else it may be getting somewhere, for a while."""
    lab.experiment("test_1")
    asked = 0

    def useless(finding: Finding, context: Context) -> Iterator[Change]:
        nonlocal asked
        asked += 1
        before = context.snapshot.experiments[finding.entity.key].tags.get("tried")
        yield SetExperimentTag(finding.entity.key, "tried", (before or "") + more, before)

    with pytest.raises(PlanError, match=r"EXP002 does not settle.*test_1"):
        plan_for(lab, "EXP002", others=with_remedy("EXP002", useless))
    assert asked == times


def test_a_finding_may_come_back_while_its_fixer_gets_further(lab: Lab) -> None:
    lab.experiment("test_1")

    def slow(finding: Finding, context: Context) -> Iterator[Change]:
        item = context.snapshot.experiments[finding.entity.key]
        tried = item.tags.get("tried")
        if tried != "xx":
            yield SetExperimentTag(item.experiment_id, "tried", (tried or "") + "x", tried)
        else:
            yield RenameExperiment(item.experiment_id, "serious", item.name)

    plan = plan_for(lab, "EXP002", others=with_remedy("EXP002", slow))
    assert [len(step.changes) for step in plan.steps] == [1, 1, 1]
    assert plan.outcome.experiments["1"].name == "serious"


def test_fixers_that_never_end_are_named(lab: Lab) -> None:
    """Each round brings another finding, so none comes back; the number of rounds ends it."""
    lab.experiment("one", lifecycle="1")

    def on_and_on(finding: Finding, context: Context) -> Iterator[Change]:
        item = context.snapshot.experiments[finding.entity.key]
        yield RenameExperiment(item.experiment_id, f"test_{len(item.name)}" + "x" * len(item.name), item.name)

    @policy("XXX001", "Never satisfied", Severity.LOW)
    def test_never(experiment: Experiment, violations: Violations) -> None:
        """A new finding whatever is done."""
        violations.add(f"called-{len(experiment.name)}", f"called {experiment.name}")

    rule = test_never.__compliance_policy__  # type: ignore[attr-defined]
    with pytest.raises(PlanError, match=r"does not settle after 10 rounds.*XXX001"):
        make_plan([rule], {"XXX001": on_and_on}, Context(lab.read(), lab.settings))


def test_what_a_fixer_refuses_is_told_with_its_reason(lab: Lab) -> None:
    lab.experiment("test_1")

    def no(finding: Finding, context: Context) -> Iterator[Change]:
        raise Unfixable("ask Ann")
        yield

    plan = plan_for(lab, "EXP002", others=with_remedy("EXP002", no))
    assert [refusal.reason for refusal in plan.unfixed] == ["ask Ann"]
    assert "    ! not fixed: ask Ann" in list(plan.lines())
    reason = plan_for(lab, "EXP002", others={"EXP001": no}).unfixed[0].reason
    assert reason.startswith("delete it, `mlflow experiments delete --experiment-id "), "what the rule advises"


def test_a_change_that_does_not_apply_is_a_refusal(lab: Lab) -> None:
    lab.experiment("test_1")

    def taken(finding: Finding, context: Context) -> Iterator[Change]:
        yield RenameExperiment(finding.entity.key, "Default", "test_1")

    plan = plan_for(lab, "EXP002", others=with_remedy("EXP002", taken))
    assert plan.steps == ()
    assert "'Default' is taken" in plan.unfixed[0].reason


def test_entities_are_counted_once_however_often_they_change(lab: Lab) -> None:
    lab.experiment("test_1")
    plan = plan_for(lab, "EXP002")
    assert len(plan.changes) > 3
    assert len(plan.entities) == 1
    # A label is for people: the same experiment under two names is one entity.
    assert {change.entity.label for change in plan.changes} == {"", "test_1"}


@pytest.mark.parametrize(("limit", "refused"), [(1, True), (2, False)])
def test_fix_max_counts_entities(lab: Lab, limit: int, refused: bool) -> None:
    for name in ("test_1", "test_2"):
        lab.experiment(name)
    (lab.folder / "compliance.toml").write_text('experiments.test_names = ["test_*"]')
    audit = Audit(Options(CHECKOUT, Path(lab.folder), tracking_uri=lab.uri, fixers=("fixers",), limit=limit), Silent)
    (rule,) = (rule for rule in rules() if rule.id == "EXP002")
    audit.add(rule)
    only = {"EXP002": frozenset({"experiment-1", "experiment-2"})}
    if refused:
        with pytest.raises(PlanError, match=r"changes 2 entities and --fix-max allows 1.*nothing was changed"):
            audit.plan(only)
    else:
        assert len(audit.plan(only).entities) == 2


def test_only_selected_cases_are_planned(lab: Lab) -> None:
    for name in ("test_1", "test_2"):
        lab.experiment(name)
    plan = make_plan(
        list(rules()), remedies(), Context(lab.read(), lab.settings), {"EXP002": frozenset({"experiment-2"})}
    )
    assert {change.entity.key for change in plan.changes} == {"2"}


def test_a_stuck_run_is_ended_before_its_experiment_is_retired(lab: Lab) -> None:
    """What has not ended may still log: only when RUN001 has ended it is the experiment retired."""
    test = lab.experiment("test_1")
    lab.run(test, status="RUNNING")
    plan = plan_for(lab)
    kinds = [type(change).__name__ for change in plan.changes]
    assert kinds.index("EndRun") < kinds.index("DeleteExperiment")
    done = carry_out(lab, plan)
    assert done.differing == []
