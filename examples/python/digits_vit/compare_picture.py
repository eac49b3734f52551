"""The picture of `compare.py`: accuracy against lambda for each family of methods, and the best of every method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from compare_grids import COMPRESSED, ELEMENTWISE, GRAM, REFERENCE, SPECTRAL
from compare_run import Row

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch

TITLES = {
    GRAM: "Gram methods: weights from angles and distances between whole tensors",
    ELEMENTWISE: "Elementwise methods: trim, drop and vote, element by element",
    SPECTRAL: "Spectral methods: singular vectors of the task matrices",
    COMPRESSED: "Compressed: one rebuilt model per task",
    REFERENCE: "Not merged",
}
COLOURS = {
    GRAM: "tab:blue",
    ELEMENTWISE: "tab:orange",
    SPECTRAL: "tab:green",
    COMPRESSED: "tab:purple",
    REFERENCE: "tab:gray",
}
MARKERS = "os^Dvp<X>*Ph"
TICKS = (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
RESOLUTION = 110


def draw(rows: Sequence[Row], best: Sequence[Row], families: Sequence[str], path: Path) -> None:
    """Draw all rows, by family, and the best of each method (highest first) into a PNG file."""
    base = next(row.mean for row in rows if row.label == "base")
    tuned = next(row.mean for row in rows if row.label == "six fine-tunes")
    figure = plt.figure(figsize=(17, 14), layout="constrained")
    grid = figure.add_gridspec(len(families), 2, width_ratios=(1.15, 1))
    figure.suptitle("Six fine-tunes of a small vision transformer, merged: mean accuracy over their six tasks", size=16)
    drawn = [100 * row.mean for row in rows if row.family in families] + [100 * base]
    for place, family in enumerate(families):
        axes = figure.add_subplot(grid[place, 0])
        _draw_family(axes, [row for row in rows if row.family == family], family, base)
        axes.set_ylim(min(drawn) - 0.5, max(drawn) + 0.5)
    _draw_best(figure.add_subplot(grid[:, 1]), best, base, tuned)
    figure.savefig(path, dpi=RESOLUTION)
    plt.close(figure)


def _draw_family(axes: Axes, rows: Sequence[Row], family: str, base: float) -> None:
    """Curves of the methods with a lambda, horizontal lines for those without one; the legend beside the panel."""
    labels = list(dict.fromkeys(row.label for row in rows))
    colours = plt.get_cmap("tab20" if len(labels) > 10 else "tab10")
    for place, label in enumerate(labels):
        points = [(row.value, 100 * row.mean) for row in rows if row.label == label]
        values, means = zip(*points, strict=True)
        if values[0] is None:
            name = f"{label} (no lambda): {means[0]:.1f}"
            axes.axhline(means[0], color=colours(place), linestyle=(0, (4, 1 + place)), linewidth=1.6, label=name)
        else:
            marker = MARKERS[place % len(MARKERS)]
            axes.plot(values, means, color=colours(place), marker=marker, markersize=5, linewidth=1.4, label=label)
    axes.axhline(100 * base, color="black", linestyle=":", linewidth=1.5, label=f"base: {100 * base:.1f}")
    if any(row.value is not None for row in rows):
        axes.set_xscale("log")
        axes.set_xticks(TICKS, [f"{value:g}" for value in TICKS])
        axes.minorticks_off()
        axes.set_xlim(TICKS[0] * 0.9, TICKS[-1] * 1.1)
    axes.set_title(TITLES[family], loc="left", color=COLOURS[family], weight="bold", size=11)
    axes.set_xlabel("lambda: how much of the merged task vector is added to the base (log scale)")
    axes.set_ylabel("mean accuracy, per cent")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


def _draw_best(axes: Axes, best: Sequence[Row], base: float, tuned: float) -> None:
    """Bars, the best on top, each with its value and the parameter that gave it."""
    shown = list(reversed(best))
    means = [100 * row.mean for row in shown]
    bars = axes.barh(range(len(shown)), means, color=[COLOURS[row.family] for row in shown], height=0.75)
    notes = [_note(row) for row in shown]
    axes.bar_label(bars, notes, padding=4, fontsize=8.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    axes.set_yticks(range(len(shown)), [row.label for row in shown])
    axes.axvline(100 * base, color="black", linestyle=":", linewidth=1.5)
    axes.axvline(100 * tuned, color="black", linestyle="--", linewidth=1.2)
    # A bar that starts at 0 would hide the differences, so the axis says where it starts.
    start = 5 * (min(means) // 5) - 5
    axes.set_xlim(start, 100 * tuned + 10)
    axes.set_ylim(-0.8, len(shown) - 0.2)
    axes.set_xlabel(f"mean accuracy, per cent, from {start:.0f}. Dotted: base. Dashed: six fine-tunes")
    axes.set_title("The best of each method", loc="left", weight="bold", size=11)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    present = list(dict.fromkeys(row.family for row in best))
    patches = [
        Patch(color=COLOURS[family], label=TITLES[family].split(":")[0]) for family in COLOURS if family in present
    ]
    axes.legend(handles=patches, loc="lower right", fontsize=9)


def _note(row: Row) -> str:
    """What stands behind a bar: its value, the lambda that gave it, how small the task's part is."""
    mean = f"{100 * row.mean:.1f}"
    if row.compression is not None:
        return f"{mean}  {row.compression:.0f} times smaller"
    return mean if row.value is None else f"{mean}  lambda {row.value:g}"
