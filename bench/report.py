"""Turns the records of the benchmarks into docs/benchmarks.md and its plot: report.py RESULTS.jsonl DOCS."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt

GOOD, BAD = "#2a7f62", "#b3412f"
HEAD = """# Benchmarks

Written by `tox -e bench`: every row is one comparison whose two sides ran in the same run, on the same data, one
after the other. What counts is the
ratio; seconds are those of the machine below and are not compared between rows. A ratio over its target is a miss,
and is shown as one.

![Measured ratios beside their targets](images/benchmarks.png)

| work | ours | against | ratio | target | |
|---|---|---|---|---|---|
"""


def newest(path: Path) -> list[dict[str, Any]]:
    """The last record of every benchmark, in the order in which benchmarks first appear."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        found[record["benchmark"]] = record
    return list(found.values())


def kept(claim: dict[str, Any]) -> bool:
    """Whether the measured ratio (ours divided by the other side) is within the target."""
    return bool(claim["ratio"] <= claim["target"])


def rows(records: list[dict[str, Any]]) -> list[str]:
    claims = [claim for record in records for claim in record.get("claims", ())]
    cells = [
        (
            claim["work"],
            claim["ours"],
            claim["against"],
            _spelled(claim["ratio"]),
            _spelled(claim["target"]),
            "kept" if kept(claim) else "**missed**",
        )
        for claim in claims
    ]
    return [f"| {' | '.join(row)} |" for row in cells]


def _spelled(ratio: float) -> str:
    """A ratio as people say it: '1/74' for much less than one."""
    return f"1/{1 / ratio:.0f}" if 0 < ratio < 0.1 else f"{ratio:.3f}" if ratio < 1 else f"{ratio:.2f}"


def plot(records: list[dict[str, Any]], target: Path) -> None:
    """Each ratio as a part of its target: left of the line is kept."""
    claims = [claim for record in records for claim in record.get("claims", ())][::-1]
    shares = [claim["ratio"] / claim["target"] for claim in claims]
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(claims) + 1.2), layout="constrained")
    axes.barh(
        [claim["work"] for claim in claims],
        shares,
        color=[GOOD if kept(claim) else BAD for claim in claims],
        height=0.6,
    )
    axes.axvline(1, color="#333333", linewidth=1)
    for number, (claim, share) in enumerate(zip(claims, shares, strict=True)):
        label = f" {_spelled(claim['ratio'])} (target {_spelled(claim['target'])}) "
        # No label across the line of the limit.
        inside = 0.6 < share <= 1
        axes.text(
            share,
            number,
            label,
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else "black",
            fontsize=8,
        )
    axes.set_xlim(0, max(1.0, *shares) * 1.35)
    axes.set_xlabel("measured ratio / target: 1 is the limit, less is better")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", labelsize=8)
    figure.savefig(target, dpi=110)


def main(results: Path, docs: Path) -> None:
    records = newest(results)
    lines = [HEAD + "\n".join(rows(records))]
    for record in records:
        where = ", ".join(
            f"{name} {version}"
            for name, version in sorted({**record["versions"], **record.get("programs", {})}.items())
        )
        lines.append(
            f"\n## {record['benchmark']}\n\n{record.get('about', '')}\n\nMeasured {record['at']} with {where}.\n"
        )
        lines.append("| side | median s | best s | peak MB |\n|---|---|---|---|")
        for name, timing in record.get("timings", {}).items():
            seconds = sorted(timing["seconds"])
            peak = f"{timing['peak_bytes'] / 1e6:.0f}" if timing.get("peak_bytes") else ""
            lines.append(f"| {name} | {seconds[len(seconds) // 2]:.2f} | {seconds[0]:.2f} | {peak} |")
    (docs / "benchmarks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    plot(records, docs / "images" / "benchmarks.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
