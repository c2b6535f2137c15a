"""engine/jobs: videos, JPEG folders and captions into a store, checked against embeddings known without decoding."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import coloured_videos
import fake_model
import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.cpu_passes import CpuPasses
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs import embed_images, embed_text, embed_videos, ledger, sources, super_images
from gridclip.engine.jobs.failures import FailureLog
from gridclip.engine.jobs.progress import Tally
from gridclip.engine.store.store import Store, VideoEmbedding

SAMPLING = Sampling(super_img_size=64)


@pytest.fixture(scope="module")
def counts(videos):
    """Super images per video."""
    return {colour: -(-(4 * number + 2) // 4) for number, colour in enumerate(coloured_videos.COLOURS)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, colour in enumerate(coloured_videos.COLOURS):
        coloured_videos.write(folder / f"{colour}.mp4", colour, duration_s=8 * number + 4)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    return Encoder(fake_model.write(tmp_path_factory.mktemp("model")), provider="cpu", num_threads=1)


def run(encoder, videos, store, **options):
    return embed_videos.embed_videos(encoder, videos, store, **{"sampling": SAMPLING, "num_workers": 1, **options})


def check(store: pathlib.Path, counts: dict[str, int]) -> None:
    """The store holds these videos, whole, with their colours."""
    table = Store.open(store).read_super_images()
    assert dict(zip(table.video_ids, np.diff(table.offsets).tolist(), strict=True)) == counts
    for video, first, last in zip(table.video_ids, table.offsets, table.offsets[1:], strict=False):
        expected = coloured_videos.direction(video)
        assert np.abs(table.vectors[first:last].astype(float) - expected).max() < 0.03, video


def failures(store) -> list[tuple[str, str]]:
    lines = (store / "failures.jsonl").read_text().splitlines()
    return [(record["video_id"], record["stage"]) for record in map(json.loads, lines)]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_every_super_image_gets_its_vector_and_times(encoder, videos, counts, tmp_path, batch_size):
    summary = run(encoder, videos, tmp_path, batch_size=batch_size, num_workers=2)
    assert (summary.done, summary.super_images, summary.failures) == (8, sum(counts.values()), 0)
    check(tmp_path, counts)
    table = Store.open(tmp_path).read_super_images()
    first = table.offsets[table.video_ids.index("grey")]
    count = counts["grey"]  # 44 s
    assert table.start_s[first : first + count] == pytest.approx(8 * np.arange(count), abs=0.3)
    assert table.end_s[first : first + count] == pytest.approx([*(8 * np.arange(1, count)), 44], abs=0.3)


def test_super_images_of_another_size_are_resized(encoder, videos, counts, tmp_path):
    run(encoder, videos, tmp_path, sampling=Sampling(super_img_size=96))
    check(tmp_path, counts)


def test_a_second_run_needs_a_choice_and_resume_goes_on(encoder, videos, counts, tmp_path):
    run(encoder, videos, tmp_path / "s", anno_file=annotations(tmp_path, ["red", "blue", "grey", "nowhere"]))
    assert failures(tmp_path / "s") == [("nowhere", "list")]
    with pytest.raises(GridClipError, match=r"3 of the 8 videos.*`resume=True`.*`overwrite=True`"):
        run(encoder, videos, tmp_path / "s")
    summary = run(encoder, videos, tmp_path / "s", resume=True)
    assert (summary.done, summary.finished_before) == (5, 3)
    assert failures(tmp_path / "s") == []
    check(tmp_path / "s", counts)
    again = run(encoder, videos, tmp_path / "s", resume=True)
    assert (again.done, again.finished_before) == (0, 8) and again.succeeded
    with pytest.raises(GridClipError, match=r"fps.*`overwrite=True`"):
        run(encoder, videos, tmp_path / "s", resume=True, sampling=Sampling(fps=1.0, super_img_size=64))
    with pytest.raises(GridClipError, match=r"max_shift_s = None.*2\.0"):
        run(encoder, videos, tmp_path / "s", resume=True, sampling=Sampling(super_img_size=64, max_shift_s=2.0))
    summary = run(encoder, videos, tmp_path / "s", overwrite=True, sampling=Sampling(fps=0.25, super_img_size=64))
    assert summary.done == 8 and summary.super_images < sum(counts.values())


def test_other_videos_join_a_store_without_a_choice(encoder, videos, tmp_path):
    run(encoder, videos, tmp_path / "s", anno_file=annotations(tmp_path, ["red"]))
    run(encoder, videos, tmp_path / "s", anno_file=annotations(tmp_path, ["blue"]))
    check(tmp_path / "s", {"red": 1, "blue": 3})


def test_another_model_is_refused_and_overwrites(encoder, videos, tmp_path):
    only_red = annotations(tmp_path, ["red"])
    run(encoder, videos, tmp_path / "s", anno_file=only_red)
    embed_text.embed_text(encoder, only_red, tmp_path / "s")
    other = Encoder(fake_model.write(tmp_path / "other", fingerprint="0" * 64), provider="cpu")
    with pytest.raises(GridClipError, match="fingerprint"):
        run(other, videos, tmp_path / "s", resume=True, anno_file=only_red)
    run(other, videos, tmp_path / "s", overwrite=True, anno_file=only_red)
    check(tmp_path / "s", {"red": 1})
    with pytest.raises(GridClipError, match="queries"):
        Store.open(tmp_path / "s").read_queries()


def test_shards_fill_one_store(encoder, videos, counts, tmp_path):
    for shard_id in range(3):
        run(encoder, videos, tmp_path, num_shards=3, shard_id=shard_id)
        assert (tmp_path / f"failures.{shard_id}-of-3.jsonl").exists()
    check(tmp_path, counts)
    with pytest.raises(ValueError, match="shard"):
        run(encoder, videos, tmp_path, num_shards=3, overwrite=True)


def test_a_video_that_breaks_off_leaves_nothing_of_it(encoder, videos, tmp_path, monkeypatch):
    import fake_tasks

    monkeypatch.setattr(sources.tasks, "embedding_tasks", lambda *_: [fake_tasks.half_of_red])
    summary = run(encoder, videos, tmp_path, batch_size=2)
    assert (summary.done, summary.failures) == (7, 1)
    assert failures(tmp_path) == [("red", "decode")]
    assert "red" not in Store.open(tmp_path).finished_videos()


def test_a_full_disk_keeps_what_was_stored(encoder, videos, tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "APPEND_VIDEOS", 2)
    monkeypatch.setattr(ledger, "APPEND_PAUSE_S", 0.0)
    append, calls = Store.append_videos, []

    def full_at_the_second(self, videos):
        calls.append([video.video_id for video in videos])
        if len(calls) == 2:
            raise GridClipError("no space left")
        append(self, videos)

    monkeypatch.setattr(Store, "append_videos", full_at_the_second)
    with pytest.raises(GridClipError, match="no space left"):
        run(encoder, videos, tmp_path)
    assert Store.open(tmp_path).finished_videos() == set(calls[0])
    assert run(encoder, videos, tmp_path, resume=True).done == 8 - len(calls[0])


def test_a_source_that_gives_up_leaves_what_is_finished(encoder, videos, tmp_path, monkeypatch):
    def give_up(*arguments, **options):
        yielded = 0
        for event in sources.pool.run(*arguments, **options):
            yield event
            yielded += type(event[1]).__name__ == "Finished"
            if yielded == 3:
                raise GridClipError("DALI has decoded nothing for 300 s")

    monkeypatch.setattr(
        sources,
        "cpu_video_source",
        lambda *_, **options: (
            lambda videos: give_up(
                videos,
                sources.tasks.embedding_tasks(SAMPLING, "auto", 64),
                num_workers=1,
                size=sources.tasks.count_super_images,
            )
        ),
    )
    with pytest.raises(GridClipError, match="decoded nothing"):
        run(encoder, videos, tmp_path, batch_size=1)
    assert len(Store.open(tmp_path).finished_videos()) >= 2


def test_errors_of_this_process_are_not_swallowed(encoder, videos, tmp_path, monkeypatch):
    def out_of_memory(self, images):
        raise MemoryError

    monkeypatch.setattr(CpuPasses, "_run", out_of_memory)
    with pytest.raises(MemoryError):
        run(encoder, videos, tmp_path)


def test_ctrl_c_stores_finished_videos_and_resume_does_the_rest(tmp_path):
    videos, store = tmp_path / "videos", tmp_path / "store"
    videos.mkdir()
    video = coloured_videos.write(videos / "v00.mp4", "red", duration_s=40)
    for number in range(1, 15):
        (videos / f"v{number:02d}.mp4").symlink_to(video)
    fake_model.write(tmp_path / "model")
    script = (
        "import pathlib, sys; model, videos, store = map(pathlib.Path, sys.argv[1:])\n"
        "from gridclip.dali_pipes.sampling import Sampling\n"
        "from gridclip.engine.encoding.encoder import Encoder\n"
        "from gridclip.engine.jobs import batches, embed_videos, progress\n"
        "add = batches.Batches.finish\n"
        "def finish(self, video_id): add(self, video_id); print('finished', flush=True)\n"
        "batches.Batches.finish = finish\n"
        "sampling = Sampling(fps=2.0, super_img_size=64)\n"
        "try: embed_videos.embed_videos(Encoder(model), videos, store, sampling=sampling)\n"
        "except progress.Interrupted as error: print(error.summary.done, flush=True)\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "model", videos, store]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
        for _ in range(3):
            assert job.stdout.readline() == "finished\n"
        interrupted = time.monotonic()
        job.send_signal(signal.SIGINT)
        done = int(job.stdout.read().split()[-1])
    assert time.monotonic() - interrupted < 8
    stored = Store.open(store).finished_videos()
    assert 2 <= len(stored) == done < 15

    encoder = Encoder(tmp_path / "model")
    summary = run(encoder, videos, store, resume=True, sampling=Sampling(fps=2.0, super_img_size=64))
    assert (summary.done, summary.finished_before) == (15 - done, done)
    table = Store.open(store).read_super_images()
    assert np.diff(table.offsets).tolist() == [20] * 15


def test_jpeg_folders(encoder, videos, counts, tmp_path):
    super_images.make_super_images(videos, tmp_path / "jpeg", sampling=Sampling(super_img_size=96), num_workers=2)
    (tmp_path / "jpeg" / "cyan" / "img_0001.jpg").write_bytes(b"broken")
    (tmp_path / "jpeg" / "blue" / "super_images.json").unlink()
    (tmp_path / "jpeg" / "empty").mkdir()
    summary = embed_images.embed_images(encoder, tmp_path / "jpeg", tmp_path / "s", num_workers=2, batch_size=4)
    assert (summary.done, summary.failures) == (7, 2)
    assert sorted(failures(tmp_path / "s")) == [("cyan", "read"), ("empty", "read")]
    check(tmp_path / "s", {colour: count for colour, count in counts.items() if colour != "cyan"})
    table = Store.open(tmp_path / "s").read_super_images()
    known = {video: not np.isnan(table.start_s[table.offsets[row]]) for row, video in enumerate(table.video_ids)}
    assert [video for video, times in known.items() if not times] == ["blue"]
    with pytest.raises(GridClipError, match="`resume=True`"):
        embed_images.embed_images(encoder, tmp_path / "jpeg", tmp_path / "s")
    with pytest.raises(GridClipError, match=r"source = 'super image folders'"):
        run(encoder, videos, tmp_path / "s", resume=True)


def test_jpeg_folders_of_different_settings_do_not_mix(encoder, videos, tmp_path):
    for fps, colour in ((0.5, "red"), (1.0, "green")):
        super_images.make_super_images(
            videos, tmp_path / "jpeg", sampling=Sampling(fps=fps), anno_file=annotations(tmp_path, [colour])
        )
    with pytest.raises(GridClipError, match=r"red was made with fps = 0\.5.*green with 1\.0"):
        embed_images.embed_images(encoder, tmp_path / "jpeg", tmp_path / "s")


def annotations(folder: pathlib.Path, videos: list[str], sentences: tuple = ("a dog", "cats run")) -> pathlib.Path:
    path = folder / f"{'-'.join(videos)}.json"
    times = [[0, 1]] * len(sentences)
    path.write_text(
        json.dumps({video: {"duration": 4.0, "timestamps": times, "sentences": list(sentences)} for video in videos})
    )
    return path


def test_captions(encoder, tmp_path):
    path = annotations(tmp_path, ["red", "blue"], ("a dog", "", "cats run", 7))
    summary = embed_text.embed_text(encoder, path, tmp_path / "s", batch_size=3)
    assert (summary.done, summary.failures) == (4, 4) and "4 captions" in str(summary)
    table = Store.open(tmp_path / "s").read_queries()
    assert [(query.video_id, query.text) for query in table.queries] == [
        ("red", "a dog"),
        ("red", "cats run"),
        ("blue", "a dog"),
        ("blue", "cats run"),
    ]
    for query, vector in zip(table.queries, table.vectors, strict=True):
        ids = [fake_model.LETTERS.index(letter) + 1 for letter in query.text if letter != " "]
        expected = fake_model.text_embedding([fake_model.START, *ids, fake_model.END])
        assert np.abs(vector.astype(float) - expected).max() < 0.01
    assert {stage for _, stage in failures(tmp_path / "s")} == {"caption"}
    embed_text.embed_text(encoder, path, tmp_path / "s", max_chars=3)  # replaces
    assert len(Store.open(tmp_path / "s").read_queries().queries) == 4


def test_videos_and_captions_keep_each_others_failures(encoder, videos, tmp_path):
    path = annotations(tmp_path, ["red", "missing"], ("a dog", ""))
    embed_text.embed_text(encoder, path, tmp_path / "s")
    run(encoder, videos, tmp_path / "s", anno_file=path)
    assert sorted(stage for _, stage in failures(tmp_path / "s")) == ["caption", "caption", "list"]
    embed_text.embed_text(encoder, annotations(tmp_path, ["red"]), tmp_path / "s")
    assert [stage for _, stage in failures(tmp_path / "s")] == ["list"]


@pytest.mark.parametrize(
    ("pause_s", "most_rows", "appends"), [(0.0, 10**9, [3, 3, 1]), (1e9, 5, [5, 2]), (1e9, 10**9, [7])]
)
def test_videos_wait_for_each_other_but_not_for_ever(tmp_path, monkeypatch, pause_s, most_rows, appends):
    """An append takes at least 3 videos, after a pause, or when too many rows wait."""
    monkeypatch.setattr(ledger, "APPEND_VIDEOS", 3)
    monkeypatch.setattr(ledger, "APPEND_PAUSE_S", pause_s)
    monkeypatch.setattr(ledger, "APPEND_ROWS", most_rows)
    found = []
    store = Store.open(tmp_path / "s", create=True)
    monkeypatch.setattr(store, "append_videos", lambda videos: found.append(len(videos)))
    with FailureLog(tmp_path / "f.jsonl") as failures, Tally("embedded", "videos", 7, failures) as tally:
        sink = ledger.StoreSink(store, tally)
        for number in range(7):
            sink.finish(VideoEmbedding(str(number), None, None, np.eye(1, 3)))
        sink.append()
    assert found == appends
