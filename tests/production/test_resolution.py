"""Which model is the production one: the same answer from a Snapshot and from the live store, for every state of a
store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from stores import Lab

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.loader.load import ClientLookup
from mlflow_compliance.production.resolution import Resolution, SnapshotLookup, resolve
from mlflow_compliance.settings.schema import Product

MARK = {"stage": "production"}
NAMED = {"registered_model": "credit", "model_name": "model"}


class Case:
    """A store with its production experiment, and short words for what a team does in it."""

    def __init__(self, make_lab: Callable[..., Lab], **production: Any) -> None:
        product = {
            "name": "credit",
            "experiments": ["credit_*"],
            "production_names": ["*_delivery"],
            "production_tags": {"stage": "production", "it's": "it's on"},
            "production": production or NAMED,
        }
        self.lab = make_lab(products=[product])
        self.home = self.lab.experiment("credit_delivery")
        self.seen: list[str] = []

    @property
    def product(self) -> Product:
        return self.lab.settings.products[0]

    def run(
        self, threshold: str | None = "0.4", *, home: str | None = None, status: str = "FINISHED", **tags: str
    ) -> str:
        run_id = self.lab.run(home or self.home, status="RUNNING", **(tags or MARK))
        if threshold is not None:
            self.lab.client.log_param(run_id, "optimal_threshold", threshold)
        if status != "RUNNING":
            self.lab.client.set_terminated(run_id, status=status)
        self.seen.append(run_id)
        return run_id

    def model(self, run_id: str, name: str = "model") -> str:
        return self.lab.model(self.lab.client.get_run(run_id).info.experiment_id, run_id, name)

    def version(self, source: str, run_id: str | None = None, name: str = "credit") -> str:
        return self.lab.registered(name, source, run_id, alias="production")

    def both(self) -> Resolution | str:
        """The choice, or what stands against it; from both sides, which must be one."""
        snapshot = self.lab.read(self.seen)
        wanted = self.product.production
        found: list[Resolution | str] = []
        for lookup in (
            SnapshotLookup(snapshot, self.product, self.lab.settings),
            ClientLookup(self.lab.client, self.product, self.lab.settings, str(self.lab.folder)),
        ):
            try:
                found.append(resolve(lookup, registered_model=wanted.registered_model, alias=wanted.alias))
            except ComplianceError as error:
                found.append(str(error))
        assert found[0] == found[1]
        return found[0]

    def chosen(self) -> Resolution:
        found = self.both()
        assert isinstance(found, Resolution), found
        return found


MakeCase = Callable[..., Case]


@pytest.fixture
def make_case(make_lab: Callable[..., Lab]) -> MakeCase:
    return lambda **production: Case(make_lab, **production)


@pytest.fixture
def case(make_case: MakeCase) -> Case:
    return make_case()


def test_the_alias_comes_first(case: Case) -> None:
    run_id = case.run("0.48")
    model_id = case.model(run_id)
    case.version("models:/" + model_id)
    found = case.chosen()
    assert found == Resolution(
        "alias",
        f"alias production of credit names version 1, made by run {run_id}",
        run_id,
        "1",
        model_id,
        f"models:/{model_id}",
        str(case.lab.location_of(model_id)),
        0.48,
    )


def test_an_alias_that_leads_to_another_run_still_counts_and_is_told(case: Case) -> None:
    other = case.run("0.3", purpose="trial")
    case.version("models:/" + case.model(other))
    assert case.chosen().why.endswith(f"made by run {other}, while no run is marked as production")
    marked = case.run()
    found = case.chosen()
    assert (found.run_id, found.threshold) == (other, 0.3)
    assert found.why.endswith(f"made by run {other}, while marked as production: {marked}")


@pytest.mark.parametrize("source", ["runs:/{run}/model", "{place}", "models:/credit_staging/1", "models:/{model}"])
def test_whatever_a_version_was_registered_from(case: Case, source: str) -> None:
    run_id = case.run()
    earlier, model_id = case.model(run_id), case.model(run_id)
    place = case.lab.location_of(model_id)
    if "staging" in source:
        case.lab.registered("credit_staging", f"models:/{model_id}", run_id)
    case.version(source.format(run=run_id, model=model_id, place=place), run_id)
    found = case.chosen()
    assert earlier != model_id
    assert (found.model_id, found.uri, found.location) == (model_id, f"models:/{model_id}", str(place))


def test_a_logged_model_that_was_deleted_is_still_what_the_alias_names(case: Case) -> None:
    model_id = case.model(case.run())
    case.version(f"models:/{model_id}")
    case.lab.client.delete_logged_model(model_id)
    assert case.chosen().model_id == model_id


def test_a_version_of_a_model_folder_among_a_runs_artifacts(case: Case) -> None:
    run_id = case.run(status="RUNNING")
    case.lab.upload(str(case.lab.folder_of(run_id)), {"best/model/MLmodel": b"flavors:\n  a: {}\n"})
    case.version(f"runs:/{run_id}/best/model", run_id)
    found = case.chosen()
    assert (found.model_id, found.uri, found.location) == (
        None,
        "models:/credit/1",
        str(case.lab.folder_of(run_id) / "best/model"),
    )


def test_an_alias_of_a_version_without_a_run_is_refused(case: Case) -> None:
    case.model(case.run())
    case.version(str(case.lab.folder / "somewhere"))
    assert case.both() == (
        "alias production names version 1 of credit, which was registered without a run: "
        "register the production run's model and move the alias to that version"
    )


def test_a_prompt_of_that_name_is_no_model(case: Case) -> None:
    case.lab.client.register_prompt("credit", "Hello {{name}}")
    case.lab.client.set_prompt_alias("credit", "production", 1)
    model_id = case.model(case.run())
    assert case.chosen().model_id == model_id


@pytest.mark.parametrize(
    ("production", "missing"),
    [
        ({}, "the settings name no registered model"),
        (NAMED, "there is no alias production of a registered model credit"),
        ({**NAMED, "alias": "champion"}, "there is no alias champion of a registered model credit"),
    ],
)
def test_without_an_alias_the_one_marked_run(make_case: MakeCase, production: dict[str, Any], missing: str) -> None:
    case = make_case(**(production or {"model_name": "model"}))
    run_id = case.run(None)
    model_id = case.model(run_id)
    if "alias" in production:
        case.version(f"models:/{model_id}")
    found = case.chosen()
    assert (found.via, found.version, found.threshold, found.uri) == ("run", None, None, f"models:/{model_id}")
    assert (
        found.why
        == f"{missing}, and run {run_id} is the only one marked as production (it's=it's on, stage=production)"
    )


def test_runs_that_only_look_like_production_are_passed_over(case: Case) -> None:
    """In a test experiment, an archived one, one of another product, a deleted one; deleted; or with the tag in
    other letters.
    """
    run_id = case.run(**{"it's": "it's on"})
    model_id = case.model(run_id)
    for name in ("credit_test", "credit_old", "weather_production", "credit_gone"):
        home = case.lab.experiment(name, **({"lifecycle": "archived"} if name == "credit_old" else {}))
        case.model(case.run(home=home))
        if name == "credit_gone":
            case.lab.client.delete_experiment(home)
    case.lab.client.delete_run(case.run())
    case.run(stage="Production")
    found = case.chosen()
    assert (found.run_id, found.model_id) == (run_id, model_id)


def two_runs(case: Case) -> None:
    case.run(), case.run()


def two_models(case: Case) -> None:
    run_id = case.run()
    case.model(run_id, "first"), case.model(run_id, "second")


def a_deleted_model(case: Case) -> None:
    case.lab.client.delete_logged_model(case.model(case.run()))


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (
            lambda case: None,
            (
                "no run of product credit is marked as production (it's=it's on, stage=production): set the alias or "
                "tag the run"
            ),
        ),
        (two_runs, "and 2 runs are marked as production ("),
        (lambda case: case.model(case.run(status="FAILED")), "the only one marked as production, is FAILED"),
        (lambda case: case.model(case.run(status="RUNNING")), "the only one marked as production, is RUNNING"),
        (lambda case: case.run(), "has no model named model: log its model"),
        (a_deleted_model, "has no model named model: log its model"),
        (two_models, "logged first, second, none named model: say which in production.model_name"),
        (lambda case: case.model(case.run("often")), "is 'often', which is no threshold from 0 to 1"),
        (lambda case: case.model(case.run("1.5")), "is '1.5', which is no threshold from 0 to 1"),
        (lambda case: case.model(case.run("nan")), "is 'nan', which is no threshold from 0 to 1"),
    ],
)
def test_what_stands_against_a_choice(case: Case, prepare: Callable[[Case], object], said: str) -> None:
    prepare(case)
    found = case.both()
    assert isinstance(found, str)
    assert said in found


def test_the_named_model_wins_over_others_of_the_run(case: Case) -> None:
    run_id = case.run()
    wanted = case.model(run_id)
    case.model(run_id, "explainer")
    assert case.chosen().model_id == wanted


def test_an_only_model_of_another_name_is_taken(case: Case) -> None:
    run_id = case.run()
    only = case.model(run_id, "scorer")
    assert case.chosen().model_id == only


def test_of_two_models_with_one_name_the_later(case: Case) -> None:
    run_id = case.run()
    case.model(run_id)
    later = case.model(run_id)
    assert case.chosen().model_id == later
    snapshot = case.lab.read(artifacts=False)
    with pytest.raises(ComplianceError, match="nothing says which is the later"):
        resolve(SnapshotLookup(snapshot, case.product, case.lab.settings), registered_model=None, alias="")


def test_a_model_folder_of_the_old_style(case: Case) -> None:
    run_id = case.run()
    case.lab.upload(str(case.lab.folder_of(run_id)), {"model/MLmodel": b"flavors:\n  a: {}\n"})
    found = case.chosen()
    assert (found.model_id, found.uri, found.location) == (
        None,
        f"runs:/{run_id}/model",
        str(case.lab.folder_of(run_id) / "model"),
    )


def test_the_first_name_of_the_threshold_counts(make_case: MakeCase) -> None:
    case = make_case(facts={"threshold": ["cut", "optimal_threshold"]})
    run_id = case.run("0.4")
    case.lab.client.log_param(run_id, "cut", "0.25")
    case.model(run_id)
    assert case.chosen().threshold == 0.25
