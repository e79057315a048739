"""A tracking server on a copy of a real store: what it shows and gives is what the store holds, or a sentence says
what is not.
"""

from __future__ import annotations

import hashlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from servers import Quiet, handled_by
from stores import BIG, START, Lab

from mlflow_compliance.errors import StoreError
from mlflow_compliance.snapshot.entities import Run
from mlflow_compliance.snapshot.evidence import Served
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.store.evidence import server_check
from mlflow_compliance.store.evidence.server_check import check_run
from mlflow_compliance.store.evidence.tracking_server import tracking_server

SOURCE = Path(__file__).parents[3] / "src"
SERVED_NAMES = [
    *("a b.txt", "größe.txt", "100%.txt", "%zz.txt", "a+b&c=d.txt", "q'\"?.txt", "~x!(1)*.txt"),
    *("back\\slash.txt", "[1]{2}|<3>.txt", "\u202e😀.png", "...", ".hidden"),
]
"""Names that a browser has to encode, and that MLflow's server gives."""

Files = dict[str, tuple[int, str | None]]


class Shown:
    """A store as it was read, what lay in its folders then, and the server that is asked for it."""

    def __init__(self, lab: Lab, snapshot: Snapshot) -> None:
        self.lab = lab
        self.snapshot = snapshot
        self.files = {
            item.ref.place: _below(item.ref.place, snapshot)
            for item in (*snapshot.runs.values(), *snapshot.logged_models.values())
        }
        self.url = ""

    def run(self, name: str) -> Run:
        (found,) = [run for run in self.snapshot.runs.values() if run.name == name]
        return found

    def folder(self, run: str) -> Path:
        return Path(self.run(run).artifact_uri)

    def check(self, name: str, *, url: str = "", files: Any = None) -> Served:
        """Ask for a run of the store as it was read."""
        run = self.run(name)
        models = self.snapshot.models_of(run.run_id)
        versions = [
            version
            for item in self.snapshot.registered_models.values()
            for version in item.versions
            if version.run_id == run.run_id
        ]
        experiment = self.snapshot.experiments[run.experiment_id]
        own = self.files[run.ref.place] if files is None else files
        return check_run(
            url or self.url,
            run,
            experiment,
            models,
            own,
            {model.model_id: self.files[model.ref.place] for model in models},
            versions,
        )


def _below(place: tuple[str, str], snapshot: Snapshot) -> Files:
    assert snapshot.artifacts
    folder = snapshot.artifacts.locations[place]
    return {
        os.path.relpath(path, folder): (file.size, hashlib.sha256(Path(path).read_bytes()).hexdigest())
        for path, file in snapshot.artifacts.under(folder).items()
        if file.logged
    }


