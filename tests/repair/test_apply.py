"""Carrying a plan out: stale changes fail as values, a killed repair is finished by the next one, and nothing is
lost.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gates import RULES
from repairs import (
    CHECKOUT,
    EVERY,
    Repaired,
    carry_out,
    findings,
    hashes,
    lines_of,
    plan_for,
    readable,
    state,
    without_ids,
)
from stores import BIG, START, Lab, without_production

from mlflow_compliance.changes import CopyRun, SetExperimentTag
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.repair.plan import Plan, Step
from mlflow_compliance.store.write.writer import StoreWriter

Meanwhile = Callable[[Lab, dict[str, str]], Any]


def untidy(lab: Lab) -> dict[str, str]:
    """A store with one step for each of: merge, retirement, archiving, ending, linking, quarantine."""
    keys = {name: lab.experiment(name) for name in ("credit_delivery", "credit_production", "test_1", "dev_a")}
    lab.run(keys["credit_delivery"], files={"data.bin": BIG})
    keys["rival run"] = lab.run(
        keys["credit_production"], stage="production", files={"data.bin": BIG + b"1", "small.txt": b"x"}
    )
    lab.run(keys["test_1"], files={"data.bin": BIG})
    keys["stuck"] = lab.run(keys["dev_a"], "stuck", status="RUNNING")
    keys["stray"] = str(lab.stray("4" * 32, {"artifacts/a.bin": b"x"}))
    return keys


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    return make_lab(experiments={"development": ["dev_*"]})


def failures(done: Repaired) -> dict[str, str]:
    return {step.finding.policy: reason for step, reason in done.outcome.failed}


STALE: dict[str, tuple[str, str, Meanwhile]] = {
    # what somebody did after the plan was made: the step that fails, what its reason says
    "renamed": (
        "EXP002",
        "now 'mine' and was 'test_1'",
        lambda lab, keys: lab.client.rename_experiment(keys["test_1"], "mine"),
    ),
    "tagged": (
        "EXP003",
        "now 'kept' and was None",
        lambda lab, keys: lab.client.set_experiment_tag(keys["dev_a"], "lifecycle", "kept"),
    ),
    "deleted": ("EXP002", "test_1|active|deleted", lambda lab, keys: lab.client.delete_experiment(keys["test_1"])),
    "ended": ("RUN001", "active and FINISHED by now", lambda lab, keys: lab.client.set_terminated(keys["stuck"])),
    "run gone": ("EXP001", "could not be copied|not there", lambda lab, keys: _forget(lab, keys["rival run"])),
    "moved away": (
        "ART002",
        "removed meanwhile|No such file",
        lambda lab, keys: Path(keys["stray"]).rename(lab.folder / "elsewhere"),
    ),
    "rewritten": ("ART001", "not hold the content", lambda lab, keys: _rewrite(lab)),
}


def _forget(lab: Lab, run_id: str) -> None:
    for table in ("tags", "params", "metrics", "latest_metrics"):
        lab.sql(f"DELETE FROM {table} WHERE run_uuid = ?", run_id)
    lab.sql("DELETE FROM runs WHERE run_uuid = ?", run_id)


def _rewrite(lab: Lab) -> None:
    for path in lab.mlruns.rglob("data.bin"):
        if path.stat().st_size == len(BIG):
            path.write_bytes(b"X" * len(BIG))


@pytest.mark.parametrize("name", STALE)
def test_a_stale_change_fails_with_a_reason_and_the_other_steps_go_on(lab: Lab, name: str) -> None:
    keys = untidy(lab)
    plan = plan_for(lab)
    policy, reason, meanwhile = STALE[name]
    meanwhile(lab, keys)
    stale_tags = dict(lab.client.get_experiment(keys["test_1"]).tags)
    done = carry_out(lab, plan)
    assert set(failures(done)) == {policy}
    assert any(part in failures(done)[policy] for part in reason.split("|")), failures(done)[policy]
    applied = {step.finding.policy for step in plan.steps if set(step.changes) <= set(done.outcome.applied)}
    assert applied == {step.finding.policy for step in plan.steps} - {policy}
    assert [line["reason"] for line in done.lines if line.get("state") == "failed"]
    end = done.lines[-1]
    assert (end["state"], end["applied"], end["failed"]) == ("end", len(done.outcome.applied), 1)
    if name == "renamed":
        left = lab.client.get_experiment(keys["test_1"])
        assert (left.name, left.lifecycle_stage) == ("mine", "active"), (
            "nothing is written on top of what somebody else did"
        )
    if name == "deleted":
        assert dict(lab.client.get_experiment(keys["test_1"]).tags) == stale_tags
    if name == "run gone":
        assert lab.client.get_experiment(keys["credit_production"]).lifecycle_stage == "active", (
            "a rival that was not merged is not retired"
        )


def test_later_steps_leave_alone_what_a_failed_step_was_about(lab: Lab) -> None:
    keys = untidy(lab)
    plan = plan_for(lab, "EXP002")
    (step,) = plan.steps
    more = Step(replace(step.finding, policy="XXX001"), (SetExperimentTag(keys["test_1"], "more", "1", None),))
    lab.client.set_experiment_tag(keys["test_1"], "compliance.retired_by", "somebody")
    done = carry_out(lab, Plan(plan.start, (*plan.steps, more), (), plan.outcome))
    assert set(failures(done)) == {"EXP002", "XXX001"}
    assert "an earlier change of" in failures(done)["XXX001"]
    assert "more" not in lab.client.get_experiment(keys["test_1"]).tags


def test_a_store_that_is_locked_meanwhile_is_a_reason_too(lab: Lab, make_lab: Callable[..., Lab]) -> None:
    """Another program writes for longer than the repair waits: the change fails, the repair does not."""
    untidy(lab)
    impatient = Lab(
        lab.folder,
        lab.settings.model_copy(update={"store": lab.settings.store.model_copy(update={"busy_timeout": 0.0})}),
    )
    plan = plan_for(impatient, "EXP002")
    last = [change for change in plan.changes if type(change).__name__ == "DeleteExperiment"]
    holder = sqlite3.connect(lab.database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        writer = StoreWriter.__new__(StoreWriter)
        writer.store, writer.binding = impatient.store, {}
        with pytest.raises(ChangeError, match="locked"):
            writer.inverse(last[0])
    finally:
        holder.close()


def test_what_was_done_is_told_by_finding(lab: Lab) -> None:
    untidy(lab)
    plan = plan_for(lab)
    done = carry_out(lab, plan)
    assert done.differing == []
    assert done.outcome.failed == []
    for step in plan.steps:
        told = done.outcome.done[step.finding.fingerprint]
        assert len(told) == len(step.changes)
        assert not [line for line in told if "⟨" in line], "ids and times are told as they came out"


def test_the_comparison_after_a_repair_sees_what_else_happened(lab: Lab) -> None:
    keys = untidy(lab)
    plan = plan_for(lab)
    lab.client.set_experiment_tag(keys["credit_delivery"], "somebody", "was here" + "." * 4000)
    done = carry_out(lab, plan)
    assert done.outcome.failed == []
    assert len(done.differing) == 1
    assert "has tags {'somebody': 'was here" in done.differing[0], "what is as planned is not told"
    assert len(done.differing[0]) < 400, "nobody reads a million metric points"


def test_logging_again_through_one_path_changes_no_other_run(lab: Lab) -> None:
    """Trap 16: after files share a copy, writing in place is refused to an ordinary user, or told by ART004."""
    keys = untidy(lab)
    other = lab.run(keys["credit_delivery"], "other", files={"data.bin": BIG})
    carry_out(lab, plan_for(lab, "ART001"))
    path = lab.folder_of(other) / "data.bin"
    assert findings(lab, "ART001", "ART004") == []
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"overwritten")
    found = findings(lab, "ART004")
    shared = os.stat(path).st_nlink > 1
    assert len(found) == (os.stat(path).st_nlink if shared else 1)
    assert all("bytes changed" in finding.message for finding in found)


KILLED = {
    "before the first change": "mlflow_compliance.repair.journal:Journal._write:2",
    "while files are shared": "mlflow_compliance.store.storage.files:share:3",
    "between manifest and move": "mlflow_compliance.store.storage.files:quarantine:2",
    "within the copy of a run": "mlflow_compliance.store.write.copies:RunCopier._count:1",
    "between rename and deletion": "mlflow.tracking:MlflowClient.delete_experiment:1",
    "before the last line": "mlflow_compliance.repair.journal:Journal.close:1",
}


@pytest.fixture(scope="module")
def undisturbed(demo_built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    lab = without_production(Lab.moved(demo_built, tmp_path_factory.mktemp("undisturbed") / "demo"))
    done = carry_out(lab, plan_for(lab, EVERY))
    assert done.differing == []
    return {**state(lab), "a server gives": served(lab)}


def served(lab: Lab) -> list[str]:
    return sorted(map(without_ids, findings(lab, "SRV002")))


def fixing(lab: Lab, *options: str, kill: str = "") -> subprocess.Popen[bytes]:
    """A user's own command."""
    arguments = [
        *map(str, RULES),
        "--fix",
        f"--tracking-uri={lab.uri}",
        f"--compliance-config={lab.folder}/compliance.toml",
        "-p",
        "no:cacheprovider",
        *options,
    ]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "tests" / "support"), "KILL_AT": kill}
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments], cwd=CHECKOUT, env=environment, stdout=subprocess.DEVNULL
    )


