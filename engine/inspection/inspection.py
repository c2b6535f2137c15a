"""A video file in, why decoding its wanted frames costs what it costs out; packets are read, nothing is decoded."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from ... import GridClipError
from ...dali_pipes.bitstream.facts import CLOSED, CUT_OFF, DISPOSABLE, HIDDEN, NOT_SHOWN, OPEN, UNDECODABLE, UNSAFE
from ...dali_pipes.bitstream.readers import may_hold_fields
from ...dali_pipes.contract import VideoError
from ...dali_pipes.cpu.reading import Reading, open_reading
from ...dali_pipes.nvdali import segments as dali_segments
from ...dali_pipes.packets import remux
from ...dali_pipes.packets.keyframes import nearest_keyframes
from ...dali_pipes.packets.pruning import Segment, plan_segments
from ...dali_pipes.packets.scan import PacketTable
from ...dali_pipes.sampling import Sampling, rate_differs
from . import reasons as reasons

# Codecs that GridCLIP prunes, but decord 0.6 was built without.
NOT_IN_DECORD = ("av1",)


@dataclasses.dataclass(frozen=True)
class Kind:
    """Packets of one kind: how many, and their bytes."""

    packets: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Spread:
    """The shortest, the median and the longest of several lengths."""

    shortest: float
    median: float
    longest: float

    @classmethod
    def of(cls, lengths: np.ndarray) -> Spread:
        return cls(float(lengths.min()), float(np.median(lengths)), float(lengths.max()))


@dataclasses.dataclass(frozen=True)
class Gops:
    """The runs of packets from one keyframe to the next.

    Attributes:
        count: of them; `closed` and `open` of these, by the codec's syntax.
        proved: decoding can start at each; False: they are the container's keyframe flags, and nothing is known.
        frames, seconds: how long they are; what comes before the first keyframe belongs to none.
    """

    count: int
    closed: int
    open: int
    proved: bool
    frames: Spread
    seconds: Spread


@dataclasses.dataclass(frozen=True)
class Decoding:
    """What the wanted frames cost.

    Attributes:
        packets, bytes: that must be decoded, each counted once.
        again: packets that two segments decode.
        segments: parts of the video that are decoded on their own.
        starts: places where a decoder starts afresh.
        needed: packets to decode by what they are for: `wanted` frames, or `references` that these need.
        left_out: the other packets of the stream, by reason.
        share_left_out: of all packets, 0 to 1.
        with_keyframes: packets to decode with `mode='keyframes'`; None where the stream cannot be analysed.
    """

    packets: int
    bytes: int
    again: int
    segments: int
    starts: int
    needed: dict[str, int]
    left_out: dict[str, int]
    share_left_out: float
    with_keyframes: int | None


@dataclasses.dataclass(frozen=True)
class Route:
    """What a `decoder` takes: how many of the video's `segments`, and `why_not` the others (None: it takes all)."""

    decoder: str
    segments: int
    why_not: str | None


@dataclasses.dataclass(frozen=True)
class Inspection:
    """All that `gridclip inspect` tells; `to_json` gives the same keys.

    Attributes:
        file, file_bytes: the file.
        container, codec, pixel_format: FFmpeg's names.
        width, height: of a coded picture, pixels.
        frames, avg_fps, duration_s: of the video stream; see `packets.scan.VideoStream`.
        variable_rate: its time stamps and its frames at the average rate are far apart; see `sampling.rate_differs`.
        rotation_degrees: clockwise, for showing.
        interlaced: its headers allow for pictures of two fields.
        packets, packet_bytes: of the video stream.
        kinds: each packet is of one kind: keyframe, reference, disposable, hidden (shows no picture), unanalysed.
        hidden: hidden packets by reason.
        doubts: packets that make pruning unprovable, by reason; see `inspection_reasons`.
        gops: None where nothing tells keyframes.
        fps: wanted frames per second.
        wanted_frames: how many; two may be the same frame.
        decoding: what they cost.
        pruned: whether packets are chosen by what the codec's syntax proves.
        why: sentences: what keeps packets from being left out.
        routes: what each decoder would take.
    """

    file: str
    file_bytes: int
    container: str
    codec: str
    pixel_format: str
    width: int
    height: int
    frames: int
    avg_fps: float
    duration_s: float
    variable_rate: bool
    rotation_degrees: int
    interlaced: bool
    packets: int
    packet_bytes: int
    kinds: dict[str, Kind]
    hidden: dict[str, int]
    doubts: dict[str, reasons.Doubt]
    gops: Gops | None
    fps: float
    wanted_frames: int
    decoding: Decoding
    pruned: bool
    why: tuple[str, ...]
    routes: tuple[Route, ...]

    def to_json(self) -> dict[str, object]:
        """The inspection as plain dicts and lists."""
        return dataclasses.asdict(self)