def _unlink(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def _link(name: str, target: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).symlink_to(target)


def _as_it_is(_: Path) -> None:
    """The client logs it, and the server refuses it by its name."""


BROKEN: dict[str, tuple[dict[str, bytes], Callable[[Path], object], list[str]]] = {
    "removed": (
        {"a/b.txt": b"12", "c.txt": b"3"},
        _unlink("a/b.txt"),
        [r"artifact a/b\.txt is in the store but not listed"],
    ),
    "folder removed": ({"b.txt": b"12"}, shutil.rmtree, [r"artifact b\.txt is in the store but not listed"]),
    "longer": (
        {"b.txt": b"12"},
        _write("b.txt", b"123"),
        [r"artifact b\.txt has 2 bytes in the store and 3 bytes for the server \(list\)"],
    ),
    "other bytes": (
        {"b.txt": b"12"},
        _write("b.txt", b"21"),
        [r"artifact b\.txt has sha256 6b51d431df5d7f14 in the store and 6f4b6612125fb3a0 for the server"],
    ),
    "added": (
        {"b.txt": b"12"},
        _write("new.txt", b""),
        [r"artifact new\.txt is listed but is not among the files that were read"],
    ),
    "link to a folder": (
        {"b.txt": b"12"},
        _link("round", "."),
        [r"artifact round is listed but is not among the files that were read"],
    ),
    "link to nothing": ({"b.txt": b"12"}, _link("lost", "nowhere"), [r"artifacts/list gives HTTP 500"]),
    "hash sign": (
        {"a#b.txt": b"12"},
        _as_it_is,
        [r"artifact a#b\.txt is listed but its download gives HTTP 400: Invalid path"],
    ),
    "hash sign in a folder": (
        {"a#b/c/d.txt": b"12", "e.txt": b""},
        _as_it_is,
        [r"artifacts/list a#b gives HTTP 400: Invalid path"],
    ),
    "percent and digits": (
        {"a%41.txt": b"12"},
        _as_it_is,
        [r"artifact a%41\.txt is listed but its download gives HTTP 404: No such artifact: 'aA\.txt'"],
    ),
    "given for another": (
        {"a%20b.txt": b"12", "a b.txt": b"34"},
        _as_it_is,
        [r"artifact a%20b\.txt has sha256 .+ for the server \(download\)"],
    ),
    "dots in disguise": (
        {"%2e%2e": b"12"},
        _as_it_is,
        [r"artifact %2e%2e is listed but its download gives HTTP 400: Invalid path"],
    ),
    "line feed": ({"a\nb.txt": b"12"}, _as_it_is, [r"artifact a\nb\.txt is listed but its download gives HTTP 404"]),
    "leading space": ({" a.txt": b"12"}, _as_it_is, [r"artifact  a\.txt is listed but its download gives HTTP 404"]),
    "no text": (
        {"b.txt": b"12"},
        lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).touch(),
        [r"artifacts/list gives HTTP 500"],
    ),
}
"""Run -> its files when it was read, what happened to them since, and the problems to be told."""


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, empty_store: bytes) -> Iterator[Shown]:
    """One server for all the runs: starting it is what takes time."""
    lab = Lab.new(tmp_path_factory.mktemp("shown") / "lab", empty_store, {})
    experiment = lab.experiment("credit_delivery", stage="production", note="größer & 'kleiner'")
    rich = lab.rich_run(experiment, "good")
    lab.upload(
        str(lab.folder_of(rich)),
        {f"{folder}{name}": name.encode() for name in SERVED_NAMES for folder in ("", "ä &%/")},
    )
    lab.client.log_batch(rich, metrics=[Metric("long", step / 7, START + step, step) for step in range(400)])
    model = lab.model(experiment, rich, "clf", files={"model.pkl": BIG, "sub/ö +%.bin": b"1"}, note="%41 #")
    lab.registered("credit risk & 1 #", f"models:/{model}", rich, "production", note="a&b")
    lab.registered("credit", f"{lab.folder_of(rich)}/model", rich, "old")
    for name, (files, _, _) in BROKEN.items():
        lab.run(experiment, name, files=files)
    broken = lab.run(experiment, "broken model")
    models = [
        lab.model(experiment, broken, name, files=files)
        for name, files in (("gone", {"x": b"1"}), ("changed", {"x": b"1"}), ("odd", {"a#b": b"1"}))
    ]
    _rows(lab)
    made = Shown(lab, lab.everything())

    for name, (_, happens, _) in BROKEN.items():
        happens(made.folder(name))
    shutil.rmtree(lab.location_of(models[0]))
    (lab.location_of(models[1]) / "x").write_bytes(b"2")
    _change_rows(made)
    with pytest.MonkeyPatch.context() as patched:
        # A proxy that is not there, and a secret that is nobody's business.
        for name in ("HTTP_PROXY", "http_proxy"):
            patched.setenv(name, "http://127.0.0.1:9")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
        with tracking_server(str(lab.database)) as made.url:
            yield made


