"""Nothing in, the tiny videos and the JPEG file out that dali_pipes/nvdali/self_test.py decodes (a few KB, committed).

Run `python -m gridclip.benchmarks.self_test_samples` to make them again.
"""

from __future__ import annotations

import fractions
import pathlib

import av
import numpy as np
from gridclip.dali_pipes.nvdali import segments, self_test
from PIL import Image

FPS = 4
FRAMES = 12
WIDTH, HEIGHT = 192, 160  # NVDEC takes no VP9 below 128 x 128
_VIDEOS: dict[segments.Device, tuple[str, dict[str, str]]] = {
    "gpu": ("libx264", {"crf": "23", "bf": "2", "g": "6", "x264-params": "scenecut=0:b-adapt=0"}),
    "cpu": ("libvpx-vp9", {"crf": "30", "b": "0", "g": "6", "deadline": "good"}),
}


def picture(index: int) -> np.ndarray:
    """Frame `index`, uint8 [HEIGHT, WIDTH, 3]: smooth, so that ways to scale chroma agree; far from its neighbours."""
    y_px, x_px = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(x_px / (30 + 7 * channel) + y_px / 40 + 1.7 * index + channel) for channel in range(3)]
    return (np.stack(waves, axis=-1) * 90 + 128).astype(np.uint8)


def main() -> None:
    """Writes the samples."""
    self_test.SAMPLES.mkdir(exist_ok=True)
    for device, (codec, options) in _VIDEOS.items():
        _write_video(self_test.VIDEOS[device], codec, options)
    Image.fromarray(picture(0)).save(self_test.IMAGE, "JPEG", quality=85)


def _write_video(path: pathlib.Path, codec: str, options: dict[str, str]) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts, frame.time_base = index, fractions.Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
