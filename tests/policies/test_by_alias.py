"""Products whose production run is the one that their alias names, whatever tags say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gates import POLICIES, Gate, told
from mlflow.entities import Param
from producing import copied, model_folder
from repairs import EVERY, carry_out, findings, plan_for, rules, unfixed, verdict
from stores import CREDIT, Lab

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.loader.load import find_production_model
from mlflow_compliance.production.claims import production_runs
from mlflow_compliance.production.context import Context
from mlflow_compliance.rules.evaluation import cases, evaluate
from mlflow_compliance.rules.outcome import Outcome
from mlflow_compliance.store.backends.client import ClientReader

LabMaker = Callable[..., Lab]
ABOUT_PRODUCTION = ("EXP001", "RUN002", "MOD001", "PRD001", "PRD002", "PRD003", "PRD004", "PRD006", "PRD009", "REG001")
WANTED = {
    "registered_model": "credit",
    "alias": "champion",
    "required_params": ["threshold"],
    "required_metrics": ["auc"],
    "required_tags": ["team"],
    "required_artifacts": ["model"],
}


def product(name: str = "credit", **more: Any) -> dict[str, Any]:
    return {"name": name, "production_by": "alias", "production": {**WANTED, "registered_model": name}, **more}


class Served:
    """A store with one experiment of training runs, no tag of production, and an alias that names one of them."""

    def __init__(self, make_lab: LabMaker, *others: dict[str, Any], **more: Any) -> None:
        self.lab = make_lab(products=[product(**more), *others])
        self.home = self.lab.experiment("fraud training", lifecycle="development")
        self.runs = [self._trained(number) for number in range(3)]
        self.run = self.runs[1]
        for number, run in enumerate(self.runs):
            source = f"models:/{self.lab.model(self.home, run)}"
            self.lab.registered("credit", source, run, alias="champion" if number == 1 else "")

    def _trained(self, number: int) -> str:
        run = self.lab.run(self.home, f"trial {number}", metrics={"auc": 0.7 + number / 100}, team="fraud")
        self.lab.client.log_batch(run, params=[Param("threshold", f"0.{number + 1}")])
        return run

    def write(self) -> None:
        """The settings, beside the store."""
        lines = ["[store]", f"tracking_uri = {json.dumps(self.lab.uri)}"]
        for item in self.lab.settings.products:
            table = item.model_dump(mode="json", exclude_unset=True)
            production = table.pop("production", {})
            for heading, keys in (("[[products]]", table), ("[products.production]", production)):
                lines += [heading, *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        (self.lab.folder / "compliance.toml").write_text("\n".join(lines))


@pytest.fixture
def served(make_lab: LabMaker) -> Served:
    return Served(make_lab)


def test_a_store_without_any_tag_keeps_the_rules(served: Served) -> None:
    """The other runs of the experiment have other thresholds: they are not in force and say nothing."""
    assert [str(found) for found in findings(served.lab, *ABOUT_PRODUCTION, "REG004", "REG005")] == []
    for rule in ABOUT_PRODUCTION:
        key = {"PRD001": "threshold", "PRD002": "auc", "PRD003": "team", "PRD004": "model"}.get(rule, "")
        assert verdict(served.lab, rule, key).outcome is Outcome.PASSED, rule


def test_a_server_is_read_to_the_same(served: Served) -> None:
    """The run that the alias names comes in full by the client too; the others of its experiment are counted."""
    lab = served.lab
    by_client, _ = ClientReader(lab.client).read(lab.store.info, lab.settings)
    context = Context(by_client, lab.settings)
    assert [run.params for run in production_runs(lab.settings.products[0], context)] == [{"threshold": "0.2"}]
    assert set(by_client.runs) == set(lab.read().runs) == {served.run}


def test_a_run_that_a_server_does_not_show_is_not_missing(served: Served) -> None:
    """A server shows one workspace: the run may lie in another, and what it is like nobody knows."""
    lab = served.lab
    shown = lab.read()
    elsewhere = replace(shown, runs={}, info=replace(shown.info, backend="http", workspace="team"))
    context = Context(elsewhere, lab.settings)
    for rule in rules():
        if rule.id in ABOUT_PRODUCTION:
            for case in cases(rule, context):
                assert evaluate(rule, case, context).outcome is Outcome.NOT_EVALUATED, rule.id


def test_a_tag_makes_no_production(served: Served) -> None:
    """Somebody tags another run, its experiment and one that is named like production: all that is told is the tags."""
    lab, other = served.lab, served.runs[2]
    lab.tag_run(other, stage="production")
    elsewhere = lab.experiment("fraud_production", stage="production")
    lab.run(elsewhere, stage="production", metrics={"auc": 0.1})
    assert findings(lab, *ABOUT_PRODUCTION) == []
    found = findings(lab, "EXP003")
    assert {item.code for item in found} == {"production-of-no-product", "unclassified"}
    assert other in {item.entity.key for item in found}
    assert all("the run behind credit@champion" in item.expected for item in found if "no-product" in item.code)
    before = lab.client.get_run(other).data.tags
    carry_out(lab, plan_for(lab))
    assert lab.client.get_run(other).data.tags == before
    assert lab.client.get_model_version_by_alias("credit", "champion").run_id == served.run


def test_the_production_run_itself_is_judged(served: Served) -> None:
    lab = served.lab
    lab.sql("DELETE FROM params WHERE run_uuid = ?", served.run)
    lab.sql("UPDATE runs SET status = 'FAILED' WHERE run_uuid = ?", served.run)
    found = {(item.policy, item.code, item.entity.key) for item in findings(lab, *ABOUT_PRODUCTION)}
    assert found == {("PRD001", "missing", served.run), ("RUN002", "not-finished", served.run)}
    reason = unfixed(plan_for(lab, "RUN002"), "RUN002")[0].reason
    assert "set_registered_model_alias('credit', 'champion', VERSION_IN_FORCE)" in reason


BROKEN: dict[str, tuple[Callable[[Served], Any] | None, str]] = {
    "no model": (
        lambda served: served.lab.client.delete_registered_model("credit"),
        "there is no registered model credit",
    ),
    "no alias": (
        lambda served: served.lab.client.delete_registered_model_alias("credit", "champion"),
        "has no alias champion",
    ),
    "no version": (
        lambda served: served.lab.client.delete_model_version("credit", "2"),
        "names version 2, which is not there",
    ),
    "deleted run": (lambda served: served.lab.client.delete_run(served.run), "which is deleted"),
    "deleted experiment": (
        lambda served: served.lab.client.delete_experiment(served.home),
        "which lies in the deleted experiment 'fraud training'",
    ),
    "no run": (None, "which was registered without a run"),
}


@pytest.mark.parametrize("harm", BROKEN)
def test_an_alias_that_leads_nowhere_is_red(served: Served, harm: str) -> None:
    lab = served.lab
    break_it, said = BROKEN[harm]
    if break_it:
        break_it(served)
        if harm == "no version":  # MLflow takes the alias away with it; a database that was cleaned by hand keeps it
            lab.sql("INSERT INTO registered_model_aliases (alias, version, name) VALUES ('champion', 2, 'credit')")
    else:
        lab.sql("UPDATE model_versions SET run_id = NULL WHERE version = 2")
    for rule in ABOUT_PRODUCTION:
        key = {"PRD001": "threshold", "PRD002": "auc", "PRD003": "team", "PRD004": "model"}.get(rule, "")
        assert verdict(lab, rule, key).outcome is Outcome.FAILED, rule
    (found,) = findings(lab, "RUN002")
    assert said in found.observed
    served.write()
    if harm in ("no model", "no alias", "no run"):
        with pytest.raises(
            ComplianceError, match="registered without a run" if harm == "no run" else "which alone says"
        ):
            find_production_model(config=lab.folder / "compliance.toml")


def test_what_the_alias_named_is_restored_and_the_alias_stays(served: Served) -> None:
    """A run that was deleted comes back, marked or not; the alias is never moved, and a dead one is not taken away."""
    lab = served.lab
    lab.tag_run(served.run, stage="production")
    lab.client.delete_run(served.run)
    assert carry_out(lab, plan_for(lab)).differing == []
    assert findings(lab, *ABOUT_PRODUCTION, "REG004") == []
    assert lab.client.get_run(served.run).info.lifecycle_stage == "active"
    lab.sql("UPDATE registered_model_aliases SET version = 9")
    plan = plan_for(lab)
    assert not [change for change in plan.changes if change.kind == "SetAlias"]
    assert "it says what is in production of credit" in unfixed(plan, "REG005")[0].reason
    assert "set_registered_model_alias('credit', 'champion', VERSION_IN_FORCE)" in unfixed(plan, "RUN002")[0].reason


def test_where_the_run_lies_is_told_and_it_is_not_moved(make_lab: LabMaker) -> None:
    served = Served(make_lab, primary="fraud final")
    lab = served.lab
    lab.experiment("fraud final", lifecycle="production")
    (found,) = findings(lab, "EXP001")
    assert (found.code, found.entity.key) == ("production-elsewhere", served.home)
    plan = plan_for(lab, "EXP001")
    assert plan.changes == ()
    assert "is not moved" in unfixed(plan, "EXP001")[0].reason


def test_an_experiment_that_the_product_does_not_cover(make_lab: LabMaker) -> None:
    served = Served(make_lab, experiments=["credit_*"])
    (found,) = findings(served.lab, "EXP001")
    assert (found.code, found.entity.key) == ("production-elsewhere", served.home)


@pytest.mark.parametrize("marked", ["run", "experiment"])
def test_no_other_product_supersedes_or_retires_it(make_lab: LabMaker, marked: str) -> None:
    """A product by tags claims the same experiment as a rival of its primary one, and says another threshold."""
    tags = {
        **CREDIT,
        "name": "by tags",
        "experiments": ["*"],
        "production_tags": {"stage": "production"},
        "production": {"decisions": {"threshold": "0.9"}},
    }
    served = Served(make_lab, tags)
    lab = served.lab
    if marked == "run":
        lab.tag_run(served.run, stage="production")
    else:
        lab.client.set_experiment_tag(served.home, "stage", "production")
    primary = lab.experiment("credit_delivery")
    run = lab.run(primary, stage="production")
    lab.client.log_batch(run, params=[Param("threshold", "0.9")])
    before = lab.client.get_run(served.run).data.tags
    plan = plan_for(lab)
    carry_out(lab, plan)
    assert lab.client.get_run(served.run).data.tags == before
    assert lab.client.get_run(served.run).info.lifecycle_stage == "active"
    assert lab.client.get_experiment(served.home).name == "fraud training"
    assert findings(lab, "REG001") == []


def test_an_experiment_that_the_settings_call_a_test(make_lab: LabMaker) -> None:
    served = Served(make_lab)
    served.lab.settings = served.lab.settings.model_copy(
        update={"experiments": served.lab.settings.experiments.model_copy(update={"test_names": ("fraud*",)})}
    )
    (found,) = findings(served.lab, "EXP001")
    assert found.code == "primary-not-in-force"
    plan = plan_for(served.lab, "EXP001", "EXP002")
    assert plan.changes == ()
    assert "is in production of credit, whose alias names it" in unfixed(plan, "EXP002")[0].reason


def test_a_whole_store_at_the_command_line(produced_built: Lab, tmp_path: Path, gate: Gate) -> None:
    """Audit and --fix leave a healthy store as it is; with the run deleted the gate is red until it is restored."""
    lab = copied(produced_built, tmp_path / "store")
    run = lab.client.get_model_version_by_alias("credit", "production").run_id
    lab.client.delete_tag(run, "stage")
    lab.client.delete_experiment_tag("1", "lifecycle")
    lab.sql("UPDATE tags SET value = 'superseded' WHERE key = 'stage'")
    config = lab.folder / "compliance.toml"
    by_alias = 'name = "credit"\nproduction_by = "alias"\n'
    config.write_text(config.read_text().replace('name = "credit"\n', by_alias, 1))
    lab.reload()
    assert [str(found) for found in findings(lab, EVERY)] == []
    model = model_folder(lab)
    found = find_production_model(tracking_uri=lab.uri, config=config)
    assert (found.run_id, found.location, found.via) == (run, str(model), "alias")
    flags = (f"--compliance-config={config}", f"--tracking-uri={lab.uri}", "-k", "runs or experiments or registry")
    before = lab.database.read_bytes()
    assert (gate(*flags, "--fix", rules=[POLICIES]).ret, lab.database.read_bytes() == before) == (0, True)
    lab.client.delete_run(run)
    result = gate(*flags, rules=[POLICIES])
    assert result.ret == 1
    assert f"credit@production names version 1 of run {run}, which is deleted" in told(result)
    assert gate(*flags, "--fix", rules=[POLICIES]).ret == 0
    assert lab.client.get_run(run).info.lifecycle_stage == "active"
