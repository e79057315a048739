from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.progress import Silent
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import DuplicateRules
from mlflow_compliance.snapshot.refs import Location
from mlflow_compliance.store.artifacts import compare
from mlflow_compliance.store.artifacts.duplicates import hash_candidates, hash_file
from mlflow_compliance.store.storage import files, safe_io

RUN = "a" * 32
Search = Callable[..., Artifacts]


@pytest.fixture(scope="session")
def search(read: Callable[..., Artifacts], row: Callable[..., Location]) -> Search:
    """The duplicate search over one run's artifacts in a folder."""

    def searching(folder: Path, min_size: int = 1, **given: object) -> Artifacts:
        found = read([row("run", RUN, "1", folder)], rules=DuplicateRules(min_size), **given)
        return hash_candidates(found, Silent())

    return searching


def put(folder: Path, **contents: bytes) -> None:
    folder.mkdir(exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)


def groups(found: Artifacts) -> list[set[str]]:
    return [{os.path.basename(path) for path in group.paths} for group in found.duplicates()]


# Few contents, alike for longer than the first stage looks, so that every stage has something to tell apart.
CONTENTS = st.builds(
    lambda length, end: b"\0" * length + end,
    st.sampled_from([0, 1, 50, 4095, 4096, 4097, 9000, 300_000]),
    st.binary(max_size=2),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contents=st.lists(CONTENTS, max_size=9),
    links=st.lists(st.tuples(st.integers(0, 8), st.sampled_from("stu")), max_size=3),
    min_size=st.integers(0, 60),
)
def test_duplicates_are_what_comparing_every_pair_finds(
    search: Search, tmp_path: Path, contents: list[bytes], links: list[tuple[int, str]], min_size: int
) -> None:
    folder = tmp_path / "artifacts"
    shutil.rmtree(folder, ignore_errors=True)
    put(folder, **{f"f{index}": data for index, data in enumerate(contents)})
    for index, name in links:
        if index < len(contents) and not (folder / name).exists():
            (folder / name).hardlink_to(folder / f"f{index}")
    paths = [path for path in sorted(folder.iterdir()) if path.stat().st_size >= min_size]
    same = {path: frozenset(other for other in paths if other.read_bytes() == path.read_bytes()) for path in paths}
    expected = {group for group in same.values() if len({path.stat().st_ino for path in group}) > 1}
    found = search(folder, min_size)
    assert {frozenset(map(Path, group.paths)) for group in found.duplicates()} == expected
    for path, digest in found.hashes.items():
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest
    assert not found.unread


