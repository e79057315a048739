"""Runs the policies of the installed wheel from an empty folder against a store: wheel_check.py FOLDER."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow_compliance

CHECKOUT = Path(__file__).resolve().parent.parent
EXPECTED = {"ART001", "ART002", "EXP001", "EXP002", "EXP003", "MOD001", "MOD003", "MOD004", "MOD005"}
EXPECTED |= {"PRD002", "PRD003", "PRD004", "PRD006", "PRD007", "REG001", "SRV001"}


def main(folder: Path) -> int:
    """Exit status 0 when the wheel finds what it must, and --fix mends all of it."""
    if CHECKOUT in Path(mlflow_compliance.__file__).parents and "site-packages" not in mlflow_compliance.__file__:
        print(f"the checkout is imported, not the wheel: {mlflow_compliance.__file__}")
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder))
    store = work / "store"
    subprocess.run([sys.executable, str(CHECKOUT / "examples/credit_scoring/build.py"), str(store)], check=True)
    empty = work / "empty"
    empty.mkdir()
    for flags, expected in (((), EXPECTED), (("--fix",), set())):
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--pyargs",
            "mlflow_compliance.policies",
            "-q",
            "-p",
            "no:cacheprovider",
            "--compliance-show=all",  # in short, what follows from a cause stands on the line of that
        ]
        command += [
            "--tracking-uri",
            f"sqlite:///{store}/mlflow.db",
            "--compliance-config",
            str(store / "compliance.toml"),
            *flags,
        ]
        done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)
        found = set(re.findall(r"^ ([A-Z]{3}\d{3}) ", done.stdout, flags=re.MULTILINE))
        print(" ".join(command[2:]), "->", done.returncode, sorted(found))
        if done.returncode != bool(expected) or found != expected:
            print(done.stdout, done.stderr)
            return 1
    if list(empty.iterdir()):
        print(f"the empty folder is not empty any more: {list(empty.iterdir())}")
        return 1
    shutil.rmtree(work)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
