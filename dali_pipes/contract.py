"""All that travels between a source of super images and a job: videos in, events out. To write either, read this file.

A Source is called with videos, and yields for each of them, in this order:
- any number of chunks of super images (SuperImages), in any order, and of Notices;
- Restarted, where all of this was in vain and begins anew;
- Finished or Failure, once, as the last thing.
The events of several videos interleave. What hits every video alike (a full disk) is no event: the source raises
GridClipError, and the job ends.

What decodes (PyAV, decord, Pillow) raises VideoError; whoever runs it makes a Failure of that.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from .. import GridClipError
from .layout import Part
from .places import Place

if TYPE_CHECKING:
    import torch

# Where a video (or a caption) was lost, in the order of a job's work:
Stage = Literal[
    "list",  # it has no file of its own, or an id that cannot be stored
    "open",  # it is no video file, or has no video stream
    "demux",  # its container is damaged or cut off
    "sample",  # it has no wanted frame
    "decode",  # its pictures do not come out
    "read",  # its folder of JPEG files, or its file of features, is not whole
    "write",  # its folder cannot be made
    "encode",  # its embeddings are not finite
    "query",  # a row of a file of text features
    "caption",  # an entry of an annotation file
]


class VideoError(GridClipError):
    """A video that cannot be used: `stage` is where it failed, `reason` says why."""

    def __init__(self, stage: Stage, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage: Stage = stage
        self.reason = reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[Stage, str]]:
        return VideoError, (self.stage, self.reason)


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """A video to read (or a folder of JPEG super images): its id (see `ids`) and its place."""

    video_id: str
    place: Place

    @property
    def path(self) -> pathlib.Path:
        """Its path, for what takes nothing but files of this machine.

        Raises:
            GridClipError: it is no file of its own.
        """
        if not isinstance(self.place, pathlib.Path):
            raise GridClipError(
                f"{self.place} is no file of its own on this machine: this needs a folder of video files, or a list "
                "of their paths"
            )
        return self.place


@dataclasses.dataclass(frozen=True)
class SuperImages:
    """A chunk: consecutive super images of one video, or those of several grid sizes that hold the same frames.

    Attributes:
        video_id: the video's id.
        first: super images in the video before those of this chunk, of all grid sizes; chunks are ordered by it.
        total: super images in the whole video, of all grid sizes.
        images: uint8 [L, S, S, 3], RGB; a tensor where they are in a GPU's memory.
        start_s: float64 [L], seconds from the video's start of the first frame of each super image; NaN if unknown.
        end_s: float64 [L], seconds at which the frame after its last one starts, or the video ends; NaN if unknown.
        parts: what these are: one part after the other, each of its own grid size, L super images in all; empty where
            the grid size is unknown.
        frame_bounds_s: float64 [W + 1], seconds at which each of the chunk's wanted frames begins to stand for the
            video, and the end of the last one; None if unknown.
        other_images: the same super images in each other size that the source was asked for, as `images`.
    """

    video_id: str
    first: int
    total: int
    images: np.ndarray | torch.Tensor
    start_s: np.ndarray
    end_s: np.ndarray
    parts: tuple[Part, ...] = ()
    frame_bounds_s: np.ndarray | None = None
    other_images: tuple[np.ndarray | torch.Tensor, ...] = ()

    @property
    def frames(self) -> int:
        """The chunk's wanted frames, where they are known."""
        if self.frame_bounds_s is None:
            raise ValueError(f"the wanted frames of super image {self.first} of {self.video_id} are not known")
        return len(self.frame_bounds_s) - 1

    def by_grid(self) -> Iterator[tuple[int | None, SuperImages]]:
        """(grid size, the super images of this size as the chunk that they are alone) for each; None where unknown."""
        if len(self.parts) < 2:
            yield self.parts[0].grid_size if self.parts else None, self
            return
        for part, rows in _rows(self.parts):
            yield (
                part.grid_size,
                dataclasses.replace(
                    self,
                    first=part.first,
                    images=self.images[rows],
                    start_s=self.start_s[rows],
                    end_s=self.end_s[rows],
                    parts=(part,),
                    other_images=tuple(images[rows] for images in self.other_images),
                ),
            )

    def in_size(self, number: int) -> SuperImages:
        """The chunk in one size alone: 0 is that of `images`, then come the others in their order."""
        return dataclasses.replace(self, images=(self.images, *self.other_images)[number], other_images=())

    def on_cpu(self) -> np.ndarray:
        """The images in the host's memory."""
        return self.images if isinstance(self.images, np.ndarray) else self.images.cpu().numpy()


