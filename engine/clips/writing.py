"""A video file and some of its seconds in, a clip (MP4) of them out: packets where a keyframe allows it, else frames.

Copying packets costs nothing and changes nothing, but a clip of packets begins at a keyframe. Where one is shown at
most `COPY_WITHIN_S` before the moment, and MP4 can hold the codec, packets are copied; otherwise the moment is decoded
and encoded again, and begins at its frame.
"""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ... import GridClipError
from ...dali_pipes import ids
from ...dali_pipes.contract import VideoError
from ...dali_pipes.opening import opened
from ...dali_pipes.places import Place
from .encoding import FAITHFUL, encode_clip, origin_s

COPY_WITHIN_S = 0.5
COPIED_CODECS = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4"})  # of pictures, that players take in MP4
COPIED_SOUND = frozenset({"aac", "mp3", "ac3", "opus"})


def clip_path(clip_dir: pathlib.Path, video_id: str, start_s: float, end_s: float) -> pathlib.Path:
    """`<clip_dir>/<video id>_<start>-<end>s.mp4`, below the folder whatever the id is.

    Raises:
        ids.UnusableId: the id is no path below a folder.
    """
    return ids.path_below(clip_dir, video_id, f"_{start_s:.1f}-{end_s:.1f}s.mp4")


def write_clip(video: Place, start_s: float, end_s: float, clip: pathlib.Path) -> bool:
    """Writes a clip, whole or not at all; whether its packets were copied.

    Args:
        video: a file, a part of a tar, or an object of a remote store.
        start_s, end_s: in seconds from its first frame on, start_s < end_s.
        clip: the file to write; its folder is made, an older file is replaced.

    Raises:
        GridClipError: the video cannot be read, has no frame there, or the clip cannot be written.
    """
    part = clip.with_name(f".{os.getpid()}.part")
    try:
        clip.parent.mkdir(parents=True, exist_ok=True)
        copied = _copy(video, start_s, end_s, part)
        if not copied:
            part.write_bytes(encode_clip(video, start_s, end_s, FAITHFUL).data)
        part.replace(clip)
    except (OSError, ValueError, VideoError) as error:  # PyAV's errors are one of the first two
        raise GridClipError(f"no clip of {video} from {start_s:.1f} to {end_s:.1f} s: {error}") from error
    finally:
        part.unlink(missing_ok=True)
    return copied


def _copy(video: Place, start_s: float, end_s: float, to: pathlib.Path) -> bool:
    """Copies packets; False, with nothing of worth in the file, where that cannot be done."""
    with opened(video) as readable, av.open(readable, "r") as source:
        pictures, sound = _streams(source)
        if pictures.codec_context.name not in COPIED_CODECS or pictures.time_base is None:
            return False
        first = _seek(source, pictures, start_s)
        if first is None or not start_s - COPY_WITHIN_S <= first <= start_s + _frame_s(pictures) / 2:
            return False
        if sound is not None and sound.codec_context.name not in COPIED_SOUND:
            return False
        try:
            with av.open(str(to), "w", format="mp4", options={"movflags": "+faststart"}) as target:
                _copy_packets(source, [pictures, *([sound] if sound else [])], first, end_s, target)
        except (av.error.FFmpegError, ValueError):  # a muxer takes less than its format allows: then frames
            return False
    return True


def _copy_packets(
    source: InputContainer,
    streams: list[VideoStream | AudioStream],
    first: float,
    end_s: float,
    target: OutputContainer,
) -> None:
    outputs = {stream.index: target.add_stream_from_template(stream) for stream in streams}
    origin, shown = origin_s(streams[0]), streams[0].index
    taken: dict[int, list[Packet[Any]]] = {stream.index: [] for stream in streams}
    going = set(taken)
    for packet in source.demux(streams):
        if packet.pts is None or packet.stream.index not in going:
            continue
        # What is shown before the end is decoded before it. Matroska does not say when its first packets are decoded.
        decoded_s = -math.inf if packet.dts is None else float(packet.dts * packet.time_base) - origin
        if decoded_s >= end_s:
            going.remove(packet.stream.index)
            if not going:
                break
        elif packet.stream.index == shown or float(packet.pts * packet.time_base) - origin >= first:
            taken[packet.stream.index].append(packet)
    for index, packets in taken.items():
        _begin_at(packets, first + origin)
        for packet in packets:
            packet.stream = outputs[index]
            target.mux(packet)


def _begin_at(packets: list[Packet[Any]], first_s: float) -> None:
    """Moves time stamps to where first_s is 0, and says when each is decoded: in order, before it is shown."""
    times = [packet.pts or 0 for packet in packets]  # none without a time stamp is taken
    rising = sorted(times)
    ahead = max((early - time for early, time in zip(rising, times, strict=True)), default=0)
    for early, time, packet in zip(rising, times, packets, strict=True):
        shift = round(first_s / packet.time_base)
        packet.pts, packet.dts = time - shift, early - ahead - shift


def _streams(source: InputContainer) -> tuple[VideoStream, AudioStream | None]:
    pictures = source.streams.best("video")
    if not isinstance(pictures, VideoStream):
        raise ValueError("the file has no video stream")
    sound = source.streams.best("audio")
    return pictures, sound if isinstance(sound, AudioStream) else None


def _seek(source: InputContainer, pictures: VideoStream, start_s: float) -> float | None:
    """Goes to the last keyframe that is shown at start_s or before; its time, None where it has none."""
    at = round((start_s + _frame_s(pictures) / 2 + origin_s(pictures)) / (pictures.time_base or 1))
    source.seek(at, stream=pictures)
    packet = next(source.demux(pictures), None)
    source.seek(at, stream=pictures)
    if packet is None or packet.pts is None or not packet.is_keyframe:
        return None
    return float(packet.pts * packet.time_base) - origin_s(pictures)


def _frame_s(pictures: VideoStream) -> float:
    """How long a frame is shown."""
    return float(1 / pictures.average_rate) if pictures.average_rate else 0.04
