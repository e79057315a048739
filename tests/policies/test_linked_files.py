"""A production run whose files are in truth another run's keeps that run alive, and the chain is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gates import Gate, told
from repairs import carry_out, findings, plan_for, unfixed
from stores import BIG, Lab

from mlflow_compliance.changes import DeleteExperiment, LinkDuplicate, MoveToQuarantine
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.reachability import kept_by
from mlflow_compliance.snapshot.files import Pointer


class Two:
    """A production run, and a run of a test experiment that has the same file."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        delivery, self.test = lab.experiment("credit_delivery"), lab.experiment("test_1")
        self.champion = lab.run(delivery, "champion", stage="production", files={"report.bin": BIG, "own.txt": b"x"})
        self.other = lab.run(self.test, "try", files={"weights.bin": BIG[::-1], "sub/a.csv": b"a"})
        self.home, self.there = lab.folder_of(self.champion), lab.folder_of(self.other)

    def retired(self) -> bool:
        return any(isinstance(change, DeleteExperiment) for change in plan_for(self.lab, "EXP002").changes)

    @property
    def reason(self) -> str:
        (refusal,) = unfixed(plan_for(self.lab, "EXP002"), "EXP002")
        return refusal.reason


@pytest.fixture
def two(make_lab: Callable[..., Lab]) -> Two:
    return Two(make_lab(experiments={"test_names": ["test_*"]}))


def _symlink(two: Two) -> str:
    (two.home / "weights.bin").symlink_to(two.there / "weights.bin")
    return "mlruns/1/{champion}/artifacts/weights.bin"


def _relative_symlink(two: Two) -> str:
    (two.home / "weights.bin").symlink_to(os.path.relpath(two.there / "weights.bin", two.home))
    return "mlruns/1/{champion}/artifacts/weights.bin"


def _symlink_by_another(two: Two) -> str:
    """Through a link that lies outside of the store."""
    (two.lab.folder / "latest").symlink_to(two.there)
    (two.home / "weights.bin").symlink_to(two.lab.folder / "latest" / "weights.bin")
    return "mlruns/1/{champion}/artifacts/weights.bin"


def _symlink_to_folder(two: Two) -> str:
    (two.home / "sub").symlink_to(two.there / "sub")
    return "mlruns/1/{champion}/artifacts/sub"


def _symlink_that_leads_nowhere_yet(two: Two) -> str:
    (two.home / "late.csv").symlink_to(two.there / "late.csv")
    return "mlruns/1/{champion}/artifacts/late.csv"


def _hard_link(two: Two) -> str:
    os.link(two.there / "weights.bin", two.home / "weights.bin")
    return "mlruns/1/{champion}/artifacts/weights.bin"


def _row(two: Two) -> str:
    two.lab.sql("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", str(two.there), two.champion)
    return "mlruns/2/{other}/artifacts"


def _row_of_folder_below(two: Two) -> str:
    two.lab.sql("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", str(two.there / "sub"), two.champion)
    return "mlruns/2/{other}/artifacts/sub"


WAYS: dict[str, Callable[[Two], str]] = {
    "a symbolic link": _symlink,
    "a relative one": _relative_symlink,
    "one by way of another": _symlink_by_another,
    "one to a folder": _symlink_to_folder,
    "one to what is not there yet": _symlink_that_leads_nowhere_yet,
    "a hard link": _hard_link,
    "its row": _row,
    "its row, below": _row_of_folder_below,
}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_production_run_links_to_is_alive(two: Two, way: str) -> None:
    assert two.retired()
    by = WAYS[way](two).format(champion=two.champion, other=two.other)
    assert not two.retired()
    chain = f"run {two.champion} -> artifact {by} -> run {two.other} -> experiment {two.test}"
    assert f"which is marked as production, relies on a run or model in it ({chain})" in two.reason


