"""Query vectors and the super-image vectors of all videos in, scores, ranks and best videos out, in bounded memory.

How the super images of a video make its score is one object of aggregates.AGGREGATES. Videos of equal length lie side
by side, so that ragged videos need no padding and every step is one dense operation on [videos, length, queries].
"""

from __future__ import annotations

import collections.abc
import dataclasses

import numpy as np
import torch

from .aggregates import AGGREGATES, Aggregate, Group, Part
from .scoring import Scoring

__all__ = ["TIE", "BlockSize", "ScoreBlock", "Scoring", "best_videos", "ranks", "score_blocks"]

# Scores nearer than this are ties: float32 sums of the same products differ by some 1e-7 with the order of adding.
TIE = 1e-6


@dataclasses.dataclass(frozen=True)
class BlockSize:
    """How much is worked on at once: rows of super images, queries, and rows x queries for videos of many rows."""

    rows: int
    queries: int

    @property
    def cells(self) -> int:
        return self.rows * self.queries


CPU_BLOCK = BlockSize(1024, 1024)  # the three float32 blocks of 4 MiB in use stay in the last-level cache
CUDA_BLOCK = BlockSize(16384, 4096)
SMALLEST_NORM = 1e-12  # of torch.nn.functional.normalize: a vector of zeros stays one
PAIR_ROWS = 128  # rows per block where every query meets only the few videos around its own


@dataclasses.dataclass(frozen=True)
class ScoreBlock:
    """Scores of some videos for some queries.

    Attributes:
        videos: int64 [n], positions of the videos among the candidates.
        queries: int64 [q], positions of the queries.
        scores: float32 [n, q].
    """

    videos: torch.Tensor
    queries: torch.Tensor
    scores: torch.Tensor


def score_blocks(
    queries: np.ndarray,
    vectors: np.ndarray,
    offsets: np.ndarray,
    scoring: Scoring,
    *,
    device: torch.device | str | None = None,
) -> collections.abc.Iterator[ScoreBlock]:
    """Scores of all videos for all queries, every pair in exactly one block.

    Args:
        queries: float16 or float32 [Q, D]; made unit length here, as are the vectors.
        vectors: float16 or float32 [T, D].
        offsets: int64 [V + 1], rows of video v are offsets[v] to offsets[v + 1], at least one.
        device: where to compute, by default CUDA if there is one.

    Raises:
        ValueError: a video has no super images, or a vector is not finite (or too long for float32).
    """
    chosen = _device(device)
    size = _block_size(chosen, len(queries))
    units = _units_of_queries(queries, chosen)
    aggregate = AGGREGATES[scoring.aggregate]
    for part in _parts(vectors, offsets, size.rows, aggregate, chosen):
        for block in _blocks(len(queries), len(part.vectors), size):
            positions = torch.arange(block.start, block.stop, device=chosen)
            yield ScoreBlock(part.videos, positions, aggregate.scores(part, units[block].T, scoring.temperature))


