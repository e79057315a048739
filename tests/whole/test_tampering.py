"""Ways to tamper with a store that keeps every rule, and which rule says so; docs/tampering.md is this table."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from gates import CHECKOUT
from producing import FEATURES, produced
from repairs import rules
from stores import Lab

from mlflow_compliance.production.context import Context
from mlflow_compliance.rules.evaluation import cases, evaluate
from mlflow_compliance.rules.outcome import Outcome
from mlflow_compliance.snapshot.tags import METADATA_HASH

Act = Callable[["Store"], None]


class Store(Lab):
    """A store that keeps every rule, and where its parts are."""

    @property
    def run(self) -> str:  # type: ignore[override]  the production run, where a Lab makes one
        return self.one("SELECT run_uuid FROM tags WHERE key = 'stage' AND value = 'production'")

    @property
    def run_folder(self) -> Path:
        return self.mlruns / "1" / self.run / "artifacts"

    @property
    def model(self) -> Path:
        (folder,) = (self.mlruns / "1" / "models").glob("*/artifacts")
        return folder

    @property
    def model_id(self) -> str:
        return self.model.parent.name

    @property
    def old_run(self) -> str:
        return self.one("SELECT run_uuid FROM runs WHERE name = 'old'")

    def one(self, query: str, *values: Any) -> str:
        with closing(sqlite3.connect(self.database)) as connection:
            return str(connection.execute(query, values).fetchone()[0])

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run_folder / "model_metadata.json").read_text())
        return found

    def put_document(self, document: dict[str, Any]) -> None:
        (self.run_folder / "model_metadata.json").write_text(json.dumps(document, indent=2))

    def second_version(self) -> str:
        """Another version, of the older run, with files of its own."""
        model = Lab.model(self, "1", self.old_run, files={"model.pkl": pickle.dumps({"weights": [1]})})
        return self.registered("credit", f"models:/{model}", self.old_run)


def changed(path: str, how: Callable[[bytes], bytes], *, of: str = "model", keep_times: bool = False) -> Act:
    """The content of one file becomes another."""

    def act(store: Store) -> None:
        file = getattr(store, of) / path
        facts = file.stat()
        file.write_bytes(how(file.read_bytes()))
        if keep_times:
            os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    return act


def flipped(content: bytes) -> bytes:
    """One bit of it, in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def said(old: str, new: str) -> Callable[[bytes], bytes]:
    def replaced(content: bytes) -> bytes:
        assert old.encode() in content
        return content.replace(old.encode(), new.encode())

    return replaced


def gone(path: str, *, of: str = "model") -> Act:
    return lambda store: (getattr(store, of) / path).unlink()


def sql(statement: str, *values: str) -> Act:
    """`{run}`, `{old}`, `{model}` in values stand for ids."""

    def act(store: Store) -> None:
        ids = {"{run}": store.run, "{old}": store.old_run, "{model}": store.model_id}
        store.sql(statement, *(ids.get(value, value) for value in values))

    return act


def metadata(edit: Callable[[dict[str, Any]], Any]) -> Act:
    def act(store: Store) -> None:
        document = store.document()
        edit(document)
        store.put_document(document)

    return act


def linked(path: str, *, of: str = "model") -> Act:
    """A link to a copy elsewhere stands in the place of a file."""

    def act(store: Store) -> None:
        file, copy = getattr(store, of) / path, store.folder / "copy"
        shutil.move(file, copy)
        file.symlink_to(copy)

    return act


