"""What the tests of files share: an inventory in one call, a file system with clones, and a process without
privileges.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mlflow_compliance.progress import Silent
from mlflow_compliance.snapshot.artifacts import Artifacts
from mlflow_compliance.snapshot.files import DuplicateRules
from mlflow_compliance.snapshot.refs import EntityRef, Location
from mlflow_compliance.store.artifacts.local import read_artifacts

NOBODY = 65534
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="session")
def read() -> Callable[..., Artifacts]:
    """`read_artifacts` with what most tests do not care about filled in."""

    def reading(locations: Sequence[Location], **given: object) -> Artifacts:
        settings: dict[str, object] = {
            "relocate": {},
            "roots": [],
            "ignore": [],
            "rules": DuplicateRules(),
            "file_store": False,
            "ready_models": (),
            "recorded": {},
            "progress": Silent(),
            **given,
        }
        return read_artifacts(locations, **settings)  # type: ignore[arg-type]

    return reading


@pytest.fixture(scope="session")
def row() -> Callable[..., Location]:
    """A row that names a location."""

    def made(kind: str, key: str, experiment_id: str, uri: object) -> Location:
        return Location(EntityRef(kind, key, f"label of {key}"), experiment_id, str(uri))

    return made


@pytest.fixture(scope="session")
def cloning_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder on a file system that shares blocks between files: a new XFS in an image of its own."""
    reason = "needs root and xfsprogs"
    if os.geteuid() != 0 or not shutil.which("mkfs.xfs"):
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("xfs")
    image, disk = folder / "image", folder / "disk"
    disk.mkdir()
    with image.open("xb") as file:
        file.truncate(320 << 20)  # sparse; XFS takes nothing smaller than 300 MiB
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(disk)], capture_output=True).returncode:
        image.unlink()
        pytest.skip(reason)
    try:
        yield disk
    finally:
        # Lazily where a failed test still holds a file open: the image must never stay mounted.
        if subprocess.run(["umount", str(disk)], capture_output=True).returncode:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)
        image.unlink()


@pytest.fixture
def ordinary_user(tmp_path: Path) -> Callable[..., str]:
    """Run Python code, which calls `drop()` to lose its privileges, whoever runs the tests; gives back what it
    printed.
    """

    def run(code: str, *arguments: object) -> str:
        # Imports come before `drop()`: the interpreter may live where another user cannot look.
        drop = "def drop(): pass\n"
        if os.geteuid() == 0:
            for folder, _, names in os.walk(tmp_path):
                for path in (folder, *(os.path.join(folder, name) for name in names)):
                    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
            # pytest keeps its folders to itself.
            for above in tmp_path.parents:
                if not above.stat().st_mode & 0o001:
                    above.chmod(0o755)
            drop = (
                f"def drop():\n    import os\n    os.setgroups([])\n    os.setgid({NOBODY})\n    os.setuid({NOBODY})\n"
            )
        command = [sys.executable, "-c", drop + code, *map(str, arguments)]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
