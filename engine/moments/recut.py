"""Moments cut anew in some videos for some queries, and ranked moments, in; ranked moments with the new cuts out."""

from __future__ import annotations

import collections.abc
import dataclasses

import numpy as np

from .best import Moment
from .metrics import RankedMoments, iou


@dataclasses.dataclass(frozen=True)
class Cut:
    """What was found in one video for one query.

    Attributes:
        moments: best first, at least one, none twice.
        looked_at_s: float64 [n, 2], the parts of the video among which they were cut, in seconds.
    """

    moments: list[Moment]
    looked_at_s: np.ndarray

    def overlaps(self, span_s: np.ndarray) -> bool:
        """Whether any second of a span, float64 [2], was looked at."""
        return bool((iou(span_s, self.looked_at_s) > 0).any())


# By query, as its row among all queries, and by the video's id.
Cuts = collections.abc.Mapping[tuple[int, str], Cut]


def with_coarse(cut: Cut, coarse: collections.abc.Sequence[Moment], *, limit: int) -> list[Moment]:
    """The moments of the cut, best first, and behind them the coarse ones of which no second was looked at.

    Args:
        coarse: best first.
        limit: at most so many.
    """
    if len(cut.moments) >= limit:
        return cut.moments[:limit]
    elsewhere = [moment for moment in coarse if not cut.overlaps(np.array([moment.start_s, moment.end_s]))]
    return [*cut.moments, *elsewhere][:limit]


def recut_own(
    rows: np.ndarray,
    video_ids: collections.abc.Sequence[str],
    own: RankedMoments,
    scores: np.ndarray,
    cuts: Cuts,
    *,
    depth: int,
) -> tuple[RankedMoments, np.ndarray]:
    """The moments of each query's own video, cut anew where they were: see `with_coarse`.

    Args:
        rows: int64 [Q], of the queries.
        video_ids: of the candidates, by number.
        own, scores: as `ranking.rank_own_moments` gives them.
        cuts: not every query has one.
        depth: at most so many moments a query.
    """
    lists = []
    for row, numbers, spans, found in zip(rows.tolist(), own.videos, own.spans, scores, strict=True):
        count = int((numbers >= 0).sum())
        moments = [
            Moment(float(spans[place, 0]), float(spans[place, 1]), float(found[place])) for place in range(count)
        ]
        cut = cuts.get((row, video_ids[numbers[0]])) if count else None
        lists.append(moments if cut is None else with_coarse(cut, moments, limit=depth))
    width = max(map(len, lists), default=0)
    new = RankedMoments(np.full((len(rows), width), -1, np.int64), np.zeros((len(rows), width, 2)))
    new_scores = np.full((len(rows), width), -np.inf, np.float32)
    for number, moments in enumerate(lists):
        new.videos[number, : len(moments)] = own.videos[number, 0] if moments else -1
        for place, moment in enumerate(moments):
            new.spans[number, place] = moment.start_s, moment.end_s
            new_scores[number, place] = moment.score
    return new, new_scores


def recut_best(
    rows: np.ndarray, video_ids: collections.abc.Sequence[str], best: RankedMoments, cuts: Cuts
) -> RankedMoments:
    """The best moment of each of the best videos of each query, cut anew where it was.

    Args:
        rows, video_ids, cuts: as in `recut_own`.
        best: as `ranking.moments_of_best` gives them.
    """
    spans = best.spans.copy()
    for number, (row, videos) in enumerate(zip(rows.tolist(), best.videos.tolist(), strict=True)):
        for place, video in enumerate(videos):
            cut = cuts.get((row, video_ids[video])) if video >= 0 else None
            if cut is not None:
                spans[number, place] = cut.moments[0].start_s, cut.moments[0].end_s
    return RankedMoments(best.videos, spans)


def recut_boundaries(
    rows: np.ndarray, video_ids: collections.abc.Sequence[str], edges: list[np.ndarray], cuts: Cuts
) -> list[np.ndarray]:
    """For each query the times at which a moment of its own video may start or end, those of the cuts included.

    Args:
        rows, cuts: as in `recut_own`.
        video_ids: of the queries' own videos, [Q].
        edges: as `ranking.boundaries` gives them.
    """
    return [
        own if (cut := cuts.get((row, video_id))) is None else np.union1d(own, cut.looked_at_s)
        for row, video_id, own in zip(rows.tolist(), video_ids, edges, strict=True)
    ]
