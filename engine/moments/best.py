"""One query and one video in, the seconds that answer best out: several moments of a video, none of them twice."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..scoring import Scoring
from .metrics import iou

MOST_OVERLAP = 0.5  # IoU from which a moment counts as the same as a better one


@dataclasses.dataclass(frozen=True)
class Moment:
    """Some seconds of a video.

    Attributes:
        start_s, end_s: in seconds of the video.
        score: cosine of the query and the moment, -1 to 1.
    """

    start_s: float
    end_s: float
    score: float


def best_moments(
    query: np.ndarray, vectors: np.ndarray, spans: np.ndarray, scoring: Scoring, *, limit: int = 1
) -> list[Moment]:
    """The best moments of one video, best first; what overlaps a better one (IoU of 0.5 or more) is left out.

    Args:
        query: float32 [D].
        vectors: float16 or float32 [L, D], the video's embeddings in time order.
        spans: float64 [L, 2], start and end of each in seconds; an embedding without times is no moment.
        scoring: how the video is scored; a moment of softmax, mean and max is one embedding.
        limit: at most so many, >= 1.
    """
    del scoring  # all aggregates so far agree on what a moment is
    units = vectors.astype(np.float32)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    scores = units @ (query / max(float(np.linalg.norm(query)), np.finfo(np.float32).tiny))
    kept: list[int] = []
    for number in np.argsort(-scores, kind="stable").tolist():
        if len(kept) == limit:
            break
        timed = np.isfinite(spans[number]).all()
        if timed and not (kept and (iou(spans[number], spans[kept]) >= MOST_OVERLAP).any()):
            kept.append(number)
    return [Moment(float(spans[number, 0]), float(spans[number, 1]), float(scores[number])) for number in kept]
