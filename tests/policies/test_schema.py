"""STO003: the schema is told before everything else, whatever was selected, and nothing is written to a wrong one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from gates import CHECKOUT, POLICIES, Gate, state, told
from stores import Lab

from mlflow_compliance.store.backends.known_schema import KNOWN, MADE
from mlflow_compliance.store.backends.sql_schema import installed_revisions

STATES = {
    "newer": (
        ["UPDATE alembic_version SET version_num = 'ffffffffffff'"],
        "has a schema that the installed MLflow does not know",
    ),
    "older, its tables those of today": (
        ["UPDATE alembic_version SET version_num = '{before_secrets}'"],
        "has a schema that was upgraded half-way; found: revision {before_secrets}, and of later ones",
    ),
    "one table of a later revision": (["CREATE TABLE skills ({skills})"], "revision {head}, and of later ones skills;"),
    "one column of a later revision": (
        ["ALTER TABLE issues ADD COLUMN metadata TEXT"],
        "revision {head}, and of later ones issues.metadata;",
    ),
    "two revisions": (
        ["INSERT INTO alembic_version VALUES ('7f2a7d5fae7d')"],
        "has a version table that names several revisions",
    ),
    "no revision": (
        ["DELETE FROM alembic_version"],
        "has a version table that names no revision; found: tables of revision {head}",
    ),
    "no version table": (["DROP TABLE alembic_version"], "has no version table; found: tables of revision {head}"),
    "no version table, and a table is gone": (
        ["DROP TABLE alembic_version", "DROP TABLE scorer_versions"],
        "found: tables of no known revision",
    ),
    "stamped without its tables": (
        ["DROP TABLE webhook_events"],
        "lacks tables that its schema revision makes; found: revision {head} without webhook_events",
    ),
}
FEW = [f"{POLICIES}/test_{name}.py" for name in ("experiments", "store")]
SKILLS = ", ".join(f"{column} TEXT" for column in sorted(KNOWN["skills"]))
NAMES = {
    "head": installed_revisions()[-1],
    "before_secrets": list(MADE)[next(number for number, made in enumerate(MADE.values()) if "secrets" in made) - 1],
    "skills": SKILLS,
}


@pytest.fixture
def spoiled(make_lab: object, gate: Gate, request: pytest.FixtureRequest) -> Lab:
    """A store with one test experiment, which `--fix` would retire, and a wrong schema."""
    lab: Lab = make_lab()  # type: ignore[operator]
    lab.run(lab.experiment("test_experiment"), "try", files={"a.bin": b"1"})
    for statement in STATES[request.param][0]:
        lab.sql(statement.format(**NAMES))
    gate.settings(lab.uri)
    return lab


@pytest.mark.parametrize("spoiled", STATES, indirect=True)
@pytest.mark.parametrize(
    "flags",
    [["-k", "EXP002"], ["--compliance-metadata-only"], ["--fix-dry-run", "-k", "EXP002"]],
    ids=["k", "metadata only", "dry run"],
)
def test_a_wrong_schema_is_told_first(
    gate: Gate, spoiled: Lab, flags: Sequence[str], request: pytest.FixtureRequest
) -> None:
    said = STATES[request.node.callspec.params["spoiled"]][1].format(**NAMES)
    before = state(spoiled.folder)
    result = gate("-v", *flags, rules=FEW)
    assert result.ret == 1
    assert said in told(result)
    rows = [line for line in result.outlines if "::test_" in line and "[" in line and "%]" in line]
    assert "test_schema_is_that_of_the_installed_mlflow FAILED" in rows[0]
    assert state(spoiled.folder) == before


@pytest.mark.parametrize("spoiled", STATES, indirect=True)
def test_nothing_is_written_to_a_wrong_schema(gate: Gate, spoiled: Lab) -> None:
    before = state(spoiled.folder)
    result = gate("--fix", "-k", "EXP002", rules=FEW)
    assert result.ret == 4
    assert told(result).count("ERROR: ") == 1
    assert "nothing was changed" in told(result)
    assert state(spoiled.folder) == before


def test_a_table_of_somebody_elses_with_the_name_of_a_later_one_is_none(gate: Gate, lab: Lab) -> None:
    """Databases are shared: `skills (name)` is not MLflow's table of skills."""
    lab.run(lab.experiment("work", lifecycle="reference"))
    lab.sql("CREATE TABLE skills (name TEXT, level INTEGER)")
    gate.settings(lab.uri)
    assert "test_schema_is_that_of_the_installed_mlflow PASSED" in told(gate("-v", "-k", "EXP002"))


