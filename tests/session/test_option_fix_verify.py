"""--fix-verify and --fix-journals: a journal is as it was written, or the line is named that is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gates import Gate, state, told
from signing import write_keys
from stores import Lab

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def written(gate: Gate, messy: Lab) -> Path:
    """The journal of a repair."""
    assert gate("--fix").ret == 0
    (path,) = Path(messy.store.folder).glob("2*.jsonl")
    return path


def verify(gate: Gate, name: object = "last") -> tuple[int, str]:
    result = gate(f"--fix-verify={name}", rules=())
    return int(result.ret), told(result)


def test_a_journal_is_whole_and_says_who_where_and_by_which_settings(gate: Gate, messy: Lab, written: Path) -> None:
    before = state(messy.folder)
    for name in ("last", written.stem, written):
        assert verify(gate, name) == (
            0,
            f"journal {written.stem}: 22 changes, 22 of them done; every line follows the one before it\n",
        )
    header = json.loads(written.read_text().splitlines()[0])
    assert {"user", "host", "versions", "settings", "chain"} <= header.keys()
    listed = told(gate("--fix-journals", rules=()))
    assert f"by {header['user']}@{header['host']}  22 of 22 changes  ended" in listed
    assert state(messy.folder) == before


def change(lines: list[str]) -> list[str]:
    return [line.replace("credit_production", "credit_productiom") for line in lines]


def drop(lines: list[str]) -> list[str]:
    return [*lines[:4], *lines[5:]]


def move(lines: list[str]) -> list[str]:
    return [*lines[:4], lines[5], lines[4], *lines[6:]]


def drop_the_header(lines: list[str]) -> list[str]:
    return lines[1:]


def drop_the_first(lines: list[str]) -> list[str]:
    return [lines[0], *lines[2:]]


def repeat(lines: list[str]) -> list[str]:
    return [*lines[:5], lines[4], *lines[5:]]


def add(lines: list[str]) -> list[str]:
    return [*lines, lines[-1]]


def change_the_header(lines: list[str]) -> list[str]:
    return [lines[0].replace('"user": "', '"user": "not '), *lines[1:]]


def break_json(lines: list[str]) -> list[str]:
    return [*lines[:5], lines[5][:-3], *lines[6:]]


def nest(lines: list[str]) -> list[str]:
    return [*lines[:5], "[" * 100_000, *lines[6:]]


@pytest.mark.parametrize(
    ("tamper", "line"),
    [
        (drop, 5), (move, 5), (drop_the_header, 1), (drop_the_first, 2), (repeat, 6), (add, 48), (change_the_header, 2),
        (break_json, 6), (nest, 6),
    ],
)  # fmt: skip
def test_a_line_that_was_changed_dropped_or_moved_is_found(
    gate: Gate, written: Path, tamper: Callable[[list[str]], list[str]], line: int
) -> None:
    written.write_text("\n".join(tamper(written.read_text().splitlines())) + "\n")
    code, text = verify(gate, written)
    assert (code, f": line {line} " in text) == (1, True), text


def test_a_value_that_was_changed_anywhere_is_found(gate: Gate, written: Path) -> None:
    lines = written.read_text().splitlines()
    written.write_text("\n".join(change(lines)) + "\n")
    code, text = verify(gate, written)
    assert (code, "does not follow the line before it" in text) == (1, True)


def test_an_end_that_is_cut_off_is_told(gate: Gate, written: Path) -> None:
    written.write_text("\n".join(written.read_text().splitlines()[:-1]) + "\n")
    code, text = verify(gate)
    assert (code, "it has no end: the repair was broken off, or the end was cut off" in text) == (0, True)


def test_one_of_an_older_version_says_so(gate: Gate, written: Path) -> None:
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    for line in lines:
        line.pop("chain", None)
        line.pop("prev", None)
    written.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, text = verify(gate)
    assert (code, "its lines carry no hashes of one another: an older version wrote it" in text) == (1, True)
    assert gate("--fix-undo=last", rules=()).ret == 0


def test_the_end_is_signed_where_there_is_a_key(gate: Gate, messy: Lab) -> None:
    write_keys(gate.folder)
    write_keys(gate.folder, "other")
    gate.settings(messy.uri, '[evidence]\nsign_with = "key.pem"\n')
    gate("--fix")
    code, text = verify(gate)
    assert (code, "its end is signed with the key in force" in text) == (0, True)
    (path,) = Path(messy.store.folder).glob("2*.jsonl")

    gate.settings(messy.uri, '[evidence]\nverify_with = "other.pub"\n')
    code, text = verify(gate)
    assert (code, "the signature of its end is not of this key, or its end was changed" in text) == (1, True)
    gate.settings(messy.uri, '[evidence]\nverify_with = "key.pub"\n')
    assert verify(gate)[0] == 0
    *lines, end = path.read_text().splitlines()
    for name, sentence in (("applied", "the signature of its end is not of this key"), ("signature", "is not signed")):
        changed = {key: value for key, value in json.loads(end).items() if key != name}
        path.write_text("\n".join([*lines, json.dumps(changed)]) + "\n")
        code, text = verify(gate)
        assert (code, sentence in text) == (1, True)
    path.write_text("\n".join(lines) + "\n")
    code, text = verify(gate)
    assert (code, "it has no end that could be signed" in text) == (1, True)
