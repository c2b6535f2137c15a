"""engine/jobs/several_models.py: stores that one decode fills, against those of a job for each model alone."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import re
import signal
import string
import threading

import coloured_videos
import fake_model
import fake_tasks
import gridclip
import numpy as np
import pytest
from gridclip import ArgumentError, GridClipError, Sampling, Store
from gridclip.dali_pipes.contract import Finished, SuperImages
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs import dry_run, embed_videos, ledger, several_models, sources
from gridclip.engine.jobs.progress import Interrupted
from kills.states import compare, of_store

from .test_metrics import free_port, scrape

COLOURS = list(coloured_videos.COLOURS)[:5]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> pathlib.Path:
    """Five videos of one colour each, of 1 to 5 super images, and a file that is no video."""
    folder = tmp_path_factory.mktemp("videos")
    for number, colour in enumerate(COLOURS):
        coloured_videos.write(folder / f"{colour}.mp4", colour, duration_s=8 * number + 4)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Encoder]:
    """Fake models of 64 and of 32 pixels."""
    folder = tmp_path_factory.mktemp("models")
    other = fake_model.write(folder / "b", image_size=32, fingerprint="b" * 64, name="other")
    return [Encoder(fake_model.write(folder / "a"), provider="cpu"), Encoder(other, provider="cpu")]


def run(models, videos, stores, **options):
    return gridclip.embed_videos(models, videos, stores, **{"num_workers": 1, "batch_size": 2, **options})


def only(folder: pathlib.Path, names: list[str]) -> pathlib.Path:
    path = folder / f"{'-'.join(names)}.json"
    path.write_text(
        json.dumps({name: {"duration": 4.0, "timestamps": [[0, 1]], "sentences": ["it"]} for name in names})
    )
    return path


def failures(store: pathlib.Path) -> list[tuple[str, str]]:
    lines = (store / "failures.jsonl").read_text().splitlines()
    return [(record["video_id"], record["stage"]) for record in map(json.loads, lines)]


def rows(store: pathlib.Path) -> dict[str, np.ndarray]:
    """Every view's ids, times and vectors."""
    opened = Store.open(store)
    found = {}
    for view in opened.views():
        table = opened.read_super_images(view.level, view.grid_size)
        columns = {"offsets": table.offsets, "starts": table.start_s, "ends": table.end_s, "vectors": table.vectors}
        found |= {f"{view} {name}": column for name, column in columns.items()}
        found[f"{view} ids"] = np.array(table.video_ids)
    return found


def assert_same(store: pathlib.Path, alone: pathlib.Path) -> None:
    """The two hold the same rows, bit for bit, the same settings, failures and notices."""
    expected = rows(alone)
    found = rows(store)
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column, err_msg=name, strict=True)
    assert json.loads((store / "store.json").read_text()) == json.loads((alone / "store.json").read_text())
    assert sorted(failures(store)) == sorted(failures(alone))
    assert {path.name for path in store.glob("notices*")} == {path.name for path in alone.glob("notices*")}


@pytest.fixture(scope="module")
def real_models(tmp_path_factory, tiny_checkpoint) -> dict[str, Encoder]:
    """The demo's CLIP, the same for 70 pixels, and a random SigLIP of 32 pixels."""
    from gridclip.export.folder import export_model
    from gridclip.export.verify import CAPTIONS

    from ...export.siglip_checkpoints import TOKENIZERS, random_model, write_folder

    folder = tmp_path_factory.mktemp("models")
    tokenizer = TOKENIZERS["siglip"]([*CAPTIONS, string.ascii_letters, string.digits])
    siglip = write_folder(random_model(tokenizer.get_vocab_size()), tokenizer, folder / "siglip-checkpoint")
    export_model(str(tiny_checkpoint), folder / "clip", verify=False)
    export_model(str(tiny_checkpoint), folder / "clip70", image_size=70, verify=False)
    export_model(str(siglip), folder / "siglip", verify=False)
    return {name: Encoder(folder / name, provider="cpu", num_threads=1) for name in ("clip", "clip70", "siglip")}


