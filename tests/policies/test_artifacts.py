"""ART001 to ART005: each rule on a store that keeps it and on one that breaks it."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from repairs import carry_out, findings, hashes, plan_for, unfixed
from stores import BIG, Lab


def test_art001_different_files(lab: Lab) -> None:
    lab.run("0", files={"a.bin": BIG, "b.bin": BIG[:-1] + b"x"})
    assert findings(lab, "ART001") == []


def test_art001_equal_files_share_one_copy(lab: Lab) -> None:
    runs = [lab.run("0", files={"data/a.bin": BIG}) for _ in range(3)]
    (found,) = findings(lab, "ART001")
    assert (found.message, found.observed) == ("stored 3 times", f"{2 * len(BIG)} bytes too many")
    before = hashes(lab.folder)
    done = carry_out(lab, plan_for(lab, "ART001"))
    assert done.differing == []
    assert findings(lab, "ART001") == []
    assert hashes(lab.folder) == before, "every path still reads the same bytes"
    assert all((lab.folder_of(run_id) / "data" / "a.bin").read_bytes() == BIG for run_id in runs)


def test_trap_15_boilerplate_and_small_files_are_no_duplicates(lab: Lab) -> None:
    boilerplate = dict.fromkeys(
        ("requirements.txt", "conda.yaml", "python_env.yaml", "MLmodel", "uv.lock"), b"x" * 5000
    )
    for _ in range(2):
        lab.run(
            "0", files={**{f"model/{name}": content for name, content in boilerplate.items()}, "small.txt": b"x" * 1023}
        )
    assert findings(lab, "ART001") == []


def test_trap_15_archives_that_differ_in_time_stamps_only_are_told_and_left_alone(lab: Lab) -> None:
    for year in (2024, 2025):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(zipfile.ZipInfo("model/weights", (year, 1, 1, 0, 0, 0)), BIG)
        lab.run("0", files={"model.skops": packed.getvalue()})
    assert findings(lab, "ART001") == []
    artifacts = lab.read().artifacts
    assert artifacts is not None
    assert [len(group) for group in artifacts.equal_archives] == [2]
    strict = Lab(
        lab.folder,
        lab.settings.model_copy(
            update={"duplicates": lab.settings.duplicates.model_copy(update={"zip_members": True})}
        ),
    )
    assert [finding.message for finding in findings(strict, "ART001")] == ["2 archives with the same members"]
    assert "would change evidence" in unfixed(plan_for(strict, "ART001"), "ART001")[0].reason


def test_trap_16_two_paths_of_one_inode_are_one_copy(lab: Lab) -> None:
    first, second = (lab.folder_of(lab.run("0", files={name: BIG})) / name for name in ("a.bin", "b.bin"))
    second.unlink()
    os.link(first, second)
    assert findings(lab, "ART001") == []


def test_trap_16_no_path_is_ever_left_without_its_file(lab: Lab) -> None:
    """The client cannot delete one artifact, and neither does this: a file is replaced by an equal one in one step."""
    for _ in range(3):
        lab.run("0", files={"a.bin": BIG})
    names = sorted(lab.mlruns.rglob("*"))
    carry_out(lab, plan_for(lab, "ART001"))
    assert sorted(lab.mlruns.rglob("*")) == sorted([*names, lab.mlruns / ".compliance-owner"])


def test_art002_every_file_has_an_owner(lab: Lab) -> None:
    """Trap 9: what is logged with `name=` lies beside the runs, and what is soft-deleted still has its row."""
    lab.model("0", lab.run("0", files={"a.txt": b"a"}))
    lab.client.delete_logged_model(lab.model("0", lab.run("0")))
    lab.client.delete_run(lab.run("0", files={"b.txt": b"b"}))
    key = lab.experiment("gone")
    lab.run(key, files={"c.txt": b"c"})
    lab.client.delete_experiment(key)
    assert findings(lab, "ART002") == []


def test_art002_a_folder_of_nobody_goes_to_the_quarantine(lab: Lab) -> None:
    lab.run("0")
    lab.stray("5" * 32, {"artifacts/deep/a.bin": BIG, "artifacts/b.txt": b"b"})
    (found,) = findings(lab, "ART002")
    assert found.observed == f"2 files, {len(BIG) + 1} bytes"
    before = hashes(lab.folder)
    done = carry_out(lab, plan_for(lab, "ART002"))
    assert done.differing == []
    assert findings(lab, "ART002") == []
    assert hashes(lab.folder) == before
    (manifest,) = (lab.mlruns / ".quarantine").rglob("manifest.jsonl")
    assert "deep/a.bin" in manifest.read_text()


def test_art003_a_location_on_another_machine(lab: Lab) -> None:
    lab.run(lab.experiment("here"))
    assert findings(lab, "ART003") == []
    away = lab.experiment("away")
    run_id = lab.run(away)
    lab.sql("UPDATE experiments SET artifact_location = 'file:///D:/mlruns/2' WHERE experiment_id = ?", int(away))
    lab.sql("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", f"file:///D:/mlruns/2/{run_id}/artifacts", run_id)
    found = findings(lab, "ART003")
    assert [(finding.entity.key, finding.observed) for finding in found] == [
        ("file:///D:/mlruns", "2 rows of 'away' below file:///D:/mlruns")
    ]
    assert "D:" in found[0].message
    assert "[store.relocate]" in unfixed(plan_for(lab, "ART003"), "ART003")[0].reason


def test_art003_the_files_of_a_version_are_gone(lab: Lab) -> None:
    lab.registered("scorer", str(lab.folder / "nowhere"))
    assert [finding.entity.key for finding in findings(lab, "ART003")] == ["scorer/1"]


def test_art004_recorded_hashes(lab: Lab) -> None:
    paths = [lab.folder_of(lab.run("0", files={"a.bin": BIG})) / "a.bin" for _ in range(2)]
    carry_out(lab, plan_for(lab, "ART001"))
    assert findings(lab, "ART004") == []
    changed = paths[0].with_suffix(".new")
    changed.write_bytes(BIG + b"more")
    changed.replace(paths[0])
    (found,) = findings(lab, "ART004")
    assert found.entity.key == str(paths[0])
    assert f"copy {paths[1]} there" in unfixed(plan_for(lab, "ART004"), "ART004")[0].reason
    paths[1].unlink()
    (gone,) = (item for item in findings(lab, "ART004") if item.entity.key == str(paths[1]))
    assert gone.message == "is gone since its bytes went on record"
    assert "backup" in unfixed(plan_for(lab, "ART004"), "ART004")[0].reason
    os.mkfifo(paths[1])
    (odd,) = (item for item in findings(lab, "ART004") if item.entity.key == str(paths[1]))
    assert odd.message.startswith("cannot be read")
    for path in paths:  # as `mlflow gc` does
        shutil.rmtree(path.parents[1])
        lab.client._tracking_client.store._hard_delete_run(path.parents[1].name)
    assert findings(lab, "ART004") == [], "what went with its row is nobody's loss"


@pytest.mark.parametrize(("harm", "observed"), [("unlink", "missing: model.pkl"), ("write", "empty: model.pkl")])
def test_art005_model_folders(lab: Lab, harm: str, observed: str) -> None:
    model = lab.model("0", lab.run("0"))
    lab.registered("scorer", f"models:/{model}")
    assert findings(lab, "ART005") == []
    weights: Path = lab.location_of(model) / "model.pkl"
    if harm == "unlink":
        weights.unlink()
    else:
        weights.write_bytes(b"")
    (found,) = findings(lab, "ART005")
    assert (found.message, found.observed) == ("an incomplete model, registered as scorer/1", observed)
    assert "put the missing file back" in unfixed(plan_for(lab, "ART005"), "ART005")[0].reason
