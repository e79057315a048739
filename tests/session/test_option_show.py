"""--compliance-show, what pytest's own sections still say, colours, and ids that can be pasted back."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gates import POLICIES, ROW, Gate, plan_in, state, told
from platform_store import UNCLASSIFIED, make_platform
from stores import Lab

EXPERIMENTS = (f"{POLICIES}/test_experiments.py", f"{POLICIES}/test_runs.py")


def section(result: pytest.RunResult) -> list[str]:
    """The lines of our section, as pytest's last line follows it."""
    lines = [line.rstrip() for line in result.outlines]
    start = next(number for number, line in enumerate(lines) if line.startswith("===") and " compliance " in line)
    end = next(number for number in range(start + 1, len(lines)) if re.search(r" in \d", lines[number]))
    return lines[start + 1 : end]


def test_the_verdict_comes_first_and_last(gate: Gate, messy: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    found = {show: section(gate(f"--compliance-show={show}")) for show in ("summary", "findings", "all")}
    for lines in found.values():
        assert lines[0] == lines[-1]
        assert re.match(
            r"FAIL  1 critical · 1 high · \d+ medium   rules \d+: \d+ ran, \d+ not asked   \d+ fixable", lines[0]
        )
    assert max(len(line) for line in found["findings"] if "::" not in line) <= 120
    assert len(found["summary"]) < len(found["findings"])
    rows = [matched for line in found["findings"] if (matched := ROW.match(line))]
    assert [row[1] for row in rows] == ["EXP001", "EXP002", "ART001", "ART002", "EXP003", "RUN001"]
    assert [row[2] for row in rows[:2]] == ["critical", "high"]
    assert "all is built in" not in "\n".join(found["summary"])
    assert told(gate()).count("audited by") == 1, "an auditor reads who and with what where all is asked for"
    refused = gate("--compliance-show=everything")
    assert refused.ret == 4
    assert "--compliance-show takes summary, findings or all, not 'everything'" in told(refused)


def test_findings_are_what_is_shown_by_default(gate: Gate, messy: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    command = [sys.executable, "-m", "pytest", f"--rootdir={gate.folder}", f"-c={gate.folder / 'pytest.ini'}"]
    default = subprocess.run([*command, *EXPERIMENTS], cwd=gate.folder, capture_output=True, text=True, check=False)
    asked = gate("--compliance-show=findings", rules=EXPERIMENTS)
    assert default.returncode == asked.ret == 1
    assert section(asked) == default.stdout.splitlines()[-len(section(asked)) - 1 : -1]


def test_a_green_store(gate: Gate, make_lab: type[Lab]) -> None:
    lab = make_lab()
    gate.settings(lab.uri)
    lines = section(gate("--compliance-show=findings", rules=[f"{POLICIES}/test_traces.py"]))
    assert lines[0].startswith("INCOMPLETE  no finding in what was judged; not everything was   rules ")
    assert lines[1].startswith("PARTIAL: ")
    assert lines[-1] == lines[0]


OWN = """
import pytest
from mlflow_compliance.api import Severity, policy

@policy("OWN001", "A rule that breaks", Severity.HIGH)
def test_that_breaks(violations):
    '''It does.'''
    raise KeyError("a key that is not there")

@policy("OWN002", "A rule that asserts", Severity.LOW)
def test_that_asserts(violations):
    '''It does.'''
    assert 1 == 2, "one is not two"
"""
ORDINARY = """
import pytest

def test_of_mine():
    print("said by my test")
    assert 3 == 4

def test_that_passes():
    pass

@pytest.fixture
def broken():
    raise ValueError("my fixture")

def test_with_an_error(broken):
    pass
"""


@pytest.mark.parametrize(
    "flags",
    [(), ("-q",), ("-v",), ("-rA",), ("-rfEps", "--tb=short"), ("--tb=line",), ("--tb=no", "-rN"), ("-n1",)],
    ids=" ".join,
)
def test_pytests_own_sections_are_about_ordinary_tests(gate: Gate, messy: Lab, flags: tuple[str, ...]) -> None:
    """A policy is in none of them, but for a rule that crashed, whose traceback people need."""
    (gate.folder / "test_own.py").write_text(OWN)
    (gate.folder / "test_mine.py").write_text(ORDINARY)
    result = gate(*flags, "--junitxml=junit.xml", rules=[*EXPERIMENTS, gate.folder], process="-n1" in flags)
    text = f"{result.stdout}"
    assert result.ret == 1
    counted = result.parseoutcomes()
    shown = dict(
        re.findall(r"\n=+ (FAILURES|ERRORS|PASSES|short test summary info) =+\n(.*?)(?=\n=+ )", text, re.DOTALL)
    )
    failures = set(re.findall(r"^_+ (\w+)(?:\[[^]]*\])? _+$", shown.get("FAILURES", ""), re.MULTILINE))
    short = re.findall(r"^(\w+) (\S+)", shown.get("short test summary info", ""), re.MULTILINE)
    if "--tb=no" in flags:
        assert shown == {}
    else:
        assert shown.keys() >= {"FAILURES", "ERRORS", "short test summary info"}
        assert "a key that is not there" in shown["FAILURES"]
        assert {name.partition("::")[2] for word, name in short if word == "FAILED"} == {
            "test_of_mine",
            "test_that_breaks",
        }
        if "-rA" in flags:
            assert {name.partition("::")[2] for word, name in short if word == "PASSED"} == {"test_that_passes"}
            assert "said by my test" not in shown.get("PASSES", "")
    if not {"--tb=no", "--tb=line"} & {*flags}:
        assert failures == {"test_of_mine", "test_that_breaks"}
        assert "said by my test" in shown["FAILURES"]
    # Nothing else sees them less: the counts of pytest's last line are those of JUnit.
    (suite,) = ElementTree.parse(gate.folder / "junit.xml").getroot().iter("testsuite")
    assert counted["failed"] == int(suite.get("failures", 0)) >= 6
    assert counted["errors"] == int(suite.get("errors", 0)) == 1
    assert "OWN002 low" in text


def test_other_plugins_see_every_report(gate: Gate, messy: Lab) -> None:
    (gate.folder / "conftest.py").write_text(
        "def pytest_terminal_summary(terminalreporter):\n"
        "    failed = terminalreporter.stats['failed']\n"
        "    terminalreporter.write_line(f'a plugin counts {len(failed)} failures')\n"
    )
    result = gate(rules=[*EXPERIMENTS, gate.folder])
    assert f"a plugin counts {result.parseoutcomes()['failed']} failures" in told(result)


@pytest.mark.parametrize(
    ("flags", "environment", "coloured"),
    [
        ((), {}, False),
        (("--color=yes",), {}, True),
        ((), {"FORCE_COLOR": "1"}, True),
        ((), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (("--color=no",), {"FORCE_COLOR": "1"}, False),
    ],
)
def test_colours_are_pytests(
    gate: Gate,
    messy: Lab,
    monkeypatch: pytest.MonkeyPatch,
    flags: tuple[str, ...],
    environment: dict[str, str],
    coloured: bool,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    text = f"{gate(*flags, '--compliance-show=findings', rules=EXPERIMENTS).stdout}"
    assert ("\x1b[31m\x1b[1mFAIL\x1b[0m  " in text) == coloured
    assert ("\x1b[31m\x1b[1m EXP001 critical  \x1b[0m" in text) == coloured
    assert ("\x1b[" in text) == coloured


def test_a_plan_is_told_by_kinds_of_changes(gate: Gate, messy: Lab) -> None:
    """Its totals first and last; what --fix prints is the same; with all of it every change."""
    dry = plan_in(gate("--compliance-show=findings", "--fix-dry-run"))
    assert dry[0] == dry[-2] != dry[-1]
    assert dry[0].startswith("totals: ")
    kinds = [line for line in dry if line.startswith("    + ")]
    parts = dry[0].removeprefix("totals: ").partition(";")[0].split(", ")
    assert len(kinds) == sum(not re.match(r"[\d.]+ (?:bytes?|kB) ", part) for part in parts)
    assert any(
        re.match(r"    \+ reversible  2 experiments retired  \(EXP001 EXP002\)  e\.g\. ", line) for line in kinds
    )
    assert any(
        re.match(r"    \+ safe        13 tags of experiments set  \(EXP001 EXP002 EXP003\)  e\.g\. ", line)
        for line in kinds
    )
    every = plan_in(gate("--fix-dry-run"))
    assert sum(line.startswith("    + ") for line in every) == int(dry[-1].partition(" ")[0]) > len(kinds)
    assert every[-2:] == dry[-2:]
    assert plan_in(gate("--compliance-show=summary", "--fix")) == dry


def test_the_printed_id_runs(gate: Gate, messy: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of a user's, of the pack that is installed: by name, pasted as it is printed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--compliance-show=all"]

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run([*command, *words], cwd=gate.folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    code, text = run("--pyargs", "mlflow_compliance.policies", "--compliance-rules=EXP003,EXP002")
    assert code == 1
    ids = re.findall(r"its check +'(.*)'", text)
    assert {node.partition("[")[0] for node in ids} == {
        "test_experiments.py::test_no_test_experiment_is_active",
        "test_experiments.py::test_experiment_is_classified",
    }
    for flags in ((), ("--pyargs",)):
        code, again = run(*flags, *ids)
        assert code == 1
        assert re.findall(r"its check +'(.*)'", again) == ids
    # A file of one's own of that name is one's own.
    (gate.folder / "test_experiments.py").write_text("def test_experiment_is_classified():\n    pass\n")
    assert "1 passed" in run("test_experiments.py::test_experiment_is_classified")[1]
    assert run("test_nowhere.py::test_x")[0] == 4


def test_the_printed_id_runs_in_a_checkout(gate: Gate, messy: Lab) -> None:
    text = told(gate("--compliance-rules=EXP003"))
    (node, *_) = re.findall(r"its check +(\S+)", text)
    again = gate(rules=[node.strip("'")])
    assert again.parseoutcomes()["failed"] == 1
    assert node in told(again)


@pytest.fixture(scope="module")
def platform(empty_store: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("platform") / "store"
    make_platform(folder, empty_store)
    return folder


def test_300_experiments_are_told_on_60_lines(gate: Gate, platform: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    before = state(platform)
    (gate.folder / "compliance.toml").write_text((platform / "compliance.toml").read_text())
    result = gate("--compliance-show=findings", rules=[POLICIES])
    assert result.ret == 1
    assert result.parseoutcomes()["failed"] > 350
    lines = [line.rstrip() for line in told(result).splitlines()]
    assert len(lines) <= 60 + 2  # what `told` puts between the two streams, and an empty one
    assert max(map(len, lines)) <= 120
    rows = [matched for line in lines if (matched := ROW.match(line))]
    order = [row[2] for row in rows]
    assert order == sorted(order, key=["critical", "high", "medium", "low"].index)
    said = [row[3] for row in rows if row[1] == "EXP003"]
    names = "fraud-lgbm-000, churn-xgb-001, pricing-linear-002, ... +262"
    assert said == [f"{UNCLASSIFIED} experiments not classified  e.g. {names}"]
    assert {row[1] for row in rows} >= {"ART001", "ART002", "EXP001", "EXP002", "MOD001", "REG001", "RUN001", "RUN002"}
    blocked = [row[3].partition("blocks ")[2].split() for row in rows if row[1] == "RUN002"]
    assert ["MOD001", "MOD003", "MOD004"] in [blocks[:3] for blocks in blocked]
    assert state(platform) == before
