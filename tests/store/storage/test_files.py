from __future__ import annotations

import errno
import hashlib
import itertools
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.storage import files, linking
from mlflow_compliance.store.storage.filesystem import shared_extents

CONTENT = b"a model, " * 5000
SHA = hashlib.sha256(CONTENT).hexdigest()
OLD = 1_600_000_000_123_456_789


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return made(tmp_path / "a" / "kept.pkl"), made(tmp_path / "b" / "path.pkl")


@pytest.fixture
def clones(cloning_disk: Path, tmp_path: Path) -> tuple[Path, Path]:
    folder = cloning_disk / tmp_path.name
    return made(folder / "a" / "kept.pkl"), made(folder / "b" / "path.pkl")


def made(path: Path, content: bytes = CONTENT, mtime_ns: int = OLD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def share(kept: Path, path: Path) -> str:
    return files.share(str(kept), str(path), SHA)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if not path.is_dir()}


class TestShareByHardLink:
    def test_one_inode_same_bytes_read_only_and_idempotent(self, pair: tuple[Path, Path]) -> None:
        kept, path = pair
        path.chmod(0o640)
        for _ in range(2):
            assert share(kept, path) == "hardlink"
            assert kept.samefile(path)
            assert kept.stat().st_nlink == 2
            assert path.read_bytes() == CONTENT
            assert stat.S_IMODE(path.stat().st_mode) == 0o444
            assert names(path.parent) == {"path.pkl"}

    def test_an_earlier_link_that_was_made_writable_is_protected_again(self, pair: tuple[Path, Path]) -> None:
        share(*pair)
        pair[0].chmod(0o644)
        share(*pair)
        assert stat.S_IMODE(pair[1].stat().st_mode) == 0o444

    def test_whoever_could_read_the_path_still_can(self, pair: tuple[Path, Path]) -> None:
        pair[0].chmod(0o600)
        pair[1].chmod(0o644)
        share(*pair)
        assert stat.S_IMODE(pair[1].stat().st_mode) == 0o444

    def test_unshare_is_the_inverse(self, pair: tuple[Path, Path]) -> None:
        kept, path = pair
        path.chmod(0o640)
        os.utime(path, ns=(OLD, OLD + 7))
        share(kept, path)
        for _ in range(2):
            files.unshare(str(path), 0o640, OLD + 7, SHA)
            state = path.stat()
            assert (state.st_nlink, stat.S_IMODE(state.st_mode), state.st_mtime_ns) == (1, 0o640, OLD + 7)
            assert path.read_bytes() == kept.read_bytes() == CONTENT
        assert stat.S_IMODE(kept.stat().st_mode) == 0o444
        assert names(path.parent) == {"path.pkl"}

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        content=st.binary(max_size=9000),
        mode=st.sampled_from([0o600, 0o640, 0o644, 0o664, 0o755, 0o444]),
        later=st.integers(0, 10**9),
    )
    def test_law(self, tmp_path: Path, content: bytes, mode: int, later: int) -> None:
        for name in ("a", "b"):
            (tmp_path / name).unlink(missing_ok=True)
        kept, path = made(tmp_path / "a", content), made(tmp_path / "b", content, OLD + later)
        path.chmod(mode)
        digest = hashlib.sha256(content).hexdigest()
        assert files.share(str(kept), str(path), digest) == "hardlink"
        assert path.samefile(kept)
        assert path.read_bytes() == kept.read_bytes() == content
        assert not path.stat().st_mode & 0o222
        files.unshare(str(path), mode, OLD + later, digest)
        assert not path.samefile(kept)
        assert path.read_bytes() == kept.read_bytes() == content
        assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_mtime_ns) == (mode, OLD + later)