@pytest.mark.parametrize(
    ("names", "options", "sampling"),
    [
        (["clip", "siglip"], {}, {}),
        (["siglip", "clip", "clip70"], {"num_workers": 2, "batch_size": 1}, {"grid_size": 3}),
        (["clip", "clip70"], {"cells": True}, {"grid_size": (1, 2)}),
        (["clip", "siglip"], {}, {"stride": 2, "grid_size": (1, 2)}),
        (["clip", "siglip"], {}, {"super_img_size": 100}),  # laid out once, resized for each
    ],
)
def test_stores_of_one_decode_are_those_of_two_jobs(real_models, small_videos, tmp_path, names, options, sampling):
    encoders = [real_models[name] for name in names]
    each = [Sampling(fps=1, **{"super_img_size": encoder.info.image_size, **sampling}) for encoder in encoders]
    together = [tmp_path / "together" / name for name in names]
    done = run(encoders, small_videos, together, sampling=each, **options)
    for encoder, own, store, summary in zip(encoders, each, together, done.stores, strict=True):
        alone = tmp_path / "alone" / store.name
        right = run(encoder, small_videos, alone, sampling=own, **options)
        assert_same(store, alone)
        assert (summary.done, summary.super_images) == (right.done, right.super_images) and right.done == 4
        assert Store.open(store).read_super_images().vectors.shape[1] == encoder.info.embed_dim


def assert_complete(stores, models, videos, folder: pathlib.Path, **options) -> None:
    """Every store has what a job for its model alone gives it, once, and the same failures."""
    for model, store in zip(models, stores, strict=True):
        alone = folder / "alone" / store.name
        run(model, videos, alone, batch_size=1, **options)
        assert compare(of_store(alone), of_store(store)).found() == {}


@pytest.fixture
def two(tmp_path) -> list[pathlib.Path]:
    """Paths for two stores."""
    return [tmp_path / "a", tmp_path / "b"]


@pytest.fixture
def appending_each(monkeypatch) -> None:
    """Every video is stored as soon as it is finished."""
    monkeypatch.setattr(ledger, "APPEND_VIDEOS", 1)
    monkeypatch.setattr(ledger, "APPEND_PAUSE_S", 0.0)


@pytest.fixture
def decoded(monkeypatch) -> list[tuple[str, list[int]]]:
    """What jobs decode: a video, and the sizes in which its super images came."""
    found: list[tuple[str, list[int]]] = []

    def events(source, given):
        for video, event in source(given):
            if isinstance(event, SuperImages) and event.first == 0:
                found.append((video.video_id, [images.shape[1] for images in (event.images, *event.other_images)]))
            yield video, event

    change_source(monkeypatch, events)
    return found


def change_source(monkeypatch, events) -> None:
    """Puts `events`, a function of a source and its videos, in place of the sources of jobs."""
    make = embed_videos.video_source

    def changed(*arguments, **options):
        return functools.partial(events, make(*arguments, **options))

    monkeypatch.setattr(embed_videos, "video_source", changed)


@pytest.mark.parametrize(
    ("in_a", "in_b"), [([], ["red"]), (COLOURS, ["green"]), (["red", "blue"], ["blue", "violet"]), (COLOURS, COLOURS)]
)
def test_each_store_gets_what_it_lacks(models, videos, tmp_path, two, decoded, in_a, in_b):
    """Whatever earlier runs have finished in each, a video is decoded once, and not at all if both have it."""
    for model, store, names in zip(models, two, (in_a, in_b), strict=True):
        if names:
            run(model, videos, store, anno_file=only(tmp_path, names), batch_size=1)
    with pytest.raises(GridClipError, match=r"already has .* `resume=True`"):
        run(models, videos, two)
    decoded.clear()
    whole = only(tmp_path, COLOURS)
    done = run(models, videos, two, resume=True, batch_size=1, anno_file=whole)
    assert sorted(name for name, _ in decoded) == sorted(set(COLOURS) - (set(in_a) & set(in_b)))
    sizes = [64, 32] if len(in_a) < len(COLOURS) else [32]
    assert all(found == sizes for _, found in decoded)
    for before, summary in zip((in_a, in_b), done.stores, strict=True):
        assert (summary.done, summary.finished_before, summary.failures) == (5 - len(before), len(before), 0)
    assert (done.done, done.finished_before) == (10 - len(in_a) - len(in_b), len(in_a) + len(in_b))
    assert done.succeeded and len(str(done).splitlines()) == 2 and str(done).startswith(f"{two[0]}: embedded")
    assert_complete(two, models, videos, tmp_path, anno_file=whole)


