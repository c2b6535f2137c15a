"""What travels in and out of a store: whole videos to be stored, and all super images or queries read back."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..annotations.annotations import Query
from ..choices import Level
from .copies import View


@dataclasses.dataclass(frozen=True)
class VideoEmbedding:
    """One whole video, ready to be stored.

    Args:
        video_id: the video's id.
        start_s: float64 [L], seconds at which each row (super image or cell) starts; None where the source has no
            times.
        end_s: float64 [L], seconds at which each row ends; None where the source has no times.
        vectors: float16 or float32 [L, D], L >= 1, finite, L2-normalised.
        views: the level and grid size of consecutive rows, and how many these are, in the order of `copies`; default:
            all rows are super images of the store's one grid size.

    Raises:
        ValueError: a shape is wrong, a value is not finite, or the views are not in order.
    """

    video_id: str
    start_s: np.ndarray | None
    end_s: np.ndarray | None
    vectors: np.ndarray
    views: tuple[tuple[View, int], ...] = ()

    def __post_init__(self) -> None:
        vectors = self.vectors
        if vectors.ndim != 2 or vectors.shape[0] < 1 or vectors.shape[1] < 1:
            raise ValueError(f"vectors of video {self.video_id} have shape {vectors.shape}, expected [L >= 1, D >= 1]")
        wider = vectors.dtype != np.float16  # may hold what float16 cannot
        if not np.isfinite(vectors).all() or (wider and np.abs(vectors).max() > np.finfo(np.float16).max):
            raise ValueError(f"vectors of video {self.video_id} hold values that are not finite in float16")
        for name, times in (("start_s", self.start_s), ("end_s", self.end_s)):
            if times is not None and np.shape(times) != (vectors.shape[0],):
                raise ValueError(
                    f"{name} of video {self.video_id} has shape {np.shape(times)}, expected ({vectors.shape[0]},)"
                )
        codes = [view.code for view, _ in self.views]
        if codes != sorted(set(codes)) or (self.views and sum(count for _, count in self.views) != len(vectors)):
            raise ValueError(f"views of video {self.video_id} are not in order, or not of its {len(vectors)} rows")

    @property
    def codes(self) -> np.ndarray:
        """int64 [L]: the code of each row's view."""
        views = self.views or ((View("super", None), len(self.vectors)),)
        return np.repeat([view.code for view, _ in views], [count for _, count in views])

    @property
    def index(self) -> np.ndarray:
        """int32 [L]: the position of each row among those of its view."""
        counts = [count for _, count in self.views] or [len(self.vectors)]
        return np.concatenate([np.arange(count, dtype=np.int32) for count in counts])


@dataclasses.dataclass(frozen=True)
class SuperImageTable:
    """All super images (or all cells) of a store, sorted by video id (by code point), then by index.

    Attributes:
        video_ids: the V videos.
        offsets: int64 [V + 1]; video v owns the rows offsets[v] to offsets[v + 1].
        vectors: float16 [T, D].
        start_s: float64 [T], NaN where unknown.
        end_s: float64 [T], NaN where unknown.
        level: "super" or "cell": what the rows are.
        grid_size: of the super images, or of those that the cells lie in; None where unknown.
    """

    video_ids: list[str]
    offsets: np.ndarray
    vectors: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    level: Level = "super"
    grid_size: int | None = None

    def rows_of(self, video: int) -> slice:
        """The rows of one of the videos, by its number."""
        return slice(int(self.offsets[video]), int(self.offsets[video + 1]))


@dataclasses.dataclass(frozen=True)
class QueryTable:
    """All queries of a store, in the order in which they were put: queries [Q] and vectors float16 [Q, D]."""

    queries: list[Query]
    vectors: np.ndarray