def inspect_video(path: pathlib.Path, sampling: Sampling, *, max_shift_s: float = 2.0) -> Inspection:
    """Reads the packets of a video and says which of them its wanted frames need.

    Args:
        path: a video file.
        sampling: which frames are wanted, and how many make a super image.
        max_shift_s: for what `mode='keyframes'` would cost: seconds by which a frame may move.

    Raises:
        GridClipError: the file is missing, no video, cut off, or has no wanted frame.
    """
    try:
        with open_reading(path, sampling) as reading:
            return _inspect(path, reading, max_shift_s)
    except VideoError as error:
        raise GridClipError(f"{path}: {error.stage}: {error.reason}") from error


def _inspect(path: pathlib.Path, reading: Reading, max_shift_s: float) -> Inspection:
    table, summary, stream = reading.table, reading.summary, reading.stream
    segments = plan_segments(table, reading.wanted, cells=reading.sampling.block)
    gops = measure_gops(table, summary.duration_s)
    kinds = sort_packets(table)
    decoding = _cost(reading, segments, max_shift_s)
    return Inspection(
        file=str(path),
        file_bytes=path.stat().st_size,
        container=stream.container.format.name,
        codec=summary.codec,
        pixel_format=stream.codec_context.pix_fmt or "unknown",
        width=summary.width,
        height=summary.height,
        frames=summary.frame_count,
        avg_fps=summary.avg_fps,
        duration_s=summary.duration_s,
        variable_rate=rate_differs(summary),
        rotation_degrees=remux.rotation_degrees(stream),
        interlaced=may_hold_fields(summary.codec, stream.codec_context),
        packets=len(table.facts),
        packet_bytes=int(table.sizes.sum()),
        kinds={name: Kind(int(chosen.sum()), int(table.sizes[chosen].sum())) for name, chosen in kinds.items()},
        hidden={
            name: int(((table.facts & fact) != 0).sum())
            for name, fact in (("not_shown", NOT_SHOWN), ("cut_off", CUT_OFF), ("undecodable", UNDECODABLE))
        },
        doubts=reasons.count_doubts(table.facts),
        gops=gops,
        fps=reading.sampling.fps,
        wanted_frames=len(reading.wanted),
        decoding=decoding,
        pruned=table.prunable,
        why=tuple(
            reasons.explain(
                table,
                codec=summary.codec,
                wanted=len(np.unique(reading.wanted)),
                decoded=decoding.packets,
                gop_frames=None if gops is None else gops.frames.median,
            )
        ),
        routes=tuple(_routes(reading, segments)),
    )


def sort_packets(table: PacketTable) -> dict[str, np.ndarray]:
    """bool [P] for each kind of packets; each packet is of exactly one kind."""
    facts = table.facts
    rest = np.ones(len(facts), bool)
    kinds = {}
    for name, chosen in (
        ("unanalysed", (facts & UNSAFE) != 0),
        ("hidden", (facts & HIDDEN) != 0),
        ("keyframe", (facts & (CLOSED | OPEN)) != 0),
        ("disposable", (facts & DISPOSABLE) != 0),
        ("reference", rest),
    ):
        kinds[name] = chosen & rest
        rest = rest & ~chosen
    return {name: kinds[name] for name in ("keyframe", "reference", "disposable", "hidden", "unanalysed")}


