"""Some seconds of a video in, a file that every browser plays out: H.264 and AAC in MP4, else VP8 in WebM."""

from __future__ import annotations

import dataclasses
import fractions
import io
from typing import Any

import av
import av.error
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.frame import Frame
from av.packet import Packet
from av.video.frame import PictureType
from av.video.stream import VideoStream

from ...dali_pipes.contract import VideoError
from ...dali_pipes.opening import opened
from ...dali_pipes.places import Place

SOUND_HZ = 48_000
_TICKS = 90_000  # per second, of the clip's time stamps
_TOLERANCE_S = 1e-3  # containers round time stamps, WebM to a millisecond
_PATIENCE_S = 2.0


@dataclasses.dataclass(frozen=True)
class Quality:
    """What a clip is to look like.

    Attributes:
        most_height_px: higher pictures become smaller.
        most_fps: of more frames a second some are left out.
        crf: of libx264; 18 shows no difference.
    """

    most_height_px: int
    most_fps: int
    crf: int


PREVIEW = Quality(720, 30, 24)
FAITHFUL = Quality(1 << 15, 240, 18)


@dataclasses.dataclass(frozen=True)
class EncodedClip:
    """A file and its media type."""

    data: bytes
    media_type: str


@dataclasses.dataclass(frozen=True)
class _Order:
    start_s: float
    end_s: float
    quality: Quality
    playable: bool


def encode_clip(place: Place, start_s: float, end_s: float, quality: Quality) -> EncodedClip:
    """Decodes and encodes some seconds, with sound where there is some; the clip begins at start_s.

    Args:
        place: a video: a file, a part of a tar, or an object of a remote store.
        start_s, end_s: in seconds from its first frame on, start_s < end_s.
        quality: what the clip is to look like.

    Raises:
        VideoError: it cannot be opened or read, or shows nothing in these seconds.
    """
    file = io.BytesIO()
    playable = "libx264" in av.codecs_available
    form, media_type = ("mp4", "video/mp4") if playable else ("webm", "video/webm")
    try:
        with opened(place) as readable, av.open(readable, "r") as source, av.open(file, "w", format=form) as target:
            _encode(source, target, _Order(start_s, end_s, quality, playable))
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError("decode", f"no clip can be made of it: {error}") from error
    return EncodedClip(file.getvalue(), media_type)


def _encode(source: InputContainer, target: OutputContainer, order: _Order) -> None:
    pictures = source.streams.best("video")
    if not isinstance(pictures, VideoStream):
        raise VideoError("open", "it has no video stream")
    sounds = source.streams.best("audio")
    pictures.thread_type = "AUTO"
    zero_s = origin_s(pictures)  # what the store's seconds count from
    begin_s, end_s = zero_s + order.start_s, zero_s + order.end_s
    if source.duration is not None and begin_s > (source.start_time + source.duration) / av.time_base + _PATIENCE_S:
        raise VideoError("decode", f"it shows nothing from {order.start_s:g} to {order.end_s:g} s: it ends before")
    source.seek(int(max(begin_s, 0.0) * av.time_base), backward=True)
    shown = _PictureWriter(target, pictures, begin_s, order)
    heard = None
    if isinstance(sounds, AudioStream) and sounds.codec_context is not None:
        heard = _SoundWriter(target, begin_s, "aac" if order.playable else "libopus")
    over: set[int] = set()
    streams = [pictures, *([sounds] if heard else [])]
    for packet in source.demux(streams):
        for frame in _decoded(packet):
            if frame.time is None:
                continue
            if frame.time >= end_s:
                over.add(packet.stream.index)
            elif isinstance(frame, av.VideoFrame):
                shown.write(frame, frame.time)
            elif heard is not None and isinstance(frame, av.AudioFrame):
                heard.write(frame, frame.time)
        # A stream whose packets come late is waited for at most this long: sound may end before the pictures do.
        far = packet.pts is not None and float(packet.pts * packet.time_base) > end_s + _PATIENCE_S
        if far or len(over) == len(streams):
            break
    if not shown.finish():
        raise VideoError("decode", f"it shows nothing from {order.start_s:g} to {order.end_s:g} s")
    if heard is not None:
        heard.finish()


