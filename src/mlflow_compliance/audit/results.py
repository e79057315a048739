"""What an audit has to say, as typed values: one Result a check, one Summary a session, and the Report of both. Every
output is made of a Report alone.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FIXED = "fixed"
"""Outcome of a check that failed before the repair and passes now; the others are in `rules.outcome`."""
SWITCHED_OFF = "switched off"

FAILING = "failing"
"""Status of a finding that fails the gate."""
WARNING = "warning"
"""Status of one that is less severe than `[gate] fail_on` asks for."""
KNOWN = "known"
"""Status of one that stands in the baseline."""
WAIVED = "waived"
"""Status of one that the settings waive."""
STATUSES = (FAILING, WARNING, KNOWN, WAIVED)


def iso(moment: str) -> str:
    """A moment as reports say it ('2027-03-31 12:00:00 UTC') in ISO 8601."""
    return moment.replace(" UTC", "Z").replace(" ", "T")


@dataclass(frozen=True)
class WaivedBy:
    """Why a finding is waived, who answers for it, and the last day (ISO 8601) on which that counts."""

    reason: str
    owner: str
    expires: str
    where: str = ""
    """File and line of the waiver."""

    def __str__(self) -> str:
        return f"until {self.expires} by {self.owner}: {self.reason}"


@dataclass(frozen=True)
class FoundProblem:
    """One finding, in words for people, what --fix would do about it and what people can do."""

    text: str
    code: str
    fingerprint: str
    severity: str
    entity: str
    message: str
    observed: str
    expected: str
    remedy: str
    toml: str = ""
    cause: tuple[str, str] | None = None
    """Policy and entity of the check that tells what this follows from, where there is one."""
    kind: str = ""
    key: str = ""
    """The entity as programs know it: 'experiment' and its id, say."""
    name: str = ""
    """What people call the entity; it may be anything that a store holds."""
    experiment: str = ""
    """Name of the experiment that the entity lies in, empty where it lies in none."""
    fixable: bool = False
    """Whether --fix has changes for it; `remedy` says which, or why not."""
    advice: str = ""
    """What people can do about it: a command, a line of TOML or a call, ready to be copied."""
    owner: str = ""
    contact: str = ""
    status: str = FAILING
    waiver: WaivedBy | None = None


@dataclass(frozen=True)
class NotJudged:
    """One entity that a check could not judge, and why."""

    entity: str
    code: str
    reason: str


@dataclass(frozen=True)
class Result:
    """How one check ended. Plain values, so that a worker of pytest-xdist can hand it over."""

    policy: str
    title: str
    severity: str
    outcome: str
    """Passed, failed, not evaluated, not applicable, fixed or switched off; or, where none of its findings fails the
    gate, the first of 'warning', 'known' and 'waived' that is the status of one.
    """
    entity: str = ""
    removed: bool = False
    """Whether it was fixed by putting its entity away."""
    done: tuple[str, ...] = ()
    """What the repair did about it."""
    findings: tuple[FoundProblem, ...] = ()
    unevaluated: tuple[NotJudged, ...] = ()
    reason: str = ""
    """Why it was skipped."""
    reported: bool = False
    """Whether the failure that pytest shows tells the same."""
    notes: tuple[str, ...] = ()
    examined: tuple[tuple[str, str], ...] = ()
    """(kind, key) of the entities that it was given."""
    nodeid: str = ""
    """What selects this check on pytest's command line."""
    fails: bool = False
    """Whether it fails the gate: by a finding, or because it could not judge what must be judged."""
    was: tuple[str, ...] = ()
    """What was found before the repair, in words for people, where it is fixed."""
    others: int = 0
    """What it has to say of entities of other owners, where one owner was asked for: it is not told."""

    @property
    def fixed(self) -> bool:
        return self.outcome == FIXED

    def plain(self) -> dict[str, Any]:
        """As values that JSON knows."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Result:
        """From what `plain` gave, also after a way through JSON, which makes lists of tuples."""
        known = {each.name: plain[each.name] for each in fields(cls)}
        known["findings"] = tuple(
            FoundProblem(
                **{
                    **item,
                    "cause": item["cause"] and tuple(item["cause"]),
                    "waiver": item["waiver"] and WaivedBy(**item["waiver"]),
                }
            )
            for item in known["findings"]
        )
        known["unevaluated"] = tuple(NotJudged(**item) for item in known["unevaluated"])
        known["examined"] = tuple((kind, key) for kind, key in known["examined"])
        for name in ("done", "notes", "was"):
            known[name] = tuple(known[name])
        return cls(**known)


@dataclass(frozen=True)
class Line:
    """A line for people, and whether all is well with what it tells."""

    text: str
    ok: bool = True


@dataclass(frozen=True)
class RuleFacts:
    """A rule that was collected. `enabled` says whether the settings leave it on."""

    id: str
    title: str
    severity: str
    enabled: bool = True
    advice: str = ""
    clauses: tuple[str, ...] = ()
    """What it gives evidence for: 'EU AI Act Art. 12', say."""


@dataclass(frozen=True)
class ProductFacts:
    """What is in production for one product, as far as it is found; empty texts for what is not."""

    name: str
    experiment: str = ""
    experiment_id: str = ""
    run: str = ""
    run_id: str = ""
    since: str = ""
    """When its production run ended or was put in production (ISO 8601, UTC)."""
    registered_model: str = ""
    alias: str = ""
    version: str = ""
    threshold: str = ""
    model_sha256: str = ""


@dataclass(frozen=True)
class ExperimentFacts:
    """An experiment, the bytes of its artifacts and how many of those are repeats; None where no file was read."""

    experiment_id: str
    name: str
    lifecycle: str
    runs: int | None
    """None where they were not counted."""
    owner: str = ""
    """Who answers for it by the settings or by its tags; empty where neither says so."""
    bytes: int | None = None
    reclaimable: int | None = None


@dataclass(frozen=True)
class BaselineFacts:
    """What a baseline says: its file, how many of its findings are there still, and those that are gone."""

    file: str
    known: int
    gone: tuple[str, ...] = ()
    """Fingerprints."""
    new: int = 0
    """Findings that are not in it, without those that are waived."""


@dataclass(frozen=True)
class HistoryPoint:
    """An earlier audit of the same store, in short."""

    at: str
    """When the store was read (ISO 8601, UTC)."""
    ok: bool
    failing: Mapping[str, int]
    """Severity -> findings that failed the gate."""
    waived: int
    production: Mapping[str, str] = field(default_factory=dict)
    """Product -> the version that was in production, or its run where it has none."""
    fingerprints: tuple[str, ...] | None = None
    """Of the findings that failed. They are kept of the latest point alone, which is the one to compare with; None of
    the others.
    """


@dataclass(frozen=True)
class Summary:
    """What is said of an audit as a whole."""

    head: tuple[str, ...]
    """What was audited, a line each."""
    read_at: str
    known: tuple[str, ...] = ()
    """Ids of every rule of the packs that were collected from, and of the built-in ones."""
    repair: tuple[Line, ...] = ()
    """What --fix did, or why it did nothing."""
    policies: int = 0
    """Rules that were asked."""
    rules: tuple[RuleFacts, ...] = ()
    """Those that were collected, by id."""
    products: tuple[ProductFacts, ...] = ()
    experiments: tuple[ExperimentFacts, ...] = ()
    reclaimable: int | None = None
    """Bytes that repeats of files take; None where no file was read."""
    baseline: BaselineFacts | None = None
    warnings: tuple[str, ...] = ()
    """What is to be looked at soon and fails nothing: a waiver that expires, say."""
    uri: str = ""
    """The store, without credentials."""
    settings: str = ""
    """The settings file as it was given, empty for the defaults."""
    settings_sha256: str = ""
    who: str = ""
    host: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    journals: tuple[str, ...] = ()
    """Ids of the journals of repairs that are at hand."""
    history: tuple[HistoryPoint, ...] = ()
    """Earlier audits, the oldest first; without this one."""
    stopped: str = ""
    """Why the audit came to no verdict, empty for one that did."""
    checks: tuple[tuple[str, int], ...] = ()
    """Rule -> checks that it has where it is asked of everything; those that were collected."""

    @property
    def moment(self) -> str:
        """`read_at` in ISO 8601, empty where nothing was read."""
        return iso(self.read_at)


@dataclass(frozen=True)
class Counts:
    """How many findings and rules there are of each sort."""

    failing: Mapping[str, int]
    """Severity -> findings that fail the gate; likewise the others."""
    warning: Mapping[str, int]
    known: Mapping[str, int]
    waived: Mapping[str, int]
    fixable: int
    """Findings, of those that fail, that --fix mends."""
    ran: int
    """Rules that judged something, or found nothing to judge."""
    off: int
    not_evaluated: int
    """Rules of which at least one check could not judge."""


@dataclass(frozen=True)
class Report:
    """One audit, whole: what every output is made of."""

    summary: Summary
    results: tuple[Result, ...]

    @cached_property
    def findings(self) -> tuple[tuple[Result, FoundProblem], ...]:
        return tuple((result, finding) for result in self.results for finding in result.findings)

    @property
    def ok(self) -> bool:
        """Whether something was checked and nothing fails the gate. It is evidence about what was asked, not
        compliance.
        """
        checked = bool(self.results) and not self.summary.stopped
        return (
            checked
            and not any(result.fails for result in self.results)
            and all(line.ok for line in self.summary.repair)
        )

    @property
    def partial(self) -> bool:
        """Whether some rules were not asked, or not of everything."""
        return bool(self.summary.head) and self.summary.head[0].startswith("PARTIAL")

    @cached_property
    def counts(self) -> Counts:
        by_status: dict[str, Counter[str]] = {status: Counter() for status in STATUSES}
        for _, finding in self.findings:
            by_status[finding.status][finding.severity] += 1
        outcomes: dict[str, set[str]] = {}
        for result in self.results:
            outcomes.setdefault(result.policy, set()).add(result.outcome)
        return Counts(
            **{status: dict(by_status[status]) for status in STATUSES},
            fixable=sum(finding.fixable and finding.status == FAILING for _, finding in self.findings),
            ran=sum(outcome != {SWITCHED_OFF} for outcome in outcomes.values()),
            off=sum(outcome == {SWITCHED_OFF} for outcome in outcomes.values()),
            not_evaluated=len({result.policy for result in self.results if result.unevaluated}),
        )

    def of_rule(self, rule: str) -> Iterator[Result]:
        """The checks of one rule, in the order of the report."""
        return (result for result in self.results if result.policy == rule)
