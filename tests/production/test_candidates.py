"""A store whose settings name no product: one finding, with lines of TOML that would say what there is."""

from __future__ import annotations

import re
from typing import Any

import pytest
from gates import POLICIES, Gate, told, ways_out
from repairs import findings, found_in, plan_for, rules, unfixed
from stores import Lab

from mlflow_compliance.settings.schema import Settings, load_settings
from mlflow_compliance.store.store import open_store

OF_PRODUCTION = {"EXP001", "RUN002", "MOD001", "MOD003", "MOD004", "MOD005", "REG001", "REG006", "SRV001", "SRV002"}
OF_PRODUCTION |= {f"PRD00{number}" for number in (1, 2, 3, 4, 5, 6, 7, 9)}
HOSTILE = 'a "b" \\ \n[store]\nx = 1 # \x1b[31m \u202e \U000e0041 [*?] é'


def undecided(lab: Lab, **settings: Any) -> Lab:
    """The store, with settings that name no product."""
    return with_settings(lab, Settings.model_validate(settings))


def with_settings(lab: Lab, settings: Settings) -> Lab:
    lab.settings, lab.store = settings, open_store(lab.uri, settings, str(lab.folder))
    return lab


def block(lab: Lab) -> str:
    (finding,) = findings(lab, "PRD008")
    return finding.toml


def decided(lab: Lab) -> Settings:
    """What the settings are when the block is copied as it stands."""
    path = lab.folder / "compliance.toml"
    path.write_text(f'[store]\ntracking_uri = "{lab.uri}"\n{block(lab)}\n')
    return load_settings(path)


def full(lab: Lab) -> None:
    live = lab.experiment("prices_live")
    run_id = lab.run(live, "trained")
    lab.registered("prices", f"models:/{lab.model(live, run_id)}", run_id, alias="champion")
    lab.registered("churn", str(lab.folder / "x"))
    lab.client.transition_model_version_stage("churn", "1", "Production")
    lab.registered("scratch", str(lab.folder / "x"))
    lab.run(lab.experiment("risk"), "in force", Stage="Production ")
    lab.experiment("fraud_production")
    lab.experiment("lifecycle says so", lifecycle="production")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_every_sign_becomes_a_product(lab: Lab) -> None:
    full(lab)
    undecided(lab)
    products = {item.name: item for item in decided(lab).products}
    assert products.keys() == {"prices", "churn", "risk", "fraud_production", "lifecycle says so"}
    prices = products["prices"]
    assert (prices.primary, prices.production.registered_model, prices.production.alias) == (
        "prices_live",
        "prices",
        "champion",
    )
    assert (products["churn"].primary, products["churn"].production.registered_model) == (None, "churn")
    assert products["risk"].production_tags == {"Stage": "Production "}
    assert products["fraud_production"].production_names == ("fraud_production",)
    text = block(lab)
    for seen in (
        "alias champion of registered model prices names version 1",
        "has the stage Production",
        "has the tag Stage=Production",
    ):
        assert seen in text
    with_settings(lab, decided(lab))
    assert findings(lab, "PRD008") == []
    assert findings(lab, "REG006") == []


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_it_is_the_only_finding_about_production(lab: Lab) -> None:
    full(lab)
    undecided(lab)
    found = findings(lab, *OF_PRODUCTION, "PRD008", "EXP003")
    assert [finding.policy for finding in found if finding.code != "unclassified"] == ["PRD008"]
    assert "registered_model" not in unfixed(plan_for(lab, "PRD008"), "PRD008")[0].reason
    assert plan_for(lab, "PRD008").changes == ()


def test_a_model_without_alias_counts_where_nothing_says_more(lab: Lab) -> None:
    lab.registered("scratch", str(lab.folder / "x"))
    (product,) = decided(undecided(lab)).products
    assert (product.name, product.production.registered_model) == ("scratch", "scratch")


def test_an_empty_store_is_no_green_one(lab: Lab) -> None:
    text = block(undecided(lab))
    assert text.splitlines()[-1] == "products = []"
    path = lab.folder / "compliance.toml"
    path.write_text(text)
    assert (load_settings(path).products, load_settings(path).says_products) == ((), True)


