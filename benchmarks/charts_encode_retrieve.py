"""Results of the encode and retrieve benchmarks (JSON) in, their charts as PNG and SVG out: no figure there is typed.

    python -m gridclip.benchmarks.charts_encode_retrieve    a chart of every such result in benchmarks/charts/

The same results give the same SVG, byte for byte, on the same version of matplotlib.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import GridClipError
from . import measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHARTS = pathlib.Path(__file__).parent / "charts"
GRIDCLIP, GREY = "#0072B2", "#767676"  # of Okabe and Ito's colours, as in all charts here
STYLE: dict[Any, Any] = {"svg.hashsalt": "gridclip", "font.size": 9, "axes.axisbelow": True, "axes.titlesize": 9}


def encode_chart(report: Mapping[str, Any]) -> Figure:
    """Images per second of each candidate, fastest first, with its share of the measured matrix peak."""
    from matplotlib.figure import Figure

    entries = {name: entry for name, entry in report["results"].items() if "images_per_s" in entry}
    names = sorted(entries, key=lambda name: entries[name]["images_per_s"])
    speeds = [entries[name]["images_per_s"] for name in names]
    figure = Figure(figsize=(7.5, 1 + 0.36 * len(names)), layout="constrained")
    axes = figure.subplots()
    colours = [GRIDCLIP if name.startswith("onnxruntime") else GREY for name in names]
    bars = axes.barh([name.replace("onnxruntime", "GridCLIP, ONNX Runtime") for name in names], speeds, color=colours)
    axes.bar_label(bars, [_speed(entries[name]) for name in names], padding=3)
    axes.set_xlim(0, 1.35 * max(speeds))
    axes.set_xlabel("images/s")
    axes.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    figure.suptitle(f"Encoding, {report['settings']['model']}\n{_machine(report)}", fontsize=11)
    return figure


def retrieve_chart(report: Mapping[str, Any]) -> Figure:
    """Seconds over queries x super images, log-log, above the bare matrix product; hollow where extrapolated."""
    from matplotlib.figure import Figure

    entries = sorted(report["results"]["scaling"], key=lambda entry: entry["queries"] * entry["super_images"])
    products = [entry["queries"] * entry["super_images"] for entry in entries]
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
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
    figure.suptitle(f"Ranking queries x videos\n{_machine(report)}", fontsize=11)
    return figure


def draw_all(results: pathlib.Path, out: pathlib.Path) -> list[pathlib.Path]:
    """Draws every encode and retrieve result; returns the files written."""
    try:
        import matplotlib
    except ImportError as error:
        raise GridClipError(f"charts need matplotlib ({error}): pip install gridclip[bench]") from error
    written = []
    with matplotlib.rc_context(STYLE):
        for path in sorted(results.glob("*.json")):
            report = json.loads(path.read_text("utf-8"))
            if path.stem.startswith("encode"):
                written += _save(encode_chart(report), out / path.stem)
            elif path.stem.startswith("retrieve") and report["results"].get("scaling"):
                written += _save(retrieve_chart(report), out / path.stem)
    return written


def _points(axes: Axes, entries: Sequence[Mapping[str, Any]], fill: str, label: str) -> None:
    if entries:
        places = [entry["queries"] * entry["super_images"] for entry in entries]
        heights = [entry["seconds"] for entry in entries]
        axes.plot(places, heights, "o", color=GRIDCLIP, markerfacecolor=fill, label=label)


def _speed(entry: Mapping[str, Any]) -> str:
    share = f", {entry['share_of_peak']:.0%} of peak" if "share_of_peak" in entry else ""
    return f"{entry['images_per_s']:.2f}{share}"


def _machine(report: Mapping[str, Any]) -> str:
    """What it was measured on, in one line."""
    machine, device = report["machine"], report["settings"].get("device", "cpu")
    return f"machine: {machine['processor']}, {machine['cores']} cores{'' if device == 'cpu' else f', {device}'}"


def _save(figure: Figure, stem: pathlib.Path) -> list[pathlib.Path]:
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("png", "svg")]
    figure.savefig(paths[0], dpi=150, metadata={"Software": None})
    figure.savefig(paths[1], metadata={"Date": None, "Creator": None})
    return paths


def main(argv: Sequence[str] | None = None) -> None:
    """The command: draws what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=pathlib.Path, default=measure.RESULTS, help="the folder of JSON files")
    parser.add_argument("--out", type=pathlib.Path, default=CHARTS, help="the folder of charts")
    arguments = parser.parse_args(argv)
    for path in draw_all(arguments.results, arguments.out):
        print(path)


if __name__ == "__main__":
    main()
