"""Counts of a running job in, Prometheus's metrics at a port out, for as long as the job runs.

What is shown is read when somebody asks: an unwatched port costs nothing. What the worker processes use comes from
Linux's /proc; elsewhere these metrics are missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pathlib
import time
from collections.abc import Callable, Iterator

from ... import GridClipError
from .heartbeat import Rate
from .progress import Counts

logger = logging.getLogger(__name__)

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def shown(counts: Callable[[], Counts], address: tuple[str, int] | None) -> Iterator[None]:
    """Serves the metrics of a job at host and port; nothing where there is no address.

    Raises:
        GridClipError: the extra `metrics` is not installed, or the port is taken.
    """
    if address is None:
        yield
        return
    try:
        import prometheus_client
    except ImportError as error:
        raise GridClipError(
            "`metrics_port` needs prometheus_client (extra `metrics`): pip install prometheus_client, or leave it out"
        ) from error
    host, port = address
    registry = prometheus_client.CollectorRegistry()
    registry.register(_Collector(counts))  # type: ignore[arg-type]  # it need not inherit
    try:
        server, thread = prometheus_client.start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise GridClipError(
            f"`metrics_port={port}` at {host} cannot be used: {error.strerror or error}; give another port, or 0 for "
            "any free one"
        ) from error
    logger.warning("metrics at http://%s:%d/metrics", host, server.server_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Collector:
    """Makes the metrics of one moment."""

    def __init__(self, counts: Callable[[], Counts]) -> None:
        self._counts = counts
        self._video_rate, self._image_rate = Rate(), Rate()
        self._add_to_rates(counts())

    def collect(self) -> Iterator[object]:
        """The families of metrics; called for every scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counts = self._counts()
        videos_per_s, images_per_s = self._add_to_rates(counts)
        counters = {
            "videos_done": ("Videos that are finished.", counts.done),
            "super_images": ("Super images that were made or embedded.", counts.super_images or 0),
            "encoder_busy_seconds": ("Seconds for which the model was at work.", counts.encoder_s),
            "video_bytes": ("Bytes of the files of the videos that were taken in work.", counts.video_bytes),
            **_use(os.getpid()),
        }
        gauges = {
            "videos_left": ("Videos neither finished nor lost.", counts.left),
            "videos_in_work": ("Videos that are being decoded or embedded.", counts.in_work),
            "videos_waiting": ("Videos that nobody has taken yet: the depth of the queue.", counts.waiting),
            "videos_finished_before": ("Videos of an earlier run, or of another job.", counts.finished_before),
            "videos_per_second": ("Lately.", videos_per_s),
            "super_images_per_second": ("Lately.", images_per_s),
            "eta_seconds": ("Until the job is ready, at the rate of lately; NaN before there is one.", float("nan")),
        }
        if videos_per_s:
            gauges["eta_seconds"] = (gauges["eta_seconds"][0], counts.left / videos_per_s)
        for name, (what, value) in counters.items():
            yield CounterMetricFamily(f"gridclip_job_{name}", what, value=value)
        for name, (what, value) in gauges.items():
            yield GaugeMetricFamily(f"gridclip_job_{name}", what, value=value)
        failed = CounterMetricFamily("gridclip_job_videos_failed", "Videos that are lost, by stage.", labels=["stage"])
        for stage, count in counts.failed_by_stage.items():
            failed.add_metric([stage], count)
        yield failed

    def _add_to_rates(self, counts: Counts) -> tuple[float, float]:
        now_s = time.monotonic()
        videos_per_s = self._video_rate.add(counts.done + counts.failed, now_s)
        return videos_per_s or 0.0, self._image_rate.add(counts.super_images or 0, now_s) or 0.0


def _use(pid: int) -> dict[str, tuple[str, float]]:
    """What the processes that a job has started use in all; counters by name, none where there is no /proc.

    What those that have ended used, the system adds to their parent's figures.
    """
    processes = _processes()
    if pid not in processes:
        return {}
    family = [pid, *_descendants(pid, processes)]
    return {
        "worker_cpu_seconds": (
            "CPU seconds of the processes that the job has started: decoding, on the CPU.",
            sum(processes[each].children_s for each in family) + sum(processes[each].own_s for each in family[1:]),
        ),
        "storage_read_bytes": (
            "Bytes that the job has read from disks; what was in memory already is not counted.",
            sum(map(_read_bytes, family)),
        ),
    }


@dataclasses.dataclass(frozen=True)
class _Process:
    """CPU seconds of a process, and of those of its children that have ended."""

    parent: int
    own_s: float
    children_s: float


def _processes() -> dict[int, _Process]:
    """All processes of this machine by id."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            user, system, children_user, children_system = (int(field) / TICKS_PER_S for field in fields[11:15])
            found[int(path.parent.name)] = _Process(int(fields[1]), user + system, children_user + children_system)
    return found


def _descendants(pid: int, processes: dict[int, _Process]) -> list[int]:
    children = [child for child, process in processes.items() if process.parent == pid]
    return [each for child in children for each in (child, *_descendants(child, processes))]


def _read_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = pathlib.Path(f"/proc/{pid}/io").read_text(encoding="utf-8").splitlines()
        return int(dict(line.split(": ") for line in lines)["read_bytes"])
    return 0