def test_a_model_of_the_production_run_that_links_keeps_alive_too(two: Two) -> None:
    model = two.lab.model("1", two.champion)
    folder = Path(two.lab.client.get_logged_model(model).artifact_location)
    folder.mkdir(parents=True, exist_ok=True)
    assert two.retired()
    (folder / "weights.bin").symlink_to(two.there / "weights.bin")
    assert (
        f"run {two.champion} -> model {model} -> artifact mlruns/1/models/{model}/artifacts/weights.bin" in two.reason
    )


def test_a_registered_version_whose_files_link_keeps_alive(two: Two) -> None:
    """The run that made it is not marked any more, and an alias loads it all the same."""
    model = two.lab.model("1", two.champion)
    folder = Path(two.lab.client.get_logged_model(model).artifact_location)
    folder.mkdir(parents=True, exist_ok=True)
    two.lab.client.set_tag(two.champion, "stage", "none")
    two.lab.registered("credit", f"models:/{model}", two.champion, "production")
    assert two.retired()
    (folder / "weights.bin").symlink_to(two.there / "weights.bin")
    assert "alias production of credit -> version 1" in two.reason
    assert f"artifacts/weights.bin -> run {two.other} -> experiment {two.test}" in two.reason


def test_a_pointer_of_ours_keeps_alive(two: Two) -> None:
    """As one lies beside an object of a bucket; the folders stand for keys."""
    snapshot = two.lab.read()
    assert snapshot.artifacts is not None
    path, kept = str(two.home / "report.bin"), str(two.there / "weights.bin")
    experiment = snapshot.experiments[two.test]
    assert kept_by(Context(snapshot, two.lab.settings), experiment) is None
    pointed = replace(snapshot.artifacts, pointers={path: Pointer(kept, "", len(BIG), "", "")})
    found = kept_by(Context(replace(snapshot, artifacts=pointed), two.lab.settings), experiment)
    assert found is not None
    assert found.chain[-2:] == (f"run {two.other}", f"experiment {two.test}")


def test_a_link_within_one_run_and_one_from_the_test_run_keep_nothing(two: Two) -> None:
    (two.home / "again.bin").symlink_to(two.home / "report.bin")
    (two.there / "champion.bin").symlink_to(two.home / "report.bin")
    (two.home / "elsewhere").symlink_to(two.lab.folder)
    assert two.retired()


def test_what_a_repair_linked_itself_keeps_nothing(two: Two) -> None:
    """One of the names can go, and the other stays whole: this is what a repair makes of every duplicate."""
    shutil.copy(two.there / "weights.bin", two.home / "weights.bin")
    plan = plan_for(two.lab, "ART001")
    assert [change for change in plan.changes if isinstance(change, LinkDuplicate)]
    both = plan_for(two.lab, "ART001", "EXP002")
    assert any(isinstance(change, DeleteExperiment) for change in both.changes)
    assert carry_out(two.lab, plan).differing == []
    assert two.retired()
    assert carry_out(two.lab, plan_for(two.lab, "ART001", "EXP002")).differing == []


def test_what_nobody_owns_stays_where_a_link_leads_into_it(two: Two) -> None:
    two.lab.stray("3" * 32, {"left.bin": BIG})
    two.lab.stray("4" * 32, {"left.bin": BIG[::-1]})
    target = next(two.lab.mlruns.rglob("*3333/**/left.bin"))
    (two.home / "left.bin").symlink_to(target)
    moved = [change.path for change in plan_for(two.lab, "ART002").changes if isinstance(change, MoveToQuarantine)]
    assert [os.path.basename(path) for path in moved] == ["4" * 32]
    (item,) = [item for item in findings(two.lab, "ART002") if "3" * 32 in item.entity.key]
    assert (item.code, "left.bin is a link into it" in item.message) == ("unknown-owner", True)


def test_through_the_command_line(two: Two, gate: Gate) -> None:
    _symlink(two)
    gate.settings(two.lab.uri)
    text = told(gate("--fix", "--compliance-rules=EXP002"))
    assert f"artifacts/weights.bin -> run {two.other} -> experiment {two.test}): put the files themselves" in text
    assert two.lab.client.get_experiment(two.test).lifecycle_stage == "active"
