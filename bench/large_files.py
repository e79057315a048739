"""Few large files, some of them equal: our audit against b3sum over the same files. The target is 1.3 times its
time at most.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from timing import Timing, add, alternately, claim, measure, recorded, table, version_of, write
from trees import LARGE, large_files, store_of

HERE = Path(__file__).parent
ABOUT = """Of every five files of one size two are equal, one differs from them in its last byte only, two are like
none. b3sum reads all of
them with BLAKE3 on all cores; our audit reads those that a sample does not tell apart, compares them, and gives
SHA-256.
'Ours' is the time inside one process from the rows of the store to the groups."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the files are, or are made")
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--size", type=int, default=LARGE, help="bytes of each")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    folder: Path = given.folder.absolute()
    tree = folder / f"large{given.files}x{given.size}"
    if not tree.exists():
        large_files(tree, given.files, given.size)
    ours = [sys.executable, str(HERE / "audited.py"), store_of(tree, folder / f"{tree.name}.db")]
    paths = sorted(map(str, tree.glob("*/*/artifacts/*")))

    def inside(into: Timing) -> None:
        into.seconds.append(json.loads(measure(ours).output)["files"])

    sides = {
        "b3sum": lambda into: add(into, ["b3sum", *paths]),
        "ours: files": inside,
        "ours: process": lambda into: add(into, ours),
    }
    found = alternately(given.runs, sides)
    told = json.loads(found["ours: process"].output)
    print(f"{given.files} files of {given.size} bytes; {told['groups']} groups, {told['extra']} extra files")
    print(table(found, found["b3sum"].median))
    record = recorded(found)
    programs = {"b3sum": version_of("b3sum", "--version")}
    work = f"duplicates in {given.files} files of {given.size / 1e6:,.0f} MB"
    claims = [
        claim(
            work,
            "audit of the files",
            found["ours: files"].median,
            "b3sum of the same files",
            found["b3sum"].median,
            1.3,
        )
    ]
    told = {
        "benchmark": "large_files",
        "files": given.files,
        "size": given.size,
        "programs": programs,
        "timings": record,
    }
    write(given.out, {**told, "claims": claims, "about": ABOUT})


if __name__ == "__main__":
    main()
