"""What docs/architecture.md says of who imports whom."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[1]
ENGINE = CHECKOUT / "src" / "mlflow_compliance"
STORE = ENGINE / "store"
OUTSIDE = {"mlflow", "sqlalchemy", "psycopg", "psycopg2", "pymysql", "boto3", "botocore", "requests"}
"""What speaks to a store."""


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_only_the_store_speaks_to_stores() -> None:
    others = [file for file in ENGINE.rglob("*.py") if STORE not in file.parents]
    packs = [file for pack in ("policies", "fixers") for file in (CHECKOUT / pack).rglob("*.py")]
    assert len(others) > 40
    assert {(file.name, name) for file in (*others, *packs) for name in imported(file) if name.partition(".")[0] in OUTSIDE} == set()


def test_packs_are_tied_by_policy_id_alone() -> None:
    """No import between them, none from the engine; what they have of the engine they have from its public names."""
    packs = {file: pack for pack in ("policies", "fixers") for file in (CHECKOUT / pack).rglob("*.py")}
    assert len(packs) > 10
    foreign = set()
    for file in (*packs, *ENGINE.rglob("*.py")):
        for name in imported(file):
            top, _, rest = name.removeprefix("mlflow_compliance.").partition(".")
            of_a_pack = top in ("policies", "fixers") and rest and packs.get(file) != top
            of_the_engine = file in packs and name.startswith("mlflow_compliance.") and top not in ("api", packs[file])
            if of_a_pack or of_the_engine:
                foreign.add((file.name, name))
    assert foreign == set()


def test_no_package_of_the_store_imports_one_that_imports_it() -> None:
    needs: dict[str, set[str]] = defaultdict(set)
    for file in STORE.rglob("*.py"):
        own = file.relative_to(STORE).parts[0].removesuffix(".py")
        for name in imported(file):
            parts = name.split(".")
            if parts[:2] == ["mlflow_compliance", "store"] and len(parts) > 2 and parts[2] != own:
                needs[own].add(parts[2])
    assert len(needs) > 8
    order = list(TopologicalSorter(needs).static_order())  # raises CycleError, which names them
    assert order.index("disk") < order.index("artifacts") < order.index("changing")
