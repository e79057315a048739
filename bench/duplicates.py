"""Duplicates in many small files: our audit against jdupes, rdfind and rmlint, and a second audit with the hash cache
against the first.

The target is 0.6 times the fastest of them for the audit of the files ('files': walk, owners, comparison, groups), same
groups; 0.3 for the second.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from timing import Timing, add, alternately, claim, measure, recorded, table, version_of, write
from trees import fresh, model_folders, store_of

HERE = Path(__file__).parent
ABOUT = """Model folders of five files each in the layout of MLflow, 45,000 bytes a file on average: more than a
quarter of the model files
are equal to others, every requirements.txt is. The files are in the page cache. Before anything is timed, our groups
must be those of jdupes,
path for path. 'Ours' is the time inside one process from the rows of the store to the groups (finding whose each file
is, one walk, comparing,
model files read): the other programs do not know about owners. What starting the program and reading the rows adds is
in 'ours: process'.
The second audit finds what the first one left in its cache."""
RULES = "ART001,ART002,ART003,ART004,ART005"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the tree is, or is made")
    parser.add_argument("--folders", type=int, default=12_000, help="model folders, five files each")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    folder: Path = given.folder.absolute()
    tree = folder / f"tree{given.folders}"
    if not tree.exists():
        model_folders(tree, given.folders)
    uri = store_of(tree, folder / f"tree{given.folders}.db")
    ours, cache = [sys.executable, str(HERE / "audited.py"), uri], folder / "cache"
    settings = folder / "compliance.toml"
    settings.write_text('[duplicates]\nmin_size = 1\nboilerplate = ["*.nothing"]\n')
    ini = folder / "pytest.ini"
    ini.write_text(f"[pytest]\ncompliance_fixers = {HERE.parent / 'fixers'}\n")
    gate = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "--import-mode=importlib",
        f"--rootdir={folder}",
        "-c",
        str(ini),
    ]
    gate += [
        str(HERE.parent / "policies"),
        f"--tracking-uri={uri}",
        f"--compliance-config={settings}",
        f"--compliance-rules={RULES}",
    ]

    expected = compared(tree, ours)
    measure([*ours, f"--hash-cache={cache}"])

    def inside(into: Timing, *more: str) -> None:
        taken = measure([*ours, *more])
        into.seconds.append(json.loads(taken.output)["files"])
        into.peak_bytes = max(into.peak_bytes, taken.peak_bytes)

    def first_one(into: Timing) -> None:
        inside(into, f"--hash-cache={fresh(folder / 'fresh')}")

    others = {
        "jdupes": ["jdupes", "-r", "-q", str(tree)],
        "rdfind": ["rdfind", "-n", "true", "-outputname", str(folder / "rdfind.txt"), str(tree)],
        "rmlint": ["rmlint", "-T", "df", "-o", f"json:{folder / 'rmlint.json'}", str(tree)],
    }
    found = alternately(
        given.runs,
        {
            **{
                name: lambda into, command=command: add(into, command)
                for name, command in others.items()
                if shutil.which(command[0])
            },
            "ours: files": inside,
            "ours: process": lambda into: add(into, ours),
            "ours: pytest, rules of artifacts": lambda into: add(into, gate, cwd=folder, ends=(0, 1)),
            "first, with a hash cache": first_one,
            "second, with a hash cache": lambda into: inside(into, f"--hash-cache={cache}"),
        },
    )
    fastest = min(found[name].median for name in others if name in found)
    print(
        f"{given.folders * 5} files, {expected['groups']} groups, {expected['extra']} extra files, the same as "
        "jdupes finds"
    )
    print(table(found, fastest))
    second, first = found["second, with a hash cache"].median, found["first, with a hash cache"].median
    other = min((name for name in others if name in found), key=lambda name: found[name].median)
    ours_took = found["ours: files"].median
    claims = [
        claim(f"duplicates in {given.folders * 5:,} files", "audit of the files", ours_took, other, fastest, 0.6),
        claim("second audit of the same files", "with the hash cache", second, "the first audit", first, 0.3),
    ]
    for one in claims:
        print(f"{one['work']}: {one['ratio']:.2f} (target {one['target']})")
    programs = {name: version_of(name, "--version") for name in others}
    record = recorded(found)
    told = {
        "benchmark": "duplicates",
        "files": given.folders * 5,
        "programs": programs,
        "timings": record,
        "claims": claims,
        "about": ABOUT,
    }
    write(given.out, told)


def compared(tree: Path, ours: list[str]) -> dict[str, int]:
    """Stop where our groups are not those of jdupes, which compares byte for byte."""
    told = json.loads(measure([*ours, "--groups"]).output)
    wanted = {
        frozenset(group.split("\n"))
        for group in measure(["jdupes", "-r", "-q", str(tree)]).output.strip().split("\n\n")
    }
    if {frozenset(group) for group in told.pop("paths")} != wanted or told["unread"]:
        sys.exit("the groups are not those that jdupes finds")
    return dict(told)


if __name__ == "__main__":
    main()
