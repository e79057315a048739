"""What people can do stands beside what --fix would do: a command, a line or a call, with the finding's ids in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from gates import POLICIES, Gate, told

if TYPE_CHECKING:
    from stores import Lab

BLIND = '''
from mlflow_compliance.api import RULE_ADVICE, CannotFix, Unfixable, fixer


@fixer("OWN001")
def refuse(finding, context):
    """Give it to the platform team."""
    raise Unfixable("nobody is there", advice=f"wake somebody up, or {RULE_ADVICE}")
    yield


@fixer("OWN002")
def refuse_as_ever(finding, context):
    """Give it to the platform team."""
    raise CannotFix("ask Ann")
    yield
'''
OWN = '''
from mlflow_compliance.api import Experiment, Severity, policy


@policy("OWN001", "Every experiment has an owner", Severity.LOW, advice="`own(EXPERIMENT_ID)`")
def test_experiment_has_an_owner(experiment: Experiment) -> None:
    """Somebody must be able to answer for it."""
    assert "owner" in experiment.tags, "has no tag owner"


@policy("OWN002", "Every experiment has a friend", Severity.LOW, advice="`delete(EXPERIMENT_ID)`")
def test_experiment_has_a_friend(experiment: Experiment) -> None:
    """Nobody should be alone."""
    assert "friend" in experiment.tags, "has no tag friend"
'''


def found(gate: Gate, *words: object, rules: tuple[object, ...] = (POLICIES,)) -> dict[tuple[str, str, str], Any]:
    """(rule, code, key of the entity) -> the finding, as a program reads it."""
    told(gate(*words, f"--compliance-report=json:{gate.folder}/audit.json", rules=rules))
    document = json.loads((gate.folder / "audit.json").read_text("utf-8"))
    gate_facts = {rule["id"]: rule for rule in document["summary"]["rules"]}
    return {
        (result["policy"], finding["code"], finding["key"]): {**finding, "rule": gate_facts[result["policy"]]}
        for result in document["results"]
        for finding in result["findings"]
    }


def test_two_columns_with_ids_in_them(gate: Gate, messy: Lab) -> None:
    scratch = next(item.experiment_id for item in messy.client.search_experiments() if item.name == "test_experiment")
    (stuck,) = (run.info.run_id for run in messy.client.search_runs(["4"]) if run.info.status == "RUNNING")
    findings = found(gate, "--compliance-rules=EXP002,RUN001,MOD001,MOD004,PRD008")
    test = findings["EXP002", "test", scratch]
    assert test["remedy"].startswith("Rename so that the name is free again")
    assert f"`mlflow experiments delete --experiment-id {scratch}`" in test["advice"]
    assert f'`MlflowClient().set_terminated("{stuck}", "KILLED")`' in findings["RUN001", "stuck", stuck]["advice"]
    assert "EU AI Act Art. 17" in test["rule"]["clauses"]
    for (rule, code, _), finding in findings.items():
        assert finding["advice"], (rule, code)
        assert finding["advice"] != finding["remedy"]
        assert finding["fixable"] or finding["remedy"].startswith(("nothing: ", "Only audited")), (rule, code)


def test_what_something_relies_on_is_not_advised_to_be_deleted(gate: Gate, messy: Lab) -> None:
    scratch = next(item.experiment_id for item in messy.client.search_experiments() if item.name == "test_experiment")
    run = messy.run(scratch, "champion", files={"model/MLmodel": b"flavors: {}", "model/model.pkl": b"w"})
    messy.registered("credit", f"runs:/{run}/model", run, "champion")
    test = found(gate, "--compliance-rules=EXP002")["EXP002", "test", scratch]
    assert not test["fixable"]
    assert test["remedy"].startswith("nothing: ")
    assert "alias champion of credit" in test["remedy"]
    assert "delete --experiment-id" not in test["advice"]
    assert test["advice"]


def test_a_finding_that_follows_names_what_comes_first(gate: Gate, make_lab: Any) -> None:
    lab = make_lab()
    lab.experiment("credit_delivery")
    gate.settings(lab.uri)
    first = found(gate, "--compliance-rules=MOD001,RUN002")["MOD001", "no-production-run", "credit"]
    assert first["advice"].startswith(
        "mend RUN002 first, from which this follows: `pytest --compliance-explain=RUN002`"
    )


def test_remedies_of_users_say_why_and_what(gate: Gate, messy: Lab) -> None:
    gate.pack("policies", test_own=OWN)
    gate.pack("fixers", own=BLIND)
    gate.ini("fixers", "mlflow_compliance.fixers")
    findings = found(gate, rules=("policies",))
    own = findings["OWN001", "assertion", "1"]
    assert (own["remedy"], own["advice"]) == ("nothing: nobody is there", "wake somebody up, or `own(1)`")
    old = findings["OWN002", "assertion", "1"]
    assert (old["remedy"], old["advice"]) == ("nothing: ask Ann", ""), "what was refused is not advised"
    gate.pack("none", empty="")
    gate.ini("none")
    assert found(gate, rules=("policies",))["OWN001", "assertion", "1"]["advice"] == "`own(1)`"


@pytest.mark.parametrize("name", ['we"ird `rm`', "plain", "mit Leerzeichen", "a\nb"])
def test_only_what_is_plain_is_filled_in(name: str) -> None:
    from mlflow_compliance.rules.advice import filled
    from mlflow_compliance.rules.finding import Finding
    from mlflow_compliance.snapshot.refs import EntityRef

    said = filled(
        '`x("MODEL_NAME", "VERSION", "NAME")`', Finding("REG003", EntityRef("model_version", f"{name}/3"), "stage", "")
    )
    assert said == f'`x("{name if name == "plain" else "MODEL_NAME"}", "3", "NAME")`'