def origin_s(stream: VideoStream | AudioStream) -> float:
    """When a stream begins, by its own time stamps."""
    return float((stream.start_time or 0) * (stream.time_base or 0))


def _decoded(packet: Packet[Any]) -> list[Frame]:
    """The frames of a packet; none of one that is damaged: the clip goes on behind it."""
    try:
        return list(packet.decode())
    except av.error.InvalidDataError:
        return []


class _PictureWriter:
    """Frames in, the clip's video stream out, with square pixels."""

    def __init__(self, target: OutputContainer, source: VideoStream, begin_s: float, order: _Order) -> None:
        quality, context = order.quality, source.codec_context
        squeeze = float(source.sample_aspect_ratio or 1) or 1.0
        scale = min(1.0, quality.most_height_px / max(context.height, 1))
        if order.playable:
            codec, options = "libx264", {"preset": "veryfast", "crf": f"{quality.crf}"}
        else:
            codec, options = "libvpx", {"deadline": "realtime", "crf": "12"}
        self._most_fps = quality.most_fps
        stream = target.add_stream(codec, rate=quality.most_fps, options=options)
        assert isinstance(stream, VideoStream)
        self._stream = stream
        self._stream.width = _even(context.width * squeeze * scale)
        self._stream.height = _even(context.height * scale)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = fractions.Fraction(1, _TICKS)
        self._target, self._begin_s = target, begin_s
        self._on_screen: av.VideoFrame | None = None  # when the clip begins
        self._next_s = 0.0

    def write(self, frame: av.VideoFrame, time_s: float) -> None:
        """Adds a frame; of those before the beginning the last one is its first picture."""
        if time_s < self._begin_s - _TOLERANCE_S:
            self._on_screen = frame
            return
        first, self._on_screen = self._on_screen, None
        since_s = max(0.0, time_s - self._begin_s)
        if first is not None and since_s > _TOLERANCE_S:
            self._add(first, 0.0)
        self._add(frame, since_s)

    def _add(self, frame: av.VideoFrame, since_s: float) -> None:
        if since_s < self._next_s - _TOLERANCE_S:
            return
        self._next_s = since_s + 1 / self._most_fps
        picture = frame.reformat(self._stream.width, self._stream.height, "yuv420p")
        picture.pts, picture.time_base = round(since_s * _TICKS), fractions.Fraction(1, _TICKS)
        picture.pict_type = PictureType.NONE
        self._target.mux(self._stream.encode(picture))

    def finish(self) -> bool:
        """Ends the stream; whether it shows anything."""
        if self._on_screen is not None:  # a picture that stays to the end
            self._add(self._on_screen, 0.0)
        shows = self._next_s > 0
        if shows:
            self._target.mux(self._stream.encode())
        return shows


class _SoundWriter:
    """Sound in, the clip's audio stream out: stereo at SOUND_HZ."""

    def __init__(self, target: OutputContainer, begin_s: float, codec: str) -> None:
        stream = target.add_stream(codec, rate=SOUND_HZ)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._stream.layout = "stereo"
        self._resampler = AudioResampler("fltp" if codec == "aac" else "s16", "stereo", SOUND_HZ)
        self._target, self._begin_s = target, begin_s
        self._samples: int | None = None  # so far, silence before the first included

    def write(self, frame: av.AudioFrame, time_s: float) -> None:
        """Adds a frame that begins in the clip."""
        if time_s < self._begin_s - _TOLERANCE_S:
            return
        if self._samples is None:
            self._samples = round(max(0.0, time_s - self._begin_s) * SOUND_HZ)
        frame.pts = None
        self._encode(frame)

    def _encode(self, frame: av.AudioFrame | None) -> None:
        for sound in self._resampler.resample(frame):
            assert self._samples is not None
            sound.pts, sound.time_base = self._samples, fractions.Fraction(1, SOUND_HZ)
            self._samples += sound.samples
            self._target.mux(self._stream.encode(sound))

    def finish(self) -> None:
        """Ends the stream."""
        if self._samples is not None:
            self._encode(None)
        self._target.mux(self._stream.encode())


def _even(size_px: float) -> int:
    """As 4:2:0 pictures need it."""
    return max(2, round(size_px / 2) * 2)