@pytest.mark.parametrize("flags", [[], ["--fix"], ["--collect-only"]], ids=["gate", "fix", "collect"])
def test_a_right_schema_is_looked_at_first_too(gate: Gate, messy: Lab, flags: Sequence[str]) -> None:
    result = gate("-v", "-k", "EXP002", *flags)
    text = told(result)
    assert text.index("test_schema_is_that_of") < text.index("test_no_test_experiment_is_active")
    assert "test_every_row_has_its_parent" not in text


def test_it_is_counted_once(gate: Gate, messy: Lab) -> None:
    """The check that `-k` deselected and that runs all the same is not among the deselected."""
    whole = gate("--collect-only", "-q").outlines
    everything = sum("::" in line for line in whole)
    outcomes = gate("-k", "EXP003").parseoutcomes()
    assert sum(outcomes.values()) == everything


def test_a_selection_that_fits_nothing_stays_one(gate: Gate, messy: Lab) -> None:
    result = gate("-k", "no_such_rule")
    assert result.ret == 5
    assert "test_schema" not in told(result)


def test_it_runs_beside_one_check_that_is_named(gate: Gate, messy: Lab) -> None:
    result = gate("-v", rules=[f"{POLICIES}/test_experiments.py::test_no_test_experiment_is_active"])
    assert "test_schema_is_that_of_the_installed_mlflow PASSED" in told(result)
    assert "collected 6 items" in told(result)


def test_it_runs_beside_a_users_own_pack(gate: Gate, messy: Lab) -> None:
    head = "from mlflow_compliance.api import Severity, Snapshot, policy\n"
    own = '@policy("OWN001", "Own", Severity.LOW)\ndef test_own(store: Snapshot) -> None:\n    """Because."""\n'
    gate.pack("policies", test_own=head + own)
    result = gate("-v", rules=["policies"])
    assert "test_schema_is_that_of_the_installed_mlflow PASSED" in told(result)
    messy.sql("DELETE FROM alembic_version")
    assert gate(rules=["policies"]).ret == 1


def test_workers_agree_on_it(gate: Gate, messy: Lab) -> None:
    pytest.importorskip("xdist")
    messy.sql("DELETE FROM alembic_version")
    result = gate("-n", "2", "-k", "EXP003", process=True)
    assert "names no revision" in told(result)
    assert result.ret == 1


def test_it_can_be_switched_off_as_any_other(gate: Gate, messy: Lab) -> None:
    messy.sql("DELETE FROM alembic_version")
    gate.settings(messy.uri, "[policies.STO003]\nenabled = false\n")
    result = gate("-k", "EXP001")
    assert "names no revision" not in told(result)
    assert "switched off in the settings: STO003" in told(result)


def test_a_plain_suite_has_nothing_of_it(gate: Gate) -> None:
    gate.pytester.makepyfile(test_plain="def test_plain():\n    pass\n")
    gate(rules=["test_plain.py"]).assert_outcomes(passed=1)


def test_the_list_knows_what_the_installed_mlflow_makes(lab: Lab) -> None:
    """Where this fails, .ci/known_schema.py is to be run with the MLflow that is installed."""
    with lab.store.backend.reading() as connection:  # type: ignore[attr-defined]
        from mlflow_compliance.store.backends.sql_tables import columns_of

        found = columns_of(connection)
    assert {(table, column) for table in found for column in found[table]} <= {
        (table, column) for table in KNOWN for column in KNOWN[table]
    }
    assert installed_revisions() == tuple(name for name in MADE if name in installed_revisions())
    assert len(installed_revisions()) > 60
    assert (CHECKOUT / ".ci" / "known_schema.py").is_file()


def test_skills_are_known() -> None:
    """MLflow 3.18, which cannot be installed yet."""
    assert {"source", "subpath"} <= KNOWN["skill_versions"]
