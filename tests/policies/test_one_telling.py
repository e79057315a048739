"""What has one cause is told in one line, and each rule that sees it fails by itself all the same."""

from __future__ import annotations

import shutil

import pytest
from gates import POLICIES, SETTINGS, Gate, told, ways_out
from repairs import carry_out, findings, plan_for, unfixed
from stores import Lab

RULES = [POLICIES / "test_artifacts.py", POLICIES / "test_registry.py"]


def registered(lab: Lab, home: str, number: int, name: str = "scorer") -> list[str]:
    """Logged models with one version each, the last under an alias."""
    lab.run(home, files={"note.txt": b"its root is there"})
    models = [lab.model(home, lab.run(home)) for _ in range(number)]
    for model in models:
        lab.registered(name, f"models:/{model}", alias="champion")
    return models


def lose(lab: Lab, models: list[str]) -> None:
    for model in models:
        shutil.rmtree(lab.location_of(model).parent)


@pytest.fixture
def lost(lab: Lab) -> Lab:
    """A store whose model folders are gone: seven versions of one registered model, one of another, one of none."""
    home = lab.experiment("search")
    models = [*registered(lab, home, 7), *registered(lab, lab.experiment("other"), 1, "rival")]
    lose(lab, [*models, lab.model(home, lab.run(home))])
    return lab


def test_missing_folders_are_one_line_a_root_and_one_a_registered_model(lost: Lab) -> None:
    found = {(item.policy, item.entity.key): item for item in findings(lost, "ART003", "REG002", "ART005")}
    assert found.keys() == {("ART003", str(lost.mlruns)), ("REG002", "scorer"), ("REG002", "rival/1")}
    folders = found["ART003", str(lost.mlruns)]
    assert folders.message == "9 folders that rows name are not there"
    assert folders.observed.startswith("17 rows of 'search', 'other': ")
    assert folders.observed.endswith(" and 7 more")
    versions = found["REG002", "scorer"]
    assert versions.message == "of 7 of its 7 versions the source holds no model"
    assert versions.observed.startswith("versions 1, 2, 3, 4, 5, 6, 7, aliases champion (7); version 1: models:/m-")
    plan = plan_for(lost, "ART003", "REG002")
    assert [refusal.reason.partition(";")[0] for refusal in unfixed(plan, "ART003")] == [
        "nothing says yet where the files are: put them back where the rows say"
    ]
    assert all("put the files back" in refusal.reason for refusal in unfixed(plan, "REG002"))
    assert plan.changes == ()


def test_each_rule_fails_by_itself(lost: Lab, gate: Gate) -> None:
    gate.settings(lost.uri)
    for rule in ("ART003", "REG002"):
        assert gate(f"--compliance-rules={rule}", rules=RULES).ret == 1, rule


def test_one_missing_folder_is_told_as_it_was(lab: Lab) -> None:
    models = registered(lab, "0", 3)
    place = str(lab.location_of(models[1]))
    assert findings(lab, "ART003", "REG002") == []
    lose(lab, models[1:2])
    one = findings(lab, "ART003", "REG002")
    assert [(item.policy, item.entity.key) for item in one] == [("ART003", place), ("REG002", "scorer/2")]
    assert "does not exist here" in one[0].message


def test_two_roots_are_two_lines(lab: Lab) -> None:
    elsewhere = lab.folder / "elsewhere" / "9"
    lab.client.create_experiment("elsewhere", artifact_location=str(elsewhere))
    home = lab.client.get_experiment_by_name("elsewhere").experiment_id
    lab.sql("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", f"{lab.folder}/else/{home}", home)
    models = [*registered(lab, "0", 2), *registered(lab, home, 2)]
    lose(lab, models)
    assert {item.entity.key for item in findings(lab, "ART003")} == {str(lab.mlruns), str(lab.folder / "else")}
    assert [item.entity.key for item in findings(lab, "REG002")] == ["scorer"]


def test_incomplete_versions_are_one_line_a_registered_model(lab: Lab) -> None:
    for model in registered(lab, "0", 3)[:2]:
        (lab.location_of(model) / "model.pkl").unlink()
    (found,) = findings(lab, "REG002")
    assert (found.code, found.entity.key) == ("incomplete", "scorer")
    assert found.message == "of 2 of its 3 versions the source is not complete"
    assert found.observed == "versions 1, 2; version 1: missing: model.pkl"


def test_what_lies_in_quarantine_is_said_in_the_line(lab: Lab) -> None:
    """Put aside while an older database was in place."""
    home = lab.experiment("search")
    lab.run(home, files={"note.txt": b"its root is there"})
    older = lab.database.read_bytes()
    registered(lab, home, 2)
    today = lab.database.read_bytes()
    lab.database.write_bytes(older)
    assert carry_out(lab, plan_for(lab, "ART002")).differing == []
    lab.database.write_bytes(today)
    (found,) = [item for item in findings(lab, "ART003") if item.entity.kind == "place"]
    assert found.message.startswith("2 folders that rows name are not there; what some of their rows miss lies in ")
    assert found.message.endswith(", see ART006")
    (versions,) = findings(lab, "REG002")
    assert "; what it misses lies in " in versions.observed


@pytest.mark.parametrize(("number", "lines"), [(5, 5), (6, 1)])
def test_many_files_that_cannot_be_read_are_one_line(lab: Lab, gate: Gate, number: int, lines: int) -> None:
    folder = lab.folder_of(lab.run("0", files={"note.txt": b"a"}))
    for link in range(number):
        (folder / f"{link}.bin").symlink_to("nowhere")
    found = findings(lab, "ART001")
    assert [item.code for item in found] == ["not-compared"] * lines
    if lines == 1:
        assert found[0].message == "6 files or folders could not be compared"
        assert found[0].observed.startswith("6 a symbolic link that leads nowhere; such as mlruns/0/")
    assert all("see to what is said of it" in item.reason for item in unfixed(plan_for(lab, "ART001"), "ART001"))
    gate.settings(lab.uri)
    result = gate("--compliance-rules=ART001", rules=RULES)
    assert result.ret == 1, told(result)


def test_the_way_out_of_one_cause_is_told_once(lab: Lab, gate: Gate) -> None:
    """Without a production run a dozen checks have nothing to look at: one thing is wrong."""
    lab.experiment("credit_delivery", lifecycle="production")
    more = '[products.production]\nrequired_metrics = ["auc", "recall"]\nrequired_params = ["threshold"]\n'
    text = SETTINGS.format(uri=f'"{lab.uri}"').replace("[experiments]", f"{more}[experiments]")
    (gate.folder / "compliance.toml").write_text(text)
    result = gate(rules=[POLICIES])
    assert result.ret == 1
    ways = ways_out(told(result))
    follow = {"MOD001", "MOD003", "MOD004", "PRD001", "PRD002", "PRD005", "PRD007"}
    assert {policy for policy, way in ways.items() if way == "see RUN002"} >= follow
    assert not ways["RUN002"].endswith("see RUN002")
    alone = gate("--compliance-rules=MOD004", rules=[POLICIES])
    assert alone.ret == 1
    assert "see" not in ways_out(told(alone))["MOD004"]
