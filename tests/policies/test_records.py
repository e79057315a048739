"""ART004 and PRD009: whoever changes a file or a row of the production run is found out by what stands elsewhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from gates import POLICIES, Gate, told
from producing import PRODUCTION, copied, toml_for
from repairs import carry_out, findings, notes, plan_for, take_back, unfixed, verdict
from stores import Lab, there_and_back

from mlflow_compliance.changes import SetRunTag
from mlflow_compliance.loader.load import load_production_model
from mlflow_compliance.loader.model import ModelError

TAG = "compliance.sha256.model_metadata"


class Store(NamedTuple):
    """A store with a production run that --fix built, and where its parts are."""

    lab: Lab
    run_id: str
    model_id: str
    home: Path
    model: Path

    @property
    def metadata(self) -> Path:
        return self.home / "model_metadata.json"

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.metadata.read_text())
        return found

    def edit(self, **changes: Any) -> None:
        """Change the metadata, as --fix would have written it."""
        text = json.dumps({**self.document, **changes}, indent=2, ensure_ascii=False) + "\n"
        self.metadata.write_text(text)

    def sign(self) -> None:
        """Put the hash of the metadata as it is now on the run: what somebody does who knows of the tag."""
        self.lab.client.set_tag(self.run_id, TAG, hashlib.sha256(self.metadata.read_bytes()).hexdigest())


def opened(lab: Lab) -> Store:
    (run,) = [run for run in lab.runs("1") if run.data.tags.get("stage") == "production"]
    (model,) = lab.client.search_logged_models(["1"], filter_string=f"source_run_id = '{run.info.run_id}'")
    return Store(lab, run.info.run_id, model.model_id, Path(run.info.artifact_uri), Path(model.artifact_location))


@pytest.fixture
def store(produced_built: Lab, tmp_path: Path) -> Store:
    return opened(copied(produced_built, tmp_path / "store"))


def found(store: Store, *rules: str) -> set[tuple[str, str]]:
    return {(item.policy, item.code) for item in findings(store.lab, *(rules or ("ART004", "PRD009")))}


def _relist(store: Store, path: str, content: bytes) -> None:
    """The entry of a file in the metadata, as it would be of other bytes."""
    digest = hashlib.sha256(content).hexdigest()
    items = [
        {**item, "sha256": digest, "size": len(content)} if item["path"] == path else item
        for item in store.document["artifacts"]
    ]
    store.edit(artifacts=items)


def _append(path: Path, text: bytes = b"\n") -> bytes:
    path.write_bytes(path.read_bytes() + text)
    return path.read_bytes()


def _swap_pickle(store: Store) -> None:
    (store.home / "model.pkl").write_bytes(b"\x80\x04N.")


def _swap_importance(store: Store) -> None:
    (store.home / "feature_importance.csv").write_text("feature,split,gain\nFEATURE_11,9,9\n")


def _swap_picture(store: Store) -> None:
    shutil.copy(store.home / "confusion_matrix.png", store.home / "threshold_curve.png")


def _edit_metric(store: Store) -> None:
    store.edit(metrics={**store.document["metrics"], "roc_auc": 0.99})


def _edit_text(store: Store) -> None:
    store.edit(limitations="none")


def _edit_metadata_and_model(store: Store) -> None:
    content = _append(store.model / "requirements.txt", b"evil==1.0\n")
    _relist(store, "model/requirements.txt", content)


def _edit_signature(store: Store) -> None:
    path = store.model / "MLmodel"
    path.write_text(path.read_text().replace("FEATURE_0", "FEATURE_X"))


def _add_to_requirements(store: Store) -> None:
    _append(store.model / "requirements.txt", b"# harmless\n")


def _link_metadata(store: Store) -> None:
    other = store.lab.folder / "other.json"
    other.write_text(store.metadata.read_text().replace("recorded", "synthetic"))
    store.metadata.unlink()
    store.metadata.symlink_to(other)


def _edit_tag(store: Store) -> None:
    store.lab.client.set_tag(store.run_id, TAG, "0" * 64)


def _empty_tag(store: Store) -> None:
    store.lab.client.set_tag(store.run_id, TAG, "")


def _edit_tag_of_model(store: Store) -> None:
    store.lab.client.set_tag(store.run_id, "compliance.sha256.model", "0" * 64)


def _edit_keeping_the_time(store: Store) -> None:
    path = store.home / "feature_importance.csv"
    facts, content = path.stat(), bytearray(path.read_bytes())
    content[-2] ^= 1
    with path.open("r+b") as file:
        file.write(bytes(content))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _remove_picture(store: Store) -> None:
    (store.home / "confusion_matrix.png").unlink()


def _remove_metadata(store: Store) -> None:
    store.metadata.unlink()


def _edit_predictions(store: Store) -> None:
    _append(store.home / "predictions" / "predictions.parquet")


HASHES: dict[str, Callable[[Store], None]] = {
    "model.pkl swapped": _swap_pickle,
    "feature_importance.csv swapped": _swap_importance,
    "a picture swapped for another": _swap_picture,
    "a metric in the metadata": _edit_metric,
    "a text in the metadata that nobody compares": _edit_text,
    "model and metadata together": _edit_metadata_and_model,
    "the signature in MLmodel": _edit_signature,
    "bytes added to requirements.txt": _add_to_requirements,
    "the metadata a link to an edited one": _link_metadata,
    "the tag edited": _edit_tag,
    "the tag emptied": _empty_tag,
    "the tag of the pickle edited": _edit_tag_of_model,
    "in place, with its time kept": _edit_keeping_the_time,
    "a picture removed": _remove_picture,
    "the metadata removed": _remove_metadata,
    "predictions edited": _edit_predictions,
}


@pytest.mark.parametrize("way", HASHES)
def test_art004_tells_by_the_tag_alone(store: Store, way: str) -> None:
    """The journals are away: what stands on the run is enough."""
    shutil.rmtree(store.lab.folder / ".compliance")
    assert found(store) == set()
    HASHES[way](store)
    codes = {code for policy, code in found(store) if policy == "ART004"}
    assert codes == {"gone" if "removed" in way else "changed"}


def test_art004_says_which_file_where_and_what_to_do(store: Store) -> None:
    before = hashlib.sha256((store.home / "model.pkl").read_bytes()).hexdigest()
    _swap_pickle(store)
    (item,) = findings(store.lab, "ART004")
    assert (item.entity.key, item.observed) == (
        str(store.home / "model.pkl"),
        f"sha256 {hashlib.sha256((store.home / 'model.pkl').read_bytes()).hexdigest()[:16]}…",
    )
    for where in (
        f"tag compliance.sha256.model of run {store.run_id}",
        f"sources of model_metadata.json of run {store.run_id}",
        f"model_metadata.json of run {store.run_id}",
    ):
        assert f"sha256 {before[:16]}… ({where})" in item.expected
    (advice,) = unfixed(plan_for(store.lab, "ART004"), "ART004")
    assert "restore what is on record from a backup" in advice.reason


def _edit_run_id(store: Store) -> None:
    store.edit(run_id="0" * 32)


def _edit_model_id(store: Store) -> None:
    other = store.lab.client.create_logged_model("1", name="other", source_run_id=store.lab.run("1", "other"))
    store.edit(model_id=other.model_id)


def _edit_experiment(store: Store) -> None:
    store.edit(experiment_id="0")


def _edit_date(store: Store) -> None:
    store.edit(created_at="2024-01-01T00:00:00+00:00")


def _edit_metrics(store: Store) -> None:
    store.edit(metrics={**store.document["metrics"], "recall": 0.9})


def _add_metric(store: Store) -> None:
    store.edit(metrics={**store.document["metrics"], "lift": 3.0})


def _edit_costs(store: Store) -> None:
    store.edit(costs={"false_negative": 1, "false_positive": 1})


def _edit_metric_row(store: Store) -> None:
    for table in ("metrics", "latest_metrics"):
        store.lab.sql(f"UPDATE {table} SET value = 0.99 WHERE run_uuid = ? AND key = 'roc_auc'", store.run_id)


def _edit_model_metric_row(store: Store) -> None:
    store.lab.sql(
        "UPDATE logged_model_metrics SET metric_value = 0.99 WHERE model_id = ? AND metric_name = 'roc_auc'",
        store.model_id,
    )


def _log_model_metric_elsewhere(store: Store) -> None:
    """From another run, of the same data: the UI shows it as the model's."""
    from mlflow.entities import Metric

    (model,) = store.lab.client.search_logged_models(["1"], filter_string=f"source_run_id = '{store.run_id}'")
    name, digest = next((item.dataset_name, item.dataset_digest) for item in model.metrics)
    point = Metric(
        "roc_auc", 0.99, 2_000_000_000_000, 7, model_id=store.model_id, dataset_name=name, dataset_digest=digest
    )
    store.lab.client.log_batch(store.lab.run("1", "other"), metrics=[point])


