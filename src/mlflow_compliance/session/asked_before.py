"""A check that a repair asked of the store that pytest asks it of says what it said then: each rule is asked once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlflow_compliance.session.state import VIOLATIONS, audit_of, case_of, rule_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from mlflow_compliance.rules.evaluation import Verdict


@contextmanager
def asked_once(item: pytest.Function) -> Iterator[None]:
    """Within it a check that was asked is called no more. One that failed by an assertion, crashed or printed is:
    pytest tells more of it when it calls it.
    """
    verdict = _verdict(item)
    if verdict is None:
        yield
        return
    check = item.obj

    def told(**_: object) -> None:
        violations = item.stash.get(VIOLATIONS, None)
        if violations is not None:
            violations.findings += verdict.findings
            violations.unevaluated += verdict.unevaluated
            violations.offers += verdict.offers
            violations.notes += verdict.notes
        if verdict.ended_by is not None:
            raise verdict.ended_by

    item.obj = told
    try:
        yield
    finally:
        item.obj = check


def _verdict(item: pytest.Function) -> Verdict | None:
    rule, audit = rule_of(item), audit_of(item.config)
    if rule is None or audit is None:
        return None
    return audit.asked_before(rule, case_of(item, rule))
