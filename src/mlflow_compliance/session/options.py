"""What the command line says, checked before a session begins."""

from __future__ import annotations

import pytest

from mlflow_compliance.errors import ComplianceError


def begin(config: pytest.Config) -> None:
    """Check the flags against each other; hook up the HTML report where pytest-html is used."""
    option = config.option
    if (option.fix or option.fix_dry_run) and (getattr(option, "numprocesses", None) or hasattr(config, "workerinput")):
        raise pytest.UsageError("--fix and --fix-dry-run do not run under pytest-xdist: leave -n out (checks alone may run with it)")
    if option.fix and (option.setuponly or option.setupplan):
        raise pytest.UsageError("--fix changes the store, and --setup-only and --setup-plan run no test that could verify it: leave them out")
    if option.fix and option.fix_dry_run:
        raise pytest.UsageError("--fix and --fix-dry-run exclude each other: the dry run shows what --fix will do")
    if option.fix_max is not None and option.fix_max < 0:
        raise pytest.UsageError("--fix-max takes a number of entities, 0 or more")
    if option.fix_max is not None and not (option.fix or option.fix_dry_run):
        raise pytest.UsageError("--fix-max limits --fix or --fix-dry-run: give one of them")
    if option.fix_owned_root and not (option.fix or option.fix_dry_run):
        raise pytest.UsageError("--fix-owned-root is about what --fix or --fix-dry-run may change: give one of them")
    if option.executor != "threads":
        from mlflow_compliance.executors import check_executor

        try:
            check_executor(option.executor)
        except ComplianceError as error:
            raise pytest.UsageError(str(error)) from error
    if option.compliance_rules is not None:
        from mlflow_compliance.rules.selecting import words_in

        try:
            words_in(option.compliance_rules)
        except ComplianceError as error:
            raise pytest.UsageError(str(error)) from error
    if option.hash_cache is not None and not option.hash_cache.strip():
        raise pytest.UsageError("--hash-cache takes a folder, 'user' for the user's cache folder, or 'off'")
    if config.pluginmanager.hasplugin("html"):
        from mlflow_compliance.session.html import HtmlReport

        config.pluginmanager.register(HtmlReport(config), "mlflow_compliance.session.html")
