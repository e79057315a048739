from __future__ import annotations

import os
from pathlib import Path

import pytest

from mlflow_compliance.snapshot.files import ArtifactFile, ModelFolder
from mlflow_compliance.store.models.mlmodel import inspect

DOCUMENT = """\
artifact_path: file:///C:/mlruns/0/models/m-1/artifacts
flavors:
  lightgbm:
    code: null
    data: model.pkl
  python_function:
    artifacts:
      table:
        path: artifacts/table.csv
        uri: /somewhere/table.csv
    code: code
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    python_model: python_model.pkl
  old:
    env: old_conda.yaml
    version: 3.1.0
saved_input_example_info:
  artifact_path: input_example.json
utc_time_created: '2026-01-03 16:30:44.729683'
"""
NAMED = (
    "artifacts/table.csv",
    "code",
    "conda.yaml",
    "input_example.json",
    "model.pkl",
    "old_conda.yaml",
    "python_env.yaml",
    "python_model.pkl",
)


def look(folder: Path, document: str | bytes) -> ModelFolder:
    (folder / "MLmodel").write_bytes(document.encode() if isinstance(document, str) else document)
    files = {
        str(path): ArtifactFile(path.stat().st_size, str(path), None, logged=True)
        for path in folder.rglob("*")
        if path.is_file()
    }
    return inspect(str(folder), None, files)


def test_every_file_that_the_flavors_name_is_looked_for(tmp_path: Path) -> None:
    found = look(tmp_path, DOCUMENT)
    assert (found.missing, found.empty, found.error) == (NAMED, (), "")
    assert found.artifact_path == "file:///C:/mlruns/0/models/m-1/artifacts"


def test_a_complete_model_misses_nothing(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "helper.py").write_text("x")
    (tmp_path / "artifacts").mkdir()
    for name in set(NAMED) - {"code"}:
        (tmp_path / name).write_text("x")
    assert look(tmp_path, DOCUMENT)[2:4] == ((), ())


def test_empty_files_and_folders_are_told(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "model.pkl").touch()
    found = look(tmp_path, DOCUMENT)
    assert found.empty == ("code", "model.pkl")
    assert not {"code", "model.pkl"} & set(found.missing)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..", ".", "sub/../../model", "link/passwd", "link"]
)
def test_nothing_outside_the_folder_is_looked_at(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/etc")
    assert look(tmp_path, f"flavors:\n  f:\n    data: {name}\n").missing == (name,)


def test_not_even_a_file_that_the_walk_knows(tmp_path: Path) -> None:
    beside = tmp_path / "secret.pkl"
    beside.write_text("x")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_text(f"flavors:\n  f:\n    data: ../secret.pkl\n    model_data: {beside}\n")
    files = {str(beside): ArtifactFile(1, "1:1", None, logged=True)}
    assert inspect(str(tmp_path / "model"), None, files).missing == ("../secret.pkl", str(beside))


def test_a_windows_spelling_is_found(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "a.csv").write_text("x")
    assert look(tmp_path, "flavors:\n  f:\n    artifacts:\n      a:\n        path: artifacts\\a.csv\n").missing == ()


REPEATS = "repeats more than 10,000 parts of itself by anchors or merge keys"


def grown(shape: str, levels: int = 9) -> str:
    """A document each of whose lines holds the one before nine times."""
    lines = ["a0: &a0 {k0: v}"]
    lines += [
        f"a{level}: &a{level} {shape.format(', '.join([f'*a{level - 1}'] * 9))}" for level in range(1, levels + 1)
    ]
    return "\n".join([*lines, "flavors:", "  python_function: {loader_module: mlflow.sklearn}", ""])


@pytest.mark.parametrize("shape", ["{{<<: [{}]}}", "[{}]"])
def test_anchors_and_merge_keys_that_cost_little_are_read(tmp_path: Path, shape: str) -> None:
    assert look(tmp_path, grown(shape, levels=2)).error == ""


def test_long_texts_are_no_numbers(tmp_path: Path) -> None:
    assert look(tmp_path, f"flavors: {{}}\na: '{'1' * 5000}'\nb: {'1 ' * 3000}\nc: {'a' * 5000}\n").error == ""


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ("", "MLmodel is empty"),
        ("- a\n- b\n", "MLmodel is not a mapping"),
        ("just text", "MLmodel is not a mapping"),
        ("run_id: abc\n", "MLmodel names no flavors"),
        ("flavors: lightgbm\n", "MLmodel names no flavors"),
        ("flavors:\n  a: [1\nrun_id: x\n", "MLmodel is not YAML"),
        ("flavors: {}\nsignature: {a: [\n", "MLmodel is not YAML"),
        ("flavors: !!python/object/apply:os.system ['true']\n", "MLmodel is not YAML"),
        (b"\xff\xfe\x00", "MLmodel is not UTF-8 text"),
        ("flavors: {}\n" + "#" * (1 << 20), "MLmodel is larger than 1 MiB"),
        ("flavors: " + "[" * 300_000, "MLmodel is not YAML"),
        ("flavors: " + "[" * 300_000 + "]" * 300_000, "MLmodel is not YAML"),
        ("flavors: " + "[" * 250 + "]" * 250, "MLmodel is nested more than 200 levels deep"),
        ("- " * 300_000, "MLmodel is nested more than 200 levels deep"),
        ("utc: 2024-99-99\n", "MLmodel is not YAML"),
        ("utc_time_created: 2024-99-99\nflavors: 1\n", "MLmodel names no flavors"),
        ("{? {a: b} : c}", "MLmodel is not YAML"),
        (grown("{{<<: [{}]}}"), f"MLmodel {REPEATS}"),
        (grown("[{}]"), f"MLmodel {REPEATS}"),
        (grown("{{a: {{b: [{}]}}}}"), f"MLmodel {REPEATS}"),
        ("a: &a " + "x" * 500_000 + "\nb: [*a, *a, *a]\n", f"MLmodel {REPEATS}"),
        ("a: &a {<<: *a}\nflavors: {}\n", "MLmodel refers to itself, or to nothing"),
        ("a: *b\nflavors: {}\n", "MLmodel refers to itself, or to nothing"),
        ("a: " + "1:" * 200_000 + "1\nflavors: {}\n", "MLmodel holds a number of more than 1,000 characters"),
        ("a: 0x" + "F" * 9_000 + "\nflavors: {}\n", "MLmodel holds a number of more than 1,000 characters"),
        ("a: !!int '" + "9" * 9_000 + "'\nflavors: {}\n", "MLmodel holds a number of more than 1,000 characters"),
        ("flavors: {}\na: [" + "1," * 200_000 + "]", "MLmodel has more than 100,000 parts"),
    ],
)
def test_what_cannot_be_read_is_an_error_and_no_crash(tmp_path: Path, document: str | bytes, error: str) -> None:
    assert look(tmp_path, document).error == error


@pytest.mark.parametrize(
    "document",
    [
        "{flavors: {f: {data: model.pkl}}}",
        "---\nflavors:\n  f: {data: model.pkl}\n",
        "# written by hand\nflavors: {f: {data: model.pkl}}",
    ],
)
def test_other_ways_to_write_the_same(tmp_path: Path, document: str) -> None:
    assert look(tmp_path, document).missing == ("model.pkl",)


def test_the_message_gives_nothing_of_a_linked_file_away(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").symlink_to("/etc/passwd")
    assert "root" not in inspect(str(tmp_path), None, {}).error


def test_a_file_that_went_away_is_an_error(tmp_path: Path) -> None:
    assert inspect(os.fspath(tmp_path), None, {}).error == "MLmodel cannot be read: No such file or directory"
