"""Videos of one colour each, so that a test knows their embeddings by the fake model without decoding them."""

import fractions
import pathlib

import av
import numpy as np

COLOURS = {
    "red": (200, 20, 30),
    "green": (20, 180, 40),
    "blue": (30, 40, 220),
    "yellow": (210, 200, 20),
    "violet": (150, 30, 200),
    "grey": (128, 128, 128),
    "orange": (220, 130, 20),
    "cyan": (20, 190, 200),
}


def write(path: pathlib.Path, colour: str, *, duration_s: float = 9, fps: int = 5) -> pathlib.Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        pixels = np.broadcast_to(np.array(COLOURS[colour], np.uint8), (48, 64, 3))
        for index in range(round(duration_s * fps)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = index, fractions.Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_all(folder: pathlib.Path) -> dict[str, int]:
    """Writes one video per colour; returns the number of super images of each (0.5 fps, grid size 2)."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for number, colour in enumerate(COLOURS):
        write(folder / f"{colour}.mp4", colour, duration_s=8 * number + 4)
        counts[colour] = -(-(4 * number + 2) // 4)
    return counts


def direction(colour: str) -> np.ndarray:
    """float64 [3], unit length; black cells do not change it."""
    values = np.array(COLOURS[colour], float)
    return values / np.linalg.norm(values)
