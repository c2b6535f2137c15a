"""Chunks of super images of many videos in, whole videos of embeddings out: batches are filled across videos."""

from __future__ import annotations

import collections
import dataclasses
from typing import Protocol

import numpy as np

from ...dali_pipes.contract import Failure, Notice, SuperImages
from ..encoding.passes import Passes
from ..store.store import VideoEmbedding


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
class _Chunk:
    """A chunk of a video on its way through the batches."""

    first: int
    start_s: np.ndarray
    end_s: np.ndarray
    vectors: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Video:
    """A video on its way through the batches; its chunks come in any order."""

    video_id: str
    chunks: list[_Chunk] = dataclasses.field(default_factory=list)
    total: int = 0
    delivered: int = 0
    encoded: int = 0
    finished: bool = False
    dropped: bool = False


class Batches:
    """Collects super images of many videos into batches of one size, and puts together their embeddings.

    Args:
        passes: the encoder.
        sink: is given whole videos.
    """

    def __init__(self, passes: Passes, sink: Sink) -> None:
        self._passes = passes
        self._sink = sink
        self._filled = 0
        self._owners: list[tuple[_Video, _Chunk, int]] = []  # whose the rows of the batch are, and how many
        self._flying: collections.deque[list[tuple[_Video, _Chunk, int]]] = collections.deque()
        self._open: dict[str, _Video] = {}

    def add(self, chunk: SuperImages) -> None:
        """Takes a chunk of a video."""
        video = self._open.setdefault(chunk.video_id, _Video(chunk.video_id))
        part = _Chunk(chunk.first, chunk.start_s, chunk.end_s)
        video.chunks.append(part)
        video.total = chunk.total
        video.delivered += len(chunk.images)
        taken = 0
        while taken < len(chunk.images):
            count = min(len(chunk.images) - taken, self._passes.batch_size - self._filled)
            self._passes.put(chunk.images[taken : taken + count], self._filled)
            self._owners.append((video, part, count))
            self._filled += count
            taken += count
            if self._filled == self._passes.batch_size:
                self._launch()
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
        while self._passes.ready:
            self._collect()

    def flush(self) -> None:
        """Encodes what waits for a full batch, and waits for all of it."""
        if self._filled:
            self._launch()
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
        self._sink.add_super_images(len(vectors))
        first = 0
        for video, part, count in self._flying.popleft():
            if not video.dropped:
                part.vectors.append(vectors[first : first + count].astype(np.float16))
                video.encoded += count
                self._close_if_complete(video)
            first += count

    def _close_if_complete(self, video: _Video) -> None:
        if not video.finished or video.encoded < video.delivered:
            return
        del self._open[video.video_id]
        if not video.delivered or video.delivered != video.total:
            reason = f"{video.delivered} of {video.total} super images came out" if video.total else "no super image"
            self._sink.fail(Failure(video.video_id, "decode", reason))
            return
        chunks = sorted(video.chunks, key=lambda chunk: chunk.first)
        try:
            embedding = VideoEmbedding(
                video.video_id,
                np.concatenate([chunk.start_s for chunk in chunks]),
                np.concatenate([chunk.end_s for chunk in chunks]),
                np.concatenate([part for chunk in chunks for part in chunk.vectors]),
            )
        except ValueError as error:  # not finite
            self._sink.fail(Failure(video.video_id, "encode", str(error)))
            return
        self._sink.finish(embedding)
