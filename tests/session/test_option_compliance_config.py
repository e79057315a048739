"""--compliance-config: which settings rule, and what is said of those that cannot be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gates import POLICIES, Gate, state, told
from stores import Lab


def test_it_wins_over_the_nearest_file(gate: Gate, messy: Lab) -> None:
    (gate.folder / "other.toml").write_text(f'[store]\ntracking_uri = "{messy.uri}"\n[experiments]\ntest_names = []\n')
    assert gate("-k", "no_test_experiment").ret == 1
    assert gate("-k", "no_test_experiment", "--compliance-config=other.toml").ret == 0


def test_paths_in_it_start_from_its_folder(gate: Gate, messy: Lab) -> None:
    (messy.folder / "rules.toml").write_text('[store]\ntracking_uri = "sqlite:///mlflow.db"\n')
    result = gate("-k", "no_test_experiment", f"--compliance-config={messy.folder / 'rules.toml'}")
    assert result.ret == 1
    assert f"store: {messy.uri} " in told(result)


def test_the_name_is_taken_from_where_the_command_was_given(
    gate: Gate, messy: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = gate.folder / "below"
    below.mkdir()
    (below / "rules.toml").write_text(f'[store]\ntracking_uri = "{messy.uri}"\n[experiments]\ntest_names = []\n')
    monkeypatch.chdir(below)
    assert gate("-k", "no_test_experiment", "--compliance-config=rules.toml").ret == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[store]\n\ntraking_uri = 'x'\n",
            r"rules\.toml:3: store\.traking_uri: unknown key; did you mean 'tracking_uri'\?",
        ),
        ("[stores]\n", r"rules\.toml:1: stores: unknown key; did you mean 'store'\?"),
        (
            "[runs]\nrunning_max_hours = '24'\n",
            r"rules\.toml:2: runs\.running_max_hours: must be a number greater than 0, not '24'",
        ),
        (
            "[policies.EXP01]\nenabled = false\n",
            r"rules\.toml:1: policies\.EXP01: unknown policy id; did you mean 'EXP001'\?",
        ),
        (
            "[policies]\nEXP002 = { severity = 'fatal' }\n",
            r"rules\.toml:2: policies\.EXP002\.severity: must be 'low', 'medium', ",
        ),
        (
            "[policies.ZZZ999]\nenabled = false\n",
            r"rules\.toml:1: policies\.ZZZ999: unknown policy id; known here: .*ART001.*STO001",
        ),
        ("[[products]]\nprimary = 'x'\n", r"rules\.toml:1: products\[0\]\.name: is required"),
        ("[store\n", r"rules\.toml:\d: this is not TOML"),
        (None, r"rules\.toml: there is no such settings file"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_nothing_is_read(
    gate: Gate, messy: Lab, text: str | None, said: str
) -> None:
    if text is not None:
        (gate.folder / "rules.toml").write_text(text)
    before = state(messy.folder)
    result = gate(f"--tracking-uri={messy.uri}", "--compliance-config=rules.toml", "--fix")
    assert result.ret == 4
    assert re.search(r"^ERROR: " + said, told(result), re.MULTILINE)
    assert "no tests ran" in told(result)
    assert state(messy.folder) == before


def test_all_mistakes_are_told_at_once(gate: Gate) -> None:
    (gate.folder / "rules.toml").write_text("[store]\nbusy = 1\n[runs]\nhours = 2\n")
    assert re.search(r"rules\.toml:2: .*\n.*rules\.toml:4: ", told(gate("--compliance-config=rules.toml")))


def test_a_policy_of_a_file_that_was_not_selected_is_known(gate: Gate, messy: Lab) -> None:
    """Settings speak of the whole pack, also where one file of it is run."""
    gate.settings(messy.uri, "\n[policies.MOD001]\nenabled = false\n")
    assert gate(rules=[POLICIES / "test_store.py"]).ret == 0


def test_a_file_beside_the_selected_one_may_be_broken(gate: Gate, messy: Lab) -> None:
    gate.pack(
        "policies",
        test_fine="""
        from mlflow_compliance.api import Severity, Snapshot, policy

        @policy("OWN001", "Fine", Severity.LOW)
        def test_fine(store: Snapshot) -> None:
            \"\"\"It is.\"\"\"
        """,
        test_broken="def broken(:",
    )
    assert gate(rules=["policies/test_fine.py"]).ret == 0


def test_a_switched_off_policy_is_shown_as_skipped_with_the_reason(gate: Gate, messy: Lab) -> None:
    gate.settings(messy.uri, "\n[policies]\nEXP002 = { enabled = false }\nRUN001 = { enabled = false }\n")
    result = gate("-rs", "--html=audit.html", "--self-contained-html")
    assert result.ret == 1
    result.assert_outcomes(passed=23, failed=4, skipped=10)
    text = told(result)
    assert "switched off in the settings: EXP002, RUN001" in text
    assert "switched off in the settings: EXP002, RUN001" in (gate.folder / "audit.html").read_text()


def test_what_is_switched_off_is_not_repaired(gate: Gate, messy: Lab) -> None:
    gate.settings(messy.uri, "\n[policies]\nEXP002 = { enabled = false }\n")
    assert gate("--fix").ret == 0
    assert messy.client.get_experiment("3").name == "test_experiment"


def test_everything_switched_off_is_no_success(gate: Gate, messy: Lab) -> None:
    gate.settings(messy.uri, "\n[policies]\nEXP002 = { enabled = false }\n")
    result = gate("-k", "no_test_experiment")
    assert result.ret == 4
    assert "every policy that was selected is switched off in the settings" in told(result)


def test_a_severity_of_the_settings_is_shown(gate: Gate, messy: Lab) -> None:
    gate.settings(messy.uri, "\n[policies]\nEXP002 = { severity = 'critical' }\n")
    gate("-k", "no_test_experiment or is_stuck", "--html=audit.html", "--self-contained-html")
    assert _severities(gate.folder / "audit.html") == {"EXP002": {"critical"}, "RUN001": {"medium"}, "STO003": {"high"}}


def _severities(report: Path) -> dict[str, set[str]]:
    """Policy -> the severities of its rows."""
    found: dict[str, set[str]] = {}
    # The cells stand in a JSON text within an attribute.
    text = report.read_text().replace("&#34;", '"').replace('\\"', '"').replace("&lt;", "<").replace("&gt;", ">")
    for policy, severity in re.findall(
        r'<td class="col-policy"[^>]*>(\w+)</td>", "<td class="col-severity \w+">(\w+)</td>', text
    ):
        found.setdefault(policy, set()).add(severity)
    return found
