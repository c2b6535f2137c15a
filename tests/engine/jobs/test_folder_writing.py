"""engine/jobs/folder_writing.py: what a source yields becomes folders, and the counts say what is in them."""

import dataclasses
import errno
import itertools
import pathlib

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.contract import Failure, Finished, Restarted, SuperImages, VideoFile
from gridclip.dali_pipes.image_folders import jpeg
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.jobs.folder_writing import write_folders

SAMPLING = Sampling(super_img_size=64)


def chunk(video: VideoFile, first: int, count: int):
    times = np.arange(first, first + count) * 8.0
    return video, SuperImages(video.video_id, first, 4, np.full((count, 64, 64, 3), 9, np.uint8), times, times + 8)


def test_counts_begin_again_where_a_video_comes_again(tmp_path):
    red, green = VideoFile("red", tmp_path / "red.mp4"), VideoFile("green", tmp_path / "green.mp4")
    events = [
        chunk(red, 0, 3),
        chunk(green, 0, 1),
        (red, Restarted()),
        chunk(red, 2, 2),
        chunk(green, 1, 3),
        chunk(red, 0, 2),
        (green, Failure("green", "decode", "damaged")),
        (red, Finished()),
    ]
    out = write_folders(events, SAMPLING, tmp_path, tmp_path / ".parts", num_threads=2)
    out = [(video.video_id, event) for video, event in out if not isinstance(event, Restarted)]
    assert [event for video_id, event in out if video_id == "red"] == [3, 2, 4, Finished()]
    assert [event for video_id, event in out if video_id == "green"][:2] == [1, 4]
    assert len(jpeg.read_sidecar(tmp_path / "red").start_s) == 4 and not (tmp_path / "green").exists()
    assert list((tmp_path / ".parts").iterdir()) == []


def test_an_unknown_event_is_an_error_and_leaves_no_folder(tmp_path):
    red = VideoFile("red", tmp_path / "red.mp4")
    events = write_folders([chunk(red, 0, 3), (red, "done")], SAMPLING, tmp_path, tmp_path / ".parts", num_threads=1)
    with pytest.raises(AssertionError, match="done"):
        list(events)
    assert not (tmp_path / "red").exists()


def test_a_full_disk_is_noticed_while_the_video_goes_on(tmp_path, monkeypatch):
    red = VideoFile("red", tmp_path / "red.mp4")

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    endless = (chunk(red, first, 1) for first in itertools.count())
    events = write_folders(endless, SAMPLING, tmp_path, tmp_path / ".parts", num_threads=1)
    with pytest.raises(GridClipError, match=r"No space left on device.*`resume=True`"):
        list(itertools.islice(events, 50))
    assert list((tmp_path / ".parts").iterdir()) == []


def test_files_come_as_they_are(tmp_path):
    red = VideoFile("red", tmp_path / "red.mp4")
    _, pictures = chunk(red, 0, 4)
    files = [f"file {number}".encode() for number in range(4)]
    events = [(red, dataclasses.replace(jpeg.compress(pictures), files=files)), (red, Finished())]
    list(write_folders(events, SAMPLING, tmp_path, tmp_path / ".parts", num_threads=1))
    found = [(tmp_path / "red" / f"img_{number:04d}.jpg").read_bytes() for number in range(1, 5)]
    assert found == files and jpeg.read_sidecar(tmp_path / "red").start_s == pictures.start_s.tolist()
