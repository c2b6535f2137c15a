"""engine/inspection.py: counts against PyAV's own and a whole decode, reasons of files that are made to have them."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest
from click.testing import CliRunner
from generated_videos import STRUCTURES, write
from gridclip import GridClipError, cli
from gridclip.dali_pipes.bitstream import facts
from gridclip.dali_pipes.cpu.reading import Feed, open_reading
from gridclip.dali_pipes.packets import scan
from gridclip.dali_pipes.packets.pruning import Segment
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.inspection import inspection
from gridclip.engine.inspection import reasons as inspection_reasons
from gridclip.engine.inspection.inspection import Inspection, inspect_video
from gridclip.engine.inspection.text import as_text
from whole_decodes import rotated

NAMES = [recipe.name for recipe in STRUCTURES]


@pytest.fixture(scope="module")
def structures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("structures")
    return {recipe.name: write(folder, recipe) for recipe in STRUCTURES}


class Counted:
    """A feed that notes which packets are taken out of it."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.asked: set[int] = set()

    def packets(self, segment: Segment) -> Iterator[Any]:
        for position, packet in zip(segment.packets.tolist(), self.feed.packets(segment), strict=True):
            self.asked.add(position)
            yield packet


def count_decoded(path: pathlib.Path, fps: float) -> tuple[int, int]:
    """(packets that the decoder is really given, frames that come out)."""
    with open_reading(path, Sampling(fps=fps)) as video:
        assert video.kept is not None
        video.kept = counted = Counted(video.kept)
        return sum(1 for _ in video.frames("pyav", cells=4)), len(counted.asked)


def check_sums(found: Inspection) -> None:
    cost = found.decoding
    assert sum(kind.packets for kind in found.kinds.values()) == found.packets
    assert sum(kind.bytes for kind in found.kinds.values()) == found.packet_bytes
    assert cost.packets == sum(cost.needed.values()) == found.packets - sum(cost.left_out.values())
    assert cost.share_left_out == pytest.approx(1 - cost.packets / found.packets)
    assert [route.decoder for route in found.routes] == ["dali", "dali_cpu", "decord", "pyav"]
    assert all((route.why_not is None) == (route.segments == cost.segments) for route in found.routes)


