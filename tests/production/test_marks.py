"""The second claim to production that nobody counts: in another spelling, or where no product looks. It is told,
and nothing is changed for it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from producing import settings_for
from repairs import findings, plan_for, unfixed
from stores import Lab

LabMaker = Callable[..., Lab]
SPELLINGS = [
    ("stage", "Production"),
    ("stage", "production "),
    ("stage", "\tPRODUCTION\n"),
    ("Stage", "production"),
    (" STAGE ", "Production"),
]


@pytest.fixture
def lab(make_lab: LabMaker) -> Lab:
    """A store with one production run, in order."""
    made = make_lab()
    made.run(made.experiment("credit_delivery", lifecycle="production"), "in force", stage="production")
    return made


def told(lab: Lab) -> list[tuple[str, str]]:
    """(code, entity) of what EXP003 says; the remedies for it are advice alone."""
    plan = plan_for(lab, "EXP003")
    found = findings(lab, "EXP003")
    assert plan.changes == ()
    assert len(unfixed(plan, "EXP003")) == len(found)
    return [(finding.code, finding.entity.key) for finding in found]


def test_the_one_that_is_counted_is_no_finding(lab: Lab) -> None:
    lab.run("1", "superseded", stage="superseded")
    lab.run("1", "staging", stage="staging")
    assert told(lab) == []


@pytest.mark.parametrize(("key", "value"), SPELLINGS)
def test_a_run_of_another_spelling(lab: Lab, key: str, value: str) -> None:
    run_id = lab.run("1", "second", **{key: value})
    assert told(lab) == [("mark-spelled-otherwise", run_id)]
    assert findings(lab, "RUN002") == [], "it is told, not counted"


@pytest.mark.parametrize(("key", "value"), SPELLINGS)
def test_an_experiment_of_another_spelling(lab: Lab, key: str, value: str) -> None:
    second = lab.experiment("credit_v2", lifecycle="reference", **{key: value})
    assert told(lab) == [("mark-spelled-otherwise", second)]
    assert findings(lab, "EXP001") == []


def test_where_no_product_looks(lab: Lab) -> None:
    other = lab.experiment("churn", lifecycle="reference", stage="production")
    run_id = lab.run(other, "live", stage="production")
    assert told(lab) == [("production-of-no-product", other), ("production-of-no-product", run_id)]
    (mark, _) = findings(lab, "EXP003")
    assert "experiments: the settings" in mark.expected


def test_in_an_experiment_that_the_settings_call_a_test(lab: Lab) -> None:
    run_id = lab.run(lab.experiment("credit_test"), stage="production")
    assert told(lab) == [("production-of-no-product", run_id)]


def test_what_is_deleted_says_nothing(lab: Lab) -> None:
    other = lab.experiment("churn", lifecycle="reference")
    lab.client.delete_run(lab.run(other, stage="production"))
    lab.run(gone := lab.experiment("gone"), stage="production")
    lab.client.delete_experiment(gone)
    assert told(lab) == []


def test_marks_of_the_users_own(make_lab: LabMaker) -> None:
    lab = make_lab(
        products=[
            {
                "name": "credit",
                "primary": "credit_delivery",
                "production_tags": {"Ümgebung": "In  Betrieb", "env": "100%_live"},
            }
        ]
    )
    key = lab.experiment("credit_delivery", lifecycle="production")
    lab.run(key, "in force", env="100%_live")
    lab.run(key, "of no mark", stage="production")
    odd = {lab.run(key, "a", env="100%_LIVE "), lab.run(key, "b", ümgebung="in betrieb")}
    lab.run(key, "like it", env="100 live")
    assert set(told(lab)) == {("mark-spelled-otherwise", run_id) for run_id in odd}


@pytest.fixture
def registry(make_lab: LabMaker) -> Lab:
    """A store whose product loads `credit` by its alias."""
    lab = make_lab(**settings_for(registered_model="credit"))
    run_id = lab.run(lab.experiment("credit_delivery"), stage="production")
    lab.registered("credit", str(lab.folder_of(run_id)), run_id, alias="production")
    return lab


def aliases(lab: Lab) -> list[tuple[str, str]]:
    assert plan_for(lab, "REG006").changes == ()
    return [
        (finding.entity.key, finding.severity.value if finding.severity else "") for finding in findings(lab, "REG006")
    ]


def test_the_alias_of_the_product_and_ordinary_ones(registry: Lab) -> None:
    registry.registered("credit", str(registry.folder / "x"), alias="challenger")
    registry.registered("churn", str(registry.folder / "x"), alias="newest")
    registry.registered("credit", str(registry.folder / "x"), alias="champion")
    assert aliases(registry) == []


@pytest.mark.parametrize(
    ("alias", "severity"),
    [("production", ""), ("Production", ""), ("champion", "low"), ("Champion", "low"), ("PROD", "low")],
)
def test_an_alias_of_another_model(registry: Lab, alias: str, severity: str) -> None:
    registry.registered("churn", str(registry.folder / "x"), alias=alias)
    assert aliases(registry) == [("churn", severity)]


def test_another_spelling_on_the_products_own_model(registry: Lab) -> None:
    registry.client.set_registered_model_alias("credit", "Production", "1")
    assert aliases(registry) == [], "it names the same version"
    registry.registered("credit", str(registry.folder / "x"), alias="Production")
    assert aliases(registry) == [("credit", "")]


def test_an_alias_where_the_product_names_no_model(make_lab: LabMaker) -> None:
    lab = make_lab()
    lab.registered("prices", str(lab.folder / "x"), alias="production")
    assert aliases(lab) == [("prices", "")]
