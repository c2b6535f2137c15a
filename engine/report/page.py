"""An evaluation, what others have published and pictures in, one self-contained HTML page out."""

from __future__ import annotations

import collections.abc
import html
import os
import pathlib
from typing import Any

from ... import GridClipError
from ..evaluation import published
from ..evaluation.evaluation import TIE_RULE, Evaluation, Example, Spot
from ..moments.intervals import Interval
from . import breakdown
from .pictures import Pictures, no_pictures

BAR = " with its interval"  # ends the name of a column of bars
WORDS = ("source",)  # columns of words
STYLE = """
:root { color-scheme: light dark; --ink: #1d2433; --soft: #5b6475; --line: #dde2ea; --back: #fff; --panel: #f5f7fa;
  --bar: #3b76c4; --track: #e7ecf3; --own: #1f7a46; --mark: #b4520b }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #a0a9b8; --line: #2f3744; --back: #14181f;
  --panel: #1c222c; --bar: #6ea3ea; --track: #29313d; --own: #63c98d; --mark: #f0a35c } }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 4rem;
  color: var(--ink); background: var(--back) }
h1 { font-size: 1.7rem; margin: .2rem 0 } h2 { font-size: 1.2rem; margin: 2.4rem 0 .4rem }
p.note, small, .soft { color: var(--soft) } p.note { margin: 0 0 .6rem; max-width: 46rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; margin: .4rem 0; min-width: 24rem }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
thead th { color: var(--soft); font-weight: 500; white-space: nowrap }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.chart { width: 14rem; min-width: 8rem; padding-top: .55rem } thead th.l { text-align: left }
tbody th { font-weight: 600; white-space: nowrap }
.pair { display: flex; flex-wrap: wrap; gap: 0 2rem } .pair section { flex: 1 1 30rem; min-width: 0; max-width: 100% }
td.source { color: var(--soft); min-width: 14rem } td.word { white-space: nowrap }
.bar { position: relative; height: 1.05rem; background: var(--track); border-radius: 2px }
.bar b { position: absolute; inset: 0 auto 0 0; background: var(--bar); border-radius: 2px }
.bar i { position: absolute; top: 50%; height: 2px; background: var(--ink); border-inline: 1px solid var(--ink) }
.bar u { position: absolute; top: -2px; bottom: -2px; width: 2px; background: var(--mark) }
.query { border: 1px solid var(--line); border-radius: 6px; background: var(--panel); padding: .8rem 1rem;
  margin: .8rem 0 }
.query p { margin: 0 0 .5rem; font-weight: 600; overflow-wrap: anywhere }
.answers { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: .6rem } figure { margin: 0; width: 10.5rem }
figure img, .none { width: 100%; aspect-ratio: 1; border-radius: 4px; display: block; background: var(--track) }
.none { display: grid; place-items: center; color: var(--soft); font-size: .85rem }
figcaption { font-size: .85rem; line-height: 1.35; margin-top: .3rem; overflow-wrap: anywhere }
.own figcaption strong, tr.this th { color: var(--own) } .own img, .own .none { outline: 3px solid var(--own) }
"""


def write_report(
    evaluation: Evaluation,
    path: str | os.PathLike[str],
    *,
    beside: str | None = None,
    pictures: Pictures = no_pictures,
) -> None:
    """Writes the page; `evaluation.examples` are its hardest queries.

    Args:
        evaluation: with outcomes.
        path: the file.
        beside: a benchmark of published.PUBLISHED, to be shown beside.
        pictures: of super images, see report/pictures.py.

    Raises:
        GridClipError: the file cannot be written.
    """
    try:
        pathlib.Path(path).write_text(as_html(evaluation, beside=beside, pictures=pictures), encoding="utf-8")
    except OSError as error:
        raise GridClipError(f"cannot write the report {path}: {error.strerror}") from error


def as_html(evaluation: Evaluation, *, beside: str | None = None, pictures: Pictures = no_pictures) -> str:
    """The page as text; arguments as in `write_report`."""
    sections = [
        f"<div class=pair>{_recall(evaluation)}{_ranks(evaluation)}</div>",
        _moments(evaluation),
        _groups("By the length of the video", "length", breakdown.by_video_length(evaluation), ""),
        _groups(
            "By the place of the moment in its video",
            "middle of the moment",
            breakdown.by_position(evaluation),
            "A method that only finds what a video opens with shows it here.",
        ),
        _groups(
            "By how much of the video the moment is",
            "share of the video",
            breakdown.by_share(evaluation),
            "The less of its video a query describes, the more partial is its relevance.",
        ),
        "" if beside is None else _beside(evaluation, beside),
        _hardest(evaluation, pictures),
        _facts(evaluation),
    ]
    name = html.escape(str((evaluation.model or {}).get("name", "unknown model")))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>GridCLIP: recall of {name}</title><style>{STYLE}</style></head><body>
