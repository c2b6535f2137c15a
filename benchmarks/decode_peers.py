"""A video and a rate in, the wanted frames out: GridCLIP's decoders and what a user would pick instead, all alike.

Every reader returns uint8 [n, 336, 446, 3], the frames of the sampling formula, on one thread.
"""

from __future__ import annotations

import pathlib
import subprocess
import time
from collections.abc import Callable
from typing import Literal

import numpy as np
from gridclip.dali_pipes import fallback, streams
from gridclip.dali_pipes.pruning import plan_segments
from gridclip.dali_pipes.reading import Decoder
from gridclip.dali_pipes.sampling import DECODE_HEIGHT_PX, DECODE_WIDTH_PX, wanted_frames

Reader = Callable[[pathlib.Path, float], np.ndarray]


def gridclip_auto(path: pathlib.Path, fps: float) -> np.ndarray:
    """Pruned packets, decoded by PyAV: what --decoder auto and pyav do."""
    return _gridclip(path, fps, "auto")


def gridclip_decord(path: pathlib.Path, fps: float) -> np.ndarray:
    """Pruned packets, remuxed in memory for decord: what --decoder decord does."""
    return _gridclip(path, fps, "decord")


def _gridclip(path: pathlib.Path, fps: float, decoder: Decoder) -> np.ndarray:
    return np.stack(list(fallback.frames(path, fps, decoder=decoder)))


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
    from gridclip.dali_pipes.decoding import to_rgb

    summary = streams.inspect(path)
    wanted = set(wanted_frames(summary.frame_count, summary.avg_fps, fps=fps).tolist())
    reformatter = VideoReformatter()
    frames = []
    with streams.open_video(path) as (container, stream):
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                frames.append(to_rgb(frame, reformatter))
            if len(frames) == len(wanted):
                break
    return np.stack(frames)


def ffmpeg_command(path: pathlib.Path, fps: float) -> np.ndarray:
    """ffmpeg's command line with the `fps` and `scale` filters: about the same times, not the formula's frames."""
    filters = f"fps={fps}:round=up,scale={DECODE_WIDTH_PX}:{DECODE_HEIGHT_PX}:flags=bicubic"
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-vf", filters]
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
    "ffmpeg command": ffmpeg_command,
}


def thumbnails(frames: np.ndarray) -> np.ndarray:
    """Frames uint8 [n, 336, 446, 3] as float32 [n, 21 * 27 * 3]: means of 16 x 16 pixels, less each channel's own mean.

    Scalers and colour matrices differ between readers; which frame it is shows all the same.
    """
    count = len(frames)
    blocks = frames[:, :, :432].reshape(count, 21, 16, 27, 16, 3).mean(axis=(2, 4), dtype=np.float32)
    return (blocks - blocks.mean(axis=(1, 2), keepdims=True)).reshape(count, -1)


def thumbnails_around(path: pathlib.Path, wanted: np.ndarray, neighbours: int) -> dict[int, np.ndarray]:
    """Thumbnails of the frames within `neighbours` of a wanted one, by frame index, from decoding the whole file."""
    from av.video.reformatter import VideoReformatter
    from gridclip.dali_pipes.decoding import to_rgb

    near = {index + step for index in wanted.tolist() for step in range(-neighbours, neighbours + 1)}
    reformatter = VideoReformatter()
    with streams.open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = 0
        decoded = enumerate(container.decode(stream))
        return {index: thumbnails(to_rgb(frame, reformatter)[None])[0] for index, frame in decoded if index in near}


def pruning_seconds(path: pathlib.Path, fps: float) -> float:
    """Seconds to read every packet's header and choose the packets to decode; opening the file is not counted."""
    with streams.open_video(path) as (container, stream):
        start = time.perf_counter()
        summary, table, _ = streams.scan(container, stream)
        plan_segments(table, wanted_frames(summary.frame_count, summary.avg_fps, fps=fps), cells=4)
        return time.perf_counter() - start


def packets_decoded(path: pathlib.Path, fps: float) -> tuple[int, int]:
    """(packets that GridCLIP decodes, packets of the stream)."""
    with streams.open_video(path) as (container, stream):
        summary, table, _ = streams.scan(container, stream)
    wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=fps)
    return sum(len(segment.packets) for segment in plan_segments(table, wanted, cells=4)), len(table.facts)
