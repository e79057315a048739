"""Policies of a user's own repository: what they may do, and that none of their mistakes reads as compliance."""

from __future__ import annotations

import pytest
from gates import FIXERS, Gate, plan_in, state, told
from stores import Lab

HEAD = (
    "from mlflow_compliance.api import Experiment, Product, RegisteredModel, Severity, Snapshot, Violations, "
    "policy\nimport pytest\n"
)


def pack(gate: Gate, checks: str) -> None:
    gate.pack("policies", test_own=HEAD + checks)


def own(name: str, arguments: str, body: str, policy_id: str = "OWN001") -> str:
    return (
        f'\n@policy("{policy_id}", "Own", Severity.LOW)\ndef {name}({arguments}) -> None:\n    '
        f'"""Because."""\n    {body}\n'
    )


def table(result: pytest.RunResult) -> str:
    """The rows at the end of the output, their lines joined."""
    return " ".join(told_of(result).partition("= compliance =")[2].split())


def told_of(result: pytest.RunResult) -> str:
    text = f"{result.stdout}\n{result.stderr}"
    assert "INTERNALERROR" not in text
    return text


@pytest.mark.parametrize("flags", [[], ["--fix"], ["--fix-dry-run"]])
def test_a_plain_assert_fails_about_its_entity(gate: Gate, messy: Lab, flags: list[str]) -> None:
    pack(gate, own("test_plain", "experiment: Experiment", "assert experiment.experiment_id != '2', 'two is bad'"))
    result = gate("-v", *flags, rules=["policies"])
    assert result.ret == 1
    result.assert_outcomes(passed=5, failed=1)
    assert "experiment-2] FAILED" in told(result)
    assert "OWN001 low experiment credit_production: two is bad" in table(result)
    assert "no fixer: to be mended by hand" in table(result)


def test_violations_and_an_assert_are_both_told(gate: Gate, messy: Lab) -> None:
    body = "violations.add('one', 'first'); violations.add('two', 'second', observed=1, expected=2)"
    pack(gate, own("test_all", "store: Snapshot, violations: Violations", body))
    result = gate(rules=["policies"])
    assert result.ret == 1
    assert "first" in table(result)
    assert "second; found: 1; expected: 2" in table(result)


@pytest.mark.parametrize("flags", [[], ["--fix"], ["--fix-dry-run"]])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("1 / 0", "the check could not be carried out (ZeroDivisionError: division by zero)"),
        ("store.no_such_thing", "the check could not be carried out (AttributeError"),
        ("violations.add('seen', 'seen'); 1 / 0", "seen"),
        ("pytest.fail('said so')", "said so"),
        ("raise Exception", "the check could not be carried out (Exception"),
    ],
)
def test_a_check_that_crashes_is_a_failure(gate: Gate, messy: Lab, flags: list[str], body: str, said: str) -> None:
    pack(gate, own("test_crash", "store: Snapshot, violations: Violations", body))
    before = state(messy.folder)
    result = gate(*flags, rules=["policies"])
    assert result.ret == 1
    result.assert_outcomes(passed=1, failed=1)
    assert said in table(result)
    assert state(messy.folder) == before
    if flags and "pytest.fail" not in body:
        plan = plan_in(result)
        crash = next(
            number
            for number, line in enumerate(plan)
            if line.startswith("OWN001  store ") and "the rule crashed (" in line
        )
        assert "! not fixed: its rule crashed: mend the policy" in plan[crash + 1]
        assert ("store" in plan[0] and "seen" in plan[0]) == ("seen" in body), "what it had found is told too"


@pytest.mark.parametrize("flag", ["--fix", "--fix-dry-run"])
def test_a_rule_that_crashes_on_the_planned_store_alone_fails_the_run(gate: Gate, messy: Lab, flag: str) -> None:
    """It takes every id for one of MLflow's: a run that is yet to be copied has none. All else is repaired."""
    body = "[int(run.run_id, 16) for run in store.runs.values()]"
    pack(gate, own("test_ids", "store: Snapshot", body))
    result = gate(flag, "policies")
    plan = plan_in(result)
    assert result.ret == 1
    (line,) = [line for line in plan if "the rule crashed (ValueError: " in line]
    assert line.startswith("OWN001  store ")
    assert "changes to" in plan[-1]
    if flag == "--fix":
        result.assert_outcomes(passed=result.parseoutcomes()["passed"])
        assert "verified: the store, read anew, is what was planned" in told(result)
        assert "fixed" in result.parseoutcomes()


def test_a_check_that_skips_itself_is_skipped_under_fix_too(gate: Gate, messy: Lab) -> None:
    pack(gate, own("test_skip", "store: Snapshot", "pytest.skip('not for this store')"))
    result = gate("--fix", rules=["policies"])
    result.assert_outcomes(passed=1)
    told(result)


def test_an_unknown_fixture_is_an_error(gate: Gate, messy: Lab) -> None:
    pack(gate, own("test_unknown", "experimnt", "pass"))
    result = gate(rules=["policies"])
    assert result.ret == 1
    result.assert_outcomes(passed=1, errors=1)
    assert "fixture 'experimnt' not found" in told_of(result)


