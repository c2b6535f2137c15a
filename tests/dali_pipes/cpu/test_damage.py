"""Damaged streams, streams that begin in the middle of a GOP, and packed B-frames, against a plain decode of all."""

from __future__ import annotations

import pathlib

import av
import numpy as np
import pytest
from damaged_videos import copied
from generated_videos import STRUCTURES, Recipe, write
from gridclip.dali_pipes.bitstream.facts import DISPOSABLE, UNSAFE
from gridclip.dali_pipes.bitstream.readers import make_reader
from gridclip.dali_pipes.contract import VideoError
from gridclip.dali_pipes.cpu import damage, decoding, reading, super_images
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.sampling import Sampling

SMALL = {recipe.name: recipe for recipe in STRUCTURES}


def every_picture(path: pathlib.Path) -> dict[int, np.ndarray]:
    """Position of its packet -> picture, of all that one decoder puts out for all packets of the file."""
    pictures: dict[int, np.ndarray] = {}
    reformatter = av.video.reformatter.VideoReformatter()
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        for position, packet in enumerate([packet for packet in container.demux(stream) if packet.size] + [None]):
            if packet is not None:
                packet.pts = position
            try:
                for frame in stream.codec_context.decode(packet):
                    pictures.setdefault(frame.pts, decoding.to_rgb(frame, reformatter))
            except av.error.FFmpegError:
                continue
    return pictures


@pytest.mark.parametrize("name", ["hevc_closed_gop.mkv", "h264_pyramid.mp4", "mpeg4.mp4"])
def test_damaged_streams_show_what_a_whole_decode_shows(tmp_path: pathlib.Path, name: str) -> None:
    source = write(tmp_path, SMALL[name])
    path = copied(source, tmp_path / f"damaged_{name}", zeroed=(33, 47, 62))
    pictures = every_picture(path)
    with reading.open_reading(path, Sampling(fps=5)) as video:
        frames = list(video.frames("auto", cells=4))
        packets = video.table.shown[video.wanted]
    assert len(frames) == len(packets)
    for packet, frame in zip(packets.tolist(), frames, strict=True):
        if packet in pictures:
            assert np.array_equal(frame, pictures[packet]), f"packet {packet}"


def test_where_pictures_are_counted_a_packet_that_shows_none_counts(tmp_path: pathlib.Path) -> None:
    source = write(tmp_path, SMALL["h264_baseline.mov"])
    a_b_slice = b"\0\0\0\2\x41\xa0"  # in a stream without reordered times: these tell nothing then
    path = copied(source, tmp_path / "damaged.mov", replaced={23: a_b_slice, 42: a_b_slice})
    pictures = every_picture(path)
    with reading.open_reading(path, Sampling(fps=10), "nearest") as video:
        frames = dict(zip(video.wanted.tolist(), video.frames("auto"), strict=True))
        assert not video.table.ordered and video.damage.replaced == 1  # 23 is not wanted
    assert set(frames) - set(pictures) == {42}
    assert all(np.array_equal(frames[packet], pictures[packet]) for packet in set(frames) - {42})


@pytest.mark.parametrize(("codec", "packet"), [("hevc", b"\0\0\1"), ("vp9", b"")])
def test_a_packet_without_a_readable_header_still_counts_as_one(codec: str, packet: bytes) -> None:
    reader = make_reader(codec, b"")
    with pytest.raises((ValueError, IndexError)):
        reader.read(memoryview(packet), False)
    reader.finish(np.zeros(1, np.uint16))  # one entry a packet


@pytest.mark.parametrize(
    ("name", "container", "first_keyframe"),
    [
        ("h264_annexb.ts", "ts", 25),
        ("hevc_closed_gop.mkv", "mkv", 15),
        ("vp9.webm", "mkv", 25),
        ("mpeg2.mkv", "mkv", 5),
    ],
)
def test_a_stream_that_begins_inside_a_gop_begins_with_its_first_keyframe(
    tmp_path: pathlib.Path, name: str, container: str, first_keyframe: int
) -> None:
    path = copied(write(tmp_path, SMALL[name]), tmp_path / f"cut.{container}", first=5)
    pictures = every_picture(path)
    assert min(pictures) == first_keyframe
    with reading.open_reading(path, Sampling(fps=12)) as video:
        assert video.table.shown.tolist() and set(video.table.shown.tolist()) == set(pictures)
        frames = list(video.frames("auto", cells=4))
        for packet, frame in zip(video.table.shown[video.wanted].tolist(), frames, strict=True):
            assert np.array_equal(frame, pictures[packet])


def test_packed_b_frames_show_their_own_frame(tmp_path: pathlib.Path) -> None:
    plain = write(tmp_path, Recipe("plain.avi", "mpeg4", b_frames=1, gop=12, frames=61, size=(64, 48)))
    path = tmp_path / "packed.avi"
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        units = [bytes(packet) for packet in old.demux(video=0) if packet.size]
        marked = [unit.replace(b"Lavc62.28.102", b"DivX503b1393p") for unit in units]
        packed: list[bytes] = []
        for index, unit in enumerate(marked):
            follower = marked[index + 1] if index + 1 < len(marked) else b""
            coding_type = unit[unit.index(b"\0\0\1\xb6") + 4] >> 6
            if coding_type == 2:
                packed.append(b"\0\0\1\xb6\x50\0\x7f")  # the placeholder of a picture that went with the one before
            elif follower and follower[follower.index(b"\0\0\1\xb6") + 4] >> 6 == 2:
                packed.append(unit + follower)
            else:
                packed.append(unit)
        for index, unit in enumerate(packed):
            packet = av.Packet(unit)
            packet.pts = packet.dts = index
            packet.time_base, packet.stream, packet.is_keyframe = stream.time_base, stream, index == 0
            new.mux_one(packet)
    unpacked = list(super_images.frames(plain, 5))
    assert len(unpacked) > 8
    for ours, expected in zip(super_images.frames(path, 5), unpacked, strict=True):
        assert np.array_equal(ours, expected)


