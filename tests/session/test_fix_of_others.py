"""--fix stands back where another plugin has such a flag, whichever is loaded first; --compliance-fix repairs."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from gates import POLICIES, Gate, told
from stores import Lab

OTHER = """
def pytest_addoption(parser):
    group = parser.getgroup("snapshots", "other snapshots")
    group.addoption("--fix", action="store_true", dest={dest!r}, help="theirs")

def pytest_terminal_summary(terminalreporter, config):
    terminalreporter.write_line(f"theirs: {{config.getoption('--fix')}}")
"""
STANDS_BACK = "--fix belongs to another plugin here (snapshots), and repairs nothing: --compliance-fix does"


def renamed(lab: Lab) -> bool:
    """Whether the test experiment of a messy store was retired."""
    return lab.client.get_experiment_by_name("test_experiment") is None


@pytest.fixture(params=["first", "last", "conftest"])
def beside(request: pytest.FixtureRequest, gate: Gate, messy: Lab) -> Lab:
    """A messy store, and a plugin with a --fix of its own, loaded before ours, after it, or by a conftest."""
    text = OTHER.format(dest="fix" if request.param != "last" else "theirs")
    if request.param == "conftest":
        (gate.folder / "conftest.py").write_text(text)
        return messy
    # Those named with -p come before those of distributions, and their order is that of the words.
    (gate.folder / "snapshots.py").write_text(text)
    own = "-p mlflow_compliance.plugin" if request.param == "last" else ""
    ini = gate.folder / "pytest.ini"
    ini.write_text(ini.read_text().replace("addopts =", f"addopts = {own} -p snapshots"))
    gate.pytester.syspathinsert()
    return messy


@pytest.mark.parametrize("whole", [True, False])
def test_theirs_repairs_nothing_and_that_is_said(beside: Lab, gate: Gate, *, whole: bool) -> None:
    rules = (gate.folder, POLICIES) if whole else (gate.folder, POLICIES / "test_experiments.py")
    result = gate("--fix", "-k", "EXP002", rules=rules, process=True)
    text = told(result)
    assert (result.ret, renamed(beside)) == (1, False), text
    assert text.count(STANDS_BACK) == 1
    assert "theirs: True" in text


def test_ours_under_its_long_name(beside: Lab, gate: Gate) -> None:
    result = gate("--compliance-fix", "-k", "EXP002", rules=(gate.folder, POLICIES), process=True)
    text = told(result)
    assert (result.ret, renamed(beside)) == (0, True), text
    assert text.count(STANDS_BACK) == 1
    assert "theirs: False" in text


@pytest.mark.parametrize("flag", ["--fix", "--compliance-fix"])
def test_alone_both_are_one_flag(gate: Gate, messy: Lab, flag: str) -> None:
    text = told(gate(flag, "-k", "EXP002"))
    assert renamed(messy)
    assert "belongs to another plugin" not in text


def test_a_suite_that_audits_nothing_is_told_nothing(gate: Gate) -> None:
    (gate.folder / "conftest.py").write_text(OTHER.format(dest="fix"))
    gate.pytester.makepyfile("def test_nothing():\n    pass\n")
    text = told(gate("--fix", rules=(), process=True))
    assert "theirs: True" in text
    assert "compliance" not in text.replace("mlflow-compliance", "").replace("mlflow_compliance", "")


def test_brought_in_by_a_conftest(gate: Gate, messy: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the plugins of distributions."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (gate.folder / "conftest.py").write_text('pytest_plugins = ["mlflow_compliance.plugin"]\n')
    result = gate("--fix", "-k", "EXP002", rules=(gate.folder, POLICIES), process=True)
    assert (result.ret, renamed(messy)) == (0, True), told(result)


@pytest.mark.skipif(find_spec("inline_snapshot") is None, reason="inline-snapshot is not installed")
def test_the_real_inline_snapshot(gate: Gate, messy: Lab) -> None:
    (gate.folder / "pyproject.toml").write_text('[project]\nname = "suite"\n')
    flags = ("-k", "EXP002")
    text = told(gate("--fix", *flags, rules=(POLICIES,), process=True))
    assert not renamed(messy)
    assert "--fix belongs to another plugin here (inline-snapshot)" in text
    assert gate("--compliance-fix", *flags, rules=(POLICIES,), process=True).ret == 0
    assert renamed(messy)