class Failing(Encoder):
    """A model that breaks in its second pass."""

    error: Exception = GridClipError("the graph is broken")

    def image_passes(self, batch_size, cells=None):
        passes = super().image_passes(batch_size, cells)
        run_one, runs = passes._run, []

        def break_at_the_second(images):
            runs.append(len(images))
            if len(runs) == 2:
                raise self.error
            return run_one(images)

        passes._run = break_at_the_second
        return passes


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "error", [GridClipError("the graph is broken"), MemoryError("6 GB"), RuntimeError("CUDA error")]
)
def test_a_model_that_breaks_leaves_the_other_store_as_it_is(
    models, videos, tmp_path, appending_each, caplog, error, first
):
    broken, good = Failing(models[0].model_dir, provider="cpu"), models[1]
    broken.error = error
    order = [broken, good] if first else [good, broken]
    stores = [tmp_path / ("broken" if model is broken else "good") for model in order]
    done = run(order, videos, stores, batch_size=1)
    lost, whole = done.stores if first else done.stores[::-1]
    assert str(error) in lost.stopped and f"stopped before its end: {lost.stopped}" in str(lost)
    assert lost.done == len(Store.open(tmp_path / "broken").finished_videos()) < 5
    assert (whole.done, whole.stopped) == (5, "") and not done.succeeded
    run(good, videos, tmp_path / "alone-good", batch_size=1)
    assert_same(tmp_path / "good", tmp_path / "alone-good")
    assert f"{tmp_path / 'broken'}: stopped" in caplog.text
    jobs = {name: gridclip.status(tmp_path / name).jobs[0] for name in ("broken", "good")}
    assert (jobs["broken"].state, jobs["good"].state) == ("stopped", "finished") and str(error) in jobs["broken"].error

    again = run([models[0], good], videos, [tmp_path / "broken", tmp_path / "good"], resume=True, batch_size=1)
    assert again.succeeded and [summary.done for summary in again.stores] == [5 - lost.done, 0]
    assert_complete([tmp_path / "broken"], [models[0]], videos, tmp_path)


def test_a_full_disk_stops_one_store_and_nothing_more_is_decoded_for_it(
    models, videos, tmp_path, two, monkeypatch, appending_each, decoded
):
    """The other store lacks the first videos only."""
    names = sorted(COLOURS)
    run(models[1], videos, two[1], anno_file=only(tmp_path, names[2:]))
    append = Store.append_videos

    def full(self, given):
        if self.path.name == "a" and given:
            raise GridClipError("no space left")
        append(self, given)

    monkeypatch.setattr(Store, "append_videos", full)
    decoded.clear()
    done = run(models, videos, two, resume=True, batch_size=1)
    assert [summary.stopped for summary in done.stores] == ["no space left", ""]
    assert Store.open(two[1]).finished_videos() == set(COLOURS)
    assert Store.open(two[0]).finished_videos() == set()
    assert set(names[:2]) <= {name for name, _ in decoded} < set(names)


def test_when_the_last_model_is_stopped_nothing_more_is_decoded(models, videos, two, decoded):
    broken = [Failing(model.model_dir, provider="cpu") for model in models]
    done = run(broken, videos, two, batch_size=1)
    assert [summary.stopped for summary in done.stores] == ["the graph is broken"] * 2 and not done.succeeded
    assert len(decoded) < 5


def test_a_model_that_does_not_start_is_alone_in_it(models, videos, two):
    class Large(Encoder):
        def image_passes(self, batch_size, cells=None):
            raise MemoryError("CUDA out of memory")

    done = run([models[0], Large(models[1].model_dir, provider="cpu")], videos, two)
    assert [summary.done for summary in done.stores] == [5, 0]
    assert done.stores[1].stopped == "MemoryError: CUDA out of memory"


