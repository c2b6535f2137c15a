"""A video and a rate in, the wanted frames out: DALI on whole files, and on the segments that GridCLIP prunes for it.

DALI's CPU variant decodes VP8, VP9 and MJPEG only. One pipeline a process and device stays up, as in a job.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np
from gridclip.dali_pipes.contract import EncodedSegment, Notice, VideoFile
from gridclip.dali_pipes.cpu.reading import opened
from gridclip.dali_pipes.nvdali import segments
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.sampling import DECODE_HEIGHT_PX, DECODE_WIDTH_PX, Sampling, wanted_frames


def dali_whole(path: pathlib.Path, fps: float, device_id: int | None = None) -> np.ndarray:
    """DALI's video decoder on the file itself; GridCLIP's scan tells the frame count, DALI does not."""
    summary = scan.inspect(path)
    if summary.codec not in segments.CODECS[_device(device_id)]:
        raise scan.VideoError("decode", f"DALI does not decode {summary.codec} on the {_device(device_id).upper()}")
    wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=fps)
    return _decoded(np.fromfile(path, np.uint8), wanted.astype(np.int32), device_id)


def gridclip_dali(path: pathlib.Path, fps: float, device_id: int | None = None) -> np.ndarray:
    """Pruned packets, remuxed in memory for DALI: what --decoder dali does with a video that DALI can decode."""
    runs = segments.encoded_segments(
        VideoFile(path.stem, path),
        skip=0,
        sampling=Sampling(fps),
        image_size=336,
        device=_device(device_id),
        gauge=None,
    )
    frames = []
    for run in runs:
        if isinstance(run, Notice):
            continue
        if not isinstance(run, EncodedSegment):
            raise scan.VideoError("decode", f"GridCLIP gives it to PyAV: {_why_not(path, fps, device_id)}")
        frames.append(_decoded(np.frombuffer(run.data, np.uint8), run.positions, device_id))
    return np.concatenate(frames)


def _device(device_id: int | None) -> segments.Device:
    return "cpu" if device_id is None else "gpu"


def _why_not(path: pathlib.Path, fps: float, device_id: int | None) -> str:
    with opened(path, Sampling(fps)) as reading:
        return segments.why_not(reading, _device(device_id)) or "not every segment can be handed to DALI"


def _decoded(data: np.ndarray, positions: np.ndarray, device_id: int | None) -> np.ndarray:
    from gridclip.dali_pipes.nvdali.graph import as_torch, describe

    pipeline = _pipeline(device_id)
    try:
        pipeline.feed_input("data", [data])
        pipeline.feed_input("frames", [positions])
        (frames,) = pipeline.run()
    except RuntimeError as error:
        _pipeline.cache_clear()  # one that failed must not be used again
        raise scan.VideoError("decode", describe(error)) from error
    return as_torch(frames[0]).cpu().numpy()


@functools.cache
def _pipeline(device_id: int | None) -> Any:
    from gridclip.dali_pipes.nvdali.graph import start

    return start(lambda: _graph(device_id), device_id, max_items=1, num_threads=1)


def _graph(device_id: int | None) -> tuple[Any, ...]:
    from gridclip.dali_pipes.nvdali.graph import ops

    fn, types = ops()
    data = fn.external_source(name="data", dtype=types.UINT8, ndim=1)
    frames = fn.external_source(name="frames", dtype=types.INT32, ndim=1)
    video = fn.decoders.video(data, frames=frames, pad_mode="none", device="cpu" if device_id is None else "mixed")
    return (fn.resize(video, size=[DECODE_HEIGHT_PX, DECODE_WIDTH_PX], interp_type=types.INTERP_CUBIC, antialias=True),)
