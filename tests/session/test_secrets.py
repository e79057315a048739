"""No credential of a URI reaches what the program shows or writes, wherever in the store or the settings it stood."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from gates import POLICIES, Gate, told
from reports import FORMATS
from stores import BIG, Lab

SECRET = "S3CR3T"
URIS = (
    f"ftp://mlflow:{SECRET}-1@files.company.example/artifacts",
    f"ftp://mlflow:p@{SECRET}@files.company.example/artifacts",
    f"postgresql:mlflow:{SECRET}@host/db",
    f"file://mlflow:{SECRET}@host/data",
    f"s3://KEY:{SECRET}/{SECRET}@bucket/mlruns",
    f"viewfs://mlflow:{SECRET}@cluster/mlruns",
    f"https://host/artifacts?sig={SECRET}&se=2026",
    f"https://host/artifacts#{SECRET}",
    f"wasbs://container:{SECRET}@account.blob.core.windows.net/mlruns",
    f"https://{SECRET}@host/artifacts",
    f"mlflow-artifacts://mlflow:{SECRET}@host:5000/mlruns",
)
PLACES = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "source",
    "model_versions ": "storage_location",
}
ALL = (POLICIES, f"--ignore={POLICIES}/test_serving.py")


@pytest.fixture
def planted(lab: Lab) -> Lab:
    """A store with a secret in each column that can hold a place, in tags, params, datasets, and wherever else
    MLflow's tables have text.
    """
    lab.experiment("credit_delivery")
    for number, uri in enumerate(URIS):
        key = lab.experiment(f"{'test_' if number % 2 else 'credit_'}{number}")
        run_id = lab.rich_run(
            key, f"run {number}", stage="production", opinion=json.dumps({"uri": uri}), description=uri
        )
        lab.client.log_param(run_id, "database", uri)
        lab.registered(f"model {number}", f"runs:/{run_id}/model", run_id, alias="production", origin=uri)
        lab.client.set_experiment_tag(key, "mlflow.note.content", f"Data from {uri}, ask ann@example.com.")
        lab.client.set_experiment_tag(key, "source", uri)
        for table, column in PLACES.items():
            where = "name = ?" if table.startswith("model_versions") else "experiment_id = ?"
            if table == "logged_models" and number % 3:
                continue
            named = f"model {number}" if table.startswith("model_versions") else key
            lab.sql(f"UPDATE {table} SET {column} = ? WHERE {where}", f"{uri}/{key}", named)
    lab.sql("UPDATE datasets SET dataset_source = ?", json.dumps({"uri": URIS[0]}))
    lab.sql(
        "UPDATE tags SET value = ? WHERE key = 'mlflow.log-model.history'", json.dumps([{"artifact_path": URIS[1]}])
    )
    lab.stray("26", {"left.bin": BIG})
    lab.run(lab.experiment("credit_selection"), files={"one.bin": BIG, "two.bin": BIG}, source=URIS[2])
    return lab


def everything_written(gate: Gate, lab: Lab) -> str:
    """What lies in the user's folder and in the store's, but for the settings, the database and the artifacts
    themselves.
    """
    found = []
    for folder in (gate.folder, lab.folder / ".compliance", lab.mlruns / ".quarantine"):
        for place, _, names in os.walk(folder):
            found += [
                (Path(place) / name).read_bytes().decode(errors="replace")
                for name in names
                if name != "compliance.toml"
            ]
    return "\n".join(found)


def secrets_in(lab: Lab) -> int:
    """How many rows of the database hold one: taking them away would make a repair look tidy."""
    with closing(sqlite3.connect(lab.database)) as connection:
        return sum(SECRET in line for line in connection.iterdump())


@pytest.mark.parametrize("relocated", [False, True])
def test_no_secret_of_the_store_is_shown_or_written(planted: Lab, gate: Gate, *, relocated: bool) -> None:
    roots = f'artifact_roots = ["s3://KEY:{SECRET}@bucket/x"]\n'
    prefix = f'[store.relocate]\n"{URIS[0]}" = "{gate.folder}/elsewhere"\n' if relocated else ""
    gate.settings(planted.uri)
    settings = gate.folder / "compliance.toml"
    settings.write_text(settings.read_text().replace("busy_timeout = 0\n", f"busy_timeout = 0\n{roots}{prefix}"))
    shown = ""
    for flags in (["-v"], ["-vv", "-l", "-rA", "--fix-dry-run"], ["-v", "--fix"], ["-v", "--fix"]):
        html = ("--html=audit.html", "--self-contained-html", "--junitxml=audit.xml")
        done = gate(*html, *(f"--compliance-report={name}:audit.{name}" for name in FORMATS), *flags, rules=ALL)
        shown += told(done)
        assert SECRET not in shown
        assert SECRET not in everything_written(gate, planted)
    assert "ART003" in shown
    assert "files.company.example" in shown, "what is not secret can still be read"
    journals = list((planted.folder / ".compliance").glob("*.jsonl"))
    assert bool(journals) is not relocated
    assert secrets_in(planted) > 50


@pytest.mark.parametrize(
    "uri",
    [
        *URIS,
        f"sqlite:///no/such.db?token={SECRET}",
        f"postgresql://mlflow:{SECRET}/a@127.0.0.1:9/db",
        f"mysql+pymysql://mlflow:{SECRET}%40@127.0.0.1:9/db?password={SECRET}",
        f"http://mlflow:{SECRET}#@127.0.0.1:9/",
        f"http://[mlflow:{SECRET}@127.0.0.1:9/",
        f"mlflow:{SECRET}@host/db",
        f"databricks://token:{SECRET}@profile",
    ],
)
def test_no_secret_of_the_tracking_uri_is_shown(gate: Gate, uri: str) -> None:
    gate.settings()
    done = gate("--html=audit.html", "--junitxml=audit.xml", "-vv", f"--tracking-uri={uri}")
    assert done.ret == 4
    assert SECRET not in told(done)
    assert SECRET not in "".join((gate.folder / name).read_text() for name in ("audit.html",))


PACK = f"""
import warnings
from mlflow_compliance.api import *