def measure_gops(table: PacketTable, duration_s: float) -> Gops | None:
    """The lengths of the GOPs, in decode order; what comes before the first keyframe belongs to none."""
    starts = np.flatnonzero(table.facts & (CLOSED | OPEN))
    proved = len(starts) > 0
    if not proved:
        starts = np.flatnonzero(table.keyframes)
    if not len(starts):
        return None
    shows = (table.facts & HIDDEN) == 0
    shown_before = np.concatenate([[0], np.cumsum(shows)])
    frames = np.diff(shown_before[np.append(starts, len(table.facts))])
    if table.ordered:
        at_s = np.zeros(len(table.facts))
        at_s[table.shown] = table.times_s
        begin_s = np.append(at_s[starts], duration_s)
        begin_s[0] = 0.0
        seconds = np.diff(begin_s)
    else:
        seconds = frames * (duration_s / max(len(table.shown), 1))
    closed = int(((table.facts[starts] & CLOSED) != 0).sum())
    return Gops(
        count=len(starts),
        closed=closed,
        open=len(starts) - closed if proved else 0,
        proved=proved,
        frames=Spread.of(frames),
        seconds=Spread.of(seconds),
    )


def _cost(reading: Reading, segments: list[Segment], max_shift_s: float) -> Decoding:
    table = reading.table
    decoded, left_out = _decoded(table, reading.wanted, segments)
    wanted = np.zeros(len(table.facts), bool)
    wanted[table.shown[reading.wanted]] = True
    fed = sum(len(segment.packets) for segment in segments) if table.prunable else int(decoded.sum())
    moved = None
    if table.prunable and table.ordered:
        nearest = nearest_keyframes(table, reading.planned, max_shift_s)
        moved = int(_decoded(table, nearest, plan_segments(table, nearest, cells=reading.sampling.block))[0].sum())
    return Decoding(
        packets=int(decoded.sum()),
        bytes=int(table.sizes[decoded].sum()),
        again=fed - int(decoded.sum()),
        segments=len(segments),
        starts=sum(len(segment.runs) for segment in segments),
        needed={"wanted": int((decoded & wanted).sum()), "references": int((decoded & ~wanted).sum())},
        left_out=left_out,
        share_left_out=1 - float(decoded.mean()),
        with_keyframes=moved,
    )


def _decoded(table: PacketTable, wanted: np.ndarray, segments: list[Segment]) -> tuple[np.ndarray, dict[str, int]]:
    """(bool [P], packets that a decoder must see; how many others there are, by reason)."""
    count = len(table.facts)
    decoded, inside = np.zeros(count, bool), np.zeros(count, bool)
    if not table.prunable:
        decoded[: int(table.shown[wanted].max()) + 1] = True
        return decoded, {"disposable": 0, "leading": 0, "after_last_wanted": int((~decoded).sum()), "gop_unwanted": 0}
    for segment in segments:
        decoded[segment.packets] = True
        for start, stop in zip(segment.runs, [*segment.runs[1:], len(segment.packets)], strict=True):
            inside[segment.packets[start] : segment.packets[stop - 1] + 1] = True
    gop = np.cumsum((table.facts & (CLOSED | OPEN if table.ordered else CLOSED)) != 0)
    entered = np.isin(gop, gop[inside])
    skipped = inside & ~decoded
    # Where frames name what they need, all that is skipped inside is of no use to the wanted ones.
    disposable = skipped & ((table.facts & DISPOSABLE != 0) | (table.references is not None))
    return decoded, {
        "disposable": int(disposable.sum()),
        "leading": int((skipped & ~disposable).sum()),
        "after_last_wanted": int((~inside & entered).sum()),
        "gop_unwanted": int((~inside & ~entered).sum()),
    }


def _routes(reading: Reading, segments: list[Segment]) -> list[Route]:
    """What DALI on a GPU, DALI's CPU variant, decord and PyAV take."""
    routes: list[Route] = []
    devices: dict[str, dali_segments.Device] = {"dali": "gpu", "dali_cpu": "cpu"}
    for decoder, device in devices.items():
        whole = dali_segments.why_not(reading, device)
        obstacles = [whole or dali_segments.why_not_segment(reading, segment) for segment in segments]
        routes.append(_route(decoder, obstacles))
    codec, table = reading.summary.codec, reading.table
    unknown = f"its own FFmpeg does not decode {codec}" if codec in NOT_IN_DECORD else None
    routes.append(_route("decord", [unknown or remux.why_not_counted(table, segment, codec) for segment in segments]))
    routes.append(Route("pyav", len(segments), None))
    return routes


def _route(decoder: str, obstacles: list[str | None]) -> Route:
    """What is left of the segments; DALI gets none after the first that it cannot take, decord is asked for each."""
    first = next((obstacle for obstacle in obstacles if obstacle), None)
    taken = obstacles.count(None) if decoder == "decord" or first is None else obstacles.index(first)
    return Route(decoder, taken, first)
