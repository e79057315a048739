"""--compliance-report=FORMAT:FILE: what is written when, and what is told where it cannot be."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from runpy import run_path
from typing import Any

import jsonschema
import pytest
from gates import CHECKOUT, Gate, LabMaker, told
from stores import Lab

SCHEMA = json.loads(resources.files("mlflow_compliance").joinpath("schemas/report.schema.json").read_text("utf-8"))
ONE = ("--compliance-rules", "EXP002")
"""Few checks, for what does not depend on which."""
PASS = '{"ok": true}'
"""What an earlier audit left."""


def read(path: Path) -> Any:
    document = json.loads(path.read_text("utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    return document


@pytest.fixture
def healthy(make_lab: LabMaker, gate: Gate) -> Lab:
    lab: Lab = make_lab()
    lab.experiment("credit_delivery")
    gate.settings(lab.uri)
    return lab


def test_the_schema_in_the_package_is_that_of_the_types() -> None:
    made = run_path(str(CHECKOUT / ".ci" / "report_schema.py"))["text"]()
    assert json.loads(made) == SCHEMA, "run: python .ci/report_schema.py"


def test_a_real_report_keeps_the_schema(gate: Gate, messy: Lab) -> None:
    assert gate("--compliance-report=json:audit.json", "--compliance-report=json:again.json").ret == 1
    document = read(gate.folder / "audit.json")
    assert (gate.folder / "again.json").read_bytes() == (gate.folder / "audit.json").read_bytes()
    assert (document["ok"], document["summary"]["stopped"]) == (False, "")
    assert document["summary"]["uri"] == messy.uri
    assert {"EXP001", "EXP002"} <= {item["policy"] for item in document["results"] if item["findings"]}
    # Everything is described: a field that the schema does not know would be one that nobody reads.
    closed = json.loads(
        json.dumps(SCHEMA).replace('"type": "object"', '"type": "object", "unevaluatedProperties": false')
    )
    jsonschema.Draft202012Validator(closed).validate(document)


@pytest.mark.usefixtures("healthy")
def test_a_healthy_store_is_ok(gate: Gate) -> None:
    assert gate(*ONE, "--compliance-report=json:audit.json").ret == 0
    document = read(gate.folder / "audit.json")
    assert (document["ok"], document["partial"]) == (True, True)


def missing_store(gate: Gate) -> None:
    gate.settings(f"sqlite:///{gate.folder}/gone.db")


def broken_settings(gate: Gate) -> None:
    gate.settings(f"sqlite:///{gate.folder}/gone.db", "[gate]\nfoo = 1\n")


def no_database(gate: Gate) -> None:
    (gate.folder / "mlflow.db").write_text("no database")
    gate.settings(f"sqlite:///{gate.folder}/mlflow.db")


@pytest.mark.parametrize("spoil", [missing_store, broken_settings, no_database])
def test_an_audit_that_stops_leaves_no_older_verdict(gate: Gate, spoil: Any) -> None:
    spoil(gate)
    path = gate.folder / "audit.json"
    path.write_text(PASS)
    result = gate(*ONE, f"--compliance-report=json:{path}")
    assert result.ret == 4
    document = read(path)
    assert (document["ok"], document["results"]) == (False, [])
    assert document["summary"]["stopped"].splitlines()[0] in told(result)


@pytest.mark.parametrize("how", ["killed", "interrupted", "nothing"])
@pytest.mark.usefixtures("healthy")
def test_nor_does_one_that_comes_to_no_end(gate: Gate, how: str) -> None:
    hooks = {
        "killed": "import os\ndef pytest_runtest_call(item): os._exit(9)\n",
        "interrupted": "def pytest_runtest_call(item): raise KeyboardInterrupt\n",
        "nothing": "def pytest_collection_modifyitems(items): items.clear()\n",
    }
    (gate.folder / "conftest.py").write_text(hooks[how])
    path = gate.folder / "audit.json"
    path.write_text(PASS)
    gate(*ONE, f"--compliance-report=json:{path}", "-p", "conftest", process=True)
    document = read(path)
    assert document["ok"] is False
    if how == "killed":
        assert "did not come to its end" in document["summary"]["stopped"]
    if how == "interrupted":
        assert "interrupted" in document["summary"]["stopped"]


@pytest.mark.parametrize("flag", ["--help", "--version", "--collect-only", "--fixtures", "--fix-journals"])
@pytest.mark.usefixtures("healthy")
def test_where_nothing_is_checked_nothing_is_written(gate: Gate, flag: str) -> None:
    path = gate.folder / "audit.json"
    path.write_text(PASS)
    gate(*ONE, flag, f"--compliance-report=json:{path}")
    assert path.read_text() == PASS


def test_without_policies_it_says_so(gate: Gate) -> None:
    (gate.folder / "test_other.py").write_text("def test_it(): pass\n")
    assert gate("--compliance-report=json:audit.json", rules=["test_other.py"]).ret == 0
    assert read(gate.folder / "audit.json")["summary"]["stopped"] == "no policy was collected"


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("json", "takes FORMAT:FILE, such as json:audit.json, not 'json'"),
        ("json:", "takes FORMAT:FILE"),
        ("jsn:x", "knows no format 'jsn': it knows "),
        ("json:no/such/x.json", "there is no folder "),
        ("json:.", "is a folder; name a file in it"),
        ("json:/proc/audit.json", "/proc/audit.json could not be written ("),
    ],
)
@pytest.mark.usefixtures("healthy")
def test_what_cannot_be_written_stops_before_the_audit(gate: Gate, asked: str, sentence: str) -> None:
    result = gate(*ONE, f"--compliance-report={asked}")
    assert (result.ret, sentence in told(result)) == (4, True)
    assert "compliance =" not in result.stdout.str()


@pytest.mark.usefixtures("healthy")
def test_two_reports_do_not_go_to_one_file(gate: Gate) -> None:
    result = gate(*ONE, "--compliance-report=json:a.json", "--compliance-report=json:a.json")
    assert (result.ret, "another report goes to that file" in told(result)) == (4, True)


@pytest.mark.parametrize(("rule", "code"), [("EXP002", 1), ("STO003", 4)])
@pytest.mark.usefixtures("messy")
def test_what_cannot_be_written_in_the_end_is_told(gate: Gate, rule: str, code: int) -> None:
    """The findings have their exit code; without any, a run without its report is no success."""
    result = gate("--compliance-rules", rule, "--compliance-report=json:/dev/full", "--compliance-report=json:a.json")
    assert (result.ret, "ERROR: --compliance-report=json: /dev/full could not be written (" in told(result)) == (
        code,
        True,
    )
    assert read(gate.folder / "a.json")["ok"] is (code == 4)  # the others are written all the same


@pytest.mark.usefixtures("healthy")
def test_a_pipe_and_a_link_stay_what_they_are(gate: Gate) -> None:
    (gate.folder / "real.json").write_text(PASS)
    (gate.folder / "real.json").chmod(0o640)
    (gate.folder / "link.json").symlink_to("real.json")
    gate(*ONE, "--compliance-report=json:link.json", "--compliance-report=json:/dev/null")
    assert (gate.folder / "link.json").is_symlink()
    assert read(gate.folder / "real.json")["ok"] is True
    assert (gate.folder / "real.json").stat().st_mode & 0o777 == 0o640
    assert not [name for name in os.listdir(gate.folder) if "tmp" in name]


@pytest.mark.usefixtures("healthy")
def test_the_standard_output_has_it_behind_all_else(gate: Gate) -> None:
    text = gate(*ONE, "--compliance-report=json:-", process=True).stdout.str()
    document = json.loads(text[text.index("\n{\n") :])
    assert document["ok"] is True


MODULE = """
def well(report): return f"{report.ok} {len(report.results)}\\n"
def badly(report): raise ZeroDivisionError("no")
"""


@pytest.mark.usefixtures("healthy")
def test_other_distributions_bring_formats(gate: Gate) -> None:
    place = gate.folder / "site"
    (place / "house-1.0.dist-info").mkdir(parents=True)
    (place / "house.py").write_text(MODULE)
    (place / "house-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: house\nVersion: 1.0\n")
    (place / "house-1.0.dist-info" / "entry_points.txt").write_text(
        "[mlflow_compliance.reports]\nwell = house:well\nbadly = house:badly\ngone = no_such_module:it\n"
    )
    gate.pytester.syspathinsert(place)
    assert gate(*ONE, "--compliance-report=well:a.txt").ret == 0
    assert (gate.folder / "a.txt").read_text().startswith("True ")
    result = gate(*ONE, "--compliance-report=badly:a.txt")
    assert (result.ret, "(ZeroDivisionError: no): tell those who wrote it" in told(result)) == (4, True)
    result = gate(*ONE, "--compliance-report=gone:a.txt")
    assert (result.ret, "'gone' of house cannot be loaded (ModuleNotFoundError" in told(result)) == (4, True)
    result = gate(*ONE, "--compliance-report=other:a.txt")
    assert "badly, " in told(result)
    assert "gone, " in told(result)