def _edit_cost_param(store: Store) -> None:
    for table, key, owner in (("params", "key", "run_uuid"), ("logged_model_params", "param_key", "model_id")):
        value = "value" if table == "params" else "param_value"
        key_of = store.run_id if table == "params" else store.model_id
        store.lab.sql(f"UPDATE {table} SET {value} = '1' WHERE {owner} = ? AND {key} = 'false_negative_cost'", key_of)


def _add_cost_param(store: Store) -> None:
    store.lab.client.log_param(store.run_id, "cost_fn", "3")


def _edit_param_row(store: Store) -> None:
    store.lab.sql("UPDATE params SET value = '0.9' WHERE run_uuid = ? AND key = 'subsample'", store.run_id)


def _edit_start(store: Store) -> None:
    store.lab.sql("UPDATE runs SET start_time = start_time - 3600000 WHERE run_uuid = ?", store.run_id)


VALUES: dict[str, tuple[Callable[[Store], None], str]] = {
    "run id in the metadata": (_edit_run_id, "id-differs"),
    "model id in the metadata": (_edit_model_id, "id-differs"),
    "experiment in the metadata": (_edit_experiment, "id-differs"),
    "date in the metadata": (_edit_date, "date-differs"),
    "start of the run": (_edit_start, "date-differs"),
    "metrics in the metadata": (_edit_metrics, "metric-differs"),
    "one metric more in the metadata": (_add_metric, "metric-differs"),
    "metric row": (_edit_metric_row, "metric-differs"),
    "metric row of the model": (_edit_model_metric_row, "model-differs"),
    "metric of the model from another run": (_log_model_metric_elsewhere, "model-differs"),
    "param row": (_edit_param_row, "model-differs"),
    "costs in the metadata": (_edit_costs, "cost-differs"),
    "param of a cost": (_edit_cost_param, "cost-differs"),
    "another param of a cost": (_add_cost_param, "cost-differs"),
}


