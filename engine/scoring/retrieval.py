"""Query vectors and the super-image vectors of all videos in, scores, ranks and best videos out, in bounded memory.

How the super images of a video make its score is one object of aggregates.AGGREGATES. Videos of equal length lie side
by side, so that ragged videos need no padding and every step is one dense operation on [videos, length, queries]. What
is wanted of several scorings comes from one pass: they share the products of queries and super images.
"""

from __future__ import annotations

import collections.abc
import dataclasses

import numpy as np
import torch

from .aggregate import Group, Part
from .aggregates import AGGREGATES
from .candidates import SMALLEST_NORM
from .scoring import Scoring
from .tallies import BestVideos, Ranks, ScoreBlock


@dataclasses.dataclass(frozen=True)
class BlockSize:
    """How much is worked on at once: rows of super images, queries, rows x queries for videos of many rows; videos."""

    rows: int
    queries: int
    videos: int = 512

    @property
    def cells(self) -> int:
        return self.rows * self.queries


CPU_BLOCK = BlockSize(1024, 1024)  # the float32 blocks of 4 MiB in use stay in the last-level cache
CUDA_BLOCK = BlockSize(16384, 4096, 4096)
PAIR_ROWS = 128  # rows per block where every query meets only the few videos around its own


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What to find out about every query.

    Args:
        scoring: how videos are scored.
        top: how many of the best videos, >= 0.
    """

    scoring: Scoring
    top: int = 0


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What was found out about every query.

    Attributes:
        ranks: int64 [Q], of each query's own video among all, 1 is best.
        scores: float32 [Q, k], of the best videos, falling; k = min(top, V).
        videos: int64 [Q, k], their positions; equal scores in the order of the candidates.
    """

    ranks: np.ndarray
    scores: np.ndarray
    videos: np.ndarray


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
    chosen = chosen_device(device)
    units = _units_of_queries(queries, chosen)
    for (block,) in _score_blocks(units, vectors, offsets, [scoring]):
        yield block


def rank_videos(
    queries: np.ndarray,
    targets: np.ndarray,
    vectors: np.ndarray,
    offsets: np.ndarray,
    wanted: collections.abc.Sequence[Wanted],
    *,
    device: torch.device | str | None = None,
) -> list[Ranking]:
    """Ranks and best videos of several scorings, from one pass over the products of queries and super images.

    rank = 1 + videos with a higher score + videos with an equal score (to within TIE) that come earlier in the order
    of the candidates; so that a model that cannot tell videos apart scores as chance does.

    Args:
        targets: int64 [Q], position of each query's own video.
        wanted: what to find out; there is a result for each.
        queries, vectors, offsets, device: as in `score_blocks`, as are the errors.
    """
    chosen = chosen_device(device)
    units = _units_of_queries(queries, chosen)
    scorings = [each.scoring for each in wanted]
    target = torch.from_numpy(np.asarray(targets, np.int64)).to(chosen)
    own = _pair_scores(units, targets, vectors, offsets, scorings)
    ranks = [Ranks(row, target) for row in own]
    best = [_best_of(units, offsets, each.top) for each in wanted]
    for blocks in _score_blocks(units, vectors, offsets, scorings):
        for tally, kept, block in zip(ranks, best, blocks, strict=True):
            tally.add(block)
            if kept is not None:
                kept.add(block)
    return [Ranking(tally.result(), *_found(kept, len(queries))) for tally, kept in zip(ranks, best, strict=True)]


def ranks(
    queries: np.ndarray,
    targets: np.ndarray,
    vectors: np.ndarray,
    offsets: np.ndarray,
    scoring: Scoring,
    *,
    device: torch.device | str | None = None,
) -> np.ndarray:
    """The rank of each query's own video among all videos, int64 [Q]; see `rank_videos`."""
    return rank_videos(queries, targets, vectors, offsets, [Wanted(scoring)], device=device)[0].ranks


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
    units = _units_of_queries(queries, chosen_device(device))
    best = _best_of(units, offsets, top)
    for (block,) in _score_blocks(units, vectors, offsets, [scoring]):
        if best is not None:
            best.add(block)
    return _found(best, len(queries))


