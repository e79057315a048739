"""Whether a finding fails the gate: by its severity, the waivers and the baseline. Values in, values out: neither store
nor pytest is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import NamedTuple

from mlflow_compliance.audit.baseline import WRITE, Baseline
from mlflow_compliance.audit.results import FAILING, KNOWN, WAIVED, WARNING, WaivedBy
from mlflow_compliance.errors import BaselineError
from mlflow_compliance.repair.plan_document import facts_of
from mlflow_compliance.rules.finding import CRASHED, NOTHING_TO_EXAMINE, Finding, Severity
from mlflow_compliance.rules.waivers import waiver_of
from mlflow_compliance.settings.gate import Waiver
from mlflow_compliance.settings.schema import Settings
from mlflow_compliance.snapshot.snapshot import Snapshot

ALWAYS_FAIL = (CRASHED, NOTHING_TO_EXAMINE)
"""Codes of what says that nothing was looked at: no waiver and no baseline knows what it would have found."""


class Judged(NamedTuple):
    """Status of a finding, and what waives it."""

    status: str
    waiver: WaivedBy | None = None

    def __str__(self) -> str:
        if self.waiver is not None:
            return f"{self.status} {self.waiver}"
        return self.status


@dataclass(frozen=True)
class Judge:
    """What decides over findings in one audit."""

    fail_on: Severity
    today: date
    """In UTC, the same for the whole audit, whatever midnight passes."""
    waivers: tuple[Waiver, ...] = ()
    places: tuple[str, ...] = ()
    """File and line of each waiver."""
    days: tuple[str, ...] = ()
    """File and line of the last day of each."""
    baseline: Baseline | None = None
    writes: bool = False
    """Whether a baseline is made of this audit: all that it will hold is known."""
    experiments: Mapping[str, int] = field(default_factory=dict)
    """Those of the store, id -> time of creation in milliseconds."""
    oldest: Mapping[str, int] = field(default_factory=dict)
    """Of these the ones that a baseline tells this store by."""

    @classmethod
    def of(cls, settings: Settings, today: date, fail_on: str | None = None) -> Judge:
        """As settings say it; `fail_on` wins over them."""
        numbers = range(len(settings.waivers))
        return cls(
            Severity(fail_on or settings.gate.fail_on),
            today,
            settings.waivers,
            tuple(map(settings.origin_of_waiver, numbers)),
            tuple(settings.origin_of_waiver(number, "expires") for number in numbers),
        )

    @classmethod
    def built_in(cls) -> Judge:
        """Before whom every finding fails."""
        return cls(Severity.LOW, date.min)

    def against(self, baseline: Baseline | None, snapshot: Snapshot) -> Judge:
        """The same, who knows the store and what is known of it. Raises BaselineError where that is of another one."""
        created = {key: item.created for key, item in snapshot.experiments.items()}
        why = baseline.of_another_store(created) if baseline else ""
        if baseline and why:
            raise BaselineError(
                f"the baseline {baseline.file} is of another store ({why}): write one of this store with {WRITE}=FILE"
            )
        return replace(self, baseline=baseline, experiments=created, oldest=facts_of(snapshot, "").experiments)

    def judged(self, finding: Finding, severity: str) -> Judged:
        """What a finding of a severity counts as."""
        if finding.code in ALWAYS_FAIL:
            return Judged(FAILING)
        if waiver := self.waived(finding):
            return Judged(WAIVED, waiver)
        if self.writes or (self.baseline is not None and finding.fingerprint in self.baseline.entries):
            return Judged(KNOWN)
        return Judged(FAILING if Severity(severity).rank >= self.fail_on.rank else WARNING)

    def waived(self, finding: Finding) -> WaivedBy | None:
        """What waives a finding today."""
        number = waiver_of(self.waivers, finding.policy, finding.entity, self.today)
        if number is None or finding.code in ALWAYS_FAIL:
            return None
        found = self.waivers[number]
        return WaivedBy(found.reason, found.owner, str(found.expires), self.places[number])

    def stays(self, finding: Finding) -> str:
        """Why no repair may mend a finding today, empty where one may."""
        waiver = self.waived(finding)
        return f"waived {waiver}" if waiver else ""


def outcome_without_failing(statuses: Collection[str]) -> str:
    """Outcome of a check none of whose findings fails the gate; empty where it has none."""
    return next((status for status in (WARNING, KNOWN, WAIVED) if status in statuses), "")
