"""What is true for one store (compliance.toml, or [tool.mlflow-compliance] in pyproject.toml) as frozen, validated
models.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from mlflow_compliance.settings.errors import OWN, Loc, SettingsFile, problems_in, unknown
from mlflow_compliance.settings.files import find_settings, read_settings
from mlflow_compliance.settings.gate import GateSettings, Owner, Waiver
from mlflow_compliance.settings.tables import STRICT, Text, Texts
from mlflow_compliance.snapshot.entities import Experiment, Run
from mlflow_compliance.snapshot.files import DuplicateRules

__all__ = [
    "ArtifactSettings",
    "DuplicateSettings",
    "EvidenceSettings",
    "ExperimentSettings",
    "GateSettings",
    "HistorySettings",
    "Hold",
    "JournalSettings",
    "ModelSettings",
    "Owner",
    "PolicySettings",
    "Product",
    "ProductionSettings",
    "RetentionSettings",
    "RunSettings",
    "Settings",
    "StoreSettings",
    "Waiver",
    "find_settings",
    "folded",
    "load_settings",
]

_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^?]+)(.*)", re.DOTALL)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
BUILT_IN = "built in"
_BARE_URIS = ("databricks", "databricks-uc", "uc")  # MLflow knows these words as stores, not as folders

_MODEL_HASH = re.compile(r"sha256:[0-9a-f]{64}")


class _Table(BaseModel):
    model_config = STRICT


class StoreSettings(_Table):
    """Where the store is. `busy_timeout` is in seconds, `requests_at_once` bounds what a tracking server is asked at a
    time; paths are as written until resolved against a folder.
    """

    tracking_uri: Text | None = Field(default=None, repr=False)  # it may hold credentials
    artifact_roots: Texts = ()
    ignore: Texts = ()
    busy_timeout: float = Field(default=5.0, ge=0, allow_inf_nan=False, description="a number of at least 0")
    relocate: dict[str, Text] = {}
    requests_at_once: int = Field(default=4, ge=1, le=64, description="a whole number from 1 to 64")

    def resolved_uri(self, base: Path) -> str | None:
        """The tracking URI with relative sqlite paths and folders made absolute from `base`; None where none is set."""
        uri = self.tracking_uri
        if uri is None or uri in _BARE_URIS:
            return uri
        if sqlite := _SQLITE.fullmatch(uri):
            driver, path, query = sqlite.groups()
            # SQLite's own 'file:' names and ':memory:' are no paths.
            return uri if path.startswith(("file:", ":memory:")) else f"{driver}{_absolute(path, base)}{query}"
        if uri.startswith("file:") and not uri.startswith("file:/"):
            return Path(_absolute(unquote(uri[len("file:") :]), base)).as_uri()
        return uri if _SCHEME.match(uri) else _absolute(uri, base)

    def wanted_uri(self, given: str | None, base: Path) -> str:
        """The tracking URI that counts: `given` by the caller, else MLFLOW_TRACKING_URI, else these settings; ''
        where none of them names one.
        """
        return given or os.environ.get("MLFLOW_TRACKING_URI") or self.resolved_uri(base) or ""

    def resolved_roots(self, base: Path) -> tuple[str, ...]:
        """The extra artifact roots as absolute paths; those in object stores as they are written."""
        return tuple(root if "://" in root else _absolute(root, base) for root in self.artifact_roots)

    def resolved_relocate(self, base: Path) -> dict[str, str]:
        """URI prefix -> absolute path of the folder that is read in its place."""
        return {prefix: _absolute(folder, base) for prefix, folder in self.relocate.items()}


class ProductionSettings(_Table):
    """What a product's production run is built from and what it must carry. Paths are as written until resolved;
    sizes in bytes.
    """

    run_name: Text | None = None
    model: Text | None = None
    predictions: Text | None = None
    target: Text = "TARGET"
    probability: Text = "PROBABILITY"
    threshold: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False, description="a number from 0 to 1")
    false_negative_cost: float = Field(default=1.0, ge=0, allow_inf_nan=False, description="a number of at least 0")
    false_positive_cost: float = Field(default=1.0, ge=0, allow_inf_nan=False, description="a number of at least 0")
    features: Text | None = None
    row: Text = "ROW"
    serialization: Literal["skops", "cloudpickle"] = "skops"
    model_name: Text = "model"
    registered_model: Text | None = None
    alias: Text = "production"
    description: str = ""
    largest_predictions: int = Field(default=50_000_000, ge=0, description="a whole number of at least 0")
    tolerance: float = Field(default=0.001, ge=0, allow_inf_nan=False, description="a number of at least 0")
    required_params: Texts = ()
    required_metrics: Texts = ()
    required_tags: Texts = ()
    required_artifacts: Texts = ()
    facts: dict[str, Texts] = {"threshold": ("optimal_threshold", "threshold"), "n_features": ("n_features",)}
    decisions: dict[str, Text] = {}

    @model_validator(mode="before")
    @classmethod
    def _what_is_built_is_described(cls, table: Any) -> Any:
        """Where the settings say what a production run is built from, it must be described, unless they list its
        tags themselves.
        """
        if isinstance(table, dict) and table.get("run_name") and "required_tags" not in table:
            return {**table, "required_tags": ["description"]}
        return table

    def resolved(self, base: Path, name: Literal["model", "predictions", "features"]) -> str | None:
        """One of the files as an absolute path; None where none is set."""
        path: str | None = getattr(self, name)
        return None if path is None else _absolute(path, base)

    @property
    def decided(self) -> dict[str, str]:
        """Fact -> the value that the settings give it."""
        return {**({} if self.threshold is None else {"threshold": str(self.threshold)}), **self.decisions}


class Product(_Table):
    """One model in production, and how its experiments are told from others. `production_by` says what makes a run its
    production run: the production tags, or the alias of its registered model, whatever tags say.
    """

    name: Text
    primary: Text | None = None
    production_by: Literal["tags", "alias"] = "tags"
    experiments: Texts = ("*",)
    production_names: Texts = ("*production*", "*prod")
    production_tags: dict[str, str] = {"stage": "production"}
    production: ProductionSettings = ProductionSettings()

    def covers(self, experiment: Experiment) -> bool:
        """Whether an experiment may belong to this product; its primary one always does."""
        return experiment.name == self.primary or _matches_in_any_case(experiment.own_name, self.experiments)

    @property
    def by_alias(self) -> bool:
        """Whether the run behind the alias is the production run, and nothing else makes one."""
        return self.production_by == "alias"

    @property
    def loaded_as(self) -> str:
        """The name that programs load the production model by, as MLflow spells it."""
        return f"{self.production.registered_model}@{self.production.alias}"

    @property
    def guesses_names(self) -> bool:
        """Whether the patterns of production names are the built-in ones: they tell, and nothing is changed for
        them.
        """
        return "production_names" not in self.model_fields_set

    def named(self, experiment: Experiment) -> bool:
        """Whether an experiment's name matches a pattern of production names."""
        return _matches_in_any_case(experiment.own_name, self.production_names)

    def marks(self, item: Experiment | Run) -> bool:
        """Whether a tag of an experiment or run says that it is production."""
        return _tagged(item, self.production_tags)


