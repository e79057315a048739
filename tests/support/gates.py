"""Runs this checkout's rules on a store as a user would, and tells whether a folder was touched."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

# pytester forgets the modules that a run in this process imported first. Those of SQLAlchemy would be imported again,
# beside the
# mappers that the first ones made, and MLflow could open no database any more.
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import pytest
from stores import BIG, Lab, model_files

for _driver in (
    "psycopg",
    "psycopg2",
    "pymysql",
    "cryptography.x509",
    "cryptography.hazmat.primitives.serialization",
    "boto3",
):
    # The same: an error of a driver that was imported again is none that SQLAlchemy knows.
    with suppress(ImportError):
        import_module(_driver)

LabMaker = Any

CHECKOUT = Path(__file__).parents[2]
POLICIES = CHECKOUT / "policies"
FIXERS = CHECKOUT / "fixers"
WITHOUT = "-p no:cacheprovider -p no:hypothesispytest -p no:anyio"
"""Hypothesis would be imported for the summary of every run."""
SETTINGS = """
[store]
tracking_uri = {uri}
busy_timeout = 0
[[products]]
name = "credit"
primary = "credit_delivery"
experiments = ["credit_*"]
production_names = ["*_production", "*_delivery"]
[experiments]
test_names = ["test_*", "*_test"]
development = ["credit_selection"]
"""
RULES = (
    POLICIES,
    *(f"--ignore={POLICIES}/test_{name}.py" for name in ("loading", "production", "registry", "serving")),
)
"""The rules about order in a store. Those that load models and ask servers need real ones, and have tests of their
own.
"""
EVERY_RULE = {"ART001", "ART002", "EXP001", "EXP002", "EXP003", "RUN001"}
"""What is wrong with a messy store, and what `--fix` can mend: all of it."""


class Gate:
    """A user's folder: settings, pytest.ini, and one call that runs pytest there."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester = pytester
        self.folder = pytester.path
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_WORKSPACE", "PYTEST_ADDOPTS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("COLUMNS", "300")
        self.ini(FIXERS)

    def ini(self, *fixers: object) -> None:
        places = "compliance_fixers = " + "".join(f"\n    {place}" for place in fixers) if fixers else ""
        (self.folder / "pytest.ini").write_text(
            f"[pytest]\naddopts = --import-mode=importlib -W ignore {WITHOUT}\n{places}\n"
        )

    def settings(self, uri: str = "", more: str = "") -> None:
        """Write compliance.toml; without a URI it names none."""
        text = SETTINGS.format(uri=json.dumps(uri)) if uri else SETTINGS.replace("tracking_uri = {uri}\n", "")
        (self.folder / "compliance.toml").write_text(text + more)

    def __call__(self, *arguments: object, rules: Sequence[object] = RULES, process: bool = False) -> pytest.RunResult:
        """Run rules in this process, or in one of its own. Every finding is told on one line, unless `arguments` say
        how much is shown.
        """
        # The root would else be found from where the rules lie.
        words = [f"--rootdir={self.folder}", f"-c={self.folder / 'pytest.ini'}"]
        words += [] if "no:mlflow_compliance.plugin" in arguments else ["--compliance-show=all"]
        words += map(str, (*rules, *arguments))
        return self.pytester.runpytest_subprocess(*words) if process else self.pytester.runpytest_inprocess(*words)

    def pack(self, folder: str, **modules: str) -> None:
        """A package of the user's own in `policies` or `fixers`."""
        place = self.folder / folder
        place.mkdir()
        (place / "__init__.py").write_text("")
        for name, text in modules.items():
            (place / f"{name}.py").write_text(dedent(text))


@pytest.fixture
def gate(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(pytester, monkeypatch)


@pytest.fixture
def messy(make_lab: LabMaker, gate: Gate) -> Lab:
    """A store that breaks six rules in ways that `--fix` can all mend, with settings that name it."""
    lab: Lab = make_lab()
    make_messy(lab)
    lab.stray("26", {"left.bin": b"left behind" * 200})
    gate.settings(lab.uri)
    return lab


def make_messy(lab: Lab) -> dict[str, str]:
    """Break every rule of EVERY_RULE but the one about stray files, through MLflow alone; the experiments' ids by
    name.
    """
    names = ("credit_delivery", "credit_production", "test_experiment", "credit_selection")
    ids = {name: lab.experiment(name) for name in names}
    delivery, production, scratch, selection = (ids[name] for name in names)
    lab.run(delivery, "delivery", metrics={"threshold": 0.338})
    champion = {
        f"model/{name}": content for name, content in model_files("", "", "model", {"model.pkl": b"weights"}).items()
    }
    lab.run(production, "champion", files=champion, stage="production")
    lab.run(scratch, "try")
    for number in range(2):
        lab.run(selection, f"trial {number}", files={"shap.bin": BIG})
    lab.run(selection, "stuck", status="RUNNING")
    return ids


def state(folder: Path) -> dict[str, Any]:
    """Everything that an audit must leave as it is: names, kinds, contents, modes and modification times."""
    found: dict[str, Any] = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names, "."):
            path = os.path.join(place, name)
            facts = os.lstat(path)
            content = ""
            if os.path.isfile(path) and not os.path.islink(path):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            found[os.path.relpath(path, folder)] = (content, facts.st_mode, facts.st_mtime_ns, facts.st_ino)
    return found


def owned(folder: object) -> str:
    """The flag with which a first repair of a store that lies in no folder is told whose an artifact root is."""
    return f"--fix-owned-root={folder}"


def plan_in(result: pytest.RunResult) -> list[str]:
    """The lines of the plan that a run printed."""
    lines = [line.rstrip() for line in result.outlines]
    starts = [number for number, line in enumerate(lines) if line.startswith("---") and " plan " in line]
    assert len(starts) == 1, result.stdout.str()
    end = next(number for number in range(starts[0], len(lines)) if " entities; " in lines[number])
    return lines[starts[0] + 1 : end + 1]


ROW = re.compile(r"^ ([A-Z]{3}\d{3}) (critical|high|medium|low) +(.*)$", re.MULTILINE)
"""A finding on the terminal: its rule, its severity, what is wrong."""
WAY = re.compile(r"^     what (?:--fix would|you can) do +(.*)$", re.MULTILINE)


def ways_out(text: str) -> dict[str, str]:
    """Rule -> what is said of what can be done about the last of its findings."""
    parts = ROW.split(text.partition(" rule   severity  what is wrong")[2])
    return {policy: "; ".join(WAY.findall(after)) for policy, after in zip(parts[1::4], parts[4::4], strict=True)}


def told(result: pytest.RunResult) -> str:
    """All that a run printed; a traceback in it is a defect of its own."""
    text = f"{result.stdout}\n{result.stderr}"
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text
    return text
