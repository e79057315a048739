"""The HTML report in a real browser: hostile names stay text, the rows say what they must, the filters work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from gates import Gate, told
from stores import Lab

# Any of these sets `pwned`, or asks a question, where it is taken for more than text.
ATTACKS = (
    "<script>window.pwned=1;alert(1)</script>",
    "<img src=x onerror=window.pwned=1>",
    '" onmouseover="window.pwned=1" autofocus onfocus="window.pwned=1" x="',
    "'><svg onload=window.pwned=1>",
    "</script><script>window.pwned=1</script>",
    "</td></tr></table><iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "&lt;img src=x onerror=window.pwned=1&gt;",
    "\\u003cimg src=x onerror=window.pwned=1\\u003e",
    "]]>--><details open ontoggle=window.pwned=1>",
    "\x1b[31m<img src=x onerror=window.pwned=1>\x1b[0m",
)


@pytest.fixture
def opened(browser: Any, gate: Gate) -> Iterator[Callable[..., Any]]:
    """Runs the gate with `--html`, opens the report and unfolds everything in it; no script of a name may have run."""
    context = browser.new_context()
    page = context.new_page()
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))

    def run(*arguments: str, rules: Any = None) -> Any:
        options = {"rules": rules} if rules else {}
        result = gate("--html=audit.html", "--self-contained-html", *arguments, **options)
        assert "INTERNALERROR" not in str(result.stdout)
        page.goto((gate.folder / "audit.html").as_uri())
        page.press("#c-checks > summary", "Enter")
        page.wait_for_selector("#results-table tbody.results-table-row")
        page.click("#show_all_details")
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        page.hover("#results-table")
        assert page.evaluate("window.pwned") is None
        assert dialogs == []
        # Nothing of a name became an element either, run or not.
        assert (
            page.locator("[onerror], [onload], [onmouseover], [onfocus], [ontoggle], [srcdoc], img[src=x]").count() == 0
        )
        return page

    yield run
    context.close()


def rows(page: Any) -> list[dict[str, str]]:
    """The visible rows, a cell under its column's name."""
    names = [name.strip() for name in page.locator("#results-table-head th").all_inner_texts()]
    found = []
    for body in page.locator("tbody.results-table-row").all():
        if body.is_visible():
            cells = body.locator("tr").first.locator("td").all_inner_texts()
            found.append(dict(zip(names, cells, strict=False)))
    return found


def hostile(lab: Lab, attack: str) -> None:
    """The attack as the name of everything that has one."""
    lab.sql("UPDATE experiments SET name = 'test_' || ? WHERE experiment_id = 3", attack)
    lab.sql("UPDATE experiments SET name = ? WHERE experiment_id = 4", attack)
    lab.sql("UPDATE experiments SET name = 'credit_' || ? || '_production' WHERE experiment_id = 2", attack)
    lab.sql("UPDATE runs SET name = ?", attack)
    lab.sql("UPDATE tags SET value = ? WHERE key = 'mlflow.runName'", attack)
    lab.sql("INSERT INTO experiment_tags (experiment_id, key, value) VALUES (4, ?, ?)", "lifecycle", attack)
    lab.client.create_registered_model("plain")
    lab.client.create_model_version("plain", f"/no/such/{attack}")
    lab.sql("UPDATE registered_models SET name = ?", attack)
    lab.sql("UPDATE model_versions SET name = ?", attack)
    lab.stray(f"27{attack.replace('/', '-')}", {f"{attack.replace('/', '-')}.bin": b"x" * 2000})


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_name_is_text_in_every_cell(opened: Callable[..., Any], gate: Gate, messy: Lab, attack: str) -> None:
    hostile(messy, attack)
    page = opened("--metadata", "CI", attack, "--metadata", attack, "value")
    text = page.inner_text("body")
    shown = attack.replace("\x1b", "\\x1b")
    # The experiment in an entity and in what was found, the environment in its table.
    assert f"test_{shown}" in text
    assert f"lifecycle={shown}" in text
    assert text.count(shown) >= 8
    failed = [row for row in rows(page) if row["Gate"] == "Failed"]
    assert {row["Policy"] for row in failed} >= {"EXP001", "EXP002", "EXP003", "ART001", "ART002", "ART003", "RUN001"}
    # Ids are the same whatever anything is called.
    assert all(re.fullmatch(r"[\w./-]+\.py::\w+(\[[\w.-]+\])?", row["Test"]) for row in rows(page))


def test_the_repair_of_hostile_names_is_text_too(opened: Callable[..., Any], gate: Gate, messy: Lab) -> None:
    attack = "".join(ATTACKS[:5])
    messy.sql("UPDATE experiments SET name = 'test_' || ? WHERE experiment_id = 3", attack)
    page = opened("--fix")
    removed = next(row for row in rows(page) if row["Policy"] == "EXP002" and "FIXED" in row["Outcome"])
    assert "FIXED (removed)" in removed["Outcome"]
    assert removed["Outcome"].count(attack[:40]) >= 2  # the tag that keeps the old name, and the renaming


