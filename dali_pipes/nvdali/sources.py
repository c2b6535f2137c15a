"""Videos or JPEG folders and a device in, super images out: which DALI pipelines run, how many, and what they may hold.

GPU memory of the video path: each of NUM_PIPELINES pipelines holds one batch: at most VIDEO_LIMITS.decoded_bytes of
frames at their own size, their copies at 446 x 336, their super images, and NVDEC's surfaces. As many decoded batches
wait to be encoded, as super images only.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TypeVar

from ... import GridClipError
from ..contract import CompressedSegment, Event, SuperImages, VideoFile
from ..cpu import tasks
from ..cpu.damage import OnDamage
from ..image_folders import jpeg
from ..layout import SuperImageSize
from ..processes import pool
from ..sampling import Sampling
from . import dispatch, nvidia_driver, segments
from .batch_queue import Limits
from .gauge import Gauge
from .nvidia_driver import DecoderLimits
from .nvidia_driver import first_gpu as first_gpu
from .pipeline_threads import PipelineThreads

logger = logging.getLogger(__name__)

T = TypeVar("T")

NUM_PIPELINES = 2  # one decodes while the other hands over its batch
VIDEO_LIMITS = Limits(items=16, decoded_bytes=1 << 30, waiting=48)
IMAGE_LIMITS = Limits(items=512, decoded_bytes=1 << 30, waiting=32)
NUM_THREADS = 8  # of each pipeline; NVDEC's sessions are fed by them


def why_not() -> str | None:
    """Why DALI cannot be used here; None where it can. Nothing is imported: a broken DALI shows itself later."""
    try:
        found = importlib.util.find_spec("nvidia.dali")
    except ModuleNotFoundError:
        found = None
    return None if found else "DALI is not installed: pip install nvidia-dali-cuda130"


def decode_videos(
    videos: Iterable[VideoFile],
    sampling: Sampling,
    image_size: int,
    *,
    device_id: int | None,
    hybrid: bool,
    num_workers: int,
    time_limit_s: float,
    required: bool = True,
    on_damage: OnDamage = "nearest",
    more_sizes: Sequence[SuperImageSize] = (),
    num_pipelines: int = NUM_PIPELINES,
    limits: Limits = VIDEO_LIMITS,
) -> Generator[tuple[VideoFile, Event], None, None]:
    """Yields what `dispatch.run` yields, with images of image_size x image_size pixels.

    Args:
        videos: read lazily.
        sampling: which frames, and how they are laid out.
        device_id: the GPU that decodes; None is DALI's CPU variant (VP8, VP9 and MJPEG; the rest is for the workers).
        hybrid: the worker processes decode, too, whatever DALI has no room for.
        num_workers, time_limit_s: see `pool.run`.
        required: where DALI cannot start, or fails its self-test, that is an error; else the worker processes decode
            alone.
        on_damage: what becomes of wanted frames that cannot be decoded, see `reading.open_reading`.
        more_sizes: further sizes of each chunk, from the same frames: its `other_images`.
        num_pipelines: DALI pipelines side by side.
        limits: of each pipeline's batches.

    Raises:
        GridClipError: as `dispatch.run`, and where DALI cannot start.
    """
    from . import self_test  # imports torch, as the next
    from .video_pipeline import VideoPipeline

    device: segments.Device = "cpu" if device_id is None else "gpu"
    build: Callable[[], VideoPipeline] = functools.partial(
        VideoPipeline,
        sampling,
        image_size,
        device_id=device_id,
        max_items=limits.items,
        num_threads=_num_threads(device_id, num_pipelines),
        more_sizes=more_sizes,
    )
    on_cpu = pool.undivided(tasks.embedding_tasks(sampling, "auto", image_size, on_damage, more_sizes))

    def start() -> Mapping[str, DecoderLimits] | None:
        pipeline = build()
        card = None if device_id is None else nvidia_driver.decoder_limits(device_id)
        self_test.check_videos(pipeline, sampling, image_size, device, more_sizes)
        return card

    started = _try(start, required)
    if started is None:
        yield from _decode_without_dali(videos, on_cpu, num_workers, time_limit_s)
        return
    with contextlib.ExitStack() as stack:
        gauge_path = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gridclip-"))) / "room"
        gauge = Gauge.create(gauge_path, limits.waiting)
        pipelines: PipelineThreads[CompressedSegment] = stack.enter_context(
            PipelineThreads(build, num_pipelines=num_pipelines, limits=limits)
        )
        events = dispatch.run(
            videos,
            _video_tasks(sampling, image_size, device, gauge_path, started[0], on_damage, more_sizes),
            on_cpu,
            pipelines,
            num_workers=num_workers,
            time_limit_s=time_limit_s,
            gauge=gauge,
            room=(lambda: pipelines.room) if hybrid else (lambda: int(not pipelines.given_up)),
        )
        yield from stack.enter_context(contextlib.closing(events))


def decode_images(
    folders: Iterable[VideoFile],
    image_size: int,
    *,
    device_id: int | None,
    num_workers: int,
    time_limit_s: float,
    num_pipelines: int = NUM_PIPELINES,
    limits: Limits = IMAGE_LIMITS,
) -> Generator[tuple[VideoFile, Event], None, None]:
    """The same for folders of JPEG super images; worker processes read, and decode only where DALI cannot start."""
    from . import self_test  # imports torch, as the next
    from .jpeg_pipeline import JpegPipeline

    build: Callable[[], JpegPipeline] = functools.partial(
        JpegPipeline,
        image_size,
        device_id=device_id,
        max_items=limits.items,
        num_threads=_num_threads(device_id, num_pipelines),
    )
    read = tasks.image_tasks(image_size)
    if _try(lambda: self_test.check_images(build(), image_size), required=False) is None:
        yield from _decode_without_dali(folders, read, num_workers, time_limit_s)
        return
    with PipelineThreads(build, num_pipelines=num_pipelines, limits=limits) as pipelines:
        events = dispatch.run(
            folders,
            [functools.partial(jpeg.read_compressed, super_img_size=image_size), *read],
            read,
            pipelines,
            num_workers=num_workers,
            time_limit_s=time_limit_s,
        )
        with contextlib.closing(events):
            yield from events


def _video_tasks(
    sampling: Sampling,
    image_size: int,
    device: segments.Device,
    gauge: pathlib.Path,
    limits: Mapping[str, DecoderLimits] | None,
    on_damage: OnDamage,
    more_sizes: Sequence[SuperImageSize],
) -> list[pool.Task[CompressedSegment | SuperImages]]:
    """Tasks that yield segments for DALI, and super images where it cannot decode; see `segments.read_compressed`."""
    read = functools.partial(
        segments.read_compressed,
        sampling=sampling,
        image_size=image_size,
        device=device,
        gauge=gauge,
        limits=limits,
        on_damage=on_damage,
        more_sizes=more_sizes,
    )
    on_cpu = pool.undivided(tasks.embedding_tasks(sampling, "auto", image_size, on_damage, more_sizes))
    return [pool.Named("the search for what DALI decodes", read), *on_cpu]


def _try(start: Callable[[], T], required: bool) -> tuple[T] | None:
    """What `start` returns, in a tuple; None where DALI cannot be used. Where it is required, that is an error."""
    try:
        return (start(),)
    except GridClipError as error:
        if required:
            raise
        logger.warning("decoding on the CPU: %s", error)
        return None


def _decode_without_dali(
    videos: Iterable[VideoFile], on_cpu: list[pool.Task[SuperImages]], num_workers: int, time_limit_s: float
) -> Generator[tuple[VideoFile, Event], None, None]:
    """What the worker processes yield without DALI."""
    yield from pool.run(
        videos, on_cpu, num_workers=num_workers, time_limit_s=time_limit_s, size=tasks.count_super_images
    )


def _num_threads(device_id: int | None, num_pipelines: int) -> int:
    return NUM_THREADS if device_id is not None else max(1, (os.cpu_count() or 1) // num_pipelines)