def check_against_pyav(path: pathlib.Path, found: Inspection, *, keyframes: bool) -> None:
    """Counts by a plain demux and a plain decode."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        packets = [packet for packet in container.demux(stream) if packet.size]
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(container.streams.best("video")))
    assert (found.packets, found.packet_bytes) == (len(packets), sum(packet.size for packet in packets))
    assert found.frames == frames
    if keyframes:
        assert found.gops is not None
        assert found.gops.count == sum(packet.is_keyframe for packet in packets)
        assert found.gops.frames.shortest <= found.gops.frames.median <= found.gops.frames.longest


def test_real_files(shared_data: pathlib.Path) -> None:
    for path in sorted((shared_data / "videos").iterdir()):
        for fps in (0.5, 3.0):
            found = inspect_video(path, Sampling(fps=fps))
            check_sums(found)
            assert count_decoded(path, fps) == (found.wanted_frames, found.decoding.packets)
        check_against_pyav(path, found, keyframes=True)
        assert found.pruned and not found.doubts
        assert str(path) in as_text(found)


@pytest.mark.parametrize("name", NAMES)
def test_structures(structures: dict[str, pathlib.Path], name: str) -> None:
    found = inspect_video(structures[name], Sampling(fps=1.7))
    check_sums(found)
    check_against_pyav(structures[name], found, keyframes=name != "h264_edit_list.mp4")
    frames, decoded = count_decoded(structures[name], 1.7)
    assert frames == found.wanted_frames
    if found.pruned and name not in ("h264_no_pts.avi", "h264_raw.h264"):  # whose last GOP is not read to its end
        assert decoded == found.decoding.packets
    assert found.interlaced == (name == "h264_mbaff.mp4")
    assert as_text(found)


def test_what_a_plain_file_says(structures: dict[str, pathlib.Path]) -> None:
    found = inspect_video(structures["h264_pyramid.mp4"], Sampling(fps=1.7))
    assert (found.codec, found.width, found.height, found.avg_fps) == ("h264", 128, 96, 30)
    assert found.gops == inspection.Gops(
        3, 3, 0, True, inspection.Spread(30, 30, 30), inspection.Spread(*[pytest.approx(1.0)] * 3)
    )
    # 3 B-frames between references, of which the middle one is a reference: about half of all are disposable.
    assert found.kinds["keyframe"].packets == 3 and 40 <= found.kinds["disposable"].packets <= 46
    assert found.why == () and not (found.interlaced or found.rotation_degrees or found.variable_rate)


def test_gops_are_open_or_closed(structures: dict[str, pathlib.Path]) -> None:
    gops = {name: inspect_video(structures[name], Sampling()).gops for name in NAMES}
    for name in ("h264_open_gop.mp4", "h264_open_gop.mkv", "hevc_open_gop.mp4"):
        assert gops[name].closed == 1 and gops[name].open > 2
    assert gops["hevc_closed_gop.mkv"].open == 0
    assert not gops["mpeg2.mkv"].proved and gops["mpeg2.mkv"].frames.longest == 12


def test_why_not(structures: dict[str, pathlib.Path]) -> None:
    found = {name: inspect_video(structures[name], Sampling(fps=3)) for name in NAMES}
    assert "mpeg2video is not analysed" in found["mpeg2.mkv"].why[0]
    assert not found["mpeg2.mkv"].pruned and found["mpeg2.mkv"].kinds["unanalysed"].packets == 90
    assert "presentation times" in found["h264_no_pts.avi"].why[0]
    assert "no presentation times" in found["h264_raw.h264"].why[0]
    assert "VP8 does not say" in found["vp8.webm"].why[0]
    assert "VP9 frame hands" in found["vp9.webm"].why[0]
    assert "each wanted frame needs the references" in found["vp8.webm"].why[-1]
    assert found["h264_edit_list.mp4"].hidden == {"not_shown": 0, "cut_off": 12, "undecodable": 0}
    routes = {route.decoder: route for route in found["h264_edit_list.mp4"].routes}
    assert "8-bit" in next(route.why_not or "" for route in found["h264_10bit.mp4"].routes if route.decoder == "dali")
    assert routes["pyav"].why_not is None and "no picture" in (routes["decord"].why_not or "")
    assert "does not decode av1" in next(
        each.why_not or "" for each in found["av1.mp4"].routes if each.decoder == "decord"
    )


def test_an_intra_stream_of_which_all_is_wanted(structures: dict[str, pathlib.Path]) -> None:
    found = inspect_video(structures["mjpeg.avi"], Sampling(fps=30))
    assert found.why == ("90 of 90 packets are wanted themselves",)


@pytest.mark.parametrize("fact", [fact for fact in facts.Fact if fact & facts.UNSAFE])
def test_every_doubt_has_its_sentence(structures: dict[str, pathlib.Path], fact: facts.Fact) -> None:
    with scan.open_video(structures["h264_pyramid.mp4"]) as (container, stream):
        table = scan.scan(container, stream)[1]
    doubtful = table.facts.copy()
    doubtful[[7, 11]] |= int(fact)
    ((name, doubt),) = inspection_reasons.count_doubts(doubtful).items()
    assert name == fact.name.lower() and (doubt.packets, doubt.first) == (2, 7)
    unsafe = dataclasses.replace(table, facts=doubtful, prunable=False)
    first, last = inspection_reasons.explain(unsafe, codec="h264", wanted=5, decoded=90, gop_frames=30)
    told = "h264" in first if name in ("not_analysed", "bad_headers") else "packet" in first
    assert told and last == "every packet up to the last wanted frame is decoded"


def test_a_damaged_packet_is_named(structures: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    source = structures["h264_pyramid.mp4"]
    with scan.open_video(source) as (container, stream):
        sizes = scan.scan(container, stream)[1].sizes
    data = bytearray(source.read_bytes())
    start = data.index(b"mdat") + 4 + int(sizes[:4].sum())
    data[start : start + 4] = b"\x7f\0\0\0"
    (tmp_path / "damaged.mp4").write_bytes(data)
    found = inspect_video(tmp_path / "damaged.mp4", Sampling(fps=1.7))
    assert found.doubts["damaged"] == inspection_reasons.Doubt(1, 4)
    assert "the first is packet 4" in " ".join(found.why) and not found.pruned
    check_sums(found)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation(structures: dict[str, pathlib.Path], tmp_path: pathlib.Path, turns: int) -> None:
    path = rotated(structures["h264_pyramid.mp4"], tmp_path / "turned.mp4", turns)
    found = inspect_video(path, Sampling())
    assert found.rotation_degrees == 90 * turns
    assert "turned" in (found.routes[0].why_not or "")


def test_every_key_is_documented() -> None:
    for each in (Inspection, inspection.Decoding, inspection.Gops, inspection.Route):
        documented = each.__doc__ or ""
        assert [field.name for field in dataclasses.fields(each) if field.name not in documented] == []


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.main, ["inspect", *map(str, arguments)])


def test_the_command(structures: dict[str, pathlib.Path]) -> None:
    path = structures["h264_pyramid.mp4"]
    told = json.loads(run(path, "--fps", 1.7, "--json").output)
    assert told["decoding"]["packets"] == inspect_video(path, Sampling(fps=1.7)).decoding.packets
    assert list(told) == [field.name for field in dataclasses.fields(Inspection)]
    assert "wanted frames at 1.7 fps: 5" in run(path, "--fps", 1.7).output


def test_files_that_are_missing_or_broken(structures: dict[str, pathlib.Path], tmp_path: pathlib.Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(structures["h264_pyramid.mp4"].read_bytes()[:9000])
    for path, reason in ((tmp_path / "none.mp4", "no such file"), (tmp_path, "is a directory"), (cut, "not a video")):
        result = run(path)
        assert result.exit_code == 1 and str(path) in result.output and reason in result.output
    assert "not a video" in run(tmp_path / "text.mp4").output
    with pytest.raises(GridClipError, match="no such file"):
        inspect_video(tmp_path / "none.mp4", Sampling())


def test_leading_pictures_that_are_left_out() -> None:
    # Decode order: an open GOP's start (shown third), two of its leading pictures, one that follows.
    table = scan.PacketTable(
        facts=np.array([facts.OPEN | facts.LEADING_DROPPABLE, 0, facts.DISPOSABLE, 0, 0], np.uint16),
        pts=np.array([2, 0, 1, 3, 4]),
        sizes=np.full(5, 10),
        keyframes=np.array([True, False, False, False, False]),
        shown=np.array([1, 2, 0, 3, 4]),
        times_s=np.arange(5.0),
        ordered=True,
        prunable=True,
        reordering_declared=True,
    )
    kinds = inspection.sort_packets(table)
    assert {name: chosen.nonzero()[0].tolist() for name, chosen in kinds.items()} == {
        "keyframe": [0],
        "reference": [1, 3, 4],
        "disposable": [2],
        "hidden": [],
        "unanalysed": [],
    }
    assert inspection.measure_gops(table, 5.0).frames.longest == 5