class TestShareByClone:
    def test_blocks_are_shared_and_path_keeps_its_mode_and_times(self, clones: tuple[Path, Path]) -> None:
        kept, path = clones
        path.chmod(0o640)
        os.utime(path, ns=(OLD, OLD + 7))
        if os.geteuid() == 0:
            os.chown(path, 1234, 1235)
        os.setxattr(path, "user.note", b"mine")
        before = path.stat()
        assert share(kept, path) == "clone"
        after = path.stat()
        assert (after.st_mode, after.st_mtime_ns, after.st_uid, after.st_gid) == (
            before.st_mode,
            OLD + 7,
            before.st_uid,
            before.st_gid,
        )
        assert os.getxattr(path, "user.note") == b"mine"
        assert (after.st_nlink, kept.stat().st_nlink) == (1, 1)
        assert stat.S_IMODE(kept.stat().st_mode) == 0o644
        assert path.read_bytes() == CONTENT
        assert extents(kept) == extents(path) != ()

    def test_a_second_time_leaves_the_clone_as_it_is(self, clones: tuple[Path, Path]) -> None:
        share(*clones)
        inode = clones[1].stat().st_ino
        assert share(*clones) == "clone"
        assert clones[1].stat().st_ino == inode

    def test_writing_through_one_path_leaves_the_other(self, clones: tuple[Path, Path]) -> None:
        share(*clones)
        with clones[1].open("r+b") as file:
            file.write(b"logged again")
        assert clones[0].read_bytes() == CONTENT

    def test_unshare_is_the_inverse(self, clones: tuple[Path, Path]) -> None:
        kept, path = clones
        share(kept, path)
        files.unshare(str(path), 0o644, OLD, SHA)
        assert extents(path) == ()
        assert (path.stat().st_mtime_ns, path.read_bytes(), kept.read_bytes()) == (OLD, CONTENT, CONTENT)

    def test_a_new_place_can_share_too(self, clones: tuple[Path, Path]) -> None:
        target = clones[0].parent / "new" / "model.pkl"
        assert files.place_shared(str(clones[0]), str(target), SHA) == "clone"
        assert extents(target) == extents(clones[0]) != ()
        assert target.stat().st_mtime_ns == OLD


def extents(path: Path) -> tuple[tuple[int, int, int], ...]:
    with path.open("rb") as file:
        return shared_extents(file.fileno())


