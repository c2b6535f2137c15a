"""Videos (or JPEG folders) in, their super images out, decoded by DALI, by worker processes, or by both (hybrid).

Worker processes read and prune, and hand compressed chunks to DALI's threads; what DALI cannot take they decode
themselves. In hybrid mode they also decode whatever DALI has no room for: both drain the same queue, no share is fixed
beforehand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Generic, TypeVar, assert_never

from ..contract import Compressed, Event, Failure, Finished, Notice, Restarted, SuperImages, VideoFile
from ..cpu.tasks import count_super_images
from ..processes import pool
from ..processes.pool import Task, Woken
from .gauge import Gauge
from .pipeline_threads import PipelineError, PipelineThreads

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=Compressed)


@dataclasses.dataclass
class _Video:
    file: VideoFile
    in_decoder: int = 0  # chunks that DALI has not given back
    delivered: bool = False  # its worker has handed over everything


def run(
    videos: Iterable[VideoFile],
    tasks: Sequence[Task[C | SuperImages]],
    fallback_tasks: Sequence[Task[SuperImages]],
    pipelines: PipelineThreads[C],
    *,
    num_workers: int,
    time_limit_s: float = pool.DEFAULT_TIME_LIMIT_S,
    gauge: Gauge | None = None,
    room: Callable[[], int] | None = None,
) -> Generator[tuple[VideoFile, Event], None, None]:
    """Yields the events of a Source (see `contract`); a video's chunks come in any order.

    A video with a chunk that DALI cannot decode is taken back (Restarted) and decoded by `fallback_tasks` at the end;
    it fails only if they fail, too.

    Args:
        videos: read lazily.
        tasks: yield compressed chunks for DALI, or super images; see `pool.run`.
        fallback_tasks: yield super images.
        pipelines: where compressed chunks go.
        num_workers, time_limit_s: see `pool.run`; the time limit holds for DALI, too.
        gauge: is kept at the number of chunks that the workers may hand over.
        room: tells that number; default, what the pipelines have room for.

    Raises:
        GridClipError: as `pool.run`; or DALI hangs, or cannot be started.
    """
    state = _State(pipelines, gauge, room or (lambda: pipelines.room))
    events = pool.run_and_wake(
        videos,
        tasks,
        num_workers=num_workers,
        time_limit_s=time_limit_s,
        size=count_super_images,
        wake=pipelines.wake,
    )
    with contextlib.closing(events):
        for video, event in events:
            match event:
                case Woken():
                    yield from state.collect()
                case Compressed():
                    while pipelines.full:
                        yield from state.collect(time_limit_s)
                    state.give(video, event)
                case SuperImages() | Notice() | Restarted():
                    yield from state.pass_on(video, event)
                case Finished():
                    yield from state.finish(video)
                case Failure():
                    yield from state.fail(video, event)
                case _:
                    assert_never(event)
    while pipelines.busy:
        yield from state.collect(time_limit_s)
    yield from pool.run(
        state.again,
        fallback_tasks,
        num_workers=num_workers,
        time_limit_s=time_limit_s,
        size=count_super_images,
    )


class _State(Generic[C]):
    """The videos that are under way.

    Attributes:
        again: videos with a chunk that DALI could not decode.
    """

    def __init__(self, pipelines: PipelineThreads[C], gauge: Gauge | None, room: Callable[[], int]) -> None:
        self._pipelines = pipelines
        self._gauge = gauge
        self._room = room
        self._open: dict[str, _Video] = {}
        self._given_up: set[str] = set()  # failed or taken back: what still comes of them is dropped
        self.again: list[VideoFile] = []

    def give(self, video: VideoFile, chunk: C) -> None:
        """A worker has handed over a chunk for DALI."""
        if video.video_id in self._given_up:
            return
        self._open.setdefault(video.video_id, _Video(video)).in_decoder += 1
        self._pipelines.give(chunk)
        self._update_gauge()

    def pass_on(self, video: VideoFile, event: SuperImages | Notice | Restarted) -> Iterator[tuple[VideoFile, Event]]:
        """A worker has decoded a chunk, or has something to say."""
        if video.video_id not in self._given_up:
            yield video, event

    def finish(self, video: VideoFile) -> Iterator[tuple[VideoFile, Event]]:
        """A worker has handed over everything of a video."""
        if video.video_id in self._given_up:
            return
        entry = self._open.setdefault(video.video_id, _Video(video))
        entry.delivered = True
        yield from self._close_if_complete(entry)

    def fail(self, video: VideoFile, failure: Failure) -> Iterator[tuple[VideoFile, Event]]:
        """The workers have lost a video."""
        if video.video_id in self._given_up:
            return
        self._open.pop(video.video_id, None)
        self._given_up.add(video.video_id)
        yield video, failure

    def collect(self, time_limit_s: float | None = None) -> Iterator[tuple[VideoFile, Event]]:
        """Passes on what DALI has decoded; with a time limit, waits for it."""
        outcomes = self._pipelines.collect(time_limit_s=time_limit_s)
        self._update_gauge()
        for chunk, result in outcomes:
            yield from self._pass_on_outcome(chunk, result)

    def _pass_on_outcome(self, chunk: C, result: SuperImages | PipelineError) -> Iterator[tuple[VideoFile, Event]]:
        entry = self._open.get(chunk.video_id)
        if entry is None:  # given up meanwhile
            return
        if isinstance(result, PipelineError):
            logger.info("%s: super images %d ff.: %s; decoding it on the CPU", chunk.video_id, chunk.first, result)
            del self._open[chunk.video_id]
            self._given_up.add(chunk.video_id)
            self.again.append(entry.file)
            yield entry.file, Restarted()
            detail = f"DALI failed ({result}): made by worker processes on the CPU"
            yield entry.file, Notice(chunk.video_id, "decoder", detail)
            return
        entry.in_decoder -= 1
        yield entry.file, result
        yield from self._close_if_complete(entry)

    def _close_if_complete(self, entry: _Video) -> Iterator[tuple[VideoFile, Event]]:
        if entry.delivered and not entry.in_decoder:
            del self._open[entry.file.video_id]
            yield entry.file, Finished()

    def _update_gauge(self) -> None:
        if self._gauge is not None:
            self._gauge.value = self._room()