def test_names_that_would_break_out_of_their_quotes(lab: Lab) -> None:
    key = lab.experiment(f"{HOSTILE} production")
    lab.run(key, f"run {HOSTILE}", stage="production")
    (product,) = decided(undecided(lab)).products
    assert product.primary == f"{HOSTILE} production"
    assert product.covers(lab.read().experiments[key])
    assert re.search(r"[\x00-\x09\x0b-\x1f\u202e\U000e0041]", block(lab)) is None, "nothing in it steers a terminal"


def test_products_that_are_said_to_be_none(lab: Lab) -> None:
    lab.run(lab.experiment("risk"), stage="production")
    undecided(lab, products=[])
    assert findings(lab, "PRD008", "EXP001", "RUN002", "MOD001", "SRV001") == []
    assert [finding.code for finding in findings(lab, "EXP003")] == ["unclassified"]


def test_in_pyproject_the_tables_have_their_prefix(lab: Lab) -> None:
    lab.experiment("risk_production")
    path = lab.folder / "pyproject.toml"
    path.write_text("[tool.mlflow-compliance]\n")
    with_settings(lab, load_settings(path))
    (finding,) = found_in(lab.read(), lab, "PRD008")
    path.write_text(f"[tool.mlflow-compliance]\n{finding.toml}\n")
    assert [item.primary for item in load_settings(path).products] == ["risk_production"]


def test_every_rule_about_production_is_not_applicable(gate: Gate, lab: Lab) -> None:
    lab.run(lab.experiment("prices"), stage="production")
    (gate.folder / "compliance.toml").write_text(f'[store]\ntracking_uri = "{lab.uri}"\n')
    result = gate("--tb=short", rules=(POLICIES,))
    text = told(result)
    (line,) = (line for line in result.outlines if line.startswith("not applicable: ") and "see PRD008" in line)
    assert set(line.removeprefix("not applicable: ").partition(": ")[0].split(", ")) >= OF_PRODUCTION - {"REG006"}
    assert text.count("the settings name no product, so nothing of it can be judged") >= 1
    assert "[[products]]" in text
    assert "copy the lines" in ways_out(text)["PRD008"]
    assert result.parseoutcomes()["failed"] == 2  # and the experiment that nobody classified


def test_none_is_said_at_the_command_line(gate: Gate, lab: Lab) -> None:
    lab.run(lab.experiment("prices", lifecycle="reference"), stage="production")
    (gate.folder / "compliance.toml").write_text(f'products = []\n[store]\ntracking_uri = "{lab.uri}"\n')
    result = gate(rules=(POLICIES,))
    assert result.ret == 0
    assert "the settings say that no model is in production (products = [])" in told(result)
    assert "note: PRD008" in told(result)


def test_what_each_alias_loads_is_told(gate: Gate, lab: Lab) -> None:
    """Whatever the settings name: nobody is told that nothing would be loaded while an alias loads."""
    key = lab.experiment("prices")
    run_id = lab.run(key)
    lab.registered("prices", f"models:/{lab.model(key, run_id)}", run_id, alias="production")
    lab.registered("gone", str(lab.folder / "nowhere"), alias="production")
    lab.registered("far", "gs://bucket/model", alias="champion")
    (gate.folder / "compliance.toml").write_text(f'[store]\ntracking_uri = "{lab.uri}"\n')
    result = gate("--compliance-rules=SRV001", rules=(POLICIES,))
    text = told(result)
    assert result.ret == 0
    notes = sorted(line for line in result.outlines if line.startswith("note: SRV001"))
    assert [note.split()[2] for note in notes] == [
        "models:/far@champion",
        "models:/gone@production",
        "models:/prices@production",
    ]
    assert "not known" in notes[0]
    assert "its files are not there" in notes[1]
    assert f"of run {run_id} in experiment 'prices'" in notes[2]
    assert notes[2].endswith("its files are there")
    assert "no model would be loaded" not in text


def test_all_ids_of_production_are_those_of_the_packs() -> None:
    asked = {
        rule.id
        for rule in rules()
        if {"product", *(f"required_{kind}" for kind in ("param", "metric", "tag", "artifact"))} & set(rule.parameters)
    }
    assert asked == OF_PRODUCTION - {"REG006"}
