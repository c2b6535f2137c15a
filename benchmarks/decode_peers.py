"""A video and a rate in, the wanted frames out: GridCLIP's decoders and what a user would pick instead, all alike.

Every reader returns uint8 [n, 336, 446, 3], the frames of the sampling formula, on one thread.
"""

from __future__ import annotations

import functools
import pathlib
import subprocess
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from gridclip.dali_pipes.cpu import super_images
from gridclip.dali_pipes.cpu.reading import Decoder
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.packets.pruning import plan_segments
from gridclip.dali_pipes.sampling import DECODE_HEIGHT_PX, DECODE_WIDTH_PX, wanted_frames

from . import decode_dali

Reader = Callable[[pathlib.Path, float], np.ndarray]


def gridclip_auto(path: pathlib.Path, fps: float) -> np.ndarray:
    """Pruned packets, decoded by PyAV: what --decoder auto and pyav do."""
    return _gridclip(path, fps, "auto")


def gridclip_decord(path: pathlib.Path, fps: float) -> np.ndarray:
    """Pruned packets, remuxed in memory for decord: what --decoder decord does."""
    return _gridclip(path, fps, "decord")


def _gridclip(path: pathlib.Path, fps: float, decoder: Decoder) -> np.ndarray:
    return np.stack(list(super_images.frames(path, fps, decoder=decoder)))


def decord_whole(path: pathlib.Path, fps: float) -> np.ndarray:
    """decord's get_batch on the file itself: the reference's way."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(str(path), width=DECODE_WIDTH_PX, height=DECODE_HEIGHT_PX, num_threads=1)
    wanted = wanted_frames(len(reader), reader.get_avg_fps(), fps=fps)
    return reader.get_batch(wanted.tolist()).asnumpy()


def torchcodec_exact(path: pathlib.Path, fps: float) -> np.ndarray:
    """torchcodec, which scans the file first."""
    return _torchcodec(path, fps, "exact")


def torchcodec_approximate(path: pathlib.Path, fps: float) -> np.ndarray:
    """torchcodec, which trusts the file's header."""
    return _torchcodec(path, fps, "approximate")


def _torchcodec(path: pathlib.Path, fps: float, seek_mode: Literal["exact", "approximate"]) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    torch.set_num_threads(1)  # on a single core, torch's several threads would make it wait three times as long
    decoder = VideoDecoder(
        str(path),
        seek_mode=seek_mode,
        num_ffmpeg_threads=1,
        dimension_order="NHWC",
        transforms=[Resize((DECODE_HEIGHT_PX, DECODE_WIDTH_PX))],
    )
    metadata = decoder.metadata
    wanted = wanted_frames(metadata.num_frames or 0, metadata.average_fps or 0.0, fps=fps)
    return decoder.get_frames_at(wanted.tolist()).data.numpy()


def opencv(path: pathlib.Path, fps: float) -> np.ndarray:
    """OpenCV: grab every frame, retrieve the wanted ones."""
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    wanted = set(wanted_frames(count, rate, fps=fps).tolist())
    frames = []
    for index in range(max(wanted, default=-1) + 1):
        capture.grab()
        if index in wanted:
            frame = cv2.resize(
                capture.retrieve()[1], (DECODE_WIDTH_PX, DECODE_HEIGHT_PX), interpolation=cv2.INTER_CUBIC
            )
            frames.append(frame[:, :, ::-1])
    capture.release()
    return np.stack(frames)


def pyav_whole(path: pathlib.Path, fps: float) -> np.ndarray:
    """PyAV: decode every frame, convert the wanted ones."""
    from av.video.reformatter import VideoReformatter
    from gridclip.dali_pipes.cpu.decoding import to_rgb

    summary = scan.summarise(path)
    wanted = set(wanted_frames(summary.frame_count, summary.avg_fps, fps=fps).tolist())
    reformatter = VideoReformatter()
    frames = []
    with scan.open_video(path) as (container, stream):
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                frames.append(to_rgb(frame, reformatter))
            if len(frames) == len(wanted):
                break
    return np.stack(frames)


