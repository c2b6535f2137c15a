"""The sampling formula against the reference's, sampling by time against a loop, both written out plainly."""

from __future__ import annotations

import json
import pathlib
import tracemalloc

import numpy as np
import pytest
from gridclip.dali_pipes.packets.scan import VideoStream
from gridclip.dali_pipes.sampling import (
    GRACE_S,
    Sampling,
    completed,
    count_wanted,
    frames_at,
    rate_differs,
    super_image_count,
    wanted_frames,
    wanted_times,
    why_none,
)
from gridclip.engine.annotations.annotations import VideoInfo
from hypothesis import given
from hypothesis import strategies as st


@given(frame_count=st.integers(1, 100_000), avg_fps=st.floats(1, 240), fps=st.floats(0.05, 60))
def test_equals_the_reference_formula(frame_count: int, avg_fps: float, fps: float) -> None:
    n = int(frame_count * fps / avg_fps)
    reference = np.linspace(0, frame_count, n, endpoint=False, dtype=int) if n else np.zeros(1, int)
    wanted = wanted_frames(frame_count, avg_fps, fps=fps)
    assert np.array_equal(wanted, reference)
    assert wanted.dtype == np.int64 and wanted[0] == 0 and wanted[-1] < frame_count


def test_a_video_shorter_than_one_period_gives_its_first_frame_or_none() -> None:
    assert wanted_frames(30, 30.0, fps=0.5).tolist() == [0]
    assert wanted_frames(30, 30.0, fps=0.5, min_frames=0).tolist() == []
    assert wanted_frames(0, 30.0, fps=0.5).tolist() == []


def test_super_image_counts_of_activitynet(shared_data: pathlib.Path) -> None:
    info = json.loads((shared_data / "annotations" / "activitynet_val_1_video_info.json").read_text())
    unreadable = set(
        "xAMZGWqRmqE 5-vAXCUN8X0 hHMqyl_Dugs a8dUtKcAunw 7xpkFhlxo2Q MXDeLfF5rok Iiwz1JtC7rk A7oh6l1AIvs -M-Dr6HqDhU "
        "lgB0Ynn38-k PT4x_Y5lu_g K3sJnHGHQHM 0dkIbKXXFzI -SCRtjT7dto RTwa2d6Oqvo VhzPqd0Su5I".split()
    )
    videos = [video for video in info if video["video_name"][2:-4] not in unreadable]
    counts = []
    for grid_size in (1, 2, 3, 4, 5):
        lengths = [len(wanted_frames(v["video_frames"], v["video_fps"], fps=0.5)) for v in videos]
        counts.append(sum(super_image_count(length, grid_size) for length in lengths))
    assert len(videos) == 4901
    assert counts == [288795, 74021, 34284, 20324, 13966]


@pytest.mark.parametrize(
    "settings", [{"fps": 0.0}, {"fps": float("nan")}, {"grid_size": 0}, {"super_img_size": 1}, {"min_frames": 2}]
)
def test_settings_out_of_range_name_the_value(settings: dict[str, float]) -> None:
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=rf"{name} \({value}\)"):
        Sampling(**settings)  # type: ignore[arg-type]


@given(
    steps_ms=st.lists(st.integers(0, 5000), max_size=60),
    last_ms=st.integers(0, 3000),
    fps=st.sampled_from([0.3, 0.5, 1.0, 2.5, 7.0, 30.0]) | st.floats(0.05, 60),
    min_frames=st.integers(0, 1),
)
def test_by_time_each_wanted_frame_is_what_is_on_screen(steps_ms, last_ms, fps, min_frames) -> None:
    shown_s = [sum(steps_ms[:index]) / 1000 for index in range(len(steps_ms) + 1)]
    duration_s = shown_s[-1] + last_ms / 1000
    times_s = wanted_times(duration_s, fps=fps, min_frames=min_frames)
    found = frames_at(np.array(shown_s), times_s)
    expected = []
    k = 0 if duration_s * fps >= 1 or min_frames else 1
    while k == 0 or (duration_s * fps >= 1 and k / fps < duration_s - GRACE_S):
        on_screen = [index for index, start_s in enumerate(shown_s) if start_s <= k / fps + GRACE_S]
        expected.append((k / fps, on_screen[-1]))
        k += 1
    assert list(zip(times_s.tolist(), found.tolist(), strict=True)) == expected
    assert found.dtype == np.int64


def test_by_time_the_first_frame_stands_in_before_the_first_frame() -> None:
    assert frames_at(np.array([3.0, 4.0]), np.array([0.0, 2.0, 3.0, 9.0])).tolist() == [0, 0, 0, 1]


def test_by_time_rounded_stamps_give_the_frames_of_exact_ones() -> None:
    exact = np.arange(300) / 30
    rounded = np.round(exact, 3)  # 0.667 for 2 / 3
    times_s = wanted_times(10.0, fps=3)
    assert frames_at(exact, times_s).tolist() == frames_at(rounded, times_s).tolist() == list(range(0, 300, 10))
    assert len(wanted_times(10.001, fps=0.5)) == len(wanted_times(9.9995, fps=0.5)) == 5


