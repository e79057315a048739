"""The journal of a repair is kept in the store too, where another folder would know nothing of it; and what ART004 says
where none is found.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import kinds_buckets
import kinds_databases
import kinds_servers
import pytest
from gates import Gate, make_messy, owned, plan_in, told
from places import Guest, Kind
from repairs import findings, found_in, verdict
from stores import BIG, Lab

from mlflow_compliance.changes import SetExperimentTag
from mlflow_compliance.repair.journal import Heading, Journal
from mlflow_compliance.rules.outcome import Outcome
from mlflow_compliance.settings.schema import load_settings
from mlflow_compliance.snapshot.journals import EXPERIMENT, Journals, KeptJournal
from mlflow_compliance.snapshot.refs import EntityRef

KINDS: dict[str, Kind] = {**kinds_databases.KINDS, **kinds_servers.KINDS, **kinds_buckets.KINDS}
KEPT = "the journal is kept in the store too: experiment 'compliance-journals'"


@pytest.fixture(params=["postgresql", "http", "served"])
def guest(
    request: pytest.FixtureRequest,
    gate: Gate,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Guest]:
    """A messy store whose journals lie beside no database."""
    with KINDS[request.param](tmp_path_factory.mktemp(request.param)) as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        gate.settings(place.uri, place.settings)
        found = Guest(place, gate.folder, load_settings(gate.folder / "compliance.toml"))
        make_messy(found)
        yield found


@pytest.fixture
def repaired(guest: Guest, gate: Gate) -> Guest:
    text = told(gate("--fix", *([owned(guest.place.artifacts)] if guest.local else [])))
    assert KEPT in text, text
    return guest


def kept(lab: Lab) -> tuple[Any, list[Any]]:
    """The experiment that keeps journals, and its active runs."""
    experiment = lab.client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return experiment, list(lab.client.search_runs([experiment.experiment_id]))


def test_from_another_folder_the_record_is_found_in_the_store(guest: Guest, gate: Gate) -> None:
    insisted = [owned(guest.place.artifacts)] if guest.local else []
    planned = gate("--fix-dry-run", *insisted)
    assert "the journal will be kept in the store too, in experiment 'compliance-journals'" in plan_in(planned)
    assert guest.client.get_experiment_by_name(EXPERIMENT) is None
    fixed = told(gate("--fix", *insisted))
    assert KEPT in fixed, fixed
    assert "verified: the store, read anew, is what was planned" in fixed
    experiment, (run,) = kept(guest)
    (journal,) = Path(guest.store.folder).glob("[0-9]*.jsonl")
    content = journal.read_bytes()
    assert (run.info.status, run.info.run_name) == ("FINISHED", journal.stem)
    assert run.data.tags["compliance.journal"] == journal.stem
    assert run.data.tags["compliance.journal_sha256"] == hashlib.sha256(content).hexdigest()
    assert run.data.tags["mlflow.user"] == json.loads(content.splitlines()[0])["user"]
    fetched = guest.client.download_artifacts(run.info.run_id, journal.name)
    assert Path(fetched).read_bytes() == content
    if guest.local:
        assert experiment.artifact_location == f"{guest.place.artifacts}/{experiment.experiment_id}"

    # As from another folder, on another machine: no rule minds the experiment, and ART004 has its record.
    shutil.move(guest.store.folder, guest.folder / "elsewhere")
    audited = gate()
    text = told(audited)
    assert "not evaluated: ART004" not in text, text
    assert "kept journals of repairs: 1, set apart" in text
    assert (audited.ret == 0) == guest.local, "what a server serves is not made to share copies"
    again = gate("--fix")
    assert plan_in(again)[-1].startswith("0 changes to 0 entities"), told(again)
    assert len(kept(guest)[1]) == 1
    if guest.local and guest.uri.startswith("http"):
        # The database behind the server, opened directly: the same store, by another name and with another folder.
        behind = told(
            gate(f"--tracking-uri=sqlite:///{next(guest.mlruns.parent.glob('*.db'))}", "-k", "recorded_hashes")
        )
        assert "not evaluated: ART004" not in behind, behind
    if guest.local:
        shared = next(path for path in sorted(guest.mlruns.rglob("shap.bin")) if ".quarantine" not in path.parts)
        shared.chmod(0o644)
        shared.write_bytes(b"?" + BIG[1:])
        text = told(gate())
        assert "its bytes changed since they went on record" in text, text


ANOTHERS = b'{"journal": "20200101T000000Z-000000", "store": "sqlite:////else", "kept_as": "0123456789abcdef"}\n'


def other_bytes(lab: Lab, run: Any, path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"{}\n")


def anothers_bytes_and_hash(lab: Lab, run: Any, path: Path) -> None:
    path.write_bytes(ANOTHERS.replace(b"20200101T000000Z-000000", path.stem.encode()))
    sign(lab, run, path)


def another_journal(lab: Lab, run: Any, path: Path) -> None:
    header, rest = path.read_bytes().split(b"\n", 1)
    path.write_bytes(json.dumps({**json.loads(header), "journal": "20200101T000000Z-000000"}).encode() + b"\n" + rest)
    sign(lab, run, path)


def no_journal(lab: Lab, run: Any, path: Path) -> None:
    path.write_bytes(b"model weights\n")
    sign(lab, run, path)


def sign(lab: Lab, run: Any, path: Path) -> None:
    lab.tag_run(run.info.run_id, **{"compliance.journal_sha256": hashlib.sha256(path.read_bytes()).hexdigest()})


TAMPERINGS: dict[str, Callable[[Lab, Any, Path], object]] = {
    "its bytes are not those": other_bytes,
    "journal of another store": anothers_bytes_and_hash,
    "is the journal 20200101": another_journal,
    "cannot be read as a journal": no_journal,
    "is gone": lambda lab, run, path: path.unlink(),
    "holds more.txt": lambda lab, run, path: (path.parent / "more.txt").write_text("mine"),
    "holds below/more.txt": lambda lab, run, path: lab.client.log_text(run.info.run_id, "mine", "below/more.txt"),
    "holds tag stage": lambda lab, run, path: lab.tag_run(run.info.run_id, stage="production"),
    "holds metric auc": lambda lab, run, path: lab.client.log_metric(run.info.run_id, "auc", 0.9),
    "holds param threshold": lambda lab, run, path: lab.client.log_param(run.info.run_id, "threshold", 0.5),
    "holds a model": lambda lab, run, path: lab.client.create_logged_model(
        run.info.experiment_id, "mine", run.info.run_id
    ),
    "1 run without the tag": lambda lab, run, path: lab.run(run.info.experiment_id),
}


@pytest.mark.parametrize("guest", ["postgresql"], indirect=True)
def test_what_is_no_kept_journal_is_judged_like_anything_else(repaired: Guest) -> None:
    """One tampering after another on a store of its own each: what was added cannot be taken away again."""
    experiment, (run,) = kept(repaired)
    path = next((repaired.mlruns / experiment.experiment_id).rglob("*.jsonl"))
    journal, content, signed = path.name, path.read_bytes(), dict(run.data.tags)
    for said, tamper in TAMPERINGS.items():
        before = repaired.read()
        assert experiment.experiment_id not in before.experiments
        assert found_in(before, repaired, "EXP003", "ART001", "ART002", "ART004") == [], said
        tamper(repaired, run, path)
        after = repaired.read()
        found = found_in(after, repaired, "EXP003", "ART004")
        assert {(item.policy, item.code) for item in found} >= {
            ("ART004", "kept-journal-differs"),
            ("EXP003", "unclassified"),
        }, said
        assert any(said in str(item) for item in found), (said, list(map(str, found)))
        assert after.artifacts is not None
        # Written anew, as the next repair would: the row as it was, and the file.
        for other in repaired.client.search_runs([experiment.experiment_id]):
            for model in repaired.client.search_logged_models([experiment.experiment_id]):
                repaired.client.delete_logged_model(model.model_id)
            repaired.client.delete_run(other.info.run_id)
        shutil.rmtree(repaired.mlruns / experiment.experiment_id)
        tags = {key: value for key, value in signed.items() if key.startswith("compliance.") or key == "mlflow.user"}
        run = repaired.client.create_run(experiment.experiment_id, tags=tags, run_name=journal)
        path = Path(run.info.artifact_uri) / journal
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        repaired.client.set_terminated(run.info.run_id)
    for key, value in (("stage", "production"), ("lifecycle", "archived")):
        repaired.client.set_experiment_tag(experiment.experiment_id, key, value)
        assert experiment.experiment_id in repaired.read(artifacts=False).experiments


@pytest.mark.parametrize("guest", ["postgresql"], indirect=True)
def test_a_name_or_a_tag_alone_exempts_nothing(guest: Guest) -> None:
    named = guest.experiment(EXPERIMENT)
    tagged = guest.experiment("mine", **{"compliance.journals": "0123456789abcdef"})
    guest.run(named)
    found = {item.entity.key for item in findings(guest, "EXP003") if item.code == "unclassified"}
    assert {named, tagged} <= found


@pytest.mark.parametrize("guest", ["postgresql"], indirect=True)
def test_a_journal_whose_place_is_away_is_not_judged_and_not_green(repaired: Guest) -> None:
    shutil.move(repaired.store.folder, repaired.folder / "elsewhere")
    shutil.move(repaired.mlruns, repaired.folder / "away")
    repaired.mlruns.mkdir()
    (journal,) = repaired.read(artifacts=False).journals.kept
    assert "holds nothing here" in journal.unknown
    assert journal.experiment_id not in repaired.read(artifacts=False).experiments


@pytest.mark.parametrize("guest", ["postgresql"], indirect=True)
def test_the_next_repair_keeps_what_a_killed_one_could_not(guest: Guest, gate: Gate) -> None:
    """It says that it was written for this store, and has no end."""
    killed = Journal(guest.store.folder, datetime.now(timezone.utc), Heading("0123456789abcdef"))
    killed.header(guest.store.info.uri, datetime.now(timezone.utc), 1)
    tag = SetExperimentTag("1", "a", "b", None)
    killed.begin_all("EXP003", [(1, tag, None)])
    with Path(killed.path).open("a") as file:
        file.write('{"change": 1, "sta')
    text = told(gate("--fix", owned(guest.place.artifacts)))
    assert KEPT in text
    experiment, runs = kept(guest)
    assert experiment.tags["compliance.journals"] == "0123456789abcdef"
    here = {path.stem for path in Path(guest.store.folder).glob("[0-9]*.jsonl")}
    assert {run.info.run_name for run in runs} == here
    assert len(here) == 2
    assert findings(guest, "ART001", "ART002", "ART004", "EXP003", "RUN001") == []


@pytest.mark.parametrize("guest", ["postgresql"], indirect=True)
def test_stores_that_share_a_folder_keep_their_own_journals_alone(guest: Guest, gate: Gate) -> None:
    now = datetime.now(timezone.utc)
    others = Journal(guest.store.folder, now, Heading("0123456789abcdef"))
    others.header("postgresql://***@elsewhere/mlflow", now, 0)
    others.close(0, 0)
    assert KEPT in told(gate("--fix", owned(guest.place.artifacts)))
    experiment, runs = kept(guest)
    assert others.id not in {run.info.run_name for run in runs}
    assert len(runs) == 1
    assert experiment.tags["compliance.journals"] != "0123456789abcdef"


@pytest.mark.parametrize("guest", ["postgresql"], indirect=True)
def test_a_run_that_a_killed_repair_had_begun_is_written_anew(repaired: Guest, gate: Gate) -> None:
    _, (run,) = kept(repaired)
    next(repaired.mlruns.rglob(f"{run.info.run_id}/artifacts/*.jsonl")).unlink()
    repaired.client.update_run(run.info.run_id, status="RUNNING")
    (found,) = findings(repaired, "ART004")
    assert "the repair was broken off while it wrote it" in found.message
    repaired.run(repaired.experiment("test_more"))
    assert KEPT in told(gate("--fix"))
    assert len(kept(repaired)[1]) == 2
    assert findings(repaired, "ART001", "ART002", "ART004", "EXP003", "RUN001") == []


@pytest.mark.parametrize("guest", ["postgresql"], indirect=True)
def test_where_the_experiment_was_deleted_another_one_is_made(repaired: Guest, gate: Gate) -> None:
    first, _ = kept(repaired)
    repaired.client.delete_experiment(first.experiment_id)
    shutil.move(repaired.store.folder, repaired.folder / "elsewhere")
    (entry,) = verdict(repaired, "ART004", "0").unevaluated
    assert entry.code == "no-record"
    shutil.move(repaired.folder / "elsewhere", repaired.store.folder)
    repaired.run(repaired.experiment("test_more"))
    assert "the journal is kept in the store too: experiment 'compliance-journals-" in told(gate("--fix"))
    assert len(repaired.read().journals.whole) == 2, "the one before is kept again, from the folder"


@pytest.mark.parametrize("guest", ["postgresql"], indirect=True)
def test_a_repair_counts_whose_journal_cannot_be_kept(guest: Guest, gate: Gate) -> None:
    """Nowhere is a place in which MLflow would put the folder of a new experiment."""
    for item in guest.client.search_experiments(view_type=3):
        place = Path(item.artifact_location)
        if place.exists():
            place.rename(place.with_name(f"of-{item.experiment_id}"))
    sql = Path(guest.uri).name
    kinds_databases.SERVERS["postgresql"]().sql(
        sql,
        "UPDATE experiments SET artifact_location = regexp_replace(artifact_location, '/([0-9]+)$', '/of-\\1')",
        "UPDATE runs SET artifact_uri = regexp_replace(artifact_uri, '/([0-9]+)/([0-9a-f]{32})/', '/of-\\1/\\2/')",
    )
    fixed = gate("--fix", "-k", "EXP")
    text = told(fixed)
    assert "the journal is not kept in the store, only in the folder above: none of the places" in text, text
    assert "verified: the store, read anew, is what was planned" in text
    assert fixed.ret == 0
    assert guest.client.get_experiment_by_name(EXPERIMENT) is None


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def emptied(folder: Path) -> None:
    removed(folder)
    folder.mkdir()


def no_folder(folder: Path) -> None:
    removed(folder)
    folder.write_text("a file in its place")


def truncated(folder: Path) -> None:
    for path in folder.glob("[0-9]*.jsonl"):
        path.write_bytes(path.read_bytes()[:20])


def cut_to_nothing(folder: Path) -> None:
    for path in folder.glob("*.jsonl"):
        path.write_bytes(b"")


def anothers(folder: Path) -> None:
    emptied(folder)
    (folder / "20200101T000000Z-000000.jsonl").write_bytes(ANOTHERS)
    (folder / "hashes.jsonl").write_text(json.dumps({"path": "/else/a.bin", "sha256": "0" * 64}) + "\n")


def without_hashes(folder: Path) -> None:
    (folder / "hashes.jsonl").unlink()


def hashes_emptied(folder: Path) -> None:
    (folder / "hashes.jsonl").write_text("")


GONE = (removed, emptied, no_folder, truncated, cut_to_nothing, anothers, without_hashes, hashes_emptied)


def test_without_its_journals_a_repaired_store_is_not_evaluated(messy: Lab, gate: Gate) -> None:
    text = told(gate("--fix"))
    assert "kept in the store" not in text, "beside a SQLite file the journal is found by whoever finds the file"
    folder, saved = Path(messy.store.folder), messy.folder / "saved"
    shutil.copytree(folder, saved)
    assert verdict(messy, "ART004", "0").outcome is Outcome.PASSED
    for lose in GONE:
        lose(folder)
        found = verdict(messy, "ART004", "0")
        assert found.outcome is Outcome.NOT_EVALUATED, lose
        assert [item.code for item in found.unevaluated] == ["no-record"], lose
        assert str(folder) in found.unevaluated[0].reason
        folder.unlink() if folder.is_file() else shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(saved, folder)
    assert verdict(messy, "ART004", "0").outcome is Outcome.PASSED

    removed(folder)
    audited = gate("-k", "recorded_hashes")
    text = told(audited)
    assert f"no journal of it was found in {folder} or in the store" in text
    assert "name the folder that it was written to with [journal] folder" in text
    assert "1 not evaluated" in text
    assert audited.ret == 0
    gate.settings(messy.uri, '[gate]\nrequire_evidence = "high"\n')
    assert gate("-k", "recorded_hashes").ret == 1
    gate.settings(messy.uri, f'[journal]\nfolder = "{saved}"\n')
    assert "not evaluated" not in told(gate("-k", "recorded_hashes"))


def test_a_store_that_was_never_repaired_needs_no_record(messy: Lab) -> None:
    assert verdict(messy, "ART004", "0").outcome is Outcome.PASSED


def journal(number: int, **hashes: str) -> KeptJournal:
    return KeptJournal(EntityRef("run", f"r{number}"), "9", f"2026010{number}", hashes=hashes)


def test_the_latest_word_about_a_path_counts_wherever_it_stands() -> None:
    older, newer = journal(1, a="1", b="1", c="1"), journal(3, b="3", c="")
    found = Journals(here=frozenset({"20260102", "20260109"}), own={"20260102": ""}, kept=(newer, older))
    assert found.on_record({"a": "", "b": "2", "d": "2"}) == {"b": "3", "d": "2"}
    elsewhere = Journals(kept=(newer, older))
    assert elsewhere.on_record({}) == {"a": "1", "b": "3"}
    assert elsewhere.on_record({"b": ""}) == {"a": "1"}, "who has no journals takes a path off the record by hand"


def test_a_repair_is_taken_back_from_another_folder_by_the_journal_in_the_store(repaired: Guest, gate: Gate) -> None:
    (journal,) = Path(repaired.store.folder).glob("[0-9]*.jsonl")
    shutil.rmtree(repaired.store.folder)
    assert f"{journal.stem}  " in told(gate("--fix-journals", rules=()))
    assert gate(f"--fix-verify={journal.stem}", rules=()).ret == 0
    assert repaired.client.get_experiment("3").name == "test_experiment (retired 3)"
    insisted = [owned(repaired.place.artifacts)] if repaired.local else []
    text = told(gate("--fix-undo=last", *insisted, rules=()))
    assert "verified: the store, read anew, is what was planned" in text, text
    assert "! left:" not in text, text
    assert KEPT in text
    experiment = repaired.client.get_experiment("3")
    assert (experiment.name, experiment.lifecycle_stage) == ("test_experiment", "active")
    assert len(kept(repaired)[1]) == 2
    assert gate().ret == 1
    listed = told(gate("--fix-journals", rules=()))
    assert f"takes back {journal.stem}, ended" in listed, listed
