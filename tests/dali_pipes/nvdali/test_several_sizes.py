"""Super images in several sizes from one decode, by DALI's CPU variant and by workers, against each size alone."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
from generated_videos import Recipe, write
from gridclip import GridClipError
from gridclip.dali_pipes.contract import Finished, SuperImages, VideoFile
from gridclip.dali_pipes.layout import SuperImageSize
from gridclip.dali_pipes.nvdali import self_test, sources
from gridclip.dali_pipes.nvdali.video_pipeline import VideoPipeline
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.jobs.sources import cpu_video_source

VP9 = Recipe(
    "vp9.webm",
    codec="libvpx-vp9",
    frames=150,
    gop=15,
    size=(160, 120),
    options=(("deadline", "realtime"), ("cpu-used", "8")),
)
SAMPLING = Sampling(fps=10, grid_size=(1, 2), super_img_size=64)
# Laid out in its own size; the same, then resized; larger than the first one.
SIZES = (SuperImageSize(64, 64), SuperImageSize(32, 32), SuperImageSize(64, 48), SuperImageSize(100, 90))


@pytest.fixture(scope="module")
def videos(tmp_path_factory, small_videos) -> list[VideoFile]:
    folder = tmp_path_factory.mktemp("videos")
    write(folder, VP9)
    shutil.copy(small_videos / "a.mp4", folder)  # H.264: decoded by the workers, whoever decodes the other
    return [VideoFile(path.stem, path) for path in sorted(folder.iterdir())]


def by_video(source, videos) -> dict[str, list[SuperImages]]:
    """Each video's chunks in order; every video is finished."""
    found: dict[str, list[SuperImages]] = {}
    finished = []
    for video, event in source(iter(videos)):
        if isinstance(event, SuperImages):
            found.setdefault(video.video_id, []).append(event)
        else:
            assert isinstance(event, Finished)
            finished.append(video.video_id)
    assert sorted(finished) == sorted(found) == [video.video_id for video in videos]
    return {video_id: sorted(chunks, key=lambda chunk: chunk.first) for video_id, chunks in found.items()}


def make(name: str, first: SuperImageSize, more: tuple[SuperImageSize, ...] = ()):
    sampling = dataclasses.replace(SAMPLING, super_img_size=first.laid_out_px)
    settings = {"num_workers": 1, "time_limit_s": 60.0, "more_sizes": more}
    if name == "workers":
        return cpu_video_source("auto", sampling, first.image_size, **settings)
    settings |= {"device_id": None, "hybrid": False}
    return lambda videos: sources.decode_videos(videos, sampling, first.image_size, **settings)


@pytest.mark.parametrize("name", ["workers", "dali"])
def test_each_size_is_what_it_is_alone(videos, name):
    together = by_video(make(name, SIZES[0], SIZES[1:]), videos)
    for number, size in enumerate(SIZES):
        alone = by_video(make(name, size), videos)
        for video_id, chunks in together.items():
            assert len(chunks) == len(alone[video_id])
            for chunk, right in zip(chunks, alone[video_id], strict=True):
                found = chunk.in_size(number)
                assert found.images.shape[1:3] == (size.image_size, size.image_size) and not found.other_images
                np.testing.assert_array_equal(found.on_cpu(), right.on_cpu())
                np.testing.assert_array_equal(found.start_s, right.start_s)
                assert (found.first, found.total, found.parts) == (right.first, right.total, right.parts)


def test_parts_of_a_chunk_keep_their_rows_in_every_size(videos):
    (chunk, *_) = by_video(make("workers", SIZES[0], SIZES[1:]), videos)["vp9"]
    assert len(chunk.parts) == 2
    for number in range(len(SIZES)):
        for (size, part), (same_size, own) in zip(chunk.by_grid(), chunk.in_size(number).by_grid(), strict=True):
            assert size == same_size
            np.testing.assert_array_equal(part.in_size(number).on_cpu(), own.on_cpu())


def test_the_self_test_looks_at_every_size():
    more = SIZES[1:2]
    pipeline = VideoPipeline(SAMPLING, 64, device_id=None, max_items=1, num_threads=1, more_sizes=more)
    self_test.check_videos(pipeline, SAMPLING, 64, "cpu", more)

    class Garbled:
        def decode(self, batch):
            first, second = pipeline.decode(batch)
            return [first, 255 - second]

    with pytest.raises(GridClipError, match="to other pixels than the CPU"):
        self_test.check_videos(Garbled(), SAMPLING, 64, "cpu", more)
