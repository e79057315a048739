"""The session of an audit: one object in config.stash that the plugin's hooks delegate to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_compliance.apply import Outcome, apply_plan, differences, expected_after
from mlflow_compliance.entities import Snapshot
from mlflow_compliance.errors import ChangeError, ComplianceError, PlanError, StoreError
from mlflow_compliance.journal import Journal, only_one
from mlflow_compliance.plan import Plan, make_plan, not_now
from mlflow_compliance.progress import Progress
from mlflow_compliance.readings import Alone, FilesNotRead, Readings, Sharing
from mlflow_compliance.rules.evaluation import cases, verdict_of
from mlflow_compliance.rules.finding import Finding, Severity
from mlflow_compliance.rules.fixer import Remedy, load_fixers, propose, summary_of
from mlflow_compliance.rules.policy import AXES, OF_FILES, Policy
from mlflow_compliance.rules.selecting import selects
from mlflow_compliance.settings import Settings, find_settings, load_settings

if TYPE_CHECKING:
    # The store package is imported when a store is opened: a test session without policies pays nothing for it.
    from mlflow_compliance.store.opening import Store


_FEW = 5
"""Names in one line of the head."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    rootdir: Path
    workdir: Path
    """Where the command was started: settings are looked for from here, as git does."""
    tracking_uri: str | None = None
    config: str | None = None
    fixers: tuple[str, ...] = ()
    fix: bool = False
    limit: int | None = None
    executor: str = "threads"
    hash_cache: str | None = None
    """What --hash-cache says; None leaves it to the settings."""
    metadata_only: bool = False
    rules: tuple[str, ...] = ()
    """Ids and patterns of the rules that --compliance-rules asks for; empty for every rule."""
    owned_roots: tuple[str, ...] = ()
    """Artifact roots that --fix-owned-root names."""


@dataclass
class Repair:
    """What --fix did, or --fix-dry-run would do."""

    plan: Plan
    outcome: Outcome | None = None
    journal: str = ""
    unlike: list[str] = field(default_factory=list)
    """Where the store read afterwards differs from the plan. Anything here fails the run."""

    def lines(self) -> Iterator[tuple[str, bool]]:
        """What was done, in lines for people, each with whether all is well with it; none where nothing was carried out."""
        if self.outcome is None:
            return
        yield f"repair: {len(self.outcome.applied)} of {len(self.plan.changes)} changes made; journal: {self.journal}", True
        for _, reason in self.outcome.failed:
            yield f"not done: {reason}", False
        if not self.unlike:
            yield "verified: the store, read anew, is what was planned", True
        for line in self.unlike:
            yield f"not as planned: {line}", False


