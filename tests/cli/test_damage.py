"""--on-damage through the commands: a real damaged file in; its folder, store, notices and failures out."""

from __future__ import annotations

import json
import os
import pathlib

import pytest
from click.testing import CliRunner
from damaged_videos import copied
from generated_videos import STRUCTURES, write
from gridclip.cli import main
from gridclip.engine.store.store import Store

FPS = 4  # of 30: 12 wanted frames, packets 0, 7, 15, 22, ...


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Two intact videos, and one of which a wanted frame cannot be decoded."""
    folder = tmp_path_factory.mktemp("videos")
    (source,) = (
        write(tmp_path_factory.mktemp("intact"), recipe) for recipe in STRUCTURES if recipe.name == "mjpeg.avi"
    )
    for name in ("first", "third"):
        copied(source, folder / f"{name}.mkv")
    copied(source, folder / "second.mkv", emptied=(15,))
    return folder


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result.output


def lines(path: pathlib.Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_nearest_frame_stands_for_a_damaged_one(videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    arguments = ("--video-dir", videos, "--fps", FPS, "--num-workers", 1)
    printed = run("superimages", *arguments, "--save-dir", tmp_path)
    assert "1 with notices (1 damage)" in printed and "none failed" in printed
    (notice,) = lines(tmp_path / "notices.jsonl")
    assert (notice["video_id"], notice["kind"]) == ("second", "damage")
    assert notice["detail"].startswith("1 of 12 wanted frames cannot be decoded: the nearest")
    assert "at most 0.03 s away" in notice["detail"]
    assert sorted(os.listdir(tmp_path / "second")) == sorted(os.listdir(tmp_path / "first"))
    again = run("superimages", *arguments, "--save-dir", tmp_path, "--resume")
    assert "3 were finished before" in again and len(lines(tmp_path / "notices.jsonl")) == 1


def test_a_damaged_frame_is_a_failure_where_asked(videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    arguments = ("--video-dir", videos, "--fps", FPS, "--num-workers", 1, "--save-dir", tmp_path)
    printed = run("superimages", *arguments, "--on-damage", "fail")
    assert "1 failed" in printed
    (failure,) = lines(tmp_path / "failures.jsonl")
    assert (failure["video_id"], failure["stage"]) == ("second", "decode") and "0.50 s" in failure["reason"]
    assert not (tmp_path / "notices.jsonl").exists() and not (tmp_path / "second").exists()
    # One folder may be continued with the other choice: it changes no video that is there.
    printed = run("superimages", *arguments, "--resume")
    assert "2 were finished before" in printed and "none failed" in printed and lines(tmp_path / "notices.jsonl")


def test_embed_videos_notes_and_refuses_damage(
    videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    arguments = ("--model", tiny_model_dir, "--video-dir", videos, "--fps", FPS, "--num-workers", 1, "--num-gpus", 0)
    strict, lenient = tmp_path / "strict", tmp_path / "lenient"
    assert "1 failed" in run("embed-videos", *arguments, "--store", strict, "--on-damage", "fail")
    assert [failure["video_id"] for failure in lines(strict / "failures.jsonl")] == ["second"]
    assert "1 with notices (1 damage)" in run("embed-videos", *arguments, "--store", lenient)
    assert [notice["video_id"] for notice in lines(lenient / "notices.jsonl")] == ["second"]
    assert Store.open(strict).finished_videos() == {"first", "third"}
    assert Store.open(lenient).finished_videos() == {"first", "second", "third"}