class TestRefusals:
    def test_a_file_that_differs(self, pair: tuple[Path, Path]) -> None:
        for which in pair:
            made(which, b"B" + CONTENT[1:])
            with pytest.raises(ChangeError, match="does not hold the content that was planned with"):
                share(*pair)
            made(which)
        files_untouched(pair)

    def test_links_folders_and_what_is_gone(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        kept, path = pair
        link = tmp_path / "link"
        link.symlink_to(kept)
        os.mkfifo(tmp_path / "pipe")
        for wrong, message in (
            (link, "is a symbolic link"),
            (tmp_path, "is not a regular file"),
            (tmp_path / "pipe", "is not a regular file"),
            (tmp_path / "gone", "removed meanwhile"),
        ):
            for one, other in ((wrong, path), (kept, wrong)):
                with pytest.raises(ChangeError, match=message) as caught:
                    share(one, other)
                assert str(wrong) in str(caught.value)
        files_untouched(pair)

    def test_another_file_system(self, pair: tuple[Path, Path], clones: tuple[Path, Path]) -> None:
        with pytest.raises(ChangeError, match="lies on another file system"):
            share(pair[0], clones[1])
        with pytest.raises(ChangeError, match="lies on another file system"):
            files.quarantine(str(pair[0]), str(clones[0].parent / "new"))
        target = clones[0].parent / "copied"
        assert files.place_shared(str(pair[0]), str(target), SHA) == "copy"
        assert target.read_bytes() == CONTENT
        assert pair[0].stat().st_mode & 0o200

    def test_a_path_that_changes_meanwhile_is_not_lost(
        self, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept, path = pair
        link = os.link

        def slow(*args: object, **named: object) -> None:
            made(path, b"logged again", OLD + 5)
            link(*args, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(linking.os, "link", slow)
        with pytest.raises(ChangeError, match="changed meanwhile and was left as it is"):
            share(kept, path)
        assert path.read_bytes() == b"logged again"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o644
        assert names(path.parent) == {"path.pkl"}

    def test_a_kept_file_that_changes_meanwhile_is_not_spread(
        self, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = os.link

        def slow(*args: object, **named: object) -> None:
            made(pair[0], b"logged again", OLD + 5)
            link(*args, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(linking.os, "link", slow)
        with pytest.raises(ChangeError, match="changed meanwhile"):
            share(*pair)
        assert pair[1].read_bytes() == CONTENT
        assert stat.S_IMODE(pair[0].stat().st_mode) == 0o644

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EMLINK, errno.EDQUOT, errno.EIO])
    def test_what_the_system_refuses_is_one_sentence(
        self, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(linking.os, "link", refuse)
        with pytest.raises(ChangeError) as caught:
            share(*pair)
        message = str(caught.value)
        assert message.startswith(f"{pair[1]} could not be changed ({os.strerror(number).lower()}): ")
        assert "\n" not in message
        files_untouched(pair)

    def test_a_full_disk(self, cloning_disk: Path, pair: tuple[Path, Path]) -> None:
        left = os.statvfs(cloning_disk)
        filler = cloning_disk / "filler"
        try:
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(left.f_bavail - 4, 1) * left.f_frsize)
        except OSError:
            filler.unlink(missing_ok=True)
            pytest.skip("the disk cannot be filled")
        try:
            with pytest.raises(ChangeError, match="free some space"):
                files.place(str(pair[0]), str(cloning_disk / "copy"))
        finally:
            filler.unlink()
        assert not (cloning_disk / "copy").exists()
        assert not [name for name in os.listdir(cloning_disk) if name.startswith(".compliance")]

    def test_another_users_folder(self, pair: tuple[Path, Path], ordinary_user: Callable[..., str]) -> None:
        pair[1].parent.chmod(0o555)
        code = f"""
import sys
from mlflow_compliance.errors import ChangeError
from mlflow_compliance.store.storage import files
drop()
try:
    files.share(sys.argv[1], sys.argv[2], "{SHA}")
except ChangeError as error:
    print(error)
"""
        try:
            message = ordinary_user(code, *pair)
        finally:
            pair[1].parent.chmod(0o755)
        assert message == f"{pair[1]} could not be changed (permission denied): run as the user who owns it"
        assert stat.S_IMODE(pair[0].stat().st_mode) == 0o644


def files_untouched(pair: tuple[Path, Path]) -> None:
    kept, path = pair
    assert not kept.samefile(path)
    for file in pair:
        assert file.read_bytes() == CONTENT
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
        assert names(file.parent) == {file.name}


def test_logging_again_as_an_ordinary_user_cannot_change_the_other_path(
    pair: tuple[Path, Path], ordinary_user: Callable[..., str]
) -> None:
    """Opening for writing is refused; MLflow's folder upload, which opens the path, fails; its file upload replaces
    one path only.
    """
    kept, path = pair
    new = made(path.parent.parent / "new" / path.name, b"the next model")
    share(kept, path)
    code = """
import os, sys
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
drop()
kept, path, new = sys.argv[1:]
seen = []
log = LocalArtifactRepository(os.path.dirname(path)).log_artifacts
for attempt in (lambda: open(path, "r+b"), lambda: log(os.path.dirname(new))):
    try:
        attempt()
        seen.append("wrote")
    except PermissionError:
        seen.append("refused")
seen.append(str(open(kept, "rb").read() == open(path, "rb").read() != open(new, "rb").read()))
LocalArtifactRepository(os.path.dirname(path)).log_artifact(new)
seen.append(str(open(path, "rb").read() == open(new, "rb").read()))
print(*seen)
"""
    assert ordinary_user(code, kept, path, new) == "refused refused True True"
    assert kept.read_bytes() == CONTENT


class TestCrash:
    CODE = """
import itertools, sys
from mlflow_compliance.store.storage import files
kept, path = sys.argv[1:3]
mode = 0o644
print("started", flush=True)
for turn in itertools.count():
    files.share(kept, path, sys.argv[3])
    files.unshare(path, mode, 1_600_000_000_000_000_000 + turn, sys.argv[3])
    print(turn, flush=True)
"""

    @pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13])
    @pytest.mark.parametrize("disk", ["pair", "clones"])
    def test_every_path_still_reads_its_bytes_after_a_kill(
        self, request: pytest.FixtureRequest, disk: str, turns: int
    ) -> None:
        kept, path = request.getfixturevalue(disk)
        source = os.path.join(os.path.dirname(__file__), "..", "..", "..", "src")
        environment = {**os.environ, "PYTHONPATH": source}
        command = [sys.executable, "-c", self.CODE, str(kept), str(path), SHA]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
            assert process.stdout
            for _ in range(turns):
                process.stdout.readline()
            process.kill()
        assert process.returncode == -9
        assert kept.read_bytes() == path.read_bytes() == CONTENT
        assert all(name.startswith(".compliance.tmp.") for name in names(path.parent) - {"path.pkl"})
        share(kept, path)  # and the next one clears up
        assert names(path.parent) == {"path.pkl"}

    @pytest.mark.parametrize("step", ["link", "fchmod", "replace", "fsync"])
    def test_death_at_each_step(self, pair: tuple[Path, Path], step: str) -> None:
        code = f"""
import os, sys
from mlflow_compliance.store.storage import files
os.{step} = lambda *args, **named: os.kill(os.getpid(), 9)
files.share(*sys.argv[1:])
"""
        source = os.path.join(os.path.dirname(__file__), "..", "..", "..", "src")
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, pair), SHA], env={**os.environ, "PYTHONPATH": source}
        )
        assert done.returncode == -9
        assert pair[0].read_bytes() == pair[1].read_bytes() == CONTENT
        assert share(*pair) == "hardlink"
        assert names(pair[1].parent) == {"path.pkl"}

    def test_what_a_dead_process_left_is_cleared_away_where_nothing_is_left_to_share(
        self, pair: tuple[Path, Path]
    ) -> None:
        share(*pair)
        with subprocess.Popen([sys.executable, "-c", ""]) as process:
            pass
        made(pair[1].parent / f".compliance.tmp.{process.pid}.0")
        share(*pair)
        assert names(pair[1].parent) == {"path.pkl"}

    def test_what_a_living_process_is_writing_is_left(self, pair: tuple[Path, Path]) -> None:
        mine = pair[1].parent / f".compliance.tmp.{os.getppid()}.0"
        other = pair[1].parent / ".compliance.tmp.notes"
        mine.write_bytes(b"x")
        other.write_bytes(b"x")
        share(*pair)
        assert names(pair[1].parent) == {"path.pkl", mine.name, other.name}


