"""One real audit of the demo store, written in every format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from gates import CHECKOUT, POLICIES
from reports import FORMATS


@pytest.fixture(scope="session")
def demo_reports(demo_built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Format -> the file that it was written to; trestle reads no other suffix than that of JSON."""
    folder = tmp_path_factory.mktemp("reports")
    files = {name: folder / f"{name}.json" for name in FORMATS}
    flags = [f"--compliance-report={name}:{path}" for name, path in files.items()]
    ini = folder / "pytest.ini"
    ini.write_text(f"[pytest]\naddopts = --import-mode=importlib\ncompliance_fixers = {CHECKOUT / 'fixers'}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-c", ini, f"--rootdir={folder}", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [
            *command,
            POLICIES,
            *flags,
            f"--junit-xml={folder / 'pytest.xml'}",
            f"--html={folder / 'audit.html'}",
            "--self-contained-html",
        ],
        cwd=demo_built,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return {**files, "pytest": folder / "pytest.xml", "html": folder / "audit.html"}
