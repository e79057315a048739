"""The store that this program exists for, through the command line: what the gate finds, what a repair leaves, what
the second one does.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from evidence import differing, files_of, lost, rows_of
from gates import CHECKOUT
from mlflow.entities import ViewType
from stores import Lab

from mlflow_compliance.store.evidence.tracking_server import tracking_server

FOUND = {"ART001", "ART002", "EXP001", "EXP002", "EXP003", "MOD001", "MOD003", "MOD004", "MOD005"}
FOUND |= {"PRD002", "PRD003", "PRD004", "PRD006", "PRD007", "REG001", "SRV001"}


def gate(demo: Lab, *flags: str) -> tuple[int, set[str], str]:
    """Exit code, the policies with findings in the table, and all that was printed."""
    command = [sys.executable, "-m", "pytest", "policies", "-p", "no:cacheprovider", "-q", "--compliance-show=all"]
    done = subprocess.run(
        [*command, f"--tracking-uri={demo.uri}", f"--compliance-config={demo.folder / 'compliance.toml'}", *flags],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    table = done.stdout.partition("what is wrong")[2]
    return done.returncode, set(re.findall(r"^ ([A-Z]{3}\d{3}) ", table, flags=re.MULTILINE)), done.stdout


def plan_in(text: str) -> list[str]:
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip("-") == " plan ")
    return lines[start : next(number for number, line in enumerate(lines) if " entities; " in line) + 1]


def contents(folder: Path) -> dict[str, set[str]]:
    """SHA-256 -> the paths that hold it."""
    found: dict[str, set[str]] = defaultdict(set)
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            found[hashlib.sha256(Path(path).read_bytes()).hexdigest()].add(path)
    return found


def assert_complete(demo: Lab, run: Any) -> None:
    """One run with everything that the settings want of it."""
    assert (run.info.run_name, run.info.status) == ("production_lightgbm_189features_v2", "FINISHED")
    assert run.data.tags.items() >= {"stage": "production", "status": "deployed"}.items()
    assert run.data.tags["description"] == run.data.tags["mlflow.note.content"] != ""
    params = {
        "class_weight": "balanced",
        "learning_rate": "0.0188",
        "max_depth": "10",
        "n_estimators": "12",
        "optimal_threshold": "0.48",
        "n_features": "189",
    }
    assert run.data.params.items() >= params.items()
    assert run.data.metrics.keys() == {
        "accuracy",
        "precision",
        "recall",
        "f1",
        "roc_auc",
        "business_cost",
        "tn",
        "fp",
        "fn",
        "tp",
    }
    assert run.data.metrics["tn"] + run.data.metrics["fp"] + run.data.metrics["fn"] + run.data.metrics["tp"] == 4000
    folder = Path(run.info.artifact_uri)
    assert (folder / "model.pkl").read_bytes() == (demo.folder / "models" / "production_model.pkl").read_bytes()
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "confusion_matrix.png",
        "feature_importance.csv",
        "model.pkl",
        "model_metadata.json",
        "predictions/static_model_predictions.parquet",
        "threshold_curve.png",
    }
    document = json.loads((folder / "model_metadata.json").read_text())
    (threshold,) = [fact for fact in document["facts"] if fact["name"] == "threshold"]
    assert (threshold["value"], threshold["decided_by"]) == ("0.48", "settings")
    assert {item["value"] for item in threshold["values"]} == {"0.338", "0.48"}
    version = demo.client.get_model_version_by_alias("credit_scoring", "production")
    assert version.run_id == run.info.run_id


def spells(text: str, value: float) -> bool:
    try:
        return float(text) == value
    except ValueError:
        return False


class Story(NamedTuple):
    """What a team does with the store, in order: exit code, policies with findings, all that was printed."""

    demo: Lab
    before: dict[str, set[str]]
    surviving: list[Any]
    gate: tuple[int, set[str], str]
    dry: tuple[int, set[str], str]
    after_dry: dict[str, set[str]]
    fix: tuple[int, set[str], str]
    again: tuple[int, set[str], str]


@pytest.fixture(scope="module")
def story(demo_built: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    demo = Lab.moved(demo_built, tmp_path_factory.mktemp("story") / "demo")
    before, surviving = contents(demo.mlruns), [run for key in "1234" for run in demo.runs(key)]
    plan = f"--fix-plan={demo.folder / 'plan.json'}"
    first, dry, after_dry = gate(demo), gate(demo, "--fix-dry-run", plan), contents(demo.mlruns)
    return Story(demo, before, surviving, first, dry, after_dry, gate(demo, "--fix"), gate(demo, "--fix"))


def test_the_whole_path(story: Story) -> None:
    demo, before, surviving = story.demo, story.before, story.surviving
    assert story.gate[:2] == (1, FOUND)
    assert (*story.dry[:2], story.after_dry) == (1, FOUND, before)
    assert story.fix[:2] == (0, set()), story.fix[2]
    assert "verified: the store, read anew, is what was planned" in story.fix[2]
    assert plan_in(story.dry[2]) == plan_in(story.fix[2])
    assert story.again[:2] == (0, set())
    assert "0 changes to 0 entities" in story.again[2]
    # What was reviewed is what was done, though the production run was built anew.
    reviewed = json.loads((demo.folder / "plan.json").read_text("utf-8"))
    (journal,) = (demo.folder / ".compliance").glob("2*.jsonl")
    assert json.loads(journal.read_text().splitlines()[0])["plan"] == reviewed["plan"]

    experiments = {item.experiment_id: item for item in demo.client.search_experiments(view_type=ViewType.ALL)}
    assert [experiments[key].tags.get("lifecycle") for key in "1234"] == ["archived"] * 3 + ["production"]
    assert all("ARCHIVED" in experiments[key].tags["mlflow.note.content"] for key in "123")
    assert [key for key, item in sorted(experiments.items()) if item.lifecycle_stage == "deleted"] == ["5", "6"]
    (source,) = demo.runs("6")
    (copied,) = [run for run in demo.runs("4") if run.data.tags.get("compliance.source_run_id") == source.info.run_id]
    assert (copied.data.params, copied.data.metrics) == (source.data.params, source.data.metrics)
    assert (copied.info.start_time, copied.info.end_time) == (source.info.start_time, source.info.end_time)
    assert (source.data.tags.items() - {("stage", "production")}) <= copied.data.tags.items()
    (production,) = [run for run in demo.runs("4") if run.data.tags.get("stage") == "production"]
    assert_complete(demo, production)
    # What it replaces keeps its place, and both thresholds stay on record.
    assert copied.data.tags["compliance.superseded_by"] == production.info.run_id
    (overruled,) = [run for run in demo.runs("4") if run.info.run_name == "final_model_application"]
    assert (overruled.data.params["optimal_threshold"], overruled.data.tags["compliance.overruled.threshold"]) == (
        "0.338",
        "0.48",
    )

    after = contents(demo.mlruns)
    assert before.keys() <= after.keys()
    held = {path: digest for digest, paths in after.items() for path in paths}
    owned = {path: digest for digest, paths in before.items() for path in paths if path in held}
    assert owned == {path: held[path] for path in owned}
    for run in surviving:
        folder = run.info.artifact_uri
        assert {path for path in owned if path.startswith(folder + os.sep)} == {
            path for paths in before.values() for path in paths if path.startswith(folder + os.sep)
        }
    large = [
        paths
        for paths in after.values()
        if (kept := [path for path in paths if ".quarantine" not in path]) and os.path.getsize(kept[0]) >= 1024
    ]
    for paths in large:
        inodes = {
            os.stat(path).st_ino for path in paths if ".quarantine" not in path and os.path.basename(path) != "MLmodel"
        }
        assert len(inodes) <= 1, paths


def test_people_see_it_in_the_ui(story: Story, browser: Any, tmp_path: Path) -> None:
    """MLflow's own UI in a real browser. COMPLIANCE_SCREENSHOTS names the folder for the pictures of it."""
    pictures = Path(os.environ.get("COMPLIANCE_SCREENSHOTS", tmp_path))
    (run,) = [run for run in story.demo.runs("4") if run.data.tags.get("stage") == "production"]
    page = browser.new_page(viewport={"width": 1800, "height": 1000})
    page.set_default_timeout(120_000)
    with tracking_server(str(story.demo.database)) as url:
        page.route("**/*", lambda route: route.continue_() if route.request.url.startswith(url) else route.abort())

        def see(name: str, place: str, *texts: str) -> None:
            page.goto(f"{url}/#/{place}")
            for text in texts:
                page.get_by_text(text, exact=True).first.wait_for()
            page.screenshot(path=pictures / f"{name}.png")

        note = "[ARCHIVED] Development work, kept as evidence; nothing here is in force."
        see("ui-experiments", "experiments", "credit_scoring_final_delivery", "credit_scoring_model_selection", note)
        listed = page.inner_text("body")
        assert listed.count("[ARCHIVED]") == 3
        assert listed.count("[PRODUCTION]") == 1
        assert "test_experiment" not in listed
        assert "credit_scoring_production" not in listed
        see(
            "ui-run",
            f"experiments/4/runs/{run.info.run_id}",
            run.info.run_name,
            "optimal_threshold",
            "Finished",
            "roc_auc",
        )
        shown = page.inner_text("body").split("\n")
        for name, value in {**run.data.params, **run.data.metrics}.items():
            beside = [after for before, after in pairwise(shown) if before == name]
            # The browser spells a number in its own way.
            assert any(text == value if isinstance(value, str) else spells(text, value) for text in beside), (
                name,
                value,
                beside,
            )
        assert "stage: production" in page.inner_text("body").replace("\n", " ").replace(" : ", ": ")
        files = (
            "confusion_matrix.png",
            "feature_importance.csv",
            "model.pkl",
            "model_metadata.json",
            "predictions",
            "threshold_curve.png",
        )
        see("ui-artifacts", f"experiments/4/runs/{run.info.run_id}/artifacts", *files)
        page.get_by_text("threshold_curve.png", exact=True).first.click()
        page.wait_for_function(
            "[...document.images].some(image => image.src.startsWith('blob:') && image.naturalWidth === 900)"
        )
        page.screenshot(path=pictures / "ui-threshold-curve.png")
        see("ui-registry", "models/credit_scoring", "Version 1", "@ production")
    page.close()


