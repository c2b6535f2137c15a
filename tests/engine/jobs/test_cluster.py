"""engine/jobs/cluster.py on three nodes of a local Ray cluster: workers, a node and the driver die, nothing is lost."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import coloured_videos
import fake_model
import fake_saving
import fake_sources
import gridclip
import lance
import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs import cluster as cluster_jobs
from gridclip.engine.jobs import cluster_nodes, ledger
from gridclip.engine.jobs.status import read_status
from gridclip.engine.listing.listing import list_videos
from gridclip.engine.store.store import Store

try:
    import local_cluster
    import ray  # noqa: F401
except ModuleNotFoundError:
    local_cluster = None

pytestmark = [
    pytest.mark.may_skip,  # Ray, 70 MB, is an extra that nothing else needs
    pytest.mark.skipif(local_cluster is None, reason="Ray is not installed: it is the extra `ray`"),
]
SETTINGS = {"sampling": Sampling(super_img_size=64), "image_size": 64, "time_limit_s": 60}
TESTS = pathlib.Path(__file__).resolve().parents[2]
COPIES = 4  # of each video: enough of them that something can die in between


@pytest.fixture(scope="module")
def cluster():
    with local_cluster.three_nodes() as running:
        yield running


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    return Encoder(fake_model.write(tmp_path_factory.mktemp("model")), provider="cpu", num_threads=1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> pathlib.Path:
    """8 colours, 4 videos of each, and a file that is none: 33 in all."""
    folder = tmp_path_factory.mktemp("videos")
    for number, colour in enumerate(coloured_videos.COLOURS):
        file = coloured_videos.write(folder / f"{colour}0.mp4", colour, duration_s=2 * number + 4)
        for copy in range(1, COPIES):
            os.link(file, folder / f"{colour}{copy}.mp4")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def alone(encoder, videos, tmp_path_factory) -> pathlib.Path:
    """The store of the same job on this machine alone."""
    store = tmp_path_factory.mktemp("alone") / "store"
    summary = gridclip.embed_videos(encoder, videos, store, num_workers=1, num_gpus=0)
    assert (summary.done, summary.failures) == (32, 1)
    return store


def run(cluster, encoder, videos, store_path, **source):
    """The job with a source that misbehaves."""
    listing = list_videos(videos, None)
    make_careful = source.pop("make_careful", None)
    make = source.pop("make", None) or functools.partial(fake_sources.make_paced, **source, **SETTINGS)
    with cluster_nodes.connected(cluster.address) as ray:
        store, stored = ledger.open_store(store_path, encoder, listing.videos, resume=False, overwrite=False)
        store.claim_sampling({"grid_size": 2})
        return cluster_jobs.embed(
            listing,
            make,
            make_careful or make,
            encoder,
            store,
            stored,
            ray=ray,
            cpus_per_worker=1,
            use_gpus=True,
            batch_size=3,
        )


def rows(store: pathlib.Path):
    """Everything in a store, row by row; each video is there once."""
    table = Store.open(store).read_super_images()
    assert lance.dataset(str(store / "super_images.lance")).count_rows() == len(table.vectors)
    return table


def assert_equal(store: pathlib.Path, other: pathlib.Path) -> None:
    """Row for row, vectors bit for bit."""
    one, two = rows(store), rows(other)
    assert one.video_ids == two.video_ids
    for name in ("offsets", "start_s", "end_s"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(one.vectors.view(np.uint16), two.vectors.view(np.uint16))


def failures(store: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (store / "failures.jsonl").read_text().splitlines()]


def test_the_same_as_on_one_machine(cluster, tiny_model_dir, small_videos, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    for file in small_videos.iterdir():
        os.link(file, videos / file.name)
    (videos / "broken.mp4").write_bytes(b"no video")
    (videos / "cut.mp4").write_bytes((small_videos / "a.mp4").read_bytes()[:3000])
    options = {"num_gpus": 0, "cells": True, "sampling": Sampling(super_img_size=64, grid_size=(1, 2))}
    one = gridclip.embed_videos(tiny_model_dir, videos, tmp_path / "one", num_workers=2, **options)
    many = gridclip.embed_videos(tiny_model_dir, videos, tmp_path / "many", cluster=cluster.address, **options)
    assert len(Store.open(tmp_path / "one").views()) == 3
    for level, grid_size in ((view.level, view.grid_size) for view in Store.open(tmp_path / "one").views()):
        first = Store.open(tmp_path / "one").read_super_images(level, grid_size)
        second = Store.open(tmp_path / "many").read_super_images(level, grid_size)
        assert first.video_ids == second.video_ids
        np.testing.assert_array_equal(first.vectors.view(np.uint16), second.vectors.view(np.uint16))
        np.testing.assert_array_equal(first.start_s, second.start_s)
    for name in ("done", "super_images", "failures", "finished_before", "noticed", "notices"):
        assert getattr(one, name) == getattr(many, name), name
    assert sorted(map(str, failures(tmp_path / "one"))) == sorted(map(str, failures(tmp_path / "many")))
    for name, expected in (("done", many.done), ("super_images", many.super_images), ("in_work", 0), ("deaths", 0)):
        assert in_all(tmp_path / "many", name) == expected, name
    assert in_all(tmp_path / "many", "failed") <= many.failures  # the listing may have lost some already
    assert by_node(tmp_path / "one") == {}


def by_node(output: pathlib.Path) -> dict[str, dict[str, int]]:
    """What the job's last sign of life says of each node."""
    (job,) = read_status(output).jobs
    return {name: dataclasses.asdict(counts) for name, counts in job.counts.nodes.items()}


