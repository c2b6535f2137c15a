"""engine/refinement/cache.py: what is kept, for whom, how much of it, and beside other writers."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
import shutil

import numpy as np
import pytest
from cached_frames import MADE_WITH, add, cache_of, frames
from gridclip.dali_pipes.contract import VideoFile
from gridclip.engine.refinement import cache as cache_module
from gridclip.engine.refinement.score import Frames


@pytest.fixture
def videos(tmp_path) -> list[VideoFile]:
    files = []
    for name in ("a", "sub/b", "c"):
        path = tmp_path / "videos" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        files.append(VideoFile(name, path))
    return files


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def same(found: Frames, expected: Frames) -> bool:
    fields = ("positions", "vectors", "spans", "wanted")
    return all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in fields)


def test_what_is_added_is_read_back_in_order(folder, videos):
    cache = cache_of(folder)
    assert cache.read(videos) == {}
    cache.add([(videos[0], frames(5, 3)), (videos[1], frames(0, 2))])
    cache.add([(videos[0], frames(1, 2))])
    found = cache_of(folder).read(videos)
    assert found.keys() == {"a", "sub/b"} and same(found["sub/b"], frames(0, 2))
    assert found["a"].positions.tolist() == [1, 2, 5, 6, 7]
    assert cache.read(videos[2:]) == {}


def test_other_models_samplings_and_files_have_their_own(folder, videos):
    cache_of(folder).add([(videos[0], frames(0, 3))])
    assert cache_of(folder, made_with={**MADE_WITH, "model": "other"}).read(videos) == {}
    os.utime(videos[0].path, ns=(1, 1))
    assert cache_of(folder).read(videos) == {}


def test_it_stays_within_its_bound_and_keeps_the_newest(folder, videos):
    cache = cache_of(folder, most_frames=20)
    for number in range(12):
        cache.add([(videos[0], frames(4 * number, 4))])
        kept = cache.read(videos)["a"].positions
        assert len(kept) <= 20 and set(range(4 * number, 4 * number + 4)) <= set(kept.tolist())
    cache.add([(videos[1], frames(0, 50))])
    assert sum(map(len, cache.read(videos).values())) <= 20
    nothing = cache_of(folder, most_frames=0)
    nothing.add([(videos[2], frames(0, 1))])
    assert nothing.read(videos) == {} and "c" not in cache.read(videos)


def test_small_files_are_joined(folder, videos, monkeypatch):
    monkeypatch.setattr(cache_module, "MOST_FRAGMENTS", 3)
    cache = cache_of(folder)
    for number in range(8):
        cache.add([(videos[0], frames(2 * number, 2))])
    assert cache.read(videos)["a"].positions.tolist() == list(range(16))
    assert len(cache._tables.dataset("refined").get_fragments()) <= 5


def test_a_damaged_table_is_made_anew(folder, videos, caplog):
    cache = cache_of(folder)
    cache.add([(videos[0], frames(0, 3))])
    shutil.rmtree(folder / "refined.lance" / "data")
    assert cache.read(videos) == {} and "they are made again" in caplog.text
    shutil.rmtree(folder / "refined.lance")
    cache.add([(videos[0], frames(0, 3, width=4))])
    cache.add([(videos[0], frames(7, 3, width=8))])  # of another width
    assert same(cache.read(videos)["a"], frames(7, 3, width=8))


def test_several_processes_may_write_at_once(folder, videos):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=add, args=(folder, videos[0], first)) for first in (0, 100, 100)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert cache_of(folder).read(videos)["a"].positions.tolist() == [*range(10), *range(100, 110)]
