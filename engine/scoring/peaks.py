"""Similarities of queries and a video's embeddings over time in, peaks and how far each reaches out: moments.

A moment of softmax, mean and max is a peak of the similarity over time, as wide as the similarity stays near its
height: from the highest embedding on either side up to the first that lies below median + HEIGHT * (peak - median). The
median is that of the video's similarities to this query, and stands for what has nothing to do with it. HEIGHT was
chosen on the development videos of `bench moments` (mean IoU in the own video, cells at 2 x 2, for 0.5, 0.6, 0.7, 0.8:
68.0, 68.9, 69.4, 69.2; super images: 44.9, 45.5, 46.3, 46.9; the highest alone: 31.1 and 46.0). Smoothing first, and
the interval of the largest sum above the bound (Kadane's), were no better.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from .candidates import Candidates

HEIGHT = 0.7


@dataclasses.dataclass(frozen=True)
class Peaks(Candidates):
    """Each moment is a peak, its score the highest similarity in it. No two of a query share an embedding.

    Attributes:
        background: similarity of the queries and what has nothing to do with them; None: the median of the video's.
    """

    background: float | None = None

    def moments(self, similar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Candidates.moments`; M = L, and moment i is the peak whose highest embedding is i."""
        ranges, alone = extents(similar, np.broadcast_to(np.arange(similar.shape[1]), similar.shape), self.background)
        return ranges, np.where(alone, np.clip(similar, -1, 1), -np.inf).astype(np.float32)

    def best(self, similar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Candidates.best`."""
        highest = similar.argmax(axis=1)[:, None]
        ranges, _ = extents(similar, highest, self.background)
        return ranges[:, 0], np.clip(np.take_along_axis(similar, highest, axis=1)[:, 0], -1, 1)


def extents(similar: np.ndarray, peaks: np.ndarray, background: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """How far peaks reach.

    Args:
        similar: float32 [q, L], of queries and the embeddings of a video in time order, L >= 1.
        peaks: int64 [q, M], embeddings.
        background: see Peaks.

    Returns:
        int64 [q, M, 2], the first embedding of each and the one behind its last; bool [q, M], whether it is a peak: the
        highest within its reach, and the first of those. What is none is not followed to its end.
    """
    rows = np.arange(len(similar))[:, None]
    heights = np.take_along_axis(similar, peaks, axis=1)
    level = np.median(similar, axis=1, keepdims=True) if background is None else np.float64(background)
    # No higher than that, an embedding stands for itself alone.
    bounds = np.where(heights > level, level + HEIGHT * (heights - level), np.inf)
    first, last = peaks.copy(), peaks.copy()
    highest = np.ones(peaks.shape, bool)
    padded = np.pad(similar, ((0, 0), (1, 1)), constant_values=-np.inf)  # embedding i stands at i + 1
    for edges, step, is_higher in ((first, -1, np.greater_equal), (last, 1, np.greater)):
        while True:
            neighbours = padded[rows, edges + step + 1]
            inside = (neighbours >= bounds) & highest
            if not inside.any():
                break
            highest &= ~(inside & is_higher(neighbours, heights))
            edges += step * (inside & highest)
    return np.stack([first, last + 1], axis=2), highest
