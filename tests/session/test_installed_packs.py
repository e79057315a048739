"""Policies and fixers of another distribution, installed beside this one and found by its entry points."""

from __future__ import annotations

import os
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from gates import CHECKOUT, RULES, Gate, plan_in, told

if TYPE_CHECKING:
    from stores import Lab

POLICY = '''
from mlflow_compliance.api import Experiment, Severity, policy


@policy("ACM001", "Every experiment has an owner", Severity.LOW)
def test_experiment_has_an_owner(experiment: Experiment) -> None:
    """Somebody must be able to answer for it."""
    assert "owner" in experiment.tags, "has no tag owner"
'''
FIXER = '''
from mlflow_compliance.api import SetExperimentTag, fixer


@fixer("ACM001")
def set_owner(finding, context):
    """Give it to the platform team."""
    yield SetExperimentTag(finding.entity.key, "owner", "platform-team", None)
'''
POINTS = (
    "[mlflow_compliance.policies]\nacme = acme_rules.policies\n[mlflow_compliance.fixers]\nacme = acme_rules.fixers\n"
)
NAME = "mlflow_compliance.policies"


@pytest.fixture
def installed(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """What `pip install --target` makes of a small distribution."""
    site = gate.folder / "site"
    for path, text in {
        "acme_rules/__init__.py": "",
        "acme_rules/policies/__init__.py": "",
        "acme_rules/policies/test_owners.py": POLICY,
        "acme_rules/fixers/__init__.py": "",
        "acme_rules/fixers/owners.py": FIXER,
        "acme_rules-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme-rules\nVersion: 1.0\n",
        "acme_rules-1.0.dist-info/entry_points.txt": POINTS,
    }.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(site))
    return gate


def points(gate: Gate, text: str) -> None:
    (gate.folder / "site" / "acme_rules-1.0.dist-info" / "entry_points.txt").write_text(dedent(text))


@pytest.mark.parametrize("rules", [RULES, ("--pyargs", NAME)], ids=["folder", "name"])
def test_its_policies_are_collected_with_the_built_in_ones(
    installed: Gate, messy: Lab, rules: tuple[object, ...]
) -> None:
    result = installed("--compliance-rules=ACM001,EXP002", rules=rules, process=True)
    assert result.ret == 1
    text = told(result)
    assert "compliance: also acme_rules.policies (acme-rules 1.0)" in text
    assert text.count("has no tag owner") >= 1
    assert "Give it to the platform team. (1 change)" in " ".join(text.split())


@pytest.mark.parametrize("beside", ["acme_rules.policies", "site/acme_rules/policies"])
def test_what_was_asked_for_already_is_not_added(installed: Gate, messy: Lab, beside: str) -> None:
    result = installed("--compliance-rules=ACM001", rules=("--pyargs", NAME, beside), process=True)
    assert "compliance: also" not in told(result)
    assert result.parseoutcomes()["failed"] == 5


def test_its_fixers_repair(installed: Gate, messy: Lab) -> None:
    result = installed("--fix", "--compliance-rules=ACM001", process=True)
    assert result.ret == 0
    assert sum("owner" in line for line in plan_in(result)) >= 5
    assert "fixed" in result.parseoutcomes()


@pytest.mark.parametrize("rules", [("policies",), ("--pyargs", f"{NAME}.test_store")], ids=["own", "one module"])
def test_they_are_not_where_the_built_in_pack_is_not(installed: Gate, messy: Lab, rules: tuple[str, ...]) -> None:
    installed.pack("policies", test_own=POLICY.replace("ACM001", "OWN001"))
    with (installed.folder / "compliance.toml").open("a") as settings:
        settings.write('[policies.ACM001]\nseverity = "high"\n')  # may be spoken of all the same
    result = installed("--collect-only", "-q", rules=rules, process=True)
    assert result.ret == 0
    assert "test_owners" not in told(result)
    assert "compliance: also" not in told(result)


def test_workers_collect_them_too(installed: Gate, messy: Lab) -> None:
    result = installed("-n", "2", "--compliance-rules=ACM001", process=True)
    assert result.ret == 1
    assert "ACM001" in told(result)
    assert result.parseoutcomes()["failed"] == 5


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("acme_rules.no_such", "names no package"),
        ("no_such_module.policies", "cannot be imported (ModuleNotFoundError: No module named 'no_such_module')"),
        ("acme_rules.policies.test_owners", "names no package"),
        ("acme_rules.policies:test_owners", "names no package"),
        ("acme_rules.fixers", "names a package without test_*.py, so without policies"),
        ("broken.policies", "cannot be imported (ZeroDivisionError: division by zero)"),
    ],
)
def test_a_broken_entry_point_is_a_usage_error(installed: Gate, messy: Lab, value: str, why: str) -> None:
    (installed.folder / "site" / "broken").mkdir()
    (installed.folder / "site" / "broken" / "__init__.py").write_text("1 / 0\n")
    points(installed, f"[mlflow_compliance.policies]\nacme = {value}\n")
    result = installed(process=True)
    assert result.ret == 4
    (line,) = [line for line in told(result).splitlines() if "the entry point 'acme'" in line]
    assert f"of acme-rules 1.0 (mlflow_compliance.policies = {value})" in line
    assert why in line
    assert "mend that distribution or uninstall it" in line


@pytest.mark.parametrize("value", ["acme_rules.no_such", "acme_rules.fixers.owners", "broken.fixers"])
def test_broken_fixers_stop_a_repair(installed: Gate, messy: Lab, value: str) -> None:
    (installed.folder / "site" / "broken").mkdir()
    (installed.folder / "site" / "broken" / "__init__.py").write_text("1 / 0\n")
    points(installed, f"[mlflow_compliance.fixers]\nacme = {value}\n")
    result = installed("--fix", process=True)
    assert result.ret == 4
    assert f"the entry point 'acme' of acme-rules 1.0 (mlflow_compliance.fixers = {value})" in told(result)


def test_the_checkout_on_the_path_serves_the_packs(gate: Gate, messy: Lab) -> None:
    """What an editable install does: `src` of the checkout is on the path, and `policies` and `fixers` lie beside
    it.
    """
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "src")}
    command = [sys.executable, "-m", "pytest", "--pyargs", NAME, "--compliance-rules=EXP002", "-p", "no:cacheprovider"]
    (gate.folder / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(command, cwd=gate.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "looks like a test" in done.stdout
    assert "then soft-delete" in " ".join(done.stdout.split()), "its fixers are found too"
    where = "import mlflow_compliance.policies as p, mlflow_compliance.fixers as f; print(p.__file__, f.__file__)"
    places = subprocess.run(
        [sys.executable, "-c", where], cwd=gate.folder, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert places.split() == [str(CHECKOUT / "policies" / "__init__.py"), str(CHECKOUT / "fixers" / "__init__.py")]
