"""Several grid sizes from one decode by DALI's CPU variant, and overlaps beside it, against the worker processes."""

from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pytest
from generated_videos import Recipe, write
from gridclip.dali_pipes.contract import CompressedSegment, Failure, Notice, SuperImages, VideoFile
from gridclip.dali_pipes.cpu import super_images
from gridclip.dali_pipes.nvdali import segments, self_test, sources
from gridclip.dali_pipes.nvdali.video_pipeline import VideoPipeline
from gridclip.dali_pipes.sampling import Sampling

FAST = (("deadline", "realtime"), ("cpu-used", "8"))
VP9 = Recipe("vp9.webm", codec="libvpx-vp9", frames=150, gop=15, size=(160, 120), options=FAST)
GRIDS = Sampling(fps=10, grid_size=(1, 2, 3), super_img_size=66)
OVERLAPPING = Sampling(fps=10, grid_size=(1, 2), super_img_size=64, stride=1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory, small_videos) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("videos")
    write(folder, VP9)
    shutil.copy(small_videos / "a.mp4", folder)  # H.264: decoded by the workers
    return folder


def by_grid(chunks: list[SuperImages]) -> dict[int, list[np.ndarray]]:
    """Per grid size the pixels, starts, ends and frame bounds of a video's super images in order."""
    found: dict[int, list] = {}
    for chunk in sorted(chunks, key=lambda chunk: chunk.first):
        for size, part in chunk.by_grid():
            found.setdefault(size, []).append((part.on_cpu(), part.start_s, part.end_s))
    return {size: [np.concatenate(column) for column in zip(*parts, strict=True)] for size, parts in found.items()}


def assert_alike(found: list[SuperImages], video: VideoFile, sampling: Sampling, tolerance: float) -> None:
    """The chunks have what each grid size alone gives on the CPU, and all frames."""
    assert sum(len(chunk.images) for chunk in found) == found[0].total
    together = by_grid(found)
    assert sorted(together) == list(sampling.grid_sizes)
    for size in sampling.grid_sizes:
        alone = Sampling(
            fps=sampling.fps, grid_size=size, super_img_size=sampling.super_img_size, stride=sampling.stride_of(size)
        )
        made = [run for run in super_images.super_images(video, alone) if isinstance(run, SuperImages)]
        images, start_s, end_s = together[size]
        assert images.shape == (made[0].total, *made[0].images.shape[1:])
        expected = np.concatenate([run.on_cpu() for run in made])
        assert np.abs(images.astype(float) - expected).mean(axis=(1, 2, 3)).max() <= tolerance
        np.testing.assert_array_equal(start_s, np.concatenate([run.start_s for run in made]))
        np.testing.assert_array_equal(end_s, np.concatenate([run.end_s for run in made]))
        if not sampling.overlap:
            assert sum(run.frames for run in found) == sum(run.frames for run in made)


def test_dali_lays_one_decode_out_in_every_size(videos, monkeypatch):
    monkeypatch.setattr(segments, "SEGMENT_FRAMES", 18)
    video = VideoFile("vp9", videos / "vp9.webm")
    events = segments.read_compressed(
        video, skip=0, sampling=GRIDS, image_size=66, device="cpu", gauge=None, on_damage="nearest"
    )
    chunks = [event for event in events if isinstance(event, CompressedSegment)]
    assert len(chunks) > 1
    pipeline = VideoPipeline(GRIDS, 66, device_id=None, max_items=4, num_threads=1)
    images = pipeline.decode(chunks)
    assert_alike([chunk.with_images(made) for chunk, made in zip(chunks, images, strict=True)], video, GRIDS, 1.0)


@pytest.mark.parametrize("sampling", [GRIDS, OVERLAPPING], ids=["grids", "overlaps"])
def test_a_job_with_dali_gives_what_the_workers_give(videos, sampling):
    size = sampling.super_img_size
    files = [VideoFile(path.stem, path) for path in sorted(videos.iterdir())]
    found: dict[str, list[SuperImages]] = {}
    events = sources.decode_videos(
        iter(files), sampling, size, device_id=None, hybrid=False, num_workers=1, time_limit_s=60
    )
    for video, event in events:
        assert not isinstance(event, Failure)
        if isinstance(event, SuperImages):
            found.setdefault(video.video_id, []).append(event)
    for video in files:
        assert_alike(found[video.video_id], video, sampling, 1.0 if video.path.suffix == ".webm" else 0)


def test_the_self_test_knows_several_grids():
    pipeline = VideoPipeline(GRIDS, 66, device_id=None, max_items=1, num_threads=1)
    self_test.check_videos(pipeline, GRIDS, 66, "cpu")


@pytest.mark.parametrize("sampling", [GRIDS, OVERLAPPING, Sampling(fps=10, super_img_size=64)])
def test_a_decoder_that_takes_over_goes_on_at_the_chunk(videos, sampling):
    """What comes after `skip` super images is what came then without it."""
    video = VideoFile("a", videos / "a.mp4")
    whole = [run for run in super_images.super_images(video, sampling) if not isinstance(run, Notice)]
    assert len(whole) > 1
    for number, run in enumerate(whole):
        rest = [
            later
            for later in super_images.super_images(video, sampling, skip=run.first)
            if not isinstance(later, Notice)
        ]
        assert [later.first for later in rest] == [later.first for later in whole[number:]]
        for later, earlier in zip(rest, whole[number:], strict=True):
            assert np.array_equal(later.images, earlier.images) and np.array_equal(later.start_s, earlier.start_s)
