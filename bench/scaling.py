"""What grows with runs, with files and with bytes: our own time and memory at three sizes each, every size in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metadata import audit_command, fill
from timing import Timing, add, measure, recorded, table, write
from trees import large_files, model_folders, store_of

HERE = Path(__file__).parent
CLEAN = {"PYTHONDONTWRITEBYTECODE": "", "MLFLOW_TRACKING_URI": "", "PYTEST_ADDOPTS": ""}


def runs(folder: Path, kept: Path | None, sizes: list[int], rounds: int) -> Iterator[tuple[str, Timing]]:
    """The metadata gate, as a process. A million runs take ten minutes to make: they are kept where the user named
    a folder.
    """
    for size in sizes:
        place = (kept or folder) / f"runs{size}"
        place.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{place}/mlflow.db"
        if not (place / "mlflow.db").exists():
            fill(uri, place, size, 100)
        found = Timing()
        command = audit_command(folder, uri)
        measure(command, 1, CLEAN, cwd=folder, ends=(0, 1))
        for _ in range(rounds):
            add(found, command, CLEAN, cwd=folder, ends=(0, 1))
        yield f"{size:,} runs", found


def files(folder: Path, sizes: list[int], rounds: int) -> Iterator[tuple[str, Timing]]:
    """The walk and the duplicate search over model folders of five files."""
    for size in sizes:
        model_folders(folder / "tree", size)
        yield f"{size * 5:,} files", _audited(folder, rounds)


def sizes_of_files(folder: Path, sizes: list[int], rounds: int) -> Iterator[tuple[str, Timing]]:
    """The same over twenty files of a size, of which a part is equal."""
    for size in sizes:
        large_files(folder / "tree", 20, size)
        yield f"20 files of {size / 1e6:.0f} MB", _audited(folder, rounds)


def _audited(folder: Path, rounds: int) -> Timing:
    command = [sys.executable, str(HERE / "audited.py"), store_of(folder / "tree", folder / "tree.db")]
    found = Timing()
    for _ in range(rounds + 1):
        taken = measure(command)
        found.seconds.append(json.loads(taken.output)["files"])
        found.peak_bytes = max(found.peak_bytes, taken.peak_bytes)
    found.seconds.pop(0)  # the cache was cold
    shutil.rmtree(folder / "tree")
    (folder / "tree.db").unlink()
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--small", action="store_true", help="a tenth of each size")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="where stores are made (12 GB), and those of runs stay")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    part = 10 if given.small else 1
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        folder = Path(made)
        timings = dict(runs(folder, given.folder, [10_000 // part, 100_000 // part, 1_000_000 // part], given.rounds))
        timings |= files(folder, [600 // part, 2_400 // part, 12_000 // part], given.rounds)
        timings |= sizes_of_files(folder, [(10 << 20) // part, (50 << 20) // part, (250 << 20) // part], given.rounds)
    print(table(timings, 1.0))
    record = recorded(timings)
    about = (
        "Our own time only: how it grows. Runs through the metadata gate as a process; files by the walk and "
        "the duplicate search."
    )
    write(given.out, {"benchmark": "scaling", "about": about, "timings": record, "claims": claims(timings)})


def claims(timings: dict[str, Timing]) -> list[dict[str, Any]]:
    """Ten times the runs."""
    (few, small), (many, large) = list(timings.items())[1:3]
    time = {
        "work": f"{many} against {few}: time",
        "ours": f"{large.median:.2f} s",
        "against": f"{small.median:.2f} s",
        "ratio": large.median / small.median,
        "target": 11.0,
    }
    memory = {
        "work": f"{many} against {few}: peak memory",
        "ours": f"{large.peak_bytes / 1e6:.0f} MB",
        "against": f"{small.peak_bytes / 1e6:.0f} MB",
        "ratio": large.peak_bytes / small.peak_bytes,
        "target": 3.0,
    }
    return [time, memory]


if __name__ == "__main__":
    main()
