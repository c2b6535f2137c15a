"""A DALI pipeline in, an error out where it makes other pixels of a tiny video or JPEG file than PyAV or Pillow does.

A driver may decode garbage without a word. So every job that decodes with DALI begins with a sample that came with the
package, and `gridclip doctor` does the same.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from ... import GridClipError
from .. import grid
from ..contract import CompressedImages, CompressedSegment, SuperImages, VideoFile
from ..cpu import super_images
from ..layout import SuperImageSize
from ..sampling import Sampling
from . import segments
from .graph import check_shape
from .pipeline_threads import Pipeline

SAMPLES = pathlib.Path(__file__).with_name("samples")  # made by benchmarks/self_test_samples.py
VIDEOS: dict[segments.Device, pathlib.Path] = {"gpu": SAMPLES / "h264.mp4", "cpu": SAMPLES / "vp9.webm"}
IMAGE = SAMPLES / "super_image.jpg"
SAMPLE_FPS = 2.0  # every second frame of the videos
# Ways to scale chroma and to round differ by less; a neighbouring frame, swapped colours or garbage by far more.
MIN_PSNR_DB = 30.0


def check_videos(
    pipeline: Pipeline[CompressedSegment],
    sampling: Sampling,
    image_size: int,
    device: segments.Device,
    more_sizes: Sequence[SuperImageSize] = (),
) -> None:
    """Decodes the sample video of a device as a job does; raises GridClipError unless PyAV's pixels come back.

    Args:
        pipeline: a VideoPipeline with these grid sizes, super image size, image size and further sizes.
        sampling: of the job.
        image_size: of the job.
        device: where the pipeline decodes.
        more_sizes: of the job.
    """
    changes = {"fps": SAMPLE_FPS, "min_frames": 1, "max_shift_s": None, "mode": "frames", "stride": None}
    sampling = dataclasses.replace(sampling, **changes)  # type: ignore[arg-type]  # of several types
    video = VideoFile(VIDEOS[device].name, VIDEOS[device])
    events = segments.read_compressed(
        video, skip=0, sampling=sampling, image_size=image_size, device=device, gauge=None
    )
    chunks = [event for event in events if isinstance(event, CompressedSegment)]
    expected = [
        super_images.resize(event, image_size)
        for event in super_images.super_images(video, sampling, more_sizes=more_sizes)
        if isinstance(event, SuperImages)
    ]
    made = [chunk.with_images(*pipeline.decode([chunk])) for chunk in chunks]
    if not made:
        raise GridClipError(f"the test video {video.path} is not one for DALI on the {device.upper()}: install again")
    for number in range(1 + len(more_sizes)):
        for grid_size in sampling.grid_sizes:
            found, right = ([chunk.in_size(number) for chunk in chunks] for chunks in (made, expected))
            _compare(video.path, _of_grid(found, grid_size), _of_grid(right, grid_size))


def check_images(pipeline: Pipeline[CompressedImages], image_size: int) -> None:
    """Decodes the sample JPEG file as a job does; raises GridClipError unless Pillow's pixels come back.

    Args:
        pipeline: a JpegPipeline with this image size.
        image_size: of the job.
    """
    time_s = np.zeros(1)
    with Image.open(IMAGE) as image:
        pixels = np.asarray(image.convert("RGB"))
    chunk = CompressedImages(IMAGE.name, 0, 1, time_s, time_s, 1.0, pixels.nbytes, [IMAGE.read_bytes()])
    (made,) = pipeline.decode([chunk])
    _compare(IMAGE, _on_cpu(made), grid.resize(pixels, image_size)[None])


def check_device(device_id: int | None) -> None:
    """Both checks on a device of this machine, with pipelines of their own; raises GridClipError where one fails."""
    from .jpeg_pipeline import JpegPipeline
    from .video_pipeline import VideoPipeline

    sampling = Sampling()
    size = sampling.super_img_size
    videos = VideoPipeline(sampling, size, device_id=device_id, max_items=1, num_threads=1)
    check_videos(videos, sampling, size, "cpu" if device_id is None else "gpu")
    check_images(JpegPipeline(size, device_id=device_id, max_items=1, num_threads=1), size)


def _of_grid(chunks: list[SuperImages], grid_size: int) -> np.ndarray:
    """The super images of one grid size, uint8 [L, S, S, 3]."""
    return np.concatenate([part.on_cpu() for chunk in chunks for size, part in chunk.by_grid() if size == grid_size])


def _on_cpu(images: np.ndarray | torch.Tensor) -> np.ndarray:
    return images if isinstance(images, np.ndarray) else images.cpu().numpy()


def _compare(path: pathlib.Path, made: np.ndarray, expected: np.ndarray) -> None:
    check_shape(f"the test file {path.name}", made.shape, expected.shape)
    errors = ((made.astype(float) - expected) ** 2).mean(axis=(1, 2, 3))
    psnr_db = 10 * np.log10(255**2 / max(float(errors.max()), 1e-9))
    if psnr_db < MIN_PSNR_DB:
        raise GridClipError(
            f"DALI decodes the test file {path.name} to other pixels than the CPU: {psnr_db:.1f} dB PSNR, expected at "
            f"least {MIN_PSNR_DB:g}"
        )
