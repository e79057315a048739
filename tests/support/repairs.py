"""Plans and carries out repairs of test stores with this checkout's own policies and fixers, and says what a store
holds afterwards.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from stores import Lab
from undoing import undo

from mlflow_compliance.production.context import Context
from mlflow_compliance.repair.apply import Outcome, apply_plan
from mlflow_compliance.repair.expected import expected_after
from mlflow_compliance.repair.journal import Journal
from mlflow_compliance.repair.plan import Plan, Unfixed, findings_of, make_plan
from mlflow_compliance.rules.evaluation import Verdict, cases, evaluate
from mlflow_compliance.rules.finding import Finding, Violations
from mlflow_compliance.rules.fixer import Fixer
from mlflow_compliance.rules.packs import load_fixers
from mlflow_compliance.rules.policy import ATTRIBUTE, Policy
from mlflow_compliance.snapshot.diff import differences
from mlflow_compliance.snapshot.files import OWNER_NOTE
from mlflow_compliance.snapshot.snapshot import Snapshot
from mlflow_compliance.store.write.writer import StoreWriter

CHECKOUT = Path(__file__).parents[2]
EVERY = "*"
"""Stands for every policy, SRV002 with them."""


def copied_once(before: Snapshot, after: Snapshot, experiment_id: str) -> None:
    """Every run of an experiment has one whole copy, with the same metrics."""
    whole = [run for run in after.runs.values() if run.active and run.tags.get("compliance.copy") == "complete"]
    sources = {run.run_id for run in before.runs.values() if run.experiment_id == experiment_id}
    assert sorted(run.tags["compliance.source_run_id"] for run in whole) == sorted(sources), "every run once, and whole"
    for run in whole:
        assert run.metrics == before.runs[run.tags["compliance.source_run_id"]].metrics


@lru_cache(maxsize=1)
def rules() -> tuple[Policy, ...]:
    """The policies of this checkout."""
    found = []
    for path in sorted((CHECKOUT / "policies").glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"_policies_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found += [rule for value in vars(module).values() if (rule := getattr(value, ATTRIBUTE, None))]
    return tuple(found)


@lru_cache(maxsize=1)
def remedies() -> Mapping[str, Fixer]:
    """The fixers of this checkout."""
    return load_fixers(["fixers"], CHECKOUT)


def chosen(ids: Sequence[str]) -> list[Policy]:
    """The policies of these ids. Without any: all but SRV002, which starts a server (3 s) and which no change ever
    mends; EVERY asks for it too.
    """
    return [rule for rule in rules() if EVERY in ids or (rule.id in ids if ids else rule.id != "SRV002")]


def findings(lab: Lab, *ids: str) -> list[Finding]:
    """What the policies find in a store; which ones, `chosen` says."""
    return found_in(lab.read(), lab, *ids)


def found_in(snapshot: Snapshot, lab: Lab, *ids: str) -> list[Finding]:
    return findings_of(chosen(ids), Context(snapshot, lab.settings))


def verdict(lab: Lab, policy: str, key: str) -> Verdict:
    """What one policy says of one of its cases: `key` ends the case's own."""
    context, (rule,) = Context(lab.read(), lab.settings), chosen([policy])
    (case,) = [case for case in cases(rule, context) if case.key.endswith(key)]
    return evaluate(rule, case, context)


def notes(lab: Lab, policy: str, key: str) -> list[str]:
    """What one policy tells a reader of one of its cases, beside its findings."""
    snapshot, (rule,) = lab.read(), chosen([policy])
    context = Context(snapshot, lab.settings)
    (case,) = [case for case in cases(rule, context) if case.key.endswith(key)]
    told = Violations(rule.id, case.subject)
    facts = {
        "store": snapshot,
        "artifacts": snapshot.artifacts,
        "evidence": snapshot.evidence,
        "settings": lab.settings,
        "context": context,
        "violations": told,
    }
    rule.check(**case.arguments, **{name: value for name, value in facts.items() if name in rule.arguments})
    return told.notes


def plan_for(lab: Lab, *ids: str, others: Mapping[str, Fixer] | None = None) -> Plan:
    """The plan that mends a store; for which policies, `chosen` says."""
    return make_plan(chosen(ids), others or remedies(), Context(lab.read(), lab.settings))


def unfixed(plan: Plan, policy: str) -> list[Unfixed]:
    return [refusal for refusal in plan.unfixed if refusal.finding.policy == policy]


@dataclass
class Repaired:
    """One repair: what was done, and its journal as it was read back."""

    outcome: Outcome
    differing: list[str]
    lines: list[dict[str, Any]]


def carry_out(lab: Lab, plan: Plan) -> Repaired:
    """Write a plan and compare the store with what was planned."""
    binding: dict[str, str] = {}
    journal = Journal(lab.store.folder, datetime.now(timezone.utc))
    outcome = apply_plan(plan, StoreWriter(lab.store, binding), binding, journal, lab.store.info.uri, lambda: None)
    expected = expected_after(plan.start, outcome.applied, binding)
    return Repaired(outcome, differences(expected, lab.read(tuple(expected.runs))), lines_of(Path(journal.path)))


def lines_of(journal: Path) -> list[dict[str, Any]]:
    """The whole lines of a journal; a program that was killed may have left half a last one."""
    return [json.loads(line) for line in journal.read_text().split("\n")[:-1]]


def take_back(lab: Lab, lines: Sequence[dict[str, Any]]) -> None:
    """Apply the inverses of what a journal says was done, backwards."""
    assert undo(lab, lines) == []


def hashes(folder: Path) -> Counter[str]:
    """SHA-256 of every artifact below a store's mlruns, quarantine included, and how often it is there."""
    files = (
        path
        for path in (folder / "mlruns").rglob("*")
        if path.is_file() and path.name not in ("manifest.jsonl", "MLmodel", OWNER_NOTE)
    )
    return Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)


def readable(lab: Lab) -> dict[str, str]:
    """(run name, path below its artifacts) -> SHA-256, for every run that is active."""
    found = {}
    for key in lab.read(artifacts=False).experiments:
        for run in lab.runs(key):
            home = Path(run.info.artifact_uri)
            if run.info.lifecycle_stage == "active" and home.is_dir():
                found |= {
                    f"{run.info.run_name} {path.relative_to(home)}": hashlib.sha256(path.read_bytes()).hexdigest()
                    for path in sorted(home.rglob("*"))
                    if path.is_file()
                }
    return found


VOLATILE = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")


def state(lab: Lab) -> dict[str, Any]:
    """What must be the same after two repairs of the same store: all but the times and ids of the repair itself."""
    snapshot = lab.read()
    assert snapshot.artifacts is not None
    return {
        "experiments": {
            key: (
                item.name,
                item.lifecycle,
                dict(item.runs),
                {tag: VOLATILE.sub("…", value) for tag, value in item.tags.items()},
            )
            for key, item in snapshot.experiments.items()
        },
        "copies": Counter(
            run.tags.get("compliance.copy") for run in snapshot.runs.values() if "compliance.copy" in run.tags
        ),
        "readable": readable(lab),
        "duplicates": snapshot.artifacts.duplicates(),
        "ownerless": sorted(snapshot.artifacts.ownerless),
        # The id of a copied run is another one in each repair.
        "findings": sorted(map(without_ids, found_in(snapshot, lab))),
    }


def without_ids(finding: Finding) -> str:
    return re.sub(r"\b(?:[0-9a-f]{32}|[0-9a-f]{64})\b", "…", str(finding))
