"""The session of an audit: one object in config.stash that the plugin's hooks delegate to."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from mlflow_compliance.audit.baseline import Baseline, read_baseline
from mlflow_compliance.audit.judging import Judge
from mlflow_compliance.audit.owners import Owned, is_of, owner_of, refuse_unknown
from mlflow_compliance.audit.planning import Planning
from mlflow_compliance.audit.snapshots import Alone, Sharing, SnapshotCache
from mlflow_compliance.errors import ComplianceError, PlanError
from mlflow_compliance.production.context import Context
from mlflow_compliance.production.keys import keys_of
from mlflow_compliance.repair.journal import Heading
from mlflow_compliance.repair.plan import Plan, make_plan, not_now
from mlflow_compliance.repair.plan_document import facts_of
from mlflow_compliance.repair.run import Repair, carry_out
from mlflow_compliance.rules.evaluation import cases, verdict_known, verdict_of
from mlflow_compliance.rules.finding import Finding, Severity
from mlflow_compliance.rules.fixer import FILES_NOT_READ, Fixer, propose, summary_of
from mlflow_compliance.rules.listening import listening
from mlflow_compliance.rules.packs import load_fixers
from mlflow_compliance.rules.policy import FILE_PARAMETERS, PARAMETERS, Policy
from mlflow_compliance.rules.selecting import selects
from mlflow_compliance.settings.flags import Flags
from mlflow_compliance.settings.schema import Settings, find_settings, load_settings
from mlflow_compliance.snapshot.diff import is_same
from mlflow_compliance.snapshot.journals import EXPERIMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from mlflow_compliance.audit.judging import Judged
    from mlflow_compliance.production.keys import SigningKey
    from mlflow_compliance.progress import Progress
    from mlflow_compliance.repair.apply import Writer
    from mlflow_compliance.repair.limits import Limit
    from mlflow_compliance.repair.plan_document import StoreFacts
    from mlflow_compliance.rules.evaluation import Verdict
    from mlflow_compliance.snapshot.refs import EntityRef
    from mlflow_compliance.snapshot.snapshot import Snapshot
    from mlflow_compliance.store.store import Store


@dataclass(frozen=True)
class Options(Flags):
    """What the command line says, and where it was given. Of `rules` the single ids and patterns, empty for every
    rule.
    """

    rootdir: Path
    workdir: Path
    """Settings are looked for from here, as git does."""
    fixers: tuple[str, ...] = ()
    """Folders and packages that the ini option `compliance_fixers` names."""


FOR_PEOPLE = "this is for people to do"
"""Why --fix does nothing where there is advice alone."""


class Remedy(NamedTuple):
    """What --fix would do about a finding, or why it would not, in one line; how many changes that would be; and what
    people can do, where its remedy knows better than the rule.
    """

    text: str
    changes: int = 0
    advice: str | None = None
    """None for what the rule says."""


class Audit:
    """Reads the store once, hands entities to checks, and repairs when asked."""

    def __init__(
        self,
        options: Options,
        progress: Callable[[], Progress],
        sharing: Sharing | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.options = options
        self.progress = progress
        self.tell = tell
        """Shows one line at once, while the store is read."""
        self.policies: dict[str, Policy] = {}
        self.known: set[str] = set()
        """Ids of every rule of the packs at hand, also of those that were not collected."""
        self.repair: Repair | None = None
        self.error: ComplianceError | None = None
        self._settings: Settings | None = None
        self._store: Store | None = None
        self.snapshots = SnapshotCache(sharing or Alone())
        self._remedies: Mapping[str, Fixer] | None = None
        self._context: Context | None = None
        self._said_more: set[tuple[str, str]] | None = None
        """Cases that printed, logged or warned when a repair asked them; None before that."""
        self.planning = Planning(options, options.workdir)

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
            from mlflow_compliance.store.store import open_store

            self._store = open_store(
                self.uri,
                self.settings,
                str(self.options.rootdir),
                executor=self.options.executor,
                hash_cache=self._hash_cache,
                owned_roots=[str(self.options.workdir / Path(root).expanduser()) for root in self.options.owned_roots],
                tell=self.tell,
                count=self.options.count,
                again=self.options.fix,
            )
        return self._store

    @property
    def _hash_cache(self) -> str | None:
        """What names the folder of the hash cache: the flag, from where the command was given, else the settings."""
        given = self.options.hash_cache
        if given is None:
            return None
        return given if given in ("user", "off") else str(self.options.workdir / Path(given).expanduser())

    def use(self, settings: Settings, snapshot: Snapshot) -> None:
        """Ask the rules with these settings and this snapshot, files and evidence with it."""
        self._settings, self._context = settings, None
        self.snapshots.put(snapshot)

    @property
    def opened(self) -> bool:
        """Whether a store was read in this session."""
        return self.snapshots.latest is not None

    def snapshot(self, *, artifacts: bool) -> Snapshot:
        """The store as it was when this session last read it; its files too, where a check asks for them."""
        return self.snapshots.snapshot(self.store, self.progress(), artifacts=artifacts)

    def context(self, *, artifacts: bool) -> Context:
        """What rules and fixers are asked with: one for each time that the store was read."""
        snapshot = self.snapshot(artifacts=artifacts)
        if self._context is None or self._context.snapshot is not snapshot:
            self._context = Context(snapshot, self.settings)
        return self._context

    @property
    def changed_since(self) -> int:
        """When the rows that rules without files were told of had been read, 0 where all rules saw the store of one
        moment.
        """
        return self.snapshots.changed_since

    def add(self, rule: Policy) -> None:
        """Take in a collected policy. Raises ComplianceError where another one has its id."""
        known = self.policies.setdefault(rule.id, rule)
        if known is not rule and _place(known) != _place(rule):
            self.error = ComplianceError(
                f"two policies have the id {rule.id}: {_place(known)} and {_place(rule)}; give one another id"
            )
        self.policies[rule.id] = rule

    def check(self, known_ids: set[str]) -> None:
        """Raise SettingsError where the settings speak of a policy that is in no pack at hand, or of a key that cannot
        be used.
        """
        self.known = known_ids
        self.settings.check_policy_ids(known_ids | self.policies.keys())
        keys_of(self.settings)
        if self.options.owner is not None:
            refuse_unknown(self.options.owner, self.context(artifacts=False))

    def check_any_enabled(self, selected: Iterable[Policy]) -> None:
        """Raise ComplianceError where the settings switch off every policy that was selected: no rule run is no
        compliance.
        """
        rules = list(selected)
        if rules and not any(map(self.enabled, rules)):
            raise ComplianceError(
                "every policy that was selected is switched off in the settings: nothing would be examined"
            )

    def findings_by_case(self, only: Mapping[str, frozenset[str]]) -> dict[tuple[str, str], list[Finding]]:
        """(policy id, case key) -> findings in the store as it is now, for the policies that were selected."""
        rules = [rule for rule in self.policies.values() if rule.id in only and rule.evaluable]
        context, found = self.context(artifacts=True), dict[tuple[str, str], list[Finding]]()
        self._said_more = set()
        with listening() as said:
            for rule in rules:
                for case in cases(rule, context):
                    if case.key in only[rule.id]:
                        before = said()
                        found[rule.id, case.key] = list(verdict_of(rule, case, context).findings)
                        if said() > before:
                            self._said_more.add((rule.id, case.key))
        return found

    def asked_before(self, rule: Policy, key: str) -> Verdict | None:
        """What a case of a policy said of the store as it was last read, where a repair asked it and it said that and
        nothing more.
        """
        if self._said_more is None or (rule.id, key) in self._said_more:
            return None
        if self._context is None or self._context.snapshot is not self.snapshots.latest:
            return None
        verdict = verdict_known(rule, key, self._context)
        whole = verdict is not None and isinstance(verdict.ended_by, pytest.skip.Exception | None)
        return verdict if whole else None

    def done(self, findings: list[Finding]) -> list[str]:
        """What the repair did about findings, in lines for people."""
        outcome = self.repair.outcome if self.repair else None
        return [line for finding in findings for line in outcome.done.get(finding.fingerprint, ())] if outcome else []

    def keys(self, rule: Policy, parameter: str) -> list[str]:
        """The case ids of one parameter of a policy. Without a store they are one that fails."""
        if self.error is not None:
            return ["unread"]
        try:
            return list(PARAMETERS[parameter].entities(self.context(artifacts=parameter in FILE_PARAMETERS)))
        except ComplianceError as error:
            self.error = error
            return ["unread"]

    def checks(self, rule: Policy) -> int:
        """How many checks a policy has where it is asked of everything; 0 where it is left out."""
        if self.left_out(rule):
            return 0
        return prod(len(self.keys(rule, name)) or 1 for name in rule.parameters)

    def resolve(self, parameter: str, key: str, *, artifacts: bool) -> object | None:
        """The entity behind a case id in the current snapshot, None when it is gone."""
        return PARAMETERS[parameter].entities(self.context(artifacts=artifacts)).get(key)

    def severity(self, rule: Policy, findings: Sequence[Finding] = ()) -> Severity:
        """A policy's severity, or that of the worst of some findings of it; the settings may say another."""
        own = self.settings.policies.get(rule.id)
        if own and own.severity:
            return Severity(own.severity)
        return max(
            (finding.severity or rule.severity for finding in findings),
            key=lambda found: found.rank,
            default=rule.severity,
        )

    @cached_property
    def judge(self) -> Judge:
        """What decides over findings. Raises BaselineError where the baseline cannot be used."""
        judge = Judge.of(self.settings, datetime.now(timezone.utc).date(), self.options.fail_on)
        # What is written says what counts from now on, unless the command line names what to go by.
        writes = self.options.baseline_write is not None and self.options.baseline is None
        known = None if writes else self._baseline()
        return replace(judge, writes=writes).against(known, self.snapshot(artifacts=False))

    def _baseline(self) -> Baseline | None:
        """What is known of the store: the flag, from where the command was given, else the settings."""
        given, written = (
            self.options.workdir / Path(name).expanduser() if name else None
            for name in (self.options.baseline, self.options.baseline_write)
        )
        path = given or self.settings.gate.resolved_baseline(self.settings.base)
        if path is None:
            return None
        # One that is named to be read and is written in this session begins as an empty one.
        begins = written is not None and not os.path.lexists(path) and os.path.abspath(written) == os.path.abspath(path)
        return Baseline(path) if begins else read_baseline(path)

    def judged(self, rule: Policy, finding: Finding) -> Judged:
        """Whether a finding of a policy fails the gate."""
        return self.judge.judged(finding, self.severity(rule, [finding]).value)

    def owner(self, entity: EntityRef) -> Owned:
        """Who answers for an entity."""
        return owner_of(entity, self.context(artifacts=False))

    def is_asked(self, entity: EntityRef, *, unknown: bool = False) -> bool:
        """Whether --compliance-owner asks for what an entity's owner answers for; `unknown` is what is said of an
        entity that nobody owns.
        """
        wanted = self.options.owner
        if wanted is None:
            return True
        owned = self.owner(entity)
        return is_of(owned, wanted) if owned.owner else unknown

    def stays(self, finding: Finding) -> str:
        """Why no repair may mend a finding, empty where one may."""
        if not self.is_asked(finding.entity):
            return f"it is not of {self.options.owner!r}, whom --compliance-owner asks for"
        return self.judge.stays(finding)

    def requires_evidence(self, rule: Policy) -> bool:
        """Whether a check of a policy that could not judge fails the gate."""
        return self.severity(rule).value in self.settings.gate.require_evidence

    def enabled(self, rule: Policy) -> bool:
        own = self.settings.policies.get(rule.id)
        return own is None or own.enabled

    def left_out(self, rule: Policy) -> bool:
        """Whether --compliance-metadata-only leaves a policy out."""
        return self.options.metadata_only and rule.reads_artifacts

    def asked(self, rule: Policy) -> bool:
        """Whether --compliance-rules asks for a policy."""
        return selects(self.options.rules, rule.id)

    @property
    def remedies(self) -> Mapping[str, Fixer]:
        if self._remedies is None:
            self._remedies = load_fixers(self.options.fixers, self.options.rootdir)
        return self._remedies

    def remedy(self, finding: Finding) -> Remedy:
        """What --fix would do about a finding, or why it would not."""
        if waived := self.judge.stays(finding):
            return Remedy(f"nothing: {waived}")
        # Files only where a rule has read them, or where it depends on them whether --fix writes at all.
        context = self.context(artifacts=bool(self.settings.store.relocate))
        try:
            proposed = propose(self.remedies, finding, context, self.policies[finding.policy].advice)
        except ComplianceError as error:
            return Remedy(str(error))
        changes = proposed.changes
        if not changes:
            reason = proposed.reason or FOR_PEOPLE
            return Remedy(reason if reason == FILES_NOT_READ else f"nothing: {reason}", advice=proposed.advice)
        if waits := self.settings.store.relocate and not_now(changes, context.snapshot):
            return Remedy(waits)
        what = summary_of(self.remedies[finding.policy]) or changes[0].describe()
        counted = f"{what} ({len(changes)} change{'s' if len(changes) > 1 else ''})"
        return Remedy(f"Only audited here, else: {counted}") if self.refusal() else Remedy(counted, len(changes))

    def refusal(self) -> str:
        """Why --fix would not write to this store, empty where it would."""
        from mlflow_compliance.store.store import refuse_writing

        try:
            refuse_writing(self.store, self.snapshot(artifacts=bool(self.settings.store.relocate)))
        except ComplianceError as error:
            return str(error)
        return ""

    def plan(self, only: Mapping[str, frozenset[str]], before: Callable[[], Collection[str]] = set) -> Plan:
        """The plan for the findings of the collected cases; `before` gives the keys of what earlier repairs made.
        Raises PlanError where it is larger than --fix-max allows.
        """
        rules = [rule for rule in self.policies.values() if rule.id in only and rule.evaluable]
        context = self.context(artifacts=True)
        kept = f"the journal will be kept in the store too, in experiment {EXPERIMENT!r}"

        def within(limit: Limit) -> Plan:
            return replace(
                make_plan(rules, self.remedies, context, only, limit, self.stays),
                note=kept if self.keeps_journals else "",
                unasked=self._unasked(only, context),
            )

        made = self.planning.make(
            self._facts(context.snapshot), self.settings, {rule.id for rule in rules}, within, before
        )
        limit = self.options.limit
        if limit is not None and len(made.entities) > limit:
            size = len(made.entities)
            raise PlanError(
                f"the plan changes {size} entities and --fix-max allows {limit}: nothing was changed; raise it, "
                "or select with -k"
            )
        return made

    def _facts(self, snapshot: Snapshot) -> StoreFacts:
        return facts_of(snapshot, self.store.backend.home or "")

    def _unasked(self, only: Mapping[str, frozenset[str]], context: Context) -> tuple[str, ...]:
        """Ids of the rules that are not asked for a plan, or not of everything."""

        def whole(rule: Policy) -> bool:
            asked = only.get(rule.id, frozenset())
            if not rule.evaluable:
                return bool(asked)
            return self.enabled(rule) and asked >= {case.key for case in cases(rule, context)}

        return tuple(
            sorted((self.known | self.policies.keys()) - {item.id for item in self.policies.values() if whole(item)})
        )

    @property
    def keeps_journals(self) -> bool:
        """Whether a repair keeps its journal in the store: where stores of this kind do, or this one does already."""
        backend = self.store.backend
        return backend.keeps_journals or (backend.rows and bool(self.snapshot(artifacts=True).journals.mark))

    def carry_out(
        self,
        only: Mapping[str, frozenset[str]],
        tell: Callable[[Plan], None],
        before: Callable[[], Collection[str]] = set,
    ) -> None:
        """Plan, `tell` the plan, and with --fix carry it out and read the store anew."""

        def made(repair: Repair) -> None:
            self.repair = repair
            repair.saved_from = self.planning.name
            tell(repair.plan)

        if not self.options.fix:
            dry = Repair(self.plan(only))
            made(dry)
            dry.saved_to = self.planning.save(dry.plan, self._facts(dry.plan.start), self.settings)
            return
        from mlflow_compliance.store.store import refuse_writing

        refuse_writing(self.store, self.snapshot(artifacts=True))
        carry_out(AuditTarget(self), lambda: self.plan(only, before), made, self.progress())


