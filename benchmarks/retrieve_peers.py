"""Unit queries and the unit super images of all videos in, scores float32 [Q, V] out: as one would without the kernel.

All of them compute what `engine.retrieval` computes at temperature 1: cos(t, a E) with a = softmax(E t).
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import torch

from ..engine.scoring import retrieval

AGGREGATE_BYTES = 512 * 2**20  # the einsum builds a vector per query and video: so many queries at once as fit in this


def bare_product(vectors: torch.Tensor, queries: torch.Tensor) -> None:
    """All similarities of float32 [T, D] and [Q, D], in the kernel's blocks and thrown away: the floor of any way."""
    size = retrieval.CPU_BLOCK
    for rows in vectors.split(size.rows):
        for block in queries.split(size.queries):
            torch.mm(rows, block.T)


def per_video(vectors: torch.Tensor, offsets: np.ndarray, queries: torch.Tensor) -> torch.Tensor:
    """One video at a time, all queries at once, aggregates built in full."""
    scores = torch.empty(len(queries), len(offsets) - 1)
    for video, (first, last) in enumerate(itertools.pairwise(offsets.tolist())):
        own = vectors[first:last]
        mixed = (queries @ own.T).softmax(dim=1) @ own
        scores[:, video] = torch.nn.functional.cosine_similarity(queries, mixed)
    return scores


@dataclasses.dataclass(frozen=True)
class PaddedVideos:
    """All videos as long as the longest.

    Attributes:
        vectors: float32 [V, L, D], zeros behind a video's own super images.
        is_own: bool [V, L].
    """

    vectors: torch.Tensor
    is_own: torch.Tensor


def padded(vectors: torch.Tensor, offsets: np.ndarray) -> PaddedVideos:
    """Videos of float32 [T, D] side by side."""
    lengths = torch.from_numpy(np.diff(offsets))
    is_own = torch.arange(int(lengths.max())) < lengths[:, None]
    wide = torch.zeros(*is_own.shape, vectors.shape[1])
    wide[is_own] = vectors
    return PaddedVideos(wide, is_own)


def padded_einsum(videos: PaddedVideos, queries: torch.Tensor) -> torch.Tensor:
    """Two einsums and a masked softmax over padded videos, in blocks of queries that bound the memory."""
    count, _, width = videos.vectors.shape
    step = max(1, AGGREGATE_BYTES // (4 * count * width))
    blocks = []
    for block in queries.split(step):
        similar = torch.einsum("qd,vld->qvl", block, videos.vectors)
        weights = similar.masked_fill(~videos.is_own, -torch.inf).softmax(dim=2)
        mixed = torch.einsum("qvl,vld->qvd", weights, videos.vectors)
        blocks.append(torch.einsum("qvd,qd->qv", mixed, block) / mixed.norm(dim=2))
    return torch.cat(blocks)


def plain_loop(vectors: torch.Tensor, offsets: np.ndarray, queries: torch.Tensor) -> torch.Tensor:
    """The reference's way: one query and one video at a time."""
    scores = torch.empty(len(queries), len(offsets) - 1)
    for row, query in enumerate(queries):
        for video, (first, last) in enumerate(itertools.pairwise(offsets.tolist())):
            own = vectors[first:last]
            mixed = (own @ query).softmax(dim=0) @ own
            scores[row, video] = torch.nn.functional.cosine_similarity(query, mixed, dim=0)
    return scores
