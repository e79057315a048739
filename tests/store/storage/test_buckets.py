"""Artifacts in a real S3 server: what a listing says of owners, gaps, duplicates and hostile names, and how
refusals are told.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import buckets
import pytest
from mlflow.entities import LoggedModelStatus
from producing import unproduced
from repairs import carry_out, findings, plan_for, take_back, unfixed
from stores import BIG, Lab, differing, there_and_back

from mlflow_compliance import resolve_artifact
from mlflow_compliance.changes import PointToCopy
from mlflow_compliance.errors import ChangeError, ComplianceError
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import Pointer
from mlflow_compliance.snapshot.presence import Why
from mlflow_compliance.store.artifacts.remote import STAYS
from mlflow_compliance.store.artifacts.remote_roots import RemoteTree
from mlflow_compliance.store.ownership.rows import Missing
from mlflow_compliance.store.storage.base import ObjectInfo, RemoteError
from mlflow_compliance.store.storage.s3 import Bucket
from mlflow_compliance.store.storage.storages import Storages
from mlflow_compliance.store.storage.transfer import copy_folder


class BucketLab(Lab):
    """A store whose new experiments keep their artifacts below a prefix."""

    prefix = ""

    def experiment(self, name: str, **tags: str) -> str:
        number = max(map(int, self.read(artifacts=False).experiments)) + 1
        return str(self.client.create_experiment(name, artifact_location=f"{self.prefix}/{number}", tags=tags))

    def place(self, run_id: str) -> str:
        return str(self.client.get_run(run_id).info.artifact_uri)

    def artifacts(self) -> Artifacts:
        found = self.read().artifacts
        assert found is not None
        return found


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if buckets.weed() is None:
        pytest.skip(buckets.HINT)
    with buckets.s3_server(tmp_path_factory.mktemp("s3")) as address:
        yield address


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """The client of one test with a bucket of its own, named by `bucket`."""
    for key, value in buckets.environment(endpoint).items():
        monkeypatch.setenv(key, value)
    buckets.forget_clients()
    client = buckets.s3_client(endpoint)
    client.bucket = f"b{abs(hash(request.node.name)):x}"[:20]
    client.create_bucket(Bucket=client.bucket)
    return client


@pytest.fixture
def bucket_lab(s3: Any, empty_store: bytes, tmp_path: Path) -> BucketLab:
    made = BucketLab.new(tmp_path / "lab", empty_store, {})
    made.prefix = f"s3://{s3.bucket}/mlruns"
    return made  # type: ignore[return-value]


def put(client: Any, uri: str, files: Mapping[str, bytes]) -> None:
    bucket, _, prefix = uri[len("s3://") :].partition("/")
    for name, content in files.items():
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}" if prefix else name, Body=content)


def test_a_listing_puts_objects_to_their_rows(bucket_lab: BucketLab, s3: Any) -> None:
    """Local and remote experiments in one store, two buckets, ownerless objects, an incomplete model, a model that
    is gone.
    """
    lab = bucket_lab
    one = lab.experiment("credit_delivery")
    run = lab.run(one, files={"notes.txt": b"n", "deep/er/ü 1%41.csv": BIG})
    model = lab.model(one, run)
    broken = lab.model(one, run, "broken", files={"weights.bin": BIG, "code/x.py": b"x"})
    gone = lab.model(one, run, "gone")
    for name in ("MLmodel", "model.pkl"):
        s3.delete_object(Bucket=s3.bucket, Key=f"mlruns/{one}/models/{gone}/artifacts/{name}")
    s3.delete_object(Bucket=s3.bucket, Key=f"mlruns/{one}/models/{broken}/artifacts/weights.bin")
    second = f"{s3.bucket}-2"
    s3.create_bucket(Bucket=second)
    # A bucket that other things lie in too: only what is named like MLflow's is looked at.
    put(s3, f"s3://{second}", {"invoices/2024.csv": b"not ours", "9/" + "0" * 32 + "/artifacts/lost.txt": b"lost"})
    lab.prefix = f"s3://{second}"
    other = lab.experiment("credit_other")
    there = lab.run(other, files={"a.txt": b"a"})
    here = Lab.experiment(lab, "credit_local")
    local = lab.run(here, files={"b.txt": b"b"})
    put(
        s3,
        f"s3://{s3.bucket}/mlruns",
        {"stray/x.bin": b"12345", "stray/y/z.bin": b"1", ".quarantine/old/z": b"q", f"{one}/traces/t/t.json": b"{}"},
    )

    found = lab.artifacts()

    assert {root.path for root in found.roots} == {str(lab.mlruns), f"s3://{s3.bucket}/mlruns", f"s3://{second}"}
    assert len({root.device for root in found.roots}) == 3
    root = f"s3://{s3.bucket}/mlruns"
    assert found.locations["run", run] == lab.place(run) == f"{root}/{one}/{run}/artifacts"
    owned = {
        path: (file.size, file.owner and file.owner.key, file.logged)
        for path, file in found.files.items()
        if file.owner
    }
    assert owned[f"{root}/{one}/{run}/artifacts/deep/er/ü 1%41.csv"] == (len(BIG), run, True)
    assert owned[f"{root}/{one}/models/{model}/artifacts/model.pkl"] == (7, model, True)
    assert owned[f"{root}/{one}/traces/t/t.json"] == (2, one, False)
    assert owned[f"s3://{second}/{other}/{there}/artifacts/a.txt"] == (1, there, True)
    assert owned[str(lab.mlruns / here / local / "artifacts" / "b.txt")] == (1, local, True)
    told = {path: (item.files, item.size, item.keep) for path, item in found.ownerless.items()}
    assert told == {f"{root}/stray": (2, 6, STAYS), f"s3://{second}/9": (1, 4, STAYS)}
    assert not any("invoices" in path or ".quarantine" in path for path in found.files)
    assert found.models[f"{root}/{one}/models/{model}/artifacts"].problem == ""
    assert found.models[f"{root}/{one}/models/{broken}/artifacts"].missing == ("weights.bin",)
    place = f"{root}/{one}/models/{gone}/artifacts"
    assert [(item.example.key, item.reason) for item in found.unreachable] == [
        (gone, f"the folder {place} holds no object")
    ]
    assert found.relative(f"{root}/stray") == "mlruns/stray"
    assert found.newest["run", run] > 1_700_000_000_000


def test_duplicates_are_found_whatever_way_they_were_uploaded(
    bucket_lab: BucketLab, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single-part uploads by the listing alone; one in parts, whose ETag is none of its content, by reading it;
    nothing else is read.
    """
    lab = bucket_lab
    one = lab.experiment("credit_delivery")
    runs = [lab.run(one) for _ in range(3)]
    put(s3, lab.place(runs[0]), {"a.bin": BIG, "same_size.bin": BIG[:-1] + b"x", "unique.bin": BIG * 3})
    put(s3, lab.place(runs[1]), {"b.bin": BIG})
    large = os.urandom(5 << 20) + b"the end"
    put(s3, lab.place(runs[0]), {"large.bin": large})
    key = f"mlruns/{one}/{runs[2]}/artifacts/parts.bin"
    upload = s3.create_multipart_upload(Bucket=s3.bucket, Key=key)["UploadId"]
    parts = [
        {
            "PartNumber": n,
            "ETag": s3.upload_part(Bucket=s3.bucket, Key=key, UploadId=upload, PartNumber=n, Body=body)["ETag"],
        }
        for n, body in ((1, large[: 5 << 20]), (2, large[5 << 20 :]))
    ]
    s3.complete_multipart_upload(Bucket=s3.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
    read: list[str] = []
    chunks = Bucket.chunks
    monkeypatch.setattr(Bucket, "chunks", lambda self, path, etag="": read.append(path) or chunks(self, path, etag))

    found = lab.artifacts()

    assert "-2" in found.files[f"s3://{s3.bucket}/{key}"].copy
    assert read == [f"s3://{s3.bucket}/{key}"]
    groups = [[os.path.basename(path) for path in group.paths] for group in found.duplicates()]
    assert sorted(map(sorted, groups)) == [["a.bin", "b.bin"], ["large.bin", "parts.bin"]]
    assert all(group.sha256.startswith("md5:") for group in found.duplicates())


def test_hostile_names_are_told_and_end_nothing(bucket_lab: BucketLab, s3: Any) -> None:
    lab = bucket_lab
    one = lab.experiment("credit_delivery")
    run = lab.run(one)
    names = ["new\nline", "ctl\x01x", "<b>&amp;%2F+ +", "q?x#y", "-rf", "größe 😀", "'\"`$(x)"]
    put(s3, lab.place(run), dict.fromkeys(names, BIG))
    put(s3, f"s3://{s3.bucket}/mlruns", {f"{one}/{run}/artifacts/folder/": b"", "stray/new\nline": b"x"})

    found = lab.artifacts()

    inside = {path[len(lab.place(run)) + 1 :] for path in found.under(lab.place(run))}
    assert inside == set(names)  # the marker of a folder is no file
    assert [group.paths for group in found.duplicates()] == [
        tuple(sorted(f"{lab.place(run)}/{name}" for name in names))
    ]
    assert f"s3://{s3.bucket}/mlruns/stray" in found.ownerless


def test_names_that_no_server_here_takes() -> None:
    """Other servers keep keys with dots and empty parts: they stay text."""
    ground = RemoteTree(Storages(""))
    for key in ("a/../../b", "a//c", "./d", "x/", "../../../etc/passwd"):
        ground._take(ObjectInfo(f"s3://b/{key}", 3))
    assert set(ground.objects) == {"s3://b/a/../../b", "s3://b/a//c", "s3://b/./d", "s3://b/../../../etc/passwd"}
    assert list(ground.odd) == ["s3://b/x/"]
    assert ground.missing("s3://b/nothing") == Missing("holds no object")
    assert ground.missing("s3://b/x") is None


@pytest.mark.parametrize(
    ("changed", "bucket", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "", "the secret key is wrong (AWS_SECRET_ACCESS_KEY)"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "", "the access key is not known there (AWS_ACCESS_KEY_ID)"),
        (
            {"AWS_ACCESS_KEY_ID": buckets.STRANGER, "AWS_SECRET_ACCESS_KEY": buckets.STRANGERS_SECRET},
            "",
            "access is denied",
        ),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "", "there are no credentials"),
        (
            {"MLFLOW_S3_ENDPOINT_URL": "closed port", "AWS_MAX_ATTEMPTS": "1"},
            "",
            "the server cannot be reached (MLFLOW_S3_ENDPOINT_URL)",
        ),
        ({}, "no-such-bucket", "the bucket does not exist"),
    ],
)
def test_refusals_are_one_sentence(
    bucket_lab: BucketLab, s3: Any, monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], bucket: str, said: str
) -> None:
    """ART003 tells what stands in the way: never green by absence, never a traceback, nothing secret."""
    lab = bucket_lab
    if bucket:
        lab.prefix = f"s3://{bucket}/mlruns"
    lab.run(lab.experiment("credit_delivery"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it
        for key, value in changed.items():
            given = f"http://127.0.0.1:{closed.getsockname()[1]}" if value == "closed port" else value
            monkeypatch.setenv(key, given) if given else monkeypatch.delenv(key)
        buckets.forget_clients()
        found = lab.artifacts()
    (item,) = found.unreachable
    assert said in item.reason
    assert item.reason.count("\n") == 0
    assert "Secret" not in item.reason
    assert buckets.SECRET not in item.reason
    assert item.rows == 2


def test_without_boto3_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(RemoteError, match=r"pip install 'pytest-mlflow-compliance\[s3\]'"):
        Bucket("any").children("s3://any")


def test_what_was_written_to_an_emptied_root_is_unknown(bucket_lab: BucketLab, s3: Any) -> None:
    lab = bucket_lab
    one = lab.experiment("credit_delivery")
    run = lab.run(one)
    assert lab.artifacts().unreachable == (), "a run may have logged numbers alone"
    gone = lab.client.create_logged_model(one, name="model", source_run_id=run)
    lab.client.finalize_logged_model(gone.model_id, LoggedModelStatus.READY)
    (item,) = lab.artifacts().unreachable
    assert "holds no object, though files were written there" in item.reason
    assert item.why is Why.NO_ROOT
    lab.client.delete_logged_model(gone.model_id)
    put(s3, f"s3://{s3.bucket}", {"mlruns/": b""})
    assert lab.artifacts().unreachable == ()


def test_a_production_run_is_built_and_looked_into(
    bucket_lab: BucketLab, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged into the bucket as planned, verified; its model is scanned, tried and scored on a local copy that is
    fetched once; taken back.
    """
    put(s3, f"s3://{s3.bucket}", {"mlruns/": b""})
    lab = unproduced(lambda: bucket_lab)
    before = lab.everything()
    done = carry_out(lab, plan_for(lab))
    assert (done.differing, done.outcome.failed) == ([], [])
    after = lab.everything()
    fetched: list[str] = []
    chunks = Bucket.chunks
    monkeypatch.setattr(Bucket, "chunks", lambda self, path, etag="": fetched.append(path) or chunks(self, path, etag))
    (run,) = [run for run in after.runs.values() if run.tags.get("compliance.built_for") == "credit" and run.active]
    (folder,) = after.model_folders(run)
    assert folder.startswith(lab.prefix)
    assert after.evidence is not None
    assert after.evidence.scans[folder].problems == ()
    assert after.evidence.probes[folder].problem == ""
    assert after.evidence.cards[folder].signed
    assert after.evidence.scored[run.run_id].problem == ""
    assert after.evidence.metadata[run.run_id].problem == ""
    assert after.evidence.served[run.run_id].problems == ()
    assert len(fetched) == len(set(fetched))
    take_back(lab, done.lines)
    assert differing(before, lab.read(tuple(before.runs))) == []


@pytest.fixture
def pointing(bucket_lab: BucketLab) -> BucketLab:
    """A store with the same file in three runs, whose settings ask for pointers."""
    lab = bucket_lab
    settings = lab.settings.model_copy(
        update={"duplicates": lab.settings.duplicates.model_copy(update={"pointers": True})}
    )
    made = type(lab)(lab.folder, settings)
    made.prefix = lab.prefix
    one = made.experiment("credit_delivery")
    for _ in range(3):
        made.run(one, files={"data/same ü.bin": BIG, "notes.txt": b"n"})
    return made


def everything_in(client: Any) -> dict[str, bytes]:
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=client.bucket).get("Contents", ())]
    return {key: client.get_object(Bucket=client.bucket, Key=key)["Body"].read() for key in keys}


def test_pointers_keep_the_laws_and_settle_duplicates(pointing: BucketLab, s3: Any) -> None:
    """Nothing that was there is touched; the rule is content while the content holds, and only then; all of it can
    be taken back.
    """
    lab = pointing
    (group,) = lab.artifacts().duplicates()
    kept, path, last = group.paths
    before = everything_in(s3)
    there_and_back(lab, PointToCopy(path, lab.prefix, kept, group.sha256, group.size))
    there = everything_in(s3)
    assert there.items() > before.items()

    done = carry_out(lab, plan_for(lab, "ART001"))
    assert (done.differing, done.outcome.failed, len(done.outcome.applied)) == ([], [], 2)
    assert everything_in(s3).items() > there.items()
    added = {key: body for key, body in everything_in(s3).items() if key not in there}
    assert [body for key, body in added.items() if "/.quarantine/" in key] == [BIG, BIG]
    assert sum(".compliance-pointer." in key for key in added) == 2
    assert findings(lab, "ART001", "ART002") == []
    assert plan_for(lab, "ART001").changes == ()
    assert not [at for at in lab.artifacts().files if "compliance-pointer" in at]

    put(s3, os.path.dirname(kept), {"same ü.bin": BIG[:-1] + b"x"})
    assert [finding.observed for finding in findings(lab, "ART001")] == [f"{len(BIG)} bytes too many"], (
        "two copies are left, and lead nowhere"
    )
    again = carry_out(lab, plan_for(lab, "ART001"))
    assert (again.differing, again.outcome.failed, len(again.outcome.applied)) == ([], [], 1)
    assert resolve_artifact(last) == path
    take_back(lab, again.lines)
    put(s3, os.path.dirname(kept), {"same ü.bin": BIG})
    take_back(lab, done.lines)
    assert [found.paths for found in lab.artifacts().duplicates()] == [(kept, path, last)]
    assert resolve_artifact(last) == last


def test_an_artifact_is_read_from_the_copy_that_still_holds(pointing: BucketLab, s3: Any) -> None:
    lab = pointing
    (group,) = lab.artifacts().duplicates()
    kept, path, _ = group.paths
    run, delete = (
        path.split("/")[-4],
        lambda at: s3.delete_object(Bucket=s3.bucket, Key=at.partition(f"{s3.bucket}/")[2]),
    )
    assert resolve_artifact(path) == path
    carry_out(lab, plan_for(lab, "ART001"))
    (aside,) = [f"s3://{s3.bucket}/{key}" for key in everything_in(s3) if "/.quarantine/" in key and run in key]
    assert resolve_artifact(path) == resolve_artifact(f"runs:/{run}/data/same ü.bin", tracking_uri=lab.uri) == kept
    assert [resolve_artifact(same) for same in (kept, os.path.dirname(path), "/mlruns/x")] == [
        kept,
        os.path.dirname(path),
        "/mlruns/x",
    ]
    with pytest.raises(ComplianceError, match=f"there is no run {'0' * 32} in sqlite:"):
        resolve_artifact(f"runs:/{'0' * 32}/x", tracking_uri=lab.uri)
    put(s3, os.path.dirname(kept), {"same ü.bin": BIG[:-1] + b"x"})
    assert resolve_artifact(path) == aside, "the kept one has other content of the same size"
    put(s3, os.path.dirname(path), {"same ü.bin": BIG + b"more"})
    assert resolve_artifact(path) == path, "it is another file by now"
    delete(path)  # as a lifecycle rule would
    assert resolve_artifact(path) == aside
    put(s3, os.path.dirname(kept), {"same ü.bin": BIG})
    assert resolve_artifact(path) == kept
    with pytest.raises(ChangeError, match="only a pointer is left of it"):
        copy_folder(lab.store.places, lab.place(run), f"{lab.prefix}/9/copy", lambda content: content)
    put(s3, os.path.dirname(kept), {"earlier.bin": BIG})
    carry_out(lab, plan_for(lab, "ART001"))
    delete(kept)
    assert resolve_artifact(path) == f"{os.path.dirname(kept)}/earlier.bin", "which is kept for the one that was kept"
    delete(f"{os.path.dirname(kept)}/earlier.bin")
    assert resolve_artifact(path) == aside
    for key in everything_in(s3):
        if "/.quarantine/" in key:
            s3.delete_object(Bucket=s3.bucket, Key=key)
    with pytest.raises(ComplianceError, match="does not exist, and no pointer leads to a copy"):
        resolve_artifact(path)


def test_pointers_are_not_written_where_they_would_do_harm(pointing: BucketLab, s3: Any) -> None:
    """Into model folders, beside what is still written; and nothing is taken for stored once on the word of a
    pointer that is not in order.
    """
    lab = pointing
    one = lab.experiment("credit_models")
    runs = [lab.run(one) for _ in range(2)]
    models = [lab.model(one, run, files={"weights.bin": BIG * 3}) for run in runs]
    (refusal,) = unfixed(plan_for(lab, "ART001"), "ART001")
    assert refusal.reason.startswith("several of its copies lie in model folders")
    s3.delete_object(Bucket=s3.bucket, Key=f"mlruns/{one}/models/{models[1]}/artifacts/weights.bin")
    put(s3, lab.place(runs[0]), {"a.bin": BIG * 3})
    changes = [change for change in plan_for(lab, "ART001").changes if isinstance(change, PointToCopy)]
    assert {change.kept for change in changes if change.size == 3 * len(BIG)} == {
        f"{lab.prefix}/{one}/models/{models[0]}/artifacts/weights.bin"
    }

    (group,) = [group for group in lab.artifacts().duplicates() if group.size == len(BIG)]
    kept, path, last = group.paths

    def due(of: str, to: str) -> bytes:
        pointer = Pointer(to, group.sha256, group.size, f"{lab.prefix}/.quarantine/x/y", "x")
        return json.dumps({"pointer": 1, "path": of, **pointer._asdict()}).encode()

    def groups() -> list[tuple[str, ...]]:
        return [found.paths for found in lab.artifacts().duplicates() if found.size == group.size]

    put(s3, os.path.dirname(last), {"same ü.bin.compliance-pointer.1.json": due(path, kept)})
    assert groups() == [group.paths], "it was copied from beside another object"
    for at, journal, content in ((kept, "1", b"[" * 9000), (kept, "2", due(kept, path)), (path, "1", due(path, kept))):
        put(s3, os.path.dirname(at), {f"same ü.bin.compliance-pointer.{journal}.json": content})
    assert groups() == [group.paths], "one is no JSON, the others lead in a circle"
    lab.run(lab.experiment("credit_running"), status="RUNNING", files={"same.bin": BIG})
    assert any("has not ended" in refusal.reason for refusal in unfixed(plan_for(lab, "ART001"), "ART001"))