def _rows(lab: Lab) -> None:
    """A second experiment, whose rows change after they were read."""
    experiment = lab.experiment("second", stage="old")
    run = lab.run(experiment, "changed rows", metrics={"auc": 0.5, "kept": 1.0}, note="old", lost="x")
    lab.client.log_param(run, "depth", "3")
    model = lab.model(experiment, run, "second model", stage="old")
    lab.registered("second", f"models:/{model}", run, note="old")
    lab.registered("third", f"models:/{model}", run)
    lab.run(experiment, "deleted run")


def _change_rows(made: Shown) -> None:
    lab, run, deleted = made.lab, made.run("changed rows"), made.run("deleted run")
    lab.client.log_metric(run.run_id, "auc", 0.75, timestamp=START + 5000, step=1)
    lab.client.log_param(run.run_id, "late", "1")
    lab.client.set_tag(run.run_id, "note", "new")
    lab.client.delete_tag(run.run_id, "lost")
    lab.client.update_run(run.run_id, status="KILLED", name="renamed")
    lab.client.set_experiment_tag(run.experiment_id, "stage", "new")
    lab.client.rename_experiment(run.experiment_id, "second, renamed")
    lab.client.set_logged_model_tags(made.snapshot.models_of(run.run_id)[0].model_id, {"stage": "new"})
    lab.client.set_model_version_tag("second", "1", "note", "new")
    lab.client.delete_model_version("third", "1")
    lab.client.delete_run(deleted.run_id)
    # Two pages of later runs in the table of the first experiment.
    lab.sql(
        """WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < 150)
        INSERT INTO runs (run_uuid, name, experiment_id, user_id, status, start_time, lifecycle_stage, artifact_uri)
        SELECT 'later' || n, 'later', ?, 'ann', 'FINISHED', ? + n, 'active', '' FROM counted""",
        int(made.run("good").experiment_id),
        START,
    )


def test_everything_of_a_good_run_is_shown_and_given(shown: Shown) -> None:
    served = shown.check("good")
    assert served.problems == ()
    assert len(shown.files[shown.run("good").ref.place]) == 2 * len(SERVED_NAMES) + 6
    assert served.checked > 150


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_not_given_are_told(shown: Shown, name: str) -> None:
    _, _, expected = BROKEN[name]
    _told(shown.check(name), expected)


def test_model_files_that_are_not_given_are_told(shown: Shown) -> None:
    expected = [
        (
            r"file of model changed x has sha256 6b86b273ff34fce1 in the store and d4735e3a265e16ee for the server "
            r"\(download\)"
        ),
        r"file of model gone MLmodel is in the store but not listed",
        r"file of model gone x is in the store but not listed",
        r"file of model odd a#b is listed but its download gives HTTP 400: Invalid path",
    ]
    _told(shown.check("broken model"), expected)


def test_rows_that_changed_are_told_once_each(shown: Shown) -> None:
    expected = [
        r"experiment tag stage is old in the store and new for the server \(experiments/search\)",
        (
            r"latest value of metric auc is \(0\.5, \d+, 0\) in the store and \(0\.75, \d+, 1\) for the server "
            r"\(runs/search\)"
        ),
        (
            r"latest value of metric auc is \(0\.5, \d+, 0\) in the store and \(0\.75, \d+, 1\) for the server "
            r"\(runs/search\)"
        ),
        r"model second model: tag stage is old in the store and new for the server",
        r"name of the experiment is second in the store and second, renamed for the server \(experiments/search\)",
        r"name of the run is changed rows in the store and renamed for the server \(runs/search\)",
        r"model-versions/get third 1 gives HTTP 404: Model Version \(name=third, version=1\) not found",
        r"param late is shown but was not in the store when it was read \(runs/search\)",
        r"second version 1: tag note is old in the store and new for the server",
        r"status of the run is FINISHED in the store and KILLED for the server \(runs/search\)",
        r"tag lost is not shown \(runs/search\)",
        r"tag mlflow\.runName is changed rows in the store and renamed for the server \(runs/search\)",
        r"tag note is old in the store and new for the server \(runs/search\)",
        r"the history of metric auc lacks 0 of its 1 points and has 1 others \(metrics/get-history\)",
        r"third version 1 is not in the list of model_versions",
    ]
    _told(shown.check("changed rows"), list(dict.fromkeys(expected)))


