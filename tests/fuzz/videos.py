"""Damaged videos in; every frame that the product gives is looked for in a whole decode by plain PyAV."""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import os
import pathlib
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence

import av
import av.error
import generated_videos
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from generated_videos import Recipe
from gridclip.dali_pipes.contract import SuperImages, VideoError, VideoFile
from gridclip.dali_pipes.cpu import tasks
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.sampling import Sampling
from PIL import Image

from .contract import Outcome, Verdict, different
from .damage import damage_packets, damaged_bytes

REAL_VIDEOS = pathlib.Path(__file__).resolve().parents[3] / "shared" / "data" / "videos"
MAX_REAL_BYTES = 1_500_000  # damage somewhere in a larger file mostly hits nothing that is looked at
SIZE_PX = 64
FRAMES = 48
PACKET_SHARE = 0.45
SETTINGS = "settings.json"
# Pictures that a reader holds while the decoder goes on.
HELD = (0, 1, 2, 5, 17)
# By a damaged rate every frame may be wanted thousands of times: so many are looked at.
MOST_COMPARED = 2000
# Wanted frames a second: one super image for each.
RATES = (1.0, 4.0, 10.0)

_MORE = [
    Recipe("mpeg2.ts", codec="mpeg2video", b_frames=2, gop=12),
    Recipe("mpeg2.mpg", codec="mpeg2video", b_frames=2, gop=12),
    Recipe("hevc.ts", codec="libx265", options=(("preset", "ultrafast"), ("x265-params", "log-level=none:pools=1"))),
    Recipe("hevc_raw.hevc", codec="libx265", options=(("preset", "ultrafast"), ("x265-params", "log-level=none"))),
    Recipe("vp9.mkv", codec="libvpx-vp9", options=(("deadline", "realtime"), ("cpu-used", "8"))),
]
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


class Videos:
    """Every codec and container that PyAV encodes here, and the real files where they are."""

    def __init__(self, decode: Callable[[VideoFile, float], tuple[np.ndarray, list[object]]] | None = None) -> None:
        self._decode = decode or product_frames

    def write_seeds(self, folder: pathlib.Path) -> None:
        os.environ.setdefault("SVT_LOG", "1")  # errors only
        for recipe in [*generated_videos.STRUCTURES, *_MORE]:
            small = dataclasses.replace(recipe, frames=FRAMES, gop=min(recipe.gop, 16))
            generated_videos.write(folder, small)
        remux(folder / "h264_pyramid.mp4", folder / "h264_fragmented.mp4", lambda packets: packets, FRAGMENTED)
        remux(folder / "h264_annexb.ts", folder / "h264_starts_in_gop.ts", lambda packets: packets[9:])
        for path in sorted(REAL_VIDEOS.glob("*")) if REAL_VIDEOS.is_dir() else []:
            if path.stat().st_size <= MAX_REAL_BYTES:
                shutil.copy(path, folder / f"real_{path.name}")

    def make(self, seeds: pathlib.Path, case: pathlib.Path, number: int, rng: random.Random) -> str:
        files = _listed(seeds)
        intact = number < len(files)
        seed = files[number] if intact else rng.choice(files)
        path = case / f"video{seed.suffix}"
        settings = {"file": path.name, "fps": rng.choice(RATES), "intact": intact}
        (case / SETTINGS).write_text(json.dumps(settings))
        if intact:
            shutil.copy(seed, path)
            return f"{seed.name}, undamaged"
        if rng.random() < PACKET_SHARE:
            try:
                return f"{seed.name}: {damage_packets(seed, path, rng)}"
            except (av.error.FFmpegError, ValueError):  # the muxer reads what it writes, and does not take this
                pass
        others = [_bytes(rng.choice(files))]
        data, done = damaged_bytes(_bytes(seed), others, rng)
        path.write_bytes(data)
        return f"{seed.name}: {done}"

    def judge(self, case: pathlib.Path) -> Verdict:
        settings = json.loads((case / SETTINGS).read_text())
        video = VideoFile("video", case / settings["file"])
        try:
            images, notices = self._decode(video, settings["fps"])
            summary = scan.summarise(video.path)
        except VideoError as error:
            if settings["intact"]:
                return different(f"an undamaged file was refused: {error}")
            raise
        whole = WholeDecode(video.path)
        verdict = compared(images, notices, summary.frame_count, summary.avg_fps, settings["fps"], whole)
        if verdict.outcome is Outcome.DIFFERENT and not whole.repeatable():
            return Verdict(Outcome.ACCEPTED, "two whole decodes differ: a decoder shows memory that it has not written")
        return verdict


