"""--compliance-hash-cache: off unless asked for, wherever it is asked for; never in the way of an audit or of a
repair.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from gates import Gate, state, told
from stores import Lab

from mlflow_compliance.store.artifacts import hash_cache


@pytest.fixture(autouse=True)
def files_are_old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were made two seconds ago at most are not kept: tests make theirs just before."""
    monkeypatch.setattr(hash_cache, "_SAFE", 0)


def test_the_flag_wins_over_the_settings_and_nothing_is_kept_without(
    gate: Gate, messy: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    plain = gate("-k", "ART001")
    before = state(messy.folder)
    gate.settings(messy.uri, '[artifacts]\nhash_cache = "named"\n')
    assert (
        gate("-k", "ART001", "--compliance-hash-cache=off").outlines[-1].split(" in ")[0]
        == plain.outlines[-1].split(" in ")[0]
    )
    assert not (gate.folder / "named").exists()
    assert gate("-k", "ART001").ret == 1
    assert gate("-k", "ART001", "--compliance-hash-cache=flagged").ret == 1
    assert gate("-k", "ART001", "--compliance-hash-cache=user").ret == 1
    for folder in (gate.folder / "named", gate.folder / "flagged", tmp_path / "xdg" / "mlflow-compliance"):
        assert len(list(folder.iterdir())) == 1
    assert state(messy.folder) == before


def test_a_repair_with_one(gate: Gate, messy: Lab, tmp_path: Path) -> None:
    # Even where somebody puts it into an artifact root, it is nobody's stray.
    inside = f"--compliance-hash-cache={messy.folder / 'mlruns' / 'cache'}"
    assert gate(inside).ret == 1
    assert gate(inside, "--fix").ret == 0
    assert gate(inside).ret == 0
    assert gate().ret == 1  # without the flag it is one


def test_an_empty_name(gate: Gate, messy: Lab) -> None:
    result = gate("--compliance-hash-cache=")
    assert result.ret == 4
    assert "--compliance-hash-cache takes a folder" in told(result)
