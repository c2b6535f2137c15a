"""Pruned decoding against decoding everything, by the same decoder, bit for bit."""

from __future__ import annotations

import pathlib

import av
import decord
import numpy as np
import pytest
from generated_videos import STRUCTURES, Recipe, write
from gridclip.dali_pipes import grid
from gridclip.dali_pipes.bitstream.facts import CLOSED
from gridclip.dali_pipes.contract import Notice, SuperImages, VideoFile
from gridclip.dali_pipes.cpu import decoding, reading, super_images
from gridclip.dali_pipes.packets import pruning, scan
from gridclip.dali_pipes.sampling import Sampling, wanted_frames
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whole_decodes import decode_all, rotated

RATES_FPS = (0.5, 1.7, 8.0)
# decord's FFmpeg has no AV1 decoder, counts frames that an edit list hides, takes another one of two streams, and
# returns damaged frames from transport streams and raw streams.
NOT_FOR_DECORD = ("av1.mkv", "av1.mp4", "h264_edit_list.mp4", "h264_two_streams.mp4", "h264_annexb.ts", "h264_raw.h264")


def decode_wanted(path: pathlib.Path, fps: float) -> tuple[np.ndarray, list[np.ndarray], int]:
    """(wanted indices, their frames by the pruned path, packets decoded)."""
    with scan.open_video(path, skim=True) as (container, stream):
        summary, table, packets = scan.scan(container, stream)
        wanted = wanted_frames(summary.frame_count, summary.avg_fps, fps=fps)
        frames: list[np.ndarray] = []
        decoded = 0
        for segment in pruning.plan_segments(table, wanted, cells=4):
            fed = (packets[position] for position in segment.packets)
            frames += decoding.decode_with_pyav(stream.codec_context, fed, segment)
            decoded += len(segment.packets)
    return wanted, frames, decoded


def assert_same_frames(path: pathlib.Path, rates_fps: tuple[float, ...] = RATES_FPS) -> None:
    everything = decode_all(path)
    for fps in rates_fps:
        wanted, frames, _ = decode_wanted(path, fps)
        assert len(frames) == len(wanted) > 0
        for index, frame in zip(wanted, frames, strict=True):
            assert np.array_equal(frame, everything[index]), f"frame {index} at {fps} fps differs"


@pytest.fixture(scope="module")
def structures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("structures")
    return {recipe.name: write(folder, recipe) for recipe in STRUCTURES}


@pytest.mark.parametrize("name", [recipe.name for recipe in STRUCTURES])
def test_pruned_pyav_equals_whole(structures: dict[str, pathlib.Path], name: str) -> None:
    assert_same_frames(structures[name])


@pytest.mark.parametrize("name", [recipe.name for recipe in STRUCTURES if recipe.name not in NOT_FOR_DECORD])
def test_pruned_decord_equals_whole(structures: dict[str, pathlib.Path], name: str) -> None:
    assert_decord_equals_whole(structures[name], fps=1.7)


def assert_decord_equals_whole(path: pathlib.Path, fps: float) -> None:
    sampling = Sampling(fps=fps)
    events = list(super_images.super_images(VideoFile("x", path), sampling, decoder="decord"))
    runs = [event for event in events if isinstance(event, SuperImages)]
    notices = [event for event in events if isinstance(event, Notice) and event.kind != "rate"]
    assert [notice.kind for notice in notices] == ([] if uses_decord(path, fps) else ["decoder"])
    reader = decord.VideoReader(str(path), width=446, height=336, num_threads=1)
    wanted = wanted_frames(len(reader), reader.get_avg_fps(), fps=fps)
    everything = [reader.next().asnumpy() for _ in range(len(reader))]  # without seeking: decord mis-seeks open GOPs
    whole = grid.assemble(np.stack([everything[index] for index in wanted]), 2, 336)
    pruned = np.concatenate([run.images for run in runs])
    if uses_decord(path, fps):
        assert np.array_equal(pruned, whole)
    else:  # PyAV's newer FFmpeg decodes the same frames, and converts colours a little differently
        assert np.abs(pruned.astype(int) - whole).mean() < 6


