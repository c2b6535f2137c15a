"""An evaluation in, its queries by rank, by the length of their video and by the place of their moment out."""

from __future__ import annotations

import collections.abc
import dataclasses
import itertools

import numpy as np

from ..evaluation.evaluation import Evaluation
from ..evaluation.outcomes import hits
from ..moments.intervals import Interval, bootstrap

LENGTH_GROUPS = 4  # of as many queries each
POSITIONS = ("first fifth", "second fifth", "third fifth", "fourth fifth", "last fifth")
SHARES = ((0.1, "under 10%"), (0.25, "10 to 25%"), (0.5, "25 to 50%"), (np.inf, "over 50%"))  # of the video
_RANK_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


@dataclasses.dataclass(frozen=True)
class Bin:
    """Ranks from `first` to `last`, and how many queries have them."""

    first: int
    last: int
    queries: int

    def __str__(self) -> str:
        return f"{self.first:,}" if self.first == self.last else f"{self.first:,} to {self.last:,}"


@dataclasses.dataclass(frozen=True)
class Group:
    """Some queries.

    Attributes:
        title: what they have in common.
        queries: how many.
        recall: R@K in percent with its 95% interval, by K.
        miou: percent, of those of which moments were measured, None where there are none.
    """

    title: str
    queries: int
    recall: dict[int, Interval]
    miou: float | None


def ranks_in_bins(ranks: np.ndarray, candidates: int) -> list[Bin]:
    """How the ranks are spread over bins that grow with the rank, up to the number of candidates.

    Args:
        ranks: int64 [Q], from 1; 0 (no embeddings) lies in no bin.
        candidates: videos that are ranked.
    """
    lasts = [bound for bound in _RANK_BOUNDS if bound < candidates] + [candidates]
    firsts = [1, *(last + 1 for last in lasts[:-1])]
    return [
        Bin(first, last, int(((ranks >= first) & (ranks <= last)).sum()))
        for first, last in zip(firsts, lasts, strict=True)
    ]


def by_video_length(evaluation: Evaluation) -> list[Group]:
    """Groups of about as many queries each, by the length of their own video; none where no length is known."""
    known = np.flatnonzero(np.isfinite(evaluation.durations_s))
    if not len(known):
        return []
    lengths = evaluation.durations_s[known]
    bounds = np.unique(np.quantile(lengths, np.linspace(0, 1, LENGTH_GROUPS + 1)))
    if len(bounds) == 1:
        return [_group(evaluation, f"{bounds[0]:.0f} s", known)]
    numbers = np.searchsorted(bounds[1:-1], lengths, side="left")
    titles = [f"{low:.0f} to {high:.0f} s" for low, high in itertools.pairwise(bounds)]
    return _groups(evaluation, known, numbers, titles)


def by_position(evaluation: Evaluation) -> list[Group]:
    """By where in its video the middle of the query's moment lies; none where times are unknown."""
    rows, spans = _timed(evaluation)
    if not len(rows):
        return []
    middles = spans.mean(axis=1) / evaluation.durations_s[rows]
    numbers = (middles * len(POSITIONS)).astype(int).clip(0, len(POSITIONS) - 1)
    return _groups(evaluation, rows, numbers, POSITIONS)


def by_share(evaluation: Evaluation) -> list[Group]:
    """By how much of its video the query's moment is: the less, the more partial is its relevance."""
    rows, spans = _timed(evaluation)
    shares = (spans[:, 1] - spans[:, 0]) / evaluation.durations_s[rows]
    numbers = np.searchsorted([bound for bound, _ in SHARES[:-1]], shares, side="right")
    return _groups(evaluation, rows, numbers, [title for _, title in SHARES])


def _timed(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """(queries whose moment and video have times, int64 [q]; their first moments, float64 [q, 2])."""
    found = [
        (row, query.moments[0])
        for row, query in enumerate(evaluation.evaluated)
        if query.moments and np.isfinite(evaluation.durations_s[row]) and evaluation.durations_s[row] > 0
    ]
    return np.array([row for row, _ in found], np.int64), np.array([span for _, span in found], float).reshape(-1, 2)


def _groups(
    evaluation: Evaluation, rows: np.ndarray, numbers: np.ndarray, titles: collections.abc.Sequence[str]
) -> list[Group]:
    """A group for each title that has queries; `numbers` is which one each of the rows belongs to."""
    return [
        _group(evaluation, title, rows[numbers == number])
        for number, title in enumerate(titles)
        if (numbers == number).any()
    ]


def _group(evaluation: Evaluation, title: str, rows: np.ndarray) -> Group:
    assert evaluation.outcomes is not None
    chosen = evaluation.outcomes.take(rows)
    measured = chosen.own_iou[~np.isnan(chosen.own_iou)]
    recall = {k: bootstrap(hits(chosen.ranks, k)) for k in evaluation.recall}
    return Group(title, len(rows), recall, 100 * float(measured.mean()) if len(measured) else None)
