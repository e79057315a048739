"""Stores as people let them grow: served, moved, shared, relative or not mounted, a repair touches no file that a
row can mean.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from evidence import differing, files_of, lost, new_paths, rows_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from repairs import carry_out, chosen, findings, found_in, plan_for, remedies, without_ids
from stores import BIG, Lab
from undoing import take_back

from mlflow_compliance.changes import Change, SetExperimentTag
from mlflow_compliance.errors import StoreError
from mlflow_compliance.production.context import Context
from mlflow_compliance.repair.plan import Plan, make_plan
from mlflow_compliance.repair.plan_document import Asked, Made, SavedPlan, as_text, document_of, facts_of, key_of
from mlflow_compliance.repair.saved_plan import Followed
from mlflow_compliance.snapshot.diff import differences
from mlflow_compliance.store.store import refuse_writing

LONG = bool(os.environ.get("MLFLOW_COMPLIANCE_TESTS_LONG"))
EXAMPLES = 200 if LONG else 12
"""Stores in one run; `tox run -e prove` asks for the many."""
TAKEN_BACK = 300 if LONG else 4
"""Stores whose repair is taken back, made again and taken back again."""
MANY = 10_000
"""Changes that the many stores take back, in all, at least."""
NAMES = ("work {}", "test_{}", "credit_{}_production", "scratch_{}_test")
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
    names: tuple[str, ...] = ()
    """Patterns of the experiments' names, in turn; all of the first kind where there is none."""

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
            names = plan.names or NAMES[:1]
            self._experiment(kind, names[number % len(names)].format(number), runs)
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
        tags = {} if self.plan.names else {"lifecycle": "reference"}
        key = client.create_experiment(name, artifact_location=str(home), tags=tags)
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

    def held(self) -> tuple[Any, Any]:
        """Every row, and every file with its bytes, mode and time."""
        found = {}
        for root in (self.lab.mlruns, self.folder / "elsewhere"):
            found |= {f"{root.name}/{path}": facts for path, facts in files_of(root).items()}
        return rows_of(self.lab.database), found

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


BUSY = st.builds(
    StorePlan,
    experiments=st.lists(
        st.tuples(st.sampled_from(KINDS[:2]), st.lists(RUNS, min_size=1, max_size=3).map(tuple)), min_size=3, max_size=6
    ).map(tuple),
    orphan=st.booleans(),
    shared=st.just(False),
    database_copied=st.just(False),
    unmounted=st.just(False),
    names=st.permutations(NAMES).map(tuple),
)
COUNTED: Counter[str] = Counter()
"""What the stores of this session came to."""


def saved_plan(plan: Plan) -> SavedPlan:
    """A plan as it is read back from the file that it was written to."""
    made = Made(at="2026-01-01T00:00:00+00:00", by="ann", host="here")
    asked = Asked(rules=[], safe_alone=False, not_asked=[])
    text = as_text(document_of(plan, made, {"mlflow": "3"}, facts_of(plan.start, ""), "0" * 64, asked))
    return SavedPlan.model_validate(json.loads(text))


def key_of_change(change: Change) -> str:
    return key_of(change.lasting())


@settings(
    max_examples=TAKEN_BACK,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    phases=[Phase.explicit, Phase.generate],
)
@given(plan=BUSY, choice=st.integers(0, 1000))
def test_what_a_repair_did_is_taken_back_and_made_again(
    plan: StorePlan, choice: int, folders: Iterator[Path], empty_store: bytes
) -> None:
    grown = Grown(plan, next(folders), empty_store)
    lab = grown.lab
    proposed = plan_for(lab)
    # Reviewed and saved; meanwhile somebody makes what another plan would retire too.
    saved = Followed(saved_plan(proposed))
    lab.experiment("test_meanwhile")
    before, start = grown.held(), lab.everything()
    followed = make_plan(chosen([]), remedies(), Context(lab.read(), lab.settings), limit=saved)
    assert sorted(map(key_of_change, followed.changes)) == sorted(map(key_of_change, proposed.changes))
    done = carry_out(lab, followed)
    assert (done.differing, done.outcome.failed) == ([], [])
    number = len(done.outcome.applied)
    if not number:
        return
    repaired = findings(lab)

    def as_before() -> None:
        now = grown.held()
        assert lost(before[0], now[0]) == {}
        assert differing(before[1], now[1]) == {}
        assert new_paths(before[1], now[1]) == []
        assert differences(start, lab.read(tuple(start.runs))) == []
        COUNTED["changes taken back"] += number

    undo = take_back(lab)
    assert [line for line, well in undo.lines() if not well] == []
    assert len(undo.done) == number
    as_before()

    # Somebody does something that has nothing to do with it: it stays, and the undo is taken back all the same.
    other = lab.client.create_experiment("unrelated", tags={"lifecycle": "reference"})
    again = take_back(lab, Path(undo.journal).stem)
    assert [line for line, well in again.lines() if not well] == []
    assert sorted(map(without_ids, findings(lab))) == sorted(map(without_ids, repaired))
    COUNTED["changes made"] += 2 * number

    # And something that has: that alone is left.
    tags = [
        step.change
        for step in again.done
        if isinstance(step.change, SetExperimentTag)
        and step.change.value
        and lab.client.get_experiment(step.change.experiment_id).lifecycle_stage == "active"
    ]
    touched = tags[choice % len(tags)] if tags else None
    if touched:
        lab.client.set_experiment_tag(touched.experiment_id, touched.key, "what somebody wrote")
    undo = take_back(lab)
    assert len(undo.plan.left) + len(undo.failed) == bool(touched)
    assert undo.differing == []
    if touched:
        kept = lab.client.get_experiment(touched.experiment_id).tags
        assert kept[touched.key] == "what somebody wrote"
        if touched.before is None:
            lab.client.delete_experiment_tag(touched.experiment_id, touched.key)
        else:
            lab.client.set_experiment_tag(touched.experiment_id, touched.key, touched.before)
    assert lab.client.get_experiment(other).lifecycle_stage == "active"
    lab.sql("DELETE FROM experiment_tags WHERE experiment_id = ?", int(other))
    lab.sql("DELETE FROM experiments WHERE experiment_id = ?", int(other))
    as_before()
    COUNTED["stores"] += 1


def test_so_many_changes_were_made_and_taken_back(request: pytest.FixtureRequest) -> None:
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    assert reporter is not None
    reporter.write_line(", ".join(f"{number} {what}" for what, number in sorted(COUNTED.items())))
    if not COUNTED:
        pytest.skip("the stores were built by another process, or not at all")
    if LONG:
        assert min(COUNTED["changes made"], COUNTED["changes taken back"]) >= MANY