class Runs:
    """Unpickling it runs a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def another_model(store: Store) -> bytes:
    import numpy as np
    import pandas as pd
    from lightgbm import LGBMClassifier

    dice = np.random.default_rng(8)
    frame = pd.DataFrame(dice.normal(size=(300, len(FEATURES))), columns=list(FEATURES))
    model = LGBMClassifier(n_estimators=3, n_jobs=1, verbosity=-1).fit(frame, dice.integers(0, 2, 300))
    return pickle.dumps(model)


def model_swapped(store: Store) -> None:
    import skops.io

    skops.io.dump(pickle.loads(another_model(store)), store.model / "model.skops")


def on_record_as_it_is(store: Store, name: str) -> None:
    """Write into the metadata what a file of the model holds by now."""
    document, file = store.document(), store.model / name
    for item in document["artifacts"]:
        if item["path"] == f"model/{name}":
            item.update(sha256=sha256(file.read_bytes()).hexdigest(), size=file.stat().st_size)
    store.put_document(document)


def metadata_hash(store: Store) -> str:
    return sha256((store.run_folder / "model_metadata.json").read_bytes()).hexdigest()


def model_and_metadata_edited(store: Store) -> None:
    """Both sides of the comparison, so that they agree with each other."""
    model_swapped(store)
    on_record_as_it_is(store, "model.skops")


def model_metadata_and_tag_edited(store: Store) -> None:
    model_and_metadata_edited(store)
    tag(METADATA_HASH, metadata_hash(store))(store)


def every_record_edited(store: Store) -> None:
    """A file of the model, and all that was ever written down of it."""
    before, file_before = metadata_hash(store), sha256((store.model / "python_env.yaml").read_bytes()).hexdigest()
    with (store.model / "python_env.yaml").open("a") as file:
        file.write("\n# more\n")
    on_record_as_it_is(store, "python_env.yaml")
    tag(METADATA_HASH, metadata_hash(store))(store)
    after, file_after = metadata_hash(store), sha256((store.model / "python_env.yaml").read_bytes()).hexdigest()
    journals(lambda path: path.write_text(path.read_text().replace(before, after).replace(file_before, file_after)))(
        store
    )


def elsewhere(table: str, column: str, key: str, part: str) -> Act:
    """A row names a copy of its files, with one of them changed."""

    def act(store: Store) -> None:
        place = store.one(f"SELECT {column} FROM {table} WHERE {key}")
        copy = store.mlruns / "1" / "elsewhere" / "artifacts"
        shutil.copytree(place, copy)
        (copy / part).write_bytes(flipped((copy / part).read_bytes()))
        store.sql(f"UPDATE {table} SET {column} = ? WHERE {key}", str(copy))

    return act


BOMB = b"\na: &a [x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 8)) for name in b"bcdefgh"
)
"""YAML of which each line holds the one before it eight times."""


def predictions_inverted(store: Store) -> None:
    import pandas as pd

    path = store.run_folder / "predictions" / "predictions.parquet"
    frame = pd.read_parquet(path)
    frame["PROBABILITY"] = 1 - frame["PROBABILITY"]
    frame.to_parquet(path, index=False)


def journals(edit: Callable[[Path], Any]) -> Act:
    def act(store: Store) -> None:
        for path in (store.folder / ".compliance").glob("*.jsonl"):
            edit(path)

    return act


def metric(name: str, value: float) -> Act:
    def act(store: Store) -> None:
        for table in ("latest_metrics", "metrics"):
            store.sql(f"UPDATE {table} SET value = ? WHERE run_uuid = ? AND key = ?", value, store.run, name)

    return act


def tag(name: str, value: str | None) -> Act:
    if value is None:
        return sql("DELETE FROM tags WHERE run_uuid = ? AND key = ?", "{run}", name)
    return sql("UPDATE tags SET value = ? WHERE run_uuid = ? AND key = ?", value, "{run}", name)


def param(name: str, value: str | None) -> Act:
    if value is None:
        return sql("DELETE FROM params WHERE run_uuid = ? AND key = ?", "{run}", name)
    return sql("UPDATE params SET value = ? WHERE run_uuid = ? AND key = ?", value, "{run}", name)


def rival(store: Store) -> None:
    Lab.run(store, store.experiment("credit_production"), "rival", stage="production")


def pretended_run(store: Store) -> None:
    Lab.run(store, "1", "pretender", stage="production")


@dataclass(frozen=True)
class Tampering:
    """A way, and the ids of rules that say so; without any it is green, for the reason that is given."""

    what: str
    act: Act
    rules: tuple[str, ...]
    green: str = ""


def way(what: str, act: Act, *told_by: str, green: str = "") -> Tampering:
    return Tampering(what, act, told_by, green)


WAYS = (
    way("model file: one bit", changed("model.skops", flipped), "SRV001"),
    way("model file: one bit, times kept", changed("model.skops", flipped, keep_times=True), "SRV001"),
    way("model file: half of it", changed("model.skops", lambda content: content[: len(content) // 2]), "SRV001"),
    way("model file: emptied", changed("model.skops", lambda _: b""), "MOD001", "ART005"),
    way("model file: deleted", gone("model.skops"), "MOD001", "ART005", "REG002"),
    way("model file: another honest model", model_swapped, "SRV001"),
    way("model file: a pickle that runs a command", changed("model.skops", lambda _: pickle.dumps(Runs())), "MOD002"),
    way("model file: a link to a copy elsewhere", linked("model.skops"), "MOD002"),
    way("model folder: one more file", lambda store: (store.model / "more.txt").write_text("x"), "SRV001"),
    way(
        "model folder: one more folder",
        lambda store: (store.model / "code").mkdir() or (store.model / "code" / "x.py").write_text("x = 1"),
        "SRV001",
        "MOD002",
    ),
    way(
        "model folder: a loose pickle",
        lambda store: (store.model / "extra.bin").write_bytes(pickle.dumps(Runs())),
        "MOD002",
        "SRV001",
    ),
    way("MLmodel: deleted", gone("MLmodel"), "MOD001"),
    way("MLmodel: emptied", changed("MLmodel", lambda _: b""), "MOD001"),
    way("MLmodel: no YAML", changed("MLmodel", lambda _: b"\x00\xff{{{"), "MOD001"),
    way(
        "MLmodel: YAML that grows when it is read",
        changed(
            "MLmodel",
            lambda content: content + BOMB,
        ),
        "SRV001",
    ),
    way("MLmodel: the flavor's file", changed("MLmodel", said("model.skops", "other.skops")), "MOD001"),
    way("MLmodel: a column of the signature", changed("MLmodel", said("FEATURE_3", "FEATURE_X")), "MOD003", "PRD007"),
    way("MLmodel: outputs of the signature", changed("MLmodel", said("outputs: '", "outputs: null #'")), "MOD004"),
    way(
        "MLmodel: the function that pyfunc calls",
        changed(
            "MLmodel",
            said(
                "    loader_module: mlflow.lightgbm\n", "    loader_module: mlflow.lightgbm\n    predict_fn: no_such\n"
            ),
        ),
        "MOD003",
    ),
    way(
        "MLmodel: the module that loads it",
        changed("MLmodel", said("loader_module: mlflow.", "loader_module: evil.")),
        "MOD002",
    ),
    way("MLmodel: a comment", changed("MLmodel", lambda content: content + b"# ok\n"), "ART004"),
    way("requirements.txt: another version", changed("requirements.txt", said("==", "==0.")), "SRV001"),
    way("requirements.txt: no version", changed("requirements.txt", said("==", ">=")), "MOD004", "SRV001"),
    way("requirements.txt: deleted", gone("requirements.txt"), "MOD004", "SRV001"),
    way("conda.yaml: edited", changed("conda.yaml", lambda content: content + b"# x\n"), "SRV001"),
    way("python_env.yaml: edited", changed("python_env.yaml", lambda content: content + b"# x\n"), "SRV001"),
    way("input example: edited", changed("input_example.json", flipped), "SRV001"),
    way("input example: deleted", gone("input_example.json"), "MOD004"),
    way(
        "model.pkl of the run: another model",
        lambda store: (store.run_folder / "model.pkl").write_bytes(another_model(store)),
        "ART004",
    ),
    way("model.pkl of the run: one bit", changed("model.pkl", flipped, of="run_folder"), "ART004"),
    way("model.pkl of the run: deleted", gone("model.pkl", of="run_folder"), "PRD004"),
    way(
        "model.pkl of the run: a pickle that runs a command",
        changed("model.pkl", lambda _: pickle.dumps(Runs()), of="run_folder"),
        "MOD002",
        "ART004",
    ),
    way("feature importance: edited", changed("feature_importance.csv", flipped, of="run_folder"), "ART004"),
    way("feature importance: deleted", gone("feature_importance.csv", of="run_folder"), "ART004"),
    way(
        "a plot: another picture", changed("threshold_curve.png", lambda _: b"\x89PNG other", of="run_folder"), "ART004"
    ),
    way("predictions: other probabilities", predictions_inverted, "PRD005"),
    way(
        "predictions: half of them",
        changed("predictions/predictions.parquet", lambda content: content[: len(content) // 2], of="run_folder"),
        "PRD005",
    ),
    way("predictions: deleted", gone("predictions/predictions.parquet", of="run_folder"), "PRD004"),
    way(
        "predictions: a link to a copy elsewhere", linked("predictions/predictions.parquet", of="run_folder"), "PRD005"
    ),
    way("metadata: a metric", metadata(lambda found: found["metrics"].update(roc_auc=0.99)), "ART004"),
    way("metadata: the date", metadata(lambda found: found.update(created_at="2024-01-01T00:00:00+00:00")), "ART004"),
    way("metadata: the run's id", metadata(lambda found: found.update(run_id="0" * 32)), "ART004"),
    way("metadata: the model's id", metadata(lambda found: found.update(model_id="m-" + "0" * 32)), "ART004"),
    way("metadata: the experiment's id", metadata(lambda found: found.update(experiment_id="77")), "ART004"),
    way("metadata: the threshold", metadata(lambda found: found.update(threshold=0.48)), "PRD006"),
    way("metadata: the costs", metadata(lambda found: found["costs"].update(false_negative=1.0)), "ART004"),
    way("metadata: a hyperparameter", metadata(lambda found: found["hyperparameters"].update(max_depth="9")), "PRD007"),
    way("metadata: the columns", metadata(lambda found: found["features"].reverse()), "PRD007"),
    way(
        "metadata: a hash of the model", metadata(lambda found: found["artifacts"][5].update(sha256="0" * 64)), "SRV001"
    ),
    way("metadata: the list of files", metadata(lambda found: found.update(artifacts=[])), "ART004"),
    way("metadata: spaces", changed("model_metadata.json", lambda content: content + b"\n", of="run_folder"), "ART004"),
    way("metadata: deleted", gone("model_metadata.json", of="run_folder"), "PRD004"),
    way("metadata: no JSON", changed("model_metadata.json", lambda _: b"{", of="run_folder"), "PRD007"),
    way("metadata: a link to a copy elsewhere", linked("model_metadata.json", of="run_folder"), "PRD007"),
    way("model and metadata together", model_and_metadata_edited, "ART004"),
    way("model, metadata and the run's tag together", model_metadata_and_tag_edited, "ART004"),
    way("param: a hyperparameter", param("max_depth", "9"), "PRD007"),
    way("param: the threshold", param("optimal_threshold", "0.48"), "PRD006"),
    way("param: the threshold, no number", param("optimal_threshold", "high"), "PRD005"),
    way("param: a required one deleted", param("max_depth", None), "PRD001"),
    way("param: the costs", param("false_negative_cost", "1"), "PRD009"),
    way("param: the number of columns", param("n_features", "13"), "PRD006"),
    way("metric: the ROC AUC", metric("roc_auc", 0.99), "PRD005"),
    way("metric: the cost", metric("business_cost", 1.0), "PRD005"),
    way("metric: a count", metric("tp", 60.0), "PRD005"),
    way(
        "metric: a required one deleted",
        lambda store: (
            [
                store.sql(f"DELETE FROM {table} WHERE run_uuid = ? AND key = 'roc_auc'", store.run)
                for table in ("latest_metrics", "metrics")
            ]
            and None
        ),
        "PRD002",
    ),
    way(
        "metrics of the logged model",
        sql(
            "UPDATE logged_model_metrics SET metric_value = 0.99 WHERE model_id = ? AND metric_name = 'roc_auc'",
            "{model}",
        ),
        "PRD009",
    ),
    way("tag: production taken away", tag("stage", None), "RUN002"),
    way("tag: a required one deleted", tag("status", None), "PRD003"),
    way("tag: the hash of the model", tag("compliance.sha256.model", "0" * 64), "ART004"),
    way("tag: the hash of the predictions", tag("compliance.sha256.predictions", "0" * 64), "PRD005"),
    way("tag: a second run says production", pretended_run, "RUN002"),
    way(
        "run: RUNNING again",
        sql("UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE run_uuid = ?", "{run}"),
        "RUN002",
    ),
    way("run: FAILED", sql("UPDATE runs SET status = 'FAILED' WHERE run_uuid = ?", "{run}"), "RUN002"),
    way("run: deleted", lambda store: store.client.delete_run(store.run), "RUN002"),
    way(
        "run: its artifacts are elsewhere, one changed",
        lambda store: elsewhere("runs", "artifact_uri", f"run_uuid = '{store.run}'", "model.pkl")(store),
        "ART004",
    ),
    way("experiment: deleted", lambda store: store.client.delete_experiment("1"), "RUN002"),
    way("experiment: renamed", lambda store: store.client.rename_experiment("1", "scratch"), "EXP001"),
    way("experiment: a rival with a run that says production", rival, "EXP001"),
    way(
        "logged model: its files are elsewhere, one changed",
        lambda store: elsewhere("logged_models", "artifact_location", f"model_id = '{store.model_id}'", "model.skops")(
            store
        ),
        "SRV001",
    ),
    way(
        "logged model: another run's",
        sql("UPDATE logged_models SET source_run_id = ? WHERE model_id = ?", "{old}", "{model}"),
        "MOD001",
    ),
    way("logged model: deleted", lambda store: store.client.delete_logged_model(store.model_id), "MOD001"),
    way(
        "version: fetched from elsewhere, one file changed",
        elsewhere("model_versions", "storage_location", "version = 1", "model.skops"),
        "SRV001",
        "REG001",
    ),
    way("version: of another run", sql("UPDATE model_versions SET run_id = ? WHERE version = 1", "{old}"), "REG001"),
    way("version: deleted", lambda store: store.client.delete_model_version("credit", "1"), "REG001"),
    way(
        "version: with a stage",
        sql("UPDATE model_versions SET current_stage = 'Production' WHERE version = 1"),
        "REG003",
    ),
    way(
        "alias: another version",
        lambda store: store.client.set_registered_model_alias("credit", "production", store.second_version()),
        "REG001",
    ),
    way("alias: deleted", lambda store: store.client.delete_registered_model_alias("credit", "production"), "REG001"),
    way(
        "alias: a second one that says production",
        lambda store: store.client.set_registered_model_alias("credit", "Production", store.second_version()),
        "REG006",
    ),
    way("registered model: renamed", lambda store: store.client.rename_registered_model("credit", "debit"), "REG001"),
    way(
        "database: a run's experiment has no row",
        sql("UPDATE runs SET experiment_id = 99 WHERE run_uuid = ?", "{old}"),
        "STO002",
    ),
    way("database: another revision", sql("UPDATE alembic_version SET version_num = 'ffffffffffff'"), "STO003"),
    way("database: a table dropped", sql("DROP TABLE webhooks"), "STO003"),
    way(
        "a file that no row owns",
        lambda store: store.stray("77", {f"{'ab' * 16}/artifacts/x.bin": b"x" * 5000}),
        "ART002",
    ),
    way("the record of the repair: deleted", lambda store: shutil.rmtree(store.folder / ".compliance"), "ART004"),
    way("the record of the repair: emptied", journals(lambda path: path.write_text("")), "ART004"),
)


GREEN = (
    way(
        "the record of the repair: cut off after its first line",
        journals(lambda path: path.write_bytes(path.read_bytes().partition(b"\n")[0] + b"\n")),
        green="a repair that was killed leaves such a journal; metadata and the run's tags still hold the files",
    ),
    way(
        "a file of the model, metadata, the run's tag and the journal together",
        every_record_edited,
        green="whoever may write everything can forge every record; a signature tells (docs/signing.md)",
    ),
    way(
        "run: one more artifact",
        lambda store: (store.run_folder / "note.txt").write_text("x"),
        green="what is logged to a run later is not on record; only the folder of its model is closed",
    ),
    way(
        "run: its name",
        sql("UPDATE runs SET name = 'other' WHERE run_uuid = ?", "{run}"),
        green="names are for people: no fact follows from them",
    ),
    way(
        "run: its user",
        sql("UPDATE runs SET user_id = 'mallory' WHERE run_uuid = ?", "{run}"),
        green="MLflow lets every client say who it is",
    ),
    way(
        "metric: an earlier point of its history",
        sql(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES ('roc_auc', 0.1, 1, ?, -5, 0)",
            "{run}",
        ),
        green="the value that MLflow shows is what rules look at",
    ),
    way(
        "description of the registered model", sql("UPDATE registered_models SET description = 'x'"), green="free text"
    ),
)


@pytest.fixture(scope="module")
def pristine(empty_store: bytes, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store that a repair brought into line, and a copy of it to start from each time: journals name its paths."""
    folder = tmp_path_factory.mktemp("tampering") / "store"
    produced(lambda: Lab.new(folder, empty_store, {}))
    shutil.copytree(folder, folder.with_name("pristine"))
    made = Store.__new__(Store)
    Lab.__init__(made, folder, Lab(folder, _settings(folder)).settings)
    return made


