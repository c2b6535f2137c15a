"""engine/jobs/devices.py: several processes, one queue, one store; on the CPU, where each "GPU" is one."""

import collections
import dataclasses
import functools
import json
import pathlib

import coloured_videos
import fake_model
import fake_sources
import fake_tasks
import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.cpu.decoders import DECODERS
from gridclip.dali_pipes.processes import child
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs import devices, ledger, sources
from gridclip.engine.jobs.super_images import make_super_images
from gridclip.engine.listing.listing import list_videos
from gridclip.engine.store.store import Store

SETTINGS = {"sampling": Sampling(super_img_size=64), "image_size": 64, "time_limit_s": 60}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    return Encoder(fake_model.write(tmp_path_factory.mktemp("model")), provider="cpu", num_threads=1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, colour in enumerate(coloured_videos.COLOURS):
        coloured_videos.write(folder / f"{colour}.mp4", colour, duration_s=8 * number + 4)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def run(encoder, videos, store_path, make_source, make_fallback=None, **options):
    listing = list_videos(videos, None)
    store, stored = ledger.open_store(store_path, encoder, listing.videos, resume=False, overwrite=False)
    make_fallback = make_fallback or functools.partial(sources.cpu_video_source, "auto", **SETTINGS)
    return devices.embed(
        listing,
        make_source,
        make_fallback,
        encoder,
        store,
        stored,
        **{"device_ids": [None, None], "num_workers": 2, "batch_size": 3, **options},
    )


def colours_in(store: pathlib.Path) -> set[str]:
    """The stored videos, each checked to have its colour in all its super images."""
    table = Store.open(store).read_super_images()
    counts = dict(zip(table.video_ids, np.diff(table.offsets).tolist(), strict=True))
    for video, first, last in zip(table.video_ids, table.offsets, table.offsets[1:], strict=False):
        assert np.abs(table.vectors[first:last].astype(float) - coloured_videos.direction(video)).max() < 0.03
        number = list(coloured_videos.COLOURS).index(video)
        assert counts[video] == -(-(4 * number + 2) // 4)
    return set(counts)


def test_two_processes_share_one_queue_and_one_store(encoder, videos, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    make = functools.partial(fake_sources.make_dying, marks=marks, dies_at="none", **SETTINGS)
    summary = run(encoder, videos, tmp_path / "store", make)
    assert (summary.done, summary.failures) == (8, 1)
    assert colours_in(tmp_path / "store") == set(coloured_videos.COLOURS)
    asked = [mark.name.rsplit("-", 1) for mark in marks.iterdir()]
    assert sorted(video for video, _ in asked) == sorted([*coloured_videos.COLOURS, "broken"])  # each by one process
    assert len({process for _, process in asked}) == 2


def test_a_process_that_dies_costs_nothing_when_the_cpu_can_decode(encoder, videos, tmp_path, caplog):
    make = functools.partial(fake_sources.make_dying, marks=tmp_path, dies_at="green", **SETTINGS)
    summary = run(encoder, videos, tmp_path / "store", make)
    assert (summary.done, summary.failures) == (8, 1)
    assert colours_in(tmp_path / "store") == set(coloured_videos.COLOURS)
    assert "was killed" in caplog.text


def test_a_video_that_kills_twice_is_lost_and_the_rest_is_not(encoder, videos, tmp_path):
    make = functools.partial(fake_sources.make_dying, marks=tmp_path, dies_at="green", **SETTINGS)
    summary = run(encoder, videos, tmp_path / "store", make, make)
    lost = collections.Counter((tmp_path / "store" / "failures.jsonl").read_text().splitlines())
    assert any('"green"' in line and "twice" in line for line in lost)
    stored = colours_in(tmp_path / "store")
    assert "green" not in stored and summary.done == len(stored) >= 5 and summary.done + summary.failures == 9


def test_a_process_that_cannot_start_ends_the_job(encoder, videos, tmp_path, monkeypatch):
    broken = Encoder(fake_model.write(tmp_path / "model"), provider="cpu")
    (tmp_path / "model" / "image.onnx").write_bytes(b"nonsense")
    make = functools.partial(sources.video_source, "pyav", **SETTINGS)
    with pytest.raises(GridClipError, match=r"image\.onnx cannot be loaded"):
        run(broken, videos, tmp_path / "store", make)


def test_processes_killed_while_they_start_are_started_again(encoder, videos, tmp_path, monkeypatch):
    deaths = fake_tasks.dying_starts(tmp_path / "mark", devices.MAX_IDLE_DEATHS - 1)
    monkeypatch.setattr(child, "START_CODE", deaths + child.START_CODE)
    make = functools.partial(sources.video_source, "pyav", **SETTINGS)
    summary = run(encoder, videos, tmp_path / "store", make, device_ids=[None])
    assert (summary.done, summary.failures) == (8, 1)
    assert colours_in(tmp_path / "store") == set(coloured_videos.COLOURS)


def test_a_process_that_is_killed_at_every_start_ends_the_job(encoder, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(child, "START_CODE", fake_tasks.dying_starts(tmp_path / "mark", 100) + child.START_CODE)
    make = functools.partial(sources.video_source, "pyav", **SETTINGS)
    with pytest.raises(GridClipError, match="the process of the CPU 0 was killed"):
        run(encoder, videos, tmp_path / "store", make, device_ids=[None])
    assert len((tmp_path / "mark").read_text()) == devices.MAX_IDLE_DEATHS


def test_notices_and_log_records_come_through_from_the_workers_of_a_device(encoder, videos, tmp_path, caplog):
    make = functools.partial(fake_sources.make_noticing, **SETTINGS)
    summary = run(encoder, videos, tmp_path / "store", make, device_ids=[None])
    assert summary.notices == {"decoder": 8} and summary.done == 8
    notices = [json.loads(line) for line in (tmp_path / "store" / "notices.jsonl").read_text().splitlines()]
    assert {notice["video_id"] for notice in notices} == set(coloured_videos.COLOURS)
    assert {notice["detail"] for notice in notices} == {"bug failed 2 times (KeyError: 'surprise'): made by PyAV"}
    texts = [record.getMessage() for record in caplog.records]
    assert {f"{colour}: from far away" for colour in coloured_videos.COLOURS} <= set(texts)


def test_decord_that_is_not_installed_is_said_before_anything_is_decoded(videos, tmp_path, monkeypatch):
    missing = dataclasses.replace(DECODERS["decord"], module="decord_that_is_not_installed")
    monkeypatch.setitem(DECODERS, "decord", missing)
    with pytest.raises(GridClipError, match="`decoder='decord'`: decord is not installed.*`decoder='pyav'`"):
        sources.video_source("decord", device_id=None, num_workers=1, **SETTINGS)
    with pytest.raises(GridClipError, match="`decoder='decord'`: decord is not installed"):
        make_super_images(videos, tmp_path, decoder="decord", sampling=SETTINGS["sampling"])
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == []
    tasks = sources.tasks.embedding_tasks(SETTINGS["sampling"], "auto", 64)
    assert [task.name for task in tasks] == ["PyAV"]  # no second choice that cannot work


def test_videos_stay_on_the_cpu_without_a_gpu():
    for decoder in ("auto", "pyav", "decord"):
        assert sources.video_source(decoder, device_id=None, num_workers=1, **SETTINGS).func.__name__ == "run"
    for decoder, device_id, hybrid in [("dali", None, 0), ("hybrid", 0, 1), ("auto", 0, 1), ("dali", 0, 0)]:
        source = sources.video_source(decoder, device_id=device_id, num_workers=1, **SETTINGS)
        assert source.func.__name__ == "decode_videos"
        assert (source.keywords["hybrid"], source.keywords["device_id"]) == (hybrid, device_id)


def test_dali_that_is_not_installed_is_said(monkeypatch, caplog):
    monkeypatch.setattr(sources.sources, "why_not", lambda: "DALI is not installed")
    with pytest.raises(GridClipError, match="`decoder='dali'`: DALI is not installed"):
        sources.video_source("dali", device_id=0, num_workers=1, **SETTINGS)
    assert sources.video_source("auto", device_id=0, num_workers=1, **SETTINGS).func.__name__ == "run"
    assert "decoded on the CPU: DALI is not installed" in caplog.text
