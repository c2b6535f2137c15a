"""Numbers of queries and videos in; seconds, memory and the bare matrix product's seconds of ranking them out.

Embeddings are generated block by block and dropped again: a million videos would take 23 GB in float16. Each block is
searched for every query's best videos, which are merged with those of the blocks before, and meets the bare matrix
product right after, so that a busy minute hits both. Generating is not timed.

A size that would take longer than the budget is measured on a slice of its queries and videos and multiplied up: the
work is the product of the two. What each video costs before it meets a query (unit length, products of its super
images with each other) is counted too often that way, the more so the fewer queries, so a slice keeps at least one of
the kernel's blocks of them. The entry says so under "extrapolated_from"; its memory is the slice's.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..engine.scoring import retrieval
from . import measure, retrieve_peers
from .process_memory import PeakMemory

BLOCK_VIDEOS = 4096
TOP = 10
SLICE = 1 / 4  # of the budget, for a size that exceeds it
REPEATED_S = 3.0  # what is shorter than this is repeated as often as fits into it, at most MOST_ROUNDS times
MOST_ROUNDS = 5
SEED = 0


@dataclasses.dataclass(frozen=True)
class Size:
    """How many queries meet how many videos."""

    queries: int
    videos: int


SIZES = tuple(
    Size(int(queries), int(videos))
    for queries, videos in ((1e3, 1e3), (1e3, 1e4), (1e4, 1e4), (1e4, 1e5), (1e5, 1e5), (1e5, 1e6))
)


@dataclasses.dataclass(frozen=True)
class Block:
    """Some videos, from number `first` on: vectors float16 [T, D] and offsets int64 [n + 1]."""

    first: int
    vectors: np.ndarray
    offsets: np.ndarray


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one pass over a size took; `seconds` the search, `floor_s` the bare matrix product."""

    queries: int
    videos: int
    super_images: int
    seconds: float
    floor_s: float
    peak_bytes: int

    @property
    def cells(self) -> int:
        return self.queries * self.super_images


def generated(videos: int, width: int, lengths: np.ndarray) -> Iterator[Block]:
    """Random embeddings of so many videos; a block is the same whatever comes before and after it.

    Args:
        videos: how many.
        width: of the vectors.
        lengths: int64, super images of real videos, to draw from.
    """
    for number, first in enumerate(range(0, videos, BLOCK_VIDEOS)):
        sizes = _block_lengths(number, lengths)[: videos - first]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        rng = np.random.default_rng([SEED, 1, number])
        yield Block(first, rng.standard_normal((offsets[-1], width), np.float32).astype(np.float16), offsets)


def generated_queries(queries: int, width: int) -> np.ndarray:
    """Random float16 [Q, D]."""
    return np.random.default_rng([SEED, 2]).standard_normal((queries, width), np.float32).astype(np.float16)


def super_image_total(videos: int, lengths: np.ndarray) -> int:
    """How many super images `generated` has in all blocks together."""
    blocks = enumerate(range(0, videos, BLOCK_VIDEOS))
    return sum(int(_block_lengths(number, lengths)[: videos - first].sum()) for number, first in blocks)


