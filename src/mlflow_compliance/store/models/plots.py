"""The two pictures of a production run. The same numbers give the same bytes: nothing comes from pyplot's state, a
user's style or the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

SIZE = (900, 600)
"""Width and height of each picture, in pixels."""

_DPI = 100
_GRID = 1001  # thresholds in the curve: more than there are pixels
_INK, _MUTED, _BLUE, _ORANGE = "#1f2933", "#5c6773", "#1f5fa8", "#c2540a"
_STYLE = {
    "font.size": 12,
    "text.color": _INK,
    "text.parse_math": False,  # names of columns are shown as they are
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "figure.constrained_layout.h_pad": 0.12,
    "figure.constrained_layout.w_pad": 0.12,
}


class Costs(NamedTuple):
    """Business cost by threshold."""

    thresholds: Floats
    """Rising. `chosen` and `cheapest` are among them."""
    costs: Floats
    chosen: tuple[float, float]
    """Threshold and its cost."""
    cheapest: tuple[float, float]
    """The threshold that costs least of all that there are; the chosen one where none costs less."""


def costs_by_threshold(
    target: Floats, probability: Floats, threshold: float, *, false_negative_cost: float, false_positive_cost: float
) -> Costs:
    """What `probability >= threshold` costs. The cheapest is found among all probabilities, the curve is drawn
    through a grid.
    """
    import numpy as np

    positive, negative = np.sort(probability[target == 1]), np.sort(probability[target == 0])

    def cost(at: Floats) -> Floats:
        missed, alarms = np.searchsorted(positive, at, "left"), len(negative) - np.searchsorted(negative, at, "left")
        return np.asarray(missed * false_negative_cost + alarms * false_positive_cost, dtype=float)

    # The cost changes at probabilities only. The chosen threshold comes first, and wins where another one is as cheap.
    candidates = np.concatenate([[threshold], np.unique(probability), [1.0]])
    cheapest = float(candidates[np.argmin(cost(candidates))])
    thresholds = np.unique(np.concatenate([np.linspace(0, 1, _GRID), [threshold, cheapest]]))
    (at_chosen, at_cheapest) = cost(np.array([threshold, cheapest]))
    return Costs(thresholds, cost(thresholds), (threshold, float(at_chosen)), (cheapest, float(at_cheapest)))


def draw_confusion_matrix(path: str, values: Mapping[str, float], *, threshold: float, target: str) -> None:
    """A PNG with counts and shares; `values` holds tn, fp, fn and tp."""
    rows = [[values["tn"], values["fp"]], [values["fn"], values["tp"]]]
    total = sum(map(sum, rows))
    shares = [[value / sum(row) for value in row] for row in rows]
    names = [["true negatives", "false positives"], ["false negatives", "true positives"]]
    with _figure(path) as figure:
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for row in (0, 1):
            for column in (0, 1):
                ink = "white" if shares[row][column] > 0.5 else _INK
                count, share, of_all = rows[row][column], shares[row][column], rows[row][column] / total
                axes.text(column, row - 0.14, f"{count:,.0f}", ha="center", va="center", fontsize=24, color=ink)
                axes.text(column, row + 0.08, names[row][column], ha="center", va="center", fontsize=12, color=ink)
                shown = f"{share:.1%} of actual {row}, {of_all:.1%} of all"
                axes.text(column, row + 0.22, shown, ha="center", va="center", fontsize=11, color=ink)
        axes.set_title(f"Confusion matrix at threshold {threshold:g}  ({total:,.0f} rows)", fontsize=15, pad=14)
        axes.set_xlabel(f"Predicted {target} (1 where probability ≥ {threshold:g})", labelpad=8)
        axes.set_ylabel(f"Actual {target}", labelpad=8)
        axes.set_xticks([0, 1], ["0", "1"])
        axes.set_yticks([0, 1], ["0", "1"])
        axes.tick_params(length=0)
        axes.axhline(0.5, color="white", linewidth=3)
        axes.axvline(0.5, color="white", linewidth=3)
        axes.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axes, label="Share of the actual class")
        bar.ax.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        bar.outline.set_visible(False)


def draw_threshold_curve(
    path: str, costs: Costs, *, rows: int, false_negative_cost: float, false_positive_cost: float
) -> None:
    """A PNG with business cost against threshold, the chosen threshold and the cheapest one marked."""
    with _figure(path) as figure:
        axes = figure.add_subplot()
        axes.plot(
            costs.thresholds,
            costs.costs,
            color=_BLUE,
            linewidth=2,
            drawstyle="steps-pre",
            label="Cost of all decisions",
        )
        # A ring around a dot: both can be seen where they meet.
        for (at, cost), name, color, style, size, filling in (
            (costs.chosen, "Chosen", _ORANGE, "-", 15, "none"),
            (costs.cheapest, "Cheapest", _INK, ":", 7, _INK),
        ):
            axes.axvline(at, color=color, linewidth=1.2, linestyle=style)
            label = f"{name}: {at:.4g}, cost {cost:,.10g}"
            axes.plot(
                [at],
                [cost],
                "o",
                color=color,
                markersize=size,
                markeredgewidth=2,
                markerfacecolor=filling,
                clip_on=False,
                label=label,
            )
        axes.set_title(f"Business cost by decision threshold  ({rows:,} rows)", fontsize=15, pad=14)
        axes.set_xlabel("Threshold (a probability at or above it is decided as 1)", labelpad=8)
        axes.set_ylabel(
            f"Business cost (false negative {false_negative_cost:g}, false positive {false_positive_cost:g})",
            labelpad=8,
        )
        axes.yaxis.set_major_formatter(lambda cost, _: f"{cost:,.10g}")
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.grid(color="#e3e7eb")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="best", framealpha=1, edgecolor="#c8ced4", labelspacing=0.7)


@contextmanager
def _figure(path: str) -> Iterator[Any]:
    """A figure that is written to `path` at the end."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}):
        figure = Figure(figsize=(SIZE[0] / _DPI, SIZE[1] / _DPI), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        # Matplotlib would write its version into the file.
        figure.savefig(path, format="png", metadata={"Software": None})
