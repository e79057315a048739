"""Under pytest-xdist: the store is read once for all workers, and the reports say what they say without."""

from __future__ import annotations

import re
import tempfile
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
            log.write(f"{{event}} {{arguments[0]}}\\n")

sys.addaudithook(watch)
"""
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
    rows = re.findall(r'col-policy.*?col-outcome.*?</td>', unescape(text).replace('\\"', '"'), re.DOTALL)
    assert rows
    return WHEN.sub("", head.group(1)).split("<li>"), set(rows)


def table(result: pytest.RunResult) -> list[str]:
    """What the terminal says of the audit."""
    text = told(result)
    assert " compliance ===" in text
    return sorted(WHEN.sub("", text.partition(" compliance ===")[2].partition("short test summary")[0]).splitlines())


def junit(gate: Gate, name: str) -> set[tuple[str, str, str]]:
    cases = ElementTree.parse(gate.folder / name).getroot().iter("testcase")
    return {(str(case.get("classname")), str(case.get("name")), "".join(str(part.get("message")) + str(part.text) for part in case)) for case in cases}


def test_reports_are_the_same_and_the_store_is_read_once(gate: Gate, messy: Lab, log: Path) -> None:
    def run(name: str, *flags: str) -> tuple[pytest.RunResult, list[str]]:
        log.write_text("")
        result = gate(f"--html={name}.html", f"--junitxml={name}.xml", *flags, process=True)
        return result, log.read_text().splitlines()

    before, folders = state(messy.folder), set(Path(tempfile.gettempdir()).glob("mlflow-compliance-*"))
    alone, opened = run("alone")
    shared, opened_by_workers = run("shared", "-n", "2")
    assert alone.ret == shared.ret == 1
    assert table(alone) == table(shared)
    assert page(gate, "alone.html") == page(gate, "shared.html")
    assert junit(gate, "alone.xml") == junit(gate, "shared.xml")
    assert sum(line.startswith("sqlite3.connect") for line in opened) == 1
    below = [line for line in opened if line.startswith(f"os.scandir {messy.folder}")]
    assert len(below) > 5
    assert sorted(line for line in opened_by_workers if line.startswith(("sqlite3.connect", f"os.scandir {messy.folder}"))) == sorted(
        line for line in opened if line.startswith(("sqlite3.connect", f"os.scandir {messy.folder}"))
    )
    assert state(messy.folder) == before
    assert set(Path(tempfile.gettempdir()).glob("mlflow-compliance-*")) <= folders, "the readings are gone with the session"