@policy("XYZ001", "Says too much", Severity.LOW)
def test_says_too_much(experiment: Experiment, violations: Violations) -> None:
    '''A rule whose author did not think of it.'''
    uri = "{URIS[0]}"
    print("printed", uri)
    warnings.warn("warned of " + uri)
    violations.note("noted " + uri)
    violations.add("one", "said " + uri, observed=uri, expected="another than " + uri)

@policy("XYZ002", "Crashes over it", Severity.LOW)
def test_crashes(store: Snapshot) -> None:
    '''Its traceback quotes what it had read.'''
    uri = "{URIS[0]}"
    try:
        int(uri)
    except ValueError as error:
        raise RuntimeError("no number: " + uri) from error

@policy("XYZ003", "Asserts it", Severity.LOW)
def test_asserts(store: Snapshot) -> None:
    '''pytest tells both sides of a comparison.'''
    assert {{"place": "{URIS[1]}"}} == {{"place": "here"}}

@policy("XYZ004", "Has nothing to judge", Severity.LOW)
def test_skips(violations: Violations) -> None:
    '''A reason is shown as well.'''
    violations.not_evaluated("away", "cannot look at {URIS[4]}")
    violations.not_applicable("nothing at {URIS[5]}")
"""
FIXER = f"""
from mlflow_compliance.api import *

@fixer("XYZ001")
def mend(finding, context):
    '''Nothing.'''
    raise CannotFix("nobody can mend {URIS[3]}")
    yield

@fixer("XYZ003")
def crash(finding, context):
    '''Crashes.'''
    raise ValueError("{URIS[6]}")
    yield
"""


@pytest.mark.parametrize("flags", [(), ("-n1",)], ids=["here", "in workers"])
def test_a_rule_that_says_too_much_is_cut(lab: Lab, gate: Gate, flags: tuple[str, ...]) -> None:
    lab.experiment("credit_delivery")
    gate.settings(lab.uri)
    gate.pack("policies", test_own=PACK)
    gate.pack("fixers", own=FIXER)
    gate.ini(gate.folder / "fixers")
    with_warnings = [
        "-W",
        "default",
        "-vv",
        "-l",
        "-rA",
        "--tb=long",
        "--html=audit.html",
        "--junitxml=audit.xml",
        *flags,
    ]
    done = gate(*with_warnings, rules=[gate.folder / "policies"], process=True)
    shown = f"{done.stdout}\n{done.stderr}"
    assert {
        word for word in ("printed", "warned of", "noted", "said", "no number", "nobody can mend") if word not in shown
    } == set()
    assert SECRET not in shown
    for name in ("audit.html", "audit.xml"):
        assert SECRET not in (gate.folder / name).read_text()
    assert "ftp://***@files.company.example/artifacts" in shown


def test_what_a_journal_would_keep_is_not_changed(lab: Lab, gate: Gate) -> None:
    """To be brought back, a text is written down as it is: one with a password in it stays, and says so; the others
    are mended.
    """
    lab.experiment("credit_delivery", lifecycle="production")
    secret, open_ = lab.experiment("credit_selection"), lab.experiment("credit_trials")
    lab.client.set_experiment_tag(secret, "mlflow.note.content", f"Read from {URIS[0]}.")
    lab.client.set_experiment_tag(open_, "mlflow.note.content", "See https://wiki.example/page?view=all#results.")
    gate.settings(lab.uri)
    settings = gate.folder / "compliance.toml"
    settings.write_text(settings.read_text().replace('["credit_selection"]', '["credit_selection", "credit_trials"]'))
    done = gate("--fix", rules=[POLICIES / "test_experiments.py", "-k", "EXP003"])
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    assert "holds a password or token" in told(done)
    assert SECRET not in everything_written(gate, lab)
    assert "lifecycle" not in lab.client.get_experiment(secret).tags
    assert "ARCHIVED" in lab.client.get_experiment(open_).tags["mlflow.note.content"]
