"""Runs of super images of many videos in, whole videos of embeddings out: batches are filled across videos."""

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

    def encoded(self, super_images: int) -> None:
        """So many super images went through the model."""

    def encoder_time(self, seconds: float) -> None:
        """The model was at work for so long."""

    def noticed(self, notice: Notice) -> None:
        """Something to know about a video, before it is finished."""

    def restarted(self, video_id: str) -> None:
        """The video comes again from the start: earlier notices of it are void."""

    def finished(self, video: VideoEmbedding) -> None:
        """A whole video."""

    def failed(self, failure: Failure) -> None:
        """A lost video; notices of it are void."""


@dataclasses.dataclass
class _Run:
    """A run of a video on its way through the batches."""

    first: int
    start_s: np.ndarray
    end_s: np.ndarray
    vectors: list[np.ndarray] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Video:
    """A video on its way through the batches; its runs come in any order."""

    video_id: str
    runs: list[_Run] = dataclasses.field(default_factory=list)
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
        self._owners: list[tuple[_Video, _Run, int]] = []  # whose the rows of the batch are, and how many
        self._flying: collections.deque[list[tuple[_Video, _Run, int]]] = collections.deque()
        self._open: dict[str, _Video] = {}

    def add(self, run: SuperImages) -> None:
        """Takes a run of a video."""
        video = self._open.setdefault(run.video_id, _Video(run.video_id))
        part = _Run(run.first, run.start_s, run.end_s)
        video.runs.append(part)
        video.total = run.total
        video.delivered += len(run.images)
        taken = 0
        while taken < len(run.images):
            count = min(len(run.images) - taken, self._passes.batch_size - self._filled)
            self._passes.put(run.images[taken : taken + count], self._filled)
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
        self._sink.encoded(len(vectors))
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
            self._sink.failed(Failure(video.video_id, "decode", reason))
            return
        runs = sorted(video.runs, key=lambda run: run.first)
        try:
            embedding = VideoEmbedding(
                video.video_id,
                np.concatenate([run.start_s for run in runs]),
                np.concatenate([run.end_s for run in runs]),
                np.concatenate([part for run in runs for part in run.vectors]),
            )
        except ValueError as error:  # not finite
            self._sink.failed(Failure(video.video_id, "encode", str(error)))
            return
        self._sink.finished(embedding)