class AuditTarget:
    """The store of an audit, for a repair."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._lines: Mapping[str, str] = {}
        """What the folder of the journals said of hashes before the repair."""
        self._before: Snapshot | None = None
        self._mark = ""

    @property
    def uri(self) -> str:
        return self._audit.store.info.uri

    @property
    def folder(self) -> str:
        return self._audit.store.folder

    def lock(self) -> AbstractContextManager[object]:
        return self._audit.store.backend.lock()

    def writer(self, binding: dict[str, str]) -> Writer:
        from mlflow_compliance.store.write.writer import StoreWriter

        return StoreWriter(self._audit.store, binding)

    def heading(self, plan: str, undo_of: str = "", again: str = "") -> Heading:
        return Heading(self._kept_as(), plan, self._audit.settings.fingerprint, undo_of, again)

    def key(self) -> SigningKey | None:
        return keys_of(self._audit.settings).signing

    def _kept_as(self) -> str:
        from mlflow_compliance.store.storage.recorded_hashes import read_lines

        store, self._before = self._audit.store, self._audit.snapshot(artifacts=True)
        self._lines = read_lines(store.folder)
        if self._audit.keeps_journals:
            journals = self._before.journals
            # That of a repair which was killed before the store kept anything, so that it is kept now.
            begun = next(filter(None, (journals.own[key] for key in sorted(journals.own, reverse=True))), "")
            self._mark = journals.mark or begun or secrets.token_hex(8)
        return self._mark

    def recorded(self) -> Mapping[str, str]:
        from mlflow_compliance.store.storage.recorded_hashes import read_lines

        assert self._before is not None
        kept = self._before.journals.hashes
        return {
            path: digest
            for path, digest in read_lines(self._audit.store.folder).items()
            if self._lines.get(path) != digest or (self._mark and digest and path not in kept)
        }

    def keep(self, writer: Writer) -> str:
        from mlflow_compliance.store.write.kept_journals import JournalKeeper
        from mlflow_compliance.store.write.writer import StoreWriter

        assert isinstance(writer, StoreWriter)
        assert self._before is not None
        return JournalKeeper(writer, self._before, self._mark).keep()

    def is_still(self, start: Snapshot) -> bool:
        found = self._audit.store.read(artifacts=True, progress=self._audit.progress())
        if self._audit.snapshots.latest is start and is_same(start, found):
            return True
        self._audit.snapshots.put(found)
        return False

    def forget(self) -> None:
        self._audit.snapshots.forget()

    def read_anew(self, also: Sequence[str]) -> Snapshot:
        found = self._audit.store.read(artifacts=True, also=also, progress=self._audit.progress())
        self._audit.snapshots.put(found)
        return found


def _place(rule: Policy) -> str:
    return f"{rule.check.__code__.co_filename}::{rule.check.__qualname__}"
