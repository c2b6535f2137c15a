"""dali_pipes/cpu/some_frames.py: some frames of a video are those that grid size 1 of the whole video shows."""

from __future__ import annotations

import numpy as np
import pytest
from damaged_videos import copied
from gridclip.dali_pipes.contract import Notice, SuperImages, VideoError, VideoFile
from gridclip.dali_pipes.cpu.decoders import DECODERS
from gridclip.dali_pipes.cpu.some_frames import CHUNK_FRAMES, SomeFrames, some_frames, tasks
from gridclip.dali_pipes.cpu.super_images import super_images
from gridclip.dali_pipes.sampling import Sampling

SAMPLING = Sampling(fps=2, grid_size=3, super_img_size=48)
SETTINGS = {
    "frames": {},
    "keyframes": {"max_shift_s": 0.4},
    "time": {"mode": "time"},
}


@pytest.fixture(scope="module")
def video(tmp_path_factory, write_video):
    path = tmp_path_factory.mktemp("v") / "v.mp4"
    return VideoFile("v", write_video(path, duration_s=30, options={"preset": "veryfast", "bf": "2", "g": "12"}))


def everything(video: VideoFile, sampling: Sampling, decoder: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All frames of the video at grid size 1, and their times, by the source that embed-videos has."""
    whole = Sampling(**{**vars(sampling), "grid_size": 1})
    chunks = [each for each in super_images(video, whole, decoder=decoder) if isinstance(each, SuperImages)]
    return tuple(np.concatenate([getattr(each, name) for each in chunks]) for name in ("images", "start_s", "end_s"))


@pytest.mark.parametrize("decoder", [name for name, each in DECODERS.items() if each.is_installed()])
@pytest.mark.parametrize("mode", SETTINGS)
def test_frames_are_those_of_the_whole_video(video, decoder, mode):
    sampling = Sampling(fps=2, grid_size=3, super_img_size=48, **SETTINGS[mode])
    images, start_s, end_s = everything(video, sampling, decoder)
    positions = np.r_[3:9, 20:45, 59]
    chunks = list(some_frames(video, sampling, positions, decoder=decoder))
    assert all(isinstance(each, SomeFrames) for each in chunks)
    assert [each.first for each in chunks] == [0, CHUNK_FRAMES] and {each.total for each in chunks} == {len(positions)}
    np.testing.assert_array_equal(np.concatenate([each.images for each in chunks]), images[positions])
    np.testing.assert_array_equal(np.concatenate([each.start_s for each in chunks]), start_s[positions])
    np.testing.assert_array_equal(np.concatenate([each.end_s for each in chunks]), end_s[positions])
    assert {each.wanted for each in chunks} == {len(images)}


def test_only_what_the_frames_need_is_decoded(video):
    few, all_ = (
        sum(each.packets for each in some_frames(video, SAMPLING, positions))
        for positions in (np.arange(30, 33), np.arange(60))
    )
    assert 0 < few <= 24 < all_ <= 300  # two GOPs of 12


def test_frames_behind_the_end_are_left_out(video):
    (chunk,) = some_frames(video, SAMPLING, np.arange(54, 63))
    assert len(chunk.images) == chunk.total == 6
    with pytest.raises(VideoError, match="it has 60 wanted frames, those from 61 on"):
        next(some_frames(video, SAMPLING, np.arange(60, 63)))


def test_what_was_delivered_is_skipped(video):
    positions = np.arange(0, 60, 2)
    whole = np.concatenate([each.images for each in some_frames(video, SAMPLING, positions)])
    rest = list(some_frames(video, SAMPLING, positions, skip=20))
    assert rest[0].first == 20 and rest[0].total == 30
    np.testing.assert_array_equal(np.concatenate([each.images for each in rest]), whole[20:])


def test_tasks_give_images_of_the_models_size(video):
    task = tasks({"v": np.array([4])}, SAMPLING, 32)[0]
    (chunk,) = task(video, skip=0)
    assert chunk.images.shape == (1, 32, 32, 3)


def test_damage_in_the_part_is_told_and_elsewhere_is_not(video, tmp_path):
    damaged = copied(video.path, tmp_path / "v.mp4", zeroed=tuple(range(150, 156)))  # one is wanted
    chunk, *notices = some_frames(VideoFile("v", damaged), SAMPLING, np.arange(4))
    np.testing.assert_array_equal(chunk.images, everything(video, SAMPLING, "pyav")[0][:4])
    assert not notices
    events = list(some_frames(VideoFile("v", damaged), SAMPLING, np.arange(60)))
    assert [each.kind for each in events if isinstance(each, Notice)] == ["damage"]


def test_a_file_that_is_no_video(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError):
        next(some_frames(VideoFile("v", tmp_path / "v.mp4"), SAMPLING, np.arange(3)))
