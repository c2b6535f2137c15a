"""The commands with --decoder dali and hybrid on real files: DALI's CPU variant in the place of a GPU."""

from __future__ import annotations

import json
import pathlib
import shutil

import numpy as np
import pytest
from click.testing import CliRunner, Result
from gridclip.cli import main
from gridclip.dali_pipes.contract import VideoFile
from gridclip.dali_pipes.image_folders import jpeg
from gridclip.engine.jobs import sources
from gridclip.engine.store.store import Store

FILES = ("crystal.webm", "echo.webm", "rabbit320.webm", "bbb480.mp4", "h265_video.mp4")


def gridclip(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


@pytest.fixture(scope="module")
def videos(shared_data: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Real files, and one that is cut off within its header."""
    folder = tmp_path_factory.mktemp("videos")
    for name in FILES:
        shutil.copy(shared_data / "videos" / name, folder / f"{name.replace('.', '_')}.{name.rsplit('.')[-1]}")
    (folder / "cut.webm").write_bytes((folder / "echo_webm.webm").read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def by_pyav(videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return embedded(videos, tiny_model_dir, tmp_path_factory.mktemp("pyav") / "store", "--decoder", "pyav")


def embedded(videos: pathlib.Path, model: pathlib.Path, store: pathlib.Path, *options: object) -> Store:
    done = gridclip("embed-videos", "--model", model, "--video-dir", videos, "--store", store, *options)
    assert "embedded 5 videos" in done.stdout and "1 failed" in done.stdout
    (line,) = (store / "failures.jsonl").read_text().splitlines()
    assert json.loads(line)["video_id"] == "cut"
    return Store.open(store)


@pytest.mark.parametrize("decoder", ["dali", "hybrid"])
def test_embed_videos_agrees_with_the_fallback(videos, tiny_model_dir, by_pyav, tmp_path, decoder):
    found = embedded(videos, tiny_model_dir, tmp_path, "--decoder", decoder, "--num-workers", 2).read_super_images()
    expected = by_pyav.read_super_images()
    assert found.video_ids == expected.video_ids and np.array_equal(found.offsets, expected.offsets)
    assert np.allclose(found.start_s, expected.start_s) and np.allclose(found.end_s, expected.end_s)
    cosines = (found.vectors.astype(float) * expected.vectors.astype(float)).sum(1)
    assert cosines.min() >= 0.995


def test_a_resumed_job_may_change_the_decoder(videos, tiny_model_dir, tmp_path):
    store = tmp_path / "store"
    only = tmp_path / "one"
    only.mkdir()
    shutil.copy(videos / "echo_webm.webm", only)
    gridclip("embed-videos", "--model", tiny_model_dir, "--video-dir", only, "--store", store, "--decoder", "pyav")
    done = gridclip(
        "embed-videos",
        "--model",
        tiny_model_dir,
        "--video-dir",
        videos,
        "--store",
        store,
        "--decoder",
        "dali",
        "--resume",
    )
    assert "embedded 4 videos" in done.stdout and "1 were finished before" in done.stdout


def test_super_images_by_dali_are_complete_folders(videos, tmp_path):
    options = ("superimages", "--video-dir", videos, "--fps", 2, "--super-img-size", 128)
    for decoder in ("dali", "hybrid", "pyav"):
        done = gridclip(*options, "--save-dir", tmp_path / decoder, "--decoder", decoder, "--num-workers", 2)
        assert "super images of 5 videos" in done.stdout and "1 failed" in done.stdout
        assert not list((tmp_path / decoder).glob(".*"))  # nothing half-made is left
    for folder in sorted(path for path in (tmp_path / "pyav").iterdir() if path.is_dir()):
        expected = jpeg.read_sidecar(folder)
        reference = _images(folder)
        for decoder in ("dali", "hybrid"):
            assert jpeg.read_sidecar(tmp_path / decoder / folder.name) == expected
            images = _images(tmp_path / decoder / folder.name)
            assert np.abs(images - reference).mean() < 3
    done = gridclip(*options, "--save-dir", tmp_path / "pyav", "--decoder", "dali", "--resume")
    assert "5 were finished before" in done.stdout


def test_embed_images_by_dali(videos, tiny_model_dir, tmp_path, monkeypatch):
    gridclip("superimages", "--video-dir", videos, "--save-dir", tmp_path / "jpegs", "--super-img-size", 128)
    model = ("--model", tiny_model_dir, "--image-dir", tmp_path / "jpegs", "--num-workers", 1)
    gridclip("embed-images", *model, "--store", tmp_path / "turbojpeg")
    by_dali = sources.sources.decode_images
    monkeypatch.setattr(
        sources,
        "image_source",
        lambda image_size, device_id, **options: (
            lambda folders: by_dali(folders, image_size, device_id=None, **options)
        ),
    )
    monkeypatch.setattr("gridclip.engine.jobs.embed_images.image_source", sources.image_source)
    gridclip("embed-images", *model, "--store", tmp_path / "dali")
    tables = [Store.open(tmp_path / name).read_super_images() for name in ("turbojpeg", "dali")]
    assert tables[0].video_ids == tables[1].video_ids and np.array_equal(tables[0].offsets, tables[1].offsets)
    assert (tables[0].vectors.astype(float) * tables[1].vectors.astype(float)).sum(1).min() >= 0.995


def test_more_gpus_than_there_are(videos, tiny_model_dir, tmp_path):
    result = CliRunner().invoke(
        main,
        [
            "embed-videos",
            "--model",
            str(tiny_model_dir),
            "--video-dir",
            str(videos),
            "--store",
            str(tmp_path),
            "--num-gpus",
            "2",
        ],
    )
    assert result.exit_code == 1
    assert "2 GPUs were asked for (--num-gpus)" in result.output


def _images(folder: pathlib.Path) -> np.ndarray:
    runs = jpeg.read(VideoFile(folder.name, folder), super_img_size=128)
    return np.concatenate([run.on_cpu() for run in runs]).astype(float)
