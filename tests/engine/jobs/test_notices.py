"""engine/jobs/notices.py and the way to it: from a work, through the job, into notices.jsonl and the summary line."""

import json
import pathlib

import coloured_videos
import fake_model
import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.contract import Failure, Finished, Notice, Restarted, SuperImages, VideoFile
from gridclip.dali_pipes.processes import pool
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs import ledger
from gridclip.engine.jobs.folder_writing import write_folders
from gridclip.engine.jobs.notices import NoticeLog, notices_path
from gridclip.engine.jobs.progress import Interrupted
from gridclip.engine.jobs.super_images import make_super_images
from gridclip.engine.listing.listing import Listing, list_videos

FINISHED = Finished()


def lines(folder: pathlib.Path, name: str = "notices.jsonl") -> list[tuple[str, str]]:
    if not (folder / name).exists():
        return []
    records = map(json.loads, (folder / name).read_text().splitlines())
    return [(record["video_id"], record["kind"]) for record in records]


def damage(video_id: str) -> Notice:
    return Notice(video_id, "damage", "1 of 4 frames was replaced by its neighbour")


def other_decoder(video_id: str) -> Notice:
    return Notice(video_id, "decoder", "decord made it")


def run_of(video_id: str, first: int = 0, total: int = 1) -> SuperImages:
    images = np.full((1, 64, 64, 3), 9, np.uint8)
    return SuperImages(video_id, first, total, images, np.zeros(1), np.ones(1))


def listing_of(*names: str, notices: tuple[Notice, ...] = ()) -> Listing:
    return Listing([VideoFile(name, pathlib.Path(name)) for name in names], [], list(notices))


def source_of(**events: list):
    """A source that yields these events of each video."""

    def source(videos):
        for video in videos:
            yield from ((video, event) for event in events[video.video_id])

    return source


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    return Encoder(fake_model.write(tmp_path_factory.mktemp("model")), provider="cpu", num_threads=1)


@pytest.fixture
def embed(encoder, tmp_path):
    """Runs an embedding job of a listing on tmp_path, from events."""

    def run(listing, *, overwrite=False, shards=None, **events):
        store, stored = ledger.open_store(tmp_path, encoder, listing.videos, resume=not overwrite, overwrite=overwrite)
        return ledger.embed(listing, source_of(**events), encoder, store, stored, batch_size=2, **(shards or {}))

    return run


def test_the_summary_counts_them_and_the_file_lists_them(embed, tmp_path):
    summary = embed(
        listing_of("a", "b", "c"),
        a=[damage("a"), run_of("a"), other_decoder("a"), FINISHED],
        b=[run_of("b"), FINISHED],
        c=[run_of("c"), damage("c"), damage("c"), FINISHED],
    )
    assert (summary.done, summary.failures, summary.noticed) == (3, 0, 2)
    assert f"2 with notices (2 damage, 1 decoder), see {tmp_path / 'notices.jsonl'}; none failed" in str(summary)
    assert lines(tmp_path) == [("a", "damage"), ("a", "decoder"), ("c", "damage")]  # each once
    record = json.loads((tmp_path / "notices.jsonl").read_text().splitlines()[0])
    assert record == {"video_id": "a", "kind": "damage", "detail": "1 of 4 frames was replaced by its neighbour"}


def test_what_is_lost_or_comes_again_takes_its_notices_along(embed, tmp_path):
    summary = embed(
        listing_of("again", "lost", "short"),
        again=[damage("again"), run_of("again"), Restarted(), other_decoder("again"), run_of("again"), FINISHED],
        lost=[damage("lost"), Failure("lost", "decode", "no")],
        short=[damage("short"), run_of("short", total=2), FINISHED],  # found to be lost only by the encoder's books
    )
    assert (summary.done, summary.failures, summary.notices) == (1, 2, {"decoder": 1})
    assert lines(tmp_path) == [("again", "decoder")]


def test_a_job_without_notices_leaves_no_file_and_says_nothing(embed, tmp_path):
    summary = embed(listing_of("a"), a=[run_of("a"), FINISHED])
    assert "notices" not in str(summary) and not (tmp_path / "notices.jsonl").exists()


