"""Good JPEG files and a seed in, damaged ones out: cut, bits flipped, headers damaged, segments dropped or doubled."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator

import numpy as np
from PIL import Image


def good_jpegs() -> list[bytes]:
    """Files of several sizes, samplings and kinds: baseline, progressive, grey, optimised."""
    y, x = np.mgrid[:48, :64]
    waves = np.stack([np.sin(x / (5 + k)) * 60 + np.cos(y / 7 + k) * 60 + 128 for k in range(3)], axis=-1)
    picture = Image.fromarray(waves.astype(np.uint8))
    kinds: list[tuple[Image.Image, dict[str, int | bool]]] = [
        (picture, {"quality": 75}),
        (picture.resize((33, 17)), {"quality": 95, "subsampling": 0}),
        (picture, {"quality": 50, "progressive": True}),
        (picture.convert("L"), {"quality": 75, "optimize": True}),
    ]
    files = []
    for image, options in kinds:
        file = io.BytesIO()
        image.save(file, "JPEG", **options)
        files.append(file.getvalue())
    return files


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One damaged copy of a JPEG file, never empty."""
    damage = rng.choice([_cut, _cut_header, _flip_bits, _flip_header_bits, _drop, _double, _change_size])
    return damage(data, rng) or b"\xff"


def mutations(files: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` damaged copies, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        yield mutated(rng.choice(files), rng)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _cut_header(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(_header_bytes(data))]


def _flip_bits(data: bytes, rng: random.Random) -> bytes:
    return _flipped(data, rng, len(data))


def _flip_header_bits(data: bytes, rng: random.Random) -> bytes:
    return _flipped(data, rng, _header_bytes(data))


def _flipped(data: bytes, rng: random.Random, below: int) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(below)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _drop(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 64) :]


def _double(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(_header_bytes(data))
    stop = start + rng.randint(1, 128)
    return data[:stop] + data[start:stop] + data[stop:]


def _change_size(data: bytes, rng: random.Random) -> bytes:
    """Another height and width in the frame header, 0 and 65,535 among them."""
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        at = data.find(marker)
        if at >= 0:
            sizes = [rng.choice([0, 1, 16, 200, 65535]) for _ in range(2)]
            return data[: at + 5] + b"".join(size.to_bytes(2, "big") for size in sizes) + data[at + 9 :]
    raise ValueError("no frame header in the file")


def _header_bytes(data: bytes) -> int:
    """The bytes before the first scan."""
    return data.index(b"\xff\xda")
