"""The hash cache: nothing that did not change is read twice, and no state of the cache's file leads to another
answer.
"""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_compliance.progress import Silent
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import DuplicateRules
from mlflow_compliance.snapshot.refs import Location
from mlflow_compliance.store.artifacts import cache_file, compare, hash_cache
from mlflow_compliance.store.artifacts.duplicates import hash_candidates
from mlflow_compliance.store.artifacts.hash_cache import HashCache
from mlflow_compliance.store.artifacts.session_cache import SessionCache
from mlflow_compliance.store.models import mlmodel
from mlflow_compliance.store.storage import filesystem, folder_scan

RUN = "a" * 32
LATER = 3_600_000_000_000
RULES = DuplicateRules(1)
Audit = Callable[..., Artifacts]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Large and small files, equal and not, with a name that is no text."""
    place = tmp_path / "store" / "1" / RUN / "artifacts"
    place.mkdir(parents=True)
    same = b"x" * 300_000
    contents = {
        "one": same,
        "two": same,
        "last": same[:-1] + b"y",
        "other": os.urandom(300_000),
        "s1": b"small",
        "s2": b"small",
        "s3": b"SMALL",
    }
    for name, content in {**contents, os.fsdecode(b"\xff"): same}.items():
        (place / name).write_bytes(content)
    return place


@pytest.fixture
def audit(
    read: Callable[..., Artifacts],
    row: Callable[..., Location],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Audit:
    """An audit with a cache, an hour from now (so that files made just now are old); `audit.read` is the names that
    were read.
    """
    seen: list[str] = []

    def spy(reading: Callable[[compare.Copy], object]) -> Callable[[compare.Copy], object]:
        def seeing(copy: compare.Copy) -> object:
            seen.append(os.path.basename(copy.path))
            return reading(copy)

        return seeing

    for name in ("_one", "_Member"):
        monkeypatch.setattr(compare, name, spy(getattr(compare, name)))

    def auditing(
        cache: Path | None = tmp_path / "cache", later: int = LATER, rules: DuplicateRules = RULES, **given: object
    ) -> Artifacts:
        seen.clear()
        made = None
        if cache is not None:
            monkeypatch.setattr(hash_cache, "now", lambda: time.time_ns() + later)
            made = HashCache(str(cache), "a store", rules, time.time_ns() + later)
        rows = [row("experiment", "1", "1", folder.parents[1]), row("run", RUN, "1", folder)]
        found = hash_candidates(read(rows, rules=rules, cache=made, **given), Silent(), None, made)
        wait_for_the_clock(tmp_path)
        return found

    auditing.read = seen  # type: ignore[attr-defined]
    return auditing


def wait_for_the_clock(folder: Path) -> None:
    """Until what is written now has another time than what was written before: the audits of these tests take files
    for older than they are.
    """
    probe = folder / "clock"
    probe.write_bytes(b"")
    before = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == before:
        probe.touch()


def test_what_did_not_change_is_not_read_again(audit: Audit, folder: Path, tmp_path: Path) -> None:
    first = audit()
    assert first == audit(None)
    second = audit()
    assert audit.read == []  # type: ignore[attr-defined]
    assert second == first
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0
    times = (folder / "two").stat()
    (folder / "two").write_bytes(b"x" * 299_999 + b"z")
    os.utime(
        folder / "two", ns=(times.st_atime_ns, times.st_mtime_ns)
    )  # its size and time are as before: only the time of change tells
    third = audit()
    assert set(audit.read) == {"two"}  # type: ignore[attr-defined]
    assert third == audit(None)
    assert third != first
    (folder / "one").rename(folder / "uno")  # the same inode at another path
    assert audit() == audit(None)


def test_a_folder_that_did_not_change_is_not_looked_into_again(
    audit: Audit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, looked, visit = audit(sampled=True), list[str](), folder_scan.Visitor.visit
    monkeypatch.setattr(
        folder_scan.Visitor,
        "visit",
        lambda self, place, artifacts: looked.append(place) or visit(self, place, artifacts),
    )
    assert audit(sampled=True) == first
    assert looked == []
    monkeypatch.setattr(
        filesystem, "_kinds", lambda _: frozenset({"fuse.some"})
    )  # where a new entry may not show in the folder's times
    (folder / "s1").touch()
    for _ in range(3):
        audit(sampled=True)
    assert looked == [str(folder.parent)] * 3
    assert audit.read == []  # type: ignore[attr-defined]  the files' own times are enough


def act(folder: Path, rng: random.Random) -> None:
    """What somebody may do in a run's folder between two audits, its times set back where one can."""
    present = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    path, other = (rng.choice(present), rng.choice(present)) if present else (folder / "none", folder / "none")
    new = rng.choice([folder, folder / "deep", folder / "deep" / "er"]) / rng.choice(
        ["MLmodel", "a", "b", "late.zip", ".hidden", "\n"]
    )
    new.parent.mkdir(parents=True, exist_ok=True)
    times, above = path.stat() if present else None, path.parent.stat()
    what = rng.randrange(10)
    with suppress(OSError):
        if what == 0:
            path.write_bytes(bytes(reversed(path.read_bytes())))
        elif what == 1:
            path.unlink()
        elif what == 2:
            path.rename(new)
        elif what == 3:
            new.write_bytes(rng.choice([b"", b"new", b"x" * 300_000, b"flavors: {f: {data: a}}\n"]))
        elif what == 4:
            new.hardlink_to(path)
        elif what == 5:
            new.symlink_to(path)
        elif what == 6:
            shutil.copy2(other, path)
        elif what == 7:
            os.replace(other, path)
        elif what == 8:
            shutil.rmtree(new.parent) if new.parent != folder else path.chmod(0o640)
        else:
            (folder.parent / "params").write_bytes(b"beside the artifacts")
        for changed, before in ((path, times), (path.parent, above)):
            if before and rng.random() < 0.5:
                os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns), follow_symlinks=False)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_in_between_is_seen(audit: Audit, folder: Path, seed: int) -> None:
    """An audit with a cache finds what one without finds, after any number of audits and changes."""
    rng = random.Random(seed)
    (folder / "MLmodel").write_text("run_id: a\nflavors: {f: {data: one}}\n")
    for _ in range(12):
        for _ in range(rng.randrange(3)):
            act(folder, rng)
        sampled = rng.random() < 0.5
        assert audit(sampled=sampled) == audit(None)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_between_two_looks_of_a_session_is_seen(
    audit: Audit, read: Callable[..., Artifacts], row: Callable[..., Location], folder: Path, tmp_path: Path, seed: int
) -> None:
    """Also of files on record, archives and folders that are no plain ones. States are the same while contents are."""
    rng, look = random.Random(seed), None
    rows = [row("experiment", "1", "1", folder.parents[1]), row("run", RUN, "1", folder)]
    before: tuple[Artifacts, dict[str, bytes]] | None = None
    for _ in range(12):
        for _ in range(rng.randrange(3)):
            act(folder, rng)
        recorded = {str(folder / name): "1" * 64 for name in ("one", "s1", "other") if rng.random() < 0.5}
        look = SessionCache(None, "a store", RULES, time.time_ns() + LATER, look)
        given = {"rules": RULES, "recorded": recorded, "sampled": rng.random() < 0.5}
        found = hash_candidates(read(rows, cache=look, **given), Silent(), None, look)
        plain = hash_candidates(read(rows, **given), Silent())
        # What was on record before is known still, by all its names.
        more = {path: digest for path, digest in found.hashes.items() if path not in plain.hashes}
        assert replace(found, hashes={**plain.hashes, **more}) == replace(plain, hashes=dict(found.hashes))
        for path, digest in more.items():
            assert digest == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        found = replace(found, states=look.states(found))
        wait_for_the_clock(tmp_path)
        held = {path: Path(path).read_bytes() for path in found.files}
        if before is not None and found.states and found.states == before[0].states:
            assert held == before[1]
        before = (found, held)


