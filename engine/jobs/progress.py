"""Counts of a running job in, a progress bar (terminal) or a line every ten seconds (elsewhere) and a summary out."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, final

import rich.console
import rich.progress

from ...dali_pipes.contract import Failure, Notice
from .failures import FailureLog
from .notices import NoticeLog

LINE_EVERY_S = 10.0
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

    @property
    def succeeded(self) -> bool:
        """Something is there, from this run or an earlier one: a resumed job whose rest is unreadable did not fail."""
        return self.done + self.finished_before > 0

    def __str__(self) -> str:
        """One line."""
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
        return "; ".join(parts)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a job, after everything finished was stored; `summary` says what that is."""

    def __init__(self, summary: JobSummary) -> None:
        super().__init__(str(summary))
        self.summary = summary


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
    ) -> None:
        self._action, self._unit = action, unit
        self._total = total
        self._failures = failures
        self._notices = notices
        self._finished_before = finished_before
        self._done = self._lost = 0
        self._super_images: int | None = 0 if with_super_images else None
        self._encoder_s: float | None = None
        self._started = self._last_line = time.monotonic()
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[rates]}"),
            rich.progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(unit, total=total, rates="")

    def __enter__(self) -> Tally:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

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

    def _show(self) -> None:
        now = time.monotonic()
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
            left = f", {_duration(seconds / gone * (self._total - gone))} left" if gone else ""
            print(f"{gone}/{self._total} {self._unit}, {rates}{left}", file=sys.stderr, flush=True)  # noqa: T201 - the job of this line


def _summarise_notices(notices: NoticeLog | None) -> dict[str, Any]:
    if notices is None:
        return {}
    return {"noticed": notices.videos, "notices": notices.kinds, "notices_file": str(notices.path)}


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
