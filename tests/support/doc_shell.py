"""Runs commands of documents in a folder as a reader would, with a store at hand and nothing installed anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

STAND_INS = ("sqlite:////srv/mlflow/mlflow.db", "http://mlflow.internal:5000")
"""The stores that documents speak of."""
_UNSET = ("MLFLOW_TRACKING_URI", "MLFLOW_WORKSPACE", "PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "GITHUB_ACTIONS")
_MARK = "--- ended:"
_BROKEN = re.compile(r"^(Traceback \(most recent call last\)|INTERNALERROR)", re.MULTILINE)
_SHIM = '#!/bin/sh\nexec "{python}" {words} "$@"\n'
_FRAME = 'import pandas\nframe = pandas.read_parquet("data/sample.parquet").drop(columns="ROW")'
SECONDS = 600  # of a command that hangs; a machine may be busy


class Shell:
    """Runs blocks one after the other in one folder."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.uri = uri
        programs = folder.with_name(f"{folder.name}-programs")
        programs.mkdir()
        stand_in = Path(__file__).with_name("pip_stand_in.py")
        for name, words in {"pip": f'"{stand_in}"', "pytest": "-m pytest", "python": "", "python3": ""}.items():
            (programs / name).write_text(_SHIM.format(python=sys.executable, words=words))
            (programs / name).chmod(0o755)
        path = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
        self.environment = {key: value for key, value in os.environ.items() if key not in _UNSET}
        self.environment |= {
            "PATH": os.pathsep.join(path),
            "HOME": str(folder),
            "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "PYTEST_ADDOPTS": "-p no:cacheprovider -p no:hypothesispytest -p no:anyio",
        }

    def filled(self, text: str) -> str:
        """With the store that is here in place of those that documents speak of."""
        for name in STAND_INS:
            text = text.replace(name, self.uri)
        return text

    def problems(self, text: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """What went wrong with the commands of a block, one text each."""
        lines = commands_in(self.filled(text))
        ends = (f"{line}\nprintf '\\n%s %s\\n' '{_MARK}' $?" for line in lines)
        given = {key: self.filled(value) for key, value in (environment or {}).items()}
        done = self._done(["bash", "-c", "exec 2>&1\n" + "\n".join(ends)], given)
        parts = done.stdout.split(f"\n{_MARK} ")
        outputs = [parts[0], *(part.partition("\n")[2] for part in parts[1:])]
        codes = [int(part.partition("\n")[0]) for part in parts[1:]]
        if len(codes) < len(lines):  # one of them was `exit`, or never came back
            codes.append(done.returncode or 1)
        ran = zip(lines, codes, outputs, strict=False)
        return [
            f"$ {line}\n{output.strip()}\nexit code {code}" for line, code, output in ran if _wrong(line, code, output)
        ]

    def run_python(self, text: str, name: str) -> list[str]:
        """What went wrong with a block of Python; one that speaks of `frame` gets one."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.filled(text), "utf-8")
        given = _FRAME if "frame" in text else "frame = None"
        script = f"import runpy\n{given}\nrunpy.run_path({str(path)!r}, {{'frame': frame}})"
        done = self._done([sys.executable, "-c", script], {})
        return [f"{done.stdout}{done.stderr}\nexit code {done.returncode}"] if done.returncode else []

    def _done(self, command: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )


def _wrong(line: str, code: int, output: str) -> bool:
    """Findings are no mistake of a document; anything else that pytest ends with is."""
    allowed = (0, 1) if re.search(r"\bpytest\b", line) else (0,)
    return code not in allowed or _BROKEN.search(output) is not None


def commands_in(text: str) -> list[str]:
    """The commands of a block, each with the lines that it goes on in; where there are prompts, what follows them."""
    lines = text.splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith(("$ ", "> "))]
    found: list[str] = []
    begun = ""
    for line in lines:
        begun += line
        if not begun.strip() or begun.lstrip().startswith("#"):
            begun = ""
        elif line.endswith("\\") or wrong_syntax(begun):
            begun += "\n"
        else:
            found.append(begun)
            begun = ""
    return [*found, begun.rstrip("\n")] if begun.strip() else found


def wrong_syntax(text: str) -> str:
    """What bash says of a text that is no whole command."""
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True, check=False).stderr


def shell_in(value: Any, environment: Mapping[str, str] | None = None) -> Iterator[tuple[dict[str, str], str]]:
    """The commands in a GitHub workflow or a GitLab job, with what it says of their environment but for secrets."""
    known = dict(environment or {})
    if isinstance(value, list):
        for item in value:
            yield from shell_in(item, known)
    if not isinstance(value, dict):
        return
    for said in (value.get("env"), value.get("variables")):
        if isinstance(said, dict):
            known |= {key: str(one) for key, one in said.items() if not isinstance(one, dict) and "$" not in str(one)}
    for key, item in value.items():
        if key in ("run", "script", "before_script"):
            yield known, "\n".join(item) if isinstance(item, list) else str(item)
        else:
            yield from shell_in(item, known)
