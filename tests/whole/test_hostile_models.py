"""A model that tries to reach out of the process that tries it, and what a witness outside sees of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any
from uuid import uuid4

import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd
import pytest
from gates import Gate, told
from kernels import LANDLOCK, PRCTL, UNSHARE, can_be_older, without
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import BaggingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from stores import Lab

POLICIES = Path(__file__).parents[2] / "policies"
LOADING = (POLICIES / "test_loading.py",)
OLDER = pytest.mark.skipif(not can_be_older(), reason="this machine cannot play an older one")
HOSTILE = """
    import ctypes, json, mlflow, os, resource, signal, socket, subprocess, sys, threading, time

    OUTSIDE, PARENT = {outside!r}, {parent}
    FILE = OUTSIDE + "/file"
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number, *arguments):
        found = libc.syscall(ctypes.c_long(number), *arguments)
        if found < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return found

    def send(kind, address):
        with socket.socket(socket.AF_UNIX, kind) as sender:
            sender.connect(address)
            sender.send(b"here")

    def send_by_a_pair():
        one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        one.sendto(b"here", OUTSIDE + "/datagrams")

    def forked():
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)

    def flags():
        file = os.open(FILE, os.O_RDONLY)
        call(16, file, ctypes.c_ulong(0x40086602), ctypes.byref(ctypes.c_int(0x40)))

    def many_files_of_memory():
        for _ in range(8):
            file = call(319, b"held", 0)
            os.write(file, bytes(1 << 20))

    REFUSED = {{
        "stream": lambda: send(socket.SOCK_STREAM, OUTSIDE + "/streams"),
        "abstract": lambda: send(socket.SOCK_STREAM, chr(0) + "witness-" + os.path.basename(OUTSIDE)),
        "datagram": lambda: send(socket.SOCK_DGRAM, OUTSIDE + "/datagrams"),
        "pair": send_by_a_pair,
        "own address": lambda: socket.socket(socket.AF_UNIX).bind("here"),
        "attribute": lambda: os.setxattr(FILE, "user.seen", b"here"),
        "flags": flags,
        "fork": forked,
        "run": lambda: subprocess.run(["sleep", "0"]),
        "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {{}}),
        "memory": many_files_of_memory,
        "system V memory": lambda: call(29, 0, 1 << 20, 0o1600),
        "ring": lambda: call(425, 4, bytes(120)),
        "namespace": lambda: call(272, 0x10000000),
        "signal": lambda: os.kill(PARENT, 0),
        "group": lambda: os.kill(0, signal.SIGURG),
        "limits": lambda: resource.prlimit(PARENT, 7, resource.prlimit(PARENT, 7)),
    }}
    PRETENDED = (
        lambda: os.chmod(FILE, 0o777),
        lambda: os.chmod(os.open(FILE, os.O_RDONLY), 0o777),
        lambda: call(268, -100, FILE.encode(), 0o777),
        lambda: call(452, -100, FILE.encode(), 0o777, 0),
        lambda: os.chmod(OUTSIDE, 0o777),
        lambda: os.chown(FILE, os.getuid(), {group}),
        lambda: os.utime(FILE, (1, 1)),
        lambda: os.utime(os.open(FILE, os.O_RDONLY), (1, 1)),
    )

    def attempts():
        done = []
        for name, attempt in REFUSED.items():
            try:
                attempt()
                done.append(name)
            except (OSError, subprocess.SubprocessError):
                pass
        for attempt in PRETENDED:
            try:
                attempt()
            except OSError:
                pass
        try:
            with open("/dev/shm/held-" + os.path.basename(OUTSIDE), "wb") as file:
                file.write(b"here")
        except OSError:
            pass
        return done

    class Hostile(mlflow.pyfunc.PythonModel):
        def load_context(self, context):
            self.done = attempts()
            seen = []
            thread = threading.Thread(target=lambda: seen.append(1))
            thread.start()
            thread.join()
            if not seen:
                self.done.append("no threads")

        def predict(self, context, model_input):
            found = []
            thread = threading.Thread(target=lambda: found.extend(attempts()))
            thread.start()
            thread.join()
            raise RuntimeError("it was let: " + (", ".join(self.done + found) or "nothing"))

    mlflow.models.set_model(Hostile())
