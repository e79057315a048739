"""Rules without files through a tracking server: what is asked by filters leads to the findings of a database that is
read whole, and costs a number of requests that does not grow with runs.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from gates import Gate, told
from hypothesis import given, settings
from platform_store import make_platform
from random_rows import AS_IT_COMES, PARENT, STORE, fill
from repairs import chosen
from servers import Proxy, tracking_server
from serving import Server
from stores import CREDIT, START, Lab

from mlflow_compliance.production.context import Context
from mlflow_compliance.rules.evaluation import cases, verdict_of
from mlflow_compliance.rules.outcome import Outcome
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.store.store import open_store

FRAUD = {
    "name": "fraud",
    "experiments": ["credit_*", "other"],
    "production_by": "alias",
    "production": {"registered_model": "model 0", "alias": "champion", "required_tags": ["owner"]},
}
SCORER = {**CREDIT, "production": {"registered_model": "scorer", "alias": "champion"}}
SETTINGS = {"products": [SCORER, FRAUD], "experiments": {"test_names": ["test_*"]}}
NOT_LOOKED_FOR = {"RUN003"}
"""Rules that a server is not asked enough for."""
PARTS = ("experiments", "runs", "logged_models", "registered_models", "ties", "untold", "datasets", "behind_versions")
SUMMARY = "--compliance-show=summary"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, empty_store: bytes) -> Iterator[tuple[Server, Path]]:
    """A server, and the file that it takes for its database at each question."""
    folder = tmp_path_factory.mktemp("filtered")
    database = folder / "mlflow.db"
    database.write_bytes(empty_store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        with tracking_server(folder, f"sqlite:///{database}", folder / "mlruns") as server:
            yield server, database


def verdicts(snapshot: Snapshot, rules: Settings) -> dict[tuple[str, str], Any]:
    """What every rule without files says of every case; numbers of runs are nobody's verdict."""
    context = Context(snapshot, rules)
    found = {}
    for rule in chosen([]):
        if rule.reads_artifacts or not rule.evaluable or rule.id.startswith("STO"):
            continue
        for case in cases(rule, context):
            verdict = verdict_of(rule, case, context)
            assert verdict.crash is None, verdict.crash
            findings = sorted(
                (item.fingerprint, item.message, re.sub(r"^\d+ runs, ", "", item.observed or ""), item.expected)
                for item in verdict.findings
            )
            found[rule.id, case.key] = verdict.outcome, findings
    return found


@given(**STORE)
@settings(AS_IT_COMES, max_examples=25)
def test_the_same_findings_as_by_sql(served: tuple[Server, Path], make_lab: Any, **parts: Any) -> None:
    """Whatever is in the store, counted or not."""
    fill(lab := make_lab(), **parts)
    # A key in another spelling no filter finds: who counts is told of it.
    assert_agree(served, lab, odd=any("Stage" in run["tags"] for run in parts["runs"]))


def test_each_question_is_asked(served: tuple[Server, Path], lab: Lab) -> None:
    """What leads to a finding by each of them: marks in other spellings, runs and models behind versions, what is left
    in Default and in deleted experiments.
    """
    home, other, gone = lab.experiment("credit_production"), lab.experiment("other"), lab.experiment("credit_gone")
    lab.run("0", "in Default")
    lab.run(home, "in force", metrics={"auc": 0.5}, stage="production")
    for value in ("Production", " PRODUCTION", "production\t"):
        lab.run(other, f"says {value!r}", stage=value)
    served_run = lab.run(other, "served")
    lab.registered("model 0", f"runs:/{served_run}/model", served_run, alias="champion")
    deleted = lab.run(other, "deleted")
    lab.registered("of a deleted run", f"runs:/{deleted}/model", deleted)
    lab.client.delete_run(deleted)
    model = lab.model(home, lab.run(home, "with a model"), "scorer")
    lab.registered("scorer", f"models:/{model}", alias="champion")
    lab.registered("again", "models:/scorer/1")
    unserved = lab.model(home, lab.run(home, "with a model that nobody serves"), "unserved")
    lab.registered("unserved", f"models:/{unserved}")
    lab.client.delete_experiment(gone)
    left = lab.run(other, "left active")
    lab.sql("UPDATE runs SET experiment_id = ? WHERE run_uuid = ?", gone, left)
    by_sql = assert_agree(served, lab)
    failing = {case[0] for case, (outcome, _) in by_sql.items() if outcome is Outcome.FAILED}
    assert failing >= {"EXP003", "EXP004", "REG001", "REG004", "PRD003"}
    told = [finding for outcome, findings in by_sql.values() for finding in findings]
    assert sum("is marked as production, and no product counts it" in str(finding) for finding in told) == 3


def assert_agree(served: tuple[Server, Path], lab: Lab, *, odd: bool = False) -> dict[tuple[str, str], Any]:
    """The verdicts of rules without files, by SQL; those through the server are the same. `odd`: but for a tag whose
    key is spelled otherwise.
    """
    server, database = served
    lab.settings = Settings.model_validate(SETTINGS)
    database.write_bytes(lab.database.read_bytes())
    in_full, rows = open_store(lab.uri, lab.settings, str(lab.folder)).read_rows()
    over_http_in_full, rows_over_http = open_store(server.url, lab.settings, str(lab.folder)).read_rows()
    for part in PARTS:  # what rules about files and every plan are made of
        assert getattr(in_full, part) == getattr(over_http_in_full, part), part
    assert sorted(rows.locations) == sorted(rows_over_http.locations)
    by_sql = verdicts(open_store(lab.uri, lab.settings, str(lab.folder)).read(artifacts=False), lab.settings)
    for count in (True, False):
        store = open_store(server.url, lab.settings, str(lab.folder), count=count)
        snapshot = store.read(artifacts=False)
        assert snapshot.counted is count
        over_http = verdicts(snapshot, lab.settings)
        left_out = set() if count else {*NOT_LOOKED_FOR}
        left_out |= {"EXP003"} if odd and not count else set()
        for case, wanted in by_sql.items():
            if case[0] not in left_out:
                assert over_http[case] == wanted, case
    return by_sql


