"""Settings: what the models accept, what they say of mistakes, which file counts, where a key stands."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compliance.errors import SettingsError
from mlflow_compliance.production.claims import By, claims
from mlflow_compliance.settings.schema import Product, Settings, StoreSettings, find_settings, load_settings
from mlflow_compliance.settings.toml import line_of, parse
from mlflow_compliance.snapshot.entities import Experiment
from mlflow_compliance.snapshot.files import DuplicateRules

TABLES = (
    "artifacts, duplicates, evidence, experiments, gate, history, journal, models, owners, policies, products, "
    "retention, runs, store, waivers"
)
EVERYTHING = """
[store]
tracking_uri = "sqlite:///mlflow.db"
artifact_roots = ["mlruns"]
ignore = ["notes/*"]
busy_timeout = 1
requests_at_once = 8
[store.relocate]
"file:///D:/code/mlruns" = "mlruns"
[[products]]
name = "credit_scoring"
primary = "final"
production_by = "alias"
experiments = ["credit_*"]
production_names = ["*live"]
production_tags = { stage = "live" }
[products.production]
run_name = "v2"
model = "model.pkl"
predictions = "predictions.parquet"
target = "Y"
probability = "P"
threshold = 0
false_negative_cost = 10
false_positive_cost = 2
features = "rows.csv"
row = "N"
serialization = "cloudpickle"
model_name = "lightgbm"
registered_model = "credit"
alias = "live"
description = "in force"
largest_predictions = 0
tolerance = 0.01
required_params = ["a"]
required_metrics = ["b"]
required_tags = ["c"]
required_artifacts = ["d/*"]
facts = { threshold = ["t"] }
decisions = { cost = "10" }
[models]
allowed_globals = ["own.Scaler"]
allowed_models = ["sha256:0000000000000000000000000000000000000000000000000000000000000000"]
loaders = ["own.flavor"]
allow_code = true
time_limit = 5
half_made_max_days = 30
memory_limit = 2048
[experiments]
test_names = ["try*"]
test_tags = { kind = "test" }
development = ["*_selection"]
lifecycle_tag = "phase"
lifecycle_values = ["done"]
[runs]
running_max_hours = 0.5
[duplicates]
min_size = 1
max_size = 1000
boilerplate = ["*.yaml"]
zip_members = true
pointers = true
[artifacts]
hash_cache = "cache"
[evidence]
sign_with = "key.pem"
verify_with = "key.pub"
[journal]
folder = ".compliance"
[gate]
require_evidence = "high"
fail_on = "medium"
baseline = "baseline.json"
[[waivers]]
policy = "EXP003"
entity = "fraud-*"
reason = "merged in March"
owner = "jo"
expires = 2027-03-31
[[owners]]
experiments = "fraud-*"
team = "fraud"
contact = "#fraud-ml"
[history]
folder = "audits"
[retention]
deleted_days = 180
production_years = 10
superseded_years = 2.5
[[retention.hold]]
experiments = ["fraud *"]
runs = ["0123"]
models = ["fraud"]
reason = "case 7"
until = 2031-12-31
[policies.EXP002]
enabled = false
severity = "low"
"""


def experiment(name: str, tags: dict[str, str] | None = None) -> Experiment:
    return Experiment("1", name, "active", "mlruns/1", tags or {}, {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory, so that messages show plain file names."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(folder: Path, text: str, name: str = "compliance.toml") -> list[str]:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(folder / name)
    return str(caught.value).splitlines()


def test_defaults_need_no_file() -> None:
    settings = load_settings(None)
    assert settings == Settings()
    assert settings.path is None
    assert settings.base == Path.cwd()
    assert (settings.products, settings.says_products) == ((), False)
    assert settings.duplicate_rules() == DuplicateRules()
    assert settings.store.resolved_uri(settings.base) is None


def test_every_key_is_read(folder: Path) -> None:
    (folder / "compliance.toml").write_text(EVERYTHING)
    settings = load_settings(Path("compliance.toml"))
    assert (settings.path, settings.base) == (folder / "compliance.toml", folder)
    assert settings.model_dump() == {
        "store": {
            "tracking_uri": "sqlite:///mlflow.db",
            "artifact_roots": ("mlruns",),
            "ignore": ("notes/*",),
            "busy_timeout": 1.0,
            "requests_at_once": 8,
            "relocate": {"file:///D:/code/mlruns": "mlruns"},
        },
        "products": (
            {
                "name": "credit_scoring",
                "primary": "final",
                "production_by": "alias",
                "experiments": ("credit_*",),
                "production_names": ("*live",),
                "production_tags": {"stage": "live"},
                "production": {
                    "run_name": "v2",
                    "model": "model.pkl",
                    "predictions": "predictions.parquet",
                    "target": "Y",
                    "probability": "P",
                    "threshold": 0.0,
                    "false_negative_cost": 10.0,
                    "false_positive_cost": 2.0,
                    "features": "rows.csv",
                    "row": "N",
                    "serialization": "cloudpickle",
                    "model_name": "lightgbm",
                    "registered_model": "credit",
                    "alias": "live",
                    "description": "in force",
                    "largest_predictions": 0,
                    "tolerance": 0.01,
                    "required_params": ("a",),
                    "required_metrics": ("b",),
                    "required_tags": ("c",),
                    "required_artifacts": ("d/*",),
                    "facts": {"threshold": ("t",)},
                    "decisions": {"cost": "10"},
                },
            },
        ),
        "experiments": {
            "test_names": ("try*",),
            "test_tags": {"kind": "test"},
            "development": ("*_selection",),
            "lifecycle_tag": "phase",
            "lifecycle_values": ("done",),
        },
        "runs": {"running_max_hours": 0.5},
        "models": {
            "allowed_globals": ("own.Scaler",),
            "allowed_models": ("sha256:0000000000000000000000000000000000000000000000000000000000000000",),
            "loaders": ("own.flavor",),
            "allow_code": True,
            "time_limit": 5.0,
            "half_made_max_days": 30.0,
            "memory_limit": 2048,
        },
        "duplicates": {
            "min_size": 1,
            "max_size": 1000,
            "boilerplate": ("*.yaml",),
            "zip_members": True,
            "pointers": True,
        },
        "artifacts": {"hash_cache": "cache"},
        "journal": {"folder": ".compliance"},
        "evidence": {"sign_with": "key.pem", "verify_with": "key.pub"},
        "gate": {"require_evidence": ("high", "critical"), "fail_on": "medium", "baseline": "baseline.json"},
        "waivers": (
            {
                "policy": "EXP003",
                "entity": "fraud-*",
                "reason": "merged in March",
                "owner": "jo",
                "expires": dt.date(2027, 3, 31),
            },
        ),
        "owners": ({"experiments": ("fraud-*",), "team": "fraud", "contact": "#fraud-ml"},),
        "history": {"folder": "audits"},
        "retention": {
            "deleted_days": 180.0,
            "production_years": 10.0,
            "superseded_years": 2.5,
            "hold": (
                {
                    "experiments": ("fraud *",),
                    "runs": ("0123",),
                    "models": ("fraud",),
                    "reason": "case 7",
                    "until": dt.date(2031, 12, 31),
                },
            ),
        },
        "policies": {"EXP002": {"enabled": False, "severity": "low"}},
    }
    assert settings.duplicate_rules() == DuplicateRules(1, ("*.yaml",), 1000)


def test_pyproject_says_the_same(folder: Path) -> None:
    table = EVERYTHING.replace("[[", "[[tool.mlflow-compliance.").replace("\n[", "\n[tool.mlflow-compliance.")
    table = table.replace("[tool.mlflow-compliance.[tool.", "[[tool.")
    (folder / "pyproject.toml").write_text(f"[project]\nname = 'x'\n{table}")
    (folder / "compliance.toml").write_text(EVERYTHING)
    assert (
        load_settings(folder / "pyproject.toml").model_dump() == load_settings(folder / "compliance.toml").model_dump()
    )


def test_credentials_do_not_show() -> None:
    assert "s3cret" not in repr(Settings(store=StoreSettings(tracking_uri="postgresql://user:s3cret@host/db")))


class TestProblems:
    def test_all_are_told_in_the_order_of_the_file(self, folder: Path) -> None:
        text = (
            '[runs]\nrunning_max_hours = "x"\n\n[[products]]\nname = "a"\nprimry = "b"\n[[products]]\nname = '
            '"a"\n[[products]]\n'
        )
        assert problems(folder, text) == [
            "compliance.toml:2: runs.running_max_hours: must be a number greater than 0, not 'x'",
            "compliance.toml:6: products[0].primry: unknown key; did you mean 'primary'?",
            "compliance.toml:8: products[1].name: products[0] has this name already; names are unique",
            "compliance.toml:9: products[2].name: is required",
        ]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("store = 3", "store: must be a table, not 3"),
            ("products = 3", "products: must be a list, not 3"),
            ("products = ['a']", "products[0]: must be a table, not 'a'"),
            ("store.tracking_uri = 3", "store.tracking_uri: must be text in quotes, not 3"),
            ("store.tracking_uri = ''", "store.tracking_uri: must not be empty"),
            ("store.tracking_uri = 1979-05-27", "store.tracking_uri: must be text in quotes, not 1979-05-27"),
            ("store.ignore = 'a'", "store.ignore: must be a list, not 'a'"),
            ("store.ignore = ['a', ['b']]", "store.ignore[1]: must be text in quotes, not a list"),
            ("store.busy_timeout = -0.5", "store.busy_timeout: must be a number of at least 0, not -0.5"),
            ("store.requests_at_once = 0", "store.requests_at_once: must be a whole number from 1 to 64, not 0"),
            ("store.relocate.'file:///x' = {}", 'store.relocate."file:///x": must be text in quotes, not a table'),
            (
                "products = [{ name = 'a', production = { threshold = 48 } }]",
                "products[0].production.threshold: must be a number from 0 to 1, not 48",
            ),
            (
                "products = [{ name = 'a', production = { treshold = 0.4 } }]",
                "products[0].production.treshold: unknown key; did you mean 'threshold'?",
            ),
            (
                "products = [{ name = 'a', production_by = 'alias' }]",
                (
                    "products[0].production_by: 'alias' needs the registered model that has it: set `registered_model` "
                    "in [products.production]"
                ),
            ),
            (
                "products = [{ name = 'a', production_by = 'aliases' }]",
                "products[0].production_by: must be 'tags' or 'alias', not 'aliases'",
            ),
            (
                "models.allowed_models = ['sha256:abc']",
                (
                    "models.allowed_models: must be hashes as MOD002 tells them, 'sha256:' and 64 hexadecimal digits, "
                    "not 'sha256:abc'"
                ),
            ),
            ("models.memory_limit = 1", "models.memory_limit: must be a whole number of at least 1024, not 1"),
            ("runs.running_max_hours = 0", "runs.running_max_hours: must be a number greater than 0, not 0"),
            ("runs.running_max_hours = '24'", "runs.running_max_hours: must be a number greater than 0, not '24'"),
            ("runs.running_max_hours = true", "runs.running_max_hours: must be a number greater than 0, not true"),
            ("runs.running_max_hours = inf", "runs.running_max_hours: must be a finite number, not inf"),
            ("duplicates.min_size = '24'", "duplicates.min_size: must be a whole number of at least 1, not '24'"),
            ("duplicates.min_size = 24.0", "duplicates.min_size: must be a whole number of at least 1, not 24.0"),
            ("duplicates.max_size = 0", "duplicates.max_size: must be a whole number of at least 1, not 0"),
            ("duplicates.min_size = 0", "duplicates.min_size: must be a whole number of at least 1, not 0"),
            ("duplicates.zip_members = 1", "duplicates.zip_members: must be true or false, not 1"),
            ("experiments.test_tags.a = true", "experiments.test_tags.a: must be text in quotes, not true"),
            (
                "policies.A.severity = 'hgih'",
                "policies.A.severity: must be 'low', 'medium', 'high' or 'critical', not 'hgih'",
            ),
            ("policies.A.enbled = true", "policies.A.enbled: unknown key; did you mean 'enabled'?"),
            (
                "gate.require_evidence = 'hgih'",
                (
                    "gate.require_evidence: must be one of low, medium, high, critical or never, or a list of "
                    "severities, not hgih"
                ),
            ),
            ("retention.deleted_days = 0", "retention.deleted_days: must be a number greater than 0, not 0"),
            ("retention.production_years = nan", "retention.production_years: must be a finite number, not nan"),
            (
                "retention.superseded_years = '10'",
                "retention.superseded_years: must be a number greater than 0, not '10'",
            ),
            ("retention.holds = []", "retention.holds: unknown key; did you mean 'hold'?"),
            (
                "retention.hold = {}",
                "retention.hold: there may be several: write [[retention.hold]] in place of [retention.hold]",
            ),
            ("[products]\nname = 'a'", "products: there may be several: write [[products]] in place of [products]"),
            (
                "products = [{ name = 'a', production = [{ threshold = 0.4 }] }]",
                (
                    "products[0].production: there is only one: write [products.production] in place of "
                    "[[products.production]]"
                ),
            ),
            ("[[store]]", "store: there is only one: write [store] in place of [[store]]"),
            ("retention.hold = [{runs = ['x']}]", "retention.hold[0].reason: is required"),
            ("retention.hold = [{runs = ['x'], reason = ' '}]", "retention.hold[0].reason: must say why it is held"),
            (
                "retention.hold = [{reason = 'case 7', runs = []}]",
                "retention.hold[0]: names nothing: give it patterns of experiments, runs or models",
            ),
            *(
                (
                    f"retention.hold = [{{runs = ['x'], reason = 'y', until = {given}}}]",
                    f"retention.hold[0].until: must be a date without quotes and time, such as 2031-12-31, not {shown}",
                )
                for given, shown in (
                    ("'2027-01-01'", "'2027-01-01'"),
                    ("2027-01-01T12:00:00", "2027-01-01T12:00:00"),
                    ("12:00:00", "12:00:00"),
                    ("2027", "2027"),
                )
            ),
            ("journal.where = 'x'", "journal.where: unknown key; known here: folder"),
            ("path = 'x'", f"path: unknown key; known here: {TABLES}"),
            ('"\\u001b[31m" = 1', f'"\\u001b[31m": unknown key; known here: {TABLES}'),
            (
                f"runs.running_max_hours = '{'x' * 99}'",
                f"runs.running_max_hours: must be a number greater than 0, not '{'x' * 56}...",
            ),
        ],
    )
    def test_each_is_one_sentence(self, folder: Path, text: str, problem: str) -> None:
        assert problems(folder, f"# a comment\n{text}\n") == [f"compliance.toml:2: {problem}"]

    def test_pyproject_counts_its_own_lines(self, folder: Path) -> None:
        text = "[project]\nname = 'x'\n[runs]\n[tool.mlflow-compliance.runs]\nrunning_hours = 3\n"
        expected = "pyproject.toml:5: runs.running_hours: unknown key; did you mean 'running_max_hours'?"
        assert problems(folder, text, "pyproject.toml") == [expected]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("[project]\n", "pyproject.toml: there is no table [tool.mlflow-compliance]"),
            ("\ntool = 3\n", "pyproject.toml:2: tool: must be a table"),
            ("[tool]\nmlflow-compliance = []\n", "pyproject.toml:2: tool.mlflow-compliance: must be a table"),
        ],
    )
    def test_pyproject_without_the_table(self, folder: Path, text: str, problem: str) -> None:
        assert problems(folder, text, "pyproject.toml") == [problem]

    def test_unknown_policy_ids(self, folder: Path) -> None:
        (folder / "compliance.toml").write_text(
            "[policies.exp002]\n[policies.EXP001]\n[policies.zzz]\nenabled = true\n"
        )
        settings = load_settings(folder / "compliance.toml")
        settings.check_policy_ids({"EXP001", "exp002", "zzz"})
        with pytest.raises(SettingsError) as caught:
            settings.check_policy_ids(["EXP001", "EXP002"])
        assert str(caught.value).splitlines() == [
            "compliance.toml:1: policies.exp002: unknown policy id; did you mean 'EXP002'?",
            "compliance.toml:3: policies.zzz: unknown policy id; known here: EXP001, EXP002",
        ]

    def test_not_toml(self, folder: Path) -> None:
        assert problems(folder, "[runs]\nrunning_max_hours 3\n") == [
            "compliance.toml:2: this is not TOML: Expected '=' after a key in a key/value pair at column 19"
        ]
        (problem,) = problems(folder, "[runs]\nx = [1,\n\n")
        assert problem.startswith("compliance.toml:2: this is not TOML: ")
        assert problem.endswith(" at the end of the file")
        assert problems(folder, f"x = {'[' * 100_000}")[0].startswith("compliance.toml:1: this is not TOML: ")
        assert problems(folder, f"x = {'9' * 100_000}")[0].startswith("compliance.toml:1: this is not TOML: ")

    def test_not_utf8(self, folder: Path) -> None:
        (folder / "compliance.toml").write_bytes(b"[runs]\n# caf\xe9\n")
        with pytest.raises(SettingsError, match=r"^compliance\.toml:2: the settings are not UTF-8 text$"):
            load_settings(folder / "compliance.toml")

    def test_no_such_file(self, folder: Path) -> None:
        with pytest.raises(SettingsError, match=r"^other\.toml: there is no such settings file$"):
            load_settings(Path("other.toml"))

    def test_unreadable_file(self, folder: Path) -> None:
        (folder / "compliance.toml").mkdir()
        with pytest.raises(SettingsError, match=r"^compliance\.toml: the settings cannot be read: Is a directory$"):
            load_settings(folder / "compliance.toml")

    def test_a_file_without_end(self) -> None:
        with pytest.raises(
            SettingsError, match=r"^/dev/zero: the settings cannot be read: more than \d+ bytes are no settings file$"
        ):
            load_settings(Path("/dev/zero"))

    def test_a_byte_order_mark_is_no_mistake(self, folder: Path) -> None:
        (folder / "compliance.toml").write_bytes(b"\xef\xbb\xbf[runs]\r\nrunning_max_hours = 3\r\n")
        assert load_settings(folder / "compliance.toml").runs.running_max_hours == 3


class TestPaths:
    @pytest.mark.parametrize(
        ("uri", "resolved"),
        [
            ("sqlite:///mlflow.db", "sqlite:////base/mlflow.db"),
            ("sqlite:///../a b/mlflow.db?timeout=3", "sqlite:////a b/mlflow.db?timeout=3"),
            ("sqlite+pysqlite:///mlflow.db", "sqlite+pysqlite:////base/mlflow.db"),
            ("sqlite:////abs/mlflow.db", "sqlite:////abs/mlflow.db"),
            ("sqlite:///~/mlflow.db", "sqlite:////home/me/mlflow.db"),
            ("sqlite:///:memory:", "sqlite:///:memory:"),
            ("sqlite:///file:x.db?uri=true", "sqlite:///file:x.db?uri=true"),
            ("sqlite://", "sqlite://"),
            ("mlruns", "/base/mlruns"),
            ("./mlruns/", "/base/mlruns"),
            ("/abs/mlruns", "/abs/mlruns"),
            ("~/mlruns", "/home/me/mlruns"),
            ("file:./ml%20runs", "file:///base/ml%20runs"),
            ("file:///abs/mlruns", "file:///abs/mlruns"),
            ("https://host:5000", "https://host:5000"),
            ("postgresql+psycopg2://user@host/db", "postgresql+psycopg2://user@host/db"),
            ("databricks", "databricks"),
            ("databricks://profile", "databricks://profile"),
        ],
    )
    def test_tracking_uri(self, uri: str, resolved: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/me")
        assert StoreSettings(tracking_uri=uri).resolved_uri(Path("/base")) == resolved

    def test_folders(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/me")
        text = "[store]\nartifact_roots = ['a', '/b', '~/c']\nrelocate = {'s3://x' = './d'}\n[journal]\nfolder = 'e'\n"
        (folder / "compliance.toml").write_text(text)
        monkeypatch.chdir("/")
        settings = load_settings(folder / "compliance.toml")
        assert settings.store.resolved_roots(settings.base) == (f"{folder}/a", "/b", "/home/me/c")
        assert settings.store.resolved_relocate(settings.base) == {"s3://x": f"{folder}/d"}
        assert settings.journal.resolved_folder(settings.base) == f"{folder}/e"
        assert Settings().journal.resolved_folder(folder) is None


class TestOrigins:
    """Where a value comes from: the file and line that says it, even where it says what is built in."""

    def test_line_by_line(self, folder: Path) -> None:
        text = (
            '[runs]\nrunning_max_hours = 24.0\n[[products]]\nname = "a"\n[[products]]\nname = '
            '"b"\n[products.production]\ntolerance = 0.1\n'
        )
        (folder / "compliance.toml").write_text(text)
        settings = load_settings(folder / "compliance.toml")
        first, second = settings.products
        assert settings.origin("runs.running_max_hours") == "compliance.toml:2"
        assert settings.origin("duplicates.min_size") == "built in"
        assert settings.origin("production.tolerance", first) == "built in"
        assert settings.origin("production.tolerance", second) == "compliance.toml:8"
        assert settings.origin("production_names", second) == "built in"
        assert settings.origin("experiments.test_names") == "built in"

    def test_in_pyproject(self, folder: Path) -> None:
        (folder / "pyproject.toml").write_text(
            "[project]\nname = 'x'\n[tool.mlflow-compliance.duplicates]\nmin_size = 7\n"
        )
        settings = load_settings(folder / "pyproject.toml")
        assert settings.origin("duplicates.min_size") == "pyproject.toml:4"
        assert settings.origin("duplicates.boilerplate") == "built in"

    def test_without_a_file(self) -> None:
        assert Settings().origin("runs.running_max_hours") == "built in"
        assert (
            Settings.model_validate({"runs": {"running_max_hours": 1}}).origin("runs.running_max_hours")
            == "the settings"
        )


class TestMatching:
    def test_tests_by_name_in_any_case_or_by_tag(self) -> None:
        settings = Settings.model_validate({"experiments": {"test_tags": {"kind": "test"}}})
        # The very words that are built in, said by somebody.
        said = Settings.model_validate({"experiments": {"test_names": list(Settings().experiments.test_names)}})
        for name in ("test", "TEST", "Test_experiment", "test-1", "my_Test", "my-test"):
            assert said.is_test(experiment(name)), name
            assert (settings.is_test(experiment(name)), settings.looks_like_a_test(experiment(name))) == (
                False,
                True,
            ), name
        for name in ("latest", "testing", "contest_entry", "Default"):
            assert not said.is_test(experiment(name)), name
            assert not settings.looks_like_a_test(experiment(name)), name
        assert settings.is_test(experiment("x", {"kind": "test"}))
        assert Settings.model_validate({"experiments": {"test_names": ["TRY*"]}}).is_test(experiment("try_1"))
        assert not settings.is_test(experiment("x", {"kind": "other"}))

    def test_development_by_pattern(self) -> None:
        settings = Settings.model_validate({"experiments": {"development": ["*_selection"]}})
        assert settings.is_development(experiment("credit_model_selection"))
        assert not settings.is_development(experiment("credit_production"))
        assert not Settings().is_development(experiment("credit_model_selection"))

    def test_a_product_claims_its_production_experiments(self) -> None:
        def by(item: Experiment, **more: Any) -> By | None:
            product = {"name": "credit", "primary": "credit_final", "experiments": ["credit_*"], **more}
            found = claims(Settings.model_validate({"products": [product]}), {"1": item}, [])
            return next((claim.by for claim in found), None)

        names = {"production_names": ["*production*"]}
        for claimed, why in (
            (experiment("credit_final"), By.PRIMARY),
            (experiment("credit_x", {"stage": "production"}), By.TAG),
        ):
            assert by(claimed) is why, claimed
            assert by(replace(claimed, lifecycle="deleted")) is None, claimed
        assert by(experiment("credit_production")) is By.GUESS
        assert by(experiment("credit_production"), **names) is By.NAME
        assert by(experiment("credit_production_test")) is None, "one guess is as good as the other"
        assert by(experiment("credit_production_test"), **names) is By.NAME
        for other in (
            experiment("credit_x"),
            experiment("fraud_production"),
            experiment("credit_x", {"stage": "staging"}),
        ):
            assert by(other) is None, other

    def test_a_product_covers_by_pattern_and_its_primary_always(self) -> None:
        product = Product(name="credit", primary="final", experiments=("credit_*",))
        assert [product.covers(experiment(name)) for name in ("credit_x", "final", "fraud")] == [True, True, False]


class TestFindSettings:
    def write(self, folder: Path, name: str, text: str = "") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        return folder / name

    def test_the_nearest_wins(self, folder: Path) -> None:
        outer = self.write(folder, "compliance.toml")
        inner = self.write(folder / "a/b", "pyproject.toml", "[tool.mlflow-compliance]\n")
        assert find_settings(folder) == outer
        assert find_settings(folder / "a") == outer
        assert find_settings(folder / "a/b/c/not_there") == inner
        assert find_settings(Path("a/b")) == inner

    def test_compliance_toml_wins_over_pyproject_beside_it(self, folder: Path) -> None:
        self.write(folder, "pyproject.toml", "[tool.mlflow-compliance]\n")
        assert find_settings(folder) == folder / "pyproject.toml"
        assert find_settings(self.write(folder, "compliance.toml")) == folder / "compliance.toml"

    def test_pyproject_without_the_table_does_not_count(self, folder: Path) -> None:
        outer = self.write(folder, "compliance.toml")
        self.write(folder / "a", "pyproject.toml", "[tool.other]\n")
        (folder / "a/compliance.toml").mkdir()
        assert find_settings(folder / "a") == outer

    def test_the_search_ends_with_the_repository(self, folder: Path) -> None:
        self.write(folder, "compliance.toml")
        subprocess.run(["git", "init", "-q", folder / "repo"], check=True)
        (folder / "repo/sub").mkdir()
        assert find_settings(folder / "repo/sub") is None
        at_top = self.write(folder / "repo", "compliance.toml")
        assert find_settings(folder / "repo/sub") == at_top

    def test_what_cannot_be_read_is_not_passed_over(self, folder: Path) -> None:
        self.write(folder, "compliance.toml")
        broken = self.write(folder / "a", "pyproject.toml", "[tool")
        assert find_settings(folder / "a") == broken
        (folder / "b").mkdir()
        os.symlink("nowhere", folder / "b/compliance.toml")
        assert find_settings(folder / "b") == folder / "b/compliance.toml"


class TestLineOf:
    TEXT = '''\
a.b."c d" = 1
'e.f' = """
[g]
a.b = 2 \\""" "" """""
g = { h = [ # ] }
  1, {i = 2, "j\\u0041" = [
  ]},
], k = \'\'\'
x\'\'\' }
[ l . "m" ] # [n]
n = 1979-05-27 07:32:00
[[o]]
[[o.p]]
[[o]]
[o.q]
r = 1
[[o.p]]
[[o.p]]
s = [[], [{}, -inf]]
'''

    @pytest.mark.parametrize(
        ("loc", "line"),
        [
            ((), 1),
            (("a", "b", "c d"), 1),
            (("a", "x"), 1),
            (("e.f",), 2),
            (("g",), 5),
            (("g", "h", 0), 6),
            (("g", "h", 1, "jA"), 6),
            (("g", "k"), 8),
            (("l",), 10),
            (("l", "m", "n"), 11),
            (("l", "m", "missing", "too"), 10),
            (("o", 0), 12),
            (("o", 0, "p", 0), 13),
            (("o", 1), 14),
            (("o", 1, "q", "r"), 16),
            (("o", 1, "p"), 17),
            (("o", 1, "p", 1, "s", 1, 1), 19),
            (("x",), 1),
        ],
    )
    def test_places(self, loc: tuple[str | int, ...], line: int) -> None:
        parse(self.TEXT)
        assert line_of(self.TEXT, loc) == line
        assert line_of(self.TEXT.replace("\n", "\r\n"), loc) == line

    @given(
        st.lists(
            st.sampled_from(["a", "1", " ", ".", "=", "[", "]", "{", "}", ",", "'", '"', '"""', "\\", "#", "\n"])
        ).map("".join)
    )
    def test_it_ends_for_any_text(self, text: str) -> None:
        with contextlib.suppress(ValueError):
            assert 1 <= line_of(text, ("a", 0, "a")) <= text.count("\n") + 1


class Writer:
    """Writes a document as TOML in one of its many forms, and notes the line of every key as it goes."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[tuple[str | int, ...], int] = {}

    def note(self, loc: tuple[str | int, ...]) -> None:
        self.lines.setdefault(loc, self.text.count("\n") + 1)

    def noise(self) -> None:
        self.text += self.draw(st.sampled_from(["", "\n", " \t\n", "# [x] = {\n", '# """ \'\n\n']))

    def key(self, key: str) -> str:
        if key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key) and self.draw(st.booleans()):
            return key
        if key.isprintable() and "'" not in key and self.draw(st.booleans()):
            return f"'{key}'"
        return basic(key)

    def table(self, loc: tuple[str | int, ...], header: str, table: dict[str, Any]) -> None:
        later = []
        for key, value in table.items():
            self.noise()
            headed = isinstance(value, dict) or (
                isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
            )
            if headed and self.draw(st.booleans()):
                later.append((key, value))
            else:
                self.pair(loc, key, value)
                self.text += self.draw(st.sampled_from(["\n", " # = [\n"]))
        for key, value in later:
            inner = f"{header}.{self.key(key)}" if header else self.key(key)
            for index, item in enumerate(value if isinstance(value, list) else [value]):
                self.noise()
                self.note((*loc, key))
                here = (*loc, key, index) if isinstance(value, list) else (*loc, key)
                self.note(here)
                self.text += f"[[ {inner} ]]\n" if isinstance(value, list) else f"[{inner}]\n"
                self.table(here, inner, item)

    def pair(self, loc: tuple[str | int, ...], key: str, value: Any) -> None:
        self.note((*loc, key))
        self.text += self.key(key)
        while isinstance(value, dict) and len(value) == 1 and self.draw(st.booleans()):
            loc = (*loc, key)
            ((key, value),) = value.items()
            self.note((*loc, key))
            self.text += f" . {self.key(key)}"
        self.text += " = "
        self.value((*loc, key), value)

    def value(self, loc: tuple[str | int, ...], value: Any) -> None:
        if isinstance(value, dict):
            self.text += "{"
            for number, (key, item) in enumerate(value.items()):
                self.text += ", " if number else " "
                self.pair(loc, key, item)
            self.text += "}"
        elif isinstance(value, list):
            self.text += "["
            for index, item in enumerate(value):
                self.noise()
                self.note((*loc, index))
                self.value((*loc, index), item)
                self.text += ","
            self.noise()
            self.text += "]"
        elif isinstance(value, str):
            self.text += self.string(value)
        else:
            self.text += json.dumps(value)

    def string(self, value: str) -> str:
        form = self.draw(st.sampled_from(["basic", "literal", "lines", "literal lines"]))
        if form == "literal" and value.isprintable() and "'" not in value:
            return f"'{value}'"
        if form == "lines":
            inner = basic(value)[1:-1].replace("\\n", "\n")
            return f'"""\n{inner}"""'
        if form == "literal lines" and value.replace("\n", "").isprintable() and "'''" not in value:
            return f"'''\n{value}'''"
        return basic(value)


def basic(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=5) | st.sampled_from(
    ["a", "a.b", "[a]", "[[a]]\n", "a = 1\n", '"""', "''", "''\n'", "#", "\\", "{", "]\n[", '"', "\n\n", '\\"']
)
VALUES = st.recursive(
    TEXTS | st.integers(-99, 99) | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(st.dictionaries(TEXTS, inner, max_size=2), max_size=3)
        | st.dictionaries(TEXTS, inner, max_size=3)
    ),
    max_leaves=12,
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[dict[str, Any], Writer]:
    document = draw(st.dictionaries(TEXTS, VALUES, max_size=4))
    writer = Writer(draw)
    writer.table((), "", document)
    return document, writer


@given(documents())
def test_the_line_found_holds_the_key(written: tuple[dict[str, Any], Writer]) -> None:
    document, writer = written
    assert parse(writer.text) == document
    assert {loc: line_of(writer.text, loc) for loc in writer.lines} == writer.lines
