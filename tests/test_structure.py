"""What docs/architecture.md says of who imports whom."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

CHECKOUT = Path(__file__).parents[1]
ENGINE = CHECKOUT / "src" / "mlflow_compliance"
STORE = ENGINE / "store"
SPEC = importlib.util.spec_from_file_location("structure", CHECKOUT / "docs" / "structure.py")
assert SPEC is not None
assert SPEC.loader is not None
structure = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(structure)
OUTSIDE = {"mlflow", "sqlalchemy", "psycopg", "psycopg2", "pymysql", "boto3", "botocore", "requests"}
"""What speaks to a store: to read and write it, the package `store` alone; to load a model of it, `loader`."""


def test_only_the_store_speaks_to_stores() -> None:
    others = [file for file in ENGINE.rglob("*.py") if not {STORE, ENGINE / "loader"} & {*file.parents}]
    packs = [file for pack in ("policies", "fixers") for file in (CHECKOUT / pack).rglob("*.py")]
    assert len(others) > 40
    assert {
        (file.name, name)
        for file in (*others, *packs)
        for name in structure.imported(file)
        if name.partition(".")[0] in OUTSIDE
    } == set()


def test_packs_are_tied_by_policy_id_alone() -> None:
    """No import between them, none from the engine; what they have of the engine they have from its public names."""
    packs = {file: pack for pack in ("policies", "fixers") for file in (CHECKOUT / pack).rglob("*.py")}
    assert len(packs) > 10
    foreign = set()
    for file in (*packs, *ENGINE.rglob("*.py")):
        for name in structure.imported(file):
            top, _, rest = name.removeprefix("mlflow_compliance.").partition(".")
            of_a_pack = top in ("policies", "fixers") and rest and packs.get(file) != top
            of_the_engine = file in packs and name.startswith("mlflow_compliance.") and top not in ("api", packs[file])
            if of_a_pack or of_the_engine:
                foreign.add((file.name, name))
    assert foreign == set()


ORDER = (
    "safe_text", "words", "errors", "progress", "executors",
    "snapshot", "settings", "production", "changes", "rules", "repair",
    "store.storage", "store.models", "store.backends", "store.ownership", "store.artifacts", "store.evidence",
    "store.store", "store.write",
    "audit", "report", "session", "loader", "api", "plugin", "__init__",
)  # fmt: skip
"""From the lowest floor up: a package imports from those before it alone, wherever in a file and for whatever
purpose.
"""


def test_no_import_runs_up() -> None:
    floor = {name: number for number, name in enumerate(ORDER)}
    needs = structure.imports()
    assert {structure.room(name) for name in needs} <= floor.keys(), "every package has its place in the order"
    assert len(needs) > 100
    edges = {
        (name, other)
        for name, others in needs.items()
        for other in others
        if structure.room(name) != structure.room(other)
    }
    assert {
        (name, other) for name, other in edges if floor[structure.room(other)] >= floor[structure.room(name)]
    } == set()


def test_no_files_import_each_other_in_a_circle() -> None:
    assert structure.circles(structure.imports()) == []


def test_a_circle_is_seen() -> None:
    assert structure.circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [["b", "c"]]


def test_what_workers_run_imports_nothing_on_the_way() -> None:
    """`python -I -S` knows no installed package: what runs there, and what lies on the way to it, imports the
    standard library alone.
    """
    for module in ("store/storage/folder_scan", "store/storage/worker"):
        names = {name.partition(".")[0] for name in structure.imported(ENGINE / f"{module}.py")}
        assert names <= sys.stdlib_module_names | {"__future__"}, module
    for folder in ("store", "store/storage", "store/artifacts"):
        assert list(structure.imported(ENGINE / folder / "__init__.py")) == []


def test_hooks_import_no_heavy_package_before_they_are_needed() -> None:
    for file in (ENGINE / "plugin.py", *(ENGINE / "session").glob("*.py")):
        top = ast.parse(file.read_text("utf-8")).body
        names = {name.name for node in top if isinstance(node, ast.Import) for name in node.names}
        names |= {str(node.module) for node in top if isinstance(node, ast.ImportFrom)}
        assert not {name.partition(".")[0] for name in names} & {"mlflow", "sqlalchemy", "pydantic", "rich"}, file


def test_the_picture_is_that_of_today() -> None:
    needs = structure.imports()
    drawn = structure.draw(structure.between_rooms(needs), structure.sizes(needs))
    assert (CHECKOUT / "docs" / "images" / "packages.svg").read_text("utf-8") == drawn, (
        "run: python docs/structure.py docs/images/packages.svg"
    )


NAMES = re.compile(
    r"mlflow\.[a-zA-Z][\w.]*|compliance\.\w[\w.]*|MLmodel|meta\.yaml|\.trash|\.quarantine|\.compliance|requirements\.txt|mlflow-artifacts:"
)
"""Tags of MLflow and of ours, and files and folders whose names mean something to either."""
TWICE = {"store/storage/folder_scan.py": "MLmodel"}
"""What runs in worker processes imports the standard library alone."""


def test_names_of_tags_and_files_are_spelled_once() -> None:
    """In `snapshot/tags.py` and `snapshot/files.py`: one that is spelled again somewhere may be spelled otherwise
    one day.
    """
    places: dict[str, list[str]] = {}
    packs = (CHECKOUT / pack for pack in ("policies", "fixers"))
    for file in (file for folder in (ENGINE, *packs) for file in sorted(folder.rglob("*.py"))):
        allowed = TWICE.get(str(file.relative_to(ENGINE))) if ENGINE in file.parents else None
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            name = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
            if NAMES.fullmatch(name) and name != allowed:
                places.setdefault(name, []).append(f"{file.name}:{node.lineno}")  # type: ignore[attr-defined]
    assert places.keys() >= {"mlflow.note.content", "compliance.copy", "MLmodel"}
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
