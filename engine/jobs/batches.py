"""Chunks of super images of many videos in, whole videos of embeddings out: batches are filled across videos."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...dali_pipes.contract import Failure, Notice, SuperImages
from ..encoding.passes import Passes
from ..store.store import VideoEmbedding, View

if TYPE_CHECKING:
    import torch


class Sink(Protocol):
    """Where a job's results go."""

    def add_super_images(self, super_images: int) -> None:
        """So many super images went through the model."""

    def add_encoder_time(self, seconds: float) -> None:
        """The model was at work for so long."""

    def add_notice(self, notice: Notice) -> None:
        """Something to know about a video, before it is finished."""

    def restart(self, video_id: str) -> None:
        """The video comes again from the start: earlier notices of it are void."""

    def finish(self, video: VideoEmbedding) -> None:
        """A whole video."""

    def fail(self, failure: Failure) -> None:
        """A lost video; notices of it are void."""


@dataclasses.dataclass
class _Run:
    """Super images of one grid size of one chunk on their way through the batches.

    Attributes:
        view: of the super images; the grid size may be unknown.
        first: index of its first super image: runs of one grid size are ordered by it.
        start_s, end_s: float64 [L], of the super images.
        frame_bounds_s: of the chunk, see SuperImages.
        passed: what the passes gave, float16 [B, D] or, with cells, [B, 1 + N * N, D]; L rows in all.
    """

    view: View
    first: int
    start_s: np.ndarray
    end_s: np.ndarray
    frame_bounds_s: np.ndarray | None
    passed: list[np.ndarray] = dataclasses.field(default_factory=list)

    def levels(self) -> Iterator[_Rows]:
        """The rows of the super images, and those of their cells where the passes gave some."""
        passed = np.concatenate(self.passed)
        if passed.ndim == 2:
            yield _Rows(self.view, self.start_s, self.end_s, passed)
            return
        yield _Rows(self.view, self.start_s, self.end_s, passed[:, 0])
        if self.frame_bounds_s is None:
            raise ValueError("its frames' times are not known, so that its cells have none")
        bounds_s = self.frame_bounds_s
        cells = passed[:, 1:].reshape(-1, passed.shape[2])[: len(bounds_s) - 1]  # unused ones are the last
        yield _Rows(View("cell", self.view.grid_size), bounds_s[:-1], bounds_s[1:], cells)


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Consecutive rows of one view: what a store keeps of them."""

    view: View
    start_s: np.ndarray
    end_s: np.ndarray
    vectors: np.ndarray


@dataclasses.dataclass
class _Video:
    """A video on its way through the batches; its chunks come in any order."""

    video_id: str
    runs: list[_Run] = dataclasses.field(default_factory=list)
    total: int = 0
    delivered: int = 0
    encoded: int = 0
    finished: bool = False
    dropped: bool = False

    def embedding(self) -> VideoEmbedding:
        """All its rows; raises ValueError where they cannot be stored."""
        in_order = sorted(self.runs, key=lambda run: run.first)
        rows = sorted((rows for run in in_order for rows in run.levels()), key=lambda rows: rows.view.code)  # stable
        counts: dict[View, int] = collections.Counter()
        for part in rows:
            counts[part.view] += len(part.vectors)
        known = all(view.grid_size is not None for view in counts)
        return VideoEmbedding(
            self.video_id,
            np.concatenate([part.start_s for part in rows]),
            np.concatenate([part.end_s for part in rows]),
            np.concatenate([part.vectors for part in rows]),
            tuple(counts.items()) if known else (),
        )


class _Stream:
    """Batches of super images of many videos through one encoder's passes.

    Args:
        passes: of the encoder.
        give: is told whose the rows of a pass are, and what the pass gave for them.
    """

    def __init__(self, passes: Passes, give: Callable[[_Video, _Run, np.ndarray], None]) -> None:
        self._passes = passes
        self._give = give
        self._filled = 0
        self._owners: list[tuple[_Video, _Run, int]] = []  # whose the rows of the batch are, and how many
        self._flying: collections.deque[list[tuple[_Video, _Run, int]]] = collections.deque()

    def add(self, video: _Video, run: _Run, images: np.ndarray | torch.Tensor) -> None:
        """Takes the images of a run."""
        taken = 0
        while taken < len(images):
            count = min(len(images) - taken, self._passes.batch_size - self._filled)
            self._passes.put(images[taken : taken + count], self._filled)
            self._owners.append((video, run, count))
            self._filled += count
            taken += count
            if self._filled == self._passes.batch_size:
                self._launch()

    def collect_ready(self) -> None:
        """Takes what the encoder has finished, without waiting."""
        while self._passes.ready:
            self._collect()

    def launch_rest(self) -> None:
        """Starts the pass of what waits for a full batch."""
        if self._filled:
            self._launch()

    def collect_all(self) -> None:
        """Waits for all passes."""
        while self._passes.in_flight:
            self._collect()

    def _launch(self) -> None:
        if self._passes.in_flight == self._passes.depth:
            self._collect()
        self._passes.launch(self._filled)
        self._flying.append(self._owners)
        self._owners, self._filled = [], 0

    def _collect(self) -> None:
        vectors = self._passes.collect()
        first = 0
        for video, run, count in self._flying.popleft():
            self._give(video, run, vectors[first : first + count])
            first += count


class Batches:
    """Collects super images of many videos into batches of one size, and puts together their embeddings.

    Args:
        passes: of the encoder, by the grid size whose cells they give, too; None: those for the other grid sizes, which
            give super images alone.
        sink: is given whole videos.
    """

    def __init__(self, passes: Mapping[int | None, Passes], sink: Sink) -> None:
        self._sink = sink
        self._streams = {grid_size: _Stream(each, self._receive) for grid_size, each in passes.items()}
        self._open: dict[str, _Video] = {}

    def add(self, chunk: SuperImages) -> None:
        """Takes a chunk of a video."""
        video = self._open.setdefault(chunk.video_id, _Video(chunk.video_id))
        video.total = chunk.total
        video.delivered += len(chunk.images)
        for grid_size, part in chunk.by_grid():
            run = _Run(View("super", grid_size), part.first, part.start_s, part.end_s, part.frame_bounds_s)
            video.runs.append(run)
            stream = self._streams.get(grid_size) or self._streams[None]
            stream.add(video, run, part.images)
        self.collect_ready()

    def finish(self, video_id: str) -> None:
        """The video has delivered everything."""
        video = self._open.setdefault(video_id, _Video(video_id))
        video.finished = True
        self._close_if_complete(video)
        self.collect_ready()

    def drop(self, video_id: str) -> None:
        """The video is lost, or comes again from the start: nothing of what it has delivered will be stored."""
        video = self._open.pop(video_id, None)
        if video is not None:
            video.dropped = True

    def collect_ready(self) -> None:
        """Takes what the encoder has finished, without waiting."""
        for stream in self._streams.values():
            stream.collect_ready()

    def flush(self) -> None:
        """Encodes what waits for a full batch, and waits for all of it."""
        for stream in self._streams.values():
            stream.launch_rest()
        for stream in self._streams.values():
            stream.collect_all()

    def _receive(self, video: _Video, run: _Run, vectors: np.ndarray) -> None:
        self._sink.add_super_images(len(vectors))
        if not video.dropped:
            run.passed.append(vectors.astype(np.float16))
            video.encoded += len(vectors)
            self._close_if_complete(video)

    def _close_if_complete(self, video: _Video) -> None:
        if not video.finished or video.encoded < video.delivered:
            return
        del self._open[video.video_id]
        if not video.delivered or video.delivered != video.total:
            reason = f"{video.delivered} of {video.total} super images came out" if video.total else "no super image"
            self._sink.fail(Failure(video.video_id, "decode", reason))
            return
        try:
            embedding = video.embedding()
        except ValueError as error:  # not finite
            self._sink.fail(Failure(video.video_id, "encode", str(error)))
            return
        self._sink.finish(embedding)
