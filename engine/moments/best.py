"""One query and one video in, the seconds that answer best out: several moments of a video, none of them twice."""

from __future__ import annotations

import dataclasses

import numpy as np

from .. import choices
from ..scoring.candidates import Candidates
from ..scoring.peaks import Peaks
from ..scoring.scoring import Scoring
from .suppression import best_apart


@dataclasses.dataclass(frozen=True)
class Moment:
    """Some seconds of a video.

    Attributes:
        start_s, end_s: in seconds of the video.
        score: cosine of the query and the moment, of a peak that of its highest embedding, -1 to 1; of tf-prvr its
            product with the moment's vector.
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
        spans: float64 [L, 2], start and end of each in seconds; what begins or ends without times is no moment.
        scoring: how the video is scored; its moments are those of the aggregate: a peak for softmax, mean and max (see
            scoring/peaks.py), a window for windows, an interval for tf-prvr.
        limit: at most so many, >= 1.
    """
    ranges, scores = score_moments(unit(query[None]), unit(vectors), scoring)
    times = seconds(ranges, spans)
    order = best_apart(scores, times, limit)[0]
    return [
        Moment(float(times[0, number, 0]), float(times[0, number, 1]), float(scores[0, number]))
        for number in order
        if number >= 0
    ]


def score_moments(
    queries: np.ndarray, units: np.ndarray, scoring: Scoring, *, background: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The moments of one video that can be the answer, and their scores.

    Args:
        queries: float32 [q, D], of unit length.
        units: float32 [L, D], the video's embeddings in time order, of unit length.
        background: of peaks, see `Peaks`; for others without meaning.

    Returns:
        int64 [q, M, 2], the first embedding of each moment and the one behind its last; float32 [q, M], -inf where it
        is none for this query.
    """
    return _candidates(units, scoring, background).moments(queries @ units.T)


def score_best(queries: np.ndarray, units: np.ndarray, scoring: Scoring) -> tuple[np.ndarray, np.ndarray]:
    """The best moment of one video for each query, int64 [q, 2], and its score, float32 [q]; see `score_moments`."""
    return _candidates(units, scoring).best(queries @ units.T)


def _candidates(units: np.ndarray, scoring: Scoring, background: float | None = None) -> Candidates:
    if scoring.aggregate in choices.PEAK_AGGREGATES:
        return Peaks(background)
    from ..scoring.aggregates import AGGREGATES  # imports torch, for which a search for one sentence need not wait

    return AGGREGATES[scoring.aggregate].candidates(units)


def seconds(ranges: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """float64 [..., 2]: start and end in seconds of ranges int64 [..., 2] of embeddings with spans float64 [L, 2]."""
    return np.stack([spans[ranges[..., 0], 0], spans[ranges[..., 1] - 1, 1]], axis=-1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """float32 [N, D] of unit length."""
    vectors = vectors.astype(np.float32)
    lengths: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
    return vectors