def best_of_blocks(
    best: tuple[np.ndarray, np.ndarray] | None, queries: np.ndarray, block: Block, top: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best videos, scores [Q, k] and numbers [Q, k], of the blocks before (None: there are none) and this one."""
    scores, videos = retrieval.best_videos(
        queries, block.vectors, block.offsets, retrieval.Scoring(), top=top, device="cpu"
    )
    videos = videos + block.first
    if best is not None:
        scores, videos = np.hstack([best[0], scores]), np.hstack([best[1], videos])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        scores, videos = np.take_along_axis(scores, order, 1), np.take_along_axis(videos, order, 1)
    return scores, videos


def measured(size: Size, width: int, lengths: np.ndarray) -> Measured:
    """One pass over all queries and videos of a size."""
    memory = PeakMemory()
    queries = generated_queries(size.queries, width)
    best, seconds, floor_s, super_images, peak_bytes = None, 0.0, 0.0, 0, 0
    for block in generated(size.videos, width, lengths):
        memory.reset()
        start = time.perf_counter()
        best = best_of_blocks(best, queries, block, TOP)
        seconds += time.perf_counter() - start
        peak_bytes = max(peak_bytes, memory.peak_above_start())
        floor_s += _floor_s(block.vectors, queries)
        super_images += len(block.vectors)
    return Measured(size.queries, size.videos, super_images, seconds, floor_s, peak_bytes)


def run(sizes: Sequence[Size], *, width: int, lengths: np.ndarray, budget_s: float) -> list[dict[str, Any]]:
    """Measures each size, in rising order, or a slice of it.

    Args:
        sizes: what to measure.
        width: of the vectors.
        lengths: int64, super images of real videos, to draw from.
        budget_s: seconds of search and floor that a size may be predicted to take, by the rate of the size before.
    """
    warm_up = measured(Size(retrieval.CPU_BLOCK.queries, 256), width, lengths)
    cell_s = (warm_up.seconds + warm_up.floor_s) / warm_up.cells
    entries = []
    for size in sorted(sizes, key=lambda size: size.queries * size.videos):
        super_images = super_image_total(size.videos, lengths)
        predicted_s = cell_s * size.queries * super_images
        chosen = size if predicted_s <= budget_s else slice_of(size, SLICE * budget_s / predicted_s)
        share = chosen.queries * chosen.videos / (size.queries * size.videos)
        rounds = min(MOST_ROUNDS, max(1, int(REPEATED_S / (predicted_s * share))))
        passes = [measured(chosen, width, lengths) for _ in range(rounds)]
        cell_s = statistics.median(one.seconds + one.floor_s for one in passes) / passes[0].cells
        entries.append(_entry(size, super_images, chosen, passes))
    return entries


def slice_of(size: Size, share: float) -> Size:
    """About this share of a size's work: fewer videos down to one block, then fewer queries, then videos again."""
    target = share * size.queries * size.videos
    videos = min(size.videos, max(BLOCK_VIDEOS, int(target / size.queries)))
    queries = min(size.queries, max(retrieval.CPU_BLOCK.queries, math.ceil(target / videos)))
    return Size(queries, min(videos, max(1, math.ceil(target / queries))))


def _entry(size: Size, super_images: int, chosen: Size, passes: Sequence[Measured]) -> dict[str, Any]:
    seconds = statistics.median(one.seconds for one in passes)
    floor_s = statistics.median(one.floor_s for one in passes)
    factor = size.queries * super_images / passes[0].cells
    entry = {
        **dataclasses.asdict(size),
        "super_images": super_images,
        "seconds": measure.significant(seconds * factor),
        "floor_seconds": measure.significant(floor_s * factor),
        "times_floor": measure.significant(seconds / floor_s),
        "peak_mib": round(max(one.peak_bytes for one in passes) / 2**20),
        "rounds": len(passes),
    }
    if chosen != size:
        entry["extrapolated_from"] = {
            **dataclasses.asdict(chosen),
            "super_images": passes[0].super_images,
            "seconds": measure.significant(seconds),
            "floor_seconds": measure.significant(floor_s),
        }
    return entry


def _block_lengths(number: int, lengths: np.ndarray) -> np.ndarray:
    return np.random.default_rng([SEED, 0, number]).choice(lengths, BLOCK_VIDEOS)


def _floor_s(vectors: np.ndarray, queries: np.ndarray) -> float:
    """Seconds of the bare matrix product; the conversion to float32 is not counted."""
    rows, columns = torch.from_numpy(vectors).float(), torch.from_numpy(queries).float()
    start = time.perf_counter()
    retrieve_peers.bare_product(rows, columns)
    return time.perf_counter() - start
