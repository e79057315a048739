"""What was put aside as nobody's while an older database was in place goes back to its owner, and nothing else does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from gates import POLICIES, Gate, state, told
from stores import BIG, Lab, contents

RULES = (
    POLICIES / "test_artifacts.py",
    POLICIES / "test_store.py",
    POLICIES / "test_registry.py",
    POLICIES / "test_models.py",
)


class Aside:
    """A store whose later runs lie in quarantine, though its database knows them again."""

    def __init__(self, lab: Lab, gate: Gate) -> None:
        gate.settings(lab.uri)
        self.lab, self.gate = lab, gate
        self.old = lab.experiment("credit_delivery")
        lab.run(self.old, files={"report.txt": b"old"})
        shutil.copy(lab.database, lab.folder.parent / "backup.bak")
        self.run = lab.run(self.old, files={"report.txt": b"later", "data/big.bin": BIG}, stage="production")
        self.model = lab.model(self.old, self.run)
        lab.registered("churn", f"models:/{self.model}")
        self.new = lab.experiment("new_experiment")
        self.other = lab.run(self.new, files={"report.txt": b"of a new experiment"})
        traces = lab.mlruns / self.new / "traces" / f"tr-{'0' * 32}" / "artifacts" / "traces.json"
        traces.parent.mkdir(parents=True)
        traces.write_text("{}")
        self.before = contents(lab.mlruns)
        today = lab.database.read_bytes()
        # The files of this store are newer than its rows by far, as in a clone: nothing tells that the database is an
        # older one.
        shutil.copy(lab.folder.parent / "backup.bak", lab.database)
        assert gate("--fix", rules=RULES[:2]).ret == 0
        lab.database.write_bytes(today)

    @property
    def manifest(self) -> Path:
        (path,) = self.lab.mlruns.glob(".quarantine/*/manifest.jsonl")
        return path

    def here(self) -> dict[str, bytes]:
        return {
            path: content
            for path, content in contents(self.lab.mlruns).items()
            if not path.startswith((".quarantine/", ".compliance-owner"))
        }

    def fix(self, ret: int) -> str:
        result = self.gate("--fix", rules=RULES)
        assert result.ret == ret
        return told(result)


@pytest.fixture
def aside(lab: Lab, gate: Gate) -> Aside:
    return Aside(lab, gate)


def test_it_goes_back(aside: Aside) -> None:
    text = told(aside.gate(rules=RULES))
    for row in (f"run {aside.run}", f"logged_model {aside.model}", f"run {aside.other}"):
        assert f"it lies in quarantine and {row} owns it" in text
    assert "does not exist here; what it misses lies in" in text, "ART003"
    assert f"models:/{aside.model}; what it misses lies in" in text, "REG002"
    assert "no MLmodel among its artifacts; what it misses lies in" in text, "MOD001"
    assert "verified" in aside.fix(0)
    assert aside.here() == aside.before
    assert list(aside.lab.mlruns.glob(".quarantine/*/*")) == [aside.manifest]
    assert "ART006" not in told(aside.gate(rules=RULES))


def test_a_moved_store(aside: Aside, gate: Gate) -> None:
    """The manifest names the places of before."""
    (aside.lab.folder / "compliance.toml").write_text("")
    moved = Lab.moved(aside.lab.folder, aside.lab.folder.parent / "moved")
    shutil.rmtree(aside.lab.folder)
    gate.settings(moved.uri)
    assert gate("--fix", rules=RULES).ret == 0
    assert {
        path: content
        for path, content in contents(moved.mlruns).items()
        if not path.startswith((".quarantine/", ".compliance-owner"))
    } == aside.before


def test_where_something_lies_now_both_stay(aside: Aside) -> None:
    aside.lab.upload(str(aside.lab.folder_of(aside.run)), {"again.txt": b"logged again"})
    text = aside.fix(1)
    assert f"something lies at {aside.lab.mlruns}/{aside.old}/{aside.run} now: look at both by hand" in text
    found = aside.here()
    assert found.pop(f"{aside.old}/{aside.run}/artifacts/again.txt") == b"logged again"
    assert found == {path: content for path, content in aside.before.items() if aside.run not in path}


def garbage(aside: Aside) -> str:
    aside.manifest.write_text("what was this?\n" + aside.manifest.read_text())
    return "line 1 is not as it was written"


def other_places(aside: Aside) -> str:
    lines = [json.loads(line) for line in aside.manifest.read_text().splitlines()]
    aside.manifest.write_text("".join(json.dumps({**line, "from": "/etc/passwd"}) + "\n" for line in lines))
    return "line 1 tells of places that do not belong together"


def upwards(aside: Aside) -> str:
    text = aside.manifest.read_text()
    aside.manifest.write_text(text.replace(f"/{aside.old}/", f"/{aside.old}/../../"))
    return "line 1 tells of places that do not belong together"


def no_list_of_files(aside: Aside) -> str:
    lines = [json.loads(line) for line in aside.manifest.read_text().splitlines()]
    aside.manifest.write_text("".join(json.dumps({**line, "files": "none"}) + "\n" for line in lines))
    return "its line in the manifest is not as it was written"


def files_changed(aside: Aside) -> str:
    for path in list(aside.manifest.parent.rglob("artifacts")):
        (path / "added.txt").write_text("since")
    return "it holds other files than its manifest says"


def a_link(aside: Aside) -> str:
    for path in list(aside.manifest.parent.rglob("artifacts")):
        (path / "link").symlink_to("/etc/passwd")
    return "is no ordinary file"


def a_folder(aside: Aside) -> str:
    path = aside.manifest
    path.unlink()
    path.mkdir()
    return "cannot be read"


@pytest.mark.parametrize("harm", [garbage, other_places, upwards, no_list_of_files, files_changed, a_link, a_folder])
def test_what_cannot_be_trusted_stays(aside: Aside, harm: Callable[[Aside], str]) -> None:
    expected = harm(aside)
    before = state(aside.lab.mlruns)
    assert expected in aside.fix(1)
    assert state(aside.lab.mlruns) == before


def test_half_a_last_line_is_no_harm(aside: Aside) -> None:
    """A program that was killed wrote it, before anything moved."""
    with aside.manifest.open("a") as file:
        file.write('{"from": "/somewh')
    aside.fix(0)
    assert aside.here() == aside.before


def test_an_experiments_number_that_was_given_again_owns_nothing(aside: Aside) -> None:
    """SQLite does that after `mlflow gc`."""
    shutil.copy(aside.lab.folder.parent / "backup.bak", aside.lab.database)
    assert aside.lab.experiment("another") == aside.new
    aside.lab.run(aside.new, files={"own.txt": b"own"})
    assert "lies in quarantine" not in told(aside.gate(rules=RULES[:2]))
