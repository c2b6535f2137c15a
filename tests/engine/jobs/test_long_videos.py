"""engine/jobs with a video that several workers make: one append of the whole, or nothing of it."""

import functools

import fake_model
import fake_tasks
import numpy as np
import pytest
from gridclip.dali_pipes.contract import SuperImages
from gridclip.dali_pipes.processes import pool
from gridclip.dali_pipes.processes.stretches import Divisible
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs import embed_videos, sources
from gridclip.engine.jobs.progress import Interrupted
from gridclip.engine.store.store import Store

SAMPLING = Sampling(fps=4, super_img_size=64)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    return Encoder(fake_model.write(tmp_path_factory.mktemp("model")), provider="cpu", num_threads=1)


@pytest.fixture
def videos(shared_data, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("car-detection.mp4", "rabbit320.mp4"):
        (folder / name).symlink_to(shared_data / "videos" / name)
    return folder


@pytest.fixture
def shared_by_workers(monkeypatch):
    """A function: from now on jobs share videos however short they are, by this task of fake_tasks."""

    def share(task) -> None:
        settings = {"sampling": SAMPLING, "decoder": "pyav", "image_size": 64}
        divisible = Divisible("PyAV", functools.partial(task, **settings))
        monkeypatch.setattr(sources.tasks, "embedding_tasks", lambda *_: [divisible])

    return share


def embed(encoder, videos, store, **options):
    return embed_videos.embed_videos(
        encoder, videos, store, **{"sampling": SAMPLING, "decoder": "pyav", "num_workers": 3, **options}
    )


def rows(path):
    table = Store.open(path).read_super_images()
    spans = zip(table.video_ids, table.offsets, table.offsets[1:], strict=False)
    return {video: table.vectors[first:last] for video, first, last in spans}


def test_the_store_is_that_of_one_worker(encoder, videos, tmp_path, shared_by_workers):
    embed(encoder, videos, tmp_path / "whole", num_workers=1)
    shared_by_workers(fake_tasks.parts_of_decodes)
    summary = embed(encoder, videos, tmp_path / "shared")
    whole, shared = rows(tmp_path / "whole"), rows(tmp_path / "shared")
    assert summary.done == 2 and whole.keys() == shared.keys() == {"car-detection", "rabbit320"}
    assert all(np.array_equal(whole[video], shared[video]) for video in whole)


def test_a_poisonous_part_loses_its_video_alone_and_resume_makes_it(encoder, videos, tmp_path, shared_by_workers):
    shared_by_workers(fake_tasks.crashing_parts_of_car)
    summary = embed(encoder, videos, tmp_path / "store")
    assert (summary.done, summary.failures) == (1, 1)
    assert Store.open(tmp_path / "store").finished_videos() == {"rabbit320"}
    shared_by_workers(fake_tasks.parts_of_decodes)
    assert embed(encoder, videos, tmp_path / "store", resume=True).done == 1
    assert len(rows(tmp_path / "store")["car-detection"]) == 30


def test_ctrl_c_in_the_middle_of_a_shared_video_stores_nothing_of_it(
    encoder, videos, tmp_path, shared_by_workers, monkeypatch
):
    (videos / "rabbit320.mp4").unlink()
    shared_by_workers(fake_tasks.parts_of_decodes)
    run = pool.run

    def interrupted(*arguments, **options):
        for video, event in run(*arguments, **options):
            yield video, event
            if isinstance(event, SuperImages) and event.first > 0:  # of a part that is not the first
                raise KeyboardInterrupt

    monkeypatch.setattr(pool, "run", interrupted)
    with pytest.raises(Interrupted):
        embed(encoder, videos, tmp_path / "store")
    assert Store.open(tmp_path / "store").finished_videos() == set()
    monkeypatch.setattr(pool, "run", run)
    assert embed(encoder, videos, tmp_path / "store", resume=True).done == 1