def spdl_select(path: pathlib.Path, fps: float) -> np.ndarray:
    """SPDL: decode every frame, let FFmpeg's `select` filter pick the wanted ones, scale those."""
    import spdl.io

    packets = spdl.io.demux_video(str(path))
    terms = "+".join(f"eq(n\\,{index})" for index in _spdl_wanted(packets, fps))
    scale = f"scale={DECODE_WIDTH_PX}:{DECODE_HEIGHT_PX}:flags=bicubic"
    frames = spdl.io.decode_packets(packets, filter_desc=f"select='{terms}',{scale},format=rgb24")
    return spdl.io.to_numpy(spdl.io.convert_frames(frames))


def spdl_sample(path: pathlib.Path, fps: float) -> np.ndarray:
    """SPDL's own sampling: each GOP up to its last wanted frame only, but every decoded frame is scaled."""
    import spdl.io

    scale = spdl.io.get_video_filter_desc(
        scale_width=DECODE_WIDTH_PX, scale_height=DECODE_HEIGHT_PX, scale_mode=None, pix_fmt="rgb24"
    )
    packets = spdl.io.demux_video(str(path))
    frames = spdl.io.sample_decode_video(packets, _spdl_wanted(packets, fps), filter_desc=scale)
    return spdl.io.to_numpy(spdl.io.convert_frames(frames))


def _spdl_wanted(packets: Any, fps: float) -> list[int]:
    rate, base = packets.frame_rate
    return wanted_frames(len(packets), rate / base, fps=fps).tolist()


def ffmpeg_command(path: pathlib.Path, fps: float) -> np.ndarray:
    """ffmpeg's command line with the `fps` and `scale` filters: about the same times, not the formula's frames."""
    filters = f"fps={fps}:round=up,scale={DECODE_WIDTH_PX}:{DECODE_HEIGHT_PX}:flags=bicubic"
    command = ["ffmpeg", "-v", "error", "-filter_threads", "1", "-threads", "1", "-i", str(path), "-vf", filters]
    command += ["-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(data, np.uint8).reshape(-1, DECODE_HEIGHT_PX, DECODE_WIDTH_PX, 3)


READERS: dict[str, Reader] = {
    "gridclip": gridclip_auto,
    "gridclip --decoder decord": gridclip_decord,
    "decord": decord_whole,
    "torchcodec exact": torchcodec_exact,
    "torchcodec approximate": torchcodec_approximate,
    "OpenCV": opencv,
    "PyAV": pyav_whole,
    "SPDL select": spdl_select,
    "SPDL sample": spdl_sample,
    "ffmpeg command": ffmpeg_command,
    "gridclip --decoder dali": decode_dali.gridclip_dali,
    "DALI": decode_dali.dali_whole,
}
# DALI decodes with NVDEC; everything else is as above.
GPU_READERS: dict[str, Reader] = {
    "gridclip --decoder dali, GPU": functools.partial(decode_dali.gridclip_dali, device_id=0),
    "DALI, GPU": functools.partial(decode_dali.dali_whole, device_id=0),
}


def readers_here() -> dict[str, Reader]:
    """All readers that this machine may run."""
    return READERS | GPU_READERS if torch.cuda.is_available() else READERS


def pruning_seconds(path: pathlib.Path, fps: float) -> float:
    """Seconds to read every packet's header and choose the packets to decode; opening the file is not counted."""
    with scan.open_video(path) as (container, stream):
        start = time.perf_counter()
        summary, table, _ = scan.scan(container, stream)
        plan_segments(table, wanted_frames(summary.frame_count, summary.avg_fps, fps=fps), cells=4)
        return time.perf_counter() - start


def packets_decoded(path: pathlib.Path, fps: float) -> tuple[int, int]:
    """(packets that GridCLIP decodes, packets of the stream)."""
    with scan.open_video(path) as (container, stream):
        summary, table, _ = scan.scan(container, stream)
    wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=fps)
    return sum(len(segment.packets) for segment in plan_segments(table, wanted, cells=4)), len(table.facts)
