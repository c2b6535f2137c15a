"""Results of encode and retrieve in, their charts out; see charts.py, which writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .chart_parts import GREY, GRIDCLIP, new_figure, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def encode_chart(report: Mapping[str, Any]) -> Figure:
    """Images per second of each candidate, fastest first, with its share of the measured matrix peak."""
    entries = {name: entry for name, entry in report["results"].items() if "images_per_s" in entry}
    names = sorted(entries, key=lambda name: entries[name]["images_per_s"])
    speeds = [entries[name]["images_per_s"] for name in names]
    figure, [axes] = new_figure(1, rows_per_panel=len(names) + 3)
    colours = [GRIDCLIP if name.startswith("onnxruntime") else GREY for name in names]
    bars = axes.barh([name.replace("onnxruntime", "GridCLIP, ONNX Runtime") for name in names], speeds, color=colours)
    axes.bar_label(bars, [_speed(entries[name]) for name in names], padding=3)
    axes.set_xlim(0, 1.35 * max(speeds))
    axes.set_xlabel("images/s")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    device = report["settings"].get("device", "cpu")
    title(figure, f"Encoding, {report['settings']['model']}{'' if device == 'cpu' else f', {device}'}", report)
    return figure


def retrieve_chart(report: Mapping[str, Any]) -> Figure | None:
    """Seconds over queries x super images, log-log, above the bare matrix product; hollow where extrapolated.

    None where no sizes were measured.
    """
    if not report["results"].get("scaling"):
        return None
    entries = sorted(report["results"]["scaling"], key=lambda entry: entry["queries"] * entry["super_images"])
    products = [entry["queries"] * entry["super_images"] for entry in entries]
    figure, [axes] = new_figure(1, rows_per_panel=17)
    floors = [entry["floor_seconds"] for entry in entries]
    axes.loglog(products, floors, "--", color=GREY, label="bare matrix product (floor)")
    axes.loglog(products, [entry["seconds"] for entry in entries], color=GRIDCLIP, label="GridCLIP, best 10 videos")
    _points(axes, [entry for entry in entries if "extrapolated_from" not in entry], GRIDCLIP, "measured")
    _points(axes, [entry for entry in entries if "extrapolated_from" in entry], "white", "extrapolated from a slice")
    for entry, product in zip(entries, products, strict=True):
        label = f"{entry['queries']:,} x {entry['videos']:,}"
        axes.annotate(label, (product, entry["seconds"]), (-4, 7), textcoords="offset points", ha="right")
    axes.margins(0.25, 0.1)
    axes.set_xlabel("queries x super images")
    axes.set_ylabel("seconds")
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.legend(frameon=False, loc="lower right")
    title(figure, "Ranking queries x videos", report)
    return figure


def _points(axes: Axes, entries: Sequence[Mapping[str, Any]], fill: str, label: str) -> None:
    if entries:
        places = [entry["queries"] * entry["super_images"] for entry in entries]
        heights = [entry["seconds"] for entry in entries]
        axes.plot(places, heights, "o", color=GRIDCLIP, markerfacecolor=fill, label=label)


def _speed(entry: Mapping[str, Any]) -> str:
    share = f", {entry['share_of_peak']:.0%} of peak" if "share_of_peak" in entry else ""
    return f"{entry['images_per_s']:.2f}{share}"
