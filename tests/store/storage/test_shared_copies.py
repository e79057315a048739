"""What shares a physical copy, and is parted again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mlflow_compliance.store.storage.atomic_write import TEMPORARY
from mlflow_compliance.store.storage.shared_copies import part_below


def test_what_a_killed_process_left_is_removed_before_the_files_are_parted(tmp_path: Path) -> None:
    """In whatever order the folder lists them: the first file that was parted took it away from under the others."""
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone = int(process.stdout)
    folder = tmp_path / "artifacts"
    folder.mkdir()
    kept = tmp_path / "kept"
    kept.write_bytes(b"content")
    names = [f"{number}.bin" for number in range(8)]
    for name in [*names, *(f"{TEMPORARY}{gone}.{number}" for number in range(8))]:
        os.link(kept, folder / name)
    assert len(part_below(str(tmp_path / "artifacts"))) == 1
    assert sorted(os.listdir(folder)) == names
    assert {(folder / name).stat().st_nlink for name in names} == {1}
    assert kept.read_bytes() == b"content"
