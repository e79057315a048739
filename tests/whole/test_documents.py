"""Every block of code in README and docs does what a reader expects of it; what cannot be tried is counted."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from textwrap import indent

import linters
import pytest
import yaml
from doc_shell import Shell, shell_in, wrong_syntax
from documents import HOW, KNOWN, SHELL, Block, blocks_of, documents, indented_code
from gates import CHECKOUT, SETTINGS, LabMaker, make_messy
from producing import copied
from stores import Lab

from mlflow_compliance.errors import ComplianceError
from mlflow_compliance.settings.files import TABLE
from mlflow_compliance.settings.flags import HELP, Flags
from mlflow_compliance.settings.schema import Settings, load_settings
from mlflow_compliance.settings.toml import TomlSyntaxError, parse

DOCUMENTS = documents()
BLOCKS = {path: list(blocks_of(path)) for path in DOCUMENTS}
OF_PYPROJECT = {"build-system", "dependency-groups", "project", "tool"}
QUICK = "[policies.SRV002]\nenabled = false\n"
"""It starts a tracking server, which takes longer than all other rules together."""
NOT_RUN_AT_MOST = 8
"""Raise it only for what needs a server, credentials or minutes; each of them is listed by the test."""


def name_of(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


@pytest.fixture
def messy_shell(make_lab: LabMaker) -> Shell:
    """In a folder with a store in some disorder, and its settings."""
    lab: Lab = make_lab()
    make_messy(lab)
    (lab.folder / "compliance.toml").write_text(SETTINGS.format(uri=json.dumps(lab.uri)) + QUICK, "utf-8")
    return Shell(lab.folder, lab.uri)


@pytest.fixture
def production_shell(produced_built: Lab, tmp_path: Path) -> Shell:
    """In a folder with a store that has a production run, and its settings."""
    lab = copied(produced_built, tmp_path / "production")
    path = lab.folder / "compliance.toml"
    path.write_text(path.read_text("utf-8").replace(str(produced_built.folder), str(lab.folder)) + QUICK, "utf-8")
    return Shell(lab.folder, lab.uri)


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if BLOCKS[path]], ids=name_of)
def test_every_block_of_code_works(document: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    problems = []
    for block in BLOCKS[document]:
        needs_store = block.not_run is None and block.language in ("python", "yaml", *SHELL)
        shell = request.getfixturevalue(f"{block.store}_shell") if needs_store else None
        told = list(mistakes(block, shell, tmp_path))
        problems += [f"{block.place}: {block.language or 'no language'}\n{indent(text, '    ')}" for text in told]
    assert not problems, "\n".join([*problems, HOW])


def mistakes(block: Block, shell: Shell | None, tmp_path: Path) -> Iterator[str]:
    """What is wrong with a block, one text each."""
    if block.language not in KNOWN and block.not_run is None:
        yield f"nobody knows how to try the language {block.language!r}" if block.language else "it names no language"
        return
    if block.not_run is not None and len(block.not_run.split()) < 3:
        yield "say in a few words why it is not run: <!-- not run: it needs a tracking server -->"
    check = CHECKS.get("console" if block.language in SHELL else block.language)
    if check is not None:
        yield from check(block, tmp_path)
    if shell is not None:
        for command in block.first:
            yield from shell.problems(command)
        yield from tried(block, shell)


def tried(block: Block, shell: Shell) -> Iterator[str]:
    if block.language == "python":
        yield from shell.run_python(block.text, block.file or "block.py")
        return
    if block.language in SHELL:
        yield from shell.problems(block.text)
        return
    for environment, text in shell_in(yaml.safe_load(block.text)):
        if "${{" in text:
            yield "hand expressions to commands by `env`: who writes a title must not write commands\n" + text
        else:
            yield from shell.problems(text, environment)


def check_python(block: Block, _: Path) -> Iterator[str]:
    try:
        ast.parse(block.text)
    except SyntaxError as error:
        yield f"this is not Python: {error}"


def check_shell(block: Block, _: Path) -> Iterator[str]:
    if not block.text.startswith("$ ") and (said := wrong_syntax(block.text)):
        yield said


def check_toml(block: Block, tmp_path: Path) -> Iterator[str]:
    try:
        table = parse(block.text)
    except TomlSyntaxError as error:
        yield f"this is not TOML: {error}"
        return
    inside = table.get(TABLE[0], {}).get(TABLE[1]) is not None
    if block.fragment or ((block.names_another_toml or set(table) <= OF_PYPROJECT) and not inside):
        return
    if unknown := set(table) - set(Settings.model_fields) - {TABLE[0]}:
        tables = ", ".join(sorted(unknown))
        yield f"{tables} is no table of compliance.toml: name the file in a comment in the first line"
        return
    path = tmp_path / ("pyproject.toml" if inside else "compliance.toml")
    path.write_text(block.text, "utf-8")
    try:
        load_settings(path)
    except ComplianceError as error:
        yield str(error)


def check_yaml(block: Block, tmp_path: Path) -> Iterator[str]:
    try:
        yaml.safe_load(block.text)
    except yaml.YAMLError as error:
        yield f"this is not YAML: {error}"
        return
    if block.file:
        path = tmp_path / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")
        yield from linters.for_file(block.file, path)


def check_json(block: Block, _: Path) -> Iterator[str]:
    try:
        json.loads(block.text)
    except ValueError as error:
        yield f"this is not JSON: {error}"


def check_dockerfile(block: Block, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "Containerfile"
    path.write_text(block.text, "utf-8")
    yield from linters.hadolint(path)


def check_text(block: Block, _: Path) -> Iterator[str]:
    if re.search(r"^(\$ |pytest |pip |python3? |mlflow )", block.text, re.MULTILINE):
        yield "these are commands: make it a console block"


CHECKS: dict[str, Callable[[Block, Path], Iterator[str]]] = {
    "python": check_python,
    "console": check_shell,
    "toml": check_toml,
    "yaml": check_yaml,
    "json": check_json,
    "dockerfile": check_dockerfile,
    "text": check_text,
}


MISTAKEN = {
    "```\nls\n```": "it names no language",
    "```cobol\nDISPLAY\n```": "nobody knows how to try the language 'cobol'",
    "<!-- not run: slow -->\n```console\nls\n```": "say in a few words why",
    "```python\nx = (\n```": "this is not Python",
    "```console\nif true\n```": "syntax error",
    "```toml\nx = \n```": "this is not TOML",
    "```toml\n[gate]\nfail_one = 'high'\n```": "unknown key",
    "```toml\n[gait]\nx = 1\n```": "gait is no table of compliance.toml",
    "```toml\n[tool.mlflow-compliance.gait]\nx = 1\n```": "unknown key",
    "```yaml\na: [\n```": "this is not YAML",
    "```yaml\n# .github/workflows/x.yml\non: push\njobs: {a: {steps: []}}\n```": "runs-on",
    "```json\n{\n```": "this is not JSON",
    "```dockerfile\nRUN cd /tmp\n```": "DL30",
    "```text\npytest --fix\n```": "make it a console block",
}
SOUND = (
    "<!-- fragment -->\n```toml\n[gait]\nx = 1\n```",
    "```toml\n# pyproject.toml of acme\n[x]\n```",
    "```toml\n[project.scripts]\nx = 'x:y'\n```",
    "```text\nls\n```",
)
WRONG_COMMANDS = {
    "false": "exit code 1",
    "pip install '.[no-such-extra]'": "there is no extra no-such-extra",
    "pip install leftpad": "leftpad is neither installed nor in pyproject.toml",
    "pip install --group no-such": "there is no dependency group 'no-such'",
    "pytest --no-such-flag": "exit code 4",
    "$ true\n$ cat no-such-file\nwhat it says": "No such file",
}


def told_of(text: str, folder: Path, shell: Shell | None = None) -> str:
    (folder / "page.md").write_text(f"# Page\n\n{text}\n", "utf-8")
    (block,) = blocks_of(folder / "page.md")
    return "\n".join(mistakes(block, shell, folder))


@pytest.mark.parametrize(("text", "said"), MISTAKEN.items())
def test_what_an_author_did_wrong_is_told(text: str, said: str, tmp_path: Path) -> None:
    assert said in told_of(text, tmp_path)


@pytest.mark.parametrize("text", SOUND)
def test_what_is_marked_well_is_let_be(text: str, tmp_path: Path) -> None:
    assert told_of(text, tmp_path) == ""


def test_commands_that_fail_are_told(messy_shell: Shell, tmp_path: Path) -> None:
    for command, said in WRONG_COMMANDS.items():
        assert said in told_of(f"```console\n{command}\n```", tmp_path, messy_shell)
    good = "export WHERE=here  # and not there\n\necho $WHERE \\\n  > file.txt\ntest -s file.txt"
    assert told_of(f"<!-- first: touch before -->\n```console\n{good}\nls before\n```", tmp_path, messy_shell) == ""
    wrong = (
        "jobs: {a: {steps: [{run: 'ls $WHERE', env: {WHERE: no-such-folder}}, {run: 'echo ${{ github.head_ref }}'}]}}"
    )
    told = told_of(f"```yaml\n{wrong}\n```", tmp_path, messy_shell)
    assert "no-such-folder" in told
    assert "hand expressions to commands by `env`" in told
    assert "NameError" in told_of("```python\nno_such_name\n```", tmp_path, messy_shell)


def test_what_is_not_run_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """A mark cannot hide everything."""
    every = [block for blocks in BLOCKS.values() for block in blocks]
    marked = [f"{block.place}: {block.not_run}" for block in every if block.not_run is not None]
    with capsys.disabled():
        head = f"{len(every)} blocks of code in {len(DOCUMENTS)} documents; not run:"
        sys.stdout.write("\n  ".join([f"\n{head}", *marked]) + "\n")
    assert len(marked) <= NOT_RUN_AT_MOST, "\n".join([*marked, HOW])
    in_a_fence = [place for path in DOCUMENTS for place in indented_code(path)]
    assert not in_a_fence, "\n".join(["indented code that no test sees; fence it:", *in_a_fence, HOW])


def test_every_flag_that_is_spoken_of_is_there() -> None:
    spellings = [item.metadata[HELP] for item in fields(Flags)]
    known = {spelling.name for spelling in spellings}
    wrong = []
    for path in DOCUMENTS:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            found = re.findall(r"(?<![\w-])--(?:compliance|fix)(?:-[a-z]+)*(?![\w*-])", line)
            wrong += [f"{name_of(path)}:{number}: {flag}" for flag in found if flag not in known]
    assert not wrong, "\n".join(["flags that nobody knows:", *wrong])


def test_the_two_commands_for_newcomers_come_first() -> None:
    """A demo and the tests, each one command in a clone with nothing installed."""
    commands = [block for block in BLOCKS[CHECKOUT / "README.md"] if block.language in SHELL][:2]
    assert [block.text.strip().rpartition(" && ")[2] for block in commands] == [
        ".venv/bin/tox run -e demo",
        ".venv/bin/tox run",
    ]
