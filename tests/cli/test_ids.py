"""Ids through the commands: those with slashes, those that are no Unicode text, and the procedure's own commands."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result
from gridclip.cli import main
from gridclip.dali_pipes.ids import VIDEO_SUFFIXES
from gridclip.engine.store.store import Store

CODECS = {
    ".webm": "libvpx",
    ".mpg": "mpeg2video",
    ".mpeg": "mpeg2video",
    ".flv": "flv",
    ".wmv": "wmv2",
    ".ogv": "libvpx",
    ".3gp": "mpeg4",
}


def gridclip(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def failures(folder: pathlib.Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    return [(line["video_id"], line["stage"]) for line in lines]


def named(folder: pathlib.Path, name: bytes) -> pathlib.Path:
    return pathlib.Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, small_videos: pathlib.Path) -> pathlib.Path:
    """clip of January, clip of February, and a video above them that has their folder's name."""
    folder = tmp_path_factory.mktemp("nested")
    for source, name in (("a.mp4", "2024-01/clip.mp4"), ("c.mkv", "2024-02/clip.mkv"), ("b.mp4", "2024-01.mp4")):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(small_videos / source, folder / name)
    return folder


SIZES = {"2024-01": 1, "2024-01/clip": 1, "2024-02/clip": 2}


def super_images(store: pathlib.Path) -> dict[str, int]:
    table = Store.open(store).read_super_images("super")
    return dict(zip(table.video_ids, (table.offsets[1:] - table.offsets[:-1]).tolist(), strict=True))


