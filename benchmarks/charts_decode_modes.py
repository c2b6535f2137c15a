"""A report of `decode_modes` in, its chart out: recall over the speed of each way to decode the demo's videos."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .chart_parts import GREY, MARKERS, colour, legend, new_figure, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WAYS = EXACT, FAST, KEYFRAMES, BOTH = "exact", "--decode fast", "--sampling keyframes", "both"
TEMPERATURES = {"temperature 0.1": "full", "temperature 1": "none"}  # how their markers are filled


def decode_modes_chart(report: Mapping[str, Any]) -> Figure | None:
    """One panel for each way to encode the demo's videos; None where recall was not measured."""
    demos = report["results"]["demo"]
    if not demos:
        return None
    figure, panels = new_figure(len(demos), rows_per_panel=14)
    for axes, demo in zip(panels, demos, strict=True):
        _speed_against_recall(axes, demo)
    legend(figure, panels[0])
    queries = demos[0]["recall"][EXACT]["queries"]
    title(figure, f"Speed against recall: {queries} queries, {report['settings']['model']}, one core", report)
    return figure


def _speed_against_recall(axes: Axes, demo: Mapping[str, Any]) -> None:
    for number, way in enumerate(WAYS):
        gain = 1.0 if way == EXACT else demo["times_as_fast"][way]
        for temperature, fill in TEMPERATURES.items():
            recall = demo["recall"][way][temperature]["R@1"]
            label = way if fill == "full" else None
            marker = MARKERS[number]
            axes.plot(gain, recall, marker, markersize=9, fillstyle=fill, color=colour(number), label=label)
    for temperature in TEMPERATURES:
        recall = demo["recall"][EXACT][temperature]["R@1"]
        axes.axhline(recall, color=GREY, linewidth=0.6)
        axes.annotate(
            f"exact, {temperature}", (1, recall), (0, -12), textcoords="offset points", fontsize=7, color=GREY
        )
    least = min(demo["recall"][way][temperature]["R@1"] for way in WAYS for temperature in TEMPERATURES)
    axes.set_ylim(10 * (least // 10) - 10, 102)
    axes.set_xlabel("times as fast to decode as exact")
    axes.set_ylabel("R@1, percent")
    axes.set_title(demo["name"], loc="left")
    axes.grid(color="#DDDDDD", linewidth=0.6)
