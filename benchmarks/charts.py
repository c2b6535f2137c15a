"""benchmarks/results/*.json in, charts as PNG and SVG in benchmarks/charts/ out: no figure there is typed.

    python -m gridclip.benchmarks.charts                 a chart of every result that has one

The same results give the same SVG, byte for byte, on the same version of matplotlib.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from .. import GridClipError
from . import measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHARTS = pathlib.Path(__file__).parent / "charts"
# Okabe and Ito's colours, told apart with every kind of colour vision; GridCLIP's is nobody else's.
GRIDCLIP, SLOWER, GREY = "#0072B2", "#D55E00", "#767676"
PEER_COLOURS = ("#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
MARKERS = "osD^vP"
RATIO_TICKS = (0.25, 0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
PANEL_IN = (5.2, 0.24)  # width of a panel, height of a bar
STYLE: dict[Any, Any] = {"svg.hashsalt": "gridclip", "font.size": 9, "axes.axisbelow": True, "axes.titlesize": 9}


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
            if draw is not None:
                written += save(draw(json.loads(path.read_text("utf-8"))), out / path.stem)
    return written


def rc_context() -> AbstractContextManager[None]:
    """Within it all charts look alike, and SVG files do not change; raises GridClipError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise GridClipError(f"charts need matplotlib ({error}): pip install gridclip[bench]") from error
    return matplotlib.rc_context(STYLE)


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


# File names of results by how they begin, and who draws them.
DRAWN_BY: dict[str, Callable[[Mapping[str, Any]], Figure]] = {"decode": decode_chart, "sweep": sweep_chart}


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


def legend(figure: Figure, axes: Axes) -> None:
    """The legend of one panel, below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def machine_line(report: Mapping[str, Any]) -> str:
    """The machine's processor and cores, in one line."""
    machine = report["machine"]
    return f"machine: {machine['processor']}, {machine['cores']} cores"


def save(figure: Figure, stem: pathlib.Path) -> list[pathlib.Path]:
    """Writes stem.png and stem.svg, without dates."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg")]
    figure.savefig(paths[0], dpi=150, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    return paths


def in_order(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    """The keys of all mappings, each once, as they come; those of GridCLIP's own readers are no peers."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping if "gridclip" not in key))


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