def chosen_device(device: torch.device | str | None) -> torch.device:
    """The device that was asked for; without one CUDA where it is there, else the CPU."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _score_blocks(
    units: torch.Tensor, vectors: np.ndarray, offsets: np.ndarray, scorings: collections.abc.Sequence[Scoring]
) -> collections.abc.Iterator[list[ScoreBlock]]:
    """For each block of videos and queries (float32 [Q, D], of unit length) one of every scoring, in their order."""
    size = _block_size(units.device, len(units))
    for part in _parts(vectors, offsets, size.rows, size.videos, units.device):
        prepared = _prepared(part, scorings)
        most_rows = max(len(one.vectors) for one in prepared.values())
        for block in _blocks(len(units), most_rows, size):
            scores = _scores(prepared, units[block].T, scorings)
            positions = torch.arange(block.start, block.stop)
            yield [
                ScoreBlock(prepared[scoring.aggregate].videos, positions, found)
                for scoring, found in zip(scorings, scores, strict=True)
            ]


def _prepared(part: Part, scorings: collections.abc.Sequence[Scoring]) -> dict[str, Part]:
    """The part as each of the aggregates needs it, by name."""
    return {name: AGGREGATES[name].prepare(part) for name in {scoring.aggregate: None for scoring in scorings}}


def _scores(
    prepared: dict[str, Part], queries: torch.Tensor, scorings: collections.abc.Sequence[Scoring]
) -> list[torch.Tensor]:
    """Scores float32 [n, q] of each scoring; the products of rows that several have in common are made once."""
    products: dict[int, torch.Tensor] = {}
    found = []
    for scoring in scorings:
        part = prepared[scoring.aggregate]
        if id(part.vectors) not in products:
            products[id(part.vectors)] = part.vectors @ queries
        similar = products[id(part.vectors)]
        found.append(AGGREGATES[scoring.aggregate].scores(part, similar, scoring.temperature))
    return found


def _best_of(units: torch.Tensor, offsets: np.ndarray, top: int) -> BestVideos | None:
    """What keeps the best videos of each query; None where there is nothing to keep."""
    videos = len(offsets) - 1
    count = min(top, videos)
    if count < 1:
        return None
    size = _block_size(units.device, len(units))
    waiting = min(videos, max(size.videos, 2 * count))
    return BestVideos(len(units), count, most_waiting=waiting, device=units.device)


def _found(best: BestVideos | None, queries: int) -> tuple[np.ndarray, np.ndarray]:
    if best is None:
        return np.zeros((queries, 0), np.float32), np.zeros((queries, 0), np.int64)
    return best.result()


def _pair_scores(
    units: torch.Tensor,
    targets: np.ndarray,
    vectors: np.ndarray,
    offsets: np.ndarray,
    scorings: collections.abc.Sequence[Scoring],
) -> torch.Tensor:
    """Score of each query with its own video, float32 [scorings, Q]: small parts of videos meet their own queries."""
    by_target = np.argsort(targets, kind="stable")
    bounds = np.searchsorted(targets[by_target], np.arange(len(offsets)))
    own = torch.empty(len(scorings), len(units), device=units.device)
    for part in _parts(vectors, offsets, PAIR_ROWS, PAIR_ROWS, units.device):
        members = [by_target[bounds[video] : bounds[video + 1]] for video in part.videos.tolist()]
        rows = torch.from_numpy(np.concatenate(members)).to(units.device)
        if not len(rows):
            continue
        counts = torch.tensor([len(member) for member in members], device=units.device)
        columns = torch.repeat_interleave(counts)
        prepared = _prepared(part, scorings)
        most_rows = max(len(one.vectors) for one in prepared.values())
        for block in _blocks(len(rows), most_rows, CPU_BLOCK):
            chosen, wanted = rows[block], columns[block]
            for number, scores in enumerate(_scores(prepared, units[chosen].T, scorings)):
                own[number, chosen] = scores[wanted, torch.arange(len(wanted), device=units.device)]
    return own


def _parts(
    vectors: np.ndarray, offsets: np.ndarray, rows: int, most_videos: int, device: torch.device
) -> collections.abc.Iterator[Part]:
    """Cuts the videos, ordered by length, into parts of about `rows` super images."""
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
        last = min(last, first + most_videos)
        yield _part(vectors, offsets, order[first:last], device)
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
    return BlockSize(
        min(16 * size.rows, size.cells // max(queries, 1)), size.queries, 16 * size.videos
    )  # few: more rows
