"""Super images of whole videos and a few queries in, one score for every video and query out: plain numpy.

The kernels of aggregates.py are made for thousands of queries, and need torch, which takes longer to import than a
store to be searched. The aggregates that are always there are a few lines of numpy for a few queries; others go through
those kernels. Both must agree: a test holds them to. Dot products are numpy's vecdot, which is no slower than BLAS here
and starts no threads: another one reads the next rows meanwhile, see reader.py. Weighted sums are BLAS', two to four
times as fast as einsum's; of a video with fewer than some hundred rows they start no threads, either.

Rows are worked on about a thousand at a time and in one place in memory, which the cache then holds: at this pace new
memory costs more than the arithmetic.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import itertools
import math

import numpy as np

from ..scoring.candidates import SMALLEST_NORM
from ..scoring.scoring import Scoring

FEW = 8  # queries that are scored here; more of them are the kernels' work
ROWS = 1024  # that are worked on at once: with fewer, the calls of numpy cost more; with more, the cache is too small
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Run:
    """Whole videos, one after the other. Its arrays are used again for the next run.

    Attributes:
        rows: float32 [R, D], as they are stored.
        scales: float32 [R], what makes each row unit length: 1 / its length; NaN where a row is not finite.
        offsets: int64 [n + 1], rows of video v are offsets[v] to offsets[v + 1], at least one.
    """

    rows: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray

    def cosines(self, queries: np.ndarray) -> np.ndarray:
        """float32 [R, Q] with unit vectors [Q, D]."""
        found = cosines(self.rows, queries)
        found *= self.scales[:, None]
        return found

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """float32 [n, Q, D]: each video's unit vectors, weighted [R, Q] and summed up."""
        weights = weights * self.scales[:, None]
        sums = np.empty((len(self.offsets) - 1, weights.shape[1], self.rows.shape[1]), np.float32)
        bounds = self.offsets.tolist()
        for video, (first, last) in enumerate(itertools.pairwise(bounds)):
            np.dot(weights[first:last].T, self.rows[first:last], out=sums[video])
        return sums


# Videos, their cosines float32 [R, Q], and the temperature in, scores float32 [n, Q] out.
Formula = collections.abc.Callable[[Run, np.ndarray, float], np.ndarray]


def unit(vectors: np.ndarray) -> np.ndarray:
    """float32 [N, D] of unit length, from float16 or float32; rows that are not finite become NaN."""
    rows = np.empty(vectors.shape, np.float32)
    scales = _widen(vectors, rows)
    rows *= scales[:, None]
    return rows


def scores(
    vectors: np.ndarray, offsets: np.ndarray, queries: np.ndarray, scoring: Scoring, *, device: str | None = None
) -> np.ndarray:
    """Scores of n whole videos for Q queries, float32 [n, Q]; NaN where a video has a vector that is not finite.

    Args:
        vectors: float16 or float32 [R, D].
        offsets: int64 [n + 1], rows of video v are offsets[v] to offsets[v + 1], at least one.
        queries: float32 [Q, D] of unit length.
        scoring: how the super images of a video make its score.
        device: torch's name of where the kernels run, by default CUDA if there is one.
    """
    formula = FORMULAS.get(scoring.aggregate)
    if formula is None or len(queries) > FEW or device not in (None, "cpu"):
        return _kernel_scores(vectors, offsets, queries, scoring, device)

    def work(run: Run) -> np.ndarray:
        return formula(run, run.cosines(queries), scoring.temperature)

    return by_runs(vectors, offsets, work)