def in_all(output: pathlib.Path, name: str) -> int:
    return sum(counts[name] for counts in by_node(output).values())


def assert_same_files(folder: pathlib.Path, other: pathlib.Path) -> None:
    """All files of two folders of super images, to the byte; nothing unfinished is left."""
    one, two = (sorted(path.relative_to(root) for path in root.rglob("*.*")) for root in (folder, other))
    assert one == two and not (folder / ".jobs").exists()
    for path in one:
        if path.suffix == ".jpg":
            assert (folder / path).read_bytes() == (other / path).read_bytes(), path


def test_super_images_and_their_embeddings_are_the_same_as_on_one_machine(cluster, encoder, videos, tmp_path):
    sampling = Sampling(super_img_size=64, grid_size=(1, 2))
    one = gridclip.superimages(videos, tmp_path / "one", sampling=sampling, num_workers=2)
    many = gridclip.superimages(videos, tmp_path / "many", sampling=sampling, cluster=cluster.address)
    for name in ("done", "super_images", "failures", "finished_before"):
        assert getattr(one, name) == getattr(many, name), name
    assert (many.done, many.failures) == (32, 1)
    assert (in_all(tmp_path / "many", "done"), in_all(tmp_path / "many", "super_images")) == (32, many.super_images)
    assert_same_files(tmp_path / "many", tmp_path / "one")
    again = gridclip.superimages(videos, tmp_path / "many", sampling=sampling, cluster=cluster.address, resume=True)
    assert (again.done, again.finished_before, again.failures) == (0, 32, 1)

    images = tmp_path / "one" / "grid_2"
    one = gridclip.embed_images(encoder, images, tmp_path / "store-one", num_workers=2)
    many = gridclip.embed_images(encoder, images, tmp_path / "store-many", cluster=cluster.address)
    assert (one.done, one.super_images) == (many.done, many.super_images) and many.done == 32
    assert_equal(tmp_path / "store-many", tmp_path / "store-one")


def test_a_worker_that_is_killed_while_it_writes_super_images_costs_nothing(
    cluster, videos, tmp_path, monkeypatch, caplog
):
    sampling = Sampling(super_img_size=64)
    gridclip.superimages(videos, tmp_path / "one", sampling=sampling)
    monkeypatch.setattr("gridclip.engine.jobs.super_images._save", fake_saving.dying_once)
    done = gridclip.superimages(videos, tmp_path / "many", sampling=sampling, cluster=cluster.address)
    assert (done.done, done.failures) == (32, 1) and (tmp_path / "died").exists()
    assert "died with" in caplog.text
    assert_same_files(tmp_path / "many", tmp_path / "one")


def test_a_worker_that_is_killed_costs_nothing(cluster, encoder, videos, alone, tmp_path, caplog):
    summary = run(cluster, encoder, videos, tmp_path / "store", marks=tmp_path, dies_once_at="green1")
    assert (summary.done, summary.failures) == (32, 1)
    assert summary.super_images == len(rows(alone).vectors)
    assert_equal(tmp_path / "store", alone)
    assert "died with" in caplog.text
    assert (in_all(tmp_path / "store", "deaths"), in_all(tmp_path / "store", "done")) == (1, 32)


