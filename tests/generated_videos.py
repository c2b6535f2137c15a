"""A recipe in, a small video file out: the coding structures that pruning must get right."""

from __future__ import annotations

import dataclasses
import fractions
import pathlib

import av
import numpy as np


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to encode a moving test picture.

    Attributes:
        name: file name with its extension, which picks the container.
        codec: PyAV's encoder name.
        frames: number of frames.
        options: encoder options, e.g. x264-params.
        gop: distance of keyframes.
        size: width, height in pixels.
        pixel_format: of the encoded pictures.
        variable_rate: gaps between frames grow and shrink.
        first_pts: time stamp of the first frame; below 0 the container hides the frames before 0 (mp4 edit list).
        second_stream: adds a smaller video stream before the main one.
        interlaced: codes both fields in one picture.
    """

    name: str
    codec: str = "libx264"
    frames: int = 90
    options: tuple[tuple[str, str], ...] = ()
    gop: int = 30
    b_frames: int | None = None
    size: tuple[int, int] = (128, 96)
    pixel_format: str = "yuv420p"
    variable_rate: bool = False
    first_pts: int = 0
    second_stream: bool = False
    interlaced: bool = False


def picture(index: int, width: int, height: int) -> np.ndarray:
    """Frame `index`: uint8 [height, width, 3]; moving gradients, a moving block and some noise, all different."""
    rows, columns = np.mgrid[0:height, 0:width]
    image = np.stack([rows * 2 + 3 * index, columns * 2 - 2 * index, (rows + columns) + 5 * index], axis=2) % 256
    noise = np.random.default_rng(index).integers(0, 24, (height, width, 1))
    top, left = (3 * index) % (height - 16), (5 * index) % (width - 16)
    image = image * 0.8 + noise
    image[top : top + 16, left : left + 16] = (index * 37 % 256, index * 91 % 256, index * 11 % 256)
    return image.clip(0, 255).astype(np.uint8)


def write(folder: pathlib.Path, recipe: Recipe) -> pathlib.Path:
    """Encodes the recipe into folder / recipe.name."""
    path = folder / recipe.name
    with av.open(str(path), "w") as container:
        streams = []
        if recipe.second_stream:
            streams.append(_add_stream(container, dataclasses.replace(recipe, size=(64, 48))))
        streams.append(_add_stream(container, recipe))
        for index in range(recipe.frames):
            pts = recipe.first_pts + (index + (index // 7) * 5 if recipe.variable_rate else index)
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(picture(index, stream.width, stream.height), format="rgb24")
                frame = frame.reformat(format=recipe.pixel_format)
                frame.pts = pts
                frame.time_base = stream.codec_context.time_base
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def _add_stream(container: av.container.OutputContainer, recipe: Recipe) -> av.VideoStream:
    stream = container.add_stream(recipe.codec, rate=30, options=dict(recipe.options))
    stream.width, stream.height = recipe.size
    stream.pix_fmt = recipe.pixel_format
    stream.gop_size = recipe.gop
    stream.codec_context.time_base = fractions.Fraction(1, 30)
    stream.codec_context.thread_count = 1
    if recipe.b_frames is not None:
        stream.codec_context.max_b_frames = recipe.b_frames
    if recipe.interlaced:
        stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct
    return stream


def _x264(*settings: str) -> tuple[tuple[str, str], ...]:
    settings = ("scenecut=0", "mbtree=0", *settings)  # with mbtree, x264 writes other bits each time
    return (("preset", "veryfast"), ("x264-params", ":".join(settings)))


def _x265(*settings: str) -> tuple[tuple[str, str], ...]:
    return (("preset", "ultrafast"), ("x265-params", ":".join(("log-level=none", "scenecut=0", "pools=1", *settings))))


STRUCTURES = [
    Recipe("h264_pyramid.mp4", options=_x264("bframes=3", "b-pyramid=normal", "b-adapt=0")),
    Recipe("h264_many_b.mkv", options=_x264("bframes=8", "b-pyramid=strict", "b-adapt=0"), gop=48),
    Recipe("h264_open_gop.mp4", options=_x264("open-gop=1", "bframes=3", "b-pyramid=normal", "b-adapt=0"), gop=24),
    Recipe("h264_open_gop.mkv", options=_x264("open-gop=1", "bframes=2", "b-adapt=0", "ref=4"), gop=17),
    Recipe("h264_all_key.mp4", options=_x264(), gop=1),
    Recipe(
        "h264_one_gop.mp4", options=_x264("keyint=600", "bframes=3", "b-adapt=0"), frames=600, gop=600, size=(64, 48)
    ),
    Recipe("h264_slices.mp4", options=_x264("slices=4", "bframes=2", "b-adapt=0")),
    Recipe("h264_mbaff.mp4", options=_x264("interlaced=1", "bframes=2", "b-adapt=0"), interlaced=True),
    Recipe("h264_baseline.mov", options=(("profile", "baseline"), *_x264())),
    Recipe("h264_edit_list.mp4", options=_x264("bframes=2", "b-adapt=0"), first_pts=-12),
    Recipe("h264_variable_rate.mp4", options=_x264("bframes=2", "b-adapt=0"), variable_rate=True),
    Recipe("h264_variable_rate.mkv", options=_x264("bframes=2", "b-adapt=0"), variable_rate=True),
    Recipe("h264_two_streams.mp4", options=_x264("bframes=2", "b-adapt=0"), second_stream=True),
    Recipe("h264_no_pts.avi", options=_x264("bframes=2", "b-adapt=0")),
    Recipe("h264_annexb.ts", options=_x264("bframes=3", "b-adapt=0")),
    Recipe("h264_raw.h264", options=_x264("bframes=3", "b-adapt=0")),
    Recipe("h264_10bit.mp4", options=_x264("bframes=2", "b-adapt=0"), pixel_format="yuv420p10le"),
    Recipe("h264_444_odd.mp4", options=_x264("bframes=2", "b-adapt=0"), pixel_format="yuv444p", size=(121, 93)),
    Recipe(
        "hevc_open_gop.mp4", "libx265", options=_x265("open-gop=1", "bframes=4", "b-pyramid=1", "b-adapt=0"), gop=24
    ),
    Recipe("hevc_closed_gop.mkv", "libx265", options=_x265("open-gop=0", "bframes=3", "b-adapt=0"), gop=20),
    Recipe("hevc_layers.mp4", "libx265", options=_x265("temporal-layers=3", "bframes=3", "b-adapt=0"), gop=32),
    Recipe("vp8.webm", "libvpx", options=(("deadline", "realtime"), ("cpu-used", "8"), ("auto-alt-ref", "1"))),
    Recipe("vp8_odd.webm", "libvpx", options=(("deadline", "realtime"), ("cpu-used", "8")), size=(121, 93)),
    Recipe("vp9.webm", "libvpx-vp9", options=(("deadline", "good"), ("cpu-used", "5"), ("lag-in-frames", "12"))),
    Recipe(
        "vp9_resilient.webm",
        "libvpx-vp9",
        options=(("deadline", "realtime"), ("cpu-used", "8"), ("error-resilient", "1")),
    ),
    Recipe("av1.mkv", "libsvtav1", options=(("preset", "12"), ("svtav1-params", "hierarchical-levels=3:lp=1"))),
    Recipe("av1.mp4", "libsvtav1", options=(("preset", "12"), ("svtav1-params", "hierarchical-levels=4:lp=1"))),
    Recipe("mpeg4.mp4", "mpeg4", b_frames=2, gop=12),
    Recipe("mpeg4.avi", "mpeg4", b_frames=2, gop=12),
    Recipe("mpeg4_no_b.avi", "mpeg4", b_frames=0, gop=12),
    Recipe("mjpeg.avi", "mjpeg", pixel_format="yuvj420p", size=(121, 93)),
    Recipe("mjpeg.mov", "mjpeg", pixel_format="yuvj420p"),
    Recipe("mpeg2.mkv", "mpeg2video", b_frames=2, gop=12),
]
