"""Measures commands as processes: time, peak memory, and with what they were measured. Every benchmark writes its
records by it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("pytest-mlflow-compliance", "mlflow", "pytest", "sqlalchemy", "distributed")

_STARTER = """import os, sys, time
start = time.perf_counter()
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(process, 0)
with open(sys.argv[1], "w") as told:
    told.write(f"{time.perf_counter() - start} {os.waitstatus_to_exitcode(status)} {used.ru_maxrss}")"""
"""A small process starts the command: the kernel counts the memory of whoever started it into the peak."""


@dataclass
class Timing:
    """What some runs of one command took."""

    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    """Of the process and of those children of it that it waited for, whichever was largest."""
    output: str = ""
    """Of the last run."""

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure(
    command: Sequence[str],
    runs: int = 1,
    env: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    ends: Sequence[int] = (0,),
) -> Timing:
    """Run a command some times. One that ends with another code than `ends` stops the benchmark: it did not do what
    is compared.
    """
    found = Timing()
    for _ in range(runs):
        add(found, command, env, cwd=cwd, ends=ends)
    return found


def add(
    timing: Timing,
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    ends: Sequence[int] = (0,),
) -> None:
    """One more run of a command."""
    with tempfile.NamedTemporaryFile("r") as told:
        starter = [sys.executable, "-I", "-S", "-c", _STARTER, told.name, *command]
        done = subprocess.run(
            starter,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            check=True,
        )
        seconds, code, peak = told.read().split()
    timing.output = done.stdout.decode(errors="surrogateescape")
    if int(code) not in ends:
        sys.exit(f"{command[0]} ended with {code}: {' '.join(command)}\n{timing.output[-2000:]}")
    timing.seconds.append(float(seconds))
    timing.peak_bytes = max(timing.peak_bytes, int(peak) * 1024)


def alternately(rounds: int, sides: Mapping[str, Callable[[Timing], None]]) -> dict[str, Timing]:
    """Run each side once a round, so that what else the machine does falls on all of them alike. The first round
    warms up and is not counted.
    """
    found = {name: Timing() for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            side(found[name] if number else Timing())
    return found


def versions() -> dict[str, str]:
    """What the numbers were measured with."""
    found = {name: metadata.version(name) for name in _PACKAGES if _installed(name)}
    return {"python": platform.python_version(), "kernel": platform.release(), "cores": str(os.cpu_count()), **found}


def version_of(*command: str) -> str:
    """The first line that a program says of its version."""
    try:
        said = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    except OSError:
        return "not installed"
    return said.partition("\n")[0].strip()


def write(out: Path | None, record: Mapping[str, Any]) -> None:
    """Append a record to a file of JSON lines, with the time and the versions."""
    if out is not None:
        line = {"at": datetime.now(timezone.utc).isoformat(timespec="seconds"), "versions": versions(), **record}
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")


def recorded(timings: Mapping[str, Timing]) -> dict[str, dict[str, Any]]:
    """What was measured, as a record holds it."""
    return {name: {"seconds": timing.seconds, "peak_bytes": timing.peak_bytes} for name, timing in timings.items()}


def claim(work: str, ours: str, seconds: float, against: str, other: float, target: float) -> dict[str, Any]:
    """A comparison for docs/benchmarks.md."""
    spelled = {"ours": f"{ours}, {seconds:.2f} s", "against": f"{against}, {other:.2f} s"}
    return {"work": work, **spelled, "ratio": seconds / other, "target": target}


def table(timings: Mapping[str, Timing], against: float) -> str:
    """Median and best time, the ratio to `against` (seconds), peak memory."""
    lines = [f"{'':32} {'median s':>9} {'best s':>9} {'ratio':>7} {'peak MB':>9}"]
    for name, timing in timings.items():
        peak = f"{timing.peak_bytes / 1e6:9.0f}" if timing.peak_bytes else f"{'':9}"
        lines.append(f"{name:32} {timing.median:9.2f} {timing.best:9.2f} {timing.median / against:7.2f} {peak}")
    return "\n".join(lines)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