def test_only_what_may_be_a_duplicate_is_read(search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "artifacts"
    put(
        folder,
        alone=b"1",
        one=b"x" * 5000,
        two=b"x" * 5000,
        begins=b"x" * 2500 + b"y" + b"x" * 2499,
        small=b"",
        empty=b"",
    )
    put(folder, **{"requirements.txt": b"x" * 5000, "uv.lock": b"x" * 5000})
    (folder / "three").hardlink_to(folder / "two")
    put(folder, linked=b"z" * 70)
    (folder / "linked2").hardlink_to(folder / "linked")
    begun: list[compare.Copy] = []
    whole: list[compare.Copy] = []
    monkeypatch.setattr(compare, "_one", spy(compare._one, begun))
    monkeypatch.setattr(compare, "_Member", spy(compare._Member, whole))
    found = search(folder)
    assert groups(found) == [{"one", "two", "three"}]
    names = [os.path.basename(copy.path) for copy in begun]
    assert len(names) == 3  # one, begins, and two by either of its names
    assert {"one", "begins"} < set(names)
    assert len(whole) == 2
    assert {os.path.basename(path) for path in found.hashes} == {"one", "two", "three"}


def test_contents_that_part_at_different_blocks(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, size, places = (
        tmp_path / "artifacts",
        600_000,
        (10, 200_000, 299_999, 599_999),
    )  # the sample, in the middle, is the same
    for number in range(16):
        data = bytearray(size)
        for bit, place in enumerate(places):
            data[place] = number >> bit & 1
        put(folder, **{f"{number}{letter}": bytes(data) for letter in "ab"})
    found = search(folder)
    assert sorted(map(sorted, groups(found))) == sorted([f"{number}a", f"{number}b"] for number in range(16))
    for path, digest in found.hashes.items():
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == digest


def test_what_differs_in_its_last_byte_is_read_once(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = b"x" * 3_000_000
    put(tmp_path / "artifacts", one=same, two=same, last=same[:-1] + b"y")
    preadv, counts = os.preadv, list[int]()

    def counting(file: int, buffers: list[bytearray], offset: int) -> int:
        counts.append(len(buffers[0]))
        return preadv(file, buffers, offset)

    monkeypatch.setattr(compare.os, "preadv", counting)
    found = search(tmp_path / "artifacts")
    assert groups(found) == [{"one", "two"}]
    assert found.hashes[str(tmp_path / "artifacts" / "last")] == hashlib.sha256(same[:-1] + b"y").hexdigest()
    assert sum(counts) < 3 * len(same) + (1 << 18)


def spy(function: Callable[..., object], seen: list[compare.Copy]) -> Callable[..., object]:
    def seeing(copy: compare.Copy) -> object:
        seen.append(copy)
        return function(copy)

    return seeing


def test_what_is_on_record_is_hashed_whatever_it_is(search: Search, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    put(folder, alone=b"once")
    recorded = {str(folder / "alone"): "0" * 64, str(folder / "gone"): "1" * 64}
    found = search(folder, 1024, recorded=recorded)
    assert found.hashes == {str(folder / "alone"): hashlib.sha256(b"once").hexdigest()}
    assert found.recorded == recorded


def test_a_file_that_changes_while_it_is_read_is_told(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "artifacts"
    put(folder, one=b"x" * 9000, two=b"x" * 9000, three=b"x" * 9000)
    preadv = os.preadv

    def writing(file: int, buffers: list[memoryview], offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{file}").endswith("/two"):
            os.utime(folder / "two", ns=(1, 1))
        return preadv(file, buffers, offset)

    monkeypatch.setattr(safe_io.os, "preadv", writing)
    found = search(folder)
    assert found.unread == {str(folder / "two"): "changed while it was read"}
    assert groups(found) == [{"one", "three"}]


@pytest.mark.parametrize("stage", ["_one", "_Member"])
def test_a_file_that_grew_or_went_since_the_walk_is_told(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    folder = tmp_path / "artifacts"
    put(folder, grown=b"x" * 9000, two=b"x" * 9000, three=b"x" * 9000, gone=b"x" * 9000, pipe=b"x" * 9000)
    reading = getattr(compare, stage)

    def late(copy: compare.Copy) -> object:
        if copy.path.endswith("grown"):
            put(folder, grown=b"x" * 9001)
        elif copy.path.endswith("gone"):
            os.unlink(copy.path)
        elif copy.path.endswith("pipe"):
            os.unlink(copy.path)
            os.mkfifo(copy.path)  # opening it must not wait for a writer
        return reading(copy)

    monkeypatch.setattr(compare, stage, late)
    found = search(folder)
    assert found.unread[str(folder / "grown")] == "changed while it was read"
    assert found.unread[str(folder / "gone")] == "no such file or directory"
    assert set(found.unread) == {str(folder / name) for name in ("grown", "gone", "pipe")}
    assert groups(found) == [{"two", "three"}]


def test_clones_are_one_copy(search: Search, cloning_disk: Path, tmp_path: Path) -> None:
    folder = cloning_disk / tmp_path.name
    data = b"not zero" + os.urandom(300_000)
    put(folder, a=data, b=data, c=data)
    (folder / "b2").hardlink_to(folder / "b")
    assert groups(search(folder)) == [{"a", "b", "b2", "c"}]
    digest = hashlib.sha256(data).hexdigest()
    assert files.share(str(folder / "a"), str(folder / "c"), digest) == "clone"
    found = search(folder)
    assert groups(found) == [{"a", "b", "b2", "c"}]
    (group,) = found.duplicates()
    assert {os.path.basename(path) for path in found.extras(group)} == {"b", "b2"}
    for name in ("b", "b2"):
        files.share(str(folder / "a"), str(folder / name), digest)
    assert groups(search(folder)) == []
    with (folder / "c").open("r+b") as file:
        file.write(b"\0")
    assert len({item.copy for item in search(folder).files.values()}) == 2
    (folder / "c").write_bytes(data)  # the same bytes again, in blocks of its own
    os.sync()
    assert groups(search(folder)) == [{"a", "b", "b2", "c"}]


def archive(when: int, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as container:
        for name, data in members.items():
            container.writestr(zipfile.ZipInfo(name, (when, 1, 1, 0, 0, 0)), data)
    return buffer.getvalue()


def test_archives_that_differ_in_time_stamps_are_twins(search: Search, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    members = {"schema.json": b"{}" * 100, "tree.npy": b"tree" * 100}
    put(
        folder,
        **{
            "a.skops": archive(2024, **members),
            "b.skops": archive(2025, **members),
            "b-again.skops": archive(2025, **members),
            "c.skops": archive(2024, **{**members, "tree.npy": b"eert" * 100}),
            "d.zip": archive(2026, **members),
            "e.bin": archive(2027, **members),
            "f.pt": b"no archive at all",
            "g.pt": b"no archive at ALL",
        },
    )
    found = search(folder)
    assert [tuple(map(os.path.basename, group)) for group in found.equal_archives] == [("a.skops", "b-again.skops")]
    assert groups(found) == [{"b.skops", "b-again.skops"}]


def test_archives_that_are_spoiled_are_no_twins_and_no_crash(search: Search, tmp_path: Path) -> None:
    good = archive(2024, a=b"x" * 500)
    contents = {f"{index}.zip": good[:index] + b"\xff" + good[index + 1 :] for index in range(len(good))}
    put(tmp_path / "artifacts", **contents)
    for group in search(tmp_path / "artifacts").equal_archives:
        assert len({Path(path).read_bytes() for path in group}) == len(group)


def test_names_that_are_not_text(search: Search, tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    for name in (b"\xff.csv", b"\xfe.csv"):
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(b"same")
    assert [len(group.paths) for group in search(folder).duplicates()] == [2]


def test_hash_file(tmp_path: Path) -> None:
    put(tmp_path, a=b"x" * 600_000)
    assert hash_file(str(tmp_path / "a")) == hashlib.sha256(b"x" * 600_000).hexdigest()
    with pytest.raises(ChangeError, match="could not be read"):
        hash_file(str(tmp_path / "gone"))


def test_what_may_not_be_read_is_told(ordinary_user: Callable[..., str], tmp_path: Path) -> None:
    put(tmp_path / "artifacts", one=b"same", two=b"same", three=b"same")
    code = f"""
import json, os, sys
from mlflow_compliance.snapshot.artifacts import DuplicateRules
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.progress import Silent
from mlflow_compliance.store.artifacts.local import read_artifacts
from mlflow_compliance.store.artifacts.duplicates import hash_candidates
drop()
os.chmod(sys.argv[1] + "/two", 0)
found = read_artifacts([Location(EntityRef("run", "{RUN}"), "1", sys.argv[1])], relocate={{}}, roots=[], ignore=[],
                       rules=DuplicateRules(1),
                       file_store=False, ready_models=(), recorded={{}}, progress=Silent())
found = hash_candidates(found, Silent())
print(json.dumps([found.unread, [group.paths for group in found.duplicates()]]))
"""
    folder = tmp_path / "artifacts"
    assert (
        ordinary_user(code, folder)
        == f'[{{"{folder}/two": "permission denied"}}, [["{folder}/one", "{folder}/three"]]]'
    )
