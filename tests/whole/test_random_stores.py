"""Stores as people let them grow: served, moved, shared, relative or not mounted, a repair touches no file that a
row can mean.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from repairs import carry_out, found_in, plan_for
from stores import BIG, Lab

from mlflow_compliance.errors import StoreError
from mlflow_compliance.store.store import refuse_writing

EXAMPLES = 200 if os.environ.get("MLFLOW_COMPLIANCE_TESTS_LONG") else 12
"""Stores in one run; `tox run -e long` asks for the many."""
ABSENT = {"no-model", "missing", "gone", "files-missing", "nothing-loads", "incomplete"}
"""Codes of findings that say that something is not there."""
KINDS = ("plain", "nested", "relative", "served", "moved", "outside")


@dataclass(frozen=True)
class RunPlan:
    """One run of a random store."""

    files: tuple[int, ...]
    model: bool
    status: str
    deleted: bool


@dataclass(frozen=True)
class StorePlan:
    """A random store: each experiment's kind and runs, and what lies around them."""

    experiments: tuple[tuple[str, tuple[RunPlan, ...]], ...]
    orphan: bool
    shared: bool
    database_copied: bool
    unmounted: bool

    @property
    def ordinary(self) -> bool:
        """Whether nothing about it is in doubt."""
        return not (self.shared or self.database_copied or self.unmounted) and {
            kind for kind, _ in self.experiments
        } <= {"plain", "nested"}


RUNS = st.builds(
    RunPlan,
    files=st.lists(st.integers(0, 2), max_size=2).map(tuple),
    model=st.booleans(),
    status=st.sampled_from(["FINISHED", "FINISHED", "FAILED", "RUNNING"]),
    deleted=st.sampled_from([False, False, False, True]),
)
STORES = st.builds(
    StorePlan,
    experiments=st.lists(
        st.tuples(st.sampled_from(KINDS), st.lists(RUNS, max_size=3).map(tuple)), min_size=1, max_size=4
    ).map(tuple),
    orphan=st.booleans(),
    shared=st.sampled_from([False, False, True]),
    database_copied=st.sampled_from([False, False, False, True]),
    unmounted=st.sampled_from([False, False, False, True]),
)


class Grown:
    """A store that was built by a plan, and what is true of its files."""

    def __init__(self, plan: StorePlan, folder: Path, empty: bytes) -> None:
        self.plan = plan
        self.folder = folder
        self.lab = Lab.new(folder / "store", empty, {})
        for number, (kind, runs) in enumerate(plan.experiments):
            self._experiment(kind, f"work {number}", runs)
        if plan.orphan:
            left = self.lab.stray("77", {f"{'ab' * 16}/artifacts/left.bin": b"left behind" * 200})
            for path in (*left.rglob("*"), left):
                os.utime(
                    path, (10**9, 10**9)
                )  # older than every row: what is newer may be of a database that was restored
        if plan.shared:
            self._share(empty)
        self.volume = folder / "volume"
        if plan.unmounted:
            shutil.move(self.lab.mlruns, self.volume)
            self.lab.mlruns.mkdir()
        if plan.database_copied:
            shutil.copy(self.lab.database, self.lab.folder / "yesterday.db")

    def _home(self, kind: str, number: str) -> Path:
        if kind == "outside":
            return self.folder / "elsewhere" / "mlruns" / number
        return self.lab.mlruns / "deep" / "er" / number if kind == "nested" else self.lab.mlruns / number

    def _experiment(self, kind: str, name: str, runs: tuple[RunPlan, ...]) -> None:
        lab, client = self.lab, self.lab.client
        number = str(max(map(int, lab.read(artifacts=False).experiments)) + 1)
        home = self._home(kind, number)
        key = client.create_experiment(name, artifact_location=str(home), tags={"lifecycle": "reference"})
        for index, run in enumerate(runs):
            files = {f"part{part}.bin": BIG + bytes([part]) for part in run.files}
            run_id = lab.run(key, f"run {index}", status=run.status, files=files)
            if run.model:
                lab.model(key, run_id, files={"weights.bin": BIG})
            if run.deleted:
                client.delete_run(run_id)
        if kind in ("relative", "served", "moved"):
            prefix = {"relative": "./mlruns", "served": "mlflow-artifacts:", "moved": "file:///C:/Users/ann/mlruns"}[
                kind
            ]
            places = (
                ("experiments", "artifact_location"),
                ("runs", "artifact_uri"),
                ("logged_models", "artifact_location"),
            )
            for table, column in places:
                lab.sql(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE experiment_id = ?",
                    str(lab.mlruns),
                    prefix,
                    int(key),
                )

    def _share(self, empty: bytes) -> None:
        """Another store, made in a folder of its own, whose runs lie in the same root, which is in the folder of
        neither.
        """
        other = Lab.new(self.folder / "other", empty, {})
        key = other.client.create_experiment(
            "theirs", artifact_location=str(self.folder / "elsewhere" / "mlruns" / "90")
        )
        other.run(key, "their run", files={"theirs.bin": BIG + b"theirs"})

    def meant(self) -> dict[Path, tuple[str, int]]:
        """Every file that a row of some database means -> its hash and inode; the orphan alone is nobody's."""
        roots = [self.lab.mlruns, self.folder / "elsewhere", self.volume]
        files = (
            path for root in roots for path in sorted(root.rglob("*")) if path.is_file() and "77" not in path.parts
        )
        return {
            path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_ino)
            for path in files
            if not {".quarantine", ".compliance-owner"} & {*path.parts}
        }


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Any]:
    numbers = iter(range(10_000))
    return (tmp_path / str(number) for number in numbers)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.generate],  # shrinking a store takes minutes; the failing one is printed as it is
)
@given(plan=STORES)
def test_a_repair_touches_no_file_that_a_row_can_mean(
    plan: StorePlan, folders: Iterator[Path], empty_store: bytes
) -> None:
    grown = Grown(plan, next(folders), empty_store)
    lab, before = grown.lab, grown.meant()
    snapshot = lab.read()
    artifacts = snapshot.artifacts
    assert artifacts is not None
    for finding in found_in(snapshot, lab):
        assert not (finding.code in ABSENT and finding.entity.place in artifacts.unknown), (
            f"missing is said of what was not looked at: {finding}"
        )
    assert grown.meant() == before, "an audit changes nothing"
    try:
        refuse_writing(lab.store, snapshot)
    except StoreError:
        assert plan.unmounted, "only what is away stops a repair"
        return
    done = carry_out(lab, plan_for(lab))
    assert done.outcome.failed == []
    assert done.differing == []
    after = grown.meant()
    assert {path: digest for path, (digest, _) in after.items()} == {
        path: digest for path, (digest, _) in before.items()
    }
    if not plan.ordinary:
        return
    left = lab.mlruns / "77"
    assert left.exists() is False, "what is surely nobody's is moved aside"
    assert plan_for(lab).changes == (), "a second repair finds nothing to do"
