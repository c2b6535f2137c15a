"""benchmarks/long_video.py: the simulated jobs against sums done by hand, and a video made longer."""

import numpy as np
import pytest
from gridclip.benchmarks import long_video
from gridclip.benchmarks.long_video import Costs, simulate
from gridclip.dali_pipes.contract import VideoFile
from gridclip.dali_pipes.cpu import super_images


def video(scan_s: float, *places_s: float) -> Costs:
    return Costs(scan_s, np.array(places_s), 0, 0.0)


def test_whole_videos_take_what_the_fullest_core_takes():
    job = [video(0, 3), video(0, 3), video(0, 4), video(0, 10)]  # 3 + 4, and 3 + 10
    assert simulate(job, 2, least_s=float("inf"), join_s=0) == {"seconds": 13.0, "tail_s": 6.0, "efficiency": 0.769}


def test_a_film_is_divided_evenly_once_it_is_scanned():
    film = [video(2, *[1.0] * 32)]
    assert simulate(film, 4, least_s=1, join_s=0)["seconds"] == 2 + 32 / 4
    assert simulate(film, 4, least_s=float("inf"), join_s=0)["seconds"] == 34
    assert simulate(film, 4, least_s=1, join_s=0.5)["seconds"] >= 2 + (32 + 3 * 0.5) / 4


def test_what_cannot_be_cut_stays_whole():
    assert simulate([video(0, 20.0)], 4, least_s=1, join_s=0)["seconds"] == 20
    assert simulate([video(0, 0.5, 0.5)], 4, least_s=1, join_s=0)["seconds"] == 1


def test_packets_repeated_are_a_video_of_that_length(write_video, tmp_path):
    source = write_video(tmp_path / "a.mp4", duration_s=4)
    path = long_video.repeated(source, tmp_path / "long.mp4", 1)
    found = long_video.costs(path)
    (chunk, *_) = super_images.super_images(VideoFile("v", path), long_video.SAMPLING)
    assert chunk.total == pytest.approx(60 * 0.5 / 4, abs=1)
    assert len(found.places_s) > 1 and found.known_bytes > 0
