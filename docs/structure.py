"""Counts and draws how the engine is laid out: packages, modules, floors of imports, circles. `python
docs/structure.py [picture.svg]`.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ENGINE = Path(__file__).parents[1] / "src" / "mlflow_compliance"
NAME = "mlflow_compliance"


def modules() -> dict[str, Path]:
    """Module -> file, without the package's own name; `__init__` files that import nothing are left out."""
    found = {}
    for file in sorted(ENGINE.rglob("*.py")):
        name = ".".join(file.relative_to(ENGINE).with_suffix("").parts)
        if file.name != "__init__.py" or any(True for _ in imported(file)):
            found[name] = file
    return found


def imported(file: Path) -> Iterator[str]:
    """What a file imports, wherever in it and for whatever purpose."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports() -> dict[str, set[str]]:
    """Module -> the modules of the engine that it imports."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, file in known.items():
        own = (text.removeprefix(f"{NAME}.") for text in imported(file) if text.startswith(f"{NAME}."))
        found[name] = {other for other in own if other in known} - {name}
    return found


def room(module: str) -> str:
    """The package that a module is in: one below `store`, or one of the engine; a loose module is its own."""
    parts = module.split(".")
    if parts[0] == "store":
        return f"store.{parts[1]}"
    return parts[0]


def between_rooms(needs: Mapping[str, Iterable[str]]) -> dict[str, set[str]]:
    """Room -> the rooms that it imports from."""
    found: dict[str, set[str]] = {}
    for module, others in needs.items():
        own = found.setdefault(room(module), set())
        own |= {room(other) for other in others} - {room(module)}
    return found


def circles(needs: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach one another (Tarjan's strongly connected components, those of more than one
    node).
    """
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for other in sorted(needs.get(node, ())):
            if other not in number:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], number[other])
        if low[node] == number[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(needs):
        if node not in number:
            visit(node)
    return found


def floors(needs: Mapping[str, set[str]]) -> dict[str, int]:
    """Node -> how many imports lie below it at most; a circle counts once."""
    inside = {node: index for index, group in enumerate(circles(needs)) for node in group}
    known: dict[str, int] = {}

    def floor(node: str) -> int:
        if node not in known:
            others = [other for other in needs.get(node, ()) if inside.get(other, -1) != inside.get(node, -2)]
            known[node] = 1 + max(map(floor, others), default=-1)
        return known[node]

    return {node: floor(node) for node in needs}


def _by_way_of_others(others: set[str], needs: Mapping[str, set[str]]) -> set[str]:
    """Those of some nodes that the others of them lead to anyway."""
    seen: set[str] = set()
    left = [below for other in others for below in needs.get(other, ())]
    while left:
        node = left.pop()
        if node not in seen:
            seen.add(node)
            left += needs.get(node, ())
    return seen


def draw(needs: Mapping[str, set[str]], modules_in: Mapping[str, int]) -> str:
    """An SVG of the rooms, the lowest floor at the bottom; each says how many modules it has. What follows from
    other arrows is left out.
    """
    levels = floors(needs)
    rows = [
        sorted(name for name, level in levels.items() if level == number) for number in range(max(levels.values()) + 1)
    ]
    width = max(map(len, rows)) * 190 + 40
    height = len(rows) * 90 + 40
    middle = {}
    for number, row in enumerate(rows):
        left = width / 2 - 95 * (len(row) - 1)
        for place, name in enumerate(row):
            middle[name] = (left + 190 * place, height - 60 - 90 * number)
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
            'font-size="14">'
        ),
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for name, others in sorted(needs.items()):
        for other in sorted(others - _by_way_of_others(others, needs)):
            (x1, y1), (x2, y2) = middle[name], middle[other]
            bent = f"M{x1:.0f},{y1 + 20:.0f} C{x1:.0f},{y1 + 60:.0f} {x2:.0f},{y2 - 60:.0f} {x2:.0f},{y2 - 20:.0f}"
            lines.append(f'<path d="{bent}" fill="none" stroke="#7c8da0"/>')
    for name, (x, y) in middle.items():
        lines.append(
            f'<rect x="{x - 80:.0f}" y="{y - 20:.0f}" width="160" height="40" rx="6" fill="#eef3f8" stroke="#456"/>'
        )
        lines.append(
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{escape(name)} ({modules_in[name]})</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


def sizes(needs: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """Room -> how many modules it has."""
    return dict(Counter(map(room, needs)))


def main() -> None:
    needs = imports()
    rooms, modules_in = between_rooms(needs), sizes(needs)
    loose = [module for module in needs if "." not in module and module != "__init__"]
    print(f"modules: {len(needs)}, loose at the top: {len(loose)} ({', '.join(loose)})")  # noqa: T201
    print(f"packages: {len({name for name in rooms if modules_in[name] > 1 or '.' in name})}")  # noqa: T201
    print(f"floors of modules: {max(floors(needs).values()) + 1}, of packages: {max(floors(rooms).values()) + 1}")  # noqa: T201
    for what, graph in (("files", needs), ("packages", rooms)):
        found = circles(graph)
        print(f"circles of {what}: {len(found)}")  # noqa: T201
        for group in found:
            print("  " + ", ".join(group))  # noqa: T201
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(draw(rooms, modules_in), "utf-8")


if __name__ == "__main__":
    main()