def test_resume_keeps_the_notices_of_what_is_stored(embed, tmp_path):
    embed(listing_of("a", "b"), a=[damage("a"), run_of("a"), FINISHED], b=[Failure("b", "decode", "no")])
    with (tmp_path / "notices.jsonl").open("a") as file:
        file.write('{"video_id": "b", "kind": "decoder", "detail": "left by a killed run"}\n[]\nno line\n')
    summary = embed(listing_of("a", "b"), b=[other_decoder("b"), run_of("b"), FINISHED])
    assert (summary.finished_before, summary.noticed) == (1, 1)
    assert lines(tmp_path) == [("a", "damage"), ("b", "decoder")]
    embed(listing_of("a", "b"), overwrite=True, a=[run_of("a"), FINISHED], b=[run_of("b"), FINISHED])
    assert lines(tmp_path) == []


def test_ctrl_c_keeps_only_the_notices_of_what_is_stored(embed, tmp_path):
    def interrupted_later():
        yield damage("b")
        yield from (run_of("b", first, 20) for first in range(10))  # more than may be in flight: the first video is out
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as interrupted:
        a = [damage("a"), run_of("a", 0, 2), run_of("a", 1, 2), FINISHED]
        embed(listing_of("a", "b"), a=a, b=interrupted_later())
    assert (interrupted.value.summary.done, interrupted.value.summary.notices) == (1, {"damage": 1})
    assert lines(tmp_path) == [("a", "damage")]


def test_shards_have_files_of_their_own(embed, tmp_path):
    for shard_id, name in enumerate("ab"):
        shards = {"num_shards": 2, "shard_id": shard_id}
        embed(listing_of(name), shards=shards, **{name: [damage(name), run_of(name), FINISHED]})
    assert notices_path(tmp_path, 2, 1).name == "notices.1-of-2.jsonl"
    assert lines(tmp_path, "notices.0-of-2.jsonl") == [("a", "damage")]
    assert lines(tmp_path, "notices.1-of-2.jsonl") == [("b", "damage")]


def test_a_listing_has_notices_too(embed, tmp_path):
    notices = (Notice("a", "listing", "several files have this id"), Notice("b", "listing", "here, too"))
    listing = listing_of("a", "b", notices=notices)
    assert [len(listing.shard(3, shard).notices) for shard in range(3)] == [
        len(listing.shard(3, shard).videos) for shard in range(3)
    ]
    summary = embed(listing, a=[run_of("a"), FINISHED], b=[run_of("b"), FINISHED])
    assert summary.notices == {"listing": 2} and summary.failures == 0
    assert not embed(listing).noticed  # stored already, said already
    assert lines(tmp_path) == [("a", "listing"), ("b", "listing")]


def test_folders_pass_them_on(tmp_path):
    source = source_of(a=[damage("a"), run_of("a"), FINISHED])
    events = source([VideoFile("a", tmp_path)])
    found = list(write_folders(events, Sampling(super_img_size=64), tmp_path, tmp_path / ".parts", num_threads=1))
    assert [event for _, event in found] == [damage("a"), 1, FINISHED]


def test_folders_of_super_images_have_them_beside_them(tmp_path, monkeypatch):
    from gridclip.engine.jobs import super_images

    videos, save_dir = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    for name in ("noticed", "plain"):
        coloured_videos.write(videos / f"{name}.mp4", "red")

    def made(folder, *_, **options):
        for video in folder:
            yield video, damage(video.video_id)
            yield video, Restarted()
            if video.video_id == "noticed":
                yield video, other_decoder(video.video_id)
            yield video, 1
            yield video, FINISHED

    monkeypatch.setattr(super_images, "_save", made)
    summary = make_super_images(videos, save_dir, sampling=Sampling(super_img_size=64))
    assert summary.notices == {"decoder": 1} and lines(save_dir) == [("noticed", "decoder")]
    assert len(list_videos(videos).videos) == summary.done


def test_a_work_in_a_worker_process_yields_them(monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[2]))
    import fake_tasks

    found = list(
        pool.run([VideoFile("v", pathlib.Path("x"))], [fake_tasks.noticing], num_workers=1, size=lambda value: 1)
    )
    assert [event for _, event in found] == [0, damage("v"), 1, FINISHED]


def test_a_file_that_cannot_be_written_is_said(tmp_path):
    with pytest.raises(GridClipError, match=r"cannot write .*nowhere"):
        NoticeLog(tmp_path / "nowhere" / "notices.jsonl", keeps=lambda _: True).add(damage("a"))