def ranks(
    queries: np.ndarray,
    targets: np.ndarray,
    vectors: np.ndarray,
    offsets: np.ndarray,
    scoring: Scoring,
    *,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """The rank of each query's own video among all videos, int64 [Q], 1 is best.

    rank = 1 + videos with a higher score + videos with an equal score (to within TIE) that come earlier in the order
    of the candidates; so that a model that cannot tell videos apart scores as chance does.

    Args:
        targets: int64 [Q], position of each query's own video.
        queries, vectors, offsets, device: as in `score_blocks`, as are the errors.
    """
    chosen = _device(device)
    target = torch.from_numpy(np.asarray(targets, np.int64)).to(chosen)
    own = _pair_scores(queries, targets, vectors, offsets, scoring, chosen)
    better = torch.zeros(len(queries), dtype=torch.int64, device=chosen)
    for block in score_blocks(queries, vectors, offsets, scoring, device=chosen):
        first, last = int(block.queries[0]), int(block.queries[-1]) + 1
        lead = block.scores - own[first:last]
        videos, mine = block.videos[:, None], target[first:last]
        ahead = (lead > TIE) | ((lead >= -TIE) & (videos < mine))
        better[first:last] += (ahead & (videos != mine)).sum(0)
    return (better + 1).cpu().numpy()


def best_videos(
    queries: np.ndarray,
    vectors: np.ndarray,
    offsets: np.ndarray,
    scoring: Scoring,
    *,
    top: int,
    device: torch.device | str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best videos of each query: scores float32 [Q, k] (falling) and positions int64 [Q, k], k = min(top, V).

    Args:
        top: how many videos, >= 1.
        queries, vectors, offsets, device: as in `score_blocks`, as are the errors.
    """
    if top < 1:
        raise ValueError(f"top ({top}) must be >= 1")
    chosen = _device(device)
    count = min(top, len(offsets) - 1)
    scores = torch.full((len(queries), count), -torch.inf, device=chosen)
    videos = torch.full((len(queries), count), len(offsets), dtype=torch.int64, device=chosen)
    for block in score_blocks(queries, vectors, offsets, scoring, device=chosen):
        rows = slice(int(block.queries[0]), int(block.queries[-1]) + 1)
        found = torch.cat([scores[rows], block.scores.T], dim=1)
        names = torch.cat([videos[rows], block.videos.expand(len(block.queries), -1)], dim=1)
        scores[rows], order = found.topk(count, dim=1)
        videos[rows] = names.gather(1, order)
    # Equal scores in the order of the candidates, whatever the order of the blocks was.
    order = videos.argsort(dim=1, stable=True)
    order = order.gather(1, scores.gather(1, order).argsort(dim=1, descending=True, stable=True))
    return scores.gather(1, order).cpu().numpy(), videos.gather(1, order).cpu().numpy()


def _pair_scores(
    queries: np.ndarray,
    targets: np.ndarray,
    vectors: np.ndarray,
    offsets: np.ndarray,
    scoring: Scoring,
    device: torch.device,
) -> torch.Tensor:
    """Score of each query with its own video, float32 [Q]: small parts of videos meet their own queries only."""
    by_target = np.argsort(targets, kind="stable")
    bounds = np.searchsorted(targets[by_target], np.arange(len(offsets)))
    own = torch.empty(len(queries), device=device)
    aggregate = AGGREGATES[scoring.aggregate]
    for part in _parts(vectors, offsets, PAIR_ROWS, aggregate, device):
        members = [by_target[bounds[video] : bounds[video + 1]] for video in part.videos.tolist()]
        rows = np.concatenate(members)
        columns = torch.from_numpy(np.repeat(np.arange(len(members)), [len(member) for member in members])).to(device)
        for block in _blocks(len(rows), len(part.vectors), CPU_BLOCK):
            units = _units_of_queries(queries[rows[block]], device)
            scores = aggregate.scores(part, units.T, scoring.temperature)
            wanted = columns[block]
            own[torch.from_numpy(rows[block]).to(device)] = scores[wanted, torch.arange(len(wanted), device=device)]
    return own


def _parts(
    vectors: np.ndarray, offsets: np.ndarray, rows: int, aggregate: Aggregate, device: torch.device
) -> collections.abc.Iterator[Part]:
    """Cuts the videos, ordered by length, into parts of about `rows` super images, each prepared for the aggregate."""
    lengths = np.diff(offsets)
    if len(lengths) and lengths.min() < 1:
        raise ValueError(f"video {int(lengths.argmin())} has no super images; every video must have at least one")
    order = np.argsort(lengths, kind="stable")
    sizes = lengths[order]
    ends = np.cumsum(sizes)
    first = 0
    while first < len(order):
        begin = ends[first] - sizes[first]
        last = max(first + 1, int(np.searchsorted(ends, begin + rows, side="right")))
        yield aggregate.prepare(_part(vectors, offsets, order[first:last], device))
        first = last


def _part(vectors: np.ndarray, offsets: np.ndarray, videos: np.ndarray, device: torch.device) -> Part:
    sizes = offsets[videos + 1] - offsets[videos]
    starts = np.cumsum(sizes) - sizes
    rows = np.repeat(offsets[videos] - starts, sizes) + np.arange(sizes.sum())
    units, bad = _unit(vectors[rows], device)
    if bad is not None:
        owner = videos[np.searchsorted(starts, bad, side="right") - 1]
        raise ValueError(f"video {owner} has super images whose vectors are not finite; every value must be")
    groups = [
        Group(int(starts[first]), int(count), int(length))
        for length, first, count in zip(*np.unique(sizes, return_index=True, return_counts=True), strict=True)
    ]
    return Part(torch.from_numpy(videos).to(device), units, groups)


def _units_of_queries(queries: np.ndarray, device: torch.device) -> torch.Tensor:
    """float32 [N, D] of unit length."""
    units, bad = _unit(queries, device)
    if bad is not None:
        raise ValueError(f"the vector of query {bad} of {len(queries)} is not finite; every value must be")
    return units


def _unit(vectors: np.ndarray, device: torch.device) -> tuple[torch.Tensor, int | None]:
    """float32 [N, D] of unit length, and the first row that has none, for it is not finite; None where all are.

    What was rounded to float16 in a store is a little longer or shorter than 1.
    """
    rows = torch.from_numpy(np.ascontiguousarray(vectors)).to(device).float()
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    finite = norms.isfinite()  # a row that is not has no finite norm: N values tell of N x D
    bad = None if bool(finite.all()) else int(finite[:, 0].int().argmin())
    return rows / norms.clamp_(min=SMALLEST_NORM), bad


def _blocks(queries: int, rows: int, size: BlockSize) -> collections.abc.Iterator[slice]:
    """Slices of the queries, narrower where a part has more rows than a block (one very long video)."""
    step = max(1, min(size.queries, size.cells // rows))
    for first in range(0, queries, step):
        yield slice(first, min(first + step, queries))


def _block_size(device: torch.device, queries: int) -> BlockSize:
    size = CPU_BLOCK if device.type == "cpu" else CUDA_BLOCK
    if queries >= size.queries:
        return size
    return BlockSize(min(16 * size.rows, size.cells // max(queries, 1)), size.queries)  # few queries: more rows


def _device(device: torch.device | str | None) -> torch.device:
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
