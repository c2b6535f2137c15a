"""A report of `search` in, its chart out: latency, first answer and memory over size, and recall over latency."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .chart_parts import GREY, GRIDCLIP, MARKERS, colour, new_figure, title
from .search import ENOUGH_RECALL
from .search_corpus import BEST_SUPER_IMAGE
from .search_table import chosen_effort, compared, ways

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TICKS = [digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 5)]
DASHES: Mapping[str, Any] = {"exact": "-", "index": (0, (4, 1.5))}  # GridCLIP's lines, by what is in their names

Figures = Mapping[str, Any]  # of one way to search one corpus
Value = Callable[[Figures], float]


def search_chart(report: Mapping[str, Any]) -> Figure | None:
    """Hollow markers: a recall@10 below 99%. None where no generated vectors were measured."""
    entries = sorted(
        (entry for entry in report["results"] if entry["corpus"] == "generated" and entry["systems"]),
        key=lambda entry: entry["super_images"],
    )
    if not entries:
        return None
    figure, panels = new_figure(4, rows_per_panel=15)
    _over_size(panels[0], entries, lambda asked: chosen_effort(asked)["p50_ms"], "ms of a query (p50)")
    _over_size(panels[1], entries, lambda asked: asked["first_s"], "s until a new process has answered")
    _over_size(panels[2], entries, lambda asked: asked["peak_mib"], "MiB that answering holds at most")
    _recall(panels[3], compared(report), _looks(entries))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=-(-len(labels) // 2), frameon=False)
    settings = report["settings"]
    what = f"{entries[0]['width']} wide, {settings['threads']} threads, hollow: recall@10 below {ENOUGH_RECALL:.0%}"
    title(figure, f"Finding the ten best videos: {what}", report)
    return figure


def _over_size(axes: Axes, entries: Sequence[Mapping[str, Any]], value: Value, quantity: str) -> None:
    for name, look in _looks(entries).items():
        found = [(entry["super_images"], ways(entry)[name]) for entry in entries if name in ways(entry)]
        label = name.removesuffix(f", {BEST_SUPER_IMAGE}") if "gridclip" not in name else name
        axes.plot([size for size, _ in found], [value(asked) for _, asked in found], label=label, **look)
        for size, asked in found:
            if chosen_effort(asked)["recall_videos"] < ENOUGH_RECALL:
                axes.plot(size, value(asked), look["marker"], color=look["color"], markerfacecolor="white", zorder=3)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes := [entry["super_images"] for entry in entries], [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    lowest, highest = axes.get_ylim()
    ticks = [tick for tick in TICKS if lowest <= tick <= highest]
    axes.set_yticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.set_xlabel("super images")
    axes.set_ylabel(quantity)
    axes.grid(color="#DDDDDD", linewidth=0.6)


def _recall(axes: Axes, entry: Mapping[str, Any], looks: Mapping[str, Mapping[str, Any]]) -> None:
    """Every effort of every way on one corpus, drawn as in the other panels."""
    for name, asked in ways(entry).items():
        if name not in looks:
            continue
        efforts, look = asked["efforts"], looks[name]
        points = [(effort["p50_ms"], 100 * effort["recall_videos"]) for effort in efforts]
        axes.plot(*zip(*points, strict=True), **look)
    axes.axhline(100 * ENOUGH_RECALL, color=GREY, linewidth=0.6)
    axes.set_xscale("log")
    axes.minorticks_off()
    fastest, slowest = axes.get_xlim()
    ticks = [tick for tick in TICKS if fastest <= tick <= slowest]
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.set_xlabel(f"ms of a query (p50), {entry['super_images']:,} super images")
    axes.set_ylabel("recall@10 of videos, percent")
    axes.grid(color="#DDDDDD", linewidth=0.6)


def _looks(entries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """How each line is drawn: GridCLIP's in its colour, dashed where the index is asked.

    Of GridCLIP's ways to score the one that it is compared with peers by, and its default.
    """
    names = dict.fromkeys(name for entry in entries for name in ways(entry) if "temperature" not in name)
    peers = [name for name in names if not name.startswith("gridclip")]
    found = {}
    for number, name in enumerate(names):
        look = {"color": colour(peers.index(name)), "linestyle": "-"} if name in peers else {"color": GRIDCLIP}
        dashes = next((dashes for part, dashes in DASHES.items() if name.startswith(f"gridclip {part}")), "-")
        found[name] = {"linestyle": dashes, "marker": MARKERS[number % len(MARKERS)], "markersize": 5, **look}
    return found
