"""The output folder of jobs in, how far they are out: done, left, failed and why, and whether one is alive."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re
import shlex
import time
from collections.abc import Collection, Sequence
from typing import Any, Literal

from ... import GridClipError
from ...dali_pipes import ids
from ..store.record import RECORD_FILE
from ..store.store import Store
from .heartbeat import find_records, process_lives
from .line_file import Record, find_files, read_all
from .progress import Counts, NodeCounts, as_duration

REASONS_SHOWN = 10
State = Literal["running", "finished", "interrupted", "stopped", "died"]


@dataclasses.dataclass(frozen=True)
class JobStatus:
    """One job, as it last said.

    Attributes:
        state: running; finished; interrupted (Ctrl-C, or a scheduler's signal); stopped (by `error`); died (it was
            killed, or its machine is gone).
        error: what stopped it.
        host, pid: where it runs, or ran.
        num_shards, shard_id: which job it is; 1 and 0 where it is alone.
        command: what was typed.
        silent_s: seconds since its last sign of life.
        videos_per_s: lately; of a job that is over, in all. None: it has only begun.
        left_s: at this rate, None where there is none or nothing to wait for.
        counts: what it has done.
    """

    state: State
    error: str | None
    host: str
    pid: int
    num_shards: int
    shard_id: int
    command: str
    silent_s: float
    videos_per_s: float | None
    left_s: float | None
    counts: Counts


@dataclasses.dataclass(frozen=True)
class FailureGroup:
    """Failures of one stage whose reasons differ in names and numbers only: how many, and the first as an example."""

    stage: str
    count: int
    video_id: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Status:
    """How far the jobs on one output are.

    Attributes:
        folder: the store, or what `superimages` has as its save_dir.
        stored: videos in the store; None where the folder is none.
        left: videos that the newest jobs have neither finished nor lost; None where no job has said.
        failed: videos that have failed and are not stored.
        videos_per_s: of all running jobs, None where none has a rate.
        left_s: seconds until the slowest of them is ready at its rate.
        jobs: those that have left a record, shards by their number.
        failures: by stage, most frequent first.
    """

    folder: str
    stored: int | None
    left: int | None
    failed: int
    videos_per_s: float | None
    left_s: float | None
    jobs: tuple[JobStatus, ...]
    failures: tuple[FailureGroup, ...]

    @property
    def alive(self) -> bool:
        """Whether a job is running."""
        return any(job.state == "running" for job in self.jobs)

    def to_json(self) -> dict[str, Any]:
        """The status as plain dicts and lists."""
        jobs = [dataclasses.asdict(job) | {"counts": job.counts.to_json()} for job in self.jobs]
        return dataclasses.asdict(self) | {"alive": self.alive, "jobs": jobs}

    def __str__(self) -> str:
        """Some lines."""
        stored = "" if self.stored is None else f": {self.stored:,} videos stored"
        lines = [f"{self.folder}{stored}", *(line for job in self.jobs for line in _as_lines(job))]
        if not self.jobs:
            lines.append("no job has left a record here (job.json)")
        if len(self.jobs) > 1 and self.left is not None:
            lines.append("in all: " + ", ".join(_progress(self.left, self.videos_per_s, self.left_s)))
        lines.append(f"{self.failed:,} failed" if self.failed else "none failed")
        lines += [
            f"  {group.count:,} {group.stage}: {group.reason} ({group.video_id})"
            for group in self.failures[:REASONS_SHOWN]
        ]
        if len(self.failures) > REASONS_SHOWN:
            lines.append(f"  ... and {len(self.failures) - REASONS_SHOWN:,} other reasons: see failures.jsonl")
        return "\n".join(lines)


def read_status(folder: pathlib.Path) -> Status:
    """The status of a store, or of a folder of super images; nothing is written, and jobs may go on.

    Raises:
        GridClipError: there is neither, and no job has left anything; or the store cannot be read.
    """
    is_store = (folder / RECORD_FILE).is_file()
    stored = Store.open(folder).finished_videos() if is_store else None
    now_s = time.time()
    jobs = [_job(record, now_s) for record in sorted(find_records(folder), key=_by_shard)]
    if not is_store and not jobs and not find_files(folder, "failures"):
        raise GridClipError(
            f"no job has written to {folder}: give the `store` of embed-videos or embed-images, or the folder that "
            "superimages writes to"
        )
    newest = _newest(jobs)
    rates = [job.videos_per_s for job in newest if job.state == "running" and job.videos_per_s is not None]
    left_s = [job.left_s for job in newest if job.state == "running" and job.left_s is not None]
    failures = _standing(read_all(folder, "failures"), stored or ())
    return Status(
        folder=str(folder),
        stored=None if stored is None else len(stored),
        left=_left(newest),
        failed=len(failures),
        videos_per_s=sum(rates) if rates else None,
        left_s=max(left_s, default=None),
        jobs=tuple(jobs),
        failures=_group(failures),
    )


def _job(record: dict[str, Any], now_s: float) -> JobStatus:
    counts = Counts.of_json(record["counts"])
    state, error = _state(record, now_s)
    rate = record["videos_per_s"] if state == "running" else (counts.done + counts.failed) / max(counts.seconds, 1e-9)
    return JobStatus(
        state=state,
        error=error,
        host=record["host"],
        pid=record["pid"],
        num_shards=record["num_shards"],
        shard_id=record["shard_id"],
        command=ids.printable(shlex.join(map(str, record["command"]))),
        silent_s=max(0.0, now_s - record["beat_s"]),
        videos_per_s=rate,
        left_s=counts.left / rate if rate and counts.left and state == "running" else None,
        counts=counts,
    )


def _state(record: dict[str, Any], now_s: float) -> tuple[State, str | None]:
    if process_lives(record, now_s):
        return "running", None
    match record["outcome"]:
        case None:
            return "died", None
        case "finished":
            return "finished", None
        case "interrupted":
            return "interrupted", None
        case error:
            return "stopped", str(error)


def _by_shard(record: dict[str, Any]) -> tuple[int, int, float]:
    return record["num_shards"], record["shard_id"], record["started_s"]


def _newest(jobs: Sequence[JobStatus]) -> list[JobStatus]:
    """The jobs that share the newest run: those in as many shards; of whole ones the running, or the last."""
    if not jobs:
        return []
    last = min(jobs, key=lambda job: job.silent_s)
    if last.num_shards > 1:
        return [job for job in jobs if job.num_shards == last.num_shards]
    return [job for job in jobs if job.num_shards == 1 and job.state == "running"] or [last]


def _left(newest: Sequence[JobStatus]) -> int | None:
    """Shards have each their own videos; whole jobs on one output (superimages) share those of the longest list."""
    if not newest:
        return None
    if newest[0].num_shards > 1:
        return sum(job.counts.left for job in newest)
    return max(0, max(job.counts.total for job in newest) - sum(job.counts.total - job.counts.left for job in newest))


def _standing(records: Sequence[Record], stored: Collection[str]) -> list[Record]:
    """The failures of videos that are not stored, the last one of each; captions have no video of their own."""
    by_video: dict[tuple[object, ...], Record] = {}
    for record in records:
        video_id, stage = record.get("video_id"), record.get("stage")
        if stage == "caption":
            by_video[video_id, record.get("reason")] = record
        elif video_id not in stored:
            by_video[(video_id,)] = record
    return list(by_video.values())


def _group(failures: Sequence[Record]) -> tuple[FailureGroup, ...]:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    examples: dict[tuple[str, str], tuple[str, str]] = {}
    for failure in failures:
        stage, video_id, reason = (str(failure.get(name, "?")) for name in ("stage", "video_id", "reason"))
        kind = stage, _kind(reason, video_id)
        counts[kind] += 1
        examples.setdefault(kind, (video_id, reason))
    return tuple(FailureGroup(kind[0], count, *examples[kind]) for kind, count in counts.most_common())


def _kind(reason: str, video_id: str) -> str:
    """A reason without what differs from video to video: its id, paths and numbers."""
    without_paths = re.sub(r"\S*/\S*", "/", reason)
    without_id = re.sub(rf"(?<!\w){re.escape(video_id)}(?!\w)", "*", without_paths)
    return re.sub(r"\d+", "#", without_id)


def _as_lines(job: JobStatus) -> list[str]:
    """A line for the job, and below it one for each node of its cluster."""
    return [_as_line(job), *(f"  node {name}: {_node(node)}" for name, node in job.counts.nodes.items())]


def _node(node: NodeCounts) -> str:
    parts = [f"{node.workers} workers", f"{node.in_work:,} videos in work", f"{node.done:,} done"]
    parts += [f"{node.failed:,} failed"] if node.failed else []
    parts += [f"{node.deaths:,} deaths of workers"] if node.deaths else []
    return ", ".join(parts)


def _as_line(job: JobStatus) -> str:
    shard = f" {job.shard_id} of {job.num_shards}" if job.num_shards > 1 else ""
    where = f"process {job.pid} on {job.host}"
    ago = f"{as_duration(job.silent_s)} ago"
    states: dict[State, str] = {
        "running": f"running ({where}, last sign of life {ago})",
        "finished": f"finished {ago}",
        "interrupted": f"interrupted {ago}: go on with `resume=True`",
        "stopped": f"stopped {ago}: {job.error}",
        "died": f"died ({where}, last sign of life {ago}): go on with `resume=True`",
    }
    counts = job.counts
    parts = [f"{counts.action} {counts.done:,} of {counts.total:,} videos"]
    if counts.finished_before:
        parts.append(f"{counts.finished_before:,} finished before")
    if failed := sum(counts.failed_by_stage.values()):
        parts.append(f"{failed:,} failed")
    return (
        f"job{shard} {states[job.state]}; {', '.join([*parts, *_progress(counts.left, job.videos_per_s, job.left_s)])}"
    )


def _progress(left: int, videos_per_s: float | None, left_s: float | None) -> list[str]:
    parts = [f"{left:,} left"]
    if videos_per_s is not None:
        parts.append(f"{videos_per_s:.1f} videos/s")
    if left_s is not None:
        parts.append(f"ready in {as_duration(left_s)}")
    return parts
