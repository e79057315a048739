"""Beside pytest's own options and pytest-xdist: the same outcomes, the same exit codes."""

from __future__ import annotations

import re

import pytest
from gates import Gate, state, told
from stores import Lab


def failed(result: pytest.RunResult) -> set[str]:
    return set(re.findall(r"^     its check +(\S+)", result.stdout.str(), re.MULTILINE))


def test_quiet(gate: Gate, messy: Lab) -> None:
    result = gate("-q", "--fix")
    assert result.ret == 0
    assert "24 passed, 6 fixed" in told(result)


def test_without_the_terminal_reporter(gate: Gate, messy: Lab) -> None:
    assert gate("-p", "no:terminal", process=True).ret == 1
    fixed = gate("-p", "no:terminal", "--fix", process=True)
    assert fixed.ret == 0
    assert told(fixed).strip() == ""
    assert gate("-q").ret == 0


def test_without_pytest_html(gate: Gate, messy: Lab) -> None:
    result = gate("-p", "no:html", "-p", "no:metadata", process=True)
    assert result.ret == 1
    assert failed(result) == failed(gate())


def test_stop_at_the_first_failure(gate: Gate, messy: Lab) -> None:
    assert gate("-x").parseoutcomes()["failed"] == 1
    champion = next(run.info.run_id for run in messy.runs("2"))
    (messy.folder_of(champion) / "model" / "MLmodel").unlink()
    # The repair is made as a whole; the verdict stops at what it could not mend.
    result = gate("-x", "--fix")
    assert result.ret == 1
    assert "22 of 22 changes made" in told(result)


def test_only_what_failed_last(gate: Gate, messy: Lab) -> None:
    ini = gate.folder / "pytest.ini"
    ini.write_text(ini.read_text().replace("-p no:cacheprovider ", ""))
    everything = gate()
    again = gate("--lf")
    assert again.parseoutcomes()["failed"] == 6
    assert failed(again) == failed(everything)
    fixed = gate("--lf", "--fix")
    assert fixed.ret == 0
    assert "6 fixed" in told(fixed)
    assert gate().ret == 0


def test_nothing_selected_is_no_success(gate: Gate, messy: Lab) -> None:
    before = state(messy.folder)
    assert gate("-k", "nothing_has_this_name").ret == 5
    assert gate("--fix", "-k", "nothing_has_this_name").ret == 5
    assert state(messy.folder) == before


def test_workers_come_to_the_same_outcomes(gate: Gate, messy: Lab) -> None:
    before = state(messy.folder)
    alone, shared = gate(), gate("-n", "2", process=True)
    assert shared.ret == alone.ret == 1
    assert shared.parseoutcomes()["failed"] == alone.parseoutcomes()["failed"] == 6
    assert shared.parseoutcomes()["passed"] == alone.parseoutcomes()["passed"]
    assert failed(shared) == failed(alone)
    assert state(messy.folder) == before


def test_workers_stop_as_one_where_the_store_cannot_be_read(gate: Gate) -> None:
    gate.settings(f"sqlite:///{gate.folder}/missing.db")
    result = gate("-n", "2", process=True)
    assert result.ret == 4
    assert "there is no database at" in told(result)
    assert told(result).count("there is no database at") == 1


def test_the_progress_of_a_repair_reads_as_one_collection(gate: Gate, messy: Lab) -> None:
    result = gate("--fix", "-v")
    assert "collected 41 items" in told(result)
    assert "collected 33 items" in told(result)
    assert "[100%]" in told(result)