def test_a_deleted_run_is_not_in_the_table(shown: Shown) -> None:
    assert "the run is not in the list of runs" in shown.check("deleted run").problems


def test_many_problems_are_counted(shown: Shown) -> None:
    problems = shown.check("longer", files={f"{number:02}.txt": (1, None) for number in range(60)}).problems
    assert len(problems) == 51
    assert problems[0] == "artifact 00.txt is in the store but not listed"
    assert problems[-1] == "... and 11 more"  # the file that is there was not read


@pytest.mark.parametrize("pages", [1, 10])
def test_a_run_far_down_in_the_table_is_found(shown: Shown, pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_check, "_PAGES", pages)
    assert shown.check("good").problems == ()


def test_a_server_that_dies_between_list_and_download_is_one_sentence(shown: Shown) -> None:
    with tracking_server(str(shown.lab.database)) as url:
        server = _server_of(url)

        class ObjectInfo(dict[str, tuple[int, str | None]]):
            """Its items are asked for when all folders were listed."""

            def items(self) -> Any:
                os.kill(server, signal.SIGKILL)
                os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
                return super().items()

        served = shown.check("longer", url=url, files=ObjectInfo({"b.txt": (3, None)}))
    assert served.problems == ("the server does not answer any more since it was asked for get-artifact b.txt",)


def test_where_nobody_answers_is_one_sentence(shown: Shown) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert shown.check("good", url=url) == Served(
        ("the server does not answer any more since it was asked for experiments/search",), 0
    )


