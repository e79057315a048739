"""What is said of every built-in rule: whole, true of today's rules, and true of the MLflow that is installed."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from gates import CHECKOUT, FIXERS, POLICIES

from mlflow_compliance.report.explain import SOME_DAY
from mlflow_compliance.rules.clauses import CLAUSES
from mlflow_compliance.rules.explained import Explained
from mlflow_compliance.safe_text import without_secrets
from mlflow_compliance.settings.defaults import default_of
from mlflow_compliance.settings.schema import load_settings

SPEC = importlib.util.spec_from_file_location("rules_pages", CHECKOUT / "docs" / "rules.py")
assert SPEC is not None
assert SPEC.loader is not None
pages = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pages)
RULES: list[Explained] = pages.rules()
KEYS = re.findall(r"^\| (`.+?`) \|", (CHECKOUT / "docs" / "settings.md").read_text("utf-8"), flags=re.MULTILINE)
CLAIMS = re.compile(r"\b(compliant|complies|comply|certif\w+|fulfils?|satisf\w+|guarantee\w*)\b", re.IGNORECASE)
"""Words that promise more than evidence."""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_rule_has_all_of_it(rule: Explained) -> None:
    texts = rule.texts
    assert all((texts.what, texts.example, texts.settings, texts.clauses, rule.advice, rule.why))
    assert set(texts.clauses) <= CLAUSES.keys()
    assert len(set(texts.clauses)) == len(texts.clauses)
    for key in texts.settings:
        default_of(key)
    assert texts.what.endswith(".")
    assert texts.example.endswith((".", ":"))
    assert rule.why not in texts.what, "it is said once"
    assert not CLAIMS.search(f"{texts.what} {texts.example} {rule.advice}")


def test_every_waiver_is_one(tmp_path: Path) -> None:
    file = tmp_path / "compliance.toml"
    file.write_text("\n".join(rule.waiver(SOME_DAY) for rule in RULES))
    waivers = load_settings(file).waivers
    assert [item.policy for item in waivers] == [rule.id for rule in RULES]


def test_every_text_is_that_of_a_rule() -> None:
    named = re.findall(
        r"^\[(\w+)\]$", "".join(path.read_text("utf-8") for path in POLICIES.glob("*.toml")), re.MULTILINE
    )
    assert sorted(named) == [rule.id for rule in RULES]
    assert {path.stem for path in POLICIES.glob("*.toml")} == {path.stem for path in POLICIES.glob("test_*.py")}


def test_every_clause_has_a_rule_and_promises_nothing() -> None:
    assert {clause for rule in RULES for clause in rule.texts.clauses} == set(CLAUSES)
    assert not [text for text in CLAUSES.values() if CLAIMS.search(text)]
    families = ("EU AI Act Art. 11", "EU AI Act Annex IV §2", "EU AI Act Annex IV §6", "EU AI Act Art. 12", "SR 26-2")
    more = (
        "EU AI Act Art. 17",
        "EU AI Act Art. 18",
        "ISO/IEC 42001 A.6.2.",
        "ISO/IEC 42001 A.7.5",
        "NIST AI RMF MEASURE",
    )
    for family in (*families, *more, "NIST AI RMF GOVERN 1.6"):
        assert any(clause.startswith(family) for clause in CLAUSES), family
    assert not any("11-7" in clause for clause in CLAUSES), "it was replaced"


def test_keys_that_are_named_are_documented() -> None:
    documented = {spelled for key in KEYS for spelled in _spelled(key)}
    assert {key for rule in RULES for key in rule.texts.settings} <= documented


def _spelled(row: str) -> Iterator[str]:
    """The keys of one row of the table, of which later ones leave out what they share: `a.b`, `.c`, `_d`."""
    first, *others = re.findall(r"`(.+?)`", row.replace("`, `", "` `")) if "`, `" in row else [row.strip("`")]
    yield first
    above = first.rpartition(".")[0]
    for other in others:
        yield above + other if other.startswith(".") else f"{above}.required{other}"


def test_the_pages_are_those_of_today() -> None:
    folder = CHECKOUT / "docs" / "rules"
    made = pages.pages()
    assert {path.name for path in folder.iterdir()} == made.keys(), "run: python docs/rules.py docs/rules"
    for name, text in made.items():
        assert (folder / name).read_text("utf-8") == text, f"run: python docs/rules.py docs/rules ({name})"


def test_links_of_the_pages_lead_somewhere() -> None:
    made = pages.pages()
    heads = {f"#{_slug(line[3:])}" for line in made["clauses.md"].splitlines() if line.startswith("## ")}
    assert len(heads) == len(CLAUSES)
    for text in made.values():
        for link in re.findall(r"\]\(([^)]+)\)", text):
            name, _, head = link.partition("#")
            assert name in made or (CHECKOUT / "docs" / "rules" / name).is_file()
            assert not head or f"#{head}" in heads


def _slug(text: str) -> str:
    """As Python-Markdown, and with it MkDocs, makes the name of a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


