"""What travels in and out of a store: whole videos to be stored, and all super images or queries read back."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..annotations import Query


@dataclasses.dataclass(frozen=True)
class VideoEmbedding:
    """One whole video, ready to be stored.

    Args:
        video_id: the video's id.
        start_s: float64 [L], seconds at which each super image starts; None where the source has no times.
        end_s: float64 [L], seconds at which each super image ends; None where the source has no times.
        vectors: float16 or float32 [L, D], L >= 1, finite, L2-normalised.

    Raises:
        ValueError: a shape is wrong or a value is not finite.
    """

    video_id: str
    start_s: np.ndarray | None
    end_s: np.ndarray | None
    vectors: np.ndarray

    def __post_init__(self) -> None:
        vectors = self.vectors
        if vectors.ndim != 2 or vectors.shape[0] < 1 or vectors.shape[1] < 1:
            raise ValueError(f"vectors of video {self.video_id} have shape {vectors.shape}, expected [L >= 1, D >= 1]")
        if not np.isfinite(vectors).all() or np.abs(vectors).max() > np.finfo(np.float16).max:
            raise ValueError(f"vectors of video {self.video_id} hold values that are not finite in float16")
        for name, times in (("start_s", self.start_s), ("end_s", self.end_s)):
            if times is not None and np.shape(times) != (vectors.shape[0],):
                raise ValueError(
                    f"{name} of video {self.video_id} has shape {np.shape(times)}, expected ({vectors.shape[0]},)"
                )


@dataclasses.dataclass(frozen=True)
class SuperImageTable:
    """All super images of a store, sorted by video id (by code point), then by index.

    Attributes:
        video_ids: the V videos.
        offsets: int64 [V + 1]; video v owns the rows offsets[v] to offsets[v + 1].
        vectors: float16 [T, D].
        start_s: float64 [T], NaN where unknown.
        end_s: float64 [T], NaN where unknown.
    """

    video_ids: list[str]
    offsets: np.ndarray
    vectors: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray


@dataclasses.dataclass(frozen=True)
class QueryTable:
    """All queries of a store, in the order in which they were put: queries [Q] and vectors float16 [Q, D]."""

    queries: list[Query]
    vectors: np.ndarray
