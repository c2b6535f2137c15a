"""A packet table in, sentences out: why packets are not left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from ...dali_pipes.bitstream.facts import DISPOSABLE, REORDERED, Fact
from ...dali_pipes.packets.scan import PacketTable

# A share of disposable packets below which they do not help much, and a share left out above which nothing is asked.
FEW_DISPOSABLE = 0.1
MUCH_LEFT_OUT = 0.5
_DOUBTS = {
    Fact.NOT_ANALYSED: "not_analysed",
    Fact.BAD_HEADERS: "bad_headers",
    Fact.NEW_HEADERS: "new_headers",
    Fact.DAMAGED: "damaged",
    Fact.BAD_CONTAINER: "bad_container",
    Fact.LONE_FIELD: "lone_field",
    Fact.NOT_ONE_PICTURE: "not_one_picture",
    Fact.UNKNOWN_SYNTAX: "unknown_syntax",
}
_SENTENCES = {
    "not_analysed": "{codec} is not analysed: GridCLIP has no reader for this codec",
    "bad_headers": "the headers of its {codec} stream are missing or cannot be read",
    "new_headers": "parameter sets change in mid-stream, first in packet {first}: {count}",
    "damaged": "packets are damaged, the first is packet {first}: {count}",
    "bad_container": "the container is damaged: FFmpeg complains of it, so packets may be missing",
    "lone_field": "the two fields of a frame are in packets of their own, first in packet {first}: {count}",
    "not_one_picture": "packets do not hold exactly one picture, first packet {first}: {count}",
    "unknown_syntax": "packets use syntax that is not followed (scalable layers, decoder models), first in packet "
    "{first}: {count}",
}


@dataclasses.dataclass(frozen=True)
class Doubt:
    """A reason for which pruning is not provable: how many `packets` give it, and which is the `first`, from 0."""

    packets: int
    first: int


def count_doubts(facts: np.ndarray) -> dict[str, Doubt]:
    """Every reason for which pruning is not provable."""
    found = {}
    for fact, name in _DOUBTS.items():
        packets = np.flatnonzero(facts & int(fact))
        if len(packets):
            found[name] = Doubt(len(packets), int(packets[0]))
    return found


def explain(table: PacketTable, *, codec: str, wanted: int, decoded: int, gop_frames: float | None) -> Iterator[str]:
    """Yields why packets are not left out; nothing where most are.

    Args:
        table: the video's packets.
        codec: FFmpeg's name.
        wanted, decoded: packets.
        gop_frames: of the median GOP; None where there is none.
    """
    if not table.prunable:
        for name, doubt in count_doubts(table.facts).items():
            count = f"{doubt.packets:,} of {len(table.facts):,} packets"
            yield _SENTENCES[name].format(codec=codec, first=f"{doubt.first:,}", count=count)
        yield "every packet up to the last wanted frame is decoded"
        return
    if not table.ordered:
        yield _why_unordered(table) + ": a GOP that holds a wanted frame is decoded whole"
    total = len(table.facts)
    if decoded <= (1 - MUCH_LEFT_OUT) * total:
        return
    if total <= 2 * wanted:
        yield f"{wanted:,} of {total:,} packets are wanted themselves"
        return
    disposable = int(((table.facts & DISPOSABLE) != 0).sum())
    if disposable < FEW_DISPOSABLE * total:
        yield f"few packets are disposable ({disposable:,} of {total:,})" + _why_few(codec)
    if table.ordered:
        length = "" if gop_frames is None else f", and the median GOP has {gop_frames:,.0f} frames"
        yield (
            f"each wanted frame needs the references since its keyframe: {decoded / wanted:,.1f} packets for each of "
            f"{wanted:,} wanted frames{length}"
        )


def _why_unordered(table: PacketTable) -> str:
    if not table.pts.any():
        return "the container gives no presentation times"
    in_decode_order = bool((np.diff(table.pts[table.shown]) >= 0).all())
    if in_decode_order and (table.facts & REORDERED).any():
        return "presentation times are those of decoding, though pictures are reordered"
    return "several frames have the same presentation time"


def _why_few(codec: str) -> str:
    if codec == "vp8":
        return ": VP8 does not say which frames others refer to"
    if codec == "vp9":
        return ": a VP9 frame hands its probabilities on to the next, even if no other frame refers to it"
    return ": the encoder made few or no frames that no other refers to"
