"""--compliance-explain: what is said of a rule to somebody who has no store at hand, or no idea why the gate is red."""

from __future__ import annotations

import datetime as dt
import re
import sys
from typing import TYPE_CHECKING

import pytest
from gates import POLICIES, RULES, Gate, state, told

from mlflow_compliance.settings.toml import parse

if TYPE_CHECKING:
    from stores import Lab

HEADS = [
    "What:", "Why:", "Example:", "What --fix does:", "What you can do:", "Settings that touch it:",
    "To waive it, in compliance.toml:", "It gives evidence for:",
]  # fmt: skip
OWN = '''
from mlflow_compliance.api import Experiment, Severity, policy


@policy("OWN001", "Every experiment has an owner", Severity.LOW, advice="set the tag: `owner = [me]`")
def test_experiment_has_an_owner(experiment: Experiment) -> None:
    """Somebody must be able to answer for it.

    At any hour.
    """
    assert "owner" in experiment.tags, "has no tag owner"
'''
FIXER = '''
from mlflow_compliance.api import SetExperimentTag, fixer


def tagged(finding):
    yield SetExperimentTag(finding.entity.key, "owner", "platform-team", None)


@fixer("OWN001")
def set_owner(finding, context):
    """Give it to the platform team."""
    yield from tagged(finding)
'''


def explain(gate: Gate, *words: object, rules: tuple[object, ...] = (), ret: int = 0) -> list[str]:
    """The lines that are said of rules; pytest's own may stand before and after."""
    result = gate(*words, rules=rules)
    assert result.ret == ret, told(result)
    return told(result).splitlines()


def section(lines: list[str], head: str) -> list[str]:
    start = lines.index(head) + 1
    return lines[start : next((n for n in range(start, len(lines)) if not lines[n].startswith(" ")), None)]


def test_a_rule_in_words_without_store_and_settings(gate: Gate) -> None:
    before = state(gate.folder)
    lines = explain(gate, "--compliance-explain=EXP003")
    assert "EXP003  medium    Every other experiment is classified, development work is archived" in lines
    assert [line for line in lines if line in HEADS] == HEADS
    assert "used as if it were in force" in " ".join(section(lines, "Why:"))
    assert "    experiments.development  (without a word: [])" in lines
    assert "  Kind: safe: it sets tags and descriptions alone, and --fix-undo takes them back." in lines
    assert any(line.strip().startswith("NIST AI RMF GOVERN 1.6: ") for line in section(lines, HEADS[-1]))
    assert not any("compliant" in line for line in lines)
    assert {key: value for key, value in state(gate.folder).items() if key != "."} == {
        key: value for key, value in before.items() if key != "."
    }


def test_the_waiver_can_be_copied(gate: Gate) -> None:
    (waiver,) = parse("\n".join(section(explain(gate, "--compliance-explain=EXP003"), HEADS[-2])))["waivers"]
    assert waiver.keys() == {"policy", "entity", "reason", "owner", "expires"}
    assert (waiver["policy"], waiver["entity"]) == ("EXP003", "fraud-*")
    assert isinstance(waiver["expires"], dt.date)
    assert waiver["expires"] > dt.datetime.now(dt.timezone.utc).date()


@pytest.mark.parametrize(
    ("rule", "kind"),
    [
        ("EXP001", "reversible"),
        ("EXP003", "safe"),
        ("STO003", "advice"),
        ("MOD002", "advice"),
        ("RET001", "reversible"),
    ],
)
def test_how_far_its_remedy_reaches(gate: Gate, rule: str, kind: str) -> None:
    assert any(line.startswith(f"  Kind: {kind}: ") for line in explain(gate, f"--compliance-explain={rule}"))


def test_all_lists_every_rule_in_a_line(gate: Gate) -> None:
    lines = explain(gate, "--compliance-explain=all")
    listed = [line for line in lines if re.match(r"[A-Z]{3}\d{3}  (low|medium|high|critical) +\S", line)]
    declared = re.findall(
        r'@policy\(\s*"(\w+)"', "".join(path.read_text("utf-8") for path in POLICIES.glob("test_*.py"))
    )
    assert [line[:6] for line in listed] == sorted(declared)
    assert max(map(len, listed)) < 100


