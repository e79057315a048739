"""The plugin is loaded in every suite of an environment: where there are no policies it must not be noticed."""

from __future__ import annotations

import re

import pytest
from gates import Gate

PLAIN = "def test_plain():\n    pass\ndef test_failing():\n    assert 0\n"


def test_the_engine_is_not_imported(gate: Gate) -> None:
    gate.pytester.makepyfile(
        test_plain="""
        import sys

        def test_plain():
            ours = {f"mlflow_compliance.{name}" for name in ("audit", "rules", "store")}
            heavy = {"mlflow", "sqlalchemy", "pydantic", "rich", *ours}
            assert "mlflow_compliance.plugin" in sys.modules
            assert heavy & sys.modules.keys() == set()
        """
    )
    gate(rules=["test_plain.py"], process=True).assert_outcomes(passed=1)


@pytest.mark.parametrize("name", ["settings", "store", "artifacts", "violations", "experiment", "product"])
def test_no_fixture_of_ours_is_there(gate: Gate, name: str) -> None:
    gate.pytester.makepyfile(test_plain=f"def test_plain({name}):\n    pass\n")
    result = gate(rules=["test_plain.py"])
    result.assert_outcomes(errors=1)
    assert f"fixture '{name}' not found" in result.stdout.str()


def test_an_ini_option_and_flags_are_all_that_is_added(gate: Gate) -> None:
    gate.pytester.makepyfile(
        test_plain="def test_plain(pytestconfig):\n    assert pytestconfig.getini('compliance_fixers')\n"
    )
    gate(rules=["test_plain.py"]).assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_the_output_is_as_without_it(gate: Gate, workers: list[str]) -> None:
    gate.pytester.makepyfile(test_plain=PLAIN)
    gate.ini()
    runs = [
        gate(*workers, *off, rules=["test_plain.py"], process=bool(workers))
        for off in ([], ["-p", "no:mlflow_compliance.plugin"])
    ]
    with_it, without = [[line for line in run.outlines if "plugins: " not in line] for run in runs]
    assert [_untimed(line) for line in with_it] == [_untimed(line) for line in without]
    assert runs[0].ret == runs[1].ret == 1


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_the_html_report_is_as_without_it(gate: Gate, workers: list[str]) -> None:
    gate.pytester.makepyfile(test_plain=PLAIN)
    pages = []
    for name, off in (("with", []), ("without", ["-p", "no:mlflow_compliance.plugin"])):
        gate(
            *workers,
            *off,
            f"--html={name}.html",
            "--self-contained-html",
            rules=["test_plain.py"],
            process=bool(workers),
        )
        page = (gate.folder / f"{name}.html").read_text()
        pages.append(
            re.findall(
                r"<th class=[^>]*>[^<]*</th>|<title[^>]*>[^<]*|<h1[^>]*>[^<]*",
                page.replace(f"{name}.html", "report.html"),
            )
        )
        assert ("Compliance" in page) is False
        assert page.count("col-policy") == 0
    assert pages[0] == pages[1]
    assert len(pages[0]) >= 5


def _untimed(line: str) -> str:
    return re.sub(r"=+|\d+\.\d+s|\[gw\d\]", "", line).strip()
