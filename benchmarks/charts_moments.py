"""The result of moments in, its chart out: what an encoder pass buys; see charts.py, which writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .chart_parts import GREY, GRIDCLIP, legend, new_figure, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRICS = {
    "R@1": "R@1 of videos, percent",
    "vcmr_R@1_iou_0.5": "R@1 of moments, IoU 0.5, percent",
}
LEVELS = {"super": ("super images", GRIDCLIP, "o"), "cell": ("frames out of super images (cells)", "#009E73", "s")}
REFINED = ("the same, and the best videos looked at again frame by frame", "#D55E00", "D")
PROCEDURE = ("super", "softmax", 1.0)  # level, aggregate, temperature


def moments_chart(report: Mapping[str, Any]) -> Figure:
    """Two panels over encoder passes, with 95% intervals: the procedure's scoring, and each level's best one."""
    held = report["results"]["held"]
    from matplotlib.ticker import NullLocator

    figure, panels = new_figure(len(METRICS), rows_per_panel=16)
    for axes, (metric, label) in zip(panels, METRICS.items(), strict=True):
        procedure = [row for row in held if (row["level"], row["aggregate"], row["temperature"]) == PROCEDURE]
        _line(axes, procedure, metric, ("super images, the procedure's softmax at 1", GREY, "^"))
        for level, look in LEVELS.items():
            _line(axes, _chosen(report, level), metric, look)
        chosen = report["results"]["chosen"].items()
        refined = [entry["held"] for purpose, entry in chosen if purpose.startswith("refined") and "cell" in purpose]
        _line(axes, refined, metric, REFINED)
        axes.set_xscale("log")
        axes.set_xticks(sorted({row["encoder_passes"] for row in procedure}))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("encoder passes (4 x 4 to 1 x 1 frames in one)")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(color="#DDDDDD", linewidth=0.6)
    legend(figure, panels[0], columns=2)
    facts = report["results"]["sets"]["held"]
    title(
        figure,
        f"{facts['queries']:,} queries, {facts['videos']:,} generated videos, model {report['results']['model']}; "
        "scoring chosen on other videos",
        report,
    )
    return figure


def _chosen(report: Mapping[str, Any], level: str) -> list[Mapping[str, Any]]:
    """The rows of a level, one a grid size: the scoring that won on the development videos."""
    chosen = [entry["held"] for purpose, entry in report["results"]["chosen"].items() if purpose.endswith(f", {level}")]
    return sorted(chosen, key=lambda row: row["grid_size"])


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str, look: tuple[str, str, str]) -> None:
    if not rows:
        return
    label, colour, marker = look
    rows = sorted(rows, key=lambda row: row["encoder_passes"])
    passes, values = [row["encoder_passes"] for row in rows], [row[metric] for row in rows]
    below = [row[metric] - row[f"{metric}_interval"][0] for row in rows]
    above = [row[f"{metric}_interval"][1] - row[metric] for row in rows]
    axes.errorbar(passes, values, [below, above], marker=marker, color=colour, label=label, capsize=3, linewidth=1.2)
    for row in rows:
        name = f"{row['grid_size']}x{row['grid_size']}"
        place = (row["encoder_passes"], row[metric])
        axes.annotate(name, place, (5, 5), textcoords="offset points", fontsize=7, color=colour)
