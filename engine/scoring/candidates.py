"""Similarities of queries and the embeddings of one video in, scores of the moments that can be the answer out."""

from __future__ import annotations

import abc
import dataclasses

import numpy as np

SMALLEST_NORM = 1e-12  # as in torch.nn.functional.normalize: a vector, or a mean, of zeros stays zero


@dataclasses.dataclass(frozen=True)
class Candidates(abc.ABC):
    """M moments of one video of L embeddings.

    Attributes:
        spans: int64 [M, 2], the first embedding of each moment and the one behind its last.
    """

    spans: np.ndarray

    @abc.abstractmethod
    def scores(self, similar: np.ndarray) -> np.ndarray:
        """float32 [q, M] from the cosines float32 [q, L] of queries and the video's embeddings."""


@dataclasses.dataclass(frozen=True)
class SpanMeans(Candidates):
    """Each moment is the mean of its embeddings, made unit length again; its score is the cosine.

    Attributes:
        scales: float64 [M], 1 / |sum of the unit embeddings|.
    """

    scales: np.ndarray

    @classmethod
    def of_embeddings(cls, length: int) -> SpanMeans:
        """Every embedding on its own."""
        first = np.arange(length)
        return cls(np.stack([first, first + 1], axis=1), np.ones(length))

    @classmethod
    def of_spans(cls, units: np.ndarray, spans: np.ndarray) -> SpanMeans:
        """Means of spans int64 [M, 2] of unit vectors [L, D]."""
        sums = _running_sums(units.astype(np.float64).T).T
        norms: np.ndarray = np.linalg.norm(sums[spans[:, 1]] - sums[spans[:, 0]], axis=1)
        return cls(spans, 1 / np.maximum(norms, SMALLEST_NORM))

    def scores(self, similar: np.ndarray) -> np.ndarray:
        """See `Candidates.scores`."""
        sums = _running_sums(similar.astype(np.float64))
        cosines = (sums[:, self.spans[:, 1]] - sums[:, self.spans[:, 0]]) * self.scales
        scores: np.ndarray = np.clip(cosines, -1, 1).astype(np.float32)
        return scores


@dataclasses.dataclass(frozen=True)
class Mixtures(Candidates):
    """Each moment's vector is a weighted sum of all embeddings of the video; its score is the product with the query.

    Attributes:
        weights: float32 [M, L].
    """

    weights: np.ndarray

    def scores(self, similar: np.ndarray) -> np.ndarray:
        """See `Candidates.scores`."""
        product: np.ndarray = similar @ self.weights.T
        return product


def _running_sums(values: np.ndarray) -> np.ndarray:
    """[n, L + 1]: sums of the first 0, 1, ... L of each row."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums
