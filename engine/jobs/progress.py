"""Counts of a running job in, a progress bar (terminal) or a line every ten seconds (elsewhere) and a summary out."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, final

import rich.console
import rich.progress

from ...dali_pipes.contract import Failure, Notice, VideoFile
from ...dali_pipes.places import size_bytes
from .failures import FailureLog
from .notices import NoticeLog

LINE_EVERY_S = 10.0
SHOW_EVERY_S = 0.1  # a job of the books alone would spend a tenth of its time on showing
console = rich.console.Console(stderr=True)  # logs that go through it do not break the bar


@dataclasses.dataclass(frozen=True)
class JobSummary:
    """What a job did.

    Attributes:
        action: a verb, "embedded".
        unit: what it counts, "videos".
        done: videos (or queries) finished in this run.
        super_images: of them; None where the job has none.
        failures: videos (or queries) lost in this run.
        finished_before: left out because an earlier run had finished them, or another job at the same time.
        seconds: how long it took.
        failures_file: where the failures are listed.
        encoder_s: of them, the model was at work; None where the job has no model.
        noticed: videos of this run that were made, but not as a reader would expect.
        notices: of them, so many by kind of notice.
        notices_file: where the notices are listed.
        stopped: the error that ended the work for this store before its end, while others went on.
        stores: of a job that fills several stores, what it did for each; its own counts are sums over them.
    """

    action: str
    unit: str
    done: int
    super_images: int | None
    failures: int
    finished_before: int
    seconds: float
    failures_file: str
    encoder_s: float | None = None
    noticed: int = 0
    notices: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notices_file: str = ""
    stopped: str = ""
    stores: tuple[JobSummary, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Something is there, from this run or an earlier one: a resumed job whose rest is unreadable did not fail.

        A job that had to stop for one of its stores failed.
        """
        stopped = self.stopped or any(store.stopped for store in self.stores)
        return self.done + self.finished_before > 0 and not stopped

    def __str__(self) -> str:
        """One line, or one for each store."""
        if self.stores:
            return "\n".join(f"{pathlib.PurePath(store.failures_file).parent}: {store}" for store in self.stores)
        seconds = max(self.seconds, 1e-9)
        parts = [f"{self.action} {self.done:,} {self.unit}"]
        if self.super_images is not None:
            parts[0] += f" ({self.super_images:,} super images)"
        parts[0] += f" in {seconds:.1f} s, {self.done / seconds:.1f} {self.unit}/s"
        if self.super_images is not None:
            parts[0] += f", {self.super_images / seconds:.1f} super images/s"
        if self.encoder_s is not None:
            parts.append(f"the encoder was busy {self.encoder_s / seconds:.0%} of the time")
        if self.finished_before:
            parts.append(f"{self.finished_before:,} were finished before")
        if self.noticed:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.notices.items())
            parts.append(f"{self.noticed:,} with notices ({kinds}), see {self.notices_file}")
        parts.append(f"{self.failures:,} failed, see {self.failures_file}" if self.failures else "none failed")
        if self.stopped:
            parts.append(f"stopped before its end: {self.stopped}")
        return "; ".join(parts)

    @classmethod
    def of_stores(cls, stores: Sequence[JobSummary]) -> JobSummary:
        """What a job did that filled several stores at once."""
        notices: collections.Counter[str] = collections.Counter()
        for store in stores:
            notices.update(store.notices)
        return cls(
            action=stores[0].action,
            unit=stores[0].unit,
            done=sum(store.done for store in stores),
            super_images=sum(store.super_images or 0 for store in stores),
            failures=sum(store.failures for store in stores),
            finished_before=sum(store.finished_before for store in stores),
            seconds=max(store.seconds for store in stores),
            failures_file=", ".join(store.failures_file for store in stores),
            encoder_s=sum(store.encoder_s or 0.0 for store in stores),
            noticed=sum(store.noticed for store in stores),
            notices=dict(notices.most_common()),
            notices_file=", ".join(store.notices_file for store in stores),
            stores=tuple(stores),
        )


