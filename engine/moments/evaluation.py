"""Queries with times and a store's videos in; the field's moment metrics, their intervals and the ceiling out."""

from __future__ import annotations

import collections.abc
import dataclasses
from typing import Any

import numpy as np

from ..annotations.annotations import Query
from ..choices import TOPK
from ..scoring.scoring import Scoring
from ..store.store import QueryTable, SuperImageTable
from .intervals import Interval, bootstrap
from .metrics import (
    IOU_THRESHOLDS,
    TrueMoments,
    first_iou,
    first_places,
    mean_average_precision,
    moment_recall,
    oracle_iou,
)
from .predictions import Predictions
from .ranking import DEPTH, boundaries, moments_of_best, rank_own_moments
from .recut import Cuts, recut_best, recut_boundaries, recut_own


@dataclasses.dataclass(frozen=True)
class MomentEvaluation:
    """Moment metrics of one store.

    Attributes:
        svmr: R@K in percent by IoU threshold and K, the query's own video given.
        vcmr: the same over all videos.
        miou: percent, mean IoU of the first moment in the own video.
        miou_interval: its 95% interval over queries.
        mean_ap: percent by IoU threshold, in the own video (QVHighlights).
        oracle: percent, the mean over queries of the best IoU that the sampling's boundaries allow.
        queries: evaluated queries: with times, and whose video has embeddings and times.
        without_times: queries that could not be evaluated for want of times, theirs or their video's.
        rows: int64 [queries], ascending: which of the queries given these are; `timed` holds them.
        own_iou: float64 [queries], IoU of each one's first moment in the own video.
        places: by "svmr" and "vcmr" and by IoU threshold, int64 [queries], see `metrics.first_places`.
        predictions: by "svmr" and "vcmr", the moments themselves, of these queries.
    """

    svmr: dict[float, dict[int, float]]
    vcmr: dict[float, dict[int, float]]
    miou: float
    miou_interval: Interval
    mean_ap: dict[float, float]
    oracle: float
    queries: int
    without_times: int
    rows: np.ndarray
    timed: list[Query]
    own_iou: np.ndarray
    places: dict[str, dict[float, np.ndarray]]
    predictions: dict[str, Predictions]

    def to_json(self) -> dict[str, Any]:
        """Ready for json.dump, under the keys of the design: svmr, vcmr as {IoU: {K: percent}}, miou, oracle."""
        return {
            "svmr": table_json(self.svmr),
            "vcmr": table_json(self.vcmr),
            "miou": self.miou,
            "miou_interval": [self.miou_interval.low, self.miou_interval.high],
            "map": {f"{iou:g}": value for iou, value in self.mean_ap.items()},
            "oracle": self.oracle,
            "moment_queries": self.queries,
            "without_times": self.without_times,
        }

    def __str__(self) -> str:
        """A table in plain text."""
        lines = table_lines({"own video": self.svmr, "all videos": self.vcmr})
        low, high = self.miou_interval.low, self.miou_interval.high
        lines.append(
            f"mIoU {self.miou:.2f} (95%: {low:.2f} to {high:.2f}), at most {self.oracle:.2f} with this sampling; "
            f"mAP {np.mean(list(self.mean_ap.values())):.2f}"
        )
        left_out = f", {self.without_times:,} have no times" if self.without_times else ""
        lines.append(f"{self.queries:,} queries with times{left_out}")
        return "\n".join(lines)


def table_json(table: dict[float, dict[int, float]]) -> dict[str, dict[str, float]]:
    """R@K by IoU threshold as JSON has it: {IoU: {K: percent}}."""
    return {f"{iou:g}": {str(k): value for k, value in row.items()} for iou, row in table.items()}


def table_lines(tables: dict[str, dict[float, dict[int, float]]]) -> list[str]:
    """R@K by IoU threshold of several tasks, by their titles, as lines of a table."""
    cutoffs = list(next(iter(next(iter(tables.values())).values())))
    lines = ["moments".ljust(20) + "".join(f"R@{k}".rjust(8) for k in cutoffs)]
    for title, table in tables.items():
        for threshold, row in table.items():
            lines.append(f"{title}, IoU {threshold:g}".ljust(20) + "".join(f"{row[k]:8.2f}" for k in cutoffs))
    return lines