def test_fixtures_of_their_own_and_parameters_work(gate: Gate, messy: Lab) -> None:
    fixture = "\n@pytest.fixture\ndef limit():\n    return 3\n"
    parametrized = '\n@pytest.mark.parametrize("name", ["a", "b"])'
    pack(
        gate,
        fixture
        + parametrized
        + own("test_own", "name, limit, experiment: Experiment, violations: Violations", "assert limit == 3 and name"),
    )
    result = gate("--fix", rules=["policies"])
    assert result.ret == 0
    result.assert_outcomes(passed=11)


def test_a_policy_without_a_docstring_is_refused(gate: Gate, messy: Lab) -> None:
    pack(gate, own("test_why", "store: Snapshot", "pass").replace('"""Because."""', "pass"))
    result = gate("--fix", rules=["policies"])
    assert result.ret == 2
    assert "policy OWN001 (test_why) needs a docstring that says why the rule exists" in told_of(result)


@pytest.mark.parametrize("policy_id", ["own1", "OWN01", "OWN0001", "<b>"])
def test_an_id_of_another_form_is_refused(gate: Gate, messy: Lab, policy_id: str) -> None:
    pack(gate, own("test_id", "store: Snapshot", "pass", policy_id))
    result = gate(rules=["policies"])
    assert result.ret == 2
    assert "must be three capital letters and three digits, as in EXP001" in told_of(result)


@pytest.mark.parametrize("beside", ["itself", "the built-in ones"])
def test_two_policies_with_one_id_are_refused(gate: Gate, messy: Lab, beside: str) -> None:
    one = "RUN001" if beside == "the built-in ones" else "OWN001"
    pack(
        gate,
        own("test_one", "store: Snapshot", "pass", one)
        + (own("test_two", "store: Snapshot", "pass") if one == "OWN001" else ""),
    )
    before = state(messy.folder)
    result = gate(
        "--fix", *([] if one == "OWN001" else ["policies"]), **({"rules": ["policies"]} if one == "OWN001" else {})
    )
    assert result.ret == 4
    assert f"two policies have the id {one}: " in told(result)
    assert "give one another id" in told(result)
    assert state(messy.folder) == before


def test_a_policy_over_entities_that_are_not_there_is_not_applicable(gate: Gate, messy: Lab) -> None:
    """Registered models there may be none of, and the settings may say that there is no product."""
    pack(
        gate,
        own("test_models", "registered_model: RegisteredModel", "assert False")
        + own("test_products", "product: Product", "pass", "OWN002"),
    )
    gate.settings(messy.uri)
    text = (gate.folder / "compliance.toml").read_text()
    (gate.folder / "compliance.toml").write_text("products = []\n" + text.partition("[[products]]")[0])
    result = gate("-v", rules=["policies"])
    assert result.ret == 0
    assert "2 not applicable" in told(result)
    assert "not applicable: OWN002: the settings say that no model is in production (products = [])" in told(result)


def test_a_policy_over_experiments_that_are_not_there_is_no_success(gate: Gate, messy: Lab) -> None:
    pack(gate, own("test_all", "experiment: Experiment", "pass"))
    messy.sql("UPDATE experiments SET lifecycle_stage = 'deleted'")
    result = gate("-v", rules=["policies"])
    assert result.ret == 1
    result.assert_outcomes(passed=1, errors=1)
    assert "there is no experiment to examine: a rule that looks at nothing proves nothing" in told(result)
    assert "there is no experiment to examine" in table(result)


def test_the_built_in_rules_about_products_say_that_there_is_none(gate: Gate, messy: Lab) -> None:
    text = (gate.folder / "compliance.toml").read_text()
    (gate.folder / "compliance.toml").write_text("products = []\n" + text.partition("[[products]]")[0])
    result = gate("-k", "exactly_one or has_a_model")
    assert result.ret == 0
    assert "not applicable: EXP001, MOD001: the settings say that no model is in production (products = [])" in told(
        result
    )
    (gate.folder / "compliance.toml").write_text(text.partition("[[products]]")[0])
    assert "not applicable: EXP001, MOD001: the settings name no product: see PRD008" in told(
        gate("-k", "exactly_one or has_a_model")
    )


def test_an_own_check_beside_a_plain_test_of_another_module(gate: Gate, messy: Lab) -> None:
    """The fixtures of policies reach into no module that has none."""
    pack(gate, own("test_store", "store: Snapshot", "assert store.experiments"))
    gate.pytester.makeconftest(
        "import pytest\n@pytest.fixture\ndef settings():\n    return 'mine'\n@pytest.fixture\ndef store():\n    "
        "return 'shop'\n"
    )
    gate.pytester.makepyfile(
        test_mine="def test_mine(settings, store):\n    assert (settings, store) == ('mine', 'shop')\n"
    )
    result = gate("-v", rules=["policies", "test_mine.py"])
    result.assert_outcomes(passed=3)


def test_a_hostile_name_in_an_assertion_cannot_steer_the_terminal(gate: Gate, messy: Lab) -> None:
    messy.sql("UPDATE experiments SET name = ? WHERE experiment_id = 1", "a\x1b[2J\u202eb")
    pack(
        gate,
        own("test_name", "experiment: Experiment", "assert experiment.experiment_id != '1', f'bad {experiment.name}'"),
    )
    result = gate(rules=["policies"])
    assert result.ret == 1
    text = told(result)
    assert "\x1b[2J" not in text
    assert "\u202e" not in text
    assert "bad a\\x1b[2J\\u202eb" in text


def test_the_fixers_of_the_checkout_are_found() -> None:
    """The tests above rely on it: without remedies `--fix` would refuse everything."""
    assert (FIXERS / "experiments.py").is_file()