def _settings(folder: Path) -> Any:
    from mlflow_compliance.settings.schema import load_settings

    return load_settings(folder / "compliance.toml")


@pytest.fixture
def store(pristine: Store) -> Store:
    start = pristine.folder.with_name("pristine")
    for path in pristine.folder.iterdir():
        # MLflow's client keeps the database open: its content is put back instead.
        if path.is_dir():
            shutil.rmtree(path)
        elif path != pristine.database:
            path.unlink()
    shutil.copytree(start, pristine.folder, dirs_exist_ok=True, ignore=lambda *_: [pristine.database.name])
    with closing(sqlite3.connect(start / "mlflow.db")) as old, closing(sqlite3.connect(pristine.database)) as new:
        old.backup(new)
    pristine.reload()
    return pristine


def told_by(store: Store, wanted: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Policy id -> why it is red; of all of them where none is named."""
    store.reload()
    context = Context(store.read(), store.settings)
    found: dict[str, list[str]] = {}
    for rule in rules():
        if wanted and rule.id not in wanted:
            continue
        for case in cases(rule, context):
            verdict = evaluate(rule, case, context)
            if verdict.outcome in (Outcome.FAILED, Outcome.NOT_EVALUATED):
                found.setdefault(rule.id, []).extend(map(str, (*verdict.findings, *verdict.unevaluated)))
    return found


def test_the_store_keeps_every_rule(store: Store) -> None:
    assert told_by(store) == {}


@pytest.mark.parametrize("tampering", WAYS, ids=lambda item: item.what)
def test_it_is_told(store: Store, tampering: Tampering) -> None:
    tampering.act(store)
    assert told_by(store, tampering.rules).keys() == set(tampering.rules)


@pytest.mark.parametrize("tampering", GREEN, ids=lambda item: item.what)
def test_it_is_green_by_design(store: Store, tampering: Tampering) -> None:
    tampering.act(store)
    assert told_by(store) == {}
    assert f"| {tampering.what} | {tampering.green} |" in (CHECKOUT / "docs" / "limits.md").read_text()


def test_the_page_is_this_table() -> None:
    page = (CHECKOUT / "docs" / "tampering.md").read_text()
    rows = [f"| {item.what} | {', '.join(item.rules)} |" for item in WAYS]
    assert [line for line in page.splitlines() if line.startswith("| ") and line != "| way | told by |"] == rows
    assert len(rows) >= 80
