"""The whole path through the commands, on small generated videos and the demo's tiny CLIP."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from click.testing import CliRunner, Result
from gridclip.cli import main
from gridclip.dali_pipes.image_folders import jpeg
from gridclip.engine.store.store import Store

CAPTIONS = {
    "a": ["a red circle moves over a blue background", "two squares"],
    "b": ["a green triangle"],
    "c": ["the yellow square stands still", "a circle &amp; a star \U0001f600"],
    "d": ["something short"],
}
GRIDCLIP = pathlib.Path(sys.executable).with_name("gridclip")


def gridclip(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def failures(folder: pathlib.Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]


def vectors_by_video(store: pathlib.Path) -> dict[str, np.ndarray]:
    table = Store.open(store).read_super_images()
    pairs = zip(table.offsets[:-1], table.offsets[1:], strict=True)
    return {
        video_id: table.vectors[first:last].astype(np.float64)
        for video_id, (first, last) in zip(table.video_ids, pairs, strict=True)
    }


@pytest.fixture(scope="module")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("annotations") / "val.json"
    path.write_text(
        json.dumps(
            {
                video_id: {"duration": 9, "timestamps": [[0, 1]] * len(texts), "sentences": texts}
                for video_id, texts in CAPTIONS.items()
            }
        )
    )
    return path


@pytest.fixture(scope="module")
def image_size(tiny_model_dir: pathlib.Path) -> int:
    return json.loads((tiny_model_dir / "model.json").read_text())["image_size"]


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, small_videos: pathlib.Path, annotations: pathlib.Path, image_size: int
) -> pathlib.Path:
    """Super images of the small videos as JPEG folders."""
    save_dir = tmp_path_factory.mktemp("work") / "super-images"
    done = gridclip(
        "superimages",
        "--save_dir",
        save_dir,
        "--anno_file",
        annotations,
        "--video_dir",
        small_videos,
        "--num_workers",
        2,
        "--grid_size",
        2,
        "--super_img_size",
        image_size,
        "--resume",
        "--fps",
        0.5,
    )
    assert "4 videos (5 super images)" in done.stdout and "none failed" in done.stdout
    return save_dir


@pytest.fixture(scope="module")
def two_stages(
    tmp_path_factory: pytest.TempPathFactory,
    folders: pathlib.Path,
    annotations: pathlib.Path,
    tiny_model_dir: pathlib.Path,
) -> pathlib.Path:
    """A store filled by embed-images and embed-text."""
    store = tmp_path_factory.mktemp("two") / "store"
    gridclip("embed-images", "--ckpt", tiny_model_dir, "--image-dir", folders, "--store", store, "--num_worker", 1)
    gridclip("embed-text", "--model_path", tiny_model_dir, "--anno_path", annotations, "--store", store)
    return store


@pytest.fixture(scope="module")
def one_stage(
    tmp_path_factory: pytest.TempPathFactory,
    small_videos: pathlib.Path,
    annotations: pathlib.Path,
    tiny_model_dir: pathlib.Path,
) -> pathlib.Path:
    """A store filled by embed-videos and embed-text."""
    store = tmp_path_factory.mktemp("one") / "store"
    done = gridclip("embed-videos", "--model", tiny_model_dir, "--video-dir", small_videos, "--store", store)
    assert "embedded 4 videos (5 super images)" in done.stdout
    gridclip("embed-text", "--model", tiny_model_dir, "--anno-path", annotations, "--store", store)
    return store


def test_jpeg_folders(folders: pathlib.Path) -> None:
    made = [path for path in folders.iterdir() if path.is_dir()]
    assert {path.name: sorted(image.name for image in path.glob("*.jpg")) for path in made} == {
        "a": ["img_0001.jpg"],
        "b": ["img_0001.jpg"],
        "c": ["img_0001.jpg", "img_0002.jpg"],
        "d": ["img_0001.jpg"],
    }
    assert failures(folders) == []


def test_both_ways_agree(two_stages: pathlib.Path, one_stage: pathlib.Path) -> None:
    through_jpeg, fused = vectors_by_video(two_stages), vectors_by_video(one_stage)
    assert sorted(through_jpeg) == sorted(fused) == ["a", "b", "c", "d"]
    for video_id, vectors in fused.items():
        assert vectors.shape == through_jpeg[video_id].shape
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
        assert (vectors * through_jpeg[video_id]).sum(axis=1).min() > 0.98  # JPEG at quality 75 lies between
    tables = [Store.open(store).read_super_images() for store in (two_stages, one_stage)]
    np.testing.assert_allclose(tables[0].start_s, tables[1].start_s)
    np.testing.assert_allclose(tables[0].end_s, tables[1].end_s)


def test_recall_is_that_of_a_plain_loop(one_stage: pathlib.Path, tmp_path: pathlib.Path) -> None:
    temperature, file = 0.1, tmp_path / "e.json"
    gridclip("evaluate", "--store", one_stage, "--topk", "1,2", "--temperature", temperature, "--json", file)
    found = json.loads(file.read_text())
    videos, queries = vectors_by_video(one_stage), Store.open(one_stage).read_queries()
    ranks = []
    for query, text in zip(queries.queries, queries.vectors.astype(np.float64), strict=True):
        scores = {}
        for video_id, super_images in videos.items():
            weights = np.exp(super_images @ text / temperature)
            aggregate = weights @ super_images
            scores[video_id] = aggregate @ text / np.linalg.norm(aggregate)
        ranks.append(1 + sum(score > scores[query.video_id] for score in scores.values()))
    assert found["queries"] == len(ranks) == 6
    assert found["R@1"] == pytest.approx(100 * np.mean(np.array(ranks) <= 1))
    assert found["R@2"] == pytest.approx(100 * np.mean(np.array(ranks) <= 2))
    assert found["mean_rank"] == pytest.approx(np.mean(ranks))


def test_evaluate_prints_and_reports(
    two_stages: pathlib.Path, annotations: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    report = tmp_path / "r.html"
    printed = gridclip("evaluate", "--store", two_stages, "--anno-path", annotations, "--report", report).stdout
    assert re.search(r"R@1 +R@5 +R@10 +R@100 +SumR +median rank +mean rank", printed)
    assert "6 queries, 4 videos, 15 cells" in printed
    assert CAPTIONS["a"][0] in report.read_text()


def test_search_prints_videos_and_moments(one_stage: pathlib.Path, tiny_model_dir: pathlib.Path) -> None:
    printed = gridclip(
        "search", "--store", one_stage, "--model", tiny_model_dir, CAPTIONS["a"][0], "--top", 3
    ).stdout.splitlines()
    assert len(printed) == 3
    rows = [re.fullmatch(r" +(\d) +([abcd]) +(-?0\.\d{4}) +([\d.]+) to ([\d.]+) s", line) for line in printed]
    assert all(rows)
    scores = [float(row[3]) for row in rows if row]
    assert scores == sorted(scores, reverse=True)


def test_features_go_out_and_in(one_stage: pathlib.Path, tmp_path: pathlib.Path) -> None:
    gridclip("export-features", "--store", one_stage, "--out", tmp_path / "features")
    text_file = tmp_path / "features" / "queries.npz"
    printed = gridclip(
        "import-features", "--image-dir", tmp_path / "features", "--text-file", text_file, "--store", tmp_path / "store"
    ).stdout
    assert "imported 4 videos (15 super images), 6 queries" in printed
    for store in (one_stage, tmp_path / "store"):
        gridclip("evaluate", "--store", store, "--json", tmp_path / f"{store.parent.name}.json")
    first, second = (json.loads((tmp_path / f"{each.name}.json").read_text()) for each in (one_stage.parent, tmp_path))
    assert first["mean_rank"] == second["mean_rank"]


def test_resume_redoes_half_written_folders(
    folders: pathlib.Path, small_videos: pathlib.Path, image_size: int, tmp_path: pathlib.Path
) -> None:
    save_dir = tmp_path / "super-images"
    shutil.copytree(folders, save_dir)
    shutil.rmtree(save_dir / "a")
    (save_dir / "c" / "img_0002.jpg").unlink()
    kept = (save_dir / "b" / "img_0001.jpg").stat().st_mtime_ns
    arguments = ["--video-dir", small_videos, "--save-dir", save_dir, "--super-img-size", image_size]
    assert "--resume" in gridclip("superimages", *arguments, status=1).stderr
    resumed = gridclip("superimages", *arguments, "--resume")
    assert "2 videos (3 super images)" in resumed.stdout and "2 were finished before" in resumed.stdout
    assert (save_dir / "b" / "img_0001.jpg").stat().st_mtime_ns == kept
    assert jpeg.read_sidecar(save_dir / "c") is not None
    other = gridclip("superimages", *arguments, "--resume", "--grid-size", 3, status=1)
    assert "grid_size = 2, this run has 3" in other.stderr
    assert "4 videos (4 super images)" in gridclip("superimages", *arguments, "--overwrite", "--grid-size", 3).stdout


def test_resume_embeds_only_what_is_new(
    small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(small_videos / "a.mp4", videos)
    arguments = ["--model", tiny_model_dir, "--video-dir", videos, "--store", tmp_path / "store", "--num-workers", 1]
    gridclip("embed-videos", *arguments)
    shutil.copy(small_videos / "c.mkv", videos)
    refused = gridclip("embed-videos", *arguments, status=1)
    assert "already has 1 of the 2 videos" in refused.stderr and "--resume" in refused.stderr
    resumed = gridclip("embed-videos", *arguments, "--resume")
    assert "embedded 1 videos (2 super images)" in resumed.stdout
    assert {video: len(vectors) for video, vectors in vectors_by_video(tmp_path / "store").items()} == {"a": 4, "c": 8}
    mixed = gridclip("embed-videos", *arguments, "--resume", "--fps", 1, status=1)
    assert "0.5" in mixed.stderr and "1" in mixed.stderr
    assert "embedded 2 videos (3 super images)" in gridclip("embed-videos", *arguments, "--overwrite").stdout


def test_shards_share_a_store(small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    arguments = ["--model", tiny_model_dir, "--video-dir", small_videos, "--store", tmp_path / "store"]
    for shard_id in (0, 1):
        CliRunner().invoke(
            main,
            [
                "embed-videos",
                *map(str, arguments),
                "--num-workers",
                "1",
                "--num-shards",
                "2",
                "--shard-id",
                str(shard_id),
            ],
        )
    assert sorted(vectors_by_video(tmp_path / "store")) == ["a", "b", "c", "d"]


def test_a_checkpoint_is_exported_once(
    small_videos: pathlib.Path,
    tiny_checkpoint: pathlib.Path,
    tiny_model_dir: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRIDCLIP_CACHE", str(tmp_path / "cache"))
    checkpoint = tmp_path / "copy.pt"
    shutil.copy(tiny_checkpoint, checkpoint)
    shutil.copy(tiny_model_dir / "tokenizer.json", tmp_path / "copy.tokenizer.json")
    for number in range(2):
        store = tmp_path / f"store{number}"
        gridclip("embed-videos", "--model", checkpoint, "--video-dir", small_videos, "--store", store)
        Store.open(store).claim_model(json.loads((tiny_model_dir / "model.json").read_text()))
    assert len(list((tmp_path / "cache" / "models").iterdir())) == 1


def many_videos(small_videos: pathlib.Path, folder: pathlib.Path, count: int) -> pathlib.Path:
    folder.mkdir()
    for number in range(count):
        os.link(small_videos / "c.mkv", folder / f"v{number:03}.mkv")
    return folder


def interrupt(arguments: list[object], ready: Callable[[], bool]) -> subprocess.CompletedProcess[str]:
    """Starts a command, sends it Ctrl-C as soon as `ready`, and waits for its end."""
    process = subprocess.Popen(
        [GRIDCLIP, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not ready() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_ctrl_c_leaves_only_finished_folders(
    small_videos: pathlib.Path, image_size: int, tmp_path: pathlib.Path
) -> None:
    videos, save_dir = many_videos(small_videos, tmp_path / "videos", 100), tmp_path / "super-images"
    arguments: list[object] = [
        "superimages",
        "--video-dir",
        videos,
        "--save-dir",
        save_dir,
        "--super-img-size",
        image_size,
        "--num-workers",
        1,
    ]
    ended = interrupt(arguments, lambda: len(list(save_dir.glob("v*"))) >= 3)
    assert ended.returncode == 130, ended.stderr
    assert "Interrupted: made super images of" in ended.stderr and "--resume" in ended.stderr
    assert "Traceback" not in ended.stderr
    finished = [folder for folder in save_dir.iterdir() if folder.is_dir()]
    assert 3 <= len(finished) < 100
    assert all(jpeg.read_sidecar(folder) is not None for folder in finished)
    resumed = gridclip(*arguments, "--resume")
    assert f"{len(finished)} were finished before" in resumed.stdout
    assert len([folder for folder in save_dir.iterdir() if folder.is_dir()]) == 100


def test_ctrl_c_keeps_finished_videos_in_the_store(
    small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    videos, store = many_videos(small_videos, tmp_path / "videos", 100), tmp_path / "store"
    arguments: list[object] = [
        "embed-videos",
        "--model",
        tiny_model_dir,
        "--video-dir",
        videos,
        "--store",
        store,
        "--batch-size",
        1,
        "--num-workers",
        1,
    ]
    log = store / "failures.jsonl"  # made when the work begins
    ended = interrupt(arguments, lambda: log.exists() and time.time() > log.stat().st_mtime + 1)
    assert ended.returncode == 130, ended.stderr
    assert "Interrupted: embedded" in ended.stderr
    resumed = gridclip(*arguments, "--resume")
    assert "none failed" in resumed.stdout
    stored = vectors_by_video(store)
    assert len(stored) == 100
    assert {len(vectors) for vectors in stored.values()} == {8}
