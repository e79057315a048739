"""Every benchmark, one after the other, then the page and the plot: everything.py [--small] [--only NAME ...]
[--folder FOLDER].
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FULL = {
    "startup": ["startup.py"],
    "metadata": ["metadata.py", "--rounds", "1"],
    "metadata, PostgreSQL": ["metadata.py", "--rounds", "1", "--database", "postgresql"],
    "rest": ["rest.py", "--folder", "{folder}"],
    "duplicates": ["duplicates.py", "{folder}"],
    "large files": ["large_files.py", "{folder}"],
    "merge": ["merge.py", "{folder}"],
    "scaling": ["scaling.py", "--folder", "{folder}"],
    "page": ["page.py"],
}
SMALL = {
    "startup": ["--rounds", "3"],
    "metadata": ["--runs", "5000"],
    "metadata, PostgreSQL": ["--runs", "5000"],
    "rest": ["--runs", "3000", "--experiments", "20", "--files", "100", "--traces", "5000", "--more", "6000"],
    "duplicates": ["--folders", "600"],
    "large files": ["--size", str(5 << 20)],
    "merge": ["--runs", "20"],
    "scaling": ["--small", "--rounds", "1"],
    "page": ["--checks", "50", "--findings", "500", "--rounds", "1"],
}
"""What makes each of them take seconds: to see that it runs, not to publish."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--small", action="store_true")
    arguments.add_argument("--only", nargs="*", choices=list(FULL), default=list(FULL))
    arguments.add_argument("--folder", type=Path, help="a folder with 20 GB of room")
    arguments.add_argument(
        "--out", type=Path, help="JSON lines; without it they are not kept, and nor is the page written"
    )
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        for name in given.only:
            script, *more = (word.format(folder=made) for word in FULL[name])
            command = [sys.executable, str(HERE / script), *more, *(SMALL[name] if given.small else [])]
            command += ["--out", str(given.out.absolute())] if given.out else []
            print("+", " ".join(command), flush=True)
            subprocess.run(command, check=True)
    if given.out:
        subprocess.run([sys.executable, str(HERE / "report.py"), str(given.out), str(HERE.parent / "docs")], check=True)


if __name__ == "__main__":
    main()
