"""dali_pipes/bitstream/h264.py: field pictures, recovery points, parameter sets that change."""

from __future__ import annotations

import pytest
from gridclip.dali_pipes.bitstream.facts import (
    CLOSED,
    DAMAGED,
    DISPOSABLE,
    HIDDEN,
    LONE_FIELD,
    NEW_HEADERS,
    OPEN,
    UNSAFE,
)
from gridclip.dali_pipes.bitstream.h264 import H264Reader


def bits(text: str) -> bytes:
    digits = text.replace(" ", "")
    digits += "0" * (-len(digits) % 8)
    return int(digits, 2).to_bytes(len(digits) // 8, "big")


# A sequence parameter set of a 64x64 stream, baseline layout, frame_mbs_only_flag = 1.
FRAMES_ONLY = b"\0\0\1" + bytes([0x67, 77, 0, 30]) + bits("1 1 1 1 010 0 00100 00100 1 1 0 0 1")
IDR = b"\x65" + bits("1 0001000 1 0000 0000")  # first_mb 0, I, PPS 0, frame_num 0
RECOVERY = b"\x06\x06\x01"  # SEI, recovery point, one byte


def p_slice(frame_num: int, *, reference: bool = True) -> bytes:
    return bytes([0x41 if reference else 0x01]) + bits(f"1 00110 1 {frame_num:04b} 0000")


def annex_b(*units: bytes) -> memoryview:
    return memoryview(b"".join(b"\0\0\1" + unit for unit in units))


def test_a_lone_field_stops_pruning_and_its_second_field_is_no_frame() -> None:
    # SPS of a 64x64 interlaced-capable stream: baseline layout with frame_mbs_only_flag = 0, then two field slices.
    reader = H264Reader(b"")
    sps = bytes([0x67, 77, 0, 30]) + bits("1 1 1 1 010 0 00100 00100 0 1 1 0 0 1")
    field = bytes([0x41]) + bits("1 1 1 0000 1 0 0000000")  # first_mb 0, P, PPS 0, frame_num 0, field_pic_flag 1
    assert reader.may_hold_fields
    assert reader.read(annex_b(sps, field), True) & UNSAFE == LONE_FIELD
    second = reader.read(annex_b(field), False)
    assert second & UNSAFE == LONE_FIELD and second & HIDDEN
    assert not reader.read(annex_b(field, field), False) & (UNSAFE | HIDDEN | DISPOSABLE)


@pytest.mark.parametrize(
    ("payload", "keyframe", "opens"),
    [
        ("1 1 0 00 1 00", True, True),
        ("010 1 0 00 1", True, False),
        ("1 0 0 00 1 00", True, False),
        ("1 1", False, False),
    ],
    ids=["at once", "later", "not exact", "not flagged by the container"],
)
def test_recovery_points(payload: str, keyframe: bool, opens: bool) -> None:
    reader = H264Reader(FRAMES_ONLY)
    facts = reader.read(annex_b(RECOVERY + bits(payload), p_slice(0)), keyframe)
    assert bool(facts & OPEN) == opens
    assert not facts & (CLOSED | UNSAFE)


def test_reference_and_disposable_pictures() -> None:
    reader = H264Reader(FRAMES_ONLY)
    assert not reader.may_hold_fields
    assert reader.read(annex_b(IDR), True) == CLOSED
    assert reader.read(annex_b(p_slice(1)), False) == 0
    unreferenced = p_slice(2, reference=False)
    assert reader.read(annex_b(unreferenced), False) == DISPOSABLE
    assert reader.read(annex_b(unreferenced, p_slice(2)), False) == 0  # one slice of it is a reference


def test_a_picture_that_is_missing_shows_in_frame_num() -> None:
    reader = H264Reader(FRAMES_ONLY)
    frame_nums = [1, 2, 4, 5]  # 3 is missing
    assert not reader.read(annex_b(IDR), True) & UNSAFE
    found = [reader.read(annex_b(p_slice(number)), False) & UNSAFE for number in frame_nums]
    assert found == [0, 0, DAMAGED, 0]


def test_parameter_sets_may_be_repeated_but_not_change() -> None:
    reader = H264Reader(FRAMES_ONLY)
    sps = FRAMES_ONLY[3:]
    assert not reader.read(annex_b(sps, IDR), True) & UNSAFE
    other = sps[:3] + bytes([31]) + sps[4:]
    assert reader.read(annex_b(other, IDR), True) & UNSAFE == NEW_HEADERS
    assert not reader.read(annex_b(other, IDR), True) & UNSAFE  # the stream is given up already
