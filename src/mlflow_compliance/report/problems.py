"""All that keeps a report from being a clean one, as one list: findings, what could not be judged, and an audit that
stopped.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlflow_compliance.audit.results import FAILING, STATUSES, WARNING
from mlflow_compliance.report.severities import SEVERITIES, rank
from mlflow_compliance.safe_text import printable
from mlflow_compliance.settings.files import FILE

if TYPE_CHECKING:
    from mlflow_compliance.audit.results import FoundProblem, Report, Result

STOPPED = "STOPPED"
"""What stands where a rule's id stands, for an audit that came to no verdict."""
LONGEST = 4000
"""Characters of a sentence about one finding."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or that nobody knows. The texts are safe to print; `finding` has them as they are."""

    policy: str
    title: str
    severity: str
    status: str
    text: str
    fingerprint: str
    """Sixteen hex digits or more; no other one of the report has the same."""
    entity: str = ""
    finding: FoundProblem | None = None
    result: Result | None = None
    judged: bool = True


def problems_of(report: Report) -> list[Problem]:
    """What fails first, then by severity and rule."""
    found = [*_stopped(report), *_findings(report), *_unjudged(report)]
    order = {status: number for number, status in enumerate(STATUSES)}
    found.sort(key=lambda item: (order[item.status], rank(item.severity), item.policy))
    return _told_apart(found)


def place_of(problem: Problem, report: Report) -> tuple[str, int]:
    """File and line of the settings that a problem is held to: the one that it names, else the head of the file. A
    store has no lines.
    """
    file, finding = report.summary.settings, problem.finding
    told = f"{finding.observed} {finding.expected}" if file and finding else ""
    named = re.search(re.escape(file) + r":(\d+)", told) if told else None
    return file or FILE, max(int(named[1]), 1) if named else 1


def _stopped(report: Report) -> Iterator[Problem]:
    reason = report.summary.stopped or ("" if report.results else "no check was run")
    if reason:
        text = printable(f"the audit stopped and says nothing about the store: {reason}", LONGEST)
        yield Problem(STOPPED, "The audit came to no verdict", SEVERITIES[0], FAILING, text, _digest(STOPPED))


def _findings(report: Report) -> Iterator[Problem]:
    for result, item in report.findings:
        yield Problem(
            result.policy,
            printable(result.title),
            item.severity,
            item.status,
            printable(item.text, LONGEST),
            item.fingerprint,
            printable(item.entity),
            item,
            result,
        )


def _unjudged(report: Report) -> Iterator[Problem]:
    for result in report.results:
        for item in result.unevaluated:
            yield Problem(
                result.policy,
                printable(result.title),
                result.severity,
                FAILING if result.fails else WARNING,
                printable(f"{item.entity}: could not be judged: {item.reason}", LONGEST),
                _digest(result.policy, item.code, item.entity),
                printable(item.entity),
                result=result,
                judged=False,
            )


def _digest(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode(errors="surrogatepass")).hexdigest()[:16]


def _told_apart(found: list[Problem]) -> list[Problem]:
    """A rule may find one code of an entity twice; readers of a file keep one of those that have the same
    fingerprint.
    """
    seen: dict[str, int] = {}
    made = []
    for item in found:
        number = seen[item.fingerprint] = seen.get(item.fingerprint, 0) + 1
        made.append(item if number == 1 else replace(item, fingerprint=_digest(item.fingerprint, str(number))))
    return made
