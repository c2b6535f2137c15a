"""Frame counts, rates and times in, the indices of the wanted frames out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol, get_args

import numpy as np

DECODE_WIDTH_PX, DECODE_HEIGHT_PX = 446, 336  # the reference decodes every frame at this size, whatever its aspect
# Containers round time stamps, WebM to a millisecond: a frame so little after a wanted time is shown at it.
GRACE_S = 1e-3
# Longer than a camera records into one file; time stamps that say so and do not fit the frames are damaged.
LONGEST_S = 7 * 86_400.0
# A frame rate is damaged where frames are to be repeated, and by it each is shown for longer than this, or the video
# is so many times as long as its time stamps say.
LONGEST_FRAME_S = 3600.0
MOST_STRETCHED = 10.0

Mode = Literal["frames", "keyframes", "time"]
EditLists = Literal["apply", "ignore"]
Decode = Literal["exact", "fast"]


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How videos become super images; part of a store's fingerprint.

    Args:
        fps: wanted frames per second of video, > 0.
        grid_size: cells per row and column of a super image, >= 1; several of them lay every frame out in each.
        super_img_size: width and height of a super image in pixels, >= grid_size.
        min_frames: wanted frames of a video shorter than one period (0 or 1).
        max_shift_s: seconds by which a wanted frame may move to a keyframe, >= 0; None: it stays where it is.
        mode: `frames` spaces the wanted frames evenly by count, as the reference does; `keyframes` moves these by up to
            max_shift_s; `time` takes the frame shown every 1/fps seconds. None: frames, or keyframes where max_shift_s
            is set, which is what settings mean that were recorded before there was a choice by time.
        stride: wanted frames from the start of one super image to that of the next, 1 to the cells of the largest grid.
            Fewer than a super image has cells make them overlap; a grid of fewer cells than this does not. None: as
            many as there are cells, so that none do.
        edit_lists: `apply` counts the frames that a player shows; `ignore` counts those that an mp4's edit list hides,
            too, and takes the pictures that decord gives for such numbers, see packets/edit_lists.py.
        decode: `exact` gives the pictures that the codec's standard defines; `fast` leaves a step of decoding out, so
            that they differ from these, see cpu/decoding.py. PyAV alone does that.

    Raises:
        ValueError: a value is out of range, or max_shift_s or edit_lists and mode contradict each other.
    """

    fps: float = 0.5
    grid_size: int | tuple[int, ...] = 2
    super_img_size: int = 336
    min_frames: int = 1
    max_shift_s: float | None = None
    mode: Mode | None = None
    stride: int | None = None
    edit_lists: EditLists = "apply"
    decode: Decode = "exact"

    def __post_init__(self) -> None:
        sizes = self.grid_sizes
        object.__setattr__(self, "grid_size", sizes[0] if len(sizes) == 1 else sizes)
        if not (self.fps > 0 and np.isfinite(self.fps)):
            raise ValueError(f"fps ({self.fps}) must be a finite number > 0")
        if not sizes or sizes[0] < 1:
            raise ValueError(f"grid_size ({self.grid_size}) must be >= 1")
        if self.super_img_size < sizes[-1]:
            raise ValueError(f"super_img_size ({self.super_img_size}) must be >= grid_size ({self.grid_size})")
        if self.min_frames not in (0, 1):
            raise ValueError(f"min_frames ({self.min_frames}) must be 0 or 1")
        if self.max_shift_s is not None and not (self.max_shift_s >= 0 and np.isfinite(self.max_shift_s)):
            raise ValueError(f"max_shift_s ({self.max_shift_s}) must be a finite number >= 0")
        if self.mode is None:
            object.__setattr__(self, "mode", _mode_without_time(self.max_shift_s))
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode ({self.mode!r}) must be one of {', '.join(get_args(Mode))}")
        if self.edit_lists not in get_args(EditLists):
            raise ValueError(f"edit_lists ({self.edit_lists!r}) must be one of {', '.join(get_args(EditLists))}")
        if self.decode not in get_args(Decode):
            raise ValueError(f"decode ({self.decode!r}) must be one of {', '.join(get_args(Decode))}")
        if self.edit_lists == "ignore" and self.mode == "time":
            raise ValueError("edit_lists (ignore) is about counting frames, and mode is time: hidden ones have no time")
        if (self.mode == "keyframes") != (self.max_shift_s is not None):
            raise ValueError(f"max_shift_s ({self.max_shift_s}) is for mode keyframes, and mode is {self.mode}")
        most = sizes[-1] ** 2
        if self.stride is not None and not 1 <= self.stride <= most:
            raise ValueError(f"stride ({self.stride}) must be in [1, {most}], the cells of a super image")
        if self.stride == most:
            object.__setattr__(self, "stride", None)

    @property
    def grid_sizes(self) -> tuple[int, ...]:
        """The grid size, or all of them, ascending."""
        return (self.grid_size,) if isinstance(self.grid_size, int) else tuple(sorted(set(self.grid_size)))

    def stride_of(self, grid_size: int) -> int:
        """Wanted frames from the start of one super image of this grid size to that of the next."""
        return grid_size**2 if self.stride is None else min(self.stride, grid_size**2)

    @property
    def overlap(self) -> int:
        """Most wanted frames of a super image that belong to the next one, too."""
        return max(grid_size**2 - self.stride_of(grid_size) for grid_size in self.grid_sizes)

    @property
    def grids_with_cells(self) -> tuple[int, ...]:
        """The grid sizes in which each frame has a cell to itself: of one super image, and not all of that.

        Empty where super images overlap: a frame that lies in several has a cell in each.
        """
        return () if self.overlap else tuple(grid_size for grid_size in self.grid_sizes if grid_size > 1)

    @property
    def block(self) -> int:
        """Wanted frames after which super images of all grid sizes begin anew: where a video may be cut."""
        return math.lcm(*map(self.stride_of, self.grid_sizes))