def test_a_video_that_kills_two_workers_is_lost_and_no_other(cluster, encoder, videos, alone, tmp_path, capfd):
    make = functools.partial(fake_sources.make_dying, marks=tmp_path, dies_at="green2", **SETTINGS)
    summary = run(cluster, encoder, videos, tmp_path / "store", make=make)
    assert (summary.done, summary.failures) == (31, 2)
    lost = {failure["video_id"]: failure for failure in failures(tmp_path / "store")}
    assert lost.keys() == {"broken", "green2"}
    assert in_all(tmp_path / "store", "failed") == 2 and in_all(tmp_path / "store", "deaths") >= 2
    assert lost["green2"]["reason"] == "a worker died twice while it alone was in work"
    assert len(list(tmp_path.glob("green2-*"))) in (2, 3)  # the first time it may have been alone
    assert set(rows(alone).video_ids) - set(rows(tmp_path / "store").video_ids) == {"green2"}
    assert capfd.readouterr().out == ""  # Ray's own words about the death


def test_a_node_that_dies_costs_nothing_and_one_that_joins_works(cluster, encoder, videos, alone, tmp_path, caplog):
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        job = thread.submit(run, cluster, encoder, videos, tmp_path / "store", marks=tmp_path, processes=4)
        while len(fake_sources.processes_of(tmp_path)) < 3 and not job.done():
            time.sleep(0.02)
        local_cluster.kill_node(cluster)
        local_cluster.add_node(cluster)
        summary = job.result()
    assert (summary.done, summary.failures) == (32, 1)
    assert_equal(tmp_path / "store", alone)
    assert "is gone with its node" in caplog.text
    assert len(fake_sources.processes_of(tmp_path)) == 4
    found = by_node(tmp_path / "store")
    assert len(found) == 4 and in_all(tmp_path / "store", "done") == 32
    assert [counts["deaths"] for counts in found.values() if not counts["workers"]] == [1], "of the node that died"


def command(cluster, encoder, videos, store, *options: str) -> subprocess.Popen:
    """The command, with appends of two videos."""
    arguments = ["--model", encoder.model_dir, "--video-dir", videos, "--store", store, "--num-gpus", "0"]
    return subprocess.Popen(
        [sys.executable, "-m", "kills.command", "embed-videos", *arguments, "--cluster", cluster.address, *options],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_videos(store: pathlib.Path, count: int, job: subprocess.Popen) -> None:
    while job.poll() is None:
        with contextlib.suppress(GridClipError):
            if len(Store.open(store).finished_videos()) >= count:
                return
        time.sleep(0.02)


def test_a_driver_that_is_killed_goes_on_with_resume(cluster, encoder, videos, alone, tmp_path):
    store = tmp_path / "store"
    job = command(cluster, encoder, videos, store)
    wait_for_videos(store, 2, job)
    job.kill()
    job.communicate(timeout=60)
    before = len(Store.open(store).finished_videos())
    assert 2 <= before < 32
    job = command(cluster, encoder, videos, store, "--resume")
    out, err = job.communicate(timeout=120)
    assert job.returncode == 0, err
    assert f"embedded {32 - before} videos" in out and "1 failed" in out and len(out.splitlines()) == 1
    assert_equal(store, alone)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_driver_stores_what_is_finished(cluster, encoder, videos, alone, tmp_path, sent):
    store = tmp_path / "store"
    job = command(cluster, encoder, videos, store)
    wait_for_videos(store, 2, job)
    job.send_signal(sent)
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130, err
    assert "Interrupted: embedded" in err and "Traceback" not in err
    table = rows(store)
    assert 2 <= len(table.video_ids) < 32 and set(table.video_ids) < set(rows(alone).video_ids)


def test_a_model_that_a_node_does_not_have_is_said_at_once(cluster, videos, tmp_path):
    encoder = Encoder(fake_model.write(tmp_path / "model"), provider="cpu")
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(
        GridClipError, match=r"the node 127\.0\.0\.1 has no model folder .*/model: expected at the same"
    ):
        gridclip.embed_videos(encoder, videos, tmp_path / "store", cluster=cluster.address)


def test_a_worker_that_no_node_has_room_for(cluster, encoder, videos, tmp_path):
    with pytest.raises(
        GridClipError, match=r"no node .* worker of 2 cores \(`cpus_per_worker`\): 127\.0\.0\.1 1 cores"
    ):
        gridclip.embed_videos(encoder, videos, tmp_path / "store", cluster=cluster.address, cpus_per_worker=2)
