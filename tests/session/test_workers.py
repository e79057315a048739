"""Under pytest-xdist: the store is read once for all workers, and the reports say what they say without."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gates import Gate, state, told
from stores import Lab

WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("sqlite3.connect", "os.scandir"):
        with open({log!r}, "a") as log:
            log.write(f"{{os.getpid()}} {{event}} {{arguments[0]}}\\n")

if not hasattr(sys, "watched"):
    sys.watched = True
    sys.addaudithook(watch)
"""
COUNTING = """
def pytest_unconfigure():
    watch("os.scandir", [f"mlflow: {'mlflow' in sys.modules}"])

from sqlalchemy import event
from sqlalchemy.engine import Engine

@event.listens_for(Engine, "before_cursor_execute")
def tell(connection, cursor, statement, *rest):
    watch("os.scandir", [" ".join(statement.split())])
"""
"""What is asked of the database, as SQLAlchemy tells it."""
WHEN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC|\d+ (microsecond|second)s?|\d+\.\d+s")


@pytest.fixture
def log(gate: Gate) -> Path:
    """What every process of the gate opens and lists, told by the interpreter itself."""
    path = gate.folder / "opened.log"
    (gate.folder / "watching.py").write_text(WATCH.format(log=str(path)))
    gate.pytester.syspathinsert()
    ini = gate.folder / "pytest.ini"
    ini.write_text(ini.read_text().replace("addopts =", "addopts = -p watching"))
    return path


def page(gate: Gate, name: str) -> tuple[list[str], set[str]]:
    """The head of an HTML report, and its rows."""
    text = (gate.folder / name).read_text()
    head = re.search(r'<ul class="compliance-head">(.*?)</ul>', text, re.DOTALL)
    assert head is not None
    blob = json.loads(unescape(re.search(r'data-jsonblob="(.*?)"', text, re.DOTALL).group(1)))  # type: ignore[union-attr]
    rows = {"".join(row["resultsTableRow"][:6]) for made in blob["tests"].values() for row in made}
    assert len(rows) == 41
    return WHEN.sub("", head.group(1)).split("<li>"), {WHEN.sub("", row) for row in rows}


def table(result: pytest.RunResult) -> list[str]:
    """What the terminal says of the audit."""
    text = told(result)
    assert " compliance ===" in text
    said = re.split(r"\n===|\n---", text.partition(" compliance ===")[2])[0]
    return sorted(line.strip(" =") for line in WHEN.sub("", said).splitlines())


def junit(gate: Gate, name: str) -> set[tuple[str, str, str]]:
    cases = ElementTree.parse(gate.folder / name).getroot().iter("testcase")
    return {
        (
            str(case.get("classname")),
            str(case.get("name")),
            "".join(str(part.get("message")) + str(part.text) for part in case),
        )
        for case in cases
    }


def test_reports_are_the_same_and_the_store_is_read_once(
    gate: Gate, messy: Lab, log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(own))  # other programs have readings in the common one

    def run(name: str, *flags: str) -> tuple[pytest.RunResult, list[str]]:
        log.write_text("")
        result = gate(f"--html={name}.html", f"--junitxml={name}.xml", *flags, process=True)
        return result, log.read_text().splitlines()

    before = state(messy.folder)
    alone, opened = run("alone")
    shared, opened_by_workers = run("shared", "-n", "2")
    assert alone.ret == shared.ret == 1
    assert table(alone) == table(shared)
    assert page(gate, "alone.html") == page(gate, "shared.html")
    assert junit(gate, "alone.xml") == junit(gate, "shared.xml")
    # Once for its rows, once more for those of other workspaces, which may own what nobody here owns.
    assert sum(" sqlite3.connect " in line for line in opened) == 2
    below = listed(opened, messy.folder)
    assert len(below) > 3
    assert sum(" sqlite3.connect " in line for line in opened_by_workers) == 2
    assert listed(opened_by_workers, messy.folder) == below
    assert state(messy.folder) == before
    assert not list(own.glob("mlflow-compliance-*")), "the readings are gone with the session"


def listed(lines: list[str], folder: Path) -> list[str]:
    """The folders of a store that were listed by name, in order; those of rows are opened first and listed by
    number.
    """
    return sorted(line.split(" ", 1)[1] for line in lines if f" os.scandir {folder}" in line)


def test_metadata_only(gate: Gate, messy: Lab, log: Path) -> None:
    """No folder is listed, no location is read, MLflow stays unimported: the same alone and through workers."""
    (gate.folder / "watching.py").write_text(WATCH.format(log=str(log)) + COUNTING)
    log.write_text("")
    alone = gate("--compliance-metadata-only", process=True)
    assert alone.parseoutcomes()["deselected"] >= 5
    assert "what is wrong" in told(alone)
    assert "left out by --compliance-metadata-only, so nothing is said of files: ART001," in told(alone)
    assert "depends on files, which no rule of this session reads" in told(alone)
    assert failed(alone) == {"EXP001", "EXP002", "EXP003"}
    said = log.read_text()
    assert str(messy.folder / "mlruns") not in said
    assert "SELECT" in said
    assert not re.findall(r"artifact_uri FROM runs(?! WHERE run_uuid IN)", said)
    assert "mlflow: False" in said
    log.write_text("")
    shared = gate("--compliance-metadata-only", "-n", "2", process=True)
    assert table(alone) == table(shared)
    assert log.read_text().count("sqlite3.connect") == 1


def failed(result: pytest.RunResult) -> set[str]:
    return set(re.findall(r"^ ([A-Z]{3}\d{3}) ", "\n".join(result.outlines), re.MULTILINE))