def evaluate_moments(
    queries: QueryTable,
    targets: np.ndarray,
    videos: SuperImageTable,
    scoring: Scoring,
    *,
    best: np.ndarray,
    best_scores: np.ndarray,
    topk: collections.abc.Sequence[int] = TOPK,
    cuts: Cuts | None = None,
) -> MomentEvaluation | None:
    """Moment metrics, or None where no query and its video both have times.

    Args:
        queries: Q queries and their vectors.
        targets: int64 [Q], the position of each query's own video among `videos`; -1 where it has none: left out.
        videos: the candidates.
        scoring: of the videos: its aggregate says what a moment is.
        best: int64 [Q, K], positions of each query's best videos, `depth(videos)` of them, for VCMR; -1 where a query
            has fewer.
        best_scores: float32 [Q, K], their scores.
        topk: the K of R@K.
        cuts: moments that take the place of those of the embeddings; queries are counted as `queries` are.
    """
    timed_videos = _timed(videos)
    usable = np.array(
        [
            target >= 0 and timed_videos[target] and query.start_s is not None and query.end_s is not None
            for query, target in zip(queries.queries, targets, strict=True)
        ],
        bool,
    )
    rows = np.flatnonzero(usable)
    without_times = int((targets >= 0).sum()) - len(rows)
    if not len(rows):
        return None
    if not timed_videos.all():  # moments of videos without times cannot be ranked among those of others
        videos, targets, best, best_scores = _with_times(videos, targets, best, best_scores, timed_videos)
    true = TrueMoments.of(targets[rows], [queries.queries[row].moments for row in rows])
    own, own_scores = rank_own_moments(queries.vectors[rows], targets[rows], videos, scoring)
    ranked = moments_of_best(queries.vectors[rows], best[rows, :DEPTH], videos, scoring)
    edges = boundaries(targets[rows], videos)
    if cuts:
        own, own_scores = recut_own(rows, videos.video_ids, own, own_scores, cuts, depth=DEPTH)
        ranked = recut_best(rows, videos.video_ids, ranked, cuts)
        edges = recut_boundaries(rows, [videos.video_ids[target] for target in targets[rows]], edges, cuts)
    own_iou = first_iou(own, true)
    return MomentEvaluation(
        svmr=moment_recall(own, true, topk=topk).recall,
        vcmr=moment_recall(ranked, true, topk=topk).recall,
        miou=100 * float(own_iou.mean()),
        miou_interval=bootstrap(100 * own_iou),
        mean_ap=mean_average_precision(own, true),
        oracle=100 * float(oracle_iou(edges, true).mean()),
        queries=len(rows),
        without_times=without_times,
        rows=rows,
        timed=[queries.queries[row] for row in rows],
        own_iou=own_iou,
        places={
            task: dict(zip(IOU_THRESHOLDS, first_places(moments, true), strict=True))
            for task, moments in (("svmr", own), ("vcmr", ranked))
        },
        predictions={
            "svmr": Predictions(own, own_scores, videos.video_ids),
            "vcmr": Predictions(ranked, best_scores[rows, :DEPTH], videos.video_ids),
        },
    )


def depth(videos: SuperImageTable) -> int:
    """How many of the best videos of each query to find, so that DEPTH of them have times, if so many do."""
    return DEPTH + int((~_timed(videos)).sum())


def _timed(videos: SuperImageTable) -> np.ndarray:
    """bool [V]: whether all super images of a video have times."""
    known = np.isfinite(videos.start_s) & np.isfinite(videos.end_s)
    timed: np.ndarray = np.logical_and.reduceat(known, videos.offsets[:-1])
    return timed


def _with_times(
    videos: SuperImageTable, targets: np.ndarray, best: np.ndarray, best_scores: np.ndarray, timed: np.ndarray
) -> tuple[SuperImageTable, np.ndarray, np.ndarray, np.ndarray]:
    """The videos that have times; targets and best videos counted among them, -1 where there is none."""
    kept = np.flatnonzero(timed)
    renumbered = np.append(np.where(timed, np.cumsum(timed) - 1, -1), -1)  # the last is that of -1
    sizes = np.diff(videos.offsets)
    rows = np.repeat(timed, sizes)
    table = SuperImageTable(
        [videos.video_ids[number] for number in kept],
        np.concatenate([[0], np.cumsum(sizes[kept])]),
        videos.vectors[rows],
        videos.start_s[rows],
        videos.end_s[rows],
    )
    found = renumbered[best]
    order = np.argsort(found < 0, axis=1, kind="stable")  # those without times go behind the others
    found, scores = (np.take_along_axis(each, order, axis=1) for each in (found, best_scores))
    return table, renumbered[targets], found, scores
