"""Every setting either asks for less than the built-in one and is told, or is known not to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import BaseModel

from mlflow_compliance.audit.weakened import LOOSER, OF_PRODUCT, weakened
from mlflow_compliance.rules.finding import Severity
from mlflow_compliance.settings.flags import Flags
from mlflow_compliance.settings.schema import Product, Settings, load_settings

NEUTRAL = {
    "store.tracking_uri", "store.artifact_roots", "store.busy_timeout", "store.requests_at_once", "store.relocate",
    "experiments.test_tags", "experiments.development", "experiments.lifecycle_tag",
    "duplicates.zip_members", "duplicates.pointers", "journal.folder", "history.folder",
    "evidence.sign_with", "evidence.verify_with",
    "retention.deleted_days", "retention.production_years", "retention.superseded_years", "retention.hold",
    "products.name", "products.primary", "products.production_by", "owners",
    *(
        f"products.production.{name}"
        for name in (
            "run_name", "model", "predictions", "target", "probability", "threshold", "false_negative_cost",
            "false_positive_cost", "features", "row", "serialization", "model_name", "registered_model", "alias",
            "description",
        )
    ),
}  # fmt: skip
"""What names things, says what is so, or makes rules look at more."""


def keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= keys(kind, f"{prefix}{name}.")
        elif name not in ("products", "policies"):
            found.add(prefix + name)
    return found


def test_of_each_setting_it_is_known_whether_it_can_ask_for_less() -> None:
    """A new setting stops here until somebody has decided."""
    there = keys(Settings) | keys(Product, "products.")
    judged = {*LOOSER, *(f"products.{key}" for key in OF_PRODUCT)}
    assert judged & NEUTRAL == set()
    assert there == judged | NEUTRAL


RULES = {"EXP001": SimpleNamespace(severity=Severity.CRITICAL), "EXP003": SimpleNamespace(severity=Severity.MEDIUM)}


def told(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "compliance.toml"
    path.write_text(text)
    return weakened(load_settings(path), RULES)  # type: ignore[arg-type]  of a rule only its severity is asked


def test_what_is_built_in_asks_for_nothing_less(tmp_path: Path) -> None:
    assert told(tmp_path, "") == []
    assert told(tmp_path, '[[products]]\nname = "credit"\n') == []


@pytest.mark.parametrize(
    ("table", "loose", "strict"),
    [
        ("store", 'ignore = ["*"]', "ignore = []"),
        ("models", "allow_code = true", "allow_code = false"),
        ("models", 'allowed_globals = ["os.system"]', "allowed_globals = []"),
        ("models", "memory_limit = 100000", "memory_limit = 2048"),
        ("runs", "running_max_hours = 500", "running_max_hours = 1"),
        ("duplicates", "min_size = 1000000000", "min_size = 1"),
        ("duplicates", "max_size = 1000", "max_size = 10000000000000"),
        ("duplicates", 'boilerplate = ["*.bin"]', "boilerplate = []"),
        ("experiments", 'lifecycle_values = ["production", "whatever"]', 'lifecycle_values = ["production"]'),
        ("experiments", "test_names = []", 'test_names = ["qa_*"]'),
        ("gate", "require_evidence = []", 'require_evidence = "high"'),
        ("gate", 'fail_on = "medium"', 'fail_on = "low"'),
        ("artifacts", 'hash_cache = "user"', 'hash_cache = "off"'),
        ("policies.EXP001", 'severity = "low"', 'severity = "critical"'),
        ("policies.EXP003", 'severity = "low"', 'severity = "critical"'),
    ],
)
def test_a_setting_of_the_store(tmp_path: Path, table: str, loose: str, strict: str) -> None:
    (line,) = told(tmp_path, f"[{table}]\n{loose}\n")
    assert line.startswith(f"{table}.{loose} (")
    assert "compliance.toml:" in line
    assert "built in: " in line
    assert told(tmp_path, f"[{table}]\n{strict}\n") == []


FACTS = '{"threshold" = ["optimal_threshold", "threshold", "t"], "n_features" = ["n_features"]}'


@pytest.mark.parametrize(
    ("loose", "strict"),
    [
        ("tolerance = 1e+09", "tolerance = 1e-6"),
        ("required_tags = []", 'required_tags = ["owner"]'),
        ("required_metrics = []", 'required_metrics = ["auc"]'),
        ("largest_predictions = 1", "largest_predictions = 100000000"),
        ('facts = {"threshold" = ["t"]}', f"facts = {FACTS}"),
        ('decisions = {"n_features" = "3"}', 'description = "as decided"'),
    ],
)
def test_a_setting_of_a_product(tmp_path: Path, loose: str, strict: str) -> None:
    def text(line: str) -> str:
        return "".join(f'[[products]]\nname = "{name}"\n[products.production]\n{line}\n' for name in "abcdefg")

    (line,) = told(tmp_path, text(loose))
    assert line.startswith(f"products.production.{loose.partition(' ')[0]} = ")
    assert "and 2 more; built in: " in line
    assert told(tmp_path, text(strict)) == []


def test_waivers_are_counted(tmp_path: Path) -> None:
    one = '[[waivers]]\npolicy = "*"\nentity = "*"\nreason = "r"\nowner = "o"\nexpires = 2027-03-31\n'
    for text, shown in ((one, "1 table"), (one * 9, "9 tables")):
        (line,) = told(tmp_path, text)
        assert line.startswith(f"waivers = {shown} (")


def test_a_flag_wins(tmp_path: Path) -> None:
    path = tmp_path / "compliance.toml"
    path.write_text('[gate]\nfail_on = "medium"\n')
    found = [weakened(load_settings(path), {}, Flags(fail_on=given)) for given in (None, "low", "high")]
    assert [bool(lines) for lines in found] == [True, False, True]
    assert found[2] == ['gate.fail_on = "high" (--compliance-fail-on; built in: "low")']


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    (line,) = told(tmp_path, f"[models]\nallowed_globals = {[f'a.b{number}' for number in range(30)]}\n")
    assert '"a.b4" and 25 more]' in line