class ExperimentSettings(_Table):
    """Which experiments are tests or development work, and what counts as classified."""

    test_names: Texts = ("test", "test_*", "test-*", "*_test", "*-test")
    test_tags: dict[str, str] = {}
    development: Texts = ()
    lifecycle_tag: Text = "lifecycle"
    lifecycle_values: Texts = ("production", "archived", "development", "staging", "reference")


class RunSettings(_Table):
    """How long a run may be RUNNING, in hours."""

    running_max_hours: float = Field(default=24.0, gt=0, allow_inf_nan=False, description="a number greater than 0")


class ModelSettings(_Table):
    """What models may hold, which ones are allowed as they are (by the hash of all their files), how long one may be
    half made, and how they are tried out: `time_limit` in seconds, `memory_limit` in MiB of address space.
    """

    allowed_globals: Texts = ()
    allowed_models: Texts = ()
    loaders: Texts = ()
    allow_code: bool = False
    half_made_max_days: float = Field(default=3.0, gt=0, allow_inf_nan=False, description="a number greater than 0")
    time_limit: float = Field(default=120.0, gt=0, allow_inf_nan=False, description="a number greater than 0")
    memory_limit: int = Field(default=4096, ge=1024, description="a whole number of at least 1024")

    @field_validator("allowed_models")
    @classmethod
    def _are_hashes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if not _MODEL_HASH.fullmatch(text):
                raise PydanticCustomError(
                    OWN,
                    "must be hashes as MOD002 tells them, 'sha256:' and 64 hexadecimal digits, not {text}",
                    {"text": repr(text)},
                )
        return value


class DuplicateSettings(_Table):
    """What counts as a duplicate file, and which files are too large to be hashed; sizes in bytes."""

    min_size: int = Field(default=DuplicateRules().min_size, ge=1, description="a whole number of at least 1")
    max_size: int = Field(default=DuplicateRules().max_size, ge=1, description="a whole number of at least 1")
    boilerplate: Texts = DuplicateRules().boilerplate
    zip_members: bool = False
    pointers: bool = False


class ArtifactSettings(_Table):
    """How artifact files are read; `hash_cache` is a folder, 'user' or 'off'."""

    hash_cache: Text = "off"

    def resolved_cache(self, base: Path) -> str:
        """The folder as an absolute path; the two words as they are."""
        return self.hash_cache if self.hash_cache in ("user", "off") else _absolute(self.hash_cache, base)


class JournalSettings(_Table):
    """Where changes are written down; None leaves it to the program."""

    folder: Text | None = None

    def resolved_folder(self, base: Path) -> str | None:
        """The folder as an absolute path; None where none is set."""
        return None if self.folder is None else _absolute(self.folder, base)


class HistorySettings(_Table):
    """Where each audit leaves its report; None for nowhere."""

    folder: Text | None = None

    def resolved_folder(self, base: Path) -> str | None:
        """The folder as an absolute path; None where none is set."""
        return None if self.folder is None else _absolute(self.folder, base)


class PolicySettings(_Table):
    """What differs for one policy; a `severity` of None leaves the policy's own."""

    enabled: bool = True
    severity: Literal["low", "medium", "high", "critical"] | None = None


class EvidenceSettings(_Table):
    """Files with the keys of signatures: the private one that `--fix` and the reports sign with, the public one that
    models are held to.
    """

    sign_with: Text | None = None
    verify_with: Text | None = None

    def resolved_key(self, base: Path, name: Literal["sign_with", "verify_with"]) -> tuple[str, str] | None:
        """A key's file as an absolute path, and what names it: the environment, which counts first, else these
        settings.
        """
        variable = f"MLFLOW_COMPLIANCE_{name.upper()}"
        if given := os.environ.get(variable):
            return _absolute(given, Path.cwd()), variable
        path: str | None = getattr(self, name)
        return None if path is None else (_absolute(path, base), f"[evidence] {name}")


def _day(value: Any) -> Any:
    """TOML has dates, and dates with times: on which side of such a day a hold ends is then a matter of time zones."""
    if isinstance(value, dt.datetime) or not isinstance(value, dt.date):
        shown = value.isoformat() if isinstance(value, dt.datetime | dt.time) else repr(value)
        raise PydanticCustomError(
            OWN, "must be a date without quotes and time, such as 2031-12-31, not {value}", {"value": shown}
        )
    return value


class Hold(_Table):
    """A legal hold: what these patterns cover is kept until the end of the day `until`, without one for good."""

    experiments: Texts = ()
    runs: Texts = ()
    models: Texts = ()
    reason: Text
    until: Annotated[dt.date | None, BeforeValidator(_day)] = None

    @field_validator("reason")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise PydanticCustomError(OWN, "must say why it is held")
        return value

    @model_validator(mode="after")
    def _holds_something(self) -> Hold:
        if not (self.experiments or self.runs or self.models):
            raise PydanticCustomError(OWN, "names nothing: give it patterns of experiments, runs or models")
        return self