def test_what_is_not_looked_for_is_told(served: tuple[Server, Path], gate: Gate, lab: Lab) -> None:
    """In one line of the head and by the rule that would need it; --compliance-count looks for it."""
    server, database = served
    home = lab.experiment("work", lifecycle="development")
    parent = lab.run(home, "parent")
    lab.run(home, "child", **{PARENT: parent})
    lab.client.delete_run(parent)
    lab.run(home, "odd", Stage="production")
    database.write_bytes(lab.database.read_bytes())
    gate.settings(server.url)
    text = told(gate("--compliance-metadata-only", "--compliance-rules=EXP003,RUN003"))
    assert "runs: not counted through a server" in text
    assert "not looked for through a server: parents of runs (RUN003), and tags of production whose key" in text
    assert "a server is not asked for the parents of all runs: --compliance-count does" in text
    assert f"run {parent}" not in text
    gate("--compliance-metadata-only", "--compliance-rules=EXP003", "--compliance-report=json:audit.json")
    told_of = json.loads((gate.folder / "audit.json").read_text())["summary"]["experiments"]
    assert {item["runs"] for item in told_of} == {None}
    counted = told(gate("--compliance-metadata-only", "--compliance-rules=EXP003,RUN003", "--compliance-count"))
    assert "runs: 3 (2 FINISHED, 1 deleted)" in counted
    assert parent in counted
    assert "'Stage'='production'" in counted


def test_three_hundred_experiments_take_few_requests(tmp_path: Path, empty_store: bytes, gate: Gate) -> None:
    """However many runs each of them has."""
    asked: dict[int, int] = {}
    for runs in (3, 40):
        folder = tmp_path / str(runs)
        uri = make_platform(folder, empty_store, runs=runs)
        with tracking_server(folder / "served", uri, folder / "mlruns") as server:
            (gate.folder / "compliance.toml").write_text((folder / "compliance.toml").read_text())
            with Proxy(server.port, lambda _: None) as proxy:
                text = told(gate("--compliance-metadata-only", f"--tracking-uri={proxy.url}", SUMMARY))
            by_sql = told(gate("--compliance-metadata-only", f"--tracking-uri={uri}", SUMMARY))
            assert _counts(text) == _counts(by_sql) == "FAIL  7 critical · 12 high · 265 medium"
            asked[runs] = proxy.asked
    assert asked[3] == asked[40] <= 60, asked


def test_traces_that_no_remedy_counts_are_not_gone_through(served: tuple[Server, Path], lab: Lab) -> None:
    """Those in progress, those of runs at work and whether an experiment has any are known all the same."""
    server, database = served
    lab.settings = Settings()
    busy, quiet = lab.experiment("busy"), lab.experiment("quiet")
    run = lab.run(busy, "at work", status="RUNNING", start=int(time.time() * 1000))
    asked = {}
    for number in (10, 2000):
        _insert_traces(lab, busy, range(number))
        _insert_traces(lab, quiet, [9000])
        lab.sql("UPDATE trace_info SET status = 'IN_PROGRESS' WHERE request_id = ?", f"tr-{3:032x}")
        lab.sql(
            "INSERT OR REPLACE INTO trace_request_metadata (key, value, request_id) VALUES ('mlflow.sourceRun', ?, ?)",
            run,
            f"tr-{4:032x}",
        )
        database.write_bytes(lab.database.read_bytes())
        by_sql, _ = open_store(lab.uri, lab.settings, str(lab.folder)).read_rows()
        with Proxy(server.port, lambda _: None) as proxy:
            over_http, _ = open_store(proxy.url, lab.settings, str(lab.folder)).read_rows()
            asked[number] = proxy.asked
        assert by_sql.open_traces == over_http.open_traces
        assert [(item.experiment_id, item.number) for item in over_http.open_traces] == [(busy, 1)]
        assert by_sql.ties == over_http.ties
        assert [tie.target.key for tie in over_http.ties] == [run]
        assert {key for key, item in over_http.experiments.items() if item.traces} == {busy, quiet}
    assert asked[10] == asked[2000], asked


def _insert_traces(lab: Lab, experiment_id: str, numbers: Iterable[int]) -> None:
    with closing(sqlite3.connect(lab.database)) as connection, connection:
        connection.executemany(
            "INSERT OR REPLACE INTO trace_info (request_id, experiment_id, timestamp_ms, execution_time_ms, status) "
            "VALUES (?, ?, ?, 5, 'OK')",
            ((f"tr-{number:032x}", experiment_id, START + number) for number in numbers),
        )


def _counts(text: str) -> str:
    """How many findings of each severity the verdict tells."""
    return next(line for line in text.splitlines() if line.startswith("FAIL  ")).partition("   rules")[0]