def test_a_policy_of_a_user_that_hands_names_on_is_text(opened: Callable[..., Any], gate: Gate, messy: Lab) -> None:
    """In a parameter's id, in what is printed, in an assertion, in a title, and in a crash."""
    attack = "<img src=x onerror=window.pwned=1>"
    gate.pack(
        "policies",
        test_own=f"""
        import pytest
        from mlflow_compliance.api import Severity, Snapshot, policy

        ATTACK = {attack!r}

        @pytest.mark.parametrize("name", [ATTACK, ATTACK + "2"], ids=[ATTACK, ATTACK + "2"])
        @policy("OWN001", ATTACK, Severity.LOW)
        def test_names(name: str, store: Snapshot) -> None:
            \"\"\"<img src=x onerror=window.pwned=1>\"\"\"
            print(ATTACK)
            if name == ATTACK:
                raise KeyError(ATTACK)
            assert name == "", ATTACK
        """,
    )
    page = opened(rules=["policies"])
    assert len(rows(page)) == 3, "its own two, and the one that is asked in every run"
    assert page.inner_text("body").count(attack) >= 8


def test_a_row_says_policy_severity_entity_and_outcome(opened: Callable[..., Any], gate: Gate, messy: Lab) -> None:
    page = opened()
    table = rows(page)
    assert len(table) == 41
    assert list(table[0])[:5] == ["Gate", "Policy", "Severity", "Entity", "Outcome"]
    row = next(row for row in table if row["Policy"] == "EXP002" and row["Gate"] == "Failed")
    assert row["Severity"] == "high"
    assert row["Entity"] == "experiment test_experiment"
    assert row["Outcome"].startswith("FAILED: No test experiments")
    assert "found: test_experiment; expected: retired" in row["Outcome"]
    assert "what --fix would do: Rename so that the name is free again" in row["Outcome"]
    passed = next(row for row in table if row["Policy"] == "ART003")
    assert passed["Outcome"].strip() == "PASSED: Every row's artifacts can be reached"
    head = page.inner_text(".compliance-head")
    assert f"store: {messy.uri} (sqlite" in head
    assert "experiments: 5 active, 0 deleted; runs: 6 (5 FINISHED, 1 RUNNING)" in head
    assert re.search(r"read at: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC; \d+ entities examined by \d+ policies", head)
    assert "not a statement of legal compliance" in head
    assert page.title().startswith("Compliance audit: ")
    assert page.inner_text(".c-verdict h1").startswith("FAIL")
    page.click("[role=tab]:text-is('Production')")
    assert re.search(r"Experiment\s+credit_production\s+Run\s+champion [0-9a-f]{32}", page.inner_text(".c-card"))
    page.click("[role=tab]:text-is('Experiments')")
    assert re.search(r"credit_selection\s+nobody named\s+3\s+4\.1 kB\s+2\.0 kB", page.inner_text(".c-holdings"))


def test_the_filters_hide_and_show_rows(opened: Callable[..., Any], gate: Gate, messy: Lab) -> None:
    page = opened()
    assert {row["Gate"] for row in rows(page)} == {"Passed", "Failed", "Skipped"}
    page.uncheck('input.filter[data-test-result="passed"]')
    page.uncheck('input.filter[data-test-result="skipped"]')
    assert {row["Gate"] for row in rows(page)} == {"Failed"}
    assert len(rows(page)) == 6
    page.uncheck('input.filter[data-test-result="failed"]')
    assert "No results found" in rows(page)[0]["Gate"]
    page.check('input.filter[data-test-result="passed"]')
    assert len(rows(page)) == 31


def test_columns_sort(opened: Callable[..., Any], gate: Gate, messy: Lab) -> None:
    page = opened()
    page.click('th[data-column-type="policy"]')
    first = [row["Policy"] for row in rows(page)]
    page.click('th[data-column-type="policy"]')
    second = [row["Policy"] for row in rows(page)]
    assert {tuple(first), tuple(second)} >= {tuple(sorted(first))}


def test_fixed_is_shown_with_what_was_done(opened: Callable[..., Any], gate: Gate, messy: Lab) -> None:
    page = opened("--fix")
    table = rows(page)
    fixed = {row["Policy"]: row["Outcome"] for row in table if "FIXED" in row["Outcome"]}
    assert set(fixed) == {"ART001", "ART002", "EXP001", "EXP002", "EXP003", "RUN001"}
    assert fixed["EXP002"].startswith("FIXED (removed): No test experiments")
    assert "set tag lifecycle of experiment 4 to 'archived'" in fixed["EXP003"]
    assert "⟨journal⟩" not in page.inner_text("body")
    head = page.inner_text(".compliance-head")
    assert "repair: 22 of 22 changes made; journal: " in head
    assert "verified: the store, read anew, is what was planned" in head
    page.click("[role=tab]:text-is('Repair')")
    repaired = page.inner_text("[role=tabpanel]:visible")
    before = "experiment test_experiment: looks like a test; found: test_experiment; expected: retired"
    assert before in repaired, "what it was stands beside what was done"
    assert "set tag lifecycle of experiment 4 to 'archived'" in repaired
    assert page.inner_text(".c-verdict h1").startswith("INCOMPLETE"), "rules that load models were not asked"
    assert "6 checks mended by this run" in page.inner_text(".c-answers")


def test_what_is_fixed_is_not_so_in_the_next_report(opened: Callable[..., Any], gate: Gate, messy: Lab) -> None:
    assert "FIXED" in told(gate("--fix", "-v"))
    page = opened()
    assert all(row["Outcome"].startswith(("PASSED", "NOT APPLICABLE")) for row in rows(page))
