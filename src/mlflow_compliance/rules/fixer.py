"""How a remedy is declared and loaded: functions from a finding to changes, tied to policies by id alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import NamedTuple

from mlflow_compliance.changes import Change, RemoveRepeatedPoints, holds_secrets
from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.production.context import Context
from mlflow_compliance.rules.advice import filled
from mlflow_compliance.rules.finding import Finding

Fixer = Callable[[Finding, Context], Iterator[Change]]

ATTRIBUTE = "__compliance_fixer__"
_READS_FILES = "__compliance_reads_files__"
_LAST = "__compliance_last__"


class Unfixable(Exception):  # noqa: N818  it is an answer, not an error
    """Raised by a fixer: the finding stays. `reason` says why nothing is changed, `advice` what people can do: a
    command, a line of TOML or a call, in which words such as RUN_ID are filled in (see `rules.advice`).
    """

    def __init__(self, reason: str = "", *, advice: str = "") -> None:
        super().__init__(": ".join(filter(None, (reason, advice))))
        self.reason, self.advice = reason, advice


RULE_ADVICE = "RULE_ADVICE"
"""Stands in the advice of an Unfixable for that of its rule, which is else not given: it may be what was refused."""


class Proposal(NamedTuple):
    """What a remedy does about a finding: changes, or none and why not; and what people can do, None for what the
    rule says.
    """

    changes: tuple[Change, ...] = ()
    reason: str = ""
    advice: str | None = None

    @property
    def refusal(self) -> str:
        """Why there are no changes, and what people can do, in one line."""
        return ": ".join(filter(None, (self.reason, self.advice)))


FILES_NOT_READ = "depends on files, which no rule of this session reads: --fix-dry-run tells"
ONLY_AUDITED = "a file store is only audited, but for repeated metric points"
MIGRATE = "take it over first: `mlflow migrate-filestore --source mlruns --target sqlite:///mlflow.db`"
HOLDS_SECRETS = (
    "a text that it would change holds a password or token, and the journal would keep it: take that out of the store "
    "first"
)


def fixer(
    policy_id: str, *more: str, reads_files: bool = False, last: bool = False
) -> Callable[[Callable[..., Iterator[Change]]], Fixer]:
    """Declare the function below as the remedy for the findings of a policy, or of several.

    One that says `reads_files=True` is asked only where files were read (with --fix they always are): in a session
    without them it would take what nobody looked at for nothing. One that says `last=True` is asked when no other has
    anything to do any more: what vouches for a store comes after what mends it.
    """

    def declare(remedy: Callable[..., Iterator[Change]]) -> Fixer:
        made = _with_context(remedy)
        setattr(made, ATTRIBUTE, (policy_id, *more))
        setattr(made, _READS_FILES, reads_files)
        setattr(made, _LAST, last)
        return made

    return declare


def _with_context(remedy: Callable[..., Iterator[Change]]) -> Fixer:
    """A fixer as it is called; one written for an earlier version takes snapshot and settings apart."""
    if len(inspect.signature(remedy).parameters) < 3:
        return remedy

    @wraps(remedy)
    def called(finding: Finding, context: Context) -> Iterator[Change]:
        return remedy(finding, context.snapshot, context.settings)

    return called


def propose(remedies: Mapping[str, Fixer], finding: Finding, context: Context, advice: str) -> Proposal:
    """The changes that would mend a finding, or none and the reason why not; `advice` is what the policy says of all
    its findings.
    """
    remedy, advice = remedies.get(finding.policy), filled(finding.advice or advice, finding)
    if remedy is None:
        return Proposal(advice=advice) if advice else Proposal(reason="no fixer: to be mended by hand")
    if context.snapshot.artifacts is None and getattr(remedy, _READS_FILES, False):
        return Proposal(reason=FILES_NOT_READ)
    try:
        changes = tuple(remedy(finding, context))
    except Unfixable as answer:
        own = filled(answer.advice.replace(RULE_ADVICE, advice), finding)
        return Proposal(reason=answer.reason, advice=own)
    except ComplianceError:
        raise
    except Exception as crash:  # noqa: BLE001  a user's fixer may raise anything; the finding stays
        return Proposal(
            reason=f"its fixer {remedy.__name__} crashed ({type(crash).__name__}: {crash}): mend it", advice=""
        )
    if context.snapshot.info.backend == "file" and not all(
        isinstance(change, RemoveRepeatedPoints) for change in changes
    ):
        return Proposal(reason=ONLY_AUDITED, advice=MIGRATE)
    if any(map(holds_secrets, changes)):
        return Proposal(reason=HOLDS_SECRETS)
    return Proposal(changes)


def comes_last(remedy: Fixer | None) -> bool:
    """Whether a remedy waits for all others."""
    return bool(getattr(remedy, _LAST, False))


def summary_of(remedy: Fixer) -> str:
    """What a remedy does: the first paragraph of its docstring, on one line."""
    return " ".join((remedy.__doc__ or "").strip().partition("\n\n")[0].split())
