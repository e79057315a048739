"""The head of every report says what the verdict rests on: settings, programs, plugins, who and where."""

from __future__ import annotations

import getpass
import hashlib
import re
import socket
from importlib.metadata import version

from gates import POLICIES, Gate
from stores import Lab


def head(text: str) -> list[str]:
    return re.findall(
        r"^(?:no settings file|settings|asks for less|audited by|other pytest|plugins without).*$", text, re.MULTILINE
    )


def test_without_settings_all_is_built_in(gate: Gate, lab: Lab) -> None:
    (gate.folder / "compliance.toml").unlink(missing_ok=True)
    text = gate(f"--tracking-uri={lab.uri}", rules=[POLICIES]).stdout.str()
    told = head(text)
    assert told[0] == "no settings file: defaults; write one with --compliance-init"
    # As soon as anything is shown, too: the checks of a large store take long.
    assert text.index(f"compliance: {told[0]}") < text.index("collected ")
    assert f"audited by {getpass.getuser()} on {socket.gethostname()}; " in told[1]
    assert f"mlflow {version('mlflow')}" in told[1]


def test_the_settings_and_what_they_soften(gate: Gate, lab: Lab) -> None:
    lab.experiment("credit_development")
    gate.settings(lab.uri, '[models]\nallow_code = true\n[policies.EXP003]\nseverity = "low"\n')
    (gate.folder / "conftest.py").write_text("")
    (gate.folder / "muting.py").write_text("")
    sha256 = hashlib.sha256((gate.folder / "compliance.toml").read_bytes()).hexdigest()
    gate.pytester.syspathinsert()
    done = gate("--html=audit.html", "-p", "muting", rules=[POLICIES, gate.folder])
    told = head(done.stdout.str())
    assert told[0] == f"settings: compliance.toml, sha256 {sha256}"
    softer = [line for line in told if line.startswith("asks for less")]
    assert len(softer) == 3  # the experiments of the product, and the two above
    assert any("models.allow_code = true (compliance.toml:" in line for line in softer)
    assert any('policies.EXP003.severity = "low" (' in line for line in softer)
    assert any(line.startswith("other pytest plugins: ") and "pytest-html " in line for line in told)
    (loose,) = [line for line in told if line.startswith("plugins without")]
    assert "muting" in loose
    assert str(gate.folder / "conftest.py") in loose
    page = (gate.folder / "audit.html").read_text()
    assert sha256 in page
    assert "models.allow_code = true" in page


def test_a_suite_that_audits_nothing_is_told_nothing_of_settings(gate: Gate) -> None:
    gate.pytester.makepyfile("def test_nothing():\n    pass\n")
    assert "no settings" not in gate(rules=[]).stdout.str()


def test_workers_say_the_same(gate: Gate, lab: Lab) -> None:
    lab.experiment("credit_development")
    gate.settings(lab.uri, "[models]\nallow_code = true\n")
    alone = head(gate(rules=[POLICIES / "test_experiments.py"], process=True).stdout.str())
    spread = head(gate("-n2", rules=[POLICIES / "test_experiments.py"], process=True).stdout.str())
    assert alone == spread
