"""Every flag is told, documented, and still understood under the name that it had before."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from gates import CHECKOUT, Gate, told

from mlflow_compliance.settings.flags import HELP, Flags, Spelling

if TYPE_CHECKING:
    from stores import Lab

SPELLINGS: dict[str, Spelling] = {item.name: item.metadata[HELP] for item in fields(Flags)}
OWN = ("--tracking-uri", "--fix")
"""What flags begin with that are about the store or the repair; all others say whose they are."""


def test_every_flag_is_in_the_help_and_in_the_readme(gate: Gate) -> None:
    words = " ".join(gate("--help", rules=()).stdout.str().split())
    readme = (CHECKOUT / "README.md").read_text("utf-8")
    for spelling in SPELLINGS.values():
        assert f"{spelling.name}{f'={spelling.metavar}' if spelling.metavar else ''} {spelling.help}" in words
        assert f"| `{spelling.short or spelling.name}" in readme
        assert spelling.name.startswith(("--compliance-", *OWN))


def test_former_names_are_in_no_help(gate: Gate) -> None:
    former = [spelling.former for spelling in SPELLINGS.values() if spelling.former]
    assert former == ["--metadata-only", "--executor", "--hash-cache"]
    words = gate("--help", rules=()).stdout.str().replace("=", " ").split()
    assert not set(former) & set(words)


@pytest.mark.parametrize("prefix", ["--", "--compliance-"])
def test_former_names_still_work(gate: Gate, messy: Lab, prefix: str) -> None:
    assert "left out by --compliance-metadata-only" in told(gate(f"{prefix}metadata-only"))
    result = gate(f"{prefix}executor=no-such")
    assert (result.ret, "--compliance-executor takes threads (the default)" in told(result)) == (4, True)
    gate("-k", "ART001", f"{prefix}hash-cache=cached")
    assert list((gate.folder / "cached").iterdir())