def uses_decord(path: pathlib.Path, fps: float) -> bool:
    with reading.open_reading(path, Sampling(fps=fps)) as video:
        segments = pruning.plan_segments(video.table, video.wanted, cells=4)
        return all(video.counts_right(segment) for segment in segments)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("h264_pyramid.mp4", 0.35),
        ("h264_many_b.mkv", 0.25),
        ("h264_open_gop.mp4", 0.35),
        ("hevc_open_gop.mp4", 0.35),
        ("mjpeg.avi", 0.06),
        ("mpeg4.avi", 0.15),
        ("av1.mkv", 0.2),
        ("av1.mp4", 0.17),
        ("h264_no_pts.avi", 1.0),
    ],
)
def test_pruning_leaves_packets_out(structures: dict[str, pathlib.Path], name: str, share: float) -> None:
    _, _, decoded = decode_wanted(structures[name], 1.7)
    assert decoded <= share * scan.summarise(structures[name]).frame_count


def test_codecs_that_are_not_analysed_keep_every_packet(structures: dict[str, pathlib.Path]) -> None:
    _, _, decoded = decode_wanted(structures["mpeg2.mkv"], 1.7)
    assert decoded == 90


def test_skimming_tells_the_scan_the_same(structures: dict[str, pathlib.Path], shared_data: pathlib.Path) -> None:
    for path in [*structures.values(), *(shared_data / "videos").iterdir()]:
        found = []
        for skim in (False, True):
            with scan.open_video(path, skim=skim) as (container, stream):
                summary, table, _ = scan.scan(container, stream)
                found.append((stream.index, stream.codec_context.has_b_frames, summary, table.facts.tolist()))
        assert found[0] == found[1], path.name


def test_real_files_equal_whole(shared_data: pathlib.Path) -> None:
    for path in sorted((shared_data / "videos").iterdir()):
        assert_same_frames(path, (0.5, 3.0))


def test_real_files_decord_equals_whole(shared_data: pathlib.Path) -> None:
    paths = [path for path in sorted((shared_data / "videos").iterdir()) if path.name != "av1_video.mkv"]
    for path in paths:
        assert_decord_equals_whole(path, 0.5)
    assert sum(uses_decord(path, 0.5) for path in paths) >= 10


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gop=st.integers(1, 40),
    b_frames=st.integers(0, 5),
    pyramid=st.sampled_from(["none", "strict", "normal"]),
    open_gop=st.booleans(),
    references=st.integers(1, 5),
    frames=st.integers(1, 70),
    fps=st.floats(0.3, 30),
    variable_rate=st.booleans(),
)
def test_any_structure_equals_whole(
    tmp_path: pathlib.Path,
    gop: int,
    b_frames: int,
    pyramid: str,
    open_gop: bool,
    references: int,
    frames: int,
    fps: float,
    variable_rate: bool,
) -> None:
    parameters = (
        f"bframes={b_frames}:b-pyramid={pyramid}:open-gop={int(open_gop)}:ref={references}:b-adapt=0:keyint={gop}"
    )
    options = (("preset", "ultrafast"), ("x264-params", parameters))
    recipe = Recipe("any.mp4", frames=frames, gop=gop, options=options, size=(64, 48), variable_rate=variable_rate)
    assert_same_frames(write(tmp_path, recipe), (fps,))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    levels=st.integers(2, 5),
    low_delay=st.booleans(),
    overlays=st.booleans(),
    forward_keys=st.booleans(),
    grain=st.sampled_from([0, 10]),
    gop=st.integers(8, 70),
    frames=st.integers(1, 100),
    fps=st.floats(0.3, 10),
)
def test_any_structure_of_av1_equals_whole(
    tmp_path: pathlib.Path,
    levels: int,
    low_delay: bool,
    overlays: bool,
    forward_keys: bool,
    grain: int,
    gop: int,
    frames: int,
    fps: float,
) -> None:
    parameters = {
        "lp": 1,
        "hierarchical-levels": levels,
        "pred-struct": 1 if low_delay else 2,
        "enable-overlays": int(overlays and not low_delay),
        "irefresh-type": 1 if forward_keys and not low_delay else 2,
        "film-grain": grain,
    }
    written = ":".join(f"{name}={value}" for name, value in parameters.items())
    options = (("preset", "12"), ("svtav1-params", written))
    recipe = Recipe("any.mkv", "libsvtav1", frames=frames, gop=gop, options=options, size=(64, 64))
    assert_same_frames(write(tmp_path, recipe), (fps,))