def product_frames(video: VideoFile, fps: float) -> tuple[np.ndarray, list[object]]:
    """What a worker process makes of a video: a super image for each frame, uint8 [n, S, S, 3], and its notices.

    No more than MOST_COMPARED of them; where there are more, notices that come after all are missing.
    """
    sampling = Sampling(fps=fps, grid_size=1, super_img_size=SIZE_PX)
    work = tasks.embedding_tasks(sampling, "auto", SIZE_PX)[0]
    images: list[np.ndarray] = []
    notices: list[object] = []
    for result in work(video, skip=0):
        if isinstance(result, SuperImages):
            images.extend(result.on_cpu())
        else:
            notices.append(result)
        if len(images) >= MOST_COMPARED:
            break
    return np.stack(images[:MOST_COMPARED]), notices


def compared(
    images: np.ndarray, notices: Sequence[object], frame_count: int, avg_fps: float, fps: float, whole: WholeDecode
) -> Verdict:
    """Compares the product's frames with those of a whole decode.

    Args:
        images: uint8 [n, S, S, 3].
        notices: not empty where the product says that it has replaced frames.
        frame_count, avg_fps: what the product counts.
    """
    wanted = _wanted(frame_count, avg_fps, fps)[:MOST_COMPARED]
    if len(images) != len(wanted):
        return different(f"{len(images)} frames came, {len(wanted)} were wanted of {frame_count}")
    replaced = sum(getattr(notice, "kind", "damage") == "damage" for notice in notices)
    reach = round(avg_fps / fps) if replaced else 0
    worst = 0.0
    for image, index in zip(images, wanted, strict=True):
        candidates = whole.candidates(int(index), frame_count, reach)
        if any(np.array_equal(image, whole.image(position)) for position in candidates):
            continue
        wrong = min((_distance(image, whole.image(position)) for position in candidates), default=255.0)
        worst = max(worst, wrong)
        near = [p for p in range(len(whole.frames)) if np.array_equal(image, whole.image(p))]
        found = f"it is picture {near[0]}" if near else "it is none of the whole decode's"
        return different(
            f"frame {index} of {frame_count}: {found}, expected one of {list(candidates)[:5]} of "
            f"{len(whole.frames)}; mean absolute difference {worst:.1f}"
        )
    return Verdict(Outcome.IDENTICAL, f"{len(images)} frames, {len(notices)} notices")