def test_a_session_reads_what_is_on_record_once(
    audit: Audit, read: Callable[..., Artifacts], row: Callable[..., Location], folder: Path
) -> None:
    rows, look = [row("experiment", "1", "1", folder.parents[1]), row("run", RUN, "1", folder)], None
    seen: list[str] = audit.read  # type: ignore[attr-defined]
    recorded, found = {str(folder / name): "1" * 64 for name in ("one", "other")}, list[Artifacts]()
    for number in range(3):
        seen.clear()
        look = SessionCache(None, "a store", RULES, time.time_ns() + LATER, look)
        found.append(hash_candidates(read(rows, rules=RULES, recorded=recorded, cache=look), Silent(), None, look))
        assert bool(seen) == (number == 0)
        assert look.states(found[-1])
    assert found[0] == found[1] == found[2]


def test_a_file_written_within_the_clocks_tick_is_not_kept(audit: Audit, folder: Path) -> None:
    assert audit(later=0) == audit(later=0)
    assert len(set(audit.read)) == 8  # type: ignore[attr-defined]  all files are younger than two seconds
    audit(later=-LATER)  # likewise where the clock was set back
    audit()
    assert audit.read  # type: ignore[attr-defined]


def test_what_is_on_record_is_read_whatever_the_cache_says(audit: Audit, folder: Path, tmp_path: Path) -> None:
    audit()
    (entries,) = (tmp_path / "cache").iterdir()
    body = (
        entries.read_bytes().partition(b"\n")[2].replace(hashlib.sha256(b"x" * 300_000).hexdigest().encode(), b"0" * 64)
    )
    entries.write_bytes(cache_file.head_of(body) + body)  # a lie that is well formed
    recorded = {str(folder / name): "1" * 64 for name in ("one", "s1", "other")}
    for _ in range(2):
        found = audit(recorded=recorded)
        for path in recorded:
            assert found.hashes[path] == hashlib.sha256(Path(path).read_bytes()).hexdigest()
        entries.write_bytes(cache_file.head_of(body) + body)
        (folder / "new").write_bytes(b"not all is as it was")


