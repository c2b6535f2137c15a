"""Bytes, packets or JSON in, the same with damage out; every choice comes from the generator that is given."""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import av
from av.packet import Packet

HEADER_BYTES = 512
EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\x01", b"\xff\xff\xff\x7f")


def damaged_bytes(data: bytes, others: Sequence[bytes], rng: random.Random) -> tuple[bytes, str]:
    """Bytes with one or two kinds of damage, and what they are called.

    Args:
        others: further files, parts of which may be spliced in.
    """
    names = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        if not data:
            break
        change = rng.choice(_BYTE_CHANGES)
        data = change(data, others, rng)
        names.append(change.__name__.strip("_").replace("_", " "))
    return data, " and ".join(names)


def _flipped_bits(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20, 100))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _header_damage(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        changed[rng.randrange(min(HEADER_BYTES, len(data)))] = rng.randrange(256)
    return bytes(changed)


def _end_damage(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """The end is where mp4, zip and npz keep their tables."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        changed[-1 - rng.randrange(min(3 * HEADER_BYTES, len(data)))] = rng.randrange(256)
    return bytes(changed)


def _byte_run(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.choice((1, 4, 16, 64, 512))
    run = rng.choice((b"\0" * length, b"\xff" * length, rng.randbytes(length)))
    return (data[:start] + run + data[start + length :])[: len(data)]


def _extreme_number(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start = rng.randrange(rng.choice((min(HEADER_BYTES, len(data)), len(data))))
    return data[:start] + rng.choice(EXTREMES) + data[start + 4 :]


def _truncation(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    return data[: rng.randrange(rng.choice((min(1000, len(data)), len(data))))]


def _missing_start(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    return data[rng.randrange(len(data)) :]


def _missing_part(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice((1, 7, 188, 2000)) :]


def _doubled_part(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    stop = start + rng.choice((1, 7, 188, 2000))
    return data[:stop] + data[start:stop] + data[stop:]


def _splice(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(others) if others else data
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other) + 1) :]


def _appended_junk(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.choice((1, 10, 1000)))


_BYTE_CHANGES: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    _flipped_bits,
    _flipped_bits,
    _header_damage,
    _end_damage,
    _byte_run,
    _extreme_number,
    _truncation,
    _missing_start,
    _missing_part,
    _doubled_part,
    _splice,
    _appended_junk,
)


def damage_packets(source: pathlib.Path, target: pathlib.Path, rng: random.Random) -> str:
    """Remuxes a video with packets lost, doubled, out of order, emptied or damaged; returns what was done.

    Raises:
        av.error.FFmpegError, ValueError: the muxer does not take it.
    """
    with av.open(str(source)) as container:
        stream = container.streams.best("video")
        packets = [packet for packet in container.demux(stream) if packet.size]
        decode_times = [packet.dts for packet in packets]
        what, kept = rng.choice(_PACKET_CHANGES)([(packet.pts, bytes(packet)) for packet in packets], rng)
        step = max(1, packets[-1].duration or 1)
        with av.open(str(target), "w") as out:
            copy_stream = out.add_stream_from_template(stream, opaque=True)
            for index, (pts, content) in enumerate(kept):
                # Presentation times go with their pictures; decode times must rise, and stay in their places.
                dts = decode_times[min(index, len(packets) - 1)]
                late = max(0, index - len(packets) + 1) * step
                copy = Packet(content)
                copy.stream, copy.time_base = copy_stream, stream.time_base
                copy.pts, copy.dts = pts, None if dts is None else dts + late
                copy.duration = packets[-1].duration
                copy.is_keyframe = packets[min(index, len(packets) - 1)].is_keyframe
                out.mux_one(copy)
    return what


# A packet's presentation time and its bytes.
Timed = tuple[int | None, bytes]


def _lost_packets(contents: list[Timed], rng: random.Random) -> tuple[str, list[Timed]]:
    lost = {rng.randrange(len(contents)) for _ in range(rng.choice((1, 1, 2, 5)))}
    kept = [timed for index, timed in enumerate(contents) if index not in lost]
    return f"packets {sorted(lost)} lost", kept


def _lost_start(contents: list[Timed], rng: random.Random) -> tuple[str, list[Timed]]:
    count = rng.randrange(1, max(2, len(contents) // 2))
    return f"the first {count} packets lost", contents[count:]


def _doubled_packet(contents: list[Timed], rng: random.Random) -> tuple[str, list[Timed]]:
    at = rng.randrange(len(contents))
    return f"packet {at} doubled", contents[: at + 1] + contents[at:]


def _swapped_packets(contents: list[Timed], rng: random.Random) -> tuple[str, list[Timed]]:
    a, b = rng.randrange(len(contents)), rng.randrange(len(contents))
    swapped = list(contents)
    swapped[a], swapped[b] = contents[b], contents[a]
    return f"packets {a} and {b} swapped", swapped


def _damaged_packets(contents: list[Timed], rng: random.Random) -> tuple[str, list[Timed]]:
    damaged, where = list(contents), []
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(contents))
        where.append(at)
        pts, data = damaged[at]
        # Half of the damage hits the headers at the start of a packet, which pruning reads.
        reach = rng.choice((min(24, len(data)), len(data)))
        changed = bytearray(data)
        for _ in range(rng.choice((1, 2, 10))):
            changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
        damaged[at] = pts, bytes(changed)
    return f"packets {sorted(where)} damaged", damaged


def _cut_packet(contents: list[Timed], rng: random.Random) -> tuple[str, list[Timed]]:
    at = rng.randrange(len(contents))
    cut = list(contents)
    pts, data = contents[at]
    cut[at] = pts, data[: rng.randrange(1, len(data) + 1)]
    return f"packet {at} cut to {len(cut[at][1])} bytes", cut


_PACKET_CHANGES: tuple[Callable[[list[Timed], random.Random], tuple[str, list[Timed]]], ...] = (
    _lost_packets,
    _lost_start,
    _doubled_packet,
    _swapped_packets,
    _damaged_packets,
    _damaged_packets,
    _cut_packet,
)

DEEP = 3000
NASTY: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    7,
    2**31,
    2**63,
    2**64,
    -(2**63),
    10**30,
    10**400,
    0.5,
    -0.0,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    "\0",
    "a\0b",
    "\ud800",
    "bad\udcff",
    "..",
    "/etc/passwd",
    "../../x",
    "a/b",
    "\u202e",
    "\U0001f600",
    "x" * 5000,
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"x": [1]},
)


def damaged_json(content: Any, rng: random.Random) -> tuple[str, str]:
    """The JSON text of `content` with some values, keys or the nesting changed, and what was done."""
    content = json.loads(json.dumps(content))
    done = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(content))
        if not places or rng.random() < 0.03:
            content = _nasty(rng)
            done.append("the whole replaced")
            continue
        parent, key = rng.choice(places)
        action = rng.random()
        if action < 0.15:
            del parent[key]
            done.append(f"{key!r} removed")
        elif action < 0.25 and isinstance(parent, dict):
            new = rng.choice([value for value in NASTY if isinstance(value, str)])
            parent[new] = parent.pop(key)
            done.append(f"the key {key!r} is now {new[:20]!r}")
        else:
            parent[key] = _nasty(rng)
            done.append(f"{key!r} is now {str(parent[key])[:30]!r}")
    text = json.dumps(content, ensure_ascii=True)
    if rng.random() < 0.05:
        done.append("deep nesting")
        text = text[:-1] + "," + "[" * DEEP + "]" * DEEP + text[-1:]
    return text, ", ".join(done)


def _nasty(rng: random.Random) -> Any:
    if rng.random() < 0.04:
        nested: Any = []
        for _ in range(rng.choice((50, 400))):
            nested = [nested]
        return nested
    return json.loads(json.dumps(rng.choice(NASTY)))


def _places(node: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        found.append((node, key))
        if len(found) < 500:
            found += _places(child)
    return found