def cosines(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """float32 [R, Q] of unit vectors [R, D] and [Q, D]."""
    found: np.ndarray = np.vecdot(rows[:, None], queries)
    return found


def by_runs(vectors: np.ndarray, offsets: np.ndarray, work: collections.abc.Callable[[Run], np.ndarray]) -> np.ndarray:
    """Videos through `work`, a few at a time: [videos, ...] from float16 or float32 [R, D] and offsets [videos + 1]."""
    space = np.empty((max(ROWS, int(np.diff(offsets).max())), vectors.shape[1]), np.float32)
    found, first = [], 0
    while first < len(offsets) - 1:
        last = max(first + 1, int(np.searchsorted(offsets, offsets[first] + ROWS, side="right")) - 1)
        some = vectors[offsets[first] : offsets[last]]
        rows = space[: len(some)]
        found.append(work(Run(rows, _widen(some, rows), offsets[first : last + 1] - offsets[first])))
        first = last
    return np.concatenate(found)


def _softmax(run: Run, similar: np.ndarray, temperature: float) -> np.ndarray:
    """The cosine of the query and the weighted sum; see aggregates.Softmax, which does without the sum itself."""
    begins = run.offsets[:-1]
    highest = np.maximum.reduceat(similar, begins).repeat(np.diff(run.offsets), axis=0)
    weights = np.exp((similar - highest) / np.float32(max(temperature, SMALLEST)))
    dots = np.add.reduceat(weights * similar, begins)
    norms = np.linalg.norm(run.sums(weights), axis=2)
    found: np.ndarray = dots / np.maximum(norms, math.sqrt(SMALLEST))
    return found.clip(-1, 1)


def _mean(run: Run, similar: np.ndarray, temperature: float) -> np.ndarray:
    """The cosine of the query and the mean."""
    sizes = np.diff(run.offsets)[:, None].astype(np.float32)
    norms = np.linalg.norm(run.sums(np.ones((len(similar), 1), np.float32)), axis=2) / sizes
    found: np.ndarray = np.add.reduceat(similar, run.offsets[:-1]) / sizes / np.maximum(norms, SMALLEST_NORM)
    return found


def _max(run: Run, similar: np.ndarray, temperature: float) -> np.ndarray:
    found: np.ndarray = np.maximum.reduceat(similar, run.offsets[:-1])
    return found


FORMULAS: dict[str, Formula] = {"softmax": _softmax, "mean": _mean, "max": _max}


# A float16 as an integer, moved to where a float32 has its exponent and its fraction, is the same number but for the
# offsets of the two exponents, 15 and 127. Infinity and NaN come out as numbers from 2^16 on, which no other reaches.
_SIGN_AND_VALUE = np.int32(-0x70002000)  # bits 31 and 13 to 27
_EXPONENTS_APART = np.float32(2.0 ** (127 - 15))
INFINITE = 2.0**16


def _widen(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Writes vectors, float16 or float32 [R, D], into `rows`, float32; returns float32 [R], see `Run.scales`."""
    if vectors.dtype == np.float16:
        _widen_halves(vectors, rows)
    else:
        rows[...] = vectors
    norms = np.sqrt(np.vecdot(rows, rows))
    if not norms.max(initial=0) < INFINITE:  # unit vectors are far from it
        norms[~np.isfinite(vectors).all(axis=1)] = np.nan
    scales: np.ndarray = np.float32(1) / np.maximum(norms, SMALLEST_NORM, dtype=np.float32)
    return scales


def _widen_halves(halves: np.ndarray, values: np.ndarray) -> None:
    """float16 to float32, finite values exactly, others as numbers from `INFINITE` on: six times as fast as numpy's."""
    bits = values.view(np.int32)
    bits[...] = halves.view(np.int16)  # the sign is drawn out to the left, which the mask takes away again
    bits <<= 13
    bits &= _SIGN_AND_VALUE
    values *= _EXPONENTS_APART


def _kernel_scores(
    vectors: np.ndarray, offsets: np.ndarray, queries: np.ndarray, scoring: Scoring, device: str | None
) -> np.ndarray:
    """NaN for the videos that the kernels would refuse, so that all of them can be named."""
    from ..scoring.retrieval import score_blocks  # imports torch

    finite = np.isfinite(vectors).all(axis=1)
    found = np.empty((len(offsets) - 1, len(queries)), np.float32)
    clean = vectors if finite.all() else np.where(finite[:, None], vectors, np.float16(0))
    for block in score_blocks(queries, clean, offsets, scoring, device=device):
        found[np.ix_(block.videos.cpu().numpy(), block.queries.cpu().numpy())] = block.scores.cpu().numpy()
    found[~np.logical_and.reduceat(finite, offsets[:-1])] = np.nan
    return found