"""


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[tuple[Path, list[socket.socket]]]:
    """A folder of somebody else, with a server that listens in it."""
    folder = tmp_path / f"outside-{uuid4().hex[:8]}"  # an abstract address is that of all on the machine
    folder.mkdir()
    (folder / "file").write_text("kept")
    os.chmod(folder / "file", 0o640)
    os.utime(folder / "file", (1_000_000_000, 1_000_000_000))
    addresses = [
        (socket.SOCK_STREAM, str(folder / "streams")),
        (socket.SOCK_STREAM, f"\0witness-{folder.name}"),
        (socket.SOCK_DGRAM, str(folder / "datagrams")),
    ]
    servers = []
    for kind, address in addresses:
        server = socket.socket(socket.AF_UNIX, kind)
        server.bind(address)
        if kind == socket.SOCK_STREAM:
            server.listen()
        server.setblocking(False)
        servers.append(server)
    yield folder, servers
    for server in servers:
        server.close()


def heard(server: socket.socket) -> bool:
    try:
        if server.type == socket.SOCK_STREAM:
            server.accept()
        else:
            server.recv(10)
    except BlockingIOError:
        return False
    return True


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of models as MLflow saves them: `wrapper` brings code, the others ask for several processors."""
    folder = tmp_path_factory.mktemp("models")
    rows = pd.DataFrame(np.random.default_rng(7).normal(size=(60, 3)), columns=["a", "b", "c"])
    target = (rows["a"] > 0).astype(int)
    booster = lgb.LGBMClassifier(n_estimators=4, n_jobs=-1, verbose=-1).fit(rows, target)
    scaled = ColumnTransformer([("one", StandardScaler(), ["a"]), ("two", StandardScaler(), ["b", "c"])], n_jobs=2)
    bagged = make_pipeline(scaled, BaggingClassifier(DecisionTreeClassifier(max_depth=2), n_jobs=2)).fit(rows, target)
    code = folder / "wrapper.py"
    code.write_text(
        "import mlflow\nclass Sum(mlflow.pyfunc.PythonModel):\n    def predict(self, context, model_input): return "
        "model_input.sum(axis=1)\nmlflow.models.set_model(Sum())\n"
    )
    saved: Any = {"input_example": rows.head(2), "pip_requirements": ["lightgbm==4"]}
    mlflow.lightgbm.save_model(booster, folder / "booster", **saved)
    mlflow.sklearn.save_model(bagged, folder / "bagged", serialization_format="cloudpickle", **saved)
    mlflow.pyfunc.save_model(folder / "wrapper", python_model=str(code), **saved)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {f"model/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hostile(models: Path, outside: Path) -> dict[str, bytes]:
    """The files of a model that MLflow saved, and whose code somebody then wrote anew."""
    group = os.getgid() if os.geteuid() else 12
    code = dedent(HOSTILE).format(outside=str(outside), parent=os.getpid(), group=group)
    return {**files_of(models / "wrapper"), "model/wrapper.py": code.encode()}


def settings_of(gate: Gate, lab: Lab, kinds: dict[str, dict[str, bytes]]) -> None:
    """Log each of these models to a production run of a product of its own, and name them all in settings."""
    products = ""
    for name, files in kinds.items():
        lab.run(lab.experiment(f"{name}_work"), name, files=files, stage="production")
        products += f'[[products]]\nname = "{name}"\nprimary = "{name}_work"\nexperiments = ["{name}_*"]\n'
    (gate.folder / "compliance.toml").write_text(
        f"[store]\ntracking_uri = {lab.uri!r}\n[models]\nallow_code = true\nallowed_globals = ['*']\n{products}"
    )


@pytest.mark.parametrize(
    "missing",
    [
        (),
        pytest.param((UNSHARE,), marks=OLDER, id="without namespaces"),
        pytest.param((UNSHARE, LANDLOCK), marks=OLDER, id="without namespaces and Landlock"),
    ],
)
def test_a_hostile_model_reaches_nothing_outside_and_honest_ones_are_tried(
    make_lab: Callable[..., Lab],
    gate: Gate,
    outside: tuple[Path, list[socket.socket]],
    models: Path,
    missing: tuple[int, ...],
) -> None:
    folder, servers = outside
    lab = make_lab()
    kinds = {"hostile": hostile(models, folder), **{name: files_of(models / name) for name in ("booster", "bagged")}}
    settings_of(gate, lab, kinds)
    result = without(*missing, do=lambda: gate("-k", "MOD003", rules=LOADING, process=bool(missing)))
    said = told(result)
    result.assert_outcomes(passed=3, failed=1)
    assert "it was let: nothing" in said
    assert not any(map(heard, servers))
    facts = (folder / "file").stat()
    assert (facts.st_mode & 0o7777, facts.st_gid, facts.st_mtime) == (0o640, os.getegid(), 1_000_000_000)
    assert folder.stat().st_mode & 0o777 != 0o777
    assert os.listxattr(folder / "file") == []
    shared = Path(f"/dev/shm/held-{folder.name}")
    assert shared.exists() == (LANDLOCK in missing)
    shared.unlink(missing_ok=True)
    assert ("could not be kept from writing to your other files and to /dev/shm" in said) == (LANDLOCK in missing)


@OLDER
def test_what_could_not_be_confined_is_told(
    make_lab: Callable[..., Lab],
    gate: Gate,
    outside: tuple[Path, list[socket.socket]],
    models: Path,
) -> None:
    """On a kernel without filters the same model does reach the server: what the other test sees is no accident."""
    folder, servers = outside
    settings_of(gate, make_lab(), {"hostile": hostile(models, folder)})
    said = told(without(PRCTL, do=lambda: gate("-k", "MOD003", rules=LOADING, process=True)))
    assert "stream, " in said
    assert heard(servers[0])
    assert (folder / "file").stat().st_mode & 0o777 == 0o777
    assert "run hostile: the process that tried its model could not be kept from UNIX sockets, from changing" in said
    assert "could not be kept from writing" not in said
