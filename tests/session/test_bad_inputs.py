"""What people write by mistake is told in one sentence that says what to write, before anything is examined."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
from gates import POLICIES, Gate, told
from stores import Lab

LabMaker = Callable[..., Lab]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "compliance.toml",
            '[products]\nname = "credit"\n',
            "compliance.toml:1: products: there may be several: write [[products]] in place of [products]",
        ),
        (
            "pyproject.toml",
            '[tool.mlflow-compliance.products]\nname = "credit"\n',
            "write [[tool.mlflow-compliance.products]] in place of [tool.mlflow-compliance.products]",
        ),
        (
            "compliance.toml",
            '[[products]]\nname = "credit"\nproduction_by = "alias"\n[products.production]\nalias = "champion"\n',
            "compliance.toml:3: products[0].production_by: 'alias' needs the registered model that has it",
        ),
    ],
)
def test_settings(gate: Gate, lab: Lab, file: str, text: str, said: str) -> None:
    (gate.folder / file).write_text(text)
    result = gate(f"--tracking-uri={lab.uri}")
    assert (result.ret, said in told(result)) == (4, True), told(result)


@pytest.mark.parametrize("spelling", ["{path}", "file://{path}", "sqlite:{path}", "sqlite://{path}", "{folder}"])
def test_a_database_that_is_named_as_a_path(gate: Gate, lab: Lab, spelling: str) -> None:
    gate.settings()
    result = gate(f"--tracking-uri={spelling.format(path=lab.database, folder=lab.folder)}")
    assert (result.ret, f"write sqlite:///{lab.database}" in told(result)) == (4, True), told(result)


def test_a_slash_too_few(gate: Gate, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.settings()
    monkeypatch.chdir(gate.folder)
    result = gate(f"--tracking-uri=sqlite:///{str(lab.database).lstrip('/')}")
    assert (result.ret, f"write sqlite:///{lab.database} (nothing was created)" in told(result)) == (4, True)


def test_a_file_that_is_no_database(gate: Gate) -> None:
    gate.settings()
    (gate.folder / "mlflow.txt").write_text("notes")
    result = gate(f"--tracking-uri={gate.folder / 'mlflow.txt'}")
    assert (result.ret, "is a file, and neither a SQLite database nor a folder" in told(result)) == (4, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("EXP999", "-k EXP999: no rule has this id; near it: EXP00"),
        ("EXP001 or RUN02", "-k RUN02: no rule has this id; near it: RUN002"),
        ("not art0001", "-k art0001: no rule has this id; near it: ART001"),
        ("XYZ123", "-k XYZ123: no rule has this id; the README lists them"),
    ],
)
def test_an_id_that_no_rule_has(gate: Gate, lab: Lab, words: str, said: str) -> None:
    gate.settings(lab.uri)
    result = gate("-k", words)
    assert (result.ret, said in told(result)) == (4, True), told(result)


@pytest.mark.parametrize("words", ["exp001", "no_such_name", "utf8 or RUN002", "credit_1 or EXP004", "v2"])
def test_other_words_of_k_are_pytests_own(gate: Gate, lab: Lab, words: str) -> None:
    gate.settings(lab.uri)
    result = gate("-k", words, rules=[POLICIES / "test_experiments.py", POLICIES / "test_runs.py"])
    assert "no rule has this id" not in told(result)
    assert result.ret in (0, 1, 5)


def test_an_id_that_a_test_beside_the_rules_answers_to(gate: Gate, lab: Lab) -> None:
    gate.settings(lab.uri)
    gate.pytester.makepyfile(test_own="def test_xyz123():\n    pass\n")
    rules = [POLICIES / "test_runs.py", gate.folder / "test_own.py"]
    assert gate("-k", "XYZ123", rules=rules).ret == 0


@pytest.mark.parametrize("place", ["a file", "a folder", "nowhere"])
def test_a_page_that_cannot_be_written(gate: Gate, place: str) -> None:
    """Told before the store is asked: its URI leads nowhere."""
    gate.settings("sqlite:////no/such/place.db")
    (gate.folder / "notes.txt").write_text("")
    named = {
        "a file": f"{gate.folder}/notes.txt/deep/audit.html",
        "a folder": str(gate.folder),
        "nowhere": "/proc/none/audit.html",
    }[place]
    result = gate(f"--html={named}")
    assert result.ret == 4
    assert f"--html={named}: the report cannot be written there (" in told(result)
    assert "no database" not in told(result)


def test_a_page_in_a_folder_that_is_not_there_yet(gate: Gate, lab: Lab) -> None:
    gate.settings(lab.uri)
    for _ in range(2):
        assert gate("--html=new/audit.html", "-k", "EXP004").ret == 0
    assert sorted(path.name for path in (gate.folder / "new").iterdir()) == ["assets", "audit.html"]
    shutil.rmtree(gate.folder / "new")


TWO = """
[store]
tracking_uri = "{uri}"
[[products]]
name = "credit"
{first}
[[products]]
name = "fraud"
{second}
"""


@pytest.mark.parametrize(
    ("first", "second", "twice"),
    [
        ("", "", True),
        ('experiments = ["credit*"]', "", True),
        ('experiments = ["credit*"]', 'experiments = ["fraud*"]', False),
        ('production_tags = { credit = "live" }', 'production_tags = { fraud = "live" }', False),
    ],
)
def test_two_products_that_claim_one_experiment(gate: Gate, lab: Lab, first: str, second: str, *, twice: bool) -> None:
    for name in ("credit", "fraud"):
        if not (twice and name == "fraud"):
            lab.run(lab.experiment(f"{name} models"), stage="production", **{name: "live"})
    (gate.folder / "compliance.toml").write_text(TWO.format(uri=lab.uri, first=first, second=second))
    result = gate("-k", "EXP001 or RUN002")
    assert (result.ret, "production of two products, credit and fraud" in told(result)) == (int(twice), twice)
    for flags in ([], ["--compliance-metadata-only"]) if twice else ():
        text = " ".join(told(gate("-k", "EXP001", *flags)).split())
        assert 'under [[products]] in compliance.toml, `experiments = ["fraud*"]`, or give each tags' in text


def test_a_primary_that_is_not_there(gate: Gate, lab: Lab) -> None:
    lab.run(lab.experiment("credit_delivery_v2"), stage="production")
    gate.settings(lab.uri)
    text = told(gate("-k", "EXP001"))
    assert "the primary experiment that the settings name is not there" in text
    assert "(primary: compliance.toml:" in text
    assert "did you mean 'credit_delivery_v2'?" in text
    for flags in ([], ["--compliance-metadata-only"]):
        text = " ".join(told(gate("-k", "EXP001", *flags)).split())
        assert '[[products]] in compliance.toml: `primary = "credit_delivery_v2"`' in text, flags
    assert "more than one production experiment" not in text


def test_a_primary_that_was_deleted(gate: Gate, lab: Lab) -> None:
    """The settings are right, the store changed: that is a finding, and the way back is told."""
    key = lab.experiment("credit_delivery")
    lab.client.delete_experiment(key)
    gate.settings(lab.uri)
    result = gate("-k", "EXP001", "--compliance-show=all")
    assert result.ret == 1
    assert f"it is deleted: `mlflow experiments restore --experiment-id {key}` brings it back" in told(result)
    assert '`primary = "EXPERIMENT_NAME"`' in told(result)
