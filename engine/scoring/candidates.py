"""Similarities of queries and the embeddings of one video in, scores of the moments that can be the answer out."""

from __future__ import annotations

import abc
import dataclasses

import numpy as np

SMALLEST_NORM = 1e-12  # as in torch.nn.functional.normalize: a vector, or a mean, of zeros stays zero


class Candidates(abc.ABC):
    """The moments of one video of L embeddings among which the answer to a query is."""

    @abc.abstractmethod
    def moments(self, similar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All of them and their scores, from the cosines float32 [q, L] of queries and the video's embeddings.

        Returns:
            int64 [q, M, 2], the first embedding of each moment and the one behind its last; float32 [q, M], -inf where
            it is none for this query.
        """

    def best(self, similar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best one of each query, int64 [q, 2], the first of equal ones, and its score, float32 [q]."""
        ranges, scores = self.moments(similar)
        rows, best = np.arange(len(similar)), scores.argmax(axis=1)
        return ranges[rows, best], scores[rows, best]


@dataclasses.dataclass(frozen=True)
class Spans(Candidates):
    """M moments that are the same for every query.

    Attributes:
        spans: int64 [M, 2], the first embedding of each and the one behind its last.
    """

    spans: np.ndarray

    @abc.abstractmethod
    def scores(self, similar: np.ndarray) -> np.ndarray:
        """float32 [q, M] from the cosines float32 [q, L]."""

    def moments(self, similar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `Candidates.moments`."""
        return np.broadcast_to(self.spans, (len(similar), *self.spans.shape)), self.scores(similar)


@dataclasses.dataclass(frozen=True)
class SpanMeans(Spans):
    """Each moment is the mean of its embeddings, made unit length again; its score is the cosine.

    Attributes:
        scales: float64 [M], 1 / |sum of the unit embeddings|.
    """

    scales: np.ndarray

    @classmethod
    def of_spans(cls, units: np.ndarray, spans: np.ndarray) -> SpanMeans:
        """Means of spans int64 [M, 2] of unit vectors [L, D]."""
        sums = _running_sums(units.astype(np.float64).T).T
        norms: np.ndarray = np.linalg.norm(sums[spans[:, 1]] - sums[spans[:, 0]], axis=1)
        return cls(spans, 1 / np.maximum(norms, SMALLEST_NORM))

    def scores(self, similar: np.ndarray) -> np.ndarray:
        """See `Spans.scores`."""
        sums = _running_sums(similar.astype(np.float64))
        cosines = (sums[:, self.spans[:, 1]] - sums[:, self.spans[:, 0]]) * self.scales
        scores: np.ndarray = np.clip(cosines, -1, 1).astype(np.float32)
        return scores


@dataclasses.dataclass(frozen=True)
class Mixtures(Spans):
    """Each moment's vector is a weighted sum of all embeddings of the video; its score is the product with the query.

    Attributes:
        weights: float32 [M, L].
    """

    weights: np.ndarray

    def scores(self, similar: np.ndarray) -> np.ndarray:
        """See `Spans.scores`."""
        product: np.ndarray = similar @ self.weights.T
        return product


def _running_sums(values: np.ndarray) -> np.ndarray:
    """[n, L + 1]: sums of the first 0, 1, ... L of each row."""
    sums = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=sums[:, 1:])
    return sums
