"""How a rule is declared, and what it may ask for."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.production.context import Context
from mlflow_compliance.rules.finding import Severity
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.settings.schema import Product, Settings
from mlflow_compliance.snapshot.refs import EntityRef

Check = TypeVar("Check", bound=Callable[..., None])

ATTRIBUTE = "__compliance_policy__"
FACTS = ("store", "artifacts", "evidence", "settings", "context", "violations")
"""Arguments that are the same for every case of a policy."""

_ID = re.compile(r"[A-Z]{3}\d{3}")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Requirement(NamedTuple):
    """One name that the production run of a product must carry; `kind` is 'param', 'metric', 'tag' or 'artifact'."""

    product: Product
    kind: str
    name: str

    @property
    def ref(self) -> EntityRef:
        return EntityRef(f"required_{self.kind}", f"{self.product.name}/{self.name}", self.name)


@dataclass(frozen=True)
class Parameter:
    """Entities that a policy is parametrized by: opaque case ids in order, and the entity behind each."""

    name: str
    found: Callable[[Context], dict[str, object]]
    ref: Callable[[object], EntityRef]

    def entities(self, context: Context) -> Mapping[str, object]:
        return context.once(self.found)


def opaque(kind: str, key: str) -> str:
    """An id that is safe in a report whatever the key holds."""
    return f"{kind}-{_plain(key)}"


def _plain(key: str) -> str:
    """The key where it is plain, else a digest of it."""
    return key if _PLAIN.fullmatch(key) else hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:12]


def _experiments(context: Context) -> dict[str, object]:
    return {opaque("experiment", item.experiment_id): item for item in context.snapshot.active_experiments()}


def _products(context: Context) -> dict[str, object]:
    return {opaque("product", item.name): item for item in context.settings.products}


def _registered_models(context: Context) -> dict[str, object]:
    return {
        opaque("registered_model", name): context.snapshot.registered_models[name]
        for name in sorted(context.snapshot.registered_models)
    }


def _artifact_roots(context: Context) -> dict[str, object]:
    return {
        f"artifact_root-{root.key}": root
        for root in (context.snapshot.artifacts.roots if context.snapshot.artifacts else ())
    }


def _required(kind: str) -> Callable[[Context], dict[str, object]]:
    def entities(context: Context) -> dict[str, object]:
        found: dict[str, object] = {}
        for product in context.settings.products:
            # The bare name is what people look for in a report; the product is named where there are several.
            prefix = f"{_plain(product.name)}-" if len(context.settings.products) > 1 else ""
            for name in getattr(product.production, f"required_{kind}s"):
                key = prefix + re.sub(r"[^A-Za-z0-9_.-]", "_", without_secrets(name))
                while key in found:
                    key += "_"
                found[key] = Requirement(product, kind, name)
        return found

    return entities


def _own_ref(item: object) -> EntityRef:
    ref = item.ref  # type: ignore[attr-defined]
    assert isinstance(ref, EntityRef)
    return ref


PARAMETERS: dict[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter("experiment", _experiments, _own_ref),
        Parameter("product", _products, lambda item: EntityRef("product", item.name, item.name)),  # type: ignore[attr-defined]
        Parameter("registered_model", _registered_models, _own_ref),
        Parameter("artifact_root", _artifact_roots, _own_ref),
        *(Parameter(f"required_{kind}", _required(kind), _own_ref) for kind in ("param", "metric", "tag", "artifact")),
    )
}

FILE_PARAMETERS = frozenset({"artifact_root"})
"""Parameters whose entities are found among the files; those of the others are rows or settings."""

MAY_BE_EMPTY = frozenset(PARAMETERS) - {"experiment"}
"""Parameters that a healthy store may have nothing of; an empty one of the others is a failure, not a pass."""
NONE = "none"
"""Case of a rule that has nothing to look at."""


def without_any(parameter: str, settings: Settings) -> str:
    """Why there is nothing of a parameter where the settings are what names it; empty where it comes from the store."""
    kind = parameter.removeprefix("required_")
    if kind == parameter and parameter != "product":
        return ""
    if settings.products:
        return f"the settings require no {kind} of a production run (products.production.required_{kind}s)"
    if settings.says_products:
        return "the settings say that no model is in production (products = [])"
    return "the settings name no product: see PRD008"


@dataclass(frozen=True)
class Policy:
    """A rule: id, title, severity, and the check that is a pytest test function."""

    id: str
    title: str
    severity: Severity
    check: Callable[..., None]
    advice: str = ""
    """What people can do about its findings, in one sentence with the command, the line of TOML or the call."""

    @cached_property
    def arguments(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.check).parameters)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        return tuple(name for name in self.arguments if name in PARAMETERS)

    @cached_property
    def optional(self) -> frozenset[str]:
        """Parameters that the check can do without, spelled `product: Product | None`: where there is nothing of one,
        it is asked once, with None.
        """
        spelled = {name: str(item.annotation) for name, item in inspect.signature(self.check).parameters.items()}
        return frozenset(name for name in self.parameters if spelled[name].endswith("| None"))

    @cached_property
    def reads_artifacts(self) -> bool:
        return not {"artifacts", "artifact_root", "evidence"}.isdisjoint(self.arguments)

    @property
    def evaluable(self) -> bool:
        """Whether the engine can run it on a planned store: a check with fixtures of its own runs under pytest only."""
        return all(name in PARAMETERS or name in FACTS for name in self.arguments)


def policy(policy_id: str, title: str, severity: Severity, *, advice: str = "") -> Callable[[Check], Check]:
    """Declare the test function below as a rule of the store.

    `advice` is shown with each finding: what people can do about it, beside what --fix would do. Words such as RUN_ID
    and NAME in it are filled in (see `rules.advice`).
    Raises ComplianceError where the id is not three capitals and three digits, or the check has no docstring that says
    why.
    """

    def declare(check: Check) -> Check:
        if not _ID.fullmatch(policy_id):
            raise ComplianceError(
                f"policy id {policy_id!r} of {check.__name__} must be three capital letters and three digits, as "
                "in EXP001"
            )
        if not (check.__doc__ or "").strip():
            raise ComplianceError(
                f"policy {policy_id} ({check.__name__}) needs a docstring that says why the rule exists"
            )
        setattr(check, ATTRIBUTE, Policy(policy_id, title, severity, check, advice))
        return check

    return declare