def test_several_and_patterns(gate: Gate) -> None:
    lines = explain(gate, "--compliance-explain=RET*,EXP001", "--compliance-explain", "TRC001")
    assert [line[:6] for line in lines if re.match(r"[A-Z]{3}\d{3}  ", line)] == [
        "EXP001",
        "RET001",
        "RET002",
        "TRC001",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("EXP01", "--compliance-explain: 'EXP01' is an unknown policy id; did you mean 'EXP001' or 'EXP0"),
        ("exp001", "did you mean 'EXP001'"),
        ("EXP001,QQQ*", "'QQQ*' is an unknown policy id; known here: ART001, "),
        (" , ", "--compliance-explain takes ids of rules with commas between them"),
        ("", "--compliance-explain takes ids of rules with commas between them"),
    ],
)
def test_what_no_rule_answers_to_is_a_usage_error(gate: Gate, given: str, said: str) -> None:
    assert any(said in line for line in explain(gate, f"--compliance-explain={given}", ret=4))


def test_it_goes_with_nothing_else_that_does_one_thing(gate: Gate) -> None:
    lines = explain(gate, "--compliance-explain=EXP001", "--fix", ret=4)
    assert any("--compliance-explain and --fix exclude each other" in line for line in lines)


def test_neither_settings_nor_store_are_looked_at(gate: Gate, messy: Lab) -> None:
    (gate.folder / "compliance.toml").write_text("this = [is not TOML")
    before = state(messy.folder)
    explain(gate, "--compliance-explain=EXP001", "--tracking-uri=sqlite:////no/such/place/mlflow.db", rules=RULES)
    assert state(messy.folder) == before


def test_rules_of_users(gate: Gate) -> None:
    gate.pack("policies", test_own=OWN)
    gate.pack("fixers", own=FIXER)
    gate.ini("fixers", "mlflow_compliance.fixers")
    lines = explain(gate, "--compliance-explain=OWN001", rules=("policies",))
    assert "OWN001  low       Every experiment has an owner" in lines
    assert section(lines, "What:") == ["  Every experiment has an owner."]
    assert section(lines, "Why:") == ["  Somebody must be able to answer for it.", "  At any hour."]
    assert section(lines, "What --fix does:")[0] == "  Give it to the platform team."
    assert section(lines, "What --fix does:")[1].startswith("  Kind: safe: "), "by the change that a helper makes"
    assert section(lines, "What you can do:") == ["  Set the tag: `owner = [me]`."]
    assert 'policy = "OWN001"' in section(lines, HEADS[-2])[1]
    assert HEADS[-1] not in lines, "it gives evidence for what nobody said"


def test_texts_of_users_lie_beside_their_rules(gate: Gate) -> None:
    gate.pack("policies", test_own=OWN)
    texts = gate.folder / "policies" / "test_own.toml"
    texts.write_text('[OWN001]\nexample = "\\u001b[31mone"\nclauses = ["House rule 7"]\nsettings = ["ours.key"]\n')
    lines = explain(gate, "--compliance-explain=OWN001", rules=("policies",))
    assert section(lines, "Example:") == ["  \\x1b[31mone"], "nothing steers the terminal"
    assert section(lines, HEADS[-1])[0] == "    House rule 7"
    for text, said in (
        ("[OWN001]\nexampel = 'x'\n", "'exampel' is none of them"),
        ("[OWN001]\nclauses = 'x'\n", "'clauses' is none of them"),
        ("[OWN001\n", "test_own.toml:1: this is not TOML"),
        ("OWN001 = 3\n", "'OWN001' is none of them"),
    ):
        texts.write_text(text)
        lines = explain(gate, "--compliance-explain=OWN001", rules=("policies",), ret=4)
        assert any(said in line for line in lines)


def test_a_pack_that_cannot_be_imported_hides_no_other_rule(gate: Gate) -> None:
    gate.pack("policies", test_own=f"import no_such_module\n{OWN}", test_other="raise SystemError('not a policy')")
    explain(gate, "--compliance-explain=EXP001", rules=("policies",))
    said = "test_own.py cannot be imported (ModuleNotFoundError: No module named 'no_such_module'): mend it"
    assert any(said in line for line in explain(gate, "--compliance-explain=OWN001", rules=("policies",), ret=4))
    lines = explain(gate, "--compliance-explain=all", rules=("policies",), ret=1)
    assert any(said in line for line in lines)
    assert sum(line.startswith("EXP001  ") for line in lines) == 1
    assert "test_other" not in "".join(lines), "what declares no policy is not imported"


def test_rules_of_installed_packs(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    site = gate.folder / "site"
    for path, text in {
        "acme_rules/__init__.py": "",
        "acme_rules/policies/__init__.py": "",
        "acme_rules/policies/test_owners.py": OWN.replace("OWN001", "ACM001"),
        "acme_rules-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme-rules\nVersion: 1.0\n",
        "acme_rules-1.0.dist-info/entry_points.txt": "[mlflow_compliance.policies]\nacme = acme_rules.policies\n",
    }.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr("sys.modules", dict(sys.modules))
    assert "ACM001  low       Every experiment has an owner" in explain(gate, "--compliance-explain=ACM001")