@dataclasses.dataclass(frozen=True)
class NodeCounts:
    """What a node of a cluster does, and has done in this run.

    Attributes:
        workers: that are alive there, or starting.
        in_work: videos that they have.
        done: videos that they have finished.
        super_images: of these.
        failed: videos that were lost there.
        deaths: of workers.
    """

    workers: int = 0
    in_work: int = 0
    done: int = 0
    super_images: int = 0
    failed: int = 0
    deaths: int = 0


@dataclasses.dataclass(frozen=True)
class Counts:
    """How far a running job is, in videos (or queries).

    Attributes:
        action: see JobSummary.
        total: to do in this run, without those that the listing has lost already.
        done: finished in this run.
        failed: lost in this run, of `total`.
        finished_before: see JobSummary.
        super_images: of `done` and of videos in work; None where the job has none.
        failed_by_stage: all failures of this run, those of the listing included.
        encoder_s: seconds for which the model was at work.
        seconds: since the job began.
        handed_out: videos that were taken in work.
        video_bytes: of their files.
        nodes: of a cluster, by name; none on one machine.
    """

    action: str
    total: int
    done: int
    failed: int
    finished_before: int
    super_images: int | None
    failed_by_stage: Mapping[str, int]
    encoder_s: float
    seconds: float
    handed_out: int = 0
    video_bytes: int = 0
    nodes: Mapping[str, NodeCounts] = dataclasses.field(default_factory=dict)

    @property
    def in_work(self) -> int:
        """Handed out, and neither finished nor lost."""
        return max(0, self.handed_out - self.done - self.failed)

    @property
    def waiting(self) -> int:
        """Not handed out yet."""
        return max(0, self.left - self.in_work)

    @property
    def left(self) -> int:
        """Neither finished nor lost."""
        return self.total - self.done - self.failed

    def to_json(self) -> dict[str, Any]:
        """The fields and `left`."""
        return dataclasses.asdict(self) | {"left": self.left}

    @classmethod
    def of_json(cls, counts: dict[str, Any]) -> Counts:
        """What `to_json` wrote; raises KeyError or TypeError where it did not."""
        fields = {field.name: counts[field.name] for field in dataclasses.fields(cls) if field.name != "nodes"}
        nodes = {name: NodeCounts(**node) for name, node in counts.get("nodes", {}).items()}  # older records have none
        return cls(**fields, nodes=nodes)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a job, after everything finished was stored; `summary` says what that is."""

    def __init__(self, summary: JobSummary) -> None:
        super().__init__(str(summary))
        self.summary = summary


class _Bars:
    """The bars of all tallies of this process: a terminal shows one block of them at a time."""

    def __init__(self) -> None:
        self._block: rich.progress.Progress | None = None

    def add(self, description: str, total: int) -> tuple[rich.progress.Progress, rich.progress.TaskID]:
        """Another bar; the first one opens the block."""
        if self._block is None:
            self._block = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}", markup=False),
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[rates]}"),
                rich.progress.TimeRemainingColumn(),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )
            self._block.start()
        return self._block, self._block.add_task(description, total=total, rates="")

    def remove(self, task: rich.progress.TaskID) -> None:
        """A bar goes; the last one closes the block."""
        if self._block is not None:
            self._block.remove_task(task)
            if not self._block.tasks:
                self._block.stop()
                self._block = None


_BARS = _Bars()


@final
class Tally:
    """Counts and shows what a job does, and records its failures and notices.

    Args:
        action, unit: see JobSummary.
        total: videos (or queries) to do in this run.
        failures: where failures go.
        notices: where notices go; None where the job has none.
        finished_before: see JobSummary.
        with_super_images: show and count them.
        name: of the job, shown where there are several at once.
    """

    def __init__(
        self,
        action: str,
        unit: str,
        total: int,
        failures: FailureLog,
        notices: NoticeLog | None = None,
        *,
        finished_before: int = 0,
        with_super_images: bool = True,
        name: str = "",
    ) -> None:
        self._name = name
        self._action, self._unit = action, unit
        self._total = total
        self._failures = failures
        self._notices = notices
        self._finished_before = finished_before
        self._done = self._lost = 0
        self._handed_out = self._video_bytes = 0
        self._super_images: int | None = 0 if with_super_images else None
        self._encoder_s: float | None = None
        self._nodes: Callable[[], Mapping[str, NodeCounts]] = dict
        self._started = self._last_line = self._shown_at = time.monotonic()

    def __enter__(self) -> Tally:
        self._bar, self._task = _BARS.add(f"{self._name} {self._unit}".strip(), self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _BARS.remove(self._task)

    def hand_out(self, videos: Iterable[VideoFile]) -> Iterator[VideoFile]:
        """The videos one by one, as they are taken in work."""
        for video in videos:
            self.add_handed_out(video)
            yield video

    def watch_nodes(self, nodes: Callable[[], Mapping[str, NodeCounts]]) -> None:
        """Asks `nodes`, perhaps from another thread, for those of a cluster whenever somebody wants to know."""
        self._nodes = nodes

    def add_handed_out(self, video: VideoFile) -> None:
        """A video is taken in work."""
        self._handed_out += 1
        self._video_bytes += size_bytes(video.place)

    def add_super_images(self, count: int) -> None:
        """Super images were made or embedded; fewer than none: they went with a video that is lost or comes again."""
        self._super_images = (self._super_images or 0) + count
        self._show()

    def add_done(self, count: int = 1) -> None:
        """Videos (or queries) are finished."""
        self._done += count
        self._show()

    def add_finished_elsewhere(self) -> None:
        """Another job has finished a video of this run."""
        self._finished_before += 1
        self._total -= 1
        self._bar.update(self._task, total=self._total)

    def add_failure(self, failure: Failure) -> None:
        """A video of this run is lost."""
        self.drop_notices(failure.video_id)
        self._failures.add(failure)
        self._lost += 1
        self._show()

    def add_notice(self, notice: Notice) -> None:
        """Something is to be known about a video, which may still get lost."""
        if self._notices is None:
            raise ValueError(f"a notice ({notice}) in a job that has none")
        self._notices.add(notice)

    def drop_notices(self, video_id: str) -> None:
        """The video is lost, or comes again from the start."""
        if self._notices is not None:
            self._notices.drop({video_id})

    def add_encoder_time(self, seconds: float) -> None:
        """The model was at work for so long."""
        self._encoder_s = (self._encoder_s or 0.0) + seconds

    def summary(self) -> JobSummary:
        """What was done so far."""
        return JobSummary(
            action=self._action,
            unit=self._unit,
            done=self._done,
            super_images=self._super_images,
            failures=self._failures.count,
            finished_before=self._finished_before,
            seconds=time.monotonic() - self._started,
            failures_file=str(self._failures.path),
            encoder_s=self._encoder_s,
            **_summarise_notices(self._notices),
        )

    def counts(self) -> Counts:
        """How far the job is; other threads may ask."""
        return Counts(
            action=self._action,
            total=self._total,
            done=self._done,
            failed=self._lost,
            finished_before=self._finished_before,
            super_images=self._super_images,
            failed_by_stage=dict(self._failures.stages),
            encoder_s=self._encoder_s or 0.0,
            seconds=time.monotonic() - self._started,
            handed_out=self._handed_out,
            video_bytes=self._video_bytes,
            nodes=self._nodes(),
        )

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._shown_at < SHOW_EVERY_S:
            return
        self._shown_at = now
        seconds = max(now - self._started, 1e-9)
        gone = self._done + self._lost
        rates = f"{self._done / seconds:.1f} {self._unit}/s"
        if self._super_images is not None:
            rates += f", {self._super_images / seconds:.1f} super images/s"
        if self._failures.count:
            rates += f", {self._failures.count} failed"
        if console.is_terminal:
            self._bar.update(self._task, completed=gone, rates=rates)
        elif now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            left = f", {as_duration(seconds / gone * (self._total - gone))} left" if gone else ""
            name = f"{self._name}: " if self._name else ""
            print(f"{name}{gone}/{self._total} {self._unit}, {rates}{left}", file=sys.stderr, flush=True)  # noqa: T201 - the job of this line


def _summarise_notices(notices: NoticeLog | None) -> dict[str, Any]:
    if notices is None:
        return {}
    return {"noticed": notices.videos, "notices": notices.kinds, "notices_file": str(notices.path)}


def as_duration(seconds: float) -> str:
    """H:MM:SS."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