class Audit:
    """Reads the store once, hands entities to checks, and repairs when asked."""

    def __init__(self, options: Options, progress: Callable[[], Progress], sharing: Sharing | None = None) -> None:
        self.options = options
        self.progress = progress
        self.policies: dict[str, Policy] = {}
        self.repair: Repair | None = None
        self.error: ComplianceError | None = None
        self._settings: Settings | None = None
        self._store: Store | None = None
        self._readings = Readings(sharing or Alone())
        self._remedies: Mapping[str, Remedy] | None = None

    @property
    def settings(self) -> Settings:
        """The settings, read when they are first needed."""
        if self._settings is None:
            named = self.options.config
            path = self.options.workdir / named if named else find_settings(self.options.workdir)
            self._settings = load_settings(path)
        return self._settings

    @property
    def uri(self) -> str:
        """The tracking URI: --tracking-uri, else MLFLOW_TRACKING_URI, else the settings."""
        settings = self.settings
        return settings.store.wanted_uri(self.options.tracking_uri, settings.base)

    @property
    def store(self) -> Store:
        if self._store is None:
            from mlflow_compliance.store.opening import open_store

            self._store = open_store(
                self.uri,
                self.settings,
                str(self.options.rootdir),
                executor=self.options.executor,
                hash_cache=self._hash_cache,
                owned_roots=[str(self.options.workdir / Path(root).expanduser()) for root in self.options.owned_roots],
            )
        return self._store

    @property
    def _hash_cache(self) -> str | None:
        """What names the folder of the hash cache: the flag, from where the command was given, else the settings."""
        given = self.options.hash_cache
        if given is None:
            return None
        return given if given in ("user", "off") else str(self.options.workdir / Path(given).expanduser())

    @property
    def opened(self) -> bool:
        """Whether a store was read in this session."""
        return self._readings.latest is not None

    def snapshot(self, *, artifacts: bool) -> Snapshot:
        """The store as it was when this session last read it; its files too, where a check asks for them."""
        return self._readings.snapshot(self.store, self.progress(), artifacts=artifacts)

    @property
    def moved(self) -> int:
        """When the rows that rules without files were told of had been read, 0 where all rules saw the store of one moment."""
        return self._readings.moved

    def add(self, rule: Policy) -> None:
        """Take in a collected policy. Raises ComplianceError where another one has its id."""
        known = self.policies.setdefault(rule.id, rule)
        if known is not rule and _place(known) != _place(rule):
            self.error = ComplianceError(f"two policies have the id {rule.id}: {_place(known)} and {_place(rule)}; give one another id")
        self.policies[rule.id] = rule

    def check(self, known_ids: set[str]) -> None:
        """Raise SettingsError where the settings speak of a policy that is in no pack at hand."""
        self.settings.check_policy_ids(known_ids | self.policies.keys())

    def check_any_enabled(self, selected: Iterable[Policy]) -> None:
        """Raise ComplianceError where the settings switch off every policy that was selected: no rule run is no compliance."""
        rules = list(selected)
        if rules and not any(map(self.enabled, rules)):
            raise ComplianceError("every policy that was selected is switched off in the settings: nothing would be examined")

    def findings_by_case(self, only: Mapping[str, frozenset[str]]) -> dict[tuple[str, str], list[Finding]]:
        """(policy id, case key) -> findings in the store as it is now, for the policies that were selected."""
        rules = [rule for rule in self.policies.values() if rule.id in only and rule.evaluable]
        snapshot = self.snapshot(artifacts=True)
        return {
            (rule.id, case.key): list(verdict_of(rule, case, snapshot, self.settings).findings)
            for rule in rules
            for case in cases(rule, snapshot, self.settings)
        }

    def done(self, findings: list[Finding]) -> list[str]:
        """What the repair did about findings, in lines for people."""
        outcome = self.repair.outcome if self.repair else None
        return [line for finding in findings for line in outcome.done.get(finding.fingerprint, ())] if outcome else []

    def keys(self, rule: Policy, axis: str) -> list[str]:
        """The case ids of one axis of a policy. Without a store they are one that fails."""
        if self.error is not None:
            return ["unread"]
        try:
            return list(AXES[axis].members(self.snapshot(artifacts=axis in OF_FILES), self.settings))
        except ComplianceError as error:
            self.error = error
            return ["unread"]

    def resolve(self, axis: str, key: str, *, artifacts: bool) -> object | None:
        """The entity behind a case id in the current snapshot, None when it is gone."""
        return AXES[axis].members(self.snapshot(artifacts=artifacts), self.settings).get(key)

    def severity(self, rule: Policy, findings: Sequence[Finding] = ()) -> Severity:
        """A policy's severity, or that of the worst of some findings of it; the settings may say another."""
        own = self.settings.policies.get(rule.id)
        if own and own.severity:
            return Severity(own.severity)
        return max((finding.severity or rule.severity for finding in findings), key=lambda found: found.rank, default=rule.severity)

    def requires_evidence(self, rule: Policy) -> bool:
        """Whether a check of a policy that could not judge fails the gate."""
        return self.severity(rule).value in self.settings.gate.require_evidence

    def enabled(self, rule: Policy) -> bool:
        own = self.settings.policies.get(rule.id)
        return own is None or own.enabled

    def left_out(self, rule: Policy) -> bool:
        """Whether --metadata-only leaves a policy out."""
        return self.options.metadata_only and rule.reads_artifacts

    def asked(self, rule: Policy) -> bool:
        """Whether --compliance-rules asks for a policy."""
        return selects(self.options.rules, rule.id)

    @property
    def remedies(self) -> Mapping[str, Remedy]:
        if self._remedies is None:
            self._remedies = load_fixers(self.options.fixers, self.options.rootdir)
        return self._remedies

    def remedy(self, finding: Finding) -> str:
        """What --fix would do about a finding, or why it would not, in one line."""
        try:
            changes, reason = propose(self.remedies, finding, self._for_remedies(), self.settings)
        except ComplianceError as error:
            return str(error)
        if not changes:
            return reason
        if waits := self.settings.store.relocate and not_now(changes, self._for_remedies()):
            return waits
        what = summary_of(self.remedies[finding.policy]) or changes[0].says()
        counted = f"{what} ({len(changes)} change{'s' if len(changes) > 1 else ''})"
        return f"Only audited here, else: {counted}" if self.refusal() else counted

    def _for_remedies(self) -> Snapshot:
        """What remedies are shown for a report: files only where a rule has read them, or where it depends on them whether --fix writes at all."""
        snapshot = self.snapshot(artifacts=bool(self.settings.store.relocate))
        return snapshot if snapshot.artifacts is not None else FilesNotRead.of(snapshot)

    def refusal(self) -> str:
        """Why --fix would not write to this store, empty where it would."""
        from mlflow_compliance.store.opening import refuse_writing

        try:
            refuse_writing(self.store, self.snapshot(artifacts=bool(self.settings.store.relocate)))
        except ComplianceError as error:
            return str(error)
        return ""

    def plan(self, only: Mapping[str, frozenset[str]]) -> Plan:
        """The plan for the findings of the collected cases. Raises PlanError where it is larger than --fix-max allows."""
        rules = [rule for rule in self.policies.values() if rule.id in only and rule.evaluable]
        made = make_plan(rules, self.remedies, self.snapshot(artifacts=True), self.settings, only)
        limit = self.options.limit
        if limit is not None and len(made.entities) > limit:
            size = len(made.entities)
            raise PlanError(f"the plan changes {size} entities and --fix-max allows {limit}: nothing was changed; raise it, or select with -k")
        return made

    def mend(self, only: Mapping[str, frozenset[str]], tell: Callable[[Plan], None]) -> None:
        """Plan, `tell` the plan, and with --fix carry it out and read the store anew."""
        if not self.options.fix:
            self.repair = Repair(self.plan(only))
            tell(self.repair.plan)
            return
        from mlflow_compliance.store.opening import refuse_writing

        refuse_writing(self.store, self.snapshot(artifacts=True))
        self.repair = Repair(self.plan(only))
        if self.repair.plan.steps:
            with only_one(self.store.folder), self.store.backend.lock():
                # Planned again under the lock: another repair may just have ended.
                self._readings.forget()
                self.repair = Repair(self.plan(only))
                tell(self.repair.plan)
                if self.repair.plan.steps:
                    self._apply(self.repair)
        else:
            tell(self.repair.plan)

    def _apply(self, repair: Repair) -> None:
        from mlflow_compliance.store.changing.writing import StoreWriter

        binding: dict[str, str] = {}
        writer = StoreWriter(self.store, binding)
        journal = Journal(self.store.folder, datetime.now(timezone.utc))
        repair.journal = journal.path
        progress = self.progress()
        progress.start("Repairing", len(repair.plan.changes))
        try:
            repair.outcome = apply_plan(repair.plan, writer, binding, journal, self.store.info.uri, lambda: progress.advance(1))
        finally:
            progress.stop()
            self._readings.forget()
        try:
            expected = expected_after(repair.plan.start, repair.outcome.applied, binding)
        except ChangeError as error:
            # A change was made although one that it was planned on had failed.
            repair.unlike = [f"what the store must be now cannot be told: {error}"]
            return
        try:
            found = self.store.read(artifacts=True, also=tuple(expected.runs), progress=self.progress())
        except StoreError as error:
            done = f"{len(repair.outcome.applied)} of {len(repair.plan.changes)} changes were made, journal: {journal.path}"
            raise StoreError(f"the store cannot be read anew to see whether it is what was planned ({done}); {error}") from error
        self._readings.put(found)
        repair.unlike = differences(expected, found)


