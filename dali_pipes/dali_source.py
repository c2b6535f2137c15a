"""Videos or JPEG folders and a device in, super images out: which DALI pipelines run, how many, and what they may hold.

GPU memory of the video path: each of NUM_PIPELINES pipelines holds one batch: at most VIDEO_LIMITS.decoded_bytes of
frames at their own size, their copies at 446 x 336, their super images, and NVDEC's surfaces. As many decoded batches
wait to be encoded, as super images only.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable, Generator, Iterable
from typing import cast

from .. import GridClipError
from . import dali_run, jpeg, workers, works
from .batching import Limits
from .gauge import Gauge
from .pipeline_threads import Pipeline, PipelineThreads
from .sampling import Sampling
from .source import SuperImages, VideoFile

logger = logging.getLogger(__name__)

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
    return None if found else "DALI is not installed: pip install gridclip[gpu]"


def first_gpu() -> int | None:
    """The GPU that a job takes which was told of none; None where the driver shows no GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int()
    shows = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    return 0 if shows else None


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
    num_pipelines: int = NUM_PIPELINES,
    limits: Limits = VIDEO_LIMITS,
) -> Generator[dali_run.Event, None, None]:
    """Yields what `dali_run.run` yields, with images of image_size x image_size pixels.

    Args:
        videos: read lazily.
        sampling: which frames, and how they are laid out.
        device_id: the GPU that decodes; None is DALI's CPU variant (VP8, VP9 and MJPEG; the rest is for the workers).
        hybrid: the worker processes decode, too, whatever DALI has no room for.
        num_workers, time_limit_s: see `workers.run`.
        required: where DALI cannot start, that is an error; else the worker processes decode alone.
        num_pipelines: DALI pipelines side by side.
        limits: of each pipeline's batches.

    Raises:
        GridClipError: as `dali_run.run`, and where DALI cannot start.
    """
    from .video_pipeline import VideoPipeline  # imports torch

    build = functools.partial(
        VideoPipeline,
        sampling,
        image_size,
        device_id=device_id,
        max_items=limits.items,
        num_threads=_num_threads(device_id, num_pipelines),
    )
    on_cpu = works.embedding_works(sampling, "auto", image_size)
    if not _starts(build, required):
        yield from _alone(videos, on_cpu, num_workers, time_limit_s)
        return
    with contextlib.ExitStack() as stack:
        gauge_path = None
        if hybrid:
            gauge_path = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gridclip-"))) / "room"
        gauge = None if gauge_path is None else Gauge.create(gauge_path, limits.waiting)
        pipelines = stack.enter_context(PipelineThreads(build, num_pipelines=num_pipelines, limits=limits))
        events = dali_run.run(
            videos,
            works.dali_works(sampling, image_size, "cpu" if device_id is None else "gpu", gauge_path),
            on_cpu,
            pipelines,
            num_workers=num_workers,
            time_limit_s=time_limit_s,
            gauge=gauge,
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
) -> Generator[dali_run.Event, None, None]:
    """The same for folders of JPEG super images; worker processes read, and decode only where DALI cannot start."""
    from .jpeg_pipeline import JpegPipeline  # imports torch

    build = functools.partial(
        JpegPipeline,
        image_size,
        device_id=device_id,
        max_items=limits.items,
        num_threads=_num_threads(device_id, num_pipelines),
    )
    read = works.image_works(image_size)
    if not _starts(build, required=False):
        yield from _alone(folders, read, num_workers, time_limit_s)
        return
    with PipelineThreads(build, num_pipelines=num_pipelines, limits=limits) as pipelines:
        events = dali_run.run(
            folders,
            [functools.partial(jpeg.encoded_images, super_img_size=image_size), *read],
            read,
            pipelines,
            num_workers=num_workers,
            time_limit_s=time_limit_s,
        )
        with contextlib.closing(events):
            yield from events


def _starts(build: Callable[[], Pipeline], required: bool) -> bool:
    """Whether a pipeline can be built; if it is required and cannot, that is an error."""
    try:
        build()
    except GridClipError as error:
        if required:
            raise
        logger.warning("decoding on the CPU: %s", error)
        return False
    return True


def _alone(
    videos: Iterable[VideoFile], on_cpu: list[workers.Work[SuperImages]], num_workers: int, time_limit_s: float
) -> Generator[dali_run.Event, None, None]:
    """What the worker processes yield without DALI."""
    events = workers.run(videos, on_cpu, num_workers=num_workers, time_limit_s=time_limit_s, size=works.super_images)
    with contextlib.closing(events):
        yield from cast("Generator[dali_run.Event, None, None]", events)


def _num_threads(device_id: int | None, num_pipelines: int) -> int:
    return NUM_THREADS if device_id is not None else max(1, (os.cpu_count() or 1) // num_pipelines)
