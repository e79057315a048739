"""Tells the mistakes in settings files, and asks no store: `python -m mlflow_compliance.settings.check FILE ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from mlflow_compliance.errors import SettingsError
from mlflow_compliance.settings.files import PYPROJECT, has_table
from mlflow_compliance.settings.schema import load_settings

USAGE = "usage: python -m mlflow_compliance.settings.check FILE ...   (compliance.toml, or a pyproject.toml)"


def mistakes_in(path: Path) -> str:
    """A line for each mistake; empty where there is none, and for a pyproject.toml that holds no settings."""
    if path.name == PYPROJECT and path.is_file() and not has_table(path):
        return ""
    try:
        load_settings(path)
    except SettingsError as error:
        return str(error)
    return ""


def main(words: Sequence[str]) -> int:
    """Exit code 0: all can be used; 1: mistakes are told; 4, as pytest has it: nothing was asked that can be done."""
    if not words or any(word.startswith("-") for word in words):
        sys.stderr.write(f"{USAGE}\n")
        return 0 if {*words} & {"-h", "--help"} else 4
    found = [text for text in map(mistakes_in, map(Path, words)) if text]
    sys.stdout.write("".join(f"{text}\n" for text in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