@pytest.mark.parametrize(
    ("variables", "header"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "t0ken"}, "Bearer t0ken"),
        ({"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "pw"}, "Basic YW5uOnB3"),
        ({}, None),
    ],
)
def test_credentials_are_mlflows_own(
    shown: Shown, variables: dict[str, str], header: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    seen = set()

    class Guard(Quiet):
        """A server in front of MLflow's that lets nobody in."""

        def answer(self) -> None:
            seen.add(self.headers["Authorization"])
            self.send_error(401)

    with handled_by(Guard) as address:
        problems = shown.check("longer", url=f"{address}/mlflow/").problems
    assert seen == {header}
    (problem,) = problems
    assert "does not accept the credentials (HTTP 401)" in problem


def test_a_server_sees_nothing_of_the_audit_and_writes_nowhere_else(shown: Shown) -> None:
    variables = dict(
        item.split("=", 1) for item in Path(f"/proc/{_server_of(shown.url)}/environ").read_text().split("\0") if item
    )
    assert "AWS_SECRET_ACCESS_KEY" not in variables
    folder = variables["HOME"]
    assert variables["PATH"] == variables["TMPDIR"] == folder
    assert os.path.realpath(f"/proc/{_server_of(shown.url)}/cwd") == os.path.realpath(f"{folder}/beside")
    assert sorted(os.listdir(folder)) == ["beside", "mlflow.db", "server.log"]


def test_nothing_is_changed_and_nothing_is_left(
    shown: Shown, lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lab.rich_run(lab.experiment("credit_delivery"), "good")
    own = Shown(lab, lab.everything())
    monkeypatch.chdir(tmp_path)
    before = _state(tmp_path)
    seen = []

    def interrupted() -> None:
        with tracking_server(str(lab.database)) as own.url:
            server = _server_of(own.url)
            seen.extend([server, os.path.realpath(f"/proc/{server}/cwd")])
            assert own.check("good").problems == ()
            # Two at once have a port and a store each.
            assert any("is not in the list of runs" in problem for problem in own.check("good", url=shown.url).problems)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    server, folder = seen
    assert _state(tmp_path) == before
    with pytest.raises(ProcessLookupError):
        os.killpg(server, 0)
    assert not os.path.exists(folder)


def test_a_killed_audit_leaves_no_server(lab: Lab, tmp_path: Path) -> None:
    code = """
import sys
from mlflow_compliance.store.evidence.tracking_server import tracking_server
with tracking_server(sys.argv[1]) as url:
    print(url, flush=True)
    sys.stdin.read()
"""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path)}
    audit = subprocess.Popen(
        [sys.executable, "-c", code, str(lab.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert audit.stdout
    server = os.pidfd_open(_server_of(audit.stdout.readline().strip(), audit.pid))
    audit.kill()
    poll = select.poll()
    poll.register(server, select.POLLIN)
    assert poll.poll(30_000) != []
    os.close(server)
    audit.communicate()


def test_a_server_that_ends_at_once_says_why(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uvicorn.py").write_text("import sys\nsys.exit('no such\\nthing')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        pytest.raises(StoreError, match=r"ended before it answered \(no such; thing\): check the installed mlflow"),
        tracking_server(str(lab.database)),
    ):
        pass


def test_an_old_schema_is_a_sentence_with_the_way_out(lab: Lab) -> None:
    lab.sql("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with (
        pytest.raises(
            StoreError, match=r"does not open the store \(HTTP 500\) .*out-of-date database schema.*mlflow db upgrade"
        ),
        tracking_server(str(lab.database)),
    ):
        pass


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no database"), tracking_server(str(tmp_path / "mlflow.db")):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_server_may_not_read_is_told(lab: Lab) -> None:
    run_id = lab.run(lab.experiment("credit_delivery"), files={"b.txt": b"12", "c.txt": b"3"})
    (lab.folder_of(run_id) / "b.txt").chmod(0)
    code = """
import ctypes, os, sys
from mlflow_compliance.store.evidence.server_check import Tree, check_files
from mlflow_compliance.store.evidence.server_requests import AJAX, Asking
from mlflow_compliance.store.evidence.tracking_server import tracking_server
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
if os.geteuid() == 0:  # the programs that it starts are then as bound to the modes of files as anybody's
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0
with tracking_server(sys.argv[1]) as url, Asking(url) as server:
    tree = Tree("artifact", AJAX + "artifacts/list", "path", "get-artifact", "path", {"run_uuid": sys.argv[2]})
    check_files(server, tree, {"b.txt": (2, None), "c.txt": (1, None)})
    print(server.served())
"""
    done = subprocess.run(
        [*_python(code), str(lab.database), run_id], capture_output=True, text=True, env=_environment()
    )
    assert done.stdout.strip() == str(Served(("artifact b.txt is listed but its download gives HTTP 500",), 3)), (
        done.stderr
    )


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), **more}


def _refused(lab: Lab, pattern: str) -> None:
    with pytest.raises(StoreError, match=pattern), tracking_server(str(lab.database)):
        pass


def _told(served: Served, expected: list[str]) -> None:
    """Each problem as a pattern says, and no other."""
    for pattern in expected:
        assert [problem for problem in served.problems if re.fullmatch(f"{pattern}.*", problem, re.DOTALL)], (
            served.problems
        )
    assert len(served.problems) == len(expected), served.problems


def _server_of(url: str, parent: int = 0) -> int:
    """The process below `parent` (this one) that holds the port of a url."""
    port = f":{int(url.rpartition(':')[2]):04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    sockets = {f"socket:[{line[9]}]" for line in lines if line[1].endswith(port) and line[3] == "0A"}
    for task in Path(f"/proc/{parent or os.getpid()}/task").iterdir():
        for child in (task / "children").read_text().split():
            if not sockets.isdisjoint(os.readlink(file) for file in Path(f"/proc/{child}/fd").iterdir()):
                return int(child)
    raise AssertionError(f"nobody serves {url}")


def _state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder with its inode, its time and what it holds."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_ino,
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in [folder, *folder.rglob("*")]
    }