def test_every_command_copes_with_slashes(
    videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    fused, folders, two, copy = (tmp_path / name for name in ("fused", "folders", "two", "copy"))
    gridclip("embed-videos", "--model", tiny_model_dir, "--video-dir", videos, "--store", fused, "--strict")
    for _ in range(2):  # the second time makes them again
        gridclip("superimages", "--video-dir", videos, "--save-dir", folders, "--overwrite", "--strict")
    resumed = gridclip("superimages", "--video-dir", videos, "--save-dir", folders, "--resume", "--strict")
    assert "3 were finished before" in resumed.stdout
    gridclip("embed-images", "--model", tiny_model_dir, "--image-dir", folders, "--store", two, "--strict")
    gridclip("export-features", "--store", fused, "--level", "super", "--out", tmp_path / "features")
    gridclip("import-features", "--image-dir", tmp_path / "features", "--store", copy, "--strict")
    assert [super_images(store) for store in (fused, two, copy)] == [SIZES] * 3
    found = gridclip("search", "--store", fused, "--model", tiny_model_dir, "a circle").stdout.splitlines()
    assert {line.split()[1] for line in found} == SIZES.keys()
    assert not [path for path in folders.rglob("*") if path.name.endswith(".part")]


def test_the_annotations_ids_decide(videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    annotations, store = tmp_path / "val.json", tmp_path / "store"
    annotations.write_text(
        json.dumps(
            {
                "2024-02/clip": {"sentences": ["a circle"]},
                "clip": {"sentences": ["a square"]},
                "2024-01": {"sentences": ["a star"]},
            }
        )
    )
    arguments = ["--model", tiny_model_dir, "--store", store]
    gridclip("embed-videos", *arguments, "--video-dir", videos, "--anno-file", annotations)
    assert super_images(store) == {"2024-01": 1, "2024-02/clip": 2}
    assert failures(store) == [("clip", "list")]  # which of the two?
    gridclip("embed-text", *arguments, "--anno-path", annotations)
    assert "1 queries dropped: 1 videos have no embeddings (clip)" in gridclip("evaluate", "--store", store).stdout


def test_ids_that_are_no_unicode_cost_themselves_only(
    small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    videos, folders = tmp_path / "videos", tmp_path / "folders"
    shutil.copytree(small_videos, videos)
    shutil.copy(small_videos / "a.mp4", named(videos, b"bad\xff.mp4"))
    store, images, features = tmp_path / "store", tmp_path / "images", tmp_path / "features"
    arguments = ["embed-videos", "--model", tiny_model_dir, "--video-dir", videos, "--store", store]
    for again in ([], ["--resume"]):
        gridclip(*arguments, *again)
        assert failures(store) == [(r"bad\xff", "list")]
    gridclip("superimages", "--video-dir", videos, "--save-dir", folders)
    assert failures(folders) == [(r"bad\xff", "list")]
    shutil.copytree(folders / "a", named(folders, b"bad\xff"))
    gridclip("embed-images", "--model", tiny_model_dir, "--image-dir", folders, "--store", images)
    assert failures(images) == [(r"bad\xff", "list")]
    gridclip("export-features", "--store", store, "--level", "super", "--out", features)
    shutil.copy(features / "a.npy", named(features, b"bad\xff.npy"))
    gridclip("import-features", "--image-dir", features, "--store", tmp_path / "copy")
    assert failures(tmp_path / "copy") == [(r"bad\xff", "read")]
    assert super_images(store) == super_images(images) == super_images(tmp_path / "copy")
    assert len(super_images(store)) == 4
    planned = gridclip("plan", "--video-dir", videos, "--exclude", r"bad\xff")
    assert "excluded          1" in planned.stdout and "failures          0" in planned.stdout
    assert r"bad\xff: list:" in gridclip("plan", "--video-dir", videos).stdout


def test_folders_that_are_no_unicode(small_videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    videos = named(tmp_path, b"videos\xff")
    videos.mkdir()
    shutil.copy(small_videos / "b.mp4", videos)
    (videos / "empty.mp4").touch()
    done = gridclip("superimages", "--video-dir", videos, "--save-dir", named(tmp_path, b"out\xff"))
    assert "1 failed" in done.stdout and r"out\udcff/failures.jsonl" in done.stdout
    refused = gridclip("import-features", "--image-dir", videos, "--store", named(tmp_path, b"s\xff"), status=1)
    assert refused.stderr.startswith("Error: --store cannot be used") and r"s\xff" in refused.stderr


def test_annotations_that_are_no_unicode_cost_themselves_only(
    small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    annotations, store = tmp_path / "val.json", tmp_path / "store"
    annotations.write_text(r'{"a": {"sentences": ["a circle", "half \ud83d"]}, "\ud800": {"sentences": ["a square"]}}')
    arguments = ["--model", tiny_model_dir, "--store", store]
    gridclip("embed-videos", *arguments, "--video-dir", small_videos, "--anno-file", annotations)
    assert failures(store) == [(r"\ud800", "list")] and super_images(store) == {"a": 1}
    printed = gridclip("embed-text", *arguments, "--anno-path", annotations).stdout
    assert "embedded 1 captions" in printed and "2 failed" in printed
    assert [stage for _, stage in failures(store)] == ["list", "caption", "caption"]
    assert "1 queries, 1 videos" in gridclip("evaluate", "--store", store, "--anno-path", annotations).stdout
    gridclip("plan", "--video-dir", small_videos, "--anno-file", annotations)


def test_the_procedures_own_commands(
    small_videos: pathlib.Path, tiny_checkpoint: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work" / "annos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    captions = {"a": {"sentences": ["a circle"]}, "c": {"sentences": [""]}}
    pathlib.Path("annos/val_1.json").write_text(json.dumps(captions))
    options = f"--anno_file ./annos/val_1.json --video_dir {small_videos} --num_workers 2 --grid_size 2"
    gridclip(*f"superimages --save_dir ../dataset/out336 {options} --super_img_size 336 --resume --fps 0.5".split())
    gridclip(*f"embed-text --model_path {tiny_checkpoint} --batch_size 128 --anno_path ./annos/val_1.json".split())
    rest = f"--batch_size 100 --num_gpus 1 --num_worker 2 --ckpt {tiny_checkpoint}"
    done = gridclip(*f"embed-images {rest}".split())
    assert "taking ../dataset/out336, as the last gridclip superimages in this folder" in done.stderr
    evaluated = gridclip("evaluate", "--json", "recall.json").stdout
    assert "1 queries, 2 videos, 12 cells at grid size 2" in evaluated
    reference = gridclip("evaluate", "--level", "super", "--json", "reference.json").stdout
    assert "1 queries, 2 videos, 3 super images at grid size 2" in reference
    found, alone = (json.loads(pathlib.Path(f"{name}.json").read_text()) for name in ("recall", "reference"))
    assert found["super_image_recall"] == alone["recall"] and "by the super images alone: R@1" in evaluated


def test_every_suffix_is_a_video_that_works(tmp_path: pathlib.Path, write_video: Callable[..., pathlib.Path]) -> None:
    (tmp_path / "videos").mkdir()
    for suffix in VIDEO_SUFFIXES:
        codec = CODECS.get(suffix, "libx264")
        options = None if codec == "libx264" else {"g": "10"}
        write_video(tmp_path / "videos" / f"v{suffix}", codec=codec, options=options, duration_s=3, fps=25)
    out = tmp_path / "out"
    gridclip("superimages", "--video-dir", tmp_path / "videos", "--save-dir", out, "--super-img-size", 56, "--strict")
    assert {folder.name for folder in out.iterdir() if folder.is_dir()} == {f"v{suffix}" for suffix in VIDEO_SUFFIXES}
