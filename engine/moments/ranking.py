"""Queries, the super images of all videos and a scoring in; ranked moments out: of the own video, and of all videos.

A moment of the aggregates softmax, mean and max is one super image: the seconds for which its cells stand.
"""

from __future__ import annotations

import numpy as np

from ..retrieval import Scoring, best_videos
from ..store.store import SuperImageTable
from .metrics import RankedMoments

DEPTH = 100  # predictions of a query: the largest K of the field's R@K


def rank_own_moments(
    queries: np.ndarray, targets: np.ndarray, videos: SuperImageTable, *, depth: int = DEPTH
) -> tuple[RankedMoments, np.ndarray]:
    """Single-video retrieval: the moments of each query's own video, the most similar first.

    Args:
        queries: float16 or float32 [Q, D].
        targets: int64 [Q], the position of each query's own video among the videos.
        videos: with times for every super image.
        depth: at most so many moments a query, >= 1.

    Returns:
        The moments, and their cosines with the query float32 [Q, K], -inf where there is none.
    """
    lengths = np.diff(videos.offsets)[targets]
    width = min(depth, int(lengths.max(initial=0)))
    numbers = np.full((len(queries), width), -1, np.int64)
    spans = np.zeros((len(queries), width, 2))
    scores = np.full((len(queries), width), -np.inf, np.float32)
    units, all_spans = _unit(queries), _spans(videos)
    for video, rows in _grouped(targets):
        first, similar = _similar(units[rows], video, videos)
        order = np.argsort(-similar, axis=1, kind="stable")[:, :width]
        kept = order.shape[1]
        numbers[rows, :kept] = video
        scores[rows, :kept] = np.take_along_axis(similar, order, axis=1)
        spans[rows, :kept] = all_spans[first + order]
    return RankedMoments(numbers, spans), scores


def rank_moments(
    queries: np.ndarray,
    videos: SuperImageTable,
    scoring: Scoring,
    *,
    depth: int = DEPTH,
    device: str | None = None,
) -> tuple[RankedMoments, np.ndarray]:
    """Corpus retrieval: the best videos of each query in the order of their scores, each with its best moment.

    One moment a video: K predictions name K videos, so that recall of moments can be held against that of videos.

    Args:
        queries, videos, depth: as in `rank_own_moments`.
        scoring: of the videos.
        device: where videos are scored, by default CUDA if there is one.

    Returns:
        The moments, and the videos' scores float32 [Q, K], falling.
    """
    scores, best = best_videos(queries, videos.vectors, videos.offsets, scoring, top=depth, device=device)
    spans = np.zeros((*best.shape, 2))
    units, all_spans = _unit(queries), _spans(videos)
    # Pair by pair would read every video again and again: take each video once, with the queries that found it.
    pairs = best.ravel()
    for video, where in _grouped(pairs):
        rows, columns = np.divmod(where, best.shape[1])
        first, similar = _similar(units[rows], video, videos)
        spans[rows, columns] = all_spans[first + similar.argmax(axis=1)]
    return RankedMoments(best, spans), scores


def boundaries(targets: np.ndarray, videos: SuperImageTable) -> list[np.ndarray]:
    """For each query the times at which a moment of its own video may start or end, ascending, seconds."""
    all_spans = _spans(videos)
    edges = {
        video: np.unique(all_spans[videos.offsets[video] : videos.offsets[video + 1]])
        for video in np.unique(targets).tolist()
    }
    return [edges[video] for video in targets.tolist()]


def _grouped(videos: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(video, positions at which it stands), each video once."""
    order = np.argsort(videos, kind="stable")
    found, firsts = np.unique(videos[order], return_index=True)
    return list(zip(found.tolist(), np.split(order, firsts[1:]), strict=True)) if len(found) else []


def _similar(units: np.ndarray, video: int, videos: SuperImageTable) -> tuple[int, np.ndarray]:
    """(first row of the video, cosines float32 [q, L] of queries, of unit length, and its super images)."""
    first, last = int(videos.offsets[video]), int(videos.offsets[video + 1])
    return first, units @ _unit(videos.vectors[first:last]).T


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float32)
    lengths: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
    return vectors


def _spans(videos: SuperImageTable) -> np.ndarray:
    """float64 [T, 2]: start and end of every super image."""
    return np.stack([videos.start_s, videos.end_s], axis=1)
