from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlflow_compliance.snapshot.evidence import ModelCard
from mlflow_compliance.store.models.mlmodel import pinned, read_card

COLUMNS = [
    {"type": "double", "name": "income", "required": True},
    {"type": "double", "name": "own car", "required": True},
]
SHA = "ab" * 32
COMMIT = "0123456789abcdef0123456789abcdef01234567"

TENSOR = '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}]'


def card(folder: Path, requirements: str | bytes | None = None, **document: Any) -> ModelCard:
    (folder / "MLmodel").write_text(yaml.safe_dump(document or {"flavors": {}}, sort_keys=False))
    if requirements is not None:
        (folder / "requirements.txt").write_bytes(
            requirements if isinstance(requirements, bytes) else requirements.encode()
        )
    return read_card(os.fspath(folder))


def test_everything_that_a_model_says(tmp_path: Path) -> None:
    (tmp_path / "input_example.json").write_text("{}")
    found = card(
        tmp_path,
        "mlflow==3.12.0\nlightgbm\n",
        flavors={"python_function": {"env": "x"}, "lightgbm": {}},
        signature={"inputs": json.dumps(COLUMNS), "outputs": json.dumps(COLUMNS)},
        saved_input_example_info={"artifact_path": "input_example.json"},
    )
    assert found == ModelCard(
        inputs=("income", "own car"),
        signed=True,
        example="input_example.json",
        requirements=("mlflow==3.12.0", "lightgbm"),
        unpinned=("lightgbm",),
        flavors=("lightgbm", "python_function"),
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, ""),
        (b"", "MLmodel is empty"),
        (b"\xff", "MLmodel is not UTF-8 text"),
        (b"- a", "MLmodel is not a mapping"),
        (b"flavors: [", "MLmodel is not YAML"),
        (b"signature: text\nflavors: 1\nsaved_input_example_info: 2\n", ""),
    ],
)
def test_a_model_that_says_nothing_has_an_empty_card(tmp_path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "MLmodel").write_bytes(content)
    assert read_card(os.fspath(tmp_path)) == ModelCard(problem=problem)


@pytest.mark.parametrize("deep", ["[" * 100_000, "[" * 900 + "]" * 900])
def test_a_signature_that_is_too_deep_is_told(tmp_path: Path, deep: str) -> None:
    named = '[{"name": ' + deep + "}]" if deep.endswith("]") else deep
    (tmp_path / "MLmodel").write_text(f"flavors: {{}}\nsignature:\n  inputs: '[]'\n  outputs: '{named}'\n")
    card = read_card(os.fspath(tmp_path))
    assert card.problem.startswith("the outputs of its signature in MLmodel cannot be read: the text is n")
    assert not card.signed


@pytest.mark.parametrize(
    "line", [f"a; {'(' * 2000}python_version > '3'{')' * 2000}", f"a; {'(' * 9000}", f"a=={'1' * 5000}"]
)
def test_a_requirement_that_costs_too_much_is_not_pinned(tmp_path: Path, line: str) -> None:
    (tmp_path / "requirements.txt").write_text(f"{line}\nb==1\n")
    card = read_card(os.fspath(tmp_path))
    assert (len(card.requirements), len(card.unpinned)) == (2, 1)


@pytest.mark.parametrize(
    ("signature", "inputs", "signed"),
    [
        (None, (), False),
        ({"inputs": json.dumps(COLUMNS), "outputs": None}, ("income", "own car"), False),
        ({"inputs": None, "outputs": json.dumps(COLUMNS)}, (), False),
        ({"inputs": "[]"}, (), False),
        ({"inputs": "{"}, (), False),
        ({"inputs": "[" * 5000}, (), False),
        ({"inputs": '{"name": "a"}'}, (), False),
        ({"inputs": COLUMNS}, (), False),
        ({"inputs": TENSOR, "outputs": TENSOR}, (), True),
    ],
)
def test_a_signature_is_one_that_says_what_goes_in_and_what_comes_out(
    tmp_path: Path, signature: Any, inputs: tuple[str, ...], signed: bool
) -> None:
    found = card(tmp_path, signature=signature, flavors={})
    assert (found.inputs, found.signed) == (inputs, signed)


@pytest.mark.parametrize(
    "name", ["gone.json", "../beside.json", "/etc/passwd", ".", "", "..", "a\0b", None, ["input_example.json"]]
)
def test_an_example_is_a_file_in_the_folder(tmp_path: Path, name: Any) -> None:
    (tmp_path / "beside.json").write_text("{}")
    (tmp_path / "model").mkdir()
    assert card(tmp_path / "model", saved_input_example_info={"artifact_path": name}).example == ""


def test_only_what_is_installed_is_a_requirement(tmp_path: Path) -> None:
    text = """\
# made by hand
-c constraints.txt
--extra-index-url=https://example.com/simple
--pre
-r more.txt
-e .

numpy == 2.1.0   # the one we trained with
pandas==2.2.3 \\
    --hash=sha256:abc \\
    --hash=sha256:def
scipy[test]==1.15.0 ; python_version < "3.12"
lightgbm --no-binary :all:
"""
    found = card(tmp_path, text)
    assert found.requirements == (
        "-r more.txt",
        "-e .",
        "numpy == 2.1.0",
        "pandas==2.2.3",
        'scipy[test]==1.15.0 ; python_version < "3.12"',
        "lightgbm",
    )
    assert found.unpinned == ("-r more.txt", "-e .", "lightgbm")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"# nothing\n"])
def test_a_file_without_requirements_has_none(tmp_path: Path, content: bytes) -> None:
    assert card(tmp_path, content).requirements == ()


def test_a_link_in_place_of_the_requirements_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("numpy==1\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "requirements.txt").symlink_to(tmp_path / "secret")
    assert card(tmp_path / "model").requirements == ()


@pytest.mark.parametrize(
    "line",
    [
        "a==1.0",
        "a===1.0",
        "a == 1.0+cu118",
        "a[x,y]==1.0; python_version>'3'",
        "a==1.0,>0.5",
        f"a @ https://example.com/a.whl#sha256={SHA}",
        f"a @ https://example.com/a.whl#egg=a&sha256={SHA}",
        f"a @ git+https://example.com/a.git@{COMMIT}",
        f"git+https://example.com/a.git@{COMMIT}#egg=a",
    ],
)
def test_one_version_is_pinned(line: str) -> None:
    assert pinned(line)


@pytest.mark.parametrize(
    "line",
    [
        "a",
        "a>=1.0",
        "a~=1.0",
        "a==1.*",
        "a==1.0,==2.0",
        "a!=1.0",
        "a<2,>1",
        "a @ https://example.com/a.whl",
        f"a @ https://example.com/a.whl#md5={SHA[:32]}",
        "a @ git+https://example.com/a.git@main",
        "git+https://example.com/a.git",
        "./a.whl",
        "-e .",
        "a==",
    ],
)
def test_anything_else_is_not(line: str) -> None:
    assert not pinned(line)
