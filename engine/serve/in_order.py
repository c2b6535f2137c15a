"""Sentences and one video's embeddings in, the moments that answer them one after the other out."""

from __future__ import annotations

import numpy as np

from ..moments.best import Moment


def moments_in_order(queries: np.ndarray, vectors: np.ndarray, spans: np.ndarray) -> list[Moment]:
    """One moment for each sentence, each later than the one before it, with the largest sum of cosines.

    Dynamic programming over (sentence, embedding): best[k, i] = cos[k, i] + max of best[k - 1, j] over j < i.

    Args:
        queries: float32 [K, D], of unit length, in the order in which their moments are to come.
        vectors: float16 or float32 [L, D], the video's embeddings in time order.
        spans: float64 [L, 2], start and end of each in seconds; rows without times are left out.

    Returns:
        K moments in time order; none where the video has fewer embeddings than there are sentences.
    """
    timed = np.flatnonzero(np.isfinite(spans).all(axis=1))
    if len(timed) < len(queries):
        return []
    units = vectors[timed].astype(np.float32)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    cosines = queries @ units.T
    best, came_from = cosines[0], []
    for row in cosines[1:]:
        # Where the best of all earlier embeddings lies: that of position i answers for i + 1.
        leaders = np.maximum.accumulate(np.where(best >= np.maximum.accumulate(best), np.arange(len(best)), 0))
        came_from.append(leaders[:-1])
        best = np.concatenate([[-np.inf], row[1:] + best[leaders[:-1]]])
    chosen = [int(best.argmax())]
    for leaders in reversed(came_from):
        chosen.append(int(leaders[chosen[-1] - 1]))
    chosen.reverse()
    return [
        Moment(*spans[timed[place]].tolist(), float(cosines[sentence, place])) for sentence, place in enumerate(chosen)
    ]
