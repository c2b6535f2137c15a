"""A report of `search` in, what the READMEs say of it out: no figure there is typed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

BEGIN, END = "<!-- search: written by benchmarks/readme_table.py -->", "<!-- end of search -->"
COLUMNS = (
    "way to search",
    "recall@10 (predicted)",
    "p50, p95 ms (predicted)",
    "cpu ms",
    "MiB",
    "first answer",
    "built",
    "MiB on disk",
)


def ways(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What each way to search measured on one corpus, by its system and its way to score."""
    return {
        f"{name}, {scoring}": asked
        for name, system in entry["systems"].items()
        for scoring, asked in system["asked"].items()
    }


def chosen_effort(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """The effort that stands for a way to search."""
    effort: Mapping[str, Any] = asked["efforts"][asked["chosen"]]
    return effort


def rewritten(readme: str, report: Mapping[str, Any]) -> str:
    """The text of benchmarks/README.md with this table made anew."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: "\n".join([BEGIN, *table(report), END]), readme, flags=re.DOTALL)


def table(report: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown: every way to search, on the corpus that `compared` chooses."""
    entry = compared(report)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for name, system in entry["systems"].items():
        for scoring, asked in system["asked"].items():
            predicted = _predicted(report, entry, f"{name}, {scoring}")
            cells = _cells(f"{name}, {scoring}", system, asked, predicted)
            lines.append("| " + " | ".join(cells) + " |")
    lines += [
        f"| {name} | left out: {reason} |" + " |" * (len(COLUMNS) - 2) for name, reason in entry["left_out"].items()
    ]
    return lines


def rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What was measured on each corpus, beside what, the outcome, and whether it is a headline, as `compared` is."""
    found = []
    for entry in report["results"]:
        searched = f"{entry['videos']:,} videos, {entry['super_images']:,} super images ({entry['corpus']})"
        headline = entry is compared(report)
        found.append((f"find the 10 best of {searched}", "faiss, a matrix product", outcome(entry), headline))
    return found


def outcome(entry: Mapping[str, Any]) -> str:
    """The row of one corpus: recall, milliseconds and MiB of the peers, and of GridCLIP as they are and by default."""
    parts = []
    for name, asked in ways(entry).items():
        if "temperature" not in name:
            best = chosen_effort(asked)
            system, _, scoring = name.partition(", ")
            shown = f"{system} ({scoring})" if system.startswith("gridclip") else system
            parts.append(f"{shown} {best['recall_videos']:.3f}, {short(best['p50_ms'])} ms, {asked['peak_mib']:,} MiB")
    return "recall@10, p50, memory: " + "; ".join(parts)


def compared(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The largest corpus of generated vectors on which nothing was left out; where there is none, the largest."""
    entries: Sequence[Mapping[str, Any]] = [each for each in report["results"] if each["corpus"] == "generated"]
    return max(entries, key=lambda entry: (not entry["left_out"], entry["super_images"]))


def short(value: float) -> str:
    """Three digits that count: "1,070", "31.4", "0.25"; less than a hundredth is nothing."""
    return f"{float(f'{value:.3g}'):,.12g}" if value >= 0.01 else "0"


def _predicted(report: Mapping[str, Any], entry: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """Recall and milliseconds; None where nothing was predicted for this size and width."""
    predicted = report["settings"]["predicted"].get(name)
    size = f"{entry['super_images']:.0e}".replace("e+0", "e")
    if predicted is None or float(size) != entry["super_images"] or size not in predicted["p50_ms"]:
        return None
    return predicted["recall_videos"], predicted["p50_ms"][size]


def _cells(
    name: str, system: Mapping[str, Any], asked: Mapping[str, Any], predicted: tuple[float, float] | None
) -> list[str]:
    best = chosen_effort(asked)
    setting = "".join(f", {key} {value}" for key, value in best["effort"].items())
    recall, speed = f"{best['recall_videos']:.3f}", f"{short(best['p50_ms'])}, {short(best['p95_ms'])}"
    if predicted is not None:
        recall += f" ({predicted[0]:g})"
        speed += f" ({predicted[1]:g})"
    return [
        name + setting,
        recall,
        speed,
        short(best["cpu_ms"]),
        f"{asked['peak_mib']:,}",
        f"{asked['first_s']:.2f} s, {asked['first_peak_mib']:,} MiB",
        f"{short(system['build_s'])} s, {system['build_peak_mib']:,} MiB",
        f"{system['disk_mib']:,.0f}",
    ]
