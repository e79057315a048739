"""The code blocks of README and docs, and how the comments above a block say what a test does with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gates import CHECKOUT

SHELL = ("console", "sh", "bash")
PARSED = ("toml", "yaml", "json", "dockerfile")
KNOWN = ("python", *SHELL, *PARSED, "text")

HOW = """
What to do with a block of code in README or docs (tests/whole/test_documents.py):
  - name its language after the three backticks: python, console (or sh), toml, yaml, json, dockerfile,
    or text for what a program printed;
  - the blocks of a document run in their order, in a folder that holds a small store (mlflow.db, mlruns) in some
    disorder and its compliance.toml. pytest may end with 0 or 1, all else with 0.
    sqlite:////srv/mlflow/mlflow.db and http://mlflow.internal:5000 stand for that store;
  - a block whose first line is a comment with a path alone (# policies/test_owners.py) is written to that file;
  - toml is read as compliance.toml unless it is of a pyproject.toml, or its first line is a comment that names another
    .toml file;
  - in the line above the block, for nobody to see:
        <!-- first: COMMAND -->      run this before it
        <!-- store: production -->   run it in another folder, whose store has a production run; there `frame` is
                                     a frame of rows to score. It costs ten seconds more
        <!-- fragment -->            only part of a file: parse it, no more
        <!-- not run: REASON -->     it needs a server, credentials or minutes; only its syntax is looked at.
    The last is counted: leave it to what cannot be had in a test.
"""
_FENCE = re.compile(r"^( *)(`{3,}|~{3,})\s*([^\s`]*)[^`]*$")
_COMMENT = re.compile(r"^\s*<!--\s*(.*?)\s*-->\s*$")
_PATH = re.compile(
    r"^# ((?:[\w.-]+/)*[\w.-]+\.(?:py|toml|ya?ml|json|ini)|(?:[\w.-]+/)*(?:Containerfile|Dockerfile))\s*$"
)


@dataclass(frozen=True)
class Block:
    """A block of code, with what the comments above it say."""

    document: Path
    line: int
    language: str
    text: str
    first: tuple[str, ...] = ()
    not_run: str | None = None
    fragment: bool = False
    store: str = "messy"

    @property
    def place(self) -> str:
        """Where it stands, as editors jump to it."""
        return f"{self.document.relative_to(CHECKOUT)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that it is the content of, where its first line names one and nothing else."""
        found = _PATH.match(self.text.partition("\n")[0])
        return found[1] if found else None

    @property
    def names_another_toml(self) -> bool:
        """Whether its first line says that it is of a TOML file other than compliance.toml."""
        first = self.text.partition("\n")[0]
        return first.startswith("#") and ".toml" in first and "compliance.toml" not in first


def documents() -> list[Path]:
    """What people read, in the checkout."""
    found = [*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md"), *(CHECKOUT / "examples").rglob("*.md")]
    return sorted(path for path in found if "demo-store" not in path.parts)


def blocks_of(document: Path) -> Iterator[Block]:
    """Its fenced blocks, in their order."""
    lines = document.read_text("utf-8").splitlines()
    at = 0
    while at < len(lines):
        opening = _FENCE.match(lines[at])
        if opening is None:
            at += 1
            continue
        indent, fence, language = opening.groups()
        start = at + 1
        while at + 1 < len(lines) and lines[at + 1].strip() != fence:
            at += 1
        text = "\n".join(line.removeprefix(indent) for line in lines[start : at + 1]) + "\n"
        yield _marked(document, start, language.lower(), text, _comments(lines[: start - 1]))
        at += 2


def _comments(above: list[str]) -> list[str]:
    """The comments in the lines directly above a block, from top to bottom; an empty line may lie between."""
    found: list[str] = []
    for line in reversed(above):
        comment = _COMMENT.match(line)
        if comment is None and (line.strip() or not found):
            if line.strip():
                break
            continue
        if comment:
            found.insert(0, comment[1])
    return found


def _marked(document: Path, line: int, language: str, text: str, comments: list[str]) -> Block:
    first: list[str] = []
    not_run, fragment, store = None, False, "messy"
    for comment in comments:
        word, colon, rest = comment.partition(":")
        if colon and word == "first":
            first.append(rest.strip())
        elif word == "not run":
            not_run = rest.strip()
        elif word == "store":
            store = rest.strip()
        elif comment == "fragment":
            fragment = True
    return Block(document, line, language, text, tuple(first), not_run, fragment, store)


def indented_code(document: Path) -> list[str]:
    """Places where commands or code are indented in place of standing in a fence: no test would see them."""
    found, fence, blank = [], "", True
    for number, line in enumerate(document.read_text("utf-8").splitlines(), 1):
        opening = _FENCE.match(line)
        if fence:
            fence = "" if line.strip() == fence else fence
        elif opening:
            fence = opening[2]
        elif blank and re.match(r" {4,}(\$ |pytest |pip |python3? |mlflow |export |import |from |\[\[?\w)", line):
            found.append(f"{document.relative_to(CHECKOUT)}:{number}: {line.strip()}")
        blank = not line.strip()
    return found
