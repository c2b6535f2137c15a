"""Videos (or JPEG folders) in, their super images out, decoded by DALI, by worker processes, or by both (hybrid).

Worker processes read and prune, and hand encoded runs to DALI's threads; what DALI cannot take they decode themselves.
In hybrid mode they also decode whatever DALI has no room for: both drain the same queue, no share is fixed beforehand.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Generator, Iterable, Sequence

from ..contract import Encoded, Failure, Notice, PipelineError, Restarted, SuperImages, VideoFile
from ..cpu.tasks import count_super_images
from ..processes import pool
from ..processes.pool import Finished, Woken, Work
from .gauge import Gauge
from .pipeline_threads import Outcome, PipelineThreads

logger = logging.getLogger(__name__)


Event = tuple[VideoFile, "SuperImages | Notice | Finished | Failure | Restarted"]
_WorkerEvent = tuple[VideoFile, "Encoded | SuperImages | Notice | Finished | Failure | Woken | Restarted"]


@dataclasses.dataclass
class _Video:
    file: VideoFile
    in_decoder: int = 0  # runs that DALI has not given back
    delivered: bool = False  # its worker has handed over everything


def run(
    videos: Iterable[VideoFile],
    works: Sequence[Work[Encoded | SuperImages]],
    fallback_works: Sequence[Work[SuperImages]],
    pipelines: PipelineThreads,
    *,
    num_workers: int,
    time_limit_s: float = pool.DEFAULT_TIME_LIMIT_S,
    gauge: Gauge | None = None,
    room: Callable[[], int] | None = None,
) -> Generator[Event, None, None]:
    """Yields runs of super images and notices, then Finished or Failure, of every video; its runs come in any order.

    A video with a run that DALI cannot decode is taken back (Restarted) and decoded by `fallback_works` at the end; it
    fails only if they fail, too.

    Args:
        videos: read lazily.
        works: yield Encoded runs for DALI, or super images; see `pool.run`.
        fallback_works: yield super images.
        pipelines: where Encoded runs go.
        num_workers, time_limit_s: see `pool.run`; the time limit holds for DALI, too.
        gauge: is kept at the number of runs that the workers may hand over.
        room: tells that number; default, what the pipelines have room for.

    Raises:
        GridClipError: as `pool.run`; or DALI hangs, or cannot be started.
    """
    state = _State(pipelines, gauge, room or (lambda: pipelines.room))
    events: Generator[_WorkerEvent, None, None] = pool.run(
        videos,
        works,
        num_workers=num_workers,
        time_limit_s=time_limit_s,
        size=count_super_images,
        wake=pipelines.wake,
    )
    with contextlib.closing(events) as results:
        for video, result in results:
            if isinstance(result, Woken):
                yield from state.collect()
            elif isinstance(result, Encoded):
                while pipelines.full:
                    yield from state.collect(time_limit_s)
                state.give(video, result)
            else:
                yield from state.received(video, result)
    while pipelines.busy:
        yield from state.collect(time_limit_s)
    for video, result in pool.run(
        state.again,
        fallback_works,
        num_workers=num_workers,
        time_limit_s=time_limit_s,
        size=count_super_images,
    ):
        assert not isinstance(result, Woken)
        yield video, result


class _State:
    """The videos that are under way.

    Attributes:
        again: videos with a run that DALI could not decode.
    """

    def __init__(self, pipelines: PipelineThreads, gauge: Gauge | None, room: Callable[[], int]) -> None:
        self._pipelines = pipelines
        self._gauge = gauge
        self._room = room
        self._open: dict[str, _Video] = {}
        self._given_up: set[str] = set()  # failed or taken back: what still comes of them is dropped
        self.again: list[VideoFile] = []

    def give(self, video: VideoFile, run: Encoded) -> None:
        """A worker has handed over a run for DALI."""
        if video.video_id in self._given_up:
            return
        self._open.setdefault(video.video_id, _Video(video)).in_decoder += 1
        self._pipelines.give(run)
        self._update_gauge()

    def received(
        self, video: VideoFile, result: SuperImages | Notice | Restarted | Finished | Failure
    ) -> Generator[Event, None, None]:
        """A worker has decoded a run, has something to say, has delivered everything, or has failed."""
        if video.video_id in self._given_up:
            return
        if isinstance(result, Finished):
            entry = self._open.setdefault(video.video_id, _Video(video))
            entry.delivered = True
            yield from self._close_if_complete(entry)
            return
        if isinstance(result, Failure):
            self._open.pop(video.video_id, None)
            self._given_up.add(video.video_id)
        yield video, result

    def collect(self, time_limit_s: float | None = None) -> Generator[Event, None, None]:
        """Passes on what DALI has decoded; with a time limit, waits for it."""
        outcomes = self._pipelines.collect(time_limit_s=time_limit_s)
        self._update_gauge()
        for outcome in outcomes:
            yield from self._decoded(outcome)

    def _decoded(self, outcome: Outcome) -> Generator[Event, None, None]:
        run, result = outcome
        entry = self._open.get(run.video_id)
        if entry is None:  # given up meanwhile
            return
        if isinstance(result, PipelineError):
            logger.info("%s: super images %d ff.: %s; decoding it on the CPU", run.video_id, run.first, result)
            del self._open[run.video_id]
            self._given_up.add(run.video_id)
            self.again.append(entry.file)
            yield entry.file, Restarted()
            detail = f"DALI failed ({result}): made by worker processes on the CPU"
            yield entry.file, Notice(run.video_id, "decoder", detail)
            return
        entry.in_decoder -= 1
        yield entry.file, result
        yield from self._close_if_complete(entry)

    def _close_if_complete(self, entry: _Video) -> Generator[Event, None, None]:
        if entry.delivered and not entry.in_decoder:
            del self._open[entry.file.video_id]
            yield entry.file, Finished()

    def _update_gauge(self) -> None:
        if self._gauge is not None:
            self._gauge.value = self._room()