@dataclasses.dataclass(frozen=True)
class Notice:
    """Something about a video that was stored all the same, which its reader should know. One line of notices.jsonl.

    Attributes:
        video_id: the video's id.
        kind: what it is: "decoder" (another decoder than the first choice made it), "damage" (frames were replaced by
            their neighbours), "rate" (its frame rate varies), "duplicate" (another file has its id).
        detail: a sentence with the numbers.
    """

    video_id: str
    kind: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Restarted:
    """What a video has yielded so far, notices included, is void: it comes again, from the start."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """The last event of a video that has yielded all its super images."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """The last event of a video that is lost: at which stage, and why. One line of failures.jsonl."""

    video_id: str
    stage: Stage
    reason: str


# What a job hears of a video beside its results, and all that it hears of one whose results are super images. Whoever
# takes events takes them all: `match`, with typing.assert_never at its end.
News = Notice | Restarted | Finished | Failure
Event = SuperImages | News


class Source(Protocol):
    """Super images of videos. One that several GPUs are to use can be pickled: each has its own, in its own process."""

    def __call__(self, videos: Iterator[VideoFile], /) -> Generator[tuple[VideoFile, Event], None, None]:
        """Yields (video, event); see the top of this file.

        Args:
            videos: read lazily: one is taken when there is room for it. Ids are unique.

        Raises:
            GridClipError: no further video can be read.
        """


@dataclasses.dataclass(frozen=True)
class Compressed:
    """A chunk that is still to be decoded: what worker processes hand to DALI.

    Attributes:
        video_id, first, total, start_s, end_s, parts, frame_bounds_s: as in SuperImages.
        cost: what decoding takes, compared with other chunks of the same kind: packets x pixels.
        decoded_bytes: size of the decoded frames or images at their own resolution, which DALI holds at once.
    """

    video_id: str
    first: int
    total: int
    start_s: np.ndarray
    end_s: np.ndarray
    cost: float
    decoded_bytes: int
    parts: tuple[Part, ...] = dataclasses.field(default=(), kw_only=True)
    frame_bounds_s: np.ndarray | None = dataclasses.field(default=None, kw_only=True)

    def with_images(self, images: np.ndarray | torch.Tensor, *other_images: np.ndarray | torch.Tensor) -> SuperImages:
        """The chunk with its pixels, uint8 [L, S, S, 3], and those in other sizes."""
        return SuperImages(
            self.video_id,
            self.first,
            self.total,
            images,
            self.start_s,
            self.end_s,
            self.parts,
            self.frame_bounds_s,
            other_images,
        )


@dataclasses.dataclass(frozen=True)
class CompressedSegment(Compressed):
    """A chunk as a pruned segment of its video.

    Attributes:
        data: a video file.
        positions: int32 [W], the wanted frames, counted in presentation order; last super images may be partial.
    """

    data: bytes
    positions: np.ndarray


@dataclasses.dataclass(frozen=True)
class CompressedImages(Compressed):
    """A chunk as JPEG files.

    Attributes:
        files: L files.
    """

    files: list[bytes]

    def by_grid(self) -> Iterator[tuple[int, CompressedImages]]:
        """(grid size, the files of this size as the chunk that they are alone) for each size; it must be known."""
        for part, rows in _rows(self.parts):
            start_s, end_s, files = self.start_s[rows], self.end_s[rows], self.files[rows]
            chunk = dataclasses.replace(
                self, first=part.first, start_s=start_s, end_s=end_s, parts=(part,), files=files
            )
            yield part.grid_size, chunk


def _rows(parts: tuple[Part, ...]) -> Iterator[tuple[Part, slice]]:
    """Which super images of a chunk its parts are."""
    begin = 0
    for part in parts:
        yield part, slice(begin, begin + part.count)
        begin += part.count
