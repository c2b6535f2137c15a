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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from ... import GridClipError
from .heartbeat import Rate
from .progress import Counts, NodeCounts

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Metric = tuple[str, Callable[[T], float]]  # what it is, and how it is taken

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def shown(counts: Callable[[], Counts], address: tuple[str, int] | None) -> Iterator[None]:
    """Serves the metrics of a job at host and port; nothing where there is no address.

    Raises:
        GridClipError: the extra `metrics` is not installed, or the port is taken.
    """
    with shown_by_store({"": counts}, address):
        yield


@contextlib.contextmanager
def shown_by_store(counts: Mapping[str, Callable[[], Counts]], address: tuple[str, int] | None) -> Iterator[None]:
    """The same of a job that fills several stores, by their names: the label `store` of each count of videos."""
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
    """Makes the metrics of one moment.

    Args:
        counts: of the job, or of each of its stores by name.
    """

    def __init__(self, counts: Mapping[str, Callable[[], Counts]]) -> None:
        self._stores = {name: _Watched(each) for name, each in counts.items()}

    def collect(self) -> Iterator[object]:
        """The families of metrics; called for every scrape."""
        from prometheus_client.core import CounterMetricFamily

        stores = {name: watched.look() for name, watched in self._stores.items()}
        labels = {name: {"store": name} if name else {} for name in stores}
        columns = list(labels[next(iter(labels))])
        rows = [(list(labels[name].values()), seen) for name, seen in stores.items()]
        yield from _families("gridclip_job", columns, _COUNTERS, _GAUGES, rows)
        for metric, (what, used) in _use(os.getpid()).items():
            yield CounterMetricFamily(f"gridclip_job_{metric}", what, value=used)
        failed = CounterMetricFamily(
            "gridclip_job_videos_failed", "Videos that are lost, by stage.", labels=[*columns, "stage"]
        )
        for name, seen in stores.items():
            for stage, count in seen.counts.failed_by_stage.items():
                failed.add_metric([*labels[name].values(), stage], count)
        yield failed
        nodes = [([name], node) for seen in stores.values() for name, node in seen.counts.nodes.items()]
        if nodes:  # of a cluster, which works for one store
            yield from _families("gridclip_node", ["node"], _NODE_COUNTERS, _NODE_GAUGES, nodes)


def _families(
    prefix: str,
    labels: Sequence[str],
    counters: Mapping[str, _Metric[T]],
    gauges: Mapping[str, _Metric[T]],
    rows: Sequence[tuple[list[str], T]],
) -> Iterator[object]:
    """Families of metrics; a row has values of the labels, and what the metrics are taken from."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for kind, metrics in ((CounterMetricFamily, counters), (GaugeMetricFamily, gauges)):
        for metric, (what, value) in metrics.items():
            family = kind(f"{prefix}_{metric}", what, labels=labels)
            for values, seen in rows:
                family.add_metric(values, value(seen))
            yield family


@dataclasses.dataclass(frozen=True)
class _Seen:
    """The counts of one moment, and the rates of lately."""

    counts: Counts
    videos_per_s: float
    images_per_s: float

    @property
    def eta_s(self) -> float:
        return self.counts.left / self.videos_per_s if self.videos_per_s else float("nan")


class _Watched:
    """Counts that are looked at from time to time."""

    def __init__(self, counts: Callable[[], Counts]) -> None:
        self._counts = counts
        self._video_rate, self._image_rate = Rate(), Rate()
        self.look()

    def look(self) -> _Seen:
        """How far the job is now."""
        counts, now_s = self._counts(), time.monotonic()
        videos_per_s = self._video_rate.add(counts.done + counts.failed, now_s)
        return _Seen(counts, videos_per_s or 0.0, self._image_rate.add(counts.super_images or 0, now_s) or 0.0)


_COUNTERS: dict[str, _Metric[_Seen]] = {
    "videos_done": ("Videos that are finished.", lambda seen: seen.counts.done),
    "super_images": ("Super images that were made or embedded.", lambda seen: seen.counts.super_images or 0),
    "encoder_busy_seconds": ("Seconds for which the model was at work.", lambda seen: seen.counts.encoder_s),
    "video_bytes": (
        "Bytes of the files of the videos that were taken in work.",
        lambda seen: seen.counts.video_bytes,
    ),
}
_GAUGES: dict[str, _Metric[_Seen]] = {
    "videos_left": ("Videos neither finished nor lost.", lambda seen: seen.counts.left),
    "videos_in_work": ("Videos that are being decoded or embedded.", lambda seen: seen.counts.in_work),
    "videos_waiting": (
        "Videos that nobody has taken yet: the depth of the queue.",
        lambda seen: seen.counts.waiting,
    ),
    "videos_finished_before": (
        "Videos of an earlier run, or of another job.",
        lambda seen: seen.counts.finished_before,
    ),
    "videos_per_second": ("Lately.", lambda seen: seen.videos_per_s),
    "super_images_per_second": ("Lately.", lambda seen: seen.images_per_s),
    "eta_seconds": (
        "Until the job is ready, at the rate of lately; NaN before there is one.",
        lambda seen: seen.eta_s,
    ),
}


_NODE_GAUGES: dict[str, _Metric[NodeCounts]] = {
    "workers": ("Workers of a node of the cluster that are alive, or starting.", lambda node: node.workers),
    "videos_in_work": ("Videos that the node's workers have.", lambda node: node.in_work),
}
_NODE_COUNTERS: dict[str, _Metric[NodeCounts]] = {
    "videos_done": ("Videos that the node has finished.", lambda node: node.done),
    "super_images": ("Super images of these.", lambda node: node.super_images),
    "videos_failed": ("Videos that were lost on the node.", lambda node: node.failed),
    "worker_deaths": ("Deaths of the node's workers.", lambda node: node.deaths),
}


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
