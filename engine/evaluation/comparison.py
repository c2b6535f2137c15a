"""The JSON of two evaluations of the same queries in, what differs between them beyond chance out."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np

from ... import GridClipError
from .. import choices
from ..annotations.text_file import TextFile
from ..moments.intervals import LEVEL, Comparison, compare
from .outcomes import TASKS, Outcomes, hits, read_outcomes, sum_of_hits

TITLES = {"svmr": "own video", "vcmr": "all videos"}


@dataclasses.dataclass(frozen=True)
class EvaluationComparison:
    """Two evaluations, metric by metric; all in percent.

    Attributes:
        metrics: by name ("R@1", "SumR", "mIoU", "own video, IoU 0.5, R@1"), in the order of a table.
        queries: that both have, on which all of it is computed.
        only_first, only_second: queries that one of them has alone, which are left out.
        candidates: videos that each ranks; None where its file does not say.
    """

    metrics: dict[str, Comparison]
    queries: int
    only_first: int
    only_second: int
    candidates: tuple[int | None, int | None]

    def to_json(self) -> dict[str, Any]:
        """Ready for json.dump."""
        return {
            "metrics": {
                name: {
                    "first": each.first,
                    "second": each.second,
                    "difference": each.difference.mean,
                    "interval": [each.difference.low, each.difference.high],
                    "beyond_chance": each.decided,
                }
                for name, each in self.metrics.items()
            },
            "queries": self.queries,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "candidates": list(self.candidates),
        }

    def __str__(self) -> str:
        """A table in plain text."""
        rows = [("", "A", "B", "B - A", f"{LEVEL:g}% interval", "")]
        for name, each in self.metrics.items():
            low, high = each.difference.low, each.difference.high
            interval, step = f"{low:+.2f} to {high:+.2f}", f"{each.difference.mean:+.2f}"
            rows.append((name, f"{each.first:.2f}", f"{each.second:.2f}", step, interval, verdict(each)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for name, *numbers, word in rows:
            cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:5], strict=True)]
            lines.append("  ".join([name.ljust(widths[0]), *cells, word]).rstrip())
        lines.append(
            f"{self.queries:,} queries, drawn again in pairs; of metrics without a difference about one in twenty "
            "looks decided by chance"
        )
        if self.only_first or self.only_second:
            lines.append(f"left out: {self.only_first:,} queries that only A has, {self.only_second:,} that only B has")
        first, second = self.candidates
        if first != second:
            lines.append(f"A ranks {_counted(first)} videos, B {_counted(second)}: fewer videos are easier to rank")
        return "\n".join(lines)


def verdict(comparison: Comparison) -> str:
    """Whether the two differ, in words."""
    if not comparison.decided:
        interval = comparison.difference
        return "the same" if interval.low == interval.mean == interval.high == 0 else "may be chance"
    return "B is better" if comparison.difference.mean > 0 else "A is better"


def read_evaluation(path: str | os.PathLike[str]) -> Any:
    """What `gridclip evaluate` has written as JSON; raises GridClipError where it cannot be read."""
    return TextFile.read(pathlib.Path(path)).json


def compare_evaluations(
    first: Any,
    second: Any,
    *,
    sources: tuple[str, str] = ("the first evaluation", "the second evaluation"),
    other_queries: choices.OtherQueries = choices.OTHER_QUERIES,
) -> EvaluationComparison:
    """Paired bootstrap: the same queries, drawn again with replacement, for both.

    Compared are R@K at every K that both have, their sum, and what both have of moments.

    Args:
        first, second: what `Evaluation.to_json` returns.
        sources: their names, for messages.
        other_queries: what becomes of queries that only one of them has: "refuse", or "leave-out" and count them.

    Raises:
        GridClipError: one is no evaluation with outcomes of its queries, their queries differ and `other_queries` is
            "refuse", or they share none, or no K.
    """
    if other_queries not in choices.OTHER_QUERY_RULES:
        raise ValueError(f"other_queries ({other_queries!r}) must be one of {', '.join(choices.OTHER_QUERY_RULES)}")
    outcomes = [read_outcomes(content, source) for content, source in zip((first, second), sources, strict=True)]
    pair, only_first, only_second = _shared(*outcomes)
    if not len(pair[0].ranks):
        raise GridClipError(f"{sources[0]} and {sources[1]} have no query in common: only the same queries compare")
    if (only_first or only_second) and other_queries == "refuse":
        raise GridClipError(
            f"{only_first:,} queries are only in {sources[0]}, {only_second:,} only in {sources[1]}: evaluate both "
            "with the same `anno_file`, or compare the shared ones with `other_queries='leave-out'`"
        )
    cutoffs = _shared_cutoffs(first, second, sources)
    metrics: dict[str, Comparison] = {}
    if all(each.ranked for each in pair):
        metrics = {f"R@{k}": compare(*(hits(each.ranks, k) for each in pair)) for k in cutoffs}
        metrics["SumR"] = compare(*(sum_of_hits(each.ranks, cutoffs) for each in pair))
    metrics |= dict(_moment_metrics(*pair, cutoffs))
    return EvaluationComparison(
        metrics,
        len(pair[0].ranks),
        only_first,
        only_second,
        (_candidates(first), _candidates(second)),
    )


def _shared(first: Outcomes, second: Outcomes) -> tuple[tuple[Outcomes, Outcomes], int, int]:
    """(both, of the shared queries in the order of the first; queries of the first alone; of the second alone)."""
    places = {identity: row for row, identity in enumerate(second.identities)}
    found = [(row, places[identity]) for row, identity in enumerate(first.identities) if identity in places]
    rows = np.array(found, np.int64).reshape(-1, 2)
    both = first.take(rows[:, 0]), second.take(rows[:, 1])
    return both, len(first.ranks) - len(rows), len(second.ranks) - len(rows)


def _shared_cutoffs(first: Any, second: Any, sources: tuple[str, str]) -> list[int]:
    """The K that both were evaluated at, ascending: of videos, or, where these were not ranked, of moments."""
    found = []
    for content, source in zip((first, second), sources, strict=True):
        try:
            if "recall" in content:
                table = content["recall"]
            else:
                table = next(iter(next(content[task] for task in TASKS if task in content).values()))
            found.append({int(k) for k in table})
        except (TypeError, ValueError, AttributeError, StopIteration) as error:
            raise GridClipError(f"{source} has no recall as {{K: percent}}: {type(error).__name__} {error}") from error
    shared = sorted(found[0] & found[1])
    if not shared:
        raise GridClipError(
            f"{sources[0]} has R@K at K = {sorted(found[0])}, {sources[1]} at {sorted(found[1])}: evaluate both at the "
            "same K, see `topk`"
        )
    return shared


def _moment_metrics(
    first: Outcomes, second: Outcomes, cutoffs: collections.abc.Sequence[int]
) -> collections.abc.Iterator[tuple[str, Comparison]]:
    """(name, comparison) of what was measured of moments for the same queries in both."""
    timed = ~np.isnan(first.own_iou) & ~np.isnan(second.own_iou)
    if timed.any():
        yield "mIoU", compare(*(100 * each.take(timed).own_iou for each in (first, second)))
    for task in TASKS:
        tables = first.places.get(task, {}), second.places.get(task, {})
        for threshold in sorted(tables[0].keys() & tables[1].keys()):
            columns = [table[threshold] for table in tables]
            measured = (columns[0] >= 0) & (columns[1] >= 0)
            for k in cutoffs if measured.any() else ():
                pair = (hits(column[measured], k) for column in columns)
                yield f"{TITLES[task]}, IoU {threshold:g}, R@{k}", compare(*pair)


def _candidates(content: Any) -> int | None:
    found = content.get("candidates")
    return found if isinstance(found, int) else None


def _counted(number: int | None) -> str:
    return "an unknown number of" if number is None else f"{number:,}"
