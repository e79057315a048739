"""--html beside the plugin: made in every case that ends, secret-free, and the same through workers. The page itself: tests/report/test_html.py."""

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


def test_a_run_that_stops_leaves_no_page_that_looks_green(gate: Gate) -> None:
    gate.settings(f"sqlite:///{gate.folder}/missing.db")
    result = gate("--html=audit.html")
    assert result.ret == 4
    assert "there is no database at" in told(result)
    page = gate.folder / "audit.html"
    assert not page.exists() or ("col-outcome" not in page.read_text() and "there is no database at" in page.read_text())