def length(frame_count: int, avg_fps: float, duration_s: float) -> VideoInfo:
    return VideoInfo("v", frame_count, avg_fps, duration_s)


@pytest.mark.parametrize(
    ("frame_count", "avg_fps", "duration_s", "differs"),
    [
        (92, 30.0, 38.8, True),
        (300, 30.0, 10.0, False),
        (300, 30.0, 10.9, False),
        (300, 30.0, 11.2, True),
        (300, 30.0, 9.0, True),
        (2, 30.0, 1 / 30, False),  # the container does not say for how long the last frame is shown
        (300, 0.0, 10.0, False),
        (300, 30.0, 0.0, False),
    ],
)
def test_rates_that_differ(frame_count: int, avg_fps: float, duration_s: float, differs: bool) -> None:
    assert rate_differs(length(frame_count, avg_fps, duration_s)) is differs


def test_counts_by_frames_and_by_time() -> None:
    uneven = length(92, 30.0, 38.8)
    assert [count_wanted(uneven, Sampling(mode=mode)) for mode in ("frames", "time")] == [1, 20]
    assert count_wanted(uneven, Sampling(max_shift_s=2.0)) == 1
    assert count_wanted(length(0, 30.0, 38.8), Sampling(mode="time")) == 0


@given(
    frames=st.integers(0, 400),
    avg_fps=st.sampled_from([0.0, 24000 / 1001, 25.0, 30.0]) | st.floats(0.01, 120),
    duration_s=st.integers(0, 9000).map(lambda steps: steps / 30) | st.floats(0, 300),
    fps=st.sampled_from([0.3, 0.5, 2.5, 30.0]) | st.floats(0.05, 60),
    min_frames=st.integers(0, 1),
)
def test_counts_are_those_of_the_lists(frames, avg_fps, duration_s, fps, min_frames) -> None:
    video = length(frames, avg_fps, duration_s)
    listed = wanted_frames(frames, avg_fps, fps=fps, min_frames=min_frames)
    assert count_wanted(video, Sampling(fps=fps, min_frames=min_frames)) == len(listed)
    by_time = wanted_times(duration_s, fps=fps, min_frames=min_frames) if frames else []
    assert count_wanted(video, Sampling(fps=fps, min_frames=min_frames, mode="time")) == len(by_time)


def test_counting_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        assert count_wanted(length(48, 30.0, 1e9), Sampling(fps=10, mode="time")) == 10**10
        assert count_wanted(length(48, 1e-9, 1e9), Sampling(fps=10)) == 480 * 10**9
        assert tracemalloc.get_traced_memory()[1] < 1e5
    finally:
        tracemalloc.stop()


def test_time_stamps_that_cannot_be_are_refused_by_time_only() -> None:
    damaged = length(92, 30.0, 1e9)
    assert "`mode='frames'`" in (why_none(damaged, Sampling(mode="time")) or "")
    assert why_none(damaged, Sampling()) is None
    assert why_none(length(92, 30.0, float("inf")), Sampling(mode="time"))
    month = 30 * 86_400
    assert why_none(length(30 * month, 30.0, month), Sampling(mode="time")) is None
    assert "has no frame" in (why_none(length(0, 30.0, 38.8), Sampling(mode="time")) or "")
    assert "shorter than one period" in (why_none(length(9, 30.0, 0.3), Sampling(mode="time", min_frames=0)) or "")


def test_the_mode_of_older_settings_is_what_they_meant() -> None:
    assert Sampling().mode == "frames" and Sampling(max_shift_s=2.0).mode == "keyframes"
    assert Sampling(mode="frames") == Sampling() and Sampling(mode="keyframes", max_shift_s=1.0).max_shift_s == 1.0
    assert completed({"fps": 0.5})["mode"] == completed({"fps": 0.5, "max_shift_s": None})["mode"] == "frames"
    assert completed({"fps": 0.5, "max_shift_s": 2.0})["mode"] == "keyframes"
    assert completed({"fps": 0.5, "mode": "time"})["mode"] == "time"
    assert "mode" not in completed({"source": "features"}) | completed({"fps": None, "max_shift_s": None})


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "exact"},
        {"mode": "keyframes"},
        {"mode": "time", "max_shift_s": 2.0},
        {"mode": "frames", "max_shift_s": 0.0},
    ],
)
def test_modes_that_cannot_be(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="mode"):
        Sampling(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frame_count", "avg_fps", "duration_s"),
    [(1, 2.9e-5, 34952.6), (41, 4.6e-4, 2185.9), (10**6, 1e-300, 1.0)],
)
def test_a_damaged_rate_is_no_order_for_copies(frame_count: int, avg_fps: float, duration_s: float) -> None:
    length = VideoStream(frame_count, avg_fps, duration_s, "h264", 64, 48)
    assert "is damaged" in (why_none(length, Sampling(fps=10)) or "")


def test_frames_that_stay_long_are_repeated() -> None:
    assert why_none(VideoStream(6, 0.1, 60.0, "h264", 64, 48), Sampling(fps=2)) is None  # a slide every ten seconds
