"""benchmarks/results/*.json in, charts as PNG and SVG in benchmarks/charts/ out: no figure there is typed.

    python -m gridclip.benchmarks.charts                 a chart of every result that has one

The same results give the same SVG, byte for byte, on the same version of matplotlib.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import measure
from .chart_parts import GRIDCLIP, colour, in_order, legend, line, new_figure, ratio_bars, rc_context, save, title
from .charts_decode_modes import decode_modes_chart
from .charts_encode_retrieve import encode_chart, retrieve_chart
from .charts_end_to_end import end_to_end_chart, scaling_chart
from .charts_moments import moments_chart
from .charts_search import search_chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHARTS = pathlib.Path(__file__).parent / "charts"
RATIO_TICKS = (0.25, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=measure.RESULTS, help="the folder of JSON files")
    parser.add_argument("--out", type=pathlib.Path, default=CHARTS, help="the folder of charts")
    args = parser.parse_args()
    for path in draw_all(args.results, args.out):
        print(path)


def draw_all(results: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Draws each result whose file name begins with a key of DRAWN_BY; returns the files written."""
    written = []
    with rc_context():
        for path in sorted(results.glob("*.json")):
            draw = next((draw for prefix, draw in DRAWN_BY.items() if path.stem.startswith(prefix)), None)
            figure = draw(json.loads(path.read_text("utf-8"))) if draw is not None else None
            if figure is not None:
                written += save(figure, out / path.stem)
    return written


def decode_chart(report: Mapping[str, Any]) -> Figure:
    """One panel a file: how many times as fast as each peer GridCLIP is, on one core and on all."""
    entries = report["results"]
    fullest_first = sorted(entries, key=lambda entry: -len(entry["ratio_to_peer"]))
    peers = in_order(entry[part] for entry in fullest_first for part in ("ratio_to_peer", "not_compared"))
    cores = entries[0].get("all_cores", {}).get("processes", 1)
    figure, panels = new_figure(len(entries), rows_per_panel=len(peers) * (2 if cores > 1 else 1) + 4)
    longest = max((ratio for entry in entries for ratio in _ratios(entry)), default=1.0)
    for axes, entry in zip(panels, entries, strict=True):
        ratios = {"one core": entry["ratio_to_peer"]}
        if cores > 1:
            ratios[f"{cores} cores"] = entry["all_cores"]["ratio_to_peer"]
        ratio_bars(axes, peers, ratios, longest)
        shares = f"{entry['packets_decoded']} of {entry['packets']} packets decoded"
        axes.set_title(f"{entry['video']}\n{shares}", loc="left")
    legend(figure, panels[0])
    fps = report["settings"]["fps"]
    title(figure, f"Decoding {fps:g} frames per second of video: how many times as fast GridCLIP is", report)
    return figure


def sweep_chart(report: Mapping[str, Any]) -> Figure:
    """One panel a file: how many times as fast GridCLIP is at each interval, and where pruning stops paying."""
    entries = report["results"]
    peers = in_order(rate["ratio_to_peer"] for entry in entries for rate in entry["rates"])
    figure, panels = new_figure(len(entries), rows_per_panel=14)
    for axes, entry in zip(panels, entries, strict=True):
        for number, peer in enumerate(peers):
            points = [
                (1 / rate["fps"], rate["ratio_to_peer"][peer])
                for rate in entry["rates"]
                if peer in rate["ratio_to_peer"]
            ]
            line(axes, points, peer, number)
            crossing = entry["crossover_fps"].get(peer)
            if crossing:
                axes.plot(1 / crossing, 1, "o", markersize=11, markerfacecolor="none", color=colour(number))
        _interval_axes(axes, [rate["fps"] for rate in entry["rates"]])
        axes.set_title(f"{entry['video']}\n{crossing_text(entry['crossover_fps'])}", loc="left")
    legend(figure, panels[0])
    title(
        figure,
        "How the gain of pruning grows with the sampling interval, one core (rings: pruning stops paying)",
        report,
    )
    return figure


# File names of results by how they begin, the longer ones first, and who draws them; None is for a result with nothing
# to draw.
DRAWN_BY: dict[str, Callable[[Mapping[str, Any]], Figure | None]] = {
    "decode_modes": decode_modes_chart,
    "decode": decode_chart,
    "encode": encode_chart,
    "end_to_end": end_to_end_chart,
    "moments": moments_chart,
    "retrieve": retrieve_chart,
    "scaling": scaling_chart,
    "search": search_chart,
    "sweep": sweep_chart,
}


def crossing_text(crossings: Mapping[str, float | None]) -> str:
    """Up to which rate pruning pays beside the best peer."""
    if "best peer" not in crossings:
        return "no peer returned the wanted frames at every rate"
    rate = crossings["best peer"]
    if rate is None:
        return "pays at every rate measured"
    return f"pays below {rate:.2g} fps" if rate else "does not pay"


def _ratios(entry: Mapping[str, Any]) -> Iterable[float]:
    return [*entry["ratio_to_peer"].values(), *entry.get("all_cores", {}).get("ratio_to_peer", {}).values()]


def _interval_axes(axes: Axes, rates_fps: Sequence[float]) -> None:
    axes.axhline(1, color=GRIDCLIP, linewidth=2, label="GridCLIP")
    axes.set_xscale("log")
    axes.set_yscale("log")
    lowest, highest = axes.get_ylim()
    intervals = [1 / rate for rate in rates_fps]
    axes.set_xticks(intervals, [f"{interval:.3g}" for interval in intervals])
    ratios = [ratio for ratio in RATIO_TICKS if lowest <= ratio <= highest]
    axes.set_yticks(ratios, [f"{ratio:g}" for ratio in ratios])
    axes.minorticks_off()
    axes.set_xlabel("seconds between wanted frames")
    axes.set_ylabel("times as fast as the peer")
    axes.grid(color="#DDDDDD", linewidth=0.6)


if __name__ == "__main__":
    main()
