"""A table of coding settings in, generated video files out: what the decode benchmarks read beside real files."""

from __future__ import annotations

import dataclasses
import fractions
import os
import pathlib
from collections.abc import Iterator

import av
import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Clip:
    """How one generated video is coded.

    Attributes:
        codec: PyAV's encoder name.
        height_px: 1080, 720, 480, ...; the width is 16:9.
        gop_s: seconds between keyframes.
        b_frames: most consecutive B-frames.
        pyramid: B-frames may refer to B-frames (H.264).
        fixed_camera: only the objects move.
        fps: frames per second.
        duration_s: length in seconds.
    """

    codec: str
    height_px: int
    gop_s: float
    b_frames: int
    fps: int = 30
    duration_s: int = 20
    pyramid: bool = False
    fixed_camera: bool = False

    @property
    def name(self) -> str:
        suffix = {"libvpx": "webm", "libvpx-vp9": "webm", "libsvtav1": "mkv"}.get(self.codec, "mp4")
        codec = self.codec.removeprefix("lib").replace("-", "")
        b_frames = f"b{self.b_frames}{'pyramid' if self.pyramid else ''}"
        camera = "fixed" if self.fixed_camera else "moving"
        return f"{codec}_{self.height_px}p{self.fps}_gop{self.gop_s:g}s_{b_frames}_{camera}_{self.duration_s}s.{suffix}"


# Minutes on two cores: half as long as the others, with the same wanted frames in each GOP.
SHORT = [
    Clip("libx264", 1080, gop_s=5, b_frames=3, duration_s=10),
    Clip("libx264", 1080, gop_s=5, b_frames=3, fixed_camera=True, duration_s=10),
    Clip("libx264", 720, gop_s=5, b_frames=3, pyramid=True, duration_s=10),
    Clip("libx264", 480, gop_s=5, b_frames=0, duration_s=10),
]
LONG = [
    Clip("libx264", 1080, gop_s=5, b_frames=3),
    Clip("libx264", 1080, gop_s=5, b_frames=3, pyramid=True),
    Clip("libx264", 1080, gop_s=5, b_frames=3, fixed_camera=True),
    Clip("libx264", 1080, gop_s=5, b_frames=7, fixed_camera=True),
    Clip("libx264", 480, gop_s=5, b_frames=3),
    Clip("libx264", 1080, gop_s=1.6, b_frames=3),
    Clip("libx264", 1080, gop_s=2, b_frames=3),  # every wanted frame is a keyframe
    Clip("libx264", 1080, gop_s=10, b_frames=3),
    Clip("libx264", 1080, gop_s=5, b_frames=0),
    Clip("libx264", 1080, gop_s=5, b_frames=7, pyramid=True),
    Clip("libx264", 1080, gop_s=5, b_frames=3, fps=60),
    Clip("libx264", 720, gop_s=5, b_frames=3),
    Clip("libx265", 720, gop_s=5, b_frames=4),
    Clip("libvpx", 480, gop_s=5, b_frames=0),
    Clip("libvpx-vp9", 480, gop_s=5, b_frames=0),
    Clip("libsvtav1", 720, gop_s=5, b_frames=0),
]
# At a GOP length that no sampling interval divides, or wanted frames would be keyframes more often than by chance.
SWEEP = [
    Clip("libx264", 480, gop_s=7, b_frames=b_frames, fixed_camera=fixed)
    for b_frames in (0, 3)
    for fixed in (False, True)
]
SWEEP_LONG = [*SWEEP, *(dataclasses.replace(clip, height_px=1080) for clip in SWEEP)]


def make(clip: Clip, folder: pathlib.Path) -> pathlib.Path:
    """The clip's file in `folder`, encoded unless it is there already."""
    path = folder / clip.name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name("unfinished-" + path.name)
    width_px = clip.height_px * 16 // 9 // 2 * 2
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream(clip.codec, rate=clip.fps, options=_options(clip))
        stream.width, stream.height, stream.pix_fmt = width_px, clip.height_px, "yuv420p"
        stream.gop_size = round(clip.gop_s * clip.fps)
        stream.codec_context.time_base = fractions.Fraction(1, clip.fps)
        stream.codec_context.thread_count = os.cpu_count() or 1
        for index, pixels in enumerate(_pictures(clip, width_px)):
            frame = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    unfinished.rename(path)
    return path


def _options(clip: Clip) -> dict[str, str]:
    if clip.codec == "libx264":
        pyramid = "normal" if clip.pyramid else "none"
        settings = f"bframes={clip.b_frames}:scenecut=0:b-pyramid={pyramid}:b-adapt=0"
        return {"preset": "veryfast", "crf": "28", "x264-params": settings}
    if clip.codec == "libx265":
        return {"preset": "ultrafast", "x265-params": f"bframes={clip.b_frames}:b-pyramid=1:scenecut=0:log-level=none"}
    if clip.codec == "libsvtav1":
        return {"preset": "12"}
    return {"deadline": "realtime", "cpu-used": "8", "b": "2M"}


def _pictures(clip: Clip, width_px: int) -> Iterator[np.ndarray]:
    """yuv420p pictures, uint8 [height * 3 / 2, width]: a camera pans, zooms and rolls; objects move; cuts every 7 s."""
    rng = np.random.default_rng(0)
    height_px = clip.height_px
    scale = height_px / 270
    for index in range(clip.fps * clip.duration_s):
        time_s = index / clip.fps
        if index % (7 * clip.fps) == 0:
            texture = Image.fromarray(_texture(rng, height_px * 5 // 4, width_px * 5 // 4))
            colours = rng.integers(60, 200, (2, height_px // 2, 1)).astype(np.uint8)
            objects = rng.uniform(0.1, 0.9, (6, 4))
        view_s = 0.0 if clip.fixed_camera else time_s
        zoom, roll = 1 + 0.05 * np.sin(0.4 * view_s), 0.02 * np.sin(0.5 * view_s)
        left, top = 20 * scale * (1 + np.sin(view_s)), 15 * scale * (1 + np.cos(0.7 * view_s))
        camera = (zoom, roll, left, -roll, zoom, top + 10 * scale)
        picture = np.empty((height_px * 3 // 2, width_px), np.uint8)
        luma = picture[:height_px]
        size = (width_px, height_px)
        luma[:] = np.asarray(texture.transform(size, Image.Transform.AFFINE, camera, Image.Resampling.BILINEAR))
        for x, y, speed, shade in objects:
            row = max(0, int((y + 0.2 * np.sin(speed * 3 * time_s + x * 9)) * height_px * 0.85))
            column = max(0, int((x + 0.15 * np.cos(speed * 2 * time_s + y * 9)) * width_px * 0.85))
            luma[row : row + int(30 * scale), column : column + int(45 * scale)] = int(60 + 160 * shade)
        picture[height_px:].reshape(2, height_px // 2, width_px // 2)[:] = colours
        yield picture


def _texture(rng: np.random.Generator, height_px: int, width_px: int) -> np.ndarray:
    """Noise whose amplitude falls with frequency, as in photographs: uint8 [height_px, width_px]."""
    spectrum = np.fft.rfft2(rng.standard_normal((height_px, width_px)))
    rows = np.fft.fftfreq(height_px)[:, None]
    columns = np.fft.rfftfreq(width_px)[None, :]
    spectrum /= (np.hypot(rows, columns) + 1 / width_px) ** 2
    image = np.fft.irfft2(spectrum, (height_px, width_px))
    return (128 + 45 * image / image.std()).clip(16, 235).astype(np.uint8)
