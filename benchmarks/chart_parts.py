"""Figures, panels, bars, lines and colours: what all charts of the benchmarks are made of."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from .. import GridClipError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every kind of colour vision; GridCLIP's is nobody else's.
GRIDCLIP, SLOWER, GREY = "#0072B2", "#D55E00", "#767676"
PEER_COLOURS = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vP"
PANEL_IN = (5.2, 0.24)  # width of a panel, height of a bar
STYLE: dict[Any, Any] = {"svg.hashsalt": "gridclip", "font.size": 9, "axes.axisbelow": True, "axes.titlesize": 9}


def rc_context() -> AbstractContextManager[None]:
    """Within it all charts look alike, and SVG files do not change; raises GridClipError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise GridClipError(f"charts need matplotlib ({error}): pip install '.[bench]'") from error
    return matplotlib.rc_context(STYLE)


def new_figure(panels: int, *, rows_per_panel: int, columns: int = 2) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels, each as high as `rows_per_panel` bars."""
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    size = (max(7.5, PANEL_IN[0] * columns), rows * max(2.0, PANEL_IN[1] * rows_per_panel) + 0.7)
    figure = Figure(figsize=size, layout="constrained")
    axes = [figure.add_subplot(rows, columns, number + 1) for number in range(panels)]
    return figure, axes


def title(figure: Figure, text: str, report: Mapping[str, Any]) -> None:
    """The chart's title: what it shows, and on which machine it was measured."""
    figure.suptitle(f"{text}\n{machine_line(report)}", fontsize=11)


def legend(figure: Figure, axes: Axes, *, columns: int | None = None) -> None:
    """The legend of one panel, below all of them; in one row unless told."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns or len(labels), frameon=False)


def machine_line(report: Mapping[str, Any]) -> str:
    """The machine's processor and cores, in one line."""
    machine = report["machine"]
    return f"machine: {machine['processor']}, {machine['cores']} cores"


def ratio_bars(
    axes: Axes, names: Sequence[str], ratios: Mapping[str, Mapping[str, float]], longest: float | None = None
) -> None:
    """Horizontal bars, one group a name: GridCLIP's colour where it is faster (above 1), another where it is slower.

    Args:
        axes: an empty panel.
        names: from the top.
        ratios: for each setting the ratio of each name; the first setting has full colours, the next are paler.
        longest: the largest ratio of all panels, for a common scale.
    """
    longest = max(longest or 1.0, 1.0)
    height = 0.8 / len(ratios)
    for number, (setting, of_setting) in enumerate(ratios.items()):
        alpha = 1 - 0.55 * number / max(1, len(ratios) - 1)
        axes.barh([0], [0], color=GRIDCLIP, alpha=alpha, label=setting)  # for the legend
        for row, name in enumerate(names):
            at = row - 0.4 + height * (number + 0.5)
            if name in of_setting:
                ratio = of_setting[name]
                axes.barh(at, ratio, height, color=GRIDCLIP if ratio >= 1 else SLOWER, alpha=alpha)
                axes.text(ratio + 0.01 * longest, at, f"{ratio:.2f}", va="center", fontsize=7)
            elif number == 0:
                axes.text(0.01 * longest, row, "other frames, or cannot read it", va="center", fontsize=7, color=GREY)
    axes.axvline(1, color=GRIDCLIP, linewidth=1.5)
    axes.set_xlim(0, 1.12 * longest)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("peer's time / GridCLIP's (above 1: GridCLIP is faster)")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)


def line(axes: Axes, points: Sequence[tuple[float, float]], label: str, number: int) -> None:
    """A line of (x, y) with the colour and marker of the peer `number`."""
    marker = MARKERS[number % len(MARKERS)]
    axes.plot(*zip(*points, strict=True), marker=marker, markersize=5, color=colour(number), label=label)


def colour(number: int) -> str:
    """The colour of peer `number`."""
    return PEER_COLOURS[number % len(PEER_COLOURS)]


def in_order(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    """The keys of all mappings, each once, as they come; those of GridCLIP's own readers are no peers."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping if "gridclip" not in key))


def save(figure: Figure, stem: pathlib.Path) -> list[pathlib.Path]:
    """Writes stem.png and stem.svg, without dates."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg")]
    figure.savefig(paths[0], dpi=150, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    return paths