class Length(Protocol):
    """How long a video is: of a stream that was read, or as a video-info file tells it.

    Attributes:
        frame_count: frames, >= 0.
        avg_fps: average frame rate by the container, frames per second.
        duration_s: from the first frame's start to the last one's end by the time stamps, seconds.
    """

    @property
    def frame_count(self) -> int: ...
    @property
    def avg_fps(self) -> float: ...
    @property
    def duration_s(self) -> float: ...


def completed(record: dict[str, Any]) -> dict[str, Any]:
    """Recorded settings with what they mean where they were recorded before there was a mode, or edit lists."""
    if record.get("fps") is None:
        return record
    return {"mode": _mode_without_time(record.get("max_shift_s")), "edit_lists": "apply", **record}


def of_record(record: Mapping[str, Any]) -> Sampling:
    """The sampling among the settings that a store or a folder's sidecar holds; raises as Sampling does."""
    names = {field.name for field in dataclasses.fields(Sampling)}
    return Sampling(**{name: value for name, value in record.items() if name in names})


def why_none(length: Length, sampling: Sampling) -> str | None:
    """Why a video has no wanted frame; None where it has some."""
    if length.frame_count <= 0:
        return "has no frame"
    if sampling.mode == "time" and not length.duration_s <= LONGEST_S and rate_differs(length):
        return (
            f"its time stamps span {length.duration_s:,.0f} s, its {length.frame_count:,} frames at "
            f"{length.avg_fps:g} fps do not: they are damaged, take the frames by count (`mode='frames'`)"
        )
    if sampling.mode != "time" and length.avg_fps > 0 and _repeats_damaged(length, sampling.fps):
        return (
            f"{length.frame_count * sampling.fps / length.avg_fps:,.0f} wanted frames of {length.frame_count:,}: its "
            f"average rate of {length.avg_fps:.2g} fps is damaged, take the frames by time stamps (`mode='time'`)"
        )
    if not count_wanted(length, sampling):
        return f"{length.duration_s:.2f} s is shorter than one period of {1 / sampling.fps:g} s"
    return None


