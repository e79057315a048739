"""The command line: its flags are told to pytest, read back, and checked before a session begins."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentError
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.session.junit import tell_junit_facts
from mlflow_compliance.session.packs import add_installed
from mlflow_compliance.session.pasted import find_pasted
from mlflow_compliance.settings.flags import HELP, SEVERITIES, SHOWS, Flags, Spelling, commands_in

GROUP = "compliance"
"""Of our flags in pytest's help."""
LEFT: pytest.StashKey[dict[str, str]] = pytest.StashKey()
"""Short names that belong to other plugins, and what is said of each."""


def add_flags(group: pytest.OptionGroup) -> None:
    """Tell pytest of every flag."""
    for item in fields(Flags):
        spelling: Spelling = item.metadata[HELP]
        kind: dict[str, Any] = (
            {"action": "store_true"} if item.default is False else {"metavar": spelling.metavar, "type": spelling.type}
        )
        default: object = item.default
        if default == ():
            # What is given is appended to the default: a list that all sessions of a process would share.
            kind["action"], default = "append", None
        group.addoption(spelling.name, default=default, help=spelling.help, **kind)
        if spelling.former:
            group.addoption(spelling.former, dest=spelling.dest, default=SUPPRESS, help=SUPPRESS, **kind)


def add_short_names(parser: pytest.Parser) -> dict[str, str]:
    """Tell pytest of the short names too. Whoever has one by now keeps it: each that stays with another plugin, and
    the sentence that says so.
    """
    group, left = parser.getgroup(GROUP), {}
    for item in fields(Flags):
        spelling: Spelling = item.metadata[HELP]
        if not spelling.short:
            continue
        told = f"the same as {spelling.name}"
        try:
            group.addoption(spelling.short, dest=spelling.dest, default=SUPPRESS, action="store_true", help=told)
        except (ValueError, ArgumentError):  # of whatever kind: it is not ours
            owner = _owner(spelling.short, parser)
            left[spelling.short] = (
                f"{spelling.short} belongs to another plugin here{owner}, and repairs nothing: {spelling.name} does"
            )
    return left


def _owner(name: str, parser: pytest.Parser) -> str:
    """The group that a flag was told of in, in brackets: mostly it has the plugin's name."""
    for group in getattr(parser, "_groups", ()):
        if group.name and any(name in option.names() for option in group.options):
            return f" ({group.name})" if group.name != "_anonymous" else ""
    return ""


def flags_of(config: pytest.Config) -> Flags:
    """What the command line says. Raises ComplianceError where a flag that takes ids of rules names none."""
    given: dict[str, Any] = {}
    for item in fields(Flags):
        value = getattr(config.option, item.metadata[HELP].dest)
        given[item.name] = tuple(value or ()) if item.default == () else value
    for name, flag in (("rules", "--compliance-rules"), ("explain", "--compliance-explain")):
        if given[name]:
            from mlflow_compliance.rules.selecting import words_in

            given[name] = words_in(given[name], flag)
    return Flags(**given)


def begin(config: pytest.Config) -> None:
    """Check the flags against each other; add the packs of installed distributions; hook up the HTML report where
    pytest-html is used.
    """
    option = config.option
    for word in SEVERITIES:
        config.addinivalue_line("markers", f"{word}: rules of this severity (pytest-mlflow-compliance)")
    # What pickletools thinks of a text in somebody's pickle is nothing that whoever runs this can mend.
    config.addinivalue_line("filterwarnings", "ignore:invalid escape sequence:DeprecationWarning:pickletools")
    # What says how to repair asks for it too.
    option.compliance_fix = option.compliance_fix or (option.fix_safe and not option.fix_dry_run)
    try:
        _check(flags_of(config), config)
        add_installed(config)
        find_pasted(config)
    except ComplianceError as error:
        raise pytest.UsageError(str(error)) from error
    tell_junit_facts(config)
    if config.pluginmanager.hasplugin("html"):
        from mlflow_compliance.session.html import HtmlReport

        config.pluginmanager.register(HtmlReport(config), "mlflow_compliance.session.html")