def test_the_readme_links_every_rule() -> None:
    table = (CHECKOUT / "README.md").read_text("utf-8")
    assert set(re.findall(r"\(docs/rules/(\w{6})\.md\)", table)) >= {rule.id for rule in RULES}


SPANS = re.compile(r"`([^`]+)`")
"""What is there to be copied."""
PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]{2,}\b")


def advice() -> Iterator[tuple[str, str]]:
    """(where, text) of every advice, in rules and remedies, that a reader of the source sees."""
    for rule in RULES:
        yield rule.id, rule.advice
    for path in sorted((*FIXERS.glob("*.py"), *POLICIES.glob("test_*.py"))):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "`" in node.value:
                yield f"{path.name}:{node.lineno}", node.value


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of MLflow that an advice names as a whole."""
    for where, text in advice():
        for span in SPANS.findall(text):
            if not span.startswith(("MlflowClient()", "mlflow.")) or "(" not in span:
                continue
            try:
                tree = ast.parse(span, mode="eval")
            except SyntaxError:
                continue  # a part of it is made when it is shown
            yield from ((where, node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_calls_that_are_advised_are_those_of_the_installed_mlflow() -> None:
    import mlflow
    import mlflow.models
    import mlflow.pyfunc
    import mlflow.sklearn

    seen = set()
    for where, call in calls():
        name = ast.unparse(call.func)
        if not name.startswith(("mlflow.", "MlflowClient().")):
            continue
        parts = name.removeprefix("MlflowClient().").removeprefix("mlflow.").split(".")
        start: Any = mlflow.MlflowClient if name.startswith("MlflowClient") else mlflow
        if not all(part.isidentifier() for part in parts):
            continue  # what is done with what such a call returns
        function = reduce(getattr, parts, start)
        own = [None] if start is not mlflow else []
        keywords = {word.arg: None for word in call.keywords if word.arg}
        inspect.signature(function).bind(*own, *call.args, **keywords)
        seen.add((where, name))
    assert len(seen) > 25
    assert {name for _, name in seen} >= {"mlflow.sklearn.log_model", "MlflowClient().set_terminated"}


def test_commands_that_are_advised_are_those_of_the_installed_mlflow() -> None:
    import click
    from mlflow.cli import cli

    found: set[str] = set()
    for where, text in advice():
        for span in SPANS.findall(text):
            words = span.split()
            if words[0] != "mlflow":
                continue
            command: click.Command = cli
            context = click.Context(cli)
            rest = words[1:]
            while isinstance(command, click.Group):
                name = rest.pop(0)
                known = command.get_command(context, name)
                assert known is not None, f"{where}: {span}"
                command = known
            options = {spelled for param in command.params for spelled in param.opts}
            assert {word for word in rest if word.startswith("-")} <= options, f"{where}: {span}"
            found.add(command.name or "")
    assert found >= {"delete", "restore", "gc", "predict", "migrate-filestore", "log-artifact"}


def test_advice_is_a_thing_to_do() -> None:
    """A command, a line of TOML or a call stands in it, in one sentence."""
    for rule in RULES:
        spans = SPANS.findall(rule.advice)
        assert spans, rule.id
        assert any(
            re.match(r"mlflow[ .]|Mlflow|pytest |sqlite3 |mv|cp -|sha256sum|\w+ = |\"", span) for span in spans
        ), rule.id
        assert rule.advice.count(". ") == 0, f"{rule.id}: one sentence"
        assert not rule.advice.endswith("."), rule.id


def test_no_advice_is_taken_for_a_secret() -> None:
    """Reports cut what looks like one: `signature=...` of a model is none."""
    cut = [text for _, text in advice() if without_secrets(text) != text]
    assert cut == []
    assert without_secrets("https://x.blob/y?signature=abcdefgh12345678&x=1").count("***") == 1
    assert without_secrets("signature=q1w2e3r4t5z6,u=1") == "signature=***,u=1"


def test_words_to_fill_in_are_known() -> None:
    known = {"RUN_ID", "EXPERIMENT_ID", "MODEL_ID", "MODEL_NAME", "VERSION", "NAME", "ALIAS", "TRACE_ID"}
    known |= {"FILE", "BACKUP", "FOLDER", "PATH", "FORMER_PLACE", "EXPERIMENT_NAME", "SELECT", "FROM", "KILLED"}
    for rule in RULES:
        spans = " ".join(re.sub(r'"[^"]*/[^"]*"', "", span) for span in SPANS.findall(rule.advice))
        assert set(PLACEHOLDER.findall(spans)) <= known, rule.id