class RetentionSettings(_Table):
    """How long things are kept: what is not said limits nothing. Days count from a deletion, years from when a model
    went into production, or was superseded.
    """

    deleted_days: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="a number greater than 0")
    production_years: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="a number greater than 0"
    )
    superseded_years: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="a number greater than 0"
    )
    hold: Annotated[tuple[Hold, ...], Field(strict=False)] = ()

    @property
    def keeps(self) -> bool:
        """Whether they say that anything is to be kept."""
        return bool(self.hold or self.production_years or self.superseded_years)

    @property
    def says_anything(self) -> bool:
        return self.keeps or self.deleted_days is not None


class Settings(_Table):
    """All settings. `path` is the file that they came from, None for the defaults. What they do not say is built in."""

    store: StoreSettings = StoreSettings()
    products: Annotated[tuple[Product, ...], Field(strict=False)] = ()
    experiments: ExperimentSettings = ExperimentSettings()
    runs: RunSettings = RunSettings()
    models: ModelSettings = ModelSettings()
    duplicates: DuplicateSettings = DuplicateSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    journal: JournalSettings = JournalSettings()
    history: HistorySettings = HistorySettings()
    evidence: EvidenceSettings = EvidenceSettings()
    gate: GateSettings = GateSettings()
    retention: RetentionSettings = RetentionSettings()
    waivers: Annotated[tuple[Waiver, ...], Field(strict=False)] = ()
    owners: Annotated[tuple[Owner, ...], Field(strict=False)] = ()
    policies: dict[str, PolicySettings] = {}
    _source: SettingsFile = PrivateAttr(default_factory=SettingsFile)

    @property
    def path(self) -> Path | None:
        return self._source.path

    @property
    def sha256(self) -> str:
        """Of the whole file that they came from (hex), empty for the defaults."""
        return self._source.sha256

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what is in force, whichever file says it and in whatever order; credentials do not count.
        What is said counts apart from what is built in: a repair acts on some of it only where it is said.
        """
        uri = {"store": {"tracking_uri"}}
        values = [self.model_dump(mode="json", exclude=uri, exclude_unset=said) for said in (False, True)]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def base(self) -> Path:
        """The folder that relative paths start from: that of the file, else the working directory."""
        return self.path.parent if self.path else Path.cwd()

    @property
    def prefix(self) -> Loc:
        """What leads to these settings within their file: nothing in compliance.toml."""
        return self._source.prefix

    @property
    def says_products(self) -> bool:
        """Whether the products are said, be it that there are none (`products = []`)."""
        return "products" in self.model_fields_set

    def origin(self, key: str, product: Product | None = None) -> str:
        """Where a value comes from: 'built in', or the file and line that says it. `key` is dotted, and starts from
        a product where one is given.
        """
        start: Loc = () if product is None else ("products", [item.name for item in self.products].index(product.name))
        table: BaseModel = self if product is None else product
        parts = key.split(".")
        for part in parts:
            if part not in table.model_fields_set:
                return BUILT_IN
            table = getattr(table, part)
        return self._source.line((*start, *parts))

    def origin_of_hold(self, number: int) -> str:
        """The file and line of a hold, by its number from 0."""
        return self._source.line(("retention", "hold", number))

    def origin_of_waiver(self, number: int, key: str = "") -> str:
        """The file and line of a waiver, or of one of its keys, by its number from 0."""
        return self._source.line(("waivers", number, *([key] if key else [])))

    def is_test(self, experiment: Experiment) -> bool:
        """Whether the settings say that an experiment is a test one, by name (in any case) or by tag."""
        rules = self.experiments
        return _tagged(experiment, rules.test_tags) or (
            "test_names" in rules.model_fields_set and self._has_test_name(experiment)
        )

    def looks_like_a_test(self, experiment: Experiment) -> bool:
        """Whether nobody says what an experiment is, and its name is like that of a test by the built-in patterns:
        a guess.
        """
        rules = self.experiments
        said = (
            "test_names" in rules.model_fields_set
            or experiment.tags.get(rules.lifecycle_tag) in rules.lifecycle_values
            or self.is_development(experiment)
            or any(product.primary == experiment.name for product in self.products)
        )
        return not said and self._has_test_name(experiment)

    def _has_test_name(self, experiment: Experiment) -> bool:
        return _matches_in_any_case(experiment.own_name, self.experiments.test_names)

    def is_development(self, experiment: Experiment) -> bool:
        """Whether an experiment's work is development, to be archived."""
        return _matches(experiment.own_name, self.experiments.development)

    def duplicate_rules(self) -> DuplicateRules:
        return DuplicateRules(self.duplicates.min_size, self.duplicates.boilerplate, self.duplicates.max_size)

    def production_files(self) -> list[str]:
        """The files that production runs are built from and judged by, as absolute paths."""
        own = [item.production for item in self.products]
        found = [[one.resolved(self.base, "model"), one.resolved(self.base, "predictions")] for one in own]
        found += [[one.resolved(self.base, "features")] for one in own]
        return [path for paths in found for path in paths if path is not None]

    def check_policy_ids(self, known: Collection[str]) -> None:
        """Raise SettingsError, with the line, for every policy id that is not among the known ones."""
        problems: list[tuple[Loc, str]] = [
            (("policies", key), unknown("policy id", key, known)) for key in self.policies if key not in known
        ]
        if problems:
            raise self._source.error(problems)

    @field_validator("products", mode="wrap")
    @classmethod
    def _products_fit_together(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> tuple[Product, ...]:
        # Looks at the raw products, so that these are told along with everything else that is wrong with them.
        errors: list[Any] = [*_repeated_names(value), *_aliases_of_nothing(value)]
        try:
            products: tuple[Product, ...] = handler(value)
        except ValidationError as error:
            errors += error.errors(include_url=False)
        if errors:
            raise ValidationError.from_exception_data("products", errors)
        return products


def load_settings(path: Path | None) -> Settings:
    """The settings in a file, the defaults for None. Raises SettingsError with one line a problem."""
    if path is None:
        return Settings()
    source, table = read_settings(path.expanduser().absolute())
    try:
        settings = Settings.model_validate(table)
    except ValidationError as error:
        raise source.error(problems_in(error, Settings, source.prefix)) from None
    settings._source = source
    return settings


def _repeated_names(products: Any) -> list[InitErrorDetails]:
    seen: dict[str, int] = {}
    errors = []
    for index, product in enumerate(products if isinstance(products, (list, tuple)) else ()):
        name = product.get("name") if isinstance(product, dict) else getattr(product, "name", None)
        if isinstance(name, str) and seen.setdefault(name, index) != index:
            problem = PydanticCustomError(
                OWN, "products[{first}] has this name already; names are unique", {"first": seen[name]}
            )
            errors.append(InitErrorDetails(type=problem, loc=(index, "name"), input=name))
    return errors


def _aliases_of_nothing(products: Any) -> Iterator[InitErrorDetails]:
    """Products whose production run an alias names, and which name no registered model that has it."""
    for index, product in enumerate(products if isinstance(products, (list, tuple)) else ()):
        if not isinstance(product, dict) or product.get("production_by") != "alias":
            continue
        production = product.get("production", {})
        if isinstance(production, dict) and "registered_model" not in production:
            problem = PydanticCustomError(
                OWN,
                "'alias' needs the registered model that has it: set `registered_model` in [products.production]",
            )
            yield InitErrorDetails(type=problem, loc=(index, "production_by"), input="alias")


def _absolute(path: str, base: Path) -> str:
    return os.path.abspath(base / os.path.expanduser(path))


def folded(text: str) -> str:
    """A text as people read it: without regard to case and to space around or within."""
    return " ".join(text.split()).casefold()


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _matches_in_any_case(name: str, patterns: Iterable[str]) -> bool:
    """People who look for production find 'Credit_PRODUCTION' too."""
    return _matches(name.lower(), [pattern.lower() for pattern in patterns])


def _tagged(item: Experiment | Run, tags: Mapping[str, str]) -> bool:
    return any(item.tags.get(key) == value for key, value in tags.items())
