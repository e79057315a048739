"""What the plugin costs a session that has nothing to do with MLflow: `pytest --collect-only` with it and without,
alternately.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from timing import Timing, add, alternately, recorded, table, write


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "test_nothing.py").write_text("def test_nothing() -> None:\n    pass\n")
        (folder / "pytest.ini").write_text("[pytest]\n")
        # A plugin's bytecode is written once, when it is installed or first used.
        env = {"PYTHONDONTWRITEBYTECODE": ""}
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]

        def side(*more: str) -> object:
            def run(timing: Timing) -> None:
                add(timing, [*command, *more], env, cwd=folder)

            return run

        timings = alternately(
            given.rounds, {"without the plugin": side("-p", "no:mlflow_compliance.plugin"), "with the plugin": side()}
        )
    without, with_it = timings.values()
    print(table(timings, without.median))
    more = with_it.median - without.median
    print(f"the plugin adds {more:.3f} s (must not exceed 0.3 s)")
    claim = {
        "work": "start of pytest, no store touched",
        "ours": f"with the plugin, {with_it.median:.2f} s",
        "against": f"without it, {without.median:.2f} s, and 0.3 s more",
        "ratio": with_it.median / (without.median + 0.3),
        "target": 1.0,
    }
    record = recorded(timings)
    about = "`pytest --collect-only` on one test that has nothing to do with MLflow."
    write(given.out, {"benchmark": "startup", "about": about, "timings": record, "claims": [claim]})


if __name__ == "__main__":
    main()
