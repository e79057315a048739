"""--html beside the plugin: made in every case that ends, secret-free, and the same through workers. The page
itself: tests/report/test_html.py.
"""

from __future__ import annotations

import pytest
from gates import Gate, told
from stores import Lab


@pytest.mark.parametrize("flags", [[], ["--self-contained-html"], ["--fix"], ["--fix-dry-run"], ["-q"], ["-n", "2"]])
def test_it_is_written_with_our_columns(gate: Gate, messy: Lab, flags: list[str]) -> None:
    result = gate("--html=out/audit.html", *flags, process="-n" in flags)
    assert result.ret == (0 if "--fix" in flags else 1)
    page = (gate.folder / "out" / "audit.html").read_text()
    assert 'data-column-type="severity"' in page
    assert page.count("col-severity") >= 20
    assert "Compliance audit: audit.html" in page
    assert ("FIXED (removed)" in page) == ("--fix" in flags)


@pytest.mark.parametrize("flags", [[], ["--fix"], ["-n", "2"]], ids=["gate", "fix", "workers"])
def test_a_run_that_stops_leaves_a_page_that_says_so(gate: Gate, flags: list[str]) -> None:
    gate.settings(f"sqlite:///{gate.folder}/missing.db")
    result = gate("--html=audit.html", *flags, process="-n" in flags)
    assert result.ret == 4
    assert "there is no database at" in told(result)
    page = (gate.folder / "audit.html").read_text()
    assert 'class="compliance-FAILED">Stopped before the checks: there is no database at' in page
    assert 'class="compliance-head"' not in page


def test_a_refused_repair_leaves_a_page_that_says_so(gate: Gate, messy: Lab) -> None:
    assert gate("--html=audit.html", "--fix", "--fix-max=1").ret == 4
    assert (
        "Stopped before the checks: the plan changes 9 entities and --fix-max allows 1"
        in (gate.folder / "audit.html").read_text()
    )
