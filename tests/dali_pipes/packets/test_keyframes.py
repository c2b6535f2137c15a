"""dali_pipes/packets/keyframes.py: which frames move where, against a plain search, and that those frames come out."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import numpy as np
import pytest
import saved_folders
from generated_videos import STRUCTURES, Recipe, write
from gridclip.dali_pipes.bitstream.facts import CLOSED, OPEN, UNSAFE
from gridclip.dali_pipes.contract import CompressedSegment, VideoFile
from gridclip.dali_pipes.cpu import super_images
from gridclip.dali_pipes.cpu.reading import open_reading
from gridclip.dali_pipes.nvdali import segments
from gridclip.dali_pipes.nvdali.video_pipeline import VideoPipeline
from gridclip.dali_pipes.packets import pruning, scan
from gridclip.dali_pipes.packets.keyframes import nearest_keyframes
from gridclip.dali_pipes.packets.scan import PacketTable
from gridclip.dali_pipes.sampling import Sampling, wanted_frames
from hypothesis import given
from hypothesis import strategies as st
from whole_decodes import decode_all


def table(times_s: list[float], facts: list[int]) -> PacketTable:
    count = len(times_s)
    return PacketTable(
        facts=np.array(facts, np.uint16),
        pts=np.arange(count),
        sizes=np.ones(count, np.int64),
        keyframes=np.array(facts) != 0,
        shown=np.arange(count),
        times_s=np.array(times_s),
        ordered=True,
        prunable=True,
        reordering_declared=True,
    )


@given(
    steps=st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=1, max_size=40),
    keys=st.lists(st.sampled_from([0, 0, CLOSED, OPEN]), min_size=40, max_size=40),
    fps=st.sampled_from([0.3, 0.5, 1.0, 2.5]),
    max_shift_s=st.sampled_from([0.0, 0.25, 1.0, 3.0, 100.0]),
)
def test_every_frame_goes_to_the_nearest_keyframe_or_stays(steps, keys, fps, max_shift_s):
    times_s = np.cumsum([0.0, *steps[:-1]]).tolist()
    facts = keys[: len(times_s)]
    wanted = wanted_frames(len(times_s), len(times_s) / sum(steps), fps=fps)
    moved = nearest_keyframes(table(times_s, facts), wanted, max_shift_s)
    keyframes = [index for index, fact in enumerate(facts) if fact]
    for index, found in zip(wanted.tolist(), moved.tolist(), strict=True):
        near = [key for key in keyframes if abs(times_s[key] - times_s[index]) <= max_shift_s]
        nearest = min(near, key=lambda key: (abs(times_s[key] - times_s[index]), key), default=index)
        assert found == nearest
    assert len(moved) == len(wanted) and (np.diff(moved) >= 0).all()


def test_nothing_moves_where_the_stream_is_not_understood():
    known = table([0, 1, 2, 3], [CLOSED, 0, CLOSED, 0])
    wanted = np.array([1, 3])
    assert nearest_keyframes(known, wanted, 5).tolist() == [0, 2]
    for unknown in (
        dataclasses.replace(known, prunable=False, facts=known.facts | UNSAFE),
        dataclasses.replace(known, ordered=False),
        table([0, 1, 2, 3], [0, 0, 0, 0]),
    ):
        assert nearest_keyframes(unknown, wanted, 5).tolist() == [1, 3]


RECIPES = (
    Recipe("closed.mp4", gop=20, options=(("preset", "ultrafast"), ("x264-params", "bframes=2:scenecut=0"))),
    Recipe("open.mp4", gop=15, options=(("preset", "veryfast"), ("x264-params", "open-gop=1:bframes=3:scenecut=0"))),
    Recipe("hevc.mkv", codec="libx265", gop=15, options=(("preset", "ultrafast"), ("x265-params", "log-level=none"))),
    Recipe("vp9.webm", codec="libvpx-vp9", gop=25, options=(("deadline", "realtime"), ("cpu-used", "8"))),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    folder = tmp_path_factory.mktemp("recipes")
    return {recipe.name: write(folder, recipe) for recipe in RECIPES}


@pytest.mark.parametrize("name", [recipe.name for recipe in RECIPES])
@pytest.mark.parametrize("max_shift_s", [0.1, 0.4, 9.0])
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_the_moved_frames_come_out(files, name, max_shift_s, decoder):
    path = files[name]
    with open_reading(path, Sampling(fps=8, max_shift_s=max_shift_s)) as reading:
        moved, planned = reading.wanted, reading.planned
    assert len(moved) == len(planned) and (moved != planned).any()
    if max_shift_s == 9.0:
        assert len(set(moved.tolist())) < len(moved)  # frames that come out several times
    found = np.stack(list(super_images.frames(path, 8, decoder=decoder, max_shift_s=max_shift_s)))
    everything = decode_all(path)
    expected = np.stack([everything[index] for index in moved])
    if decoder == "pyav":
        assert np.array_equal(found, expected)
    else:  # decord's older FFmpeg converts colours a little differently; other frames differ by more than 20
        assert np.abs(found.astype(int) - expected).mean() < 6


def assert_moved_frames_come_out(path: pathlib.Path, samplings: list[Sampling]) -> None:
    everything = decode_all(path)
    for sampling in samplings:
        with open_reading(path, sampling) as reading:
            moved = reading.wanted
            found = list(reading.frames("pyav"))
        assert len(found) == len(moved) > 0
        for index, frame in zip(moved, found, strict=True):
            assert np.array_equal(frame, everything[index]), f"frame {index} differs with {sampling}"


# Hidden and leading pictures, no presentation times, no random access, another stream first, superframes.
TRICKY = (
    "h264_open_gop.mkv",
    "h264_edit_list.mp4",
    "h264_variable_rate.mp4",
    "h264_two_streams.mp4",
    "h264_no_pts.avi",
    "h264_annexb.ts",
    "h264_all_key.mp4",
    "hevc_open_gop.mp4",
    "vp8.webm",
    "av1.mkv",
    "mpeg4.avi",
    "mjpeg.avi",
    "mpeg2.mkv",
)


@pytest.mark.parametrize("recipe", [each for each in STRUCTURES if each.name in TRICKY], ids=lambda recipe: recipe.name)
def test_the_moved_frames_of_every_structure_come_out(tmp_path, recipe):
    path = write(tmp_path, dataclasses.replace(recipe, frames=min(recipe.frames, 90)))
    assert_moved_frames_come_out(path, [Sampling(fps=4, max_shift_s=0.3), Sampling(fps=4, max_shift_s=9.0)])


def test_the_moved_frames_of_real_files_come_out(shared_data: pathlib.Path) -> None:
    for path in sorted((shared_data / "videos").iterdir()):
        assert_moved_frames_come_out(path, [Sampling(max_shift_s=2.0), Sampling(fps=1.5, max_shift_s=9.0)])


def test_a_keyframe_that_many_segments_share_is_read_twice_with_the_same_result(tmp_path, monkeypatch):
    options = (("preset", "ultrafast"), ("x264-params", "keyint=300:scenecut=0"))
    path = write(tmp_path, Recipe("long_gop.mp4", frames=400, gop=300, options=options, size=(64, 48)))
    sampling = Sampling(fps=30, grid_size=1, super_img_size=32, max_shift_s=9.0)
    monkeypatch.setattr(pruning, "CHEAP_CUT", 1.0)  # cuts between frames that have moved to the same keyframe
    with open_reading(path, sampling) as reading:
        plan = pruning.plan_segments(reading.table, reading.wanted, cells=1)
        assert len(plan) > 4 and sum(0 in segment.packets for segment in plan) > 2
    kept_images = np.concatenate([run.images for run in super_images.super_images(VideoFile("v", path), sampling)])
    monkeypatch.setattr(scan, "KEEP_PACKETS_BYTES", 0)
    images = np.concatenate([run.images for run in super_images.super_images(VideoFile("v", path), sampling)])
    assert len(images) == 400 and np.array_equal(kept_images, images)
    rest = list(super_images.super_images(VideoFile("v", path), sampling, skip=70))
    assert np.array_equal(np.concatenate([run.images for run in rest]), images[70:])


def test_dali_gives_a_frame_several_times(files):
    path = files[RECIPES[-1].name]
    sampling = Sampling(fps=8, super_img_size=64, max_shift_s=9.0)
    video = VideoFile("v", path)
    options = {"sampling": sampling, "image_size": 64, "device": "cpu", "gauge": None}
    (run,) = segments.read_compressed(video, skip=0, **options)
    assert isinstance(run, CompressedSegment) and len(set(run.positions.tolist())) < len(run.positions)
    (images,) = VideoPipeline(sampling, 64, device_id=None, max_items=1, num_threads=1).decode([run])
    expected = np.concatenate([run.images for run in super_images.super_images(video, sampling)])
    assert np.abs(images.numpy().astype(int) - expected).mean() < 3


def test_times_and_counts_stay_as_planned(shared_data: pathlib.Path):
    video = VideoFile("v", shared_data / "videos" / "nasa_13013.mp4")
    exact, moved = (
        list(super_images.super_images(video, Sampling(fps=2, max_shift_s=shift_s))) for shift_s in (None, 5.0)
    )
    assert [run.total for run in exact] == [run.total for run in moved]
    assert all(np.array_equal(a.start_s, b.start_s) for a, b in zip(exact, moved, strict=True))
    assert any((a.images != b.images).any() for a, b in zip(exact, moved, strict=True))


def test_fewer_packets_are_decoded(shared_data: pathlib.Path):
    path = shared_data / "videos" / "nasa_13013.mp4"
    decoded = []
    for shift_s in (None, 100.0):
        with open_reading(path, Sampling(max_shift_s=shift_s)) as reading:
            plan = pruning.plan_segments(reading.table, reading.wanted, cells=4)
            decoded.append(sum(len(segment.packets) for segment in plan))
    assert decoded[1] <= len(wanted_frames(scan.summarise(path).frame_count, 30, fps=0.5)) < decoded[0]


@pytest.mark.parametrize("shift_s", [-1.0, float("nan"), float("inf")])
def test_shifts_out_of_range(shift_s):
    with pytest.raises(ValueError, match="max_shift_s"):
        Sampling(max_shift_s=shift_s)


def test_sidecars_of_older_versions_are_exact(tmp_path):
    from gridclip.dali_pipes.image_folders import jpeg

    sampling = Sampling(super_img_size=64)
    run = segments.SuperImages("v", 0, 1, np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1), np.ones(1))
    saved_folders.save(tmp_path, "v", [run], sampling)
    path = tmp_path / "v" / jpeg.SIDECAR
    record = json.loads(path.read_text())
    del record["max_shift_s"], record["mode"]
    path.write_text(json.dumps(record))
    assert jpeg.read_sidecar(tmp_path / "v").sampling == sampling
