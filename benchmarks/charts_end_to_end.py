"""Results of end_to_end and scaling in, their charts out; see charts.py, which writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .chart_parts import GREY, GRIDCLIP, PEER_COLOURS, SLOWER, legend, new_figure, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STAGE_COLOURS = {"superimages": PEER_COLOURS[0], "embed-images": PEER_COLOURS[3], "embed-videos": GRIDCLIP}


def end_to_end_chart(report: Mapping[str, Any]) -> Figure:
    """Per model: what each stage takes, and processor and memory over time of both ways."""
    results = report["results"]
    figure, panels = new_figure(3 * len(results), rows_per_panel=9, columns=3)
    for row, (model, entry) in enumerate(results.items()):
        stages, cores, memory = panels[3 * row : 3 * row + 3]
        _stages(stages, entry)
        stages.set_title(f"{model}\n{entry['videos']} videos, {entry['super_images']} super images", loc="left")
        for way, samples in entry["over_time"].items():
            colour = GRIDCLIP if way == "fused" else SLOWER
            at_s = [sample["at_s"] for sample in samples]
            cores.plot(at_s, [sample["cores"] for sample in samples], color=colour, linewidth=1, label=way)
            memory.plot(at_s, [sample["memory_mib"] for sample in samples], color=colour, label=f"{way}, all processes")
            memory.plot(
                at_s, [sample["parent_mib"] for sample in samples], ":", color=colour, label=f"{way}, the job's process"
            )
        cores.axhline(report["machine"]["cores"], color=GREY, linewidth=0.8)
        busy = ", ".join(f"{way} {share:.0%}" for way, share in entry["encoder_busy"].items())
        cores.set_title(f"encoder busy: {busy}", loc="left")
        _axes(cores, "seconds", "processor cores in use")
        _axes(memory, "seconds", "memory, MiB")
    legend(figure, panels[2])
    title(figure, "From videos to stored embeddings: two stages with JPEG files between, and fused", report)
    return figure


def _stages(axes: Axes, entry: Mapping[str, Any]) -> None:
    for row, (way, rounds) in enumerate(entry["stages_s"].items()):
        left = 0.0
        for stage in rounds[0]:
            ordered = sorted(found[stage] for found in rounds)
            middle = ordered[len(ordered) // 2]
            axes.barh(row, middle, 0.5, left=left, color=STAGE_COLOURS[stage])
            axes.text(left + middle / 2, row, f"{stage}\n{middle:.1f} s", ha="center", va="center", fontsize=7)
            left += middle
        axes.text(left, row, f" {entry['videos_per_s'][way]:.2f} videos/s", va="center", fontsize=7)
        axes.set_xlim(0, max(axes.get_xlim()[1], 1.35 * left))
    axes.set_yticks(range(len(entry["stages_s"])), list(entry["stages_s"]))
    axes.set_xlabel("seconds (median of each stage)")


def scaling_chart(report: Mapping[str, Any]) -> Figure:
    """Seconds and memory over the number of videos, and videos per second over workers."""
    results = report["results"]
    figure, (seconds, memory, workers) = new_figure(3, rows_per_panel=12, columns=3)
    counts = [entry["videos"] for entry in results["by_videos"]]
    seconds.loglog(counts, [entry["seconds"] for entry in results["by_videos"]], "o", color=GRIDCLIP, label="measured")
    fit = results["line"]
    fitted = [fit["start_s"] + fit["seconds_per_video"] * count for count in counts]
    label = f"{fit['start_s']:.2f} s + {1000 * fit['seconds_per_video']:.1f} ms per video"
    seconds.loglog(counts, fitted, color=GREY, label=label)
    seconds.legend(frameon=False)
    _axes(seconds, "videos", "seconds")
    for name, key, style in (("the job's process", "parent_peak_mib", "o-"), ("all processes", "peak_mib", "s--")):
        memory.semilogx(counts, [entry[key] for entry in results["by_videos"]], style, color=GRIDCLIP, label=name)
    memory.set_ylim(bottom=0)
    memory.legend(frameon=False)
    _axes(memory, "videos", "peak memory, MiB")
    names = [entry["workers"] for entry in results["by_workers"]]
    rates = [entry["videos"] / entry["seconds"] for entry in results["by_workers"]]
    workers.plot(names, rates, "o-", color=GRIDCLIP, label="measured")
    workers.plot(names, [rates[0] * name / names[0] for name in names], color=GREY, label="as many times the first")
    workers.set_xticks(names)
    workers.set_ylim(bottom=0)
    workers.legend(frameon=False)
    _axes(workers, "worker processes", f"videos/s ({results['by_workers'][0]['videos']} videos)")
    title(figure, f"embed-videos of short videos ({report['settings']['video']})", report)
    return figure


def _axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#DDDDDD", linewidth=0.6)
