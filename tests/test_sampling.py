"""The sampling formula against the reference's, written out plainly."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
from gridclip.dali_pipes.sampling import Sampling, super_image_count, wanted_frames
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
