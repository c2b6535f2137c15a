"""The table of decoders on the CPU, and docs/recipes/cpu-decoder.md carried out with a toy: PyAV on files in memory."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Callable, Iterator

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from gridclip.dali_pipes.contract import Notice, VideoFile
from gridclip.dali_pipes.cpu import decoding, super_images, tasks
from gridclip.dali_pipes.cpu.decoders import DECODERS, CpuDecoder, in_turn
from gridclip.dali_pipes.packets.scan import VideoError
from gridclip.dali_pipes.sampling import Sampling

SAMPLING = Sampling(fps=1, super_img_size=64)


def toy(data: bytes, positions: np.ndarray) -> Iterator[np.ndarray]:
    """Decodes everything and counts."""
    wanted = set(positions.tolist())
    with av.open(io.BytesIO(data)) as container:
        for position, picture in enumerate(container.decode(video=0)):
            if position in wanted:
                yield decoding.to_rgb(picture, VideoReformatter())


def broken(data: bytes, positions: np.ndarray) -> Iterator[np.ndarray]:
    """Gives one frame, then up."""
    yield next(toy(data, positions))
    raise VideoError("decode", "the toy is broken")


@pytest.fixture
def video(tmp_path: pathlib.Path, write_video: Callable[..., pathlib.Path]) -> VideoFile:
    return VideoFile("v", write_video(tmp_path / "v.mp4", duration_s=12))


def images(video: VideoFile, decoder: str) -> tuple[np.ndarray, list[Notice]]:
    found = list(super_images.super_images(video, SAMPLING, decoder=decoder))
    notices = [event for event in found if isinstance(event, Notice)]
    return np.concatenate([run.images for run in found if not isinstance(run, Notice)]), notices


def test_a_decoder_that_joins_the_table_gives_the_same_frames(video, monkeypatch) -> None:
    calls: list[int] = []

    def counted(data: bytes, positions: np.ndarray) -> Iterator[np.ndarray]:
        calls.append(len(positions))
        return toy(data, positions)

    monkeypatch.setitem(DECODERS, "toy", CpuDecoder("the toy", "av", counted))
    made, notices = images(video, "toy")
    plain, _ = images(video, "pyav")
    assert np.array_equal(made, plain)
    assert not notices
    assert sum(calls) == 12


def test_pyav_steps_in_where_it_fails_and_a_notice_says_so(video, monkeypatch) -> None:
    monkeypatch.setitem(DECODERS, "toy", CpuDecoder("the toy", "av", broken))
    made, notices = images(video, "toy")
    plain, _ = images(video, "pyav")
    assert np.array_equal(made, plain)
    assert [notice.detail for notice in notices] == ["PyAV stood in for the toy: the toy is broken"]


def test_the_named_one_comes_first_and_pyav_takes_over(monkeypatch) -> None:
    monkeypatch.setitem(DECODERS, "toy", CpuDecoder("the toy", "av", toy))
    monkeypatch.setitem(DECODERS, "gone", CpuDecoder("one that is gone", "no_such_module", toy))
    assert in_turn("toy") == ["toy", "pyav"]
    assert in_turn("pyav") == ["pyav"]
    assert in_turn("gone") == ["pyav"]
    assert [name for name in in_turn("auto") if name != "decord"] == ["pyav", "toy"]
    with pytest.raises(ValueError, match=r"decoder \('toys'\) must be one of auto, pyav, decord, toy, gone"):
        in_turn("toys")


def test_tasks_carry_its_title(tmp_path: pathlib.Path, monkeypatch) -> None:
    monkeypatch.setitem(DECODERS, "toy", CpuDecoder("the toy", "av", toy))
    make = getattr(tasks, "embedding_tasks", None) or tasks.embedding_works
    assert [task.name for task in make(SAMPLING, "toy", 64)] == ["the toy", "PyAV"]
