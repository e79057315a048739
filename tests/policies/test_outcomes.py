"""docs/outcomes.md says of every rule when it cannot judge, and the rules do what it says."""

from __future__ import annotations

import ast
import inspect
import re
from textwrap import dedent

import pytest
from gates import CHECKOUT
from repairs import rules

from mlflow_compliance.rules.policy import FILE_PARAMETERS, MAY_BE_EMPTY, Policy

TABLE = (CHECKOUT / "docs" / "outcomes.md").read_text(encoding="utf-8")


def stated() -> dict[str, tuple[str, str]]:
    """Policy id -> the two cells of its row."""
    found = {}
    for line in TABLE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and re.match(r"[A-Z]{3}\d{3}", cells[0]):
            for policy in cells[0].split(", "):
                assert policy not in found
                found[policy] = (cells[1], cells[2])
    return found


STATED = stated()


def calls(rule: Policy) -> set[str]:
    """Names of the functions and methods that a check calls, and those that functions of its module call for it."""
    around = rule.check.__globals__
    names, waiting = set[str](), [rule.check]
    while waiting:
        tree = ast.parse(dedent(inspect.getsource(waiting.pop())))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                helper = around.get(name)
                if name not in names and inspect.isfunction(helper) and helper.__globals__ is around:
                    waiting.append(helper)
                names.add(name)
    return names


def test_every_rule_has_one_row() -> None:
    assert STATED.keys() == {rule.id for rule in rules()}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.id)
def test_a_rule_that_may_not_judge_says_when(rule: Policy) -> None:
    unevaluated, inapplicable = STATED[rule.id]
    called = calls(rule)
    assert ("not_evaluated" in called) == (unevaluated != "-")
    nothing = any(name in MAY_BE_EMPTY - rule.optional for name in rule.parameters)
    assert ("not_applicable" in called or nothing) == (inapplicable != "-")
    if FILE_PARAMETERS & set(rule.parameters):
        assert "artifact root" in inapplicable
