"""Fixtures for every test: MLflow stores in temporary folders, each a copy of one empty store that is made once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A machine that is busy is no failure.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")
os.environ.update({"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"})

pytest.register_assert_rewrite("stores", "repairs", "gates", "producing")
pytest_plugins = ["pytester", "gates"]

LabMaker = Callable[..., Any]
ON_ONE_WORKER = (
    "tests/repair/test_copying_together.py",
    "tests/test_api.py",
    "tests/whole/test_demo_store.py",
    "tests/repair/test_apply.py",
    "tests/session/test_option_executor.py",
    "tests/whole/test_hostile_models.py",
    "tests/whole/test_signing.py",
    "tests/whole/test_tampering.py",
)
"""Files with a fixture that takes long: under xdist each of them stays on one worker."""


SLOW_PLACES = (
    "tests/acceptance/",
    "tests/changes/test_production.py",
    "tests/loader/",
    "tests/policies/test_loading.py",
    "tests/policies/test_production.py",
    "tests/policies/test_schema.py",
    "tests/repair/test_apply.py",
    "tests/repair/test_copying_together.py",
    "tests/repair/test_relocating.py",
    "tests/session/",
    "tests/store/backends/",
    "tests/store/evidence/",
    "tests/store/models/test_bundle.py",
    "tests/store/models/test_probe.py",
    "tests/store/storage/test_buckets.py",
    "tests/store/storage/test_metric_files.py",
    "tests/test_api.py",
    "tests/whole/",
)
"""What starts servers or whole pytest processes, kills some, or builds stores that take long."""
SLOW_FIXTURES = frozenset({"browser", "demo", "demo_built", "produced_built"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SLOW_PLACES) or SLOW_FIXTURES & {*getattr(item, "fixturenames", ())}:
            item.add_marker("slow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class ByFileOrAlone(LoadScopeScheduling):
        # xdist's own groups have no effect: it writes them to an attribute that pytest 9.2 reads no more.
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return file if file in ON_ONE_WORKER else nodeid

    return ByFileOrAlone(config, log)


def pytest_sessionfinish() -> None:
    if databases := sys.modules.get("databases"):
        databases.stop_all()
    if buckets := sys.modules.get("buckets"):
        buckets.SESSION.close()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    """The bytes of a SQLite store with MLflow's tables and its Default experiment: making them takes seconds."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "connect", _without_waiting_for_the_disk)
    folder = tmp_path_factory.mktemp("empty")
    store = SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", str(folder / "mlruns"))
    store.engine.dispose()
    yield (folder / "mlflow.db").read_bytes()
    event.remove(Engine, "connect", _without_waiting_for_the_disk)


def _without_waiting_for_the_disk(connection: Any, _record: object) -> None:
    # Holds for the connection, not for the file. A program that is killed loses nothing by it, a machine without power
    # would.
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(autouse=True)
def close_what_mlflow_keeps_open() -> Iterator[None]:
    """MLflow keeps connections to each database that it was ever given: a thousand tests, a thousand open files."""
    yield
    for name in ("tracking", "model_registry"):
        module = sys.modules.get(f"mlflow.store.{name}.sqlalchemy_store")
        engines = getattr(getattr(module, "SqlAlchemyStore", None), "_engine_map", {})
        while engines:
            engines.popitem()[1].dispose()


@pytest.fixture
def make_lab(empty_store: bytes, tmp_path: Path) -> LabMaker:
    """Makes a store in a folder of its own; arguments are settings."""
    from stores import Lab

    numbers = iter(range(1000))

    def make(**settings: Any) -> Lab:
        return Lab.new(tmp_path / f"lab{next(numbers)}", empty_store, settings)

    return make


@pytest.fixture
def lab(make_lab: LabMaker) -> Any:
    """An empty store with the settings of a team whose product is `credit`."""
    return make_lab()


@pytest.fixture(scope="session")
def demo_built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo store as its builder leaves it: to be copied, not to be changed."""
    folder = tmp_path_factory.mktemp("demo") / "store"
    builder = Path(__file__).parents[1] / "examples" / "credit_scoring" / "build.py"
    subprocess.run([sys.executable, str(builder), str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture
def demo(demo_built: Path, empty_store: bytes, tmp_path: Path) -> Any:
    """A demo store of the test's own, with settings that name nothing to build a production run from: building
    takes seconds.
    """
    from stores import Lab, without_production

    return without_production(Lab.moved(demo_built, tmp_path / "demo"))


@pytest.fixture(scope="session")
def produced_built(empty_store: bytes, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store with one production run that a repair built: to be copied, not to be changed."""
    from producing import produced
    from stores import Lab

    return produced(lambda: Lab.new(tmp_path_factory.mktemp("produced") / "store", empty_store, {}))


FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, the one that is installed."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs an installed chromium (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, headless=True, args=[*FLAGS, "--disable-sync"])
        yield started
        started.close()
