"""Ranked moments of queries and their true moments in; R@K at IoU thresholds, mean IoU and mAP out.

A moment is a span [start, end) of a video in seconds. The tasks are those of the field: in single-video moment
retrieval (SVMR) the query's own video is given, in corpus moment retrieval (VCMR) a prediction must also name it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import itertools

import numpy as np

from ..choices import TOPK

IOU_THRESHOLDS = (0.3, 0.5, 0.7)
# 0.5, 0.55, ..., 0.95: those of QVHighlights' mAP. Rounded, so that 0.7 is the 0.7 of the other metrics.
MAP_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
# QVHighlights' own evaluation reads so many predictions of a query.
MAP_PREDICTIONS = 10


@dataclasses.dataclass(frozen=True)
class RankedMoments:
    """The predictions for Q queries, best first.

    Args:
        videos: int64 [Q, K], the predicted video, as a number; -1 where a query has fewer than K predictions.
        spans: float64 [Q, K, 2], start and end in seconds; what stands where `videos` is -1 is not read.

    Raises:
        ValueError: the shapes do not fit, or a span is not finite or ends before it starts.
    """

    videos: np.ndarray
    spans: np.ndarray

    def __post_init__(self) -> None:
        if self.videos.ndim != 2 or self.spans.shape != (*self.videos.shape, 2):
            raise ValueError(
                f"videos {list(self.videos.shape)} and spans {list(self.spans.shape)} must be [Q, K] and [Q, K, 2]"
            )
        spans = self.spans[self.videos >= 0]
        wrong = ~(np.isfinite(spans).all(1) & (spans[:, 0] <= spans[:, 1]))
        if wrong.any():
            start_s, end_s = spans[wrong][0]
            raise ValueError(f"a predicted moment is [{start_s}, {end_s}]: expected finite seconds, start <= end")


@dataclasses.dataclass(frozen=True)
class TrueMoments:
    """What is true of Q queries.

    Args:
        videos: int64 [Q], each query's own video.
        owners: int64 [M], ascending: the query of each true moment; a query may have several.
        spans: float64 [M, 2], start and end in seconds.

    Raises:
        ValueError: the shapes do not fit, a query has no moment, or a span is not finite or ends before it starts.
    """

    videos: np.ndarray
    owners: np.ndarray
    spans: np.ndarray

    @classmethod
    def of(
        cls, videos: np.ndarray, moments: collections.abc.Sequence[collections.abc.Sequence[tuple[float, float]]]
    ) -> TrueMoments:
        """From each query's own video, int64 [Q], and its moments."""
        owners = np.repeat(np.arange(len(moments)), list(map(len, moments)))
        return cls(videos, owners, np.array([span for each in moments for span in each], np.float64))

    def __post_init__(self) -> None:
        if self.spans.shape != (len(self.owners), 2):
            raise ValueError(f"spans {list(self.spans.shape)} must be [M, 2] with M = {len(self.owners)} owners")
        if not np.array_equal(np.unique(self.owners), np.arange(len(self.videos))) or (np.diff(self.owners) < 0).any():
            raise ValueError(f"owners must ascend and name every one of the {len(self.videos)} queries")
        if not np.isfinite(self.spans).all() or (self.spans[:, 0] > self.spans[:, 1]).any():
            raise ValueError("true moments must be finite seconds, start <= end")


@dataclasses.dataclass(frozen=True)
class MomentRecall:
    """R@K of moments.

    Attributes:
        recall: percent of queries, by IoU threshold, then by K.
        hits: bool [thresholds, cutoffs, Q], in the order of `recall`'s keys: what the percentages are means of.
    """

    recall: dict[float, dict[int, float]]
    hits: np.ndarray


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of spans float64 [..., 2], broadcast against each other; 0 where both are empty.

    Spans that only touch have 0.
    """
    start = np.maximum(first[..., 0], second[..., 0])
    end = np.minimum(first[..., 1], second[..., 1])
    shared = np.maximum(end - start, 0)
    union = (first[..., 1] - first[..., 0]) + (second[..., 1] - second[..., 0]) - shared
    share = np.zeros(np.broadcast(shared, union).shape)
    np.divide(shared, union, out=share, where=union > 0)
    return share


def best_iou(predicted: RankedMoments, true: TrueMoments) -> np.ndarray:
    """float64 [Q, K]: each prediction's IoU with the nearest true moment of its query; 0 where the video is another.

    Args:
        predicted: of the same queries, in the same order.
    """
    if len(predicted.videos) != len(true.videos):
        raise ValueError(f"{len(predicted.videos)} queries have predictions, {len(true.videos)} true moments")
    best = np.zeros(predicted.videos.shape)
    if not best.size:
        return best
    # A row per true moment, then the maximum over each query's rows.
    overlaps = iou(predicted.spans[true.owners], true.spans[:, None])
    firsts = np.searchsorted(true.owners, np.arange(len(true.videos)))
    best = np.maximum.reduceat(overlaps, firsts, axis=0)
    return np.where(predicted.videos == true.videos[:, None], best, 0.0)


def moment_recall(
    predicted: RankedMoments,
    true: TrueMoments,
    *,
    topk: collections.abc.Sequence[int] = TOPK,
    thresholds: collections.abc.Sequence[float] = IOU_THRESHOLDS,
) -> MomentRecall:
    """R@K at each IoU threshold: the share of queries of which one of the first K predictions reaches it (>=).

    For VCMR the predictions name any video; for SVMR all of them name the query's own. A query with fewer than K
    predictions has those it has. As in TVRetrieval's evaluation (Lei et al., TVR, ECCV 2020), where several true
    moments count as the best of them, as in QVHighlights' (Lei et al., NeurIPS 2021).

    Raises:
        ValueError: a K is less than 1, or a threshold is not in (0, 1].
    """
    if min(topk, default=0) < 1:
        raise ValueError(f"topk ({list(topk)}) must hold numbers >= 1")
    if not all(0 < threshold <= 1 for threshold in thresholds):
        raise ValueError(f"thresholds ({list(thresholds)}) must lie in (0, 1]")
    reached = np.maximum.accumulate(best_iou(predicted, true), axis=1)  # the best IoU so far down the list
    hits = np.zeros((len(thresholds), len(topk), len(true.videos)), bool)
    for column, k in enumerate(topk):
        depth = min(k, reached.shape[1])
        if depth:
            hits[:, column] = reached[:, depth - 1] >= np.array(thresholds)[:, None]
    percent = 100 * hits.mean(axis=2) if len(true.videos) else np.zeros(hits.shape[:2])
    recall = {
        threshold: {k: float(percent[row, column]) for column, k in enumerate(topk)}
        for row, threshold in enumerate(thresholds)
    }
    return MomentRecall(recall, hits)


def first_places(
    predicted: RankedMoments, true: TrueMoments, thresholds: collections.abc.Sequence[float] = IOU_THRESHOLDS
) -> np.ndarray:
    """int64 [thresholds, Q]: the place, from 1, of the first prediction that reaches each threshold; 0 where none does.

    A query is a hit of R@K exactly where its place lies in 1 to K.
    """
    overlaps = best_iou(predicted, true)
    reached = overlaps[None] >= np.array(thresholds)[:, None, None]
    if not reached.size:
        return np.zeros(reached.shape[:2], np.int64)
    return np.where(reached.any(axis=2), reached.argmax(axis=2) + 1, 0)


def first_iou(predicted: RankedMoments, true: TrueMoments) -> np.ndarray:
    """float64 [Q]: the IoU of each query's first prediction, 0 without one; mIoU is their mean."""
    overlaps = best_iou(predicted, true)
    return overlaps[:, 0] if overlaps.shape[1] else np.zeros(len(true.videos))