def test_the_nearest_picture_stands_for_one_that_does_not_come_out() -> None:
    times_s = np.array([0.0, 1.0, 2.5, 3.0, 4.0])
    pictures = [(0, "a"), (3, "d"), (1, "b"), (4, "e")]  # 2 is missing, 1 comes late
    assert list(damage.nearest(pictures, np.arange(5), times_s)) == [
        (0, "a"),
        (1, "b"),
        (3, "d"),
        (3, "d"),
        (4, "e"),
    ]
    assert list(damage.nearest([], np.arange(2), times_s)) == []


def test_more_than_a_tenth_damaged_is_a_failure(tmp_path: pathlib.Path) -> None:
    source = write(tmp_path, SMALL["av1.mkv"])
    one = copied(source, tmp_path / "one.mkv", zeroed=(88,))
    with reading.open_reading(one, Sampling(fps=30), "nearest") as video:
        assert len(list(video.frames("auto"))) == len(video.wanted)
        assert 0 < video.damage.replaced <= 9 and "stand for them" in str(video.damage)
    with (
        reading.open_reading(one, Sampling(fps=30), "fail") as video,
        pytest.raises(VideoError, match="cannot be decoded"),
    ):
        list(video.frames("auto"))
    many = copied(source, tmp_path / "many.mkv", zeroed=(1, 20, 40))
    with reading.open_reading(many, Sampling(fps=30), "nearest") as video, pytest.raises(VideoError, match="cannot be"):
        list(video.frames("auto"))


def test_leading_pictures_without_time_stamps_are_no_frames(tmp_path: pathlib.Path) -> None:
    """What `ffmpeg -ss ... -c copy` makes of an open GOP in Matroska: block times before zero are lost."""
    source, path = write(tmp_path, SMALL["h264_open_gop.mkv"]), tmp_path / "cut.mkv"
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as old, av.open(str(path), "w", options=options) as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        packets = [packet for packet in old.demux(video=0) if packet.size]
        start = [position for position, packet in enumerate(packets) if packet.is_keyframe][1]
        start_pts = packets[start].pts
        for packet in packets[start:]:
            packet.pts, packet.dts = packet.pts - start_pts, packet.dts - start_pts
            packet.stream = stream
            new.mux_one(packet)
    pictures = every_picture(path)
    with reading.open_reading(path, Sampling(fps=12), "fail") as video:
        missing = [packet.pts is None for packet in video.kept._packets or []]
        assert 0 < sum(missing) == len(missing) - video.summary.frame_count
        frames = list(video.frames("auto", cells=4))
        for packet, frame in zip(video.table.shown[video.wanted].tolist(), frames, strict=True):
            assert np.array_equal(frame, pictures[packet])


@pytest.mark.parametrize("lost", [4, 33])
def test_a_stream_that_lacks_a_reference_picture_is_decoded_whole(tmp_path: pathlib.Path, lost: int) -> None:
    source, path = write(tmp_path, SMALL["h264_pyramid.mp4"]), tmp_path / "lost.mp4"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for position, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            if position != lost:
                packet.stream = stream
                new.mux_one(packet)
    with scan.open_video(source) as (container, stream):
        _, table, _ = scan.scan(container, stream)
    with scan.open_video(path) as (container, stream):
        assert table.prunable
        assert scan.scan(container, stream)[1].prunable == bool(table.facts[lost] & DISPOSABLE)


def test_a_vop_that_is_not_coded_shows_no_picture_of_its_own(tmp_path: pathlib.Path) -> None:
    with av.open(str(write(tmp_path, SMALL["mpeg4.mp4"]))) as container:
        stream = container.streams.video[0]
        headers = bytes(stream.codec_context.extradata)
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
    reader = make_reader("mpeg4", headers)
    assert not any(reader.read(memoryview(packet), False) & UNSAFE for packet in packets)
    # vop_coding_type P, no modulo_time_base, marker, vop_time_increment (5 bits), marker, vop_coded = 0
    not_coded = b"\0\0\1\xb6" + int("01" + "0" + "1" + "00011" + "1" + "0" + "00000", 2).to_bytes(2, "big") + bytes(10)
    assert reader.read(memoryview(not_coded), False) & UNSAFE


@pytest.mark.parametrize(("codec", "headers"), [("h264", b"\1\x64\0\x1e\xff\xe3\0"), ("av1", b"\x81\0\0\0\x0a\x01\0")])
def test_damaged_parameter_sets_are_no_crash(codec: str, headers: bytes) -> None:
    assert make_reader(codec, headers).read(memoryview(b"\0" * 20), True) & UNSAFE