def test_an_error_of_the_source_ends_the_job_and_keeps_what_is_finished(models, videos, two, monkeypatch):
    def giving_up(source, given):
        finished = 0
        for video, event in source(given):
            yield video, event
            finished += isinstance(event, Finished)
            if finished == 3:
                raise GridClipError("DALI has decoded nothing for 300 s")

    change_source(monkeypatch, giving_up)
    with pytest.raises(GridClipError, match="decoded nothing"):
        run(models, videos, two, batch_size=1)
    for store in two:
        assert 1 <= len(Store.open(store).finished_videos()) <= 3
        assert gridclip.status(store).jobs[0].error == "DALI has decoded nothing for 300 s"


def test_a_task_that_takes_over_goes_on_in_both_sizes(models, videos, tmp_path, two, monkeypatch):
    """The first task breaks after a chunk of 16 super images, twice; the next one leaves out what has come."""
    sampling = Sampling(fps=5, super_img_size=64)
    make = sources.tasks.embedding_tasks

    def with_a_bug(*arguments):
        tasks = make(*arguments)
        return [functools.partial(fake_tasks.bug_after_a_chunk, task=tasks[0]), *tasks]

    with monkeypatch.context() as context:
        context.setattr(sources.tasks, "embedding_tasks", with_a_bug)
        done = run(models, videos, two, sampling=sampling)
    for store, summary in zip(two, done.stores, strict=True):
        assert (summary.done, summary.notices) == (5, {"decoder": 3})  # the others have one chunk
        notices = [json.loads(line)["detail"] for line in (store / "notices.jsonl").read_text().splitlines()]
        assert any("from super image 33 on" in notice for notice in notices)
    assert_complete(two, models, videos, tmp_path, sampling=sampling)


def test_failures_are_tried_again_in_the_stores_that_have_them(models, videos, tmp_path, two):
    folder = tmp_path / "videos"
    folder.mkdir()
    for path in videos.iterdir():
        (folder / path.name).symlink_to(path)
    run(models[0], folder, two[0])
    (folder / "broken.mp4").unlink()
    run(models[1], folder, two[1])
    coloured_videos.write(folder / "broken.mp4", "red", duration_s=4)
    said = dry_run.of_embed_videos_into(folder, two, Sampling(), retry_failed="any").stores
    assert [said[store].todo for store in two] == [1, 0]
    done = run(models, folder, two, retry_failed="any")
    assert [(summary.done, summary.failures) for summary in done.stores] == [(1, 0), (0, 0)] and done.succeeded
    assert failures(two[0]) == [] and "broken" not in Store.open(two[1]).finished_videos()
    with pytest.raises(GridClipError, match="nothing to retry"):
        run(models, folder, two, retry_failed="any")


def test_a_dry_run_says_what_the_job_then_does_for_each_store(models, videos, tmp_path, two):
    run(models[1], videos, two[1], anno_file=only(tmp_path, ["red", "blue"]))
    said = dry_run.of_embed_videos_into(videos, two, Sampling())
    did = run(models, videos, two, resume=True)
    for store, summary in zip(two, did.stores, strict=True):
        foretold = said.stores[store]
        assert (foretold.todo, foretold.super_images) == (summary.done, summary.super_images)
        assert (foretold.finished, foretold.failures) == (summary.finished_before, summary.failures)
    assert [line.split(":")[0] for line in str(said).splitlines()] == list(map(str, two))


def test_shards_and_overwrite(models, videos, tmp_path, two):
    for shard_id in range(2):
        run(models, videos, two, num_shards=2, shard_id=shard_id)
        assert all((store / f"failures.{shard_id}-of-2.jsonl").exists() for store in two)
    assert all(Store.open(store).finished_videos() == set(COLOURS) for store in two)
    (tmp_path / "file").write_text("no store")
    with pytest.raises(GridClipError, match="expected a store directory"):
        run(models, videos, [two[0], tmp_path / "file"], overwrite=True)
    assert Store.open(two[0]).finished_videos() == set(COLOURS)  # not emptied for a job that does not begin
    assert run(models[::-1], videos, two, overwrite=True).done == 10
    new = tmp_path / "new"
    with pytest.raises(GridClipError, match="image_size = 32"):
        run(models[::-1], videos, [new, two[0]], resume=True)
    assert Store.open(new).model is None  # not claimed for a job that does not begin


