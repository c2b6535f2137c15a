"""One video's unit vectors in, the intervals between its changes out, each a weighted sum of the video's embeddings.

This is the video's side of TF-PRVR (training-free partially relevant video retrieval, 2026) from its public description
and parameters: changes of direction from one embedding to the next make a signal, whose wavelet details find cuts at
several scales; the segments between them are nodes of a graph along which their features are spread; all cuts together
make intervals. No query is needed, and every step is linear in the embeddings once the cuts and the graph are known, so
that a video becomes one small matrix.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pywt

from .candidates import SMALLEST_NORM

WAVELET = "db4"
BOUNDARY = "symmetric"
SPREAD = 0.7  # b: how much of a segment's feature comes from its neighbours in the graph
SHORTEST_STEP = 1e-8  # between two embeddings; steps shorter than this have no direction
MARGIN = 1e-9  # by which a peak must stand out: what differs by less differs by rounding
# The transform of a signal of `length - 2` values has no level below this many embeddings.
SHORTEST = next(n for n in range(3, 100) if pywt.dwt_max_level(n - 2, WAVELET))


@dataclasses.dataclass(frozen=True)
class Intervals:
    """A video cut into K intervals, in time order.

    Attributes:
        spans: int64 [K, 2], the first embedding of each and the one behind its last.
        weights: float32 [K, L]; times the embeddings [L, D] they are the intervals' vectors, not of unit length.
    """

    spans: np.ndarray
    weights: np.ndarray


def intervals(units: np.ndarray) -> Intervals:
    """Cuts one video.

    Args:
        units: float32 or float64 [L, D], embeddings in time order, of unit length, L >= 1.

    Returns:
        One interval, the mean of all, made unit length, where L is below SHORTEST.
    """
    units = units.astype(np.float64)
    length = len(units)
    levels = [np.array([0, *cuts, length]) for cuts in _cuts(_turns(units))] or [np.array([0, length])]
    starts = np.concatenate([edges[:-1] for edges in levels])
    ends = np.concatenate([edges[1:] for edges in levels])
    number = np.repeat(np.arange(len(levels)), [len(edges) - 1 for edges in levels])

    features = np.stack([units[start:end].sum(0) for start, end in zip(starts, ends, strict=True)])
    norms = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), SMALLEST_NORM)
    spread = _spread(_graph(features / norms, starts, ends, number))

    edges = np.unique(np.concatenate(levels))
    middles = (edges[:-1] + edges[1:]) / 2
    chosen = (starts <= middles[:, None]) & (middles[:, None] < ends)  # bool [K, segments], one of each level
    times = np.arange(length)
    members = ((starts[:, None] <= times) & (times < ends[:, None])) / norms  # features from embeddings
    weights = chosen.astype(np.float64) / len(levels) @ spread @ members
    return Intervals(np.stack([edges[:-1], edges[1:]], axis=1), weights.astype(np.float32))


def _turns(units: np.ndarray) -> np.ndarray:
    """float64 [L - 2]: 1 - the cosine of each step and the next; 0 where neither goes anywhere."""
    if len(units) < 3:
        return np.zeros(0)
    steps = np.diff(units, axis=0)
    sizes: np.ndarray = np.linalg.norm(steps, axis=1)
    directions = steps / (sizes[:, None] + SHORTEST_STEP)
    cosines = np.einsum("td,td->t", directions[:-1], directions[1:]).clip(-1, 1)
    still = sizes < SHORTEST_STEP
    return np.where(still[:-1] & still[1:], 0.0, 1 - cosines)


def _cuts(signal: np.ndarray) -> list[np.ndarray]:
    """For each detail level, finest first, the embeddings before which the video is cut; none for a short signal."""
    depth = pywt.dwt_max_level(len(signal), WAVELET) if len(signal) else 0
    if not depth:
        return []
    coefficients = pywt.wavedec(signal, WAVELET, mode=BOUNDARY, level=depth)
    cuts = []
    for level in range(1, depth + 1):
        alone = [np.zeros_like(values) for values in coefficients]
        alone[-level] = coefficients[-level]
        detail = np.abs(pywt.waverec(alone, WAVELET, mode=BOUNDARY)[: len(signal)])
        cuts.append(_peaks(detail) + 2)  # a turn is known from three embeddings: the cut is before the third
    return cuts


def _peaks(values: np.ndarray) -> np.ndarray:
    """int64 [P]: where values are greater than both neighbours, and than their mean plus standard deviation."""
    inner = values[1:-1]
    bound = np.maximum(np.maximum(values[:-2], values[2:]), values.mean() + values.std())
    return np.flatnonzero(inner > bound + MARGIN) + 1


def _graph(features: np.ndarray, starts: np.ndarray, ends: np.ndarray, level: np.ndarray) -> np.ndarray:
    """float64 [n, n]: how near segments are, by feature and time inside a level, by feature and overlap to the next."""
    alike = np.maximum(features @ features.T, 0)
    sizes = ends - starts
    centres = (starts + ends) / 2
    mean_size = np.bincount(level, sizes) / np.bincount(level)
    near = np.exp(-np.abs(centres[:, None] - centres) / mean_size[level])
    shared = np.maximum(np.minimum(ends[:, None], ends) - np.maximum(starts[:, None], starts), 0)
    overlap = shared / (sizes[:, None] + sizes - shared)
    apart = np.abs(level[:, None] - level)
    weights: np.ndarray = np.where(apart == 0, alike + near, np.where(apart == 1, overlap * alike, 0.0))
    np.fill_diagonal(weights, 1)
    return weights


def _spread(weights: np.ndarray) -> np.ndarray:
    """float64 [n, n]: (1 - b) (I - b D^-1/2 W D^-1/2)^-1, what features become when spread along the graph."""
    roots = 1 / np.sqrt(weights.sum(1))
    normal = weights * roots[:, None] * roots
    inverse: np.ndarray = np.linalg.inv(np.eye(len(weights)) - SPREAD * normal)
    return (1 - SPREAD) * inverse
