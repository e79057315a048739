"""The pytest plugin: options, fixtures and short hooks that delegate to the Audit in config.stash."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_compliance.session.collection import collected, cover, name, parametrize
from mlflow_compliance.session.commands import run_command
from mlflow_compliance.session.ending import finish, summarize
from mlflow_compliance.session.first_checks import lead, remember
from mlflow_compliance.session.options import GROUP, LEFT, add_flags, add_short_names, begin
from mlflow_compliance.session.outcomes import asserted, describe, fail_on_violations, shorten
from mlflow_compliance.session.packs import header
from mlflow_compliance.session.redaction import cut_warning
from mlflow_compliance.session.repair import repair
from mlflow_compliance.session.reports import begin_reports
from mlflow_compliance.session.signing import sign_reports
from mlflow_compliance.session.terminal import policies_left_out, status
from mlflow_compliance.session.writable import refuse_unwritable_html
from mlflow_compliance.session.xdist import prepare, receive_error, stop

if TYPE_CHECKING:
    import warnings

    from _pytest.terminal import TerminalReporter

    from mlflow_compliance.session.terminal import Status


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    add_flags(parser.getgroup(GROUP, "policy as tests for MLflow stores"))
    if getattr(pluginmanager, "_conftest_plugins", None):
        add_short_names(parser)  # a conftest brought this plugin in: the hook below is under way already
    parser.addini(
        "compliance_fixers", "folders or packages with fixers", type="args", default=["mlflow_compliance.fixers"]
    )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser
) -> Generator[None, object, object]:
    result = yield
    early_config.stash[LEFT] = add_short_names(parser)  # when all other plugins have told of their flags
    return result


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    begin(config)


def pytest_sessionstart(session: pytest.Session) -> None:
    begin_reports(session)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    refuse_unwritable_html(config)
    return run_command(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    left = config.stash.get(LEFT, {})
    return header(config, left)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Collector, obj: object) -> None:
    cover(collector, obj)


def pytest_itemcollected(item: pytest.Item) -> None:
    name(item)
    remember(item)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    collected(session, items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    lead(session)  # later than every plugin that selects, and earlier than those that tell or send what was selected


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    repair(session)
    result = yield
    stop(session.config)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    try:
        result = yield
    except (AssertionError, pytest.fail.Exception) as failure:
        asserted(pyfuncitem, failure)
        raise
    except pytest.skip.Exception:
        fail_on_violations(pyfuncitem)  # what it found before it saw that nothing applies is not forgotten
        raise
    fail_on_violations(pyfuncitem)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    shorten(item, call)
    report = yield
    describe(item, report, call)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    prepare(node)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    receive_error(node)


@pytest.hookimpl(tryfirst=True)
def pytest_warning_recorded(warning_message: warnings.WarningMessage) -> None:
    cut_warning(warning_message)


def pytest_report_teststatus(report: pytest.TestReport) -> Status | None:
    return status(report)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: TerminalReporter, config: pytest.Config
) -> Generator[None, object, object]:
    with policies_left_out(terminalreporter):
        result = yield
    summarize(terminalreporter, config)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    finish(session)
    result = yield
    sign_reports(session)  # when every plugin has written its file
    return result