class TestPlace:
    def test_a_copy_of_its_own_with_the_time(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        target = tmp_path / "new" / "run" / "model.pkl"
        pair[0].chmod(0o444)
        for _ in range(2):
            files.place(str(pair[0]), str(target))
        assert target.read_bytes() == CONTENT
        assert target.stat().st_mtime_ns == OLD
        assert target.stat().st_mode & 0o200
        assert not target.samefile(pair[0])
        assert names(target.parent) == {"model.pkl"}

    def test_shared_is_a_read_only_link_here(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        target = tmp_path / "new" / "model.pkl"
        for _ in range(2):
            assert files.place_shared(str(pair[0]), str(target), SHA) == "hardlink"
        assert target.samefile(pair[0])
        assert stat.S_IMODE(target.stat().st_mode) == 0o444

    def test_threads_that_link_one_file_take_turns(
        self, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All of them have seen it writable; those that fail must not make it so again under the link of the one
        that did not.
        """
        names_of_one = [pair[0], *(tmp_path / f"name{number}" for number in range(7))]
        for name in names_of_one[1:]:
            os.link(pair[0], name)
        at_once, publish, calls = threading.Barrier(8, timeout=60), files._publish, itertools.count()

        def together(file: int, path: str) -> None:
            linking.refuse_if_written_to(file, path)
            at_once.wait()

        def first_alone(temporary: str, target: str) -> None:
            if next(calls):
                raise ChangeError("no space left")
            publish(temporary, target)

        def place(number: int) -> bool:
            try:
                return bool(files.place_shared(str(names_of_one[number]), str(tmp_path / "new" / str(number)), SHA))
            except ChangeError:
                return False

        monkeypatch.setattr(files, "refuse_if_written_to", together)
        monkeypatch.setattr(files, "_publish", first_alone)
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(place, range(8))) == 1
            assert stat.S_IMODE(pair[0].stat().st_mode) == 0o444
            monkeypatch.undo()
            assert all(pool.map(place, range(8)))
        made = list((tmp_path / "new").iterdir())
        assert len(made) == 8
        assert all(path.samefile(pair[0]) and path.read_bytes() == CONTENT for path in made)
        assert stat.S_IMODE(pair[0].stat().st_mode) == 0o444

    def test_another_content_is_never_replaced(self, pair: tuple[Path, Path], tmp_path: Path) -> None:
        other = made(tmp_path / "other", b"precious")
        for attempt in (
            lambda: files.place(str(pair[0]), str(other)),
            lambda: files.place_shared(str(pair[0]), str(other), SHA),
            lambda: files.write_new(str(other), b"new"),
        ):
            with pytest.raises(ChangeError, match="is there already with another content"):
                attempt()
        assert other.read_bytes() == b"precious"

    def test_a_write_that_the_disk_spoils_is_noticed(
        self, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write = os.write
        monkeypatch.setattr(
            "mlflow_compliance.store.storage.atomic_write.os.write", lambda file, data: write(file, b"\0" * len(data))
        )
        with pytest.raises(ChangeError, match="does not hold what was written to it"):
            files.place(str(pair[0]), str(tmp_path / "new"))
        monkeypatch.undo()
        assert not (tmp_path / "new").exists()

    def test_new_content(self, tmp_path: Path) -> None:
        for _ in range(2):
            files.write_new(str(tmp_path / "new" / "MLmodel"), b"flavors: {}")
        assert (tmp_path / "new" / "MLmodel").read_bytes() == b"flavors: {}"


class TestQuarantine:
    @pytest.mark.parametrize("what", ["folder", "file"])
    def test_there_and_back(self, tmp_path: Path, what: str) -> None:
        root = tmp_path / "mlruns"
        made(root / "26ab" / "artifacts" / "a.csv")
        (root / "26ab" / "empty").mkdir()
        path = root / "26ab" if what == "folder" else root / "26ab" / "artifacts" / "a.csv"
        target = root / ".quarantine" / "j1" / path.relative_to(root)
        before = (files.manifest_of(str(root)), path.stat().st_ino)
        files.quarantine(str(path), str(target))
        assert not path.exists()
        assert files.manifest_of(str(target))[0]["sha256"] == SHA
        files.restore(str(target), str(path))
        assert (files.manifest_of(str(root)), path.stat().st_ino) == before
        assert not (root / ".quarantine").exists()

    def test_a_manifest_in_the_quarantine_stays(self, tmp_path: Path) -> None:
        path, target = made(tmp_path / "a"), tmp_path / ".quarantine" / "j1" / "a"
        files.quarantine(str(path), str(target))
        made(target.parent / "manifest.jsonl")
        files.restore(str(target), str(path))
        assert names(tmp_path) == {"a", "manifest.jsonl"}

    def test_nothing_is_replaced(self, tmp_path: Path) -> None:
        path, target = made(tmp_path / "a"), made(tmp_path / ".quarantine" / "a", b"other")
        with pytest.raises(ChangeError, match="is there already"):
            files.quarantine(str(path), str(target))
        (tmp_path / "empty").mkdir()  # a rename would put a folder in its place
        (tmp_path / ".quarantine" / "folder").mkdir()
        with pytest.raises(ChangeError, match="is there already"):
            files.restore(str(tmp_path / ".quarantine" / "folder"), str(tmp_path / "empty"))
        with pytest.raises(ChangeError, match="removed meanwhile"):
            files.quarantine(str(tmp_path / "gone"), str(tmp_path / ".quarantine" / "gone"))
        assert (path.read_bytes(), target.read_bytes()) == (CONTENT, b"other")

    def test_a_move_that_fails_leaves_no_empty_folders(self, tmp_path: Path) -> None:
        folder = made(tmp_path / "a" / "file").parent
        with pytest.raises(ChangeError, match="could not be moved"):
            files.quarantine(str(folder), str(folder / ".quarantine" / "j1" / "a"))
        assert os.listdir(folder) == ["file"]

    def test_the_manifest(self, tmp_path: Path) -> None:
        made(tmp_path / "run" / "b" / "2.pkl")
        made(tmp_path / "run" / "1.csv", b"123")
        made(tmp_path / "run" / ".compliance.tmp.1.1", b"left over")
        assert files.manifest_of(str(tmp_path / "run")) == [
            {"path": "1.csv", "size": 3, "sha256": hashlib.sha256(b"123").hexdigest(), "mtime_ns": OLD},
            {"path": "b/2.pkl", "size": len(CONTENT), "sha256": SHA, "mtime_ns": OLD},
        ]
        assert [line["path"] for line in files.manifest_of(str(tmp_path / "run" / "1.csv"))] == ["."]
