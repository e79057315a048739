"""Advice with what a finding is about filled in, so that a command or a call can be copied as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlflow_compliance.rules.finding import Finding

_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
"""What means the same to a shell, in Python and in TOML: for everything else the word stays, for people to fill in."""
_KEYS = {
    "experiment": "EXPERIMENT_ID",
    "run": "RUN_ID",
    "logged_model": "MODEL_ID",
    "registered_model": "MODEL_NAME",
}


def filled(advice: str, finding: Finding) -> str:
    """The advice for one finding. EXPERIMENT_ID, RUN_ID, MODEL_ID, MODEL_NAME and VERSION stand for the entity, NAME
    for what of it is wrong.
    """
    for word, value in _values(finding):
        if _PLAIN.fullmatch(value):
            advice = re.sub(rf"\b{word}\b", value, advice)
    return advice


def _values(finding: Finding) -> Iterator[tuple[str, str]]:
    kind, key, _ = finding.entity
    if kind in _KEYS:
        yield _KEYS[kind], key
    elif kind == "model_version":
        name, _, version = key.rpartition("/")
        yield "MODEL_NAME", name
        yield "VERSION", version
    yield "NAME", finding.name
