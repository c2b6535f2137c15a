"""A video, wanted frames and readers in, the readers that return those frames out, and why the others do not.

A reader that returns other frames is not compared with one that returns the wanted ones: it may do less work.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Mapping

import numpy as np
from gridclip.dali_pipes.packets import scan

from .decode_peers import Reader

# A returned frame must be as near to the wanted frame as to any of this many before and after it, but for this slack.
NEIGHBOURS = 8
SAME_FRAME_LEVELS = 0.3


def usable(
    path: pathlib.Path,
    fps: float,
    wanted: np.ndarray,
    readers: Mapping[str, Reader],
    references: Mapping[int, np.ndarray] | None = None,
) -> tuple[dict[str, Callable[[], np.ndarray]], dict[str, str]]:
    """Calls every reader once, which also loads what it imports.

    Args:
        path: the video.
        fps: wanted frames per second.
        wanted: int64 [n], the indices of the wanted frames at that rate.
        readers: by name.
        references: see `thumbnails_around`, which is called for them unless they are given.

    Returns:
        The readers that can be timed, as calls without arguments (they may be sent to another process), and why some
        must not be compared with the others; a reader in both decodes the file, but returns other frames.
    """
    if references is None:
        references = thumbnails_around(path, wanted)
    calls: dict[str, Callable[[], np.ndarray]] = {}
    left_out = {}
    for name, reader in readers.items():
        try:
            reason = other_frames(reader(path, fps), references, wanted)
        except ImportError as error:
            left_out[name] = f"not installed, or cannot be imported: {_one_line(error)}"
            continue
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its result
            left_out[name] = f"cannot read it: {type(error).__name__}: {_one_line(error)}"
            continue
        calls[name] = functools.partial(reader, path, fps)
        if reason:
            left_out[name] = reason
    return calls, left_out


def other_frames(frames: np.ndarray, references: Mapping[int, np.ndarray], wanted: np.ndarray) -> str:
    """Why these are not the wanted frames; empty where each is nearest to the wanted one among its neighbours."""
    if len(frames) != len(wanted):
        return f"returns {len(frames)} frames instead of {len(wanted)}"
    wrong = []
    for index, thumbnail in zip(wanted.tolist(), thumbnails(frames), strict=True):
        near = [other for other in range(index - NEIGHBOURS, index + NEIGHBOURS + 1) if other in references]
        distances = {other: float(np.abs(references[other] - thumbnail).mean()) for other in near}
        nearest = min(near, key=distances.__getitem__)
        if distances[index] > distances[nearest] + SAME_FRAME_LEVELS:
            wrong.append(f"{nearest} instead of {index}")
    return f"{len(wrong)} of {len(wanted)} frames are others, e.g. {wrong[0]}" if wrong else ""


def thumbnails(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 [n, 336, 446, 3] as float32 [n, 21 * 27 * 3]: means of 16 x 16 pixels, less each channel's own mean.

    Scalers and colour matrices differ between readers; which frame it is shows all the same.
    """
    count = len(frames)
    blocks = frames[:, :, :432].reshape(count, 21, 16, 27, 16, 3).mean(axis=(2, 4), dtype=np.float32)
    return (blocks - blocks.mean(axis=(1, 2), keepdims=True)).reshape(count, -1)


def thumbnails_around(path: pathlib.Path, wanted: np.ndarray) -> dict[int, np.ndarray]:
    """Thumbnails of the frames near a wanted one, by frame index, from decoding the whole file."""
    from av.video.reformatter import VideoReformatter
    from gridclip.dali_pipes.cpu.decoding import to_rgb

    near = {index + step for index in wanted.tolist() for step in range(-NEIGHBOURS, NEIGHBOURS + 1)}
    reformatter = VideoReformatter()
    with scan.open_video(path) as (container, stream):
        decoded = enumerate(container.decode(stream))
        return {index: thumbnails(to_rgb(frame, reformatter)[None])[0] for index, frame in decoded if index in near}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:150]
