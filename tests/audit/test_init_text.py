"""Whatever a store's names are, the settings written for it are TOML that loads and says what was meant."""

from __future__ import annotations

import string
import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_compliance.audit.init_text import Read, draft, told, tracking_uri
from mlflow_compliance.production.families import family, patterns, sounds_like_production
from mlflow_compliance.settings.schema import load_settings
from mlflow_compliance.snapshot.entities import Experiment, ModelVersion, RegisteredModel, Run, StoreInfo
from mlflow_compliance.snapshot.snapshot import Snapshot

EVIL = "\"'\\[]*?!#\n\r\t\x00\x1b\u2028\u202e\U000e0041\ud800 {}=.é"
names = st.text(st.sampled_from(EVIL + string.ascii_letters + string.digits), min_size=1, max_size=12) | st.text(
    min_size=1, max_size=12
)
experiment_names = st.builds(
    "".join,
    st.tuples(st.sampled_from(("", "test_", "production ", "a_")), names, st.sampled_from(("", "_final", "_prod"))),
)
aliases = st.dictionaries(names | st.sampled_from(("production", "Champion", "staging")), st.just("1"), max_size=2)
tags = st.sampled_from(({}, {"stage": "production"}, {"Stage": "Production "}, {"lifecycle": "production"}))


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    found = draw(st.lists(experiment_names, max_size=6, unique=True))
    experiments = {
        str(number): Experiment(str(number), name, "active", f"/x/{number}", draw(tags), {("active", "FINISHED"): 1})
        for number, name in enumerate(found)
    }
    runs = {
        f"{key}{'0' * 31}": Run(
            f"{key}{'0' * 31}",
            key,
            draw(names),
            "FINISHED",
            "active",
            1,
            2,
            "ann",
            "/x",
            {draw(names): "1"},
            draw(tags),
            {},
        )
        for key in experiments
    }
    models = {}
    for name in draw(st.lists(names, max_size=3, unique=True)):
        run_id = draw(st.sampled_from(sorted(runs) or [""]))
        version = ModelVersion(name, "1", run_id or None, "/x", "/x", "READY", "None", experiment_id=run_id[:1])
        models[name] = RegisteredModel(name, {}, draw(aliases), (version,))
    return Snapshot(StoreInfo("sqlite:////x/mlflow.db", "sqlite"), 1, experiments, runs, {}, models)


@given(snapshots())
def test_it_is_toml_that_loads(snapshot: Snapshot) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "compliance.toml"
        made = draft(Read("sqlite:////x/mlflow.db", snapshot, path.parent))
        path.write_text(made.text, encoding="utf-8")
        settings = load_settings(path)
    assert len(settings.products) == len(made.products)
    for product in settings.products:
        model = snapshot.registered_models.get(product.production.registered_model or "")
        if product.by_alias and model is not None:
            assert product.production.alias in model.aliases
    assert settings.experiments.model_fields_set == set()
    lines = [*made.text.split("\n"), *told(made, "compliance.toml", "pytest")]
    assert not {unicodedata.category(char) for line in lines for char in line} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@given(st.sets(names, max_size=30), st.sets(names, max_size=10), st.integers(1, 10))
def test_patterns_match_all_that_is_meant_and_nothing_else(wanted: set[str], others: set[str], most: int) -> None:
    from fnmatch import fnmatchcase

    found = patterns(sorted(wanted), sorted(others - wanted), most)
    assert sum(pattern.names for pattern in found) == len(wanted)
    assert all(any(fnmatchcase(name, pattern.text) for pattern in found) for name in wanted)
    assert not any(fnmatchcase(name, pattern.text) for name in others - wanted for pattern in found)


@pytest.mark.parametrize(
    ("uri", "spelled"),
    [
        ("sqlite:////srv/team/mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////srv/team/deep/mlflow.db", "sqlite:///deep/mlflow.db"),
        ("sqlite:////srv/other/mlflow.db", "sqlite:////srv/other/mlflow.db"),
        ("sqlite+pysqlite:////srv/team/mlflow.db?timeout=3", "sqlite+pysqlite:///mlflow.db?timeout=3"),
        ("/srv/team/mlruns", "mlruns"),
        ("file:///srv/team/mlruns", "mlruns"),
        ("file:///srv/team/a%20b", "file:///srv/team/a%20b"),
        ("http://mlflow.example:5000", "http://mlflow.example:5000"),
        ("postgresql://db/mlflow", "postgresql://db/mlflow"),
        ("postgresql://ann:secret@db/mlflow", None),
        ("http://ann:secret@mlflow.example", None),
        ("postgresql://db/mlflow?password=secret", None),
    ],
)
def test_the_uri_from_the_folder_of_the_settings(uri: str, spelled: str | None) -> None:
    assert tracking_uri(uri, Path("/srv/team")) == spelled


def test_credentials_are_in_no_line() -> None:
    snapshot = Snapshot(StoreInfo("postgresql://***@db/mlflow", "postgresql"), 1, {}, {}, {}, {})
    made = draft(Read("postgresql://ann:s3cret@db/mlflow", snapshot, Path("/srv")))
    assert "s3cret" not in made.text
    assert "set MLFLOW_TRACKING_URI" in made.text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("credit_production", "credit_final_delivery", True),
        ("fraud-prod", "fraud-prod-v2", True),
        ("Fraud Production", "fraud_production_old", True),
        ("fraud_production_eu", "fraud_production_us", False),
        ("credit_production", "credit_selection", False),
    ],
)
def test_families(one: str, other: str, same: bool) -> None:
    assert (family(one) == family(other)) is same


@pytest.mark.parametrize(
    ("alias", "so"),
    [
        *((name, True) for name in ("production", "Prod", "prod-eu", "champion", "live")),
        *((name, False) for name in ("staging", "pre-production", "challenger", "non_prod")),
    ],
)
def test_aliases_that_sound_like_production(alias: str, so: bool) -> None:
    assert sounds_like_production(alias) is so