@pytest.mark.parametrize("stage", ["_one", "_Member"])
def test_what_could_not_be_read_is_told_again(audit: Audit, monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    reading = getattr(compare, stage)

    def failing(copy: compare.Copy) -> object:
        if copy.path.endswith("/two"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return reading(copy)

    monkeypatch.setattr(compare, stage, failing)
    for _ in range(3):
        assert list(audit().unread.values()) == ["permission denied"]


def test_a_model_that_could_not_be_read_for_a_moment_is_looked_at_again(
    audit: Audit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.sklearn}}\n")
    wait_for_the_clock(folder.parents[3])

    def exhausted(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(folder_scan, "_open", lambda *_: -1)
        patch.setattr(mlmodel, "_raw", exhausted)
        assert "Too many open files" in audit().models[str(folder)].error
    assert audit().models[str(folder)].error == ""


def test_a_memory_that_would_be_the_same_is_not_written_again(audit: Audit, folder: Path, tmp_path: Path) -> None:
    stray = folder.parents[1] / ("b" * 32) / "x"  # so that every audit has to look for itself
    stray.parent.mkdir()
    stray.write_bytes(b"nobody's")
    audit()
    (entries,) = (tmp_path / "cache").iterdir()
    before = entries.stat()
    audit()
    assert (entries.stat().st_ino, entries.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    (folder / "one").unlink()
    audit()
    assert entries.stat().st_mtime_ns != before.st_mtime_ns


def test_other_rules_see_other_files(audit: Audit) -> None:
    for rules in (DuplicateRules(100_000), RULES, DuplicateRules(1, ("t*",)), RULES):
        assert audit(rules=rules) == audit(None, rules=rules)


def test_a_cache_that_is_spoiled_changes_nothing(audit: Audit, tmp_path: Path) -> None:
    expected = audit()
    (entries,) = (tmp_path / "cache").iterdir()
    good = entries.read_bytes()
    spoiled = [good[:index] + bytes([good[index] ^ 1]) + good[index + 1 :] for index in range(0, len(good), 41)]
    others = [
        b"",
        b"\n",
        good[:-1],
        good + b"\0",
        good.replace(b"hashes 2", b"hashes 3"),
        os.urandom(1000),
        b"\x80\x04.",
    ]
    for content in (*spoiled[:40], *others):
        entries.write_bytes(content)
        assert audit() == expected
        assert audit.read  # type: ignore[attr-defined]
    assert entries.read_bytes() == good  # and it is put right


def test_a_folder_that_cannot_be_used_costs_the_cache_only(audit: Audit, tmp_path: Path) -> None:
    expected = audit(None)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        tmp_path / "loop",
        Path("/proc/nowhere"),
        tmp_path / ("n" * 300),
    ):
        assert audit(place) == expected
    audit()
    (entries,) = (tmp_path / "cache").iterdir()
    entries.unlink()
    entries.mkdir()
    assert audit() == expected
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [entries.name]  # no half-written files stay


def test_a_cache_that_others_may_write_to_is_passed_over(audit: Audit, tmp_path: Path) -> None:
    expected = audit()
    (entries,) = (tmp_path / "cache").iterdir()
    entries.chmod(0o620)
    assert audit() == expected
    assert audit.read  # type: ignore[attr-defined]
    assert entries.stat().st_mode & 0o777 == 0o600  # the new one is ours alone
    audit()
    assert audit.read == []  # type: ignore[attr-defined]


def test_two_audits_at_once(audit: Audit, tmp_path: Path) -> None:
    expected, found = audit(None), list[Artifacts]()
    threads = [threading.Thread(target=lambda: found.extend(audit() for _ in range(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 20
    audit()
    assert audit.read == []  # type: ignore[attr-defined]