def test_what_cannot_be_paired_is_refused_before_anything_is_made(models, videos, tmp_path, two):
    for stores, options, message in (
        (two[:1], {}, "`model` is given 2 times and `store` 1 times"),
        (two[:1] * 2, {}, f"`store` {two[0]} is given for several models"),
        ([two[0], tmp_path / "x" / ".." / "a"], {}, "is given for several models"),
        (two, {"num_gpus": 2}, "`num_gpus=2` is for one model"),
        (two, {"cluster": "auto", "num_workers": None}, "`cluster='auto'` takes one model"),
        (two, {"sampling": [Sampling()] * 3}, "`sampling` is given 3 times for 2 models"),
        (two, {"sampling": [Sampling(fps=1), Sampling(fps=2)]}, "only `super_img_size` may differ"),
    ):
        with pytest.raises(ArgumentError, match=re.escape(message)):
            run(models, videos, stores, **options)
    without = Encoder(models[1].model_dir, provider="cpu")
    without.info = dataclasses.replace(without.info, has_cells=False)
    with pytest.raises(ArgumentError, match="the model other cannot embed cells: leave out `cells`"):
        run([models[0], without], videos, two, cells=True)
    assert not any(store.exists() for store in two)


def test_metrics_tell_the_stores_apart(models, videos, tmp_path, two, monkeypatch):
    """The job is held where its last video is done, so that what it has done by then is known."""
    reached, go_on = threading.Event(), threading.Event()

    def holding(source, given):
        yield from source(given)
        reached.set()
        go_on.wait(60)

    run(models[0], videos, two[0], anno_file=only(tmp_path, ["red"]))
    change_source(monkeypatch, holding)
    port = free_port()
    options = {"resume": True, "metrics_port": port, "batch_size": 1}
    job = threading.Thread(target=run, args=(models, videos, two), kwargs=options)
    job.start()
    try:
        assert reached.wait(60)
        found = scrape(port)
    finally:
        go_on.set()
        job.join()
    for store, before in zip(two, (1, 0), strict=True):
        assert found[f"videos_failed_total/open/{store}"] == 1
        assert found[f"videos_finished_before/{store}"] == before
        assert found[f"videos_done_total/{store}"] + found[f"videos_left/{store}"] == 5 - before
        assert found[f"videos_waiting/{store}"] == 0
    assert found["worker_cpu_seconds_total"] > 0


def test_progress_lines_name_the_store(models, videos, two, monkeypatch, capsys):
    monkeypatch.setattr("gridclip.engine.jobs.progress.LINE_EVERY_S", 0.0)
    monkeypatch.setattr("gridclip.engine.jobs.progress.SHOW_EVERY_S", 0.0)
    run(models, videos, two)
    lines = capsys.readouterr().err.splitlines()
    for store in two:
        assert any(line.startswith(f"{store}: 6/6 videos") for line in lines)


def test_ctrl_c_stores_what_is_finished_in_both(models, videos, tmp_path, two, monkeypatch):
    take, finished = several_models._Lane.take, []

    def interrupting(self, video, event):
        take(self, video, event)
        finished.append(isinstance(event, Finished))
        if sum(finished) == 5:  # the third video has ended, but the second store was not told yet
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as context:
        context.setattr(several_models._Lane, "take", interrupting)
        with pytest.raises(Interrupted) as interrupted:
            run(models, videos, two, batch_size=1)
    summary = interrupted.value.summary
    stored = [Store.open(store).finished_videos() for store in two]
    assert [each.done for each in summary.stores] == [len(each) for each in stored]
    assert all(1 <= len(each) < 5 for each in stored)
    assert {gridclip.status(store).jobs[0].state for store in two} == {"interrupted"}
    assert run(models, videos, two, resume=True, batch_size=1).done == 10 - summary.done
    assert_complete(two, models, videos, tmp_path)