@pytest.mark.parametrize("way", VALUES)
def test_prd009_tells_though_the_hash_was_renewed(store: Store, way: str) -> None:
    """Whoever edits the metadata and its hash on the run, and takes the journals away, leaves the rows."""
    shutil.rmtree(store.lab.folder / ".compliance")
    harm, code = VALUES[way]
    harm(store)
    store.sign()
    assert ("PRD009", code) in found(store)
    assert {policy for policy, _ in found(store)} == {"PRD009"}
    assert "compare with a backup" in unfixed(plan_for(store.lab, "PRD009"), "PRD009")[0].reason


def in_place(produced_built: Lab, tmp_path: Path) -> Store:
    """The store with journals that speak of its own paths."""
    store = opened(copied(produced_built, tmp_path / "store"))
    records = store.lab.folder / ".compliance" / "hashes.jsonl"
    records.write_text(records.read_text().replace(f"{produced_built.folder}/", f"{store.lab.folder}/"))
    return store


@pytest.fixture
def journalled(produced_built: Lab, tmp_path: Path) -> Store:
    return in_place(produced_built, tmp_path)


def test_every_file_is_on_record_beside_the_journals(journalled: Store) -> None:
    records = [json.loads(line) for line in (journalled.lab.folder / ".compliance" / "hashes.jsonl").open()]
    files = [path for folder in (journalled.home, journalled.model) for path in folder.rglob("*") if path.is_file()]
    assert {item["path"]: item["sha256"] for item in records} == {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    assert found(journalled) == set()


def test_the_journal_tells_what_the_tag_does_not(journalled: Store) -> None:
    """Metadata, its tag and all other tags of ours rewritten: the journal and its record of hashes are left."""
    _edit_text(journalled)
    journalled.sign()
    (item,) = findings(journalled.lab, "ART004")
    assert "hashes.jsonl" in item.expected
    assert "(journal 2" in item.expected
    (journalled.lab.folder / ".compliance" / "hashes.jsonl").unlink()
    (item,) = findings(journalled.lab, "ART004")
    assert "(journal 2" in item.expected
    assert "restore" in unfixed(plan_for(journalled.lab, "ART004"), "ART004")[0].reason


def test_without_our_tags_the_record_beside_the_journals_is_left(journalled: Store) -> None:
    for key in journalled.lab.client.get_run(journalled.run_id).data.tags:
        if key.startswith("compliance."):
            journalled.lab.client.delete_tag(journalled.run_id, key)
    assert found(journalled) == set()
    _edit_text(journalled)
    assert found(journalled) == {("ART004", "changed")}


def test_a_tag_that_was_taken_off_is_told_and_put_back_where_the_journal_proves_it(journalled: Store) -> None:
    before = journalled.lab.client.get_run(journalled.run_id).data.tags[TAG]
    journalled.lab.client.delete_tag(journalled.run_id, TAG)
    assert found(journalled) == {("ART004", "no-hash")}
    plan = plan_for(journalled.lab, "ART004")
    assert plan.changes == (SetRunTag(journalled.run_id, TAG, before, None),)
    done = carry_out(journalled.lab, plan)
    assert (done.differing, found(journalled)) == ([], set())
    take_back(journalled.lab, done.lines)
    assert TAG not in journalled.lab.client.get_run(journalled.run_id).data.tags


@pytest.mark.parametrize("journal", ["there", "gone"])
def test_a_metadata_that_nothing_proves_gets_no_tag(journalled: Store, journal: str) -> None:
    journalled.lab.client.delete_tag(journalled.run_id, TAG)
    _edit_text(journalled)
    if journal == "gone":
        shutil.rmtree(journalled.lab.folder / ".compliance")
    assert ("ART004", "no-hash") in found(journalled)
    plan = plan_for(journalled.lab, "ART004")
    assert plan.changes == ()
    reasons = " ".join(item.reason for item in unfixed(plan, "ART004"))
    assert ("nothing proves" in reasons) == (journal == "gone")


def as_before(store: Store) -> None:
    """Make a store what earlier versions built: no hash of the metadata anywhere, and no MLmodel in the metadata."""
    items = [item for item in store.document["artifacts"] if item["path"] != "model/MLmodel"]
    store.edit(artifacts=items)
    store.lab.client.delete_tag(store.run_id, TAG)
    folder = store.lab.folder / ".compliance"
    (folder / "hashes.jsonl").unlink()
    (journal,) = [path for path in folder.glob("2*.jsonl") if "LogProductionRun" in path.read_text()]
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if line.get("do", {}).get("kind") == "LogProductionRun":
            planned = json.loads(line["do"]["metadata"])
            planned["artifacts"] = [item for item in planned["artifacts"] if item["path"] != "model/MLmodel"]
            line["do"]["metadata"] = json.dumps(planned, indent=2, ensure_ascii=False) + "\n"
        if "bound" in line:
            line["bound"] = {key: value for key, value in line["bound"].items() if "sha256 of" not in key}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_what_an_earlier_version_built_stays_green_and_is_offered_the_tag(store: Store) -> None:
    as_before(store)
    assert found(store) == set()
    assert load_production_model(tracking_uri=store.lab.uri, config=store.lab.folder / "compliance.toml").run_id
    assert any("no tag holds its own: --fix adds it" in note for note in notes(store.lab, "ART004", "root-0"))
    (change,) = plan_for(store.lab, "ART004").changes
    assert isinstance(change, SetRunTag)
    there_and_back(store.lab, change)
    assert carry_out(store.lab, plan_for(store.lab, "ART004")).differing == []
    assert (found(store), plan_for(store.lab, "ART004").changes) == (set(), ())
    assert not any("no tag" in note for note in notes(store.lab, "ART004", "root-0"))
    _edit_text(store)
    assert found(store) == {("ART004", "changed")}


@pytest.mark.parametrize("built", ["by this version", "before"])
def test_a_copy_of_a_run_that_a_repair_built_keeps_the_rules(store: Store, built: str) -> None:
    """Another experiment becomes the product's: the run is merged into it, with new ids in its MLmodel alone."""
    if built == "before":
        as_before(store)
    store.lab.client.delete_registered_model("credit")  # it would keep the experiment where it is
    store.lab.experiment("credit_final_delivery")
    settings = store.lab.folder / "compliance.toml"
    settings.write_text(
        settings.read_text().replace('primary = "credit_delivery"', 'primary = "credit_final_delivery"')
    )
    store.lab.reload()
    plan = plan_for(store.lab, "EXP001", "ART004", "PRD009")
    assert [item.reason for item in plan.unfixed] == []
    done = carry_out(store.lab, plan)
    assert (done.differing, done.outcome.failed) == ([], [])
    assert found(store) == set()
    (run,) = [run for run in store.lab.runs("2") if run.data.tags.get("stage") == "production"]
    assert (run.data.tags["compliance.source_run_id"], run.info.lifecycle_stage) == (store.run_id, "active")
    (Path(run.info.artifact_uri) / "feature_importance.csv").write_text("feature\n")
    assert ("ART004", "changed") in found(store)


def test_a_file_that_cannot_be_read_is_told_and_one_that_was_not_looked_at_is_not_evaluated(store: Store) -> None:
    path = store.home / "feature_importance.csv"
    path.unlink()
    path.symlink_to(path.name)
    assert ("ART004", "unreadable") in found(store)
    path.unlink()
    away = store.lab.folder / "volume"
    store.lab.mlruns.rename(away)
    store.lab.mlruns.mkdir()
    said = verdict(store.lab, "PRD009", "credit")
    assert (said.findings, [item.code for item in said.unevaluated]) == ((), ["not-looked-at"])
    assert ("ART004", "gone") not in found(store)


def test_programs_refuse_a_model_whose_record_was_edited_with_it(store: Store) -> None:
    settings = {"tracking_uri": store.lab.uri, "config": store.lab.folder / "compliance.toml"}
    _edit_metadata_and_model(store)
    with pytest.raises(ModelError, match=r"model_metadata.json of run \w+ is not the one on record \(tag"):
        load_production_model(**settings)
    store.sign()
    assert load_production_model(**settings).run_id == store.run_id
    _edit_signature(store)
    with pytest.raises(ModelError, match="MLmodel has changed"):
        load_production_model(**settings)
    assert ("SRV001", "not-on-record") in found(store, "SRV001")
    store.lab.client.delete_tag(store.run_id, TAG)
    with pytest.raises(ModelError, match=f"was built with the tag {TAG}, which is not there any more"):
        load_production_model(**settings)


# The other way: what honest people do.


def _rounded(store: Store) -> None:
    """Metrics logged anew with three digits, within what the settings allow."""
    for key, value in store.lab.client.get_run(store.run_id).data.metrics.items():
        if abs(value) < 1:
            store.lab.client.log_metric(store.run_id, key, round(value, 3), step=1)


def _evaluated_elsewhere(store: Store) -> None:
    """Another run measures the model on other data."""
    from mlflow.entities import Metric

    point = Metric(
        "roc_auc", 0.6, 2_000_000_000_000, 0, model_id=store.model_id, dataset_name="2027", dataset_digest="x"
    )
    store.lab.client.log_batch(store.lab.run("1", "later"), metrics=[point])


def _more_logged(store: Store) -> None:
    """A file, a tag and a param more, a new name, and the run ended again."""
    (store.lab.folder / "note.txt").write_text("seen")
    store.lab.client.log_artifact(store.run_id, str(store.lab.folder / "note.txt"))
    store.lab.client.set_tag(store.run_id, "mlflow.runName", "champion")
    store.lab.client.set_tag(store.run_id, "compliance.sha256.report", "whatever")
    store.lab.client.log_param(store.run_id, "cost_fn", "10.0")
    store.lab.client.set_terminated(store.run_id)


def _loaded_by_name(store: Store) -> None:
    """MLflow writes registered_model_meta into the folder of a model that is loaded by its name."""
    import mlflow

    with mock.patch.dict(os.environ, {"MLFLOW_TRACKING_URI": store.lab.uri}):
        mlflow.pyfunc.load_model("models:/credit@production")
    assert (store.model / "registered_model_meta").exists()


HONEST = {
    "rounded": _rounded,
    "evaluated on other data": _evaluated_elsewhere,
    "more logged": _more_logged,
    "loaded by name": _loaded_by_name,
}


@pytest.mark.parametrize("way", HONEST)
def test_what_honest_people_do_stays_green(store: Store, way: str) -> None:
    HONEST[way](store)
    assert found(store) == set()


def test_a_document_of_another_make_is_compared_where_it_can_only_mean_one_thing(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    key = lab.experiment("credit_delivery")
    said: dict[str, Any] = {
        "run_id": "the third one",
        "metrics": {"accuracy": 0.75},
        "created_at": "spring",
        "costs": 3,
    }
    files = {"model_metadata.json": json.dumps(said).encode(), "model.pkl": b"x"}
    run_id = lab.run(key, stage="production", metrics={"accuracy": 0.7459}, files=files)
    lab.client.log_param(run_id, "cost_fn", "10")
    assert findings(lab, "ART004", "PRD009") == []
    said |= {
        "run_id": "0" * 32,
        "metrics": {"accuracy": 0.81},
        "artifacts": [{"path": "model.pkl", "sha256": "0" * 64}],
    }
    (lab.folder_of(run_id) / "model_metadata.json").write_text(json.dumps(said))
    assert {(item.policy, item.code) for item in findings(lab, "ART004", "PRD009")} == {
        ("ART004", "changed"),
        ("PRD009", "id-differs"),
        ("PRD009", "metric-differs"),
    }


def test_at_the_command_line(store: Store, gate: Gate) -> None:
    _edit_metadata_and_model(store)
    _edit_model_metric_row(store)
    (gate.folder / "compliance.toml").write_text(toml_for(store.lab.uri, **PRODUCTION))
    result = gate("--compliance-rules=ART004,PRD009", rules=[POLICIES])
    text = told(result)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert f"tag {TAG} of run {store.run_id}" in text
    assert "metric roc_auc of its logged model is not that of the run" in text
