"""Rules without files through a tracking server: what is asked by filters leads to the findings of a database that is
read whole, and costs a number of requests that does not grow with runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
from stores import CREDIT, Lab

from mlflow_compliance.production.context import Context
from mlflow_compliance.rules.evaluation import cases, verdict_of
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.store.store import open_store

FRAUD = {
    "name": "fraud",
    "experiments": ["credit_*", "other"],
    "production_by": "alias",
    "production": {"registered_model": "model 0", "alias": "champion", "required_tags": ["owner"]},
}
SETTINGS = {"products": [CREDIT, FRAUD], "experiments": {"test_names": ["test_*"]}}
NOT_LOOKED_FOR = {"RUN003"}
"""Rules that a server is not asked enough for."""
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
    server, database = served
    fill(lab := make_lab(), **parts)
    lab.settings = Settings.model_validate(SETTINGS)
    database.write_bytes(lab.database.read_bytes())
    by_sql = verdicts(open_store(lab.uri, lab.settings, str(lab.folder)).read(artifacts=False), lab.settings)
    for count in (True, False):
        store = open_store(server.url, lab.settings, str(lab.folder), count=count)
        snapshot = store.read(artifacts=False)
        assert snapshot.counted is count
        over_http = verdicts(snapshot, lab.settings)
        left_out = set() if count else NOT_LOOKED_FOR
        # A key in another spelling no filter finds: who counts is told of it.
        odd = not count and any("Stage" in run["tags"] for run in parts["runs"])
        for case, wanted in by_sql.items():
            if case[0] not in left_out and not (odd and case[0] == "EXP003"):
                assert over_http[case] == wanted, case


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


def _counts(text: str) -> str:
    """How many findings of each severity the verdict tells."""
    return next(line for line in text.splitlines() if line.startswith("FAIL  ")).partition("   rules")[0]