<header><h1>SumR {evaluation.sum_recall:.1f}</h1>
<div class=soft>{name}, {html.escape(str(evaluation.scoring))}; {evaluation.queries:,} queries,
{evaluation.candidates:,} videos, {evaluation.super_images:,} super images</div></header>
{"".join(sections)}</body></html>
"""


def _recall(evaluation: Evaluation) -> str:
    rows = []
    for k, value in evaluation.recall.items():
        chance = evaluation.chance[k]
        rows.append(
            f"<tr><th>R@{k}</th><td class=n>{value:.2f}</td><td class=n>{_range(evaluation.intervals.get(k))}</td>"
            f"<td class=n>{chance:.2f}</td>"
            f"<td class=chart>{_bar(value, evaluation.intervals.get(k), chance)}</td></tr>"
        )
    rows.append(
        f"<tr><th>SumR</th><td class=n>{evaluation.sum_recall:.2f}</td>"
        f"<td class=n>{_range(evaluation.sum_interval)}</td>"
        f"<td class=n>{sum(evaluation.chance.values()):.2f}</td><td></td></tr>"
    )
    head = _head("", "%", "95% interval", "chance", "")
    note = "The thin line in a bar is the 95% interval over queries, the upright mark what a random order would reach."
    return _section("Recall", note, f"<table>{head}{''.join(rows)}</table>")


def _ranks(evaluation: Evaluation) -> str:
    if evaluation.outcomes is None:
        return ""
    bins = breakdown.ranks_in_bins(evaluation.outcomes.ranks, evaluation.candidates)
    most = max(1, *(each.queries for each in bins))
    rows = "".join(
        f"<tr><th>{each}</th><td class=n>{each.queries:,}</td>"
        f"<td class=n>{100 * each.queries / max(evaluation.queries, 1):.1f}%</td>"
        f"<td class=chart>{_bar(100 * each.queries / most)}</td></tr>"
        for each in bins
    )
    note = f"Median {evaluation.median_rank:g}, mean {evaluation.mean_rank:.1f} of {evaluation.candidates:,}."
    table = f"<table>{_head('rank', 'queries', 'share', '')}<tbody>{rows}</tbody></table>"
    return _section("Rank of the right video", note, table)


def _moments(evaluation: Evaluation) -> str:
    found = evaluation.moments
    if found is None:
        return ""
    cutoffs = list(evaluation.recall)
    rows = "".join(
        f"<tr><th>{title}, IoU {threshold:g}</th>{''.join(f'<td class=n>{row[k]:.2f}</td>' for k in cutoffs)}</tr>"
        for title, table in (("own video", found.svmr), ("all videos", found.vcmr))
        for threshold, row in table.items()
    )
    low, high = found.miou_interval.low, found.miou_interval.high
    note = (
        f"Mean IoU of the first moment in the own video {found.miou:.2f}% (95%: {low:.2f} to {high:.2f}); "
        f"this sampling allows {found.oracle:.2f}% at most."
    )
    return _section("Moments", note, f"<table>{_head('', *(f'R@{k}' for k in cutoffs))}{rows}</table>")


def _groups(title: str, what: str, groups: collections.abc.Sequence[breakdown.Group], note: str) -> str:
    if not groups:
        return ""
    cutoffs = list(groups[0].recall)
    with_moments = any(group.miou is not None for group in groups)
    rows = []
    for group in groups:
        first = group.recall[cutoffs[0]]
        cells = "".join(f"<td class=n>{group.recall[k].mean:.1f}</td>" for k in cutoffs)
        sum_recall = sum(each.mean for each in group.recall.values())
        iou = f"<td class=n>{'' if group.miou is None else f'{group.miou:.1f}'}</td>" if with_moments else ""
        rows.append(
            f"<tr><th>{html.escape(group.title)}</th><td class=n>{group.queries:,}</td>{cells}"
            f"<td class=n>{sum_recall:.1f}</td>{iou}<td class=chart>{_bar(first.mean, first)}</td></tr>"
        )
    names = [f"R@{k}" for k in cutoffs]
    head = _head(what, "queries", *names, "SumR", *(["mIoU"] if with_moments else []), f"R@{cutoffs[0]}{BAR}")
    return _section(title, note, f"<table>{head}{''.join(rows)}</table>")


def _beside(evaluation: Evaluation, benchmark: str) -> str:
    own = ("this store", "", evaluation.sum_over(published.SUM_CUTOFFS), "", " class=this")
    rows = [own] + [
        (each.method, "trained" if each.trained else "not trained", each.sum_recall, each.source, "")
        for each in published.PUBLISHED[benchmark]
    ]
    rows.sort(key=lambda row: -row[2])
    most = max(row[2] for row in rows)
    shown = "".join(
        f"<tr{mark}><th>{html.escape(name)}</th><td class=n>{value:.1f}</td>"
        f"<td class=chart>{_bar(100 * value / most)}</td><td class=word>{how}</td>"
        f"<td class=source>{html.escape(source)}</td></tr>"
        for name, how, value, source, mark in rows
    )
    note = "As their authors give it; only the same videos and queries compare."
    title = f"Published on {published.TITLES[benchmark]}"
    return _section(title, note, f"<table>{_head('', 'SumR', '', '', 'source')}{shown}</table>")


def _hardest(evaluation: Evaluation, pictures: Pictures) -> str:
    if not evaluation.examples:
        return ""
    note = "The right video first, then the best answers, each with its super image nearest to the query."
    return _section("The hardest queries", note, "".join(_example(each, pictures) for each in evaluation.examples))


def _example(example: Example, pictures: Pictures) -> str:
    right = f"rank {example.rank:,}"
    figures = [] if example.own is None else [_figure(example.own, right, pictures, own=True)]
    figures += [
        _figure(spot, f"{place}.", pictures, own=False)
        for place, spot in enumerate(example.spots, start=1)
        if spot.video_id != example.query.video_id
    ]
    times = " ".join(f"{start:.1f} to {end:.1f} s" for start, end in example.query.moments)
    text = html.escape(example.query.text) or "<i>no text</i>"
    about = f"<small>{html.escape(example.query.video_id)}, {right}{f', true moment {times}' if times else ''}</small>"
    return f"<div class=query><p>{text}</p>{about}<div class=answers>{''.join(figures)}</div></div>\n"


def _figure(spot: Spot, label: str, pictures: Pictures, *, own: bool) -> str:
    found = pictures(spot.video_id, spot.number)
    name = html.escape(spot.video_id)
    picture = "<div class=none>no picture</div>" if found is None else f'<img alt="{name}" src="{found}">'
    times = "" if spot.start_s is None else f"<br>{spot.start_s:.1f} to {spot.end_s:.1f} s"
    kind = " class=own" if own else ""
    caption = f"<strong>{label}</strong> {name}{times} <small>{spot.score:.3f}</small>"
    return f"<figure{kind}>{picture}<figcaption>{caption}</figcaption></figure>"


def _facts(evaluation: Evaluation) -> str:
    facts = {
        "Queries without a video": f"{evaluation.missing_queries:,} ({evaluation.missing}), of "
        f"{len(evaluation.missing_videos):,} videos",
        "Aggregate": str(evaluation.scoring),
        "Normalisation": str(evaluation.normalisation),
        "Ties": TIE_RULE,
        "Intervals": "95%, bootstrap over queries",
        "Model": str((evaluation.model or {}).get("name", "unknown")),
        "Sampling": _sampling(evaluation.sampling or {}),
    }
    rows = "".join(f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in facts.items())
    return _section("How it was measured", "", f"<table>{rows}</table>")


def _section(title: str, note: str, content: str) -> str:
    shown = f"<p class=note>{note}</p>" if note else ""
    return f"<section><h2>{title}</h2>{shown}<div class=wide>{content}</div></section>\n"


def _head(*names: str) -> str:
    """The head of a table: names of numbers stand to the right, as these do; those of bars and words to the left."""
    first, *others = names
    cells = "".join(f"<th class={'l' if name in WORDS or name.endswith(BAR) else 'n'}>{name}</th>" for name in others)
    return f"<thead><tr><th>{first}</th>{cells}</tr></thead>"


def _bar(percent: float, interval: Interval | None = None, mark: float | None = None) -> str:
    """A bar of 0 to 100, with the interval as a line and a mark."""
    whisker = ""
    if interval is not None and interval.high > interval.low:
        whisker = f"<i style='left:{interval.low:.1f}%;width:{interval.high - interval.low:.1f}%'></i>"
    shown = "" if mark is None else f"<u style='left:{min(mark, 99.5):.1f}%'></u>"
    return f"<div class=bar><b style='width:{percent:.1f}%'></b>{whisker}{shown}</div>"


def _range(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.2f} to {interval.high:.2f}"


def _sampling(settings: dict[str, Any]) -> str:
    """The settings that are known and in use."""
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None) or "unknown"