class WholeDecode:
    """All pictures of a video, in the order in which plain PyAV puts them out.

    Which of them is frame n is told by the count where there are as many pictures as frames; else by the time stamps,
    where each packet shows a picture; else only within the number of pictures that are missing or too many.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self.frames: list[VideoFrame] = []
        self._clean = True
        self._images: dict[int, np.ndarray] = {}
        self._packet_pts: list[int | None] = []
        self.frames = list(self._decoded())
        packet_pts = self._packet_pts
        self._position = {frame.pts: position for position, frame in enumerate(self.frames)}
        shown_at = [frame.pts for frame in self.frames]
        self._timed = (
            None not in packet_pts
            and len(set(packet_pts)) == len(packet_pts)
            and None not in shown_at
            and shown_at == sorted(set(shown_at))  # avi gives times in the order of decoding
        )
        self._order = sorted(pts for pts in packet_pts if pts is not None)

    def _decoded(self) -> Iterator[VideoFrame]:
        self._packet_pts.clear()
        with av.open(str(self._path), metadata_errors="replace") as container:
            stream = container.streams.best("video")
            stream.codec_context.thread_count = 1
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = av.stream.Discard.all
            for packet in _packets(container, stream):
                if packet.size and not packet.is_discard:
                    self._packet_pts.append(packet.pts)
                yield from self._pictures(stream, packet)
            yield from self._pictures(stream, None)

    def _pictures(self, stream: av.VideoStream, packet: Packet | None) -> list[VideoFrame]:
        if packet is not None and not packet.size:
            return []
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            self._clean = False
            return []
        self._clean &= not any(frame.is_corrupt for frame in frames)
        return frames

    def candidates(self, index: int, frame_count: int, reach: int) -> list[int]:
        """Positions in `frames` that may be frame `index` of frame_count; `reach` more where frames were replaced."""
        # Damage may leave a decoder's order and that of the time stamps two different ones.
        by_time = self._position.get(self._order[index]) if len(self._order) == frame_count else None
        missing = max(abs(frame_count - len(self.frames)), abs(frame_count - len(self._packet_pts)))
        if missing == 0 and self._clean:
            places = {index: reach} | ({} if by_time is None else {by_time: reach})
        elif self._timed and by_time is not None:
            places = {by_time: missing + reach if reach else 0}
        elif self._timed and len(self._order) == frame_count:
            places = {index: missing + reach}
        else:
            places = ({} if by_time is None else {by_time: reach}) | {index: missing + 2 + reach}
        near = {place + step for place, slack in places.items() for step in range(-slack, slack + 1)}
        return sorted(position for position in near if 0 <= position < len(self.frames))

    def repeatable(self) -> bool:
        """Whether whole decodes that hold fewer pictures at a time give the same ones.

        Then the decoder writes into memory that held an earlier picture, and what it leaves unwritten of a damaged one
        (VP8 and H.264 do, without a word) is not what it was at first.
        """
        for held in HELD:
            recent: collections.deque[VideoFrame] = collections.deque(maxlen=held)
            count = 0
            for frame in self._decoded():
                if count >= len(self.frames) or _pixels(frame) != _pixels(self.frames[count]):
                    return False
                recent.append(frame)
                count += 1
            if count != len(self.frames):
                return False
        return True

    def image(self, position: int) -> np.ndarray:
        """Picture `position` as the product scales frames: to 446 x 336, then to the super image, uint8 [S, S, 3]."""
        if position not in self._images:
            self._images[position] = _scaled(self.frames[position])
        return self._images[position]


def _scaled(frame: VideoFrame) -> np.ndarray:
    turns = round(frame.rotation / 90) % 4
    width, height = (446, 336) if turns % 2 == 0 else (336, 446)
    scaled = frame.reformat(width, height, format="gbrp", interpolation=Interpolation.BICUBIC)
    pixels = np.ascontiguousarray(np.rot90(scaled.to_ndarray(), turns))
    return np.asarray(Image.fromarray(pixels).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC))


def _pixels(frame: VideoFrame) -> bytes:
    return frame.reformat(format="gbrp").to_ndarray().tobytes()


def _packets(container: av.container.InputContainer, stream: av.VideoStream) -> Iterable[Packet]:
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:  # the rest cannot be read
        return


def _wanted(frame_count: int, avg_fps: float, fps: float) -> np.ndarray:
    """The reference's formula; a video shorter than one period gives its first frame."""
    count = int(frame_count * fps / avg_fps)
    return np.linspace(0, frame_count, count, endpoint=False, dtype=int) if count else np.zeros(1, int)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


def remux(
    source: pathlib.Path,
    target: pathlib.Path,
    choose: Callable[[list[Packet]], list[Packet]],
    options: dict[str, str] | None = None,
) -> None:
    """Copies the chosen packets of a video into another container."""
    with av.open(str(source)) as container, av.open(str(target), "w", options=options or {}) as out:
        stream = container.streams.best("video")
        copy = out.add_stream_from_template(stream, opaque=True)
        for packet in choose([packet for packet in container.demux(stream) if packet.size]):
            packet.stream = copy
            out.mux_one(packet)


@functools.cache
def _listed(seeds: pathlib.Path) -> list[pathlib.Path]:
    return sorted(seeds.iterdir())


@functools.cache
def _bytes(path: pathlib.Path) -> bytes:
    return path.read_bytes()