@given(data=st.data(), count=st.integers(1, 40))
def test_what_wanted_packets_need_is_what_they_name_and_what_that_names(data: st.DataObject, count: int) -> None:
    references = [
        tuple(data.draw(st.sets(st.integers(0, position - 1), max_size=3))) if position else ()
        for position in range(count)
    ]
    wanted = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    facts = np.zeros(count, np.uint16)
    facts[0] = CLOSED
    table = scan.PacketTable(
        facts=facts,
        pts=np.arange(count),
        sizes=np.ones(count, np.int64),
        keyframes=facts > 0,
        shown=np.arange(count),
        times_s=np.arange(count) / 10,
        ordered=True,
        prunable=True,
        reordering_declared=True,
        references=references,
    )
    (segment,) = pruning.plan_segments(table, wanted, cells=100)
    needed, open_ = {0}, wanted.tolist()
    while open_:
        position = open_.pop()
        needed.add(position)
        open_ += [reference for reference in references[position] if reference not in needed]
    assert segment.packets.tolist() == sorted(needed)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_flag_is_applied(tmp_path: pathlib.Path, structures: dict[str, pathlib.Path], turns: int) -> None:
    path = rotated(structures["h264_pyramid.mp4"], tmp_path / "rotated.mp4", turns)
    assert_same_frames(path)
    assert_decord_equals_whole(path, 1.7)
    upright, turned = decode_all(structures["h264_pyramid.mp4"])[0], decode_all(path)[0]
    assert np.abs(upright.astype(int) - turned).mean() > 10


def test_segments_are_bounded_and_cover_every_wanted_frame(structures: dict[str, pathlib.Path]) -> None:
    with scan.open_video(structures["h264_all_key.mp4"]) as (container, stream):
        _, table, _ = scan.scan(container, stream)
    wanted = np.arange(90)
    segments = pruning.plan_segments(table, wanted, cells=4)
    assert [len(segment.wanted) for segment in segments] == [64, 26]
    assert np.array_equal(np.concatenate([segment.wanted for segment in segments]), table.shown)
    assert [segment.first for segment in pruning.plan_segments(table, wanted, cells=4, first=8)] == [8, 72]


def test_large_files_are_demuxed_twice_with_the_same_result(
    structures: dict[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("h264_one_gop.mp4", "h264_pyramid.mp4", "mjpeg.avi"):
        video = VideoFile("x", structures[name])
        for sampling in (Sampling(fps=8), Sampling(fps=30, grid_size=1)):
            monkeypatch.setattr(pruning, "SEGMENT_FRAMES", 8)
            monkeypatch.setattr(pruning, "CHEAP_CUT", 1.0)  # cuts inside GOPs: segments share packets
            monkeypatch.setattr(scan, "KEEP_PACKETS_BYTES", 64 << 20)
            kept = np.concatenate([run.images for run in super_images.super_images(video, sampling)])
            monkeypatch.setattr(scan, "KEEP_PACKETS_BYTES", 0)
            read_again = np.concatenate([run.images for run in super_images.super_images(video, sampling)])
            assert np.array_equal(kept, read_again)


def test_skip_continues_where_a_killed_worker_stopped(structures: dict[str, pathlib.Path]) -> None:
    video, sampling = VideoFile("x", structures["h264_one_gop.mp4"]), Sampling(fps=8)
    all_runs = list(super_images.super_images(video, sampling))
    rest = list(super_images.super_images(video, sampling, skip=17))
    images, starts = np.concatenate([run.images for run in all_runs]), np.concatenate([run.start_s for run in all_runs])
    assert rest[0].first == 17 and rest[0].total == all_runs[0].total == len(images) == 40
    assert np.array_equal(np.concatenate([run.images for run in rest]), images[17:])
    assert np.array_equal(np.concatenate([run.start_s for run in rest]), starts[17:])


def test_super_images_tile_the_video_in_time(structures: dict[str, pathlib.Path]) -> None:
    runs = list(super_images.super_images(VideoFile("x", structures["h264_variable_rate.mp4"]), Sampling(fps=4)))
    start_s, end_s = (np.concatenate([getattr(run, name) for run in runs]) for name in ("start_s", "end_s"))
    assert start_s[0] == 0 and np.array_equal(end_s[:-1], start_s[1:])
    assert end_s[-1] == pytest.approx(scan.summarise(structures["h264_variable_rate.mp4"]).duration_s)
    with av.open(str(structures["h264_variable_rate.mp4"])) as container:
        times_s = [frame.time for frame in container.decode(video=0)]
    wanted = wanted_frames(90, scan.summarise(structures["h264_variable_rate.mp4"]).avg_fps, fps=4)
    assert start_s == pytest.approx([times_s[index] - times_s[0] for index in wanted[::4]], abs=1e-3)