def _repeats_damaged(length: Length, fps: float) -> bool:
    stretched = length.frame_count / length.avg_fps > MOST_STRETCHED * length.duration_s > 0
    return fps > length.avg_fps and (stretched or length.avg_fps * LONGEST_FRAME_S < 1)


def count_wanted(length: Length, sampling: Sampling) -> int:
    """How many wanted frames a video has, without a list of them: by damaged time stamps they may be millions."""
    if length.frame_count <= 0:
        return 0
    if sampling.mode == "time":
        return _count_times(length.duration_s, sampling.fps, sampling.min_frames)
    if not length.avg_fps > 0:
        return 0
    return int(length.frame_count * sampling.fps / length.avg_fps) or sampling.min_frames


def rate_differs(length: Length) -> bool:
    """Whether a video's time stamps and its frames at its average rate are more than a tenth of its duration apart.

    Then wanted frames spaced evenly by count are too few or too many (variable frame rate). One frame more or less does
    not count: not every container says for how long the last one is shown.
    """
    if not (length.avg_fps > 0 and length.duration_s > 0):
        return False
    fewest_s, most_s = (length.frame_count - 1) / length.avg_fps, (length.frame_count + 1) / length.avg_fps
    return fewest_s > 1.1 * length.duration_s or most_s < 0.9 * length.duration_s


def wanted_frames(frame_count: int, avg_fps: float, *, fps: float, min_frames: int = 1) -> np.ndarray:
    """Indices of the wanted frames, int64 [n], ascending: the reference's formula.

    n = int(frame_count * fps / avg_fps), indices numpy.linspace(0, frame_count, n, endpoint=False, dtype=int).

    Args:
        frame_count: video packets in the video stream, >= 0.
        avg_fps: average frame rate of the stream, frames per second.
        fps: wanted frames per second.
        min_frames: 1 returns the first frame of a video shorter than one period (unless it has none); 0 returns none.
    """
    if frame_count <= 0 or not avg_fps > 0:
        return np.zeros(0, np.int64)
    wanted = int(frame_count * fps / avg_fps)
    if wanted == 0:
        return np.zeros(min(min_frames, frame_count), np.int64)
    indices = np.linspace(0, frame_count, wanted, endpoint=False, dtype=int)
    return indices.astype(np.int64)


def wanted_times(duration_s: float, *, fps: float, min_frames: int = 1) -> np.ndarray:
    """Seconds from the first frame at which frames are wanted, float64 [n]: k / fps for k = 0, 1, ... before the end.

    Args:
        duration_s: see Length.
        fps: wanted frames per second.
        min_frames: wanted frames of a video shorter than one period (0 or 1).
    """
    return np.arange(_count_times(duration_s, fps, min_frames)) / fps


def _count_times(duration_s: float, fps: float, min_frames: int) -> int:
    if not duration_s * fps >= 1:
        return min_frames
    last = int(duration_s * fps)
    while last > 0 and not last / fps < duration_s - GRACE_S:
        last -= 1
    return last + 1


def frames_at(shown_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Indices of the frames on screen at some times, int64 [n]: each the last one shown by then, else the first.

    Args:
        shown_s: float64 [F], seconds at which each frame is first shown, ascending; GRACE_S late is in time.
        times_s: float64 [n].
    """
    return (np.searchsorted(shown_s, times_s + GRACE_S, side="right") - 1).clip(min=0)


def super_image_count(frame_count: int, grid_size: int, stride: int | None = None) -> int:
    """Super images that hold frame_count wanted frames, the partial last one kept.

    Args:
        frame_count: wanted frames, >= 0.
        grid_size: cells per row.
        stride: wanted frames from one start to the next, 1 to grid_size^2; None: grid_size^2. Another super image
            begins only while the last frame is in none.
    """
    if frame_count == 0:
        return 0
    cells = grid_size**2
    return 1 + max(0, -(-(frame_count - cells) // (stride or cells)))


def _mode_without_time(max_shift_s: float | None) -> Mode:
    return "frames" if max_shift_s is None else "keyframes"