def _place(rule: Policy) -> str:
    return f"{rule.check.__code__.co_filename}::{rule.check.__qualname__}"


def _counted(names: Sequence[str], what: str) -> str:
    """How many there are, and the first of them."""
    shown = ", ".join(names[:_FEW]) + (f" and {len(names) - _FEW} more" if len(names) > _FEW else "")
    return f"{len(names)} {what}{'s' * (len(names) != 1)}: {shown}"


def _time(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


@dataclass(frozen=True)
class Heading:
    """What a report says of an audit as a whole: plain values, so that a worker of pytest-xdist can hand it over."""

    lines: tuple[str, ...]
    read_at: str
    policies: int


def heading(audit: Audit) -> Heading:
    """The head of the reports on a store that was read."""
    examined = sum(map(audit.asked, audit.policies.values()))
    return Heading(tuple(_lines_of(audit)), _time(audit.snapshot(artifacts=False).taken_at), examined)


def _lines_of(audit: Audit) -> Iterator[str]:
    snapshot = audit.snapshot(artifacts=False)
    runs: dict[str, int] = {}
    for item in snapshot.experiments.values():
        for (lifecycle, status), number in item.runs.items():
            name = status if lifecycle == "active" else "deleted"
            runs[name] = runs.get(name, 0) + number
    active = sum(item.active for item in snapshot.experiments.values())
    counted = ", ".join(f"{number} {name}" for name, number in sorted(runs.items()))
    yield f"store: {snapshot.info.uri} ({snapshot.info.backend}{', schema ' + snapshot.info.schema if snapshot.info.schema else ''})"
    yield f"experiments: {active} active, {len(snapshot.experiments) - active} deleted; runs: {sum(runs.values())} ({counted})"
    yield f"registered models: {len(snapshot.registered_models)}, versions: {sum(len(item.versions) for item in snapshot.registered_models.values())}"
    if snapshot.other_workspaces:
        yield f"not read: {_counted(snapshot.other_workspaces, 'other workspace')} (MLFLOW_WORKSPACE names the one to audit)"
    if snapshot.lost_rows:
        lost = ", ".join(f"{item.rows} of {item.table} without {item.parent}" for item in snapshot.lost_rows)
        yield f"rows whose parent is not there, and that MLflow shows nobody: {lost}"
    if audit.moved:
        yield f"the store was changed during the audit: rules about files saw it as it was later than {_time(audit.moved)}, when the others did"
    if snapshot.artifacts is not None:
        files, roots = snapshot.artifacts.files, snapshot.artifacts.roots
        stored = {file.copy: file.size for file in files.values()}
        size, where = sum(file.size for file in files.values()), ", ".join(root.path for root in roots) or "no folder"
        yield f"artifacts: {len(files)} files, {size} bytes, {sum(stored.values())} of them on disk, in {where}"
        for prefix, rows in sorted(snapshot.artifacts.relocated.items()):
            yield f"relocated: {rows} rows say {prefix}, a place that is not used here; read through [store.relocate]"
    if audit.options.rules:
        others = sum(not audit.asked(rule) for rule in audit.policies.values())
        yield f"limited by --compliance-rules to {', '.join(audit.options.rules)}: {others} other rules were not asked"
    left = sorted(rule.id for rule in audit.policies.values() if audit.left_out(rule) and audit.asked(rule))
    if left:
        yield f"left out by --metadata-only, so nothing is said of files: {', '.join(left)}"
    off = sorted(rule.id for rule in audit.policies.values() if not audit.enabled(rule))
    if off:
        yield f"switched off in the settings: {', '.join(off)}"
