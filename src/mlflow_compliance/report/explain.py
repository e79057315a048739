"""A rule in words: for the terminal, and as a page of docs/rules."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from mlflow_compliance.rules.clauses import EVIDENCE
from mlflow_compliance.rules.explained import about
from mlflow_compliance.rules.reach import ADVICE
from mlflow_compliance.settings.defaults import NOT_SET, default_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mlflow_compliance.rules.explained import Explained

KINDS = {
    "safe": "safe: it sets tags and descriptions alone, and --fix-undo takes them back",
    "reversible": "reversible: --fix-undo takes it back",
    ADVICE: "advice: --fix changes nothing about it",
}
SOME_DAY = "2027-03-31"
"""The last day of a waiver on the pages, which are the same whenever they are made."""


def in_one_line(rule: Explained) -> str:
    return f"{rule.id}  {rule.severity:<8}  {rule.title}"


def lines_of(rule: Explained, width: int, expires: str) -> Iterator[str]:
    """For the terminal. What is there to be copied stands on lines of its own, however long."""
    yield in_one_line(rule)
    for head, body in _sections(rule, expires):
        yield f"{head}:"
        for line in body:
            yield from _wrapped(line, width)


def _sections(rule: Explained, expires: str) -> Iterator[tuple[str, Sequence[str]]]:
    texts = rule.texts
    yield "What", [texts.what or f"{rule.title}."]
    yield "Why", rule.why.splitlines()
    if texts.example:
        yield "Example", texts.example.strip().splitlines()
    yield "What --fix does", [*([rule.remedy] if rule.kind != ADVICE else []), f"Kind: {KINDS[rule.kind]}."]
    if rule.advice:
        yield "What you can do", [f"{rule.advice[:1].upper()}{rule.advice[1:]}."]
    yield "Settings that touch it", [*map(_setting, texts.settings), *(f"  {line}" for line in _own(rule))]
    yield "To waive it, in compliance.toml", [f"  {line}" for line in rule.waiver(expires).splitlines()]
    if texts.clauses:
        yield "It gives evidence for", [f"  {_clause(name)}" for name in texts.clauses] + [EVIDENCE]


def _setting(key: str) -> str:
    return f"  {key}  (without a word: {_built_in(key)})"


def _built_in(key: str) -> str:
    try:
        return default_of(key)
    except KeyError:
        return NOT_SET  # a pack may speak of keys of its own


def _own(rule: Explained) -> tuple[str, str]:
    return f"policies.{rule.id}.severity  (without a word: {rule.severity})", f"policies.{rule.id}.enabled  (true)"


def _clause(name: str) -> str:
    told = about(name)
    return f"{name}: {told}" if told else name


def _wrapped(line: str, width: int) -> list[str]:
    if line.startswith(" "):
        return [f"  {line}"]
    return textwrap.wrap(line, width, initial_indent="  ", subsequent_indent="  ", break_long_words=False) or [""]


def page_of(rule: Explained) -> str:
    """The page of a rule, in Markdown."""
    texts = rule.texts
    parts = [
        f"# {rule.id}: {rule.title}",
        f"Severity **{rule.severity}**; remedy: **{rule.kind}**. `--compliance-explain={rule.id}` says the same.",
        texts.what or f"{rule.title}.",
        "## Why",
        rule.why,
        "## Example",
        texts.example.strip(),
        "## What `--fix` does",
        _remedy(rule),
        "## What you can do",
        f"{rule.advice[:1].upper()}{rule.advice[1:]}.",
        "## Settings that touch it",
        _table(
            ("key", "without a word"), [*((f"`{key}`", f"`{_built_in(key)}`") for key in texts.settings), *_rows(rule)]
        ),
        "[Every key](../settings.md).",
        "## To waive it",
        f"```toml\n# compliance.toml\n{rule.waiver(SOME_DAY)}\n```",
        "## What it gives evidence for",
        _table(
            ("clause", "what that is about"),
            [(f"[{name}](clauses.md#{anchor(name)})", about(name)) for name in texts.clauses],
        ),
        EVIDENCE,
    ]
    return "\n\n".join(parts) + "\n"


def _rows(rule: Explained) -> list[tuple[str, str]]:
    return [(f"`policies.{rule.id}.severity`", f"`{rule.severity}`"), (f"`policies.{rule.id}.enabled`", "`true`")]


def _remedy(rule: Explained) -> str:
    kind = KINDS[rule.kind]
    said = f"{kind[:1].upper()}{kind[1:]}."
    if rule.kind == ADVICE:
        return said
    changes = ", ".join(f"`{name}`" for name in rule.changes)
    return f"{rule.remedy} {said} Changes that it may make: {changes}."


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> str:
    escaped: Callable[[str], str] = lambda text: text.replace("|", "\\|")  # noqa: E731
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {escaped(first)} | {escaped(second)} |" for first, second in rows)])


def anchor(clause: str) -> str:
    """The name of a heading's link, as GitHub and MkDocs make it."""
    kept = "".join(char for char in clause.lower() if char.isalnum() or char in " -_")
    return kept.replace(" ", "-")


def index_of(rules: Sequence[Explained]) -> str:
    """The page that lists the rules."""
    rows = [f"| [{rule.id}]({rule.id}.md) | {rule.severity} | {rule.title} | {rule.kind} |" for rule in rules]
    return "\n".join(
        [
            "# The rules",
            "",
            "A page each; [which of them speak to which clause](clauses.md). `docs/rules.py` makes these pages from",
            "the rules and the texts beside them (`policies/test_*.toml`); `pytest --compliance-explain=all` lists the",
            "rules on the terminal.",
            "",
            "| id | severity | rule | remedy |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def clauses_page(rules: Sequence[Explained], clauses: Sequence[str]) -> str:
    """The page that says of each clause which rules give evidence for it."""
    lines = [
        "# Clauses",
        "",
        f"Which rules give evidence for what. {EVIDENCE} What a clause asks for stands here in our own words, to",
        "find one's way: the text that counts is that of the law, the guidance or the standard.",
        "",
    ]
    for clause in clauses:
        lines += [f"## {clause}", "", f"{about(clause)[:1].upper()}{about(clause)[1:]}.", ""]
        lines += [f"- [{rule.id}]({rule.id}.md) {rule.title}" for rule in rules if clause in rule.texts.clauses]
        lines.append("")
    return "\n".join(lines)
