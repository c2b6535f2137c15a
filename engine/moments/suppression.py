"""Scores and spans of the moments of one video in, the order in which to show them out: none twice.

Greedy non-maximum suppression: the best moment stays and rules out what overlaps it too much, then the next best.
"""

from __future__ import annotations

import numpy as np

from .metrics import iou

MOST_OVERLAP = 0.5  # IoU from which a moment counts as the same as a better one


def best_apart(scores: np.ndarray, spans: np.ndarray, limit: int) -> np.ndarray:
    """The best moments of several queries in one video, best first; of equal ones the first.

    Args:
        scores: float32 [q, M]; of what is -inf nothing is shown.
        spans: float64 [q, M, 2], start and end in seconds; a moment without times (NaN) is left out.
        limit: at most so many, >= 1.

    Returns:
        int64 [q, n], numbers of moments; -1 where a query has no more. n <= limit.
    """
    timed = np.isfinite(spans).all(axis=2)
    left = np.where(timed, scores, -np.inf)
    rows = np.arange(len(scores))
    kept: list[np.ndarray] = []
    while len(kept) < limit:
        best = left.argmax(axis=1)
        found = left[rows, best] > -np.inf
        if not found.any():
            break
        kept.append(np.where(found, best, -1))
        left[iou(spans[rows, best][:, None], spans) >= MOST_OVERLAP] = -np.inf
        left[rows, best] = -np.inf  # an empty span does not overlap itself
    return np.stack(kept, axis=1) if kept else np.full((len(scores), 0), -1)
