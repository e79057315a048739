"""What reads a file of predictions, in a process with limits: a small file may unpack to more than there is."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace

from mlflow_compliance.store.models.sandbox_child import LONGEST_SENTENCE
from mlflow_compliance.store.models.scoring import RESULT, score


def main(path: str, wanted: str) -> None:
    """Score a file, and leave what came of it in the working directory."""
    found = score(path, **json.loads(wanted))
    found = replace(found, values={name: float(value) for name, value in found.values.items()})
    text = json.dumps({**asdict(found), "problem": found.problem[:LONGEST_SENTENCE]})
    with open(RESULT, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