def _refuse_several(config: pytest.Config, flags: Flags) -> None:
    """Each command does one thing, and none goes with a repair, or with what narrows one."""
    of_repairs = {
        "--fix": flags.fix,
        "--fix-safe": flags.fix_safe,
        "--fix-plan": flags.plan is not None and not flags.purge,
    }
    asked = [spelling.name for _, spelling in commands_in(lambda dest: getattr(config.option, dest))]
    asked += [name for name, given in of_repairs.items() if given and asked]
    if len(asked) > 1:
        raise ComplianceError(f"{' and '.join(asked[:2])} exclude each other: give one of them")


def _check(flags: Flags, config: pytest.Config) -> None:
    """Raise ComplianceError where flags do not go together, or one of them says nothing that can be done."""
    option, repairs = config.option, flags.fix or flags.fix_dry_run
    _refuse_several(config, flags)
    if repairs and (getattr(option, "numprocesses", None) or hasattr(config, "workerinput")):
        raise ComplianceError(
            "--fix and --fix-dry-run do not run under pytest-xdist: leave -n out (checks alone may run with it)"
        )
    if flags.fix and (option.setuponly or option.setupplan):
        raise ComplianceError(
            "--fix changes the store, and --setup-only and --setup-plan run no test that could verify it: leave "
            "them out"
        )
    if flags.fix and flags.fix_dry_run:
        raise ComplianceError("--fix and --fix-dry-run exclude each other: the dry run shows what --fix will do")
    if flags.limit is not None and flags.limit < 0:
        raise ComplianceError("--fix-max takes a number of entities, 0 or more")
    if flags.limit is not None and not repairs:
        raise ComplianceError("--fix-max limits --fix or --fix-dry-run: give one of them")
    if flags.plan is not None and not repairs and not flags.purge:
        raise ComplianceError(
            "--fix-plan is written by --fix-dry-run and carried out by --fix: give one of them with it"
        )
    if flags.plan is not None and not flags.plan.strip():
        raise ComplianceError("--fix-plan takes a file")
    if flags.owned_roots and not (repairs or flags.purge) and flags.undo is None:
        raise ComplianceError(
            "--fix-owned-root is about what --fix, --fix-dry-run or --fix-undo may change: give one of them"
        )
    if (flags.gc_options is not None or flags.gc_older_than is not None) and not flags.gc_preflight:
        raise ComplianceError(
            "--compliance-gc-older-than and --compliance-gc-options are about --compliance-gc-preflight: give it too"
        )
    if flags.show not in SHOWS:
        raise ComplianceError(f"--compliance-show takes {', '.join(SHOWS[:-1])} or {SHOWS[-1]}, not {flags.show!r}")
    if flags.fail_on is not None and flags.fail_on not in SEVERITIES:
        raise ComplianceError(
            f"--compliance-fail-on takes a severity, one of {', '.join(SEVERITIES)}, not {flags.fail_on!r}"
        )
    for name, file in (("", flags.baseline), ("-write", flags.baseline_write)):
        if file is not None and not file.strip():
            raise ComplianceError(f"--compliance-baseline{name} takes a file")
    if flags.owner is not None and not flags.owner.strip():
        raise ComplianceError("--compliance-owner takes a name")
    if flags.owner is not None and flags.baseline_write:
        raise ComplianceError(
            "--compliance-baseline-write keeps what is wrong with the whole store: leave --compliance-owner out"
        )
    if flags.baseline_write:
        from mlflow_compliance.audit.baseline import refuse_to_replace

        refuse_to_replace(config.invocation_params.dir / Path(flags.baseline_write).expanduser())
    if flags.reports:
        from mlflow_compliance.session.reports import asked_in

        asked_in(flags.reports, config.invocation_params.dir)
    if flags.executor != Flags.executor:
        from mlflow_compliance.executors import check_executor

        check_executor(flags.executor)
    if flags.hash_cache is not None and not flags.hash_cache.strip():
        raise ComplianceError("--compliance-hash-cache takes a folder, 'user' for the user's cache folder, or 'off'")
