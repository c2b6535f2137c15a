"""Queries, the super images of all videos and a scoring in; ranked moments out: of the own video, and of all videos.

A moment is what the aggregate says: of softmax, mean and max a peak (consecutive super images or cells, see
scoring/peaks.py), of windows a window, of tf-prvr an interval.
"""

from __future__ import annotations

import numpy as np

from ..scoring.retrieval import best_videos
from ..scoring.scoring import Scoring
from ..store.store import SuperImageTable
from .best import score_best, score_moments, seconds, unit
from .metrics import RankedMoments
from .suppression import best_apart

DEPTH = 100  # predictions of a query: the largest K of the field's R@K


def rank_own_moments(
    queries: np.ndarray, targets: np.ndarray, videos: SuperImageTable, scoring: Scoring, *, depth: int = DEPTH
) -> tuple[RankedMoments, np.ndarray]:
    """Single-video retrieval: the moments of each query's own video, the best first, none twice (see `best_apart`).

    Args:
        queries: float16 or float32 [Q, D].
        targets: int64 [Q], the position of each query's own video among the videos.
        videos: with times for every super image.
        scoring: of the videos: its aggregate says what a moment is.
        depth: at most so many moments a query, >= 1.

    Returns:
        The moments, and their scores float32 [Q, K], falling, -inf where there is none.
    """
    units, all_spans = unit(queries), _spans(videos)
    numbers = np.full((len(queries), depth), -1, np.int64)
    spans = np.zeros((len(queries), depth, 2))
    kept_scores = np.full((len(queries), depth), -np.inf, np.float32)
    for video, rows in _grouped(targets):
        own = videos.rows_of(video)
        ranges, scores = score_moments(units[rows], unit(videos.vectors[own]), scoring)
        times = seconds(ranges, all_spans[own])
        order = best_apart(scores, times, depth)
        kept, columns = order >= 0, slice(order.shape[1])
        numbers[rows, columns] = np.where(kept, video, -1)
        found = np.take_along_axis(times, order[..., None], axis=1)
        spans[rows, columns] = np.where(kept[..., None], found, 0)
        kept_scores[rows, columns] = np.where(kept, np.take_along_axis(scores, order, axis=1), -np.inf)
    width = int((numbers >= 0).sum(1).max(initial=0))
    return RankedMoments(numbers[:, :width], spans[:, :width]), kept_scores[:, :width]


def rank_moments(
    queries: np.ndarray,
    videos: SuperImageTable,
    scoring: Scoring,
    *,
    depth: int = DEPTH,
    device: str | None = None,
) -> tuple[RankedMoments, np.ndarray]:
    """Corpus retrieval: the best videos of each query in the order of their scores, each with its best moment.

    Args:
        queries, videos, scoring, depth: as in `rank_own_moments`.
        device: where videos are scored, by default CUDA if there is one.

    Returns:
        The moments, and the videos' scores float32 [Q, K], falling.
    """
    scores, best = best_videos(queries, videos.vectors, videos.offsets, scoring, top=depth, device=device)
    return moments_of_best(queries, best, videos, scoring), scores


def moments_of_best(queries: np.ndarray, best: np.ndarray, videos: SuperImageTable, scoring: Scoring) -> RankedMoments:
    """The best moment of each of the best videos of each query, in their order.

    One moment a video: K predictions name K videos, so that recall of moments can be held against that of videos.

    Args:
        queries, videos, scoring: as in `rank_own_moments`.
        best: int64 [Q, K], positions of each query's best videos, -1 where it has fewer.
    """
    spans = np.zeros((*best.shape, 2))
    units, all_spans = unit(queries), _spans(videos)
    # Pair by pair would read every video again and again: take each video once, with the queries that found it.
    for video, where in _grouped(best.ravel()):
        if video >= 0:
            rows, columns = np.divmod(where, best.shape[1])
            own = videos.rows_of(video)
            ranges, _ = score_best(units[rows], unit(videos.vectors[own]), scoring)
            spans[rows, columns] = seconds(ranges, all_spans[own])
    return RankedMoments(best, spans)


def boundaries(targets: np.ndarray, videos: SuperImageTable) -> list[np.ndarray]:
    """For each query the times at which a moment of its own video may start or end, ascending, seconds."""
    all_spans = _spans(videos)
    edges = {video: np.unique(all_spans[videos.rows_of(video)]) for video in np.unique(targets).tolist()}
    return [edges[video] for video in targets.tolist()]


def _grouped(videos: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(video, positions at which it stands), each video once."""
    order = np.argsort(videos, kind="stable")
    found, firsts = np.unique(videos[order], return_index=True)
    return list(zip(found.tolist(), np.split(order, firsts[1:]), strict=True)) if len(found) else []


def _spans(videos: SuperImageTable) -> np.ndarray:
    """float64 [T, 2]: start and end of every super image."""
    return np.stack([videos.start_s, videos.end_s], axis=1)
