"""Whole files decoded by plain PyAV, to compare with, and files with a rotation flag."""

from __future__ import annotations

import pathlib
import struct

import av
import numpy as np
from gridclip.dali_pipes.cpu import decoding


def decode_all(path: pathlib.Path) -> list[np.ndarray]:
    """Every frame of the file, by a plain sequential decode."""
    reformatter = av.video.reformatter.VideoReformatter()
    with av.open(str(path)) as container:
        return [decoding.to_rgb(frame, reformatter) for frame in container.decode(container.streams.best("video"))]


def rotated(source: pathlib.Path, target: pathlib.Path, turns: int) -> pathlib.Path:
    """A copy of an mp4 whose track header asks for `turns` quarter turns clockwise."""
    data = bytearray(source.read_bytes())
    one = 0x10000
    cos, sin = [(0, one), (-one, 0), (0, -one)][turns - 1]
    matrix = struct.pack(">9i", cos, sin, 0, -sin, cos, 0, 0, 0, 0x40000000)
    header = data.index(b"tkhd")
    data[header + 44 : header + 80] = matrix
    target.write_bytes(data)
    return target
