from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mlflow_compliance.progress import Progress, RichProgress, Silent


@pytest.mark.parametrize("made", [Silent, RichProgress])
def test_one_task_after_the_other_and_nothing_on_standard_output(
    made: type[Progress], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = made()
    progress.stop()
    progress.advance(1)
    for total in (None, 0, 3):
        progress.start("Reading [bold]folders[/bold]", total)
        progress.advance(2)
        progress.advance(1)
    progress.stop()
    progress.stop()
    assert capsys.readouterr().out == ""


def test_a_terminal_shows_the_bar_although_pytest_captures(tmp_path: Path, lab: Any) -> None:
    """The store is read during collection, when all output goes into pytest's capture: a real terminal must see the
    bar.
    """
    import pty

    lab.run(lab.experiment("credit_selection"), "trial", files={"shap.bin": b"x" * 5000})
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib -p no:cacheprovider\n")
    shown = bytearray()

    def keep(terminal: int) -> bytes:
        read = os.read(terminal, 4096)
        shown.extend(read)
        return read

    policies = Path(__file__).parents[1] / "policies" / "test_artifacts.py"
    words = [
        sys.executable,
        "-m",
        "pytest",
        f"-c={tmp_path / 'pytest.ini'}",
        f"--rootdir={tmp_path}",
        f"--tracking-uri={lab.uri}",
        str(policies),
    ]
    pty.spawn(words, keep, lambda _: b"")
    assert b"Reading artifact folders" in shown
    assert b"passed" in shown
