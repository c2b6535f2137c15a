"""An evaluation in, one self-contained HTML page out: recall beside chance, and queries with their best videos."""

from __future__ import annotations

import html
import os
import pathlib
from typing import Any

from .. import GridClipError
from .evaluation import TIE_RULE, Evaluation, Example

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd }
th { text-align: left } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.bar { background: #e6eef8; width: 14rem } .bar div { background: #2b6cb0; height: 1rem }
.own { font-weight: bold; color: #22693b } small { color: #666 } ol { margin: .3rem 0 1.2rem }
"""


def write_report(evaluation: Evaluation, path: str | os.PathLike[str], *, beside: str | None = None) -> None:
    """Writes the page; `evaluation.examples` become its second half.

    Raises:
        GridClipError: the file cannot be written.
    """
    try:
        pathlib.Path(path).write_text(_page(evaluation), encoding="utf-8")
    except OSError as error:
        raise GridClipError(f"cannot write the report {path}: {error.strerror}") from error


def _page(evaluation: Evaluation) -> str:
    rows = "".join(
        f"<tr><th>R@{k}</th><td class=number>{value:.2f}</td><td class=number>{evaluation.chance[k]:.2f}</td>"
        f"<td class=bar><div style='width:{value:.1f}%'></div></td></tr>\n"
        for k, value in evaluation.recall.items()
    )
    rows += (
        f"<tr><th>SumR</th><td class=number>{evaluation.sum_recall:.2f}</td>"
        f"<td class=number>{sum(evaluation.chance.values()):.2f}</td><td></td></tr>\n"
    )
    facts = {
        "Queries": f"{evaluation.queries:,}",
        "Videos": f"{evaluation.candidates:,} ({evaluation.super_images:,} super images)",
        "Median rank": f"{evaluation.median_rank:g}",
        "Mean rank": f"{evaluation.mean_rank:.1f}",
        "Queries without a video": f"{evaluation.missing_queries:,} ({evaluation.missing}), of "
        f"{len(evaluation.missing_videos):,} videos",
        "Aggregate": str(evaluation.scoring),
        "Normalisation": str(evaluation.normalisation),
        "Ties": TIE_RULE,
        "Model": str((evaluation.model or {}).get("name", "unknown")),
        "Sampling": _sampling(evaluation.sampling or {}),
    }
    listed = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>\n" for name, value in facts.items())
    examples = "".join(map(_example, evaluation.examples))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>GridCLIP: recall</title><style>{STYLE}</style></head><body>
<h1>Recall</h1>
<table><tr><th></th><th class=number>%</th><th class=number>chance</th><th></th></tr>
{rows}</table>
<table>{listed}</table>
{f"<h2>Some queries</h2>{examples}" if examples else ""}
</body></html>
"""


def _sampling(settings: dict[str, Any]) -> str:
    """The settings that are known and in use."""
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None) or "unknown"


def _example(example: Example) -> str:
    own = example.query.video_id
    items = "".join(
        f"<li{' class=own' if video_id == own else ''}>{html.escape(video_id)} <small>{score:.3f}</small></li>"
        for video_id, score in example.best
    )
    text = html.escape(example.query.text) or "<i>no text</i>"
    return f"<div>{text} <small>own video {html.escape(own)}, rank {example.rank:,}</small><ol>{items}</ol></div>\n"
