"""Damaged JPEG folders in; what is read is compared with Pillow, and good files read afterwards must be unharmed."""

from __future__ import annotations

import functools
import io
import json
import pathlib
import random

import numpy as np
from gridclip.dali_pipes.contract import SuperImages, VideoError, VideoFile
from gridclip.dali_pipes.image_folders import jpeg
from PIL import Image

from .contract import Outcome, Verdict, different
from .damage import damaged_bytes, damaged_json

SIZE_PX = 64
FOLDER, DAMAGED, GOOD = "video", "img_0001.jpg", "img_0002.jpg"
READ_AGAIN = 3
# libjpeg-turbo and the one inside Pillow round colours differently by a step or two.
MAX_DISTANCE = 3.0
SIDECAR = {
    "format": 1,
    "fps": 0.5,
    "grid_size": 2,
    "super_img_size": SIZE_PX,
    "min_frames": 1,
    "max_shift_s": None,
    "count": 2,
    "start_s": [0.0, 8.0],
    "end_s": [8.0, 16.0],
}


class Jpegs:
    """Folders of two super images, the first of which, or the sidecar, is damaged."""

    def write_seeds(self, folder: pathlib.Path) -> None:
        rows, columns = np.mgrid[0:SIZE_PX, 0:SIZE_PX]
        pixels = np.stack([rows * 3, columns * 3, (rows + columns) * 2], axis=2).astype(np.uint8)
        colour = Image.fromarray(pixels)
        colour.save(folder / "colour.jpg", quality=75)
        colour.save(folder / "progressive.jpg", quality=90, progressive=True)
        colour.save(folder / "full.jpg", quality=95, subsampling=0, optimize=True)
        colour.save(folder / "restarts.jpg", quality=75, restart_marker_blocks=2)
        colour.resize((101, 77)).save(folder / "odd.jpg", quality=60)
        colour.resize((400, 300)).save(folder / "large.jpg", quality=75)
        colour.convert("L").save(folder / "grey.jpg", quality=75)
        exif = Image.Exif()
        exif[0x010E] = "x" * 300
        colour.save(folder / "exif.jpg", exif=exif)

    def make(self, seeds: pathlib.Path, case: pathlib.Path, number: int, rng: random.Random) -> str:
        files = sorted(seeds.iterdir())
        folder = case / FOLDER
        folder.mkdir()
        seed = files[number] if number < len(files) else rng.choice(files)
        data = _bytes(seed)
        (folder / GOOD).write_bytes(_bytes(files[0]))
        (folder / jpeg.SIDECAR).write_text(json.dumps(SIDECAR))
        done = "undamaged"
        if number >= len(files):
            if rng.random() < 0.15:
                text, done = damaged_json(SIDECAR, rng)
                (folder / jpeg.SIDECAR).write_text(text)
                done = f"sidecar: {done}"
            else:
                data, done = damaged_bytes(data, [_bytes(rng.choice(files))], rng)
        (folder / DAMAGED).write_bytes(data)
        (case / "settings.json").write_text(json.dumps({"intact": number < len(files)}))
        return f"{seed.name}: {done}"

    def judge(self, case: pathlib.Path) -> Verdict:
        folder = VideoFile(FOLDER, case / FOLDER)
        intact = json.loads((case / "settings.json").read_text())["intact"]
        refusal: VideoError | None = None
        images: list[np.ndarray] = []
        try:
            for run in jpeg.read(folder, super_img_size=SIZE_PX):
                if isinstance(run, SuperImages):
                    images.extend(run.on_cpu())
        except VideoError as error:
            refusal = error
        for _ in range(READ_AGAIN):  # a heap that the damaged file has harmed shows here
            again = jpeg.read_image(folder.path / GOOD)
            if _distance(again, _pillow((folder.path / GOOD).read_bytes())) > MAX_DISTANCE:
                return different("a good file read after the damaged one has other pixels")
        if refusal is not None:
            if intact:
                return different(f"an undamaged file was refused: {refusal}")
            raise refusal
        if len(images) != 2:
            return different(f"{len(images)} super images of 2")
        try:
            expected = _pillow((folder.path / DAMAGED).read_bytes())
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return Verdict(Outcome.ACCEPTED, "Pillow refuses it")
        square = np.asarray(Image.fromarray(expected).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC))
        distance = _distance(images[0], square)
        if distance > MAX_DISTANCE:
            return different(f"mean absolute difference to Pillow's pixels {distance:.1f}")
        return Verdict(Outcome.IDENTICAL)


def _pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        return np.asarray(image.convert("RGB"))


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean()) if first.shape == second.shape else 255.0


@functools.cache
def _bytes(path: pathlib.Path) -> bytes:
    return path.read_bytes()