SPY = """
import json, sys
from pathlib import Path
import demo

def contents(folder, left_out=()):
    found = {str(path.relative_to(folder)): path.read_bytes().hex() for path in folder.rglob("*") if path.is_file()}
    return {name: found[name] for name in sorted(found) if not name.startswith(left_out)}

folder, started, there = Path(sys.argv[1]), demo._start_pytest, {}

def start(place, report, *options):
    if "--fix" in options:
        there.update(contents(place, ("before/", "audit-", demo.MARKER)))
    return started(place, report, *options)

demo._start_pytest = start
code = demo.main([str(folder)])
kept, now = contents(folder / "before"), contents(folder, ("before/", "audit-", demo.MARKER))
print(json.dumps({"code": code, "files": len(there), "same": kept == there, "repaired": now != there}))
"""


def test_the_demo_keeps_the_store_as_it_was(tmp_path: Path) -> None:
    """What lies in `before` is what the repair found, byte for byte, and what taking it back brings again: each row,
    path, byte and mode.
    """
    example = CHECKOUT / "examples" / "credit_scoring"
    done = subprocess.run(
        [sys.executable, "-c", SPY, str(tmp_path / "demo")],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(example)},
        capture_output=True,
        text=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told.pop("files") > 90, done.stderr
    assert told == {"code": 0, "same": True, "repaired": True}, done.stdout
    store = tmp_path / "demo"
    rows, files = rows_of(store / "before" / "mlflow.db"), files_of(store / "before" / "mlruns")
    assert lost(rows, rows_of(store / "mlflow.db"))
    undone = subprocess.run(
        [sys.executable, "-m", "pytest", "--fix-undo=last"], cwd=store, capture_output=True, text=True, check=False
    )
    assert undone.returncode == 0, undone.stdout + undone.stderr
    assert re.search(r"taken back: (\d+) of \1 changes", undone.stdout)
    assert lost(rows, rows_of(store / "mlflow.db")) == {}
    assert differing(files, files_of(store / "mlruns")) == {}
