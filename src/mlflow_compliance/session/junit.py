"""What pytest's own --junit-xml says of a check: a name that means something, and what is known of it as properties."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mlflow_compliance.session.state import result_of

if TYPE_CHECKING:
    from _pytest.junitxml import LogXML


class JunitFacts:
    """Hooks of a session that writes that file, on the controller of pytest-xdist too."""

    def __init__(self, xml: LogXML) -> None:
        self.xml = xml

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        result = result_of(report)
        if result is None:
            return
        from mlflow_compliance.report.junit import facts_of, name_of

        case = self.xml.node_reporter(report)
        case.add_attribute("name", name_of(result))
        for name, value in facts_of(result):
            case.add_property(name, value)


def tell_junit_facts(config: pytest.Config) -> None:
    """Where that file is written, say there what checks are."""
    from _pytest.junitxml import xml_key

    xml = config.stash.get(xml_key, None)
    if xml is not None:
        config.pluginmanager.register(JunitFacts(xml), "mlflow_compliance.session.junit")
