"""The readers of bitstream/: what they claim of generated streams, against a decoder; and how a codec joins them."""

from __future__ import annotations

import pathlib

import av
import numpy as np
import pytest
from generated_videos import STRUCTURES, write
from gridclip.dali_pipes.bitstream import readers
from gridclip.dali_pipes.bitstream.facts import (
    BAD_HEADERS,
    CLOSED,
    DISPOSABLE,
    LEADING_DROPPABLE,
    NOT_ANALYSED,
    NOT_ONE_PICTURE,
    OPEN,
    REORDERED,
    UNSAFE,
)
from gridclip.dali_pipes.cpu.reading import opened
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.sampling import Sampling
from whole_decodes import decode_all

NAMES = [recipe.name for recipe in STRUCTURES]


@pytest.fixture(scope="module")
def structures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("structures")
    return {recipe.name: write(folder, recipe) for recipe in STRUCTURES}


def pictures(path: pathlib.Path, leave_out: np.ndarray) -> dict[int, tuple[str, bytes]]:
    """Position of its packet -> (I, P or B; pixels) of all pictures, decoded without some packets (bool [P])."""
    found: dict[int, tuple[str, bytes]] = {}
    with scan.open_video(path) as (container, stream):
        for position, packet in enumerate([*scan.packets(container, stream), None]):
            if packet is not None:
                if leave_out[position]:
                    continue
                packet.pts = position
            for frame in stream.codec_context.decode(packet):
                found[frame.pts] = (
                    av.video.frame.PictureType(frame.pict_type).name,
                    b"".join(bytes(plane) for plane in frame.planes),
                )
    return found


def facts_of(path: pathlib.Path) -> np.ndarray:
    with scan.open_video(path) as (container, stream):
        return scan.scan(container, stream)[1].facts


@pytest.mark.parametrize("name", NAMES)
def test_the_rest_decodes_alike_without_what_is_called_disposable(
    structures: dict[str, pathlib.Path], name: str
) -> None:
    facts = facts_of(structures[name])
    start = (facts & (CLOSED | OPEN)) != 0
    disposable = ((facts & DISPOSABLE) != 0) & ~start
    whole, rest = pictures(structures[name], disposable & False), pictures(structures[name], disposable)
    assert rest == {position: picture for position, picture in whole.items() if not disposable[position]}
    if not (facts & UNSAFE).any():
        # FFmpeg tells I, P and B pictures of these codecs; a decoder can only start at an I picture.
        assert {whole[position][0] for position in np.flatnonzero(start) if position in whole} == {"I"}
    if name.startswith(("h264", "mpeg4")):
        bidirectional = [position for position in sorted(whole) if whole[position][0] == "B"]
        assert bidirectional == [position for position in np.flatnonzero(facts & REORDERED) if position in whole]


@pytest.mark.parametrize(
    ("codec", "headers"),
    [
        ("h264", b"\1\x64\0\x1e\xff\xff\0\0"),
        ("hevc", b"\1" + bytes(21) + b"\1\x20\0\1\0\xff"),
        ("av1", b"\x81\0\0\0\x0a"),
    ],
)
def test_headers_that_cannot_be_read(codec: str, headers: bytes) -> None:
    reader = readers.make_reader(codec, headers)
    assert reader.read(memoryview(b"\0\0\0\1\x65\x88"), True) == BAD_HEADERS
    assert reader.may_hold_fields


def test_an_unknown_codec_is_not_analysed() -> None:
    reader = readers.make_reader("wmv3", b"")
    assert reader.read(memoryview(b"\0"), True) == NOT_ANALYSED
    assert not (reader.reordering_declared or reader.may_hold_fields)


class Mpeg2Reader:
    """A toy, to try the recipe for a new codec (docs/recipes/codec.md): MPEG-2 without field pictures."""

    reordering_declared = True
    may_hold_fields = False

    def __init__(self, headers: bytes) -> None:
        pass

    def read(self, packet: memoryview, keyframe: bool) -> int:
        payload = bytes(packet)
        start = payload.find(b"\0\0\1\0")
        if start < 0 or payload.find(b"\0\0\1\0", start + 4) >= 0:
            return NOT_ONE_PICTURE
        kind = payload[start + 5] >> 3 & 7
        return {1: OPEN | LEADING_DROPPABLE, 2: 0, 3: DISPOSABLE | REORDERED}[kind]

    def finish(self, facts: np.ndarray) -> None:
        pass


def test_a_codec_joins_with_a_module_and_a_line(
    structures: dict[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = structures["mpeg2.mkv"]
    assert (facts_of(path) == NOT_ANALYSED).all()
    monkeypatch.setitem(readers.READERS, "mpeg2video", Mpeg2Reader)
    with opened(path, Sampling(fps=1.7)) as video:
        assert video.table.prunable
        frames = list(video.frames("pyav"))
        wanted = video.wanted
    everything = decode_all(path)
    assert len(frames) == len(wanted) > 0
    for index, frame in zip(wanted, frames, strict=True):
        assert np.array_equal(frame, everything[index])
    assert not (facts_of(path) & UNSAFE).any() and (facts_of(path) & DISPOSABLE).sum() > 40


def test_every_reader_is_made_of_headers_alone() -> None:
    for codec in readers.READERS:
        reader = readers.make_reader(codec, b"")
        assert isinstance(reader.reordering_declared, bool) and isinstance(reader.may_hold_fields, bool)


def test_pyav_knows_the_names() -> None:
    assert [codec for codec in readers.READERS if codec not in av.codecs_available] == []