def assert_finished_by_the_next_repair(lab: Lab, before: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    carry_out(lab, plan_for(lab))
    found = state(lab)
    assert found == {key: undisturbed[key] for key in found}
    assert not before["hashes"].keys() - hashes(lab.folder).keys(), "a content is lost"
    after = readable(lab)
    assert (
        before["readable"].items()
        >= {path: digest for path, digest in after.items() if path in before["readable"]}.items()
    )
    assert plan_for(lab).steps == ()


@pytest.mark.parametrize("moment", KILLED)
def test_a_killed_repair_is_finished_by_the_next_one(demo: Lab, undisturbed: dict[str, Any], moment: str) -> None:
    before = {"hashes": hashes(demo.folder), "readable": readable(demo)}
    assert fixing(demo, "-p", "killing", kill=KILLED[moment]).wait() == -signal.SIGKILL
    assert_finished_by_the_next_repair(demo, before, undisturbed)


@pytest.mark.parametrize("lines", [40])
def test_a_repair_killed_from_outside_is_finished_by_the_next_one(
    demo: Lab, undisturbed: dict[str, Any], lines: int
) -> None:
    """At no moment that anybody chose: wherever it happens to be once its journal has so many lines."""
    before = {"hashes": hashes(demo.folder), "readable": readable(demo)}
    process = fixing(demo)
    while process.poll() is None:
        journals = list(Path(demo.store.folder).glob("2*.jsonl"))
        if journals and journals[0].read_bytes().count(b"\n") >= lines:
            process.kill()
            break
    assert process.wait() == -signal.SIGKILL
    (journal,) = Path(demo.store.folder).glob("2*.jsonl")
    assert len(lines_of(journal)) >= lines
    assert_finished_by_the_next_repair(demo, before, undisturbed)
    assert served(demo) == undisturbed["a server gives"]
    assert plan_for(demo, EVERY).steps == ()


def test_the_start_of_the_copies_is_that_of_their_sources(lab: Lab) -> None:
    """Trap 23: only the id of a copy is new."""
    untidy(lab)
    carry_out(lab, plan_for(lab))
    assert {run.info.start_time for run in lab.runs("1")} == {START}


def test_of_runs_that_are_copied_together_one_fails_alone(lab: Lab) -> None:
    """The group is taken back whole; one by one, those before it are copied and it is named."""
    keys = untidy(lab)
    second, third = (
        lab.run(keys["credit_production"], name, metrics={"auc": 0.5}, files={"a.txt": b"a"})
        for name in ("second", "third")
    )
    lab.model(keys["credit_production"], third)
    plan = plan_for(lab, "EXP001")
    copies = [change.run_id for change in plan.changes if isinstance(change, CopyRun)]
    broken = lab.folder_of(copies[1]) / "zz_link"
    broken.symlink_to(lab.folder)
    done = carry_out(lab, plan)
    assert f"copy run {copies[1]}" in done.outcome.failed[0][1]
    assert [line["change"] for line in done.lines if line.get("state") == "failed"] == [2, 3]
    assert [change.run_id for change in done.outcome.applied] == copies[:1]  # type: ignore[attr-defined]
    broken.unlink()
    again = carry_out(lab, plan_for(lab, "EXP001"))
    assert (again.differing, again.outcome.failed) == ([], [])
    sources = [
        run.data.tags.get("compliance.source_run_id") for run in lab.client.search_runs([keys["credit_delivery"]])
    ]
    assert sorted(filter(None, sources)) == sorted(copies)
    assert {second, third} < set(copies)
