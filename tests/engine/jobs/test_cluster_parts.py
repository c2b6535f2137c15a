"""What a Ray cluster needs and needs no Ray: places for workers, what a node lacks, results that wait."""

import dataclasses
import pathlib
import threading

import fake_model
import gridclip
import numpy as np
import pytest
from gridclip import ArgumentError, GridClipError
from gridclip.dali_pipes.contract import Failure, Finished, Notice, VideoFile
from gridclip.dali_pipes.processes.child_logs import Levels
from gridclip.engine.jobs import cluster_nodes, cluster_worker, device_messages, folder_messages
from gridclip.engine.jobs.cluster_nodes import Node, Share, shares
from gridclip.engine.jobs.cluster_work import Embedding, Saving
from gridclip.engine.store.store import VideoEmbedding


@pytest.mark.parametrize(
    ("cores", "gpus", "on_gpus", "each", "expected"),
    [
        (16, 0, False, None, [Share(16, 16, 0)]),
        (16, 0, False, 6, [Share(6, 6, 0)] * 2),
        (4, 0, False, 6, []),
        (0, 0, False, None, []),  # a head node that is to do nothing
        (64, 8, True, None, [Share(8, 8, 1)] * 8),
        (64, 8, True, 16, [Share(16, 16, 1)] * 4),
        (0, 2, True, None, [Share(1, 0, 1)] * 2),
        (64, 0, True, None, []),  # other nodes have GPUs, whose vectors differ in the last bits
        (64, 8, False, 64, [Share(64, 64, 0)]),
    ],
)
def test_a_node_is_shared_out(cores, gpus, on_gpus, each, expected):
    assert shares(Node("id", "name", cores, gpus), on_gpus=on_gpus, cores=each) == expected


@pytest.fixture
def order(tmp_path) -> cluster_worker.Order:
    model = fake_model.write(tmp_path / "model")
    embedding = Embedding(
        model_dir=model,
        provider="auto",
        cuda_graph=False,
        fingerprint="f" * 64,
        batch_size=None,
        passes=(None,),
        make_source=None,
        make_careful_source=None,
    )
    return cluster_worker.Order(gridclip.__version__, embedding, model / "model.json", Levels(30, 30))


def test_a_node_that_has_everything_is_fit(order):
    assert cluster_worker.unfitness(order) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "0.0"}, f"has GridCLIP {gridclip.__version__}, the driver 0.0: install the same version"),
        ({"model_dir": pathlib.Path("/nowhere")}, "has no model folder /nowhere: expected at the same path"),
        ({"fingerprint": "a" * 64}, "has another model in "),
        ({"present": pathlib.Path("/v/a.mp4")}, "does not see the video /v/a.mp4: expected at the same path"),
    ],
)
def test_what_a_node_lacks_is_said(order, change, said):
    of_the_model = change.keys() & {"model_dir", "fingerprint"}
    changed = {"work": dataclasses.replace(order.work, **change)} if of_the_model else change
    assert said in cluster_worker.unfitness(dataclasses.replace(order, **changed))


def test_a_node_that_does_not_see_the_folder_for_super_images(order, tmp_path):
    saving = Saving(tmp_path, None, None)
    assert cluster_worker.unfitness(dataclasses.replace(order, work=saving)) is None
    elsewhere = dataclasses.replace(order, work=dataclasses.replace(saving, part_dir=tmp_path / "nowhere"))
    assert "nowhere: expected at the same path on every node" in cluster_worker.unfitness(elsewhere)


def test_super_images_are_counted_as_folders_grow_and_taken_back_when_they_are_lost():
    a, b, c, d = (VideoFile(name, pathlib.Path(name)) for name in "abcd")
    told = []
    sink = device_messages.MessageSink(told.append)
    events = [(a, 3), (b, 2), (a, 5), (b, 1), (c, 4), (d, 7), (a, Finished()), (c, Failure("c", "decode", "cut"))]
    folder_messages.tell((event for event in events), sink)
    grown = [message.super_images for message in told if isinstance(message, device_messages.Embedded)]
    assert sum(grown) == 5  # those of the folder that is whole
    assert folder_messages.MadeFolder("a", 5) in told and Failure("c", "decode", "cut") in told


def test_embeddings_wait_for_the_driver_and_words_do_not():
    results = cluster_worker._Results()
    embedding = VideoEmbedding("a", None, None, np.ones((1, 3), np.float32))
    for _ in range(cluster_worker.MAX_WAITING):
        results.add(embedding)
    thread = threading.Thread(target=results.add, args=(embedding,), daemon=True)
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    results.add(Notice("a", "rate", "it varies"))
    assert len(results.take()) == cluster_worker.MAX_WAITING + 1
    thread.join(10)
    assert results.take() == [embedding]


@pytest.mark.may_skip  # Ray is an extra
def test_an_address_where_nobody_listens():
    pytest.importorskip("ray")
    with (
        pytest.raises(GridClipError, match=r"`cluster='127\.0\.0\.1:1'`: no Ray cluster answers there .*refused"),
        cluster_nodes.connected("127.0.0.1:1"),
    ):
        pass


def test_ray_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with (
        pytest.raises(GridClipError, match=r"needs Ray, which is not installed: it is part of the extra `ray`"),
        cluster_nodes.connected("auto"),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpus_per_worker": 2}, "`cpus_per_worker=2` is of a cluster's workers: give `cluster`, too"),
        ({"cluster": "auto", "num_workers": 3}, "`num_workers=3` is of one machine"),
        ({"cluster": "auto", "num_gpus": 2}, "`num_gpus=2` is of one machine"),
    ],
)
def test_options_of_one_machine_and_of_a_cluster(options, said):
    with pytest.raises(ArgumentError, match=said):
        gridclip.embed_videos("model", "videos", "store", **options)
