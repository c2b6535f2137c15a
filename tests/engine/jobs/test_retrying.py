"""engine/jobs/retrying.py: a retry does only what failed, and the files then hold what still fails."""

import json
import pathlib
import shutil
from typing import get_args

import coloured_videos
import fake_model
import gridclip
import pytest
from gridclip import ArgumentError, GridClipError
from gridclip.dali_pipes.contract import Stage
from gridclip.engine import choices
from gridclip.engine.jobs import ledger, retrying
from gridclip.engine.jobs.failures import CAPTION_STAGE


@pytest.fixture
def videos(tmp_path) -> pathlib.Path:
    """red is fine, blue and green are no videos yet."""
    folder = tmp_path / "videos"
    folder.mkdir()
    coloured_videos.write(folder / "red.mp4", "red", duration_s=4)
    for name in ("blue", "green"):
        (folder / f"{name}.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return gridclip.load_model(fake_model.write(tmp_path_factory.mktemp("model")), num_gpus=0)


def mend(videos: pathlib.Path, name: str) -> None:
    coloured_videos.write(videos / f"{name}.mp4", name, duration_s=4)


def failed(folder: pathlib.Path) -> list[tuple[str, str, str]]:
    """(file, video, stage), of all files."""
    return [
        (path.name, record["video_id"], record["stage"])
        for path in sorted(folder.glob("failures*.jsonl"))
        for record in map(json.loads, path.read_text().splitlines())
    ]


def test_the_stages_are_those_of_the_contract():
    assert set(choices.RETRIED_STAGES) == {choices.ANY_STAGE, *get_args(Stage)} - {CAPTION_STAGE}


def test_only_what_failed_is_tried_and_the_file_holds_what_still_fails(videos, model, tmp_path):
    store = tmp_path / "s"
    gridclip.embed_videos(model, videos, store, num_workers=1)
    caption = {"video_id": "red", "stage": CAPTION_STAGE, "reason": "empty"}
    with (store / "failures.jsonl").open("a") as file:
        file.write(json.dumps(caption) + "\n")
    coloured_videos.write(videos / "yellow.mp4", "yellow", duration_s=4)  # new: not part of a retry
    mend(videos, "blue")
    summary = gridclip.embed_videos(model, videos, store, num_workers=1, retry_failed="any")
    assert (summary.done, summary.failures) == (1, 1)
    assert gridclip.Store.open(store).finished_videos() == {"red", "blue"}
    expected = [("failures.jsonl", "red", CAPTION_STAGE), ("failures.jsonl", "green", "open")]
    assert sorted(failed(store)) == sorted(expected)
    (videos / "green.mp4").unlink()
    gridclip.embed_videos(model, videos, store, num_workers=1, retry_failed="open")
    assert ("failures.jsonl", "green", "list") in failed(store) and len(failed(store)) == 2


def test_failures_of_other_stages_stay(videos, model, tmp_path):
    store = tmp_path / "s"
    gridclip.embed_videos(model, videos, store, num_workers=1)
    lines = (store / "failures.jsonl").read_text().replace('"open"', '"decode"', 1)
    (store / "failures.jsonl").write_text(lines)
    (at_decode,) = [video for _, video, stage in failed(store) if stage == "decode"]
    mend(videos, "blue"), mend(videos, "green")
    with pytest.raises(GridClipError, match=r"nothing to retry.*at stage encode"):
        gridclip.embed_videos(model, videos, store, num_workers=1, retry_failed="encode")
    assert gridclip.embed_videos(model, videos, store, num_workers=1, retry_failed="decode").done == 1
    assert gridclip.Store.open(store).finished_videos() == {"red", at_decode}
    assert [stage for _, _, stage in failed(store)] == ["open"]


def test_shards_failures_are_retried_by_one_job_and_by_shards(videos, model, tmp_path):
    for store in (tmp_path / "s", tmp_path / "t"):
        for shard_id in range(2):
            gridclip.embed_videos(model, videos, store, num_workers=1, num_shards=2, shard_id=shard_id)
    assert {video for _, video, _ in failed(tmp_path / "s")} == {"blue", "green"}
    mend(videos, "blue")
    assert gridclip.embed_videos(model, videos, tmp_path / "s", num_workers=1, retry_failed="any").done == 1
    assert failed(tmp_path / "s") == [("failures.jsonl", "green", "open")]
    again = [
        gridclip.embed_videos(
            model, videos, tmp_path / "t", num_workers=1, num_shards=2, shard_id=i, retry_failed="any"
        )
        for i in range(2)
    ]
    assert sum(summary.done for summary in again) == 1
    assert [(video, stage) for _, video, stage in failed(tmp_path / "t")] == [("green", "open")]


def test_a_killed_retry_leaves_all_that_it_was_to_try(videos, model, tmp_path, monkeypatch):
    store = tmp_path / "s"
    gridclip.embed_videos(model, videos, store, num_workers=1)
    before = sorted(failed(store))

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as context:
        context.setattr(ledger, "embed_all", killed)
        context.setattr(retrying, "_settle", lambda *_: None)  # a kill leaves no time for it
        with pytest.raises(Killed):
            gridclip.embed_videos(model, videos, store, num_workers=1, retry_failed="any")
    assert sorted(failed(store)) == before


def test_super_images_and_folders_of_them_are_retried_too(videos, model, tmp_path):
    out, store = tmp_path / "out", tmp_path / "s"
    gridclip.superimages(videos, out, num_workers=1)
    mend(videos, "blue")
    assert gridclip.superimages(videos, out, num_workers=1, retry_failed="any").done == 1
    assert failed(out) == [("failures.jsonl", "green", "open")]

    (out / "grey").mkdir()
    (out / "grey" / "img_0001.jpg").write_bytes(b"no picture")
    gridclip.embed_images(model, out, store, num_workers=1)
    assert failed(store) == [("failures.jsonl", "grey", "read")]
    shutil.rmtree(out / "grey")
    shutil.copytree(out / "red", out / "grey")
    assert gridclip.embed_images(model, out, store, num_workers=1, retry_failed="read").done == 1
    assert failed(store) == []


def test_wrong_use(videos, model, tmp_path):
    with pytest.raises(ArgumentError, match="exclude each other"):
        gridclip.embed_videos(model, videos, tmp_path / "s", retry_failed="any", overwrite=True)
    with pytest.raises(ArgumentError, match=r"nap.*must be one of any, list"):
        gridclip.embed_videos(model, videos, tmp_path / "s", retry_failed="nap")
    with pytest.raises(GridClipError, match="nothing to retry"):
        gridclip.embed_videos(model, videos, tmp_path / "s", retry_failed="any")