def average_precision(
    spans: np.ndarray, true_spans: np.ndarray, thresholds: collections.abc.Sequence[float] = MAP_THRESHOLDS
) -> np.ndarray:
    """Average precision of one query's predictions in its own video, at each IoU threshold, float64 [thresholds].

    Going down the list, each prediction takes the true moment that it overlaps most of those that are still free; it
    is right if that overlap reaches the threshold. Precision is interpolated (the best at this recall or a higher
    one), as in ActivityNet's and QVHighlights' evaluations.

    Args:
        spans: float64 [K, 2], best first.
        true_spans: float64 [M, 2], M >= 1.
    """
    overlaps = iou(spans[:, None], true_spans[None])
    return np.array([_average_precision(overlaps, threshold) for threshold in thresholds])


def _average_precision(overlaps: np.ndarray, threshold: float) -> float:
    free = np.ones(overlaps.shape[1], bool)
    right = np.zeros(len(overlaps), bool)
    for row, candidates in enumerate(overlaps):
        chosen = int(np.where(free, candidates, -1.0).argmax())
        if free[chosen] and candidates[chosen] >= threshold:
            free[chosen] = False
            right[row] = True
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    interpolated = np.maximum.accumulate(precision[::-1])[::-1]
    return float(interpolated[right].sum() / overlaps.shape[1])


def mean_average_precision(
    predicted: RankedMoments, true: TrueMoments, *, most_predictions: int = MAP_PREDICTIONS
) -> dict[float, float]:
    """Percent by IoU threshold, of QVHighlights: the mean over queries of `average_precision` in their own videos.

    Args:
        most_predictions: of each query, in its own video, that are read.
    """
    total = np.zeros(len(MAP_THRESHOLDS))
    bounds = np.searchsorted(true.owners, np.arange(len(true.videos) + 1))
    own = predicted.videos == true.videos[:, None]
    overlaps = best_iou(predicted, true)
    for query, (first, last) in enumerate(itertools.pairwise(bounds)):
        if last - first == 1:  # of one true moment only the place of the first right prediction counts
            places = overlaps[query, own[query]][:most_predictions] >= np.array(MAP_THRESHOLDS)[:, None]
            total += np.where(places.any(1), 1 / (places.argmax(1) + 1), 0) if places.size else 0
        else:
            spans = predicted.spans[query, own[query]][:most_predictions]
            total += average_precision(spans, true.spans[first:last])
    means = 100 * total / max(len(true.videos), 1)
    return dict(zip(MAP_THRESHOLDS, means.tolist(), strict=True))


def oracle_iou(boundaries: collections.abc.Sequence[np.ndarray], true: TrueMoments) -> np.ndarray:
    """float64 [Q]: the best IoU of any span between two of the video's boundaries with a true moment of the query.

    It is the ceiling of every method that only returns such spans: the sampling's, since times are known no better
    than from one super image (or frame) to the next.

    Args:
        boundaries: float64 [B >= 2] for each of the Q queries: ascending times of its own video, seconds, at which
            spans may start or end.
    """
    best = np.zeros(len(true.videos))
    for owner, span in zip(true.owners, true.spans, strict=True):
        best[owner] = max(best[owner], _oracle(np.asarray(boundaries[owner], np.float64), span))
    return best


def _oracle(boundaries: np.ndarray, span: np.ndarray) -> float:
    # The best span starts at one of the two boundaries around the true start, and ends likewise: moving a bound beyond
    # them only adds what is wrong or drops what is right.
    around = [np.searchsorted(boundaries, time, side="right") for time in span]
    starts, ends = (boundaries[max(at - 1, 0) : at + 1] for at in around)
    pairs = np.array([(start, end) for start in starts for end in ends if start < end]).reshape(-1, 2)
    return float(iou(pairs, span[None]).max(initial=0.0))
