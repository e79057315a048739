from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_compliance.progress import Silent
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import DuplicateRules
from mlflow_compliance.snapshot.presence import Presence, Why
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.store.artifacts import duplicates, hash_cache, local
from mlflow_compliance.store.artifacts.duplicates import hash_candidates
from mlflow_compliance.store.artifacts.hash_cache import HashCache
from mlflow_compliance.store.storage import worker as worker_program
from mlflow_compliance.store.storage import worker_pool
from mlflow_compliance.store.storage.folder_scan import Verifier

RUN, OTHER, GONE = "a" * 32, "b" * 32, "c" * 32
MODEL = "m-" + "d" * 32
DATA = Path(__file__).parents[4] / "shared" / "data" / "stores"

Read = Callable[..., Artifacts]
Row = Callable[..., Location]


def write(path: Path, content: bytes = b"x" * 2000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "mlruns"
    folder.mkdir()
    return folder


@pytest.fixture
def rows(root: Path, row: Row) -> list[Location]:
    return [
        row("experiment", "1", "1", root / "1"),
        row("run", RUN, "1", root / "1" / RUN / "artifacts"),
        row("logged_model", MODEL, "1", root / "1" / "models" / MODEL / "artifacts"),
    ]


class TestOwners:
    def test_files_of_runs_models_and_traces_have_their_owner(
        self, read: Read, rows: list[Location], root: Path
    ) -> None:
        logged = write(root / "1" / RUN / "artifacts" / "plots" / "roc.png")
        beside = write(root / "1" / RUN / "params" / "alpha")
        model = write(root / "1" / "models" / MODEL / "artifacts" / "model.pkl")
        trace = write(root / "1" / "traces" / "tr-1" / "artifacts" / "traces.json")
        found = read(rows)
        owners = {
            path: (file.owner and (file.owner.kind, file.owner.key), file.logged) for path, file in found.files.items()
        }
        assert owners == {
            str(logged): (("run", RUN), True),
            str(beside): (("run", RUN), False),
            str(model): (("logged_model", MODEL), True),
            str(trace): (("experiment", "1"), False),
        }
        assert not found.ownerless
        assert not found.unread

    def test_sizes_and_copies(self, read: Read, rows: list[Location], root: Path) -> None:
        one = write(root / "1" / RUN / "artifacts" / "one", b"123")
        two = root / "1" / RUN / "artifacts" / "two"
        two.hardlink_to(one)
        three = write(root / "1" / RUN / "artifacts" / "three", b"123")
        files = read(rows).files
        assert {file.size for file in files.values()} == {3}
        assert files[str(one)].copy == files[str(two)].copy != files[str(three)].copy

    def test_a_run_with_a_location_of_its_own_owns_that_folder(
        self, read: Read, rows: list[Location], row: Row, tmp_path: Path
    ) -> None:
        path = write(tmp_path / "elsewhere" / "result.csv")
        found = read([*rows, row("run", OTHER, "1", tmp_path / "elsewhere")])
        assert found.files[str(path)].owner == EntityRef("run", OTHER, f"label of {OTHER}")
        assert found.files[str(path)].logged
        assert [item.path for item in found.roots] == [str(tmp_path / "elsewhere"), str(tmp_path / "mlruns")]

    def test_a_version_owns_its_folder_only_where_nobody_else_does(
        self, read: Read, rows: list[Location], row: Row, root: Path, tmp_path: Path
    ) -> None:
        of_run = write(root / "1" / RUN / "artifacts" / "model" / "model.pkl")
        copied = write(tmp_path / "registry" / "champion" / "model.pkl")
        found = read(
            [
                row("model_version", "m/1", "1", of_run.parent),
                row("model_version", "m/2", "1", copied.parent),
                row("model_version", "m/3", "1", f"models:/{MODEL}"),
                row("model_version", "m/4", "1", f"runs:/{RUN}/model"),
                *rows,
            ]
        )
        assert found.files[str(of_run)].owner == rows[1].owner
        assert found.files[str(copied)].owner == EntityRef("model_version", "m/2", "label of m/2")
        assert {key for kind, key in found.locations if kind == "model_version"} == {"m/1", "m/2"}
        assert not found.unreachable

    def test_locations_of_all_rows_that_can_be_reached(self, read: Read, rows: list[Location], root: Path) -> None:
        assert read(rows).locations == {
            ("experiment", "1"): str(root / "1"),
            ("run", RUN): str(root / "1" / RUN / "artifacts"),
            ("logged_model", MODEL): str(root / "1" / "models" / MODEL / "artifacts"),
        }

    def test_an_upload_under_way_is_no_artifact_and_never_ownerless(
        self, read: Read, rows: list[Location], root: Path
    ) -> None:
        own = write(root / "1" / RUN / "artifacts" / ".artifact.uploading.x1")
        nobodys = write(root / ".artifact.uploading.x2")
        write(root / OTHER / ".artifact.uploading.x3")
        found = read(rows)
        assert not found.files[str(own)].logged
        assert not found.files[str(nobodys)].logged
        assert {path: item.keep for path, item in found.ownerless.items()} == {
            str(root / OTHER): "an upload may be under way in it"
        }

    def test_what_this_program_left_is_not_there(self, read: Read, rows: list[Location], root: Path) -> None:
        write(root / "1" / RUN / "artifacts" / ".compliance.tmp.12.0")
        for name in (".quarantine", ".compliance", ".trash"):
            write(root / name / OTHER / "file")
        kept = write(root / "1" / RUN / "artifacts" / ".trash" / "logged.csv")
        found = read(rows)
        assert list(found.files) == [str(kept)]
        assert not found.ownerless

    def test_a_file_store_keeps_its_rows_in_the_same_folders(
        self, read: Read, rows: list[Location], root: Path
    ) -> None:
        for name in (
            "1/meta.yaml",
            "1/tags/team",
            "1/datasets/d/meta.yaml",
            f"1/{RUN}/meta.yaml",
            "models/champion/meta.yaml",
        ):
            write(root / name)
        found = read(rows, file_store=True)
        assert not found.ownerless
        assert {
            path[len(str(root)) + 1 :]: (file.owner.kind, file.logged)
            for path, file in found.files.items()
            if file.owner
        } == {
            "1/meta.yaml": ("experiment", False),
            "1/tags/team": ("experiment", False),
            "1/datasets/d/meta.yaml": ("experiment", False),
            f"1/{RUN}/meta.yaml": ("run", False),
            "models/champion/meta.yaml": ("artifact_root", False),
        }


class TestOwnerless:
    def test_the_topmost_folder_or_file_is_told_once(self, read: Read, rows: list[Location], root: Path) -> None:
        write(root / "1" / RUN / "artifacts" / "fine.csv")
        write(root / OTHER / "artifacts" / "a" / "1.csv", b"123")
        write(root / OTHER / "artifacts" / "b" / "2.csv", b"4567")
        write(root / "1" / GONE / "artifacts" / "3.csv", b"89")
        write(root / "1" / "models" / f"m-{GONE}" / "artifacts" / "MLmodel", b"{}")
        write(root / "1" / "notes.txt", b"")
        found = read(rows)
        assert {
            path[len(str(root)) + 1 :]: (item.root, item.files, item.size, item.keep)
            for path, item in found.ownerless.items()
        } == {
            OTHER: ("0", 2, 7, ""),
            f"1/{GONE}": ("0", 1, 2, ""),
            f"1/models/m-{GONE}": ("0", 1, 2, ""),
            "1/notes.txt": ("0", 1, 0, ""),
        }
        assert found.files[str(root / OTHER / "artifacts" / "a" / "1.csv")].owner is None

    def test_empty_folders_count_where_their_name_is_an_id(self, read: Read, rows: list[Location], root: Path) -> None:
        for name in ("1/models", "7", f"1/{OTHER}", f"1/models/m-{GONE}", "scratch", "8/deep/er"):
            (root / name).mkdir(parents=True)
        write(root / "9" / OTHER / ".DS_Store")
        found = read(rows)
        assert not found.ownerless
        assert found.emptied == {str(root): 5}

    def test_what_systems_leave_is_nobodys_concern(self, read: Read, rows: list[Location], root: Path) -> None:
        names = (".DS_Store", ".gitkeep", ".gitignore", "Thumbs.db", "desktop.ini", "._1")
        for name in names:
            write(root / name, b"same" * 1000)
            write(root / "1" / name, b"same" * 1000)
            write(root / "1" / RUN / "artifacts" / name, b"same" * 1000)
            write(root / OTHER / name)
        write(root / OTHER / "artifacts" / "a.csv", b"123")
        found = hash_candidates(read(rows), Silent(), None, None)
        assert {path: item.files for path, item in found.ownerless.items()} == {str(root / OTHER): len(names) + 1}, (
            "they move along"
        )
        assert not found.duplicates()

    def test_a_root_with_nothing_else_is_not_mounted(self, read: Read, rows: list[Location], root: Path) -> None:
        write(root / ".gitkeep")
        write(root / "1" / RUN / "artifacts" / ".DS_Store")
        found = read(rows, ready_models={MODEL}, recorded={str(root / "1" / RUN / "artifacts" / "a.csv"): "0" * 64})
        assert found.unknown["run", RUN].why is Why.EMPTY_ROOT
        assert not found.newest, "nor do they say when something was logged"

    def test_a_run_that_has_no_files_yet_keeps_its_experiments_folder(
        self, read: Read, rows: list[Location], row: Row, root: Path
    ) -> None:
        (root / "2").mkdir()
        assert not read(
            [*rows, row("experiment", "2", "2", root / "2"), row("run", OTHER, "2", root / "2" / OTHER / "artifacts")]
        ).ownerless

    def test_a_file_store_is_not_moved_from_under_its_rows(self, read: Read, rows: list[Location], root: Path) -> None:
        write(root / "5" / "meta.yaml")
        write(root / "6" / OTHER / "artifacts" / "meta.yaml")  # only somebody's artifact
        found = read(rows)
        assert found.ownerless[str(root / "5")].keep == "a file store's experiment lives here: migrate it first"
        assert found.ownerless[str(root / "6")].keep == ""
        assert (
            read(rows, file_store=True).ownerless[str(root / "5")].keep.startswith("it holds a file store's meta.yaml")
        )

    def test_what_a_migrated_file_store_left_belongs_to_the_experiment(
        self, read: Read, rows: list[Location], root: Path
    ) -> None:
        write(root / "1" / "meta.yaml")
        write(root / "1" / "tags" / "team")
        assert not read(rows).ownerless

    def test_ignored_paths_stay_and_so_does_what_holds_them(self, read: Read, rows: list[Location], root: Path) -> None:
        write(root / "README.md")
        write(root / OTHER / "artifacts" / "keep" / "me.csv")
        write(root / OTHER / "artifacts" / "other.csv")
        write(root / OTHER / "third.csv")
        write(root / GONE / "artifacts" / "keep" / "me.csv")
        found = read(rows, ignore=["*.md", "*/keep/*"])
        assert sorted(path[len(str(root)) + 1 :] for path in found.ownerless) == [
            f"{OTHER}/artifacts/other.csv",
            f"{OTHER}/third.csv",
        ]

    def test_a_project_folder_as_root_is_left_alone(self, read: Read, row: Row, tmp_path: Path) -> None:
        project = tmp_path / "project"
        write(project / "1" / RUN / "artifacts" / "a.csv")
        write(project / "src" / "main.py")
        write(project / "2024" / "holiday.jpg")
        write(project / "7" / OTHER / "artifacts" / "b.csv")
        write(project / GONE / "artifacts" / "c.csv")
        write(project / "1" / "notes.txt")
        locations = [
            row("experiment", "1", "1", project / "1"),
            row("run", RUN, "1", project / "1" / RUN / "artifacts"),
        ]
        found = read(locations)
        assert {path[len(str(project)) + 1 :]: item.keep for path, item in found.ownerless.items()} == {
            "2024": "it is not evidently MLflow's: name the folder in artifact_roots if it is",
            "7": "",
            GONE: "",
        }
        assert str(project / "src" / "main.py") not in found.files
        named = read(locations, roots=[str(project)])
        assert {path[len(str(project)) + 1 :]: item.keep for path, item in named.ownerless.items()} == dict.fromkeys(
            ["1/notes.txt", "2024", "7", GONE, "src"], ""
        )


class TestModels:
    def test_each_folder_with_an_mlmodel_but_not_its_metadata(
        self, read: Read, rows: list[Location], root: Path
    ) -> None:
        document = b"flavors:\n  f:\n    data: model.pkl\n"
        own = write(root / "1" / "models" / MODEL / "artifacts" / "MLmodel", document).parent
        write(own / "model.pkl")
        write(own / "metadata" / "MLmodel", document)
        of_run = write(
            root / "1" / RUN / "artifacts" / "metadata" / "MLmodel", document
        ).parent  # somebody's name for a model
        nobodys = write(root / OTHER / "artifacts" / "model" / "MLmodel", document).parent
        found = read(rows).models
        assert {path: (item.owner and item.owner.kind, item.missing) for path, item in found.items()} == {
            str(own): ("logged_model", ()),
            str(of_run): ("run", ("model.pkl",)),
            str(nobodys): (None, ("model.pkl",)),
        }


class TestRoots:
    def test_a_location_without_the_id_is_a_root_itself(self, read: Read, row: Row, tmp_path: Path) -> None:
        write(tmp_path / "custom" / RUN / "artifacts" / "a.csv")
        found = read(
            [
                row("experiment", "3", "3", tmp_path / "custom"),
                row("run", RUN, "3", tmp_path / "custom" / RUN / "artifacts"),
            ]
        )
        assert [item.path for item in found.roots] == [str(tmp_path / "custom")]
        assert len(found.files) == 1

    def test_overlapping_roots_are_walked_once(self, read: Read, rows: list[Location], row: Row, root: Path) -> None:
        write(root / "1" / RUN / "artifacts" / "a.csv")
        write(root / "inner" / "2" / OTHER / "artifacts" / "b.csv")
        write(root / "inner" / GONE / "artifacts" / "c.csv")
        inner = [
            row("experiment", "2", "2", root / "inner" / "2"),
            row("run", OTHER, "2", root / "inner" / "2" / OTHER / "artifacts"),
        ]
        found = read([*rows, *inner], roots=[str(root), str(root / "inner"), str(root / "1")])
        assert [(item.key, item.path) for item in found.roots] == [
            ("0", str(root)),
            ("1", str(root / "1")),
            ("2", str(root / "inner")),
        ]
        assert len(found.files) == 3
        assert [(item.path, item.root) for item in found.ownerless.values()] == [(str(root / "inner" / GONE), "2")]

    def test_two_names_of_one_root_are_one(
        self, read: Read, rows: list[Location], row: Row, root: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "linked").symlink_to(root)
        path = write(root / "2" / OTHER / "artifacts" / "a.csv")
        linked = tmp_path / "linked" / "2"
        found = read([*rows, row("experiment", "2", "2", linked), row("run", OTHER, "2", linked / OTHER / "artifacts")])
        assert len(found.roots) == 1
        assert found.locations["run", OTHER] == str(path.parent)
        assert found.files[str(path)].logged

    def test_an_experiments_folder_may_be_a_link(
        self, read: Read, rows: list[Location], root: Path, tmp_path: Path
    ) -> None:
        path = write(tmp_path / "big disk" / "first" / RUN / "artifacts" / "a.csv")
        (root / "1").symlink_to(tmp_path / "big disk" / "first")
        found = read(rows)
        assert found.files[str(path)].owner == rows[1].owner
        assert not found.ownerless
        assert not found.unread

    def test_a_root_that_the_settings_name_but_is_not_there_is_told(self, read: Read, tmp_path: Path) -> None:
        assert read([], roots=[str(tmp_path / "nowhere")]).unread == {str(tmp_path / "nowhere"): "does not exist here"}

    def test_a_root_that_mlflow_has_not_made_yet_is_fine(self, read: Read, row: Row, tmp_path: Path) -> None:
        found = read([row("experiment", "0", "0", tmp_path / "mlruns" / "0")])
        assert (found.roots, found.unread, found.unreachable) == ((), {}, ())


class TestUnreachable:
    def test_another_machines_path_is_told_once_an_experiment(self, read: Read, row: Row) -> None:
        where = "file:///D:/code/week-02/mlruns/1"
        found = read(
            [
                row("model_version", "taxi/1", "1", f"{where}/{RUN}/artifacts/model"),
                row("run", RUN, "1", f"{where}/{RUN}/artifacts"),
                row("experiment", "1", "1", where),
                row("run", OTHER, "1", f"{where}/{OTHER}/artifacts"),
            ]
        )
        (item,) = found.unreachable
        assert (item.experiments, item.place, item.rows, item.example.kind) == (
            ("1",),
            where.removesuffix("/1"),
            4,
            "experiment",
        )
        assert item.reason == "the folder D:/code/week-02 does not exist here; map it with [store.relocate]"
        assert not found.locations
        assert {unknown.why for unknown in found.unknown.values()} == {Why.ELSEWHERE}
        assert len(found.unknown) == 4

    def test_relocated_rows_are_read_and_counted(self, read: Read, row: Row, root: Path) -> None:
        where = "file:///D:/code/mlruns"
        path = write(root / "1" / RUN / "artifacts" / "a.csv")
        found = read(
            [row("experiment", "1", "1", f"{where}/1"), row("run", RUN, "1", f"{where}/1/{RUN}/artifacts")],
            relocate={where: str(root), "s3://unused": str(root)},
        )
        assert found.files[str(path)].logged
        assert found.relocated == {where: 2}
        assert not found.unreachable

    def test_reasons_are_kept_apart(self, read: Read, rows: list[Location], row: Row) -> None:
        more = [
            row("experiment", "2", "2", "s3://bucket/2"),
            row("run", OTHER, "2", f"s3://bucket/2/{OTHER}/artifacts"),
            row("run", GONE, "2", f"/nowhere/at/all/2/{GONE}/artifacts"),
            row("experiment", "3", "3", ""),
        ]
        assert [(item.place, item.rows, item.reason) for item in read([*rows, *more]).unreachable] == [
            ("/nowhere/at/all", 1, "the folder /nowhere/at does not exist here; map it with [store.relocate]"),
            ("s3://bucket", 2, "s3 locations are not read by this version; map it with [store.relocate]"),
        ]

    def test_an_experiment_without_a_run_has_nothing_to_reach(self, read: Read, rows: list[Location], row: Row) -> None:
        found = read(
            [
                *rows,
                row("experiment", "2", "2", "gs://bucket/2"),
                row("experiment", "3", "3", ""),
                row("experiment", "4", "4", "/nowhere/at/4"),
            ]
        )
        assert not found.unreachable

    def test_absent_folders_of_ready_models_and_versions_are_told_each(
        self, read: Read, rows: list[Location], row: Row, root: Path
    ) -> None:
        folder = root / "1" / "models" / MODEL / "artifacts"
        write(root / "1" / RUN / "artifacts" / "a.csv")
        version = row("model_version", "m/1", "1", root / "1" / RUN / "artifacts" / "model")
        assert not read(rows).unreachable  # a run or a model that is still being made has no folder yet
        found = read([*rows, version], ready_models={MODEL})
        assert [(item.example.key, item.reason) for item in found.unreachable] == [
            ("m/1", f"the folder {root}/1/{RUN}/artifacts/model does not exist here"),
            (MODEL, f"the folder {folder} does not exist here"),
        ]
        assert found.presence(("logged_model", MODEL)) is Presence.ABSENT
        assert not found.unknown
        folder.mkdir(parents=True)
        (root / "1" / RUN / "artifacts" / "model").mkdir(parents=True)
        assert not read([*rows, version], ready_models={MODEL}).unreachable


class TestHostileTrees:
    def test_links_pipes_and_sockets_are_told_and_never_opened(
        self, read: Read, rows: list[Location], root: Path, tmp_path: Path
    ) -> None:
        folder = root / "1" / RUN / "artifacts"
        write(folder / "real.csv")
        write(tmp_path / "outside" / "secret.csv")
        (folder / "linked.csv").symlink_to("real.csv")
        (folder / "away").symlink_to(tmp_path / "outside")
        (folder / "round").symlink_to(".")
        (folder / "broken").symlink_to("nowhere")
        os.mkfifo(folder / "pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            here = os.getcwd()
            os.chdir(folder)  # the name of a socket may be no longer than 107 bytes
            try:
                listener.bind("socket")
            finally:
                os.chdir(here)
        found = read(rows)
        assert {path[len(str(folder)) + 1 :]: file.logged for path, file in found.files.items()} == {
            "real.csv": True,
            "linked.csv": False,
        }
        assert len({file.copy for file in found.files.values()}) == 2
        assert {path[len(str(folder)) + 1 :]: why for path, why in found.unread.items()} == {
            "away": "a symbolic link to a folder is not followed",
            "round": "a symbolic link to a folder is not followed",
            "broken": "a symbolic link that leads nowhere",
            "pipe": "it is a socket, a pipe or a device",
            "socket": "it is a socket, a pipe or a device",
        }

    def test_ownerless_links_stay(self, read: Read, rows: list[Location], root: Path, tmp_path: Path) -> None:
        (root / OTHER).symlink_to(tmp_path)
        write(root / GONE / "a.csv")
        (root / GONE / "b.csv").symlink_to("a.csv")
        assert {path: item.keep for path, item in read(rows).ownerless.items()} == dict.fromkeys(
            [str(root / OTHER), str(root / GONE)], "it is, or holds, a symbolic link"
        )

    def test_names_that_are_not_text(self, read: Read, rows: list[Location], root: Path) -> None:
        folder = root / "1" / RUN / "artifacts"
        folder.mkdir(parents=True)
        names = [b"\xff\xfe.csv", b"new\nline", b"<script>", "é".encode()]
        for name in names:
            with open(os.path.join(os.fsencode(folder), name), "wb") as file:
                file.write(b"x")
        assert sorted(os.path.basename(os.fsencode(path)) for path in read(rows).files) == sorted(names)

    def test_a_tree_deeper_than_the_stack(self, read: Read, rows: list[Location], root: Path) -> None:
        folder = root / "1" / RUN / "artifacts"
        folder.mkdir(parents=True)
        folders = [str(folder) + "/d" * depth for depth in range(1, 1500)]
        for deep in folders:
            os.mkdir(deep)
        path = write(Path(folders[-1]) / "file")
        try:
            assert list(read(rows).files) == [str(path)]
        finally:  # too deep for pytest to clear away
            path.unlink()
            for deep in reversed(folders):
                os.rmdir(deep)

    def test_what_may_not_be_read_is_told(self, ordinary_user: Callable[..., str], root: Path) -> None:
        shut = write(root / "1" / RUN / "artifacts" / "shut" / "a.csv").parent
        blind = write(root / "1" / RUN / "artifacts" / "blind" / "b.csv").parent
        nobodys = write(root / OTHER / "inner" / "c.csv").parent
        shut.chmod(0)
        blind.chmod(0o444)
        nobodys.chmod(0)
        code = f"""
import json, sys
from mlflow_compliance.snapshot.artifacts import DuplicateRules
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.progress import Silent
from mlflow_compliance.store.artifacts.duplicates import hash_candidates
from mlflow_compliance.progress import Silent
from mlflow_compliance.store.artifacts.local import read_artifacts
drop()
root = sys.argv[1]
rows = [Location(EntityRef("experiment", "1"), "1", root + "/1"),
        Location(EntityRef("run", "{RUN}"), "1", root + "/1/{RUN}/artifacts")]
found = read_artifacts(rows, relocate={{}}, roots=[], ignore=[], rules=DuplicateRules(), file_store=False,
                       ready_models=(), recorded={{}},
                       progress=Silent())
print(json.dumps([found.unread, {{path: item.keep for path, item in found.ownerless.items()}}]))
"""
        try:
            unread, ownerless = json.loads(ordinary_user(code, root))
        finally:
            for folder in (shut, blind, nobodys):
                folder.chmod(0o755)
        assert unread == dict.fromkeys([str(shut), str(blind / "b.csv"), str(nobodys)], "permission denied")
        assert ownerless == {str(root / OTHER): "part of it cannot be read"}


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the data of real stores beside the project")
class TestRealStores:
    def test_the_old_database_store(self, read: Read, row: Row) -> None:
        root, where = DATA / "sqlite_zoomcamp" / "mlruns", "file:///D:/code/nda-mlops-zoomcamp-2024/week-02/mlruns"
        runs = [path.name for path in (root / "1").iterdir()]
        found = read(
            [
                *(row("experiment", key, key, f"{where}/{key}") for key in "012"),
                *(row("run", key, "1", f"{where}/1/{key}/artifacts") for key in runs),
            ],
            relocate={where: str(root)},
        )
        assert not found.ownerless
        assert not found.unreachable
        assert {item.missing for item in found.models.values()} == {("model.xgb",)}
        assert len(found.models) == 3


HOSTILE = [
    "new\nline.csv",
    os.fsdecode(b"\xff\xfe.bin"),
    "a" * 250,
    " ",
    "\N{GREEK SMALL LETTER ALPHA}\t",
    "MLmodel\n",
    "-rf",
    "*.lock",
]
DYING = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("helper_child", {program!r})
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
dumps, parts = child.marshal.dumps, []
def dying(value):
    parts.append(value)
    body = dumps(value)
    if len(parts) == 3:
        os.write(1, child.FRAME.pack(0, len(body)) + body[:-9])  # half a part
        open({died!r}, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return body
child.marshal.dumps = dying
child.main(int(sys.argv[1]), *sys.argv[3:])
"""


class TestHelper:
    """What a helper process finds is what the session itself finds, and what it does not come to find as well."""

    @pytest.fixture
    def rows(self, root: Path, row: Row, tmp_path: Path) -> list[Location]:
        """Runs with every kind of file: equal and not, hostile names, links of both kinds, folders in folders,
        models good and bad.
        """
        rng, rows = random.Random(7), [row("experiment", "1", "1", root / "1")]
        contents = [rng.randbytes(size) for size in (0, 1, 30, 30, 4096, 4097, 4097, 9000)]
        write(tmp_path / "outside" / "data", contents[-1])
        for number in range(60):
            key = f"{number:032x}"
            folder = root / "1" / key / "artifacts"
            rows.append(row("run", key, "1", folder))
            if number == 13:
                continue  # a run that has no folder yet
            for place in (folder, folder / "model", folder / "deep" / "er", folder.parent / "params"):
                for name in rng.sample(HOSTILE, 2):
                    write(place / name, rng.choice(contents))
            write(
                folder / "model" / "MLmodel",
                rng.choice(
                    [b"flavors: {f: {data: gone}}", b"artifact_path: m\nflavors:\n  f:\n    data: ' '\n", b"\xff", b""]
                ),
            )
            write(folder / "model" / "requirements.txt", contents[3])
            if number % 9 == 1:
                (folder / "linked").hardlink_to(folder / "model" / "requirements.txt")
                (folder / "outside").hardlink_to(tmp_path / "outside" / "data")
            if number % 9 == 2:
                (folder / "model" / "soft").symlink_to("MLmodel")
            if number % 9 == 3:
                os.mkfifo(folder / "pipe")
            if number % 9 == 4:
                write(folder / ".artifact.uploading.1")
            if number % 9 == 5:
                (folder / "model" / "MLmodel").unlink()
                (folder / "model" / "MLmodel").symlink_to(tmp_path / "outside" / "data")
            if number == 40:  # a row's folder in another's
                rows.append(row("run", OTHER, "1", folder / "inner" / OTHER / "artifacts"))
                write(folder / "inner" / OTHER / "artifacts" / "own", contents[-1])
        return rows

    @pytest.fixture
    def search(self, read: Read, rows: list[Location], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Artifacts]:
        def searching(fewest: int, **given: object) -> Artifacts:
            monkeypatch.setattr(local, "FEWEST", fewest)
            monkeypatch.setattr(duplicates, "_FEWEST", fewest)
            monkeypatch.setattr(worker_pool.os, "cpu_count", lambda: 2)
            found = read(rows, rules=DuplicateRules(1, ("*.lock", "requirements.txt")), **given)
            assert bool(found.samples) == bool(given.get("sampled")) or "cache" in given
            return hash_candidates(found, Silent(), None, given.get("cache"))

        return searching

    def test_the_same_with_and_without(
        self, search: Callable[..., Artifacts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = search(1_000_000)
        assert len(expected.duplicates()) == 10
        assert len(expected.unread) > 5
        assert expected.linked_outside
        assert search(1_000_000, sampled=True) == expected
        own: list[object] = []
        slow = waiting(local.Visitor.visit, lambda: bool(own.append(0)), 0.02)
        monkeypatch.setattr(local.Visitor, "visit", slow)  # the helper gets the most of it
        for given in (
            {},
            {"sampled": True},
            {"sampled": True, "cache": HashCache(str(tmp_path / "cache"), "", DuplicateRules(), 0)},
        ):
            own.clear()
            assert search(1, **given) == expected
            assert len(own) < 80  # two a folder: the helper did some of the 59

    def test_helpers_verify_what_is_remembered(
        self, search: Callable[..., Artifacts], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        later = time.time_ns() + 3_600_000_000_000
        monkeypatch.setattr(hash_cache, "now", lambda: later)
        rules, looked, visit = DuplicateRules(1, ("*.lock", "requirements.txt")), list[str](), local.Visitor.visit
        monkeypatch.setattr(
            local.Visitor, "visit", lambda self, *folder: looked.append(folder[0]) or visit(self, *folder)
        )
        for fewest in (1, 1, 1, 1_000_000):
            expected = search(1_000_000, sampled=True)
            looked.clear()
            assert search(fewest, sampled=True, cache=HashCache(str(tmp_path / "cache"), "", rules, later)) == expected
        assert 0 < len(looked) < 45  # those with links and the like: they are looked at closely each time
        changed = root / "1" / f"{0:032x}" / "artifacts" / "model" / "MLmodel"
        changed.write_bytes(b"flavors: {f: {data: another}}")
        expected = search(1_000_000, sampled=True)
        assert search(1, sampled=True, cache=HashCache(str(tmp_path / "cache"), "", rules, later)) == expected
        assert expected.models[str(changed.parent)].missing == ("another",)

    def test_a_helper_that_is_killed_loses_nothing(
        self,
        search: Callable[..., Artifacts],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        expected, died = search(1_000_000), tmp_path / "died"
        (tmp_path / "dying.py").write_text(DYING.format(program=worker_program.__file__, died=str(died)))
        monkeypatch.setattr(worker_pool.worker_program, "__file__", str(tmp_path / "dying.py"))
        monkeypatch.setattr(local.Visitor, "visit", waiting(local.Visitor.visit, died.exists, 60))
        assert search(1, sampled=True) == expected
        assert died.exists()
        for program in (tmp_path / "gone.py", tmp_path):
            monkeypatch.setattr(worker_pool.worker_program, "__file__", str(program))
            assert search(1, sampled=True) == expected
        monkeypatch.setattr(worker_pool.sys, "executable", str(tmp_path / "no python"))
        assert search(1, sampled=True) == expected
        assert capfd.readouterr() == ("", "")


def waiting(function: Callable[..., object], ready: Callable[[], bool], longest: float) -> Callable[..., object]:
    """A function that is called only when something is so, or after a time."""

    def called(*args: object) -> object:
        deadline = time.monotonic() + longest
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.01)
        return function(*args)

    return called


def test_a_helper_that_stands_still_costs_patience_and_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped (Ctrl-Z, a debugger) before it did anything, and one with a part in its hands."""
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(worker_pool, "_PATIENCE", 0.05)
    parts = [[("/", str(number))] for number in range(20)]
    with worker_pool.sharing(Verifier, helped=True) as share:
        assert len(share._helpers) == 2
        for helper in share._helpers:
            os.kill(helper._process.pid, signal.SIGSTOP)
        share.begin((), parts)
        assert share._tickets.take() is not None  # as if one of them had stopped after it took this
        assert dict(share.told()) == {number: [False] for number in range(20)}
