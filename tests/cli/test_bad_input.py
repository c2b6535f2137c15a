"""Bad input through the commands: a clear error, each failed video once in failures.jsonl, and the rest goes on."""

from __future__ import annotations

import collections
import json
import pathlib
import shutil
from collections.abc import Callable

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from gridclip.cli import main
from gridclip.engine.store.store import Store


def gridclip(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def failures(folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    """Stage and reason by video, each of which may be there once."""
    lines = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    counts = collections.Counter(line["video_id"] for line in lines)
    assert set(counts.values()) <= {1}
    return {line["video_id"]: (line["stage"], line["reason"]) for line in lines}


def write_audio(path: pathlib.Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode()])


def damage(path: pathlib.Path) -> None:
    """Overwrites a third of the file, in the middle of the pictures."""
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    first, last = len(content) // 3, 2 * len(content) // 3
    content[first:last] = rng.integers(0, 256, last - first, dtype=np.uint8).tobytes()
    path.write_bytes(content)


@pytest.fixture(scope="module")
def broken_videos(
    tmp_path_factory: pytest.TempPathFactory, small_videos: pathlib.Path, write_video: Callable[..., pathlib.Path]
) -> pathlib.Path:
    """Three good videos (a, b, more/b) among files with every defect."""
    folder = tmp_path_factory.mktemp("broken")
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(small_videos / name, folder)
    (folder / "more").mkdir()
    shutil.copy(small_videos / "b.mp4", folder / "more" / "b.mp4")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is not a video\n" * 100)
    (folder / "notes.txt").write_text("no video by its name, so not looked at")
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    write_audio(folder / "audio.mp4")
    whole = (small_videos / "c.mkv").read_bytes()
    (folder / "truncated.mkv").write_bytes(whole[: len(whole) // 3])
    whole = (small_videos / "a.mp4").read_bytes()
    (folder / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    damage(write_video(folder / "damaged.mkv", duration_s=20, seed=9))
    return folder


def test_superimages(broken_videos: pathlib.Path, tmp_path: pathlib.Path) -> None:
    done = gridclip("superimages", "--video-dir", broken_videos, "--save-dir", tmp_path, "--super-img-size", 56)
    assert done.exit_code == 0, done.output
    lost = failures(tmp_path)
    made = {str(file.parent.relative_to(tmp_path)) for file in tmp_path.rglob("img_0001.jpg")}
    assert {"a", "b", "more/b"} <= made
    assert {"empty", "text", "gone", "audio", "truncated", "headless"} <= lost.keys()
    # A damaged video is made whole, or lost.
    assert not made & lost.keys()
    assert ("damaged" in made) != ("damaged" in lost)
    assert "empty file" in lost["empty"][1]
    assert "not a video" in lost["text"][1]
    assert "no video stream (only audio)" in lost["audio"][1]
    assert "truncated" in lost["truncated"][1]
    assert f"{len(lost)} failed, see {tmp_path / 'failures.jsonl'}" in done.stdout


def test_embed_videos_and_strict(
    broken_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    arguments = ["embed-videos", "--model", tiny_model_dir, "--video-dir", broken_videos, "--store", tmp_path / "store"]
    assert gridclip(*arguments).exit_code == 0
    first = failures(tmp_path / "store")
    assert {"empty", "text", "gone", "audio", "truncated", "headless"} <= first.keys()
    assert {"a", "b", "more/b"} <= set(Store.open(tmp_path / "store").read_super_images().video_ids)
    # What failed is tried again, and said again once.
    assert gridclip(*arguments, "--resume", "--strict").exit_code == 1
    assert failures(tmp_path / "store") == first


def test_plan(broken_videos: pathlib.Path) -> None:
    planned = gridclip("plan", "--video-dir", broken_videos, "--json")
    assert planned.exit_code == 0, planned.output
    lost = [failure["video_id"] for failure in json.loads(planned.stdout)["failures"]]
    assert len(lost) == len(set(lost))
    assert {"empty", "text", "gone", "audio", "truncated", "headless"} <= set(lost)


def test_nothing_but_broken_videos(tmp_path: pathlib.Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").touch()
    done = gridclip("superimages", "--video-dir", tmp_path / "videos", "--save-dir", tmp_path / "out")
    assert done.exit_code == 1
    assert list(failures(tmp_path / "out")) == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"v": {"sentences": ["a", ]}}', "line 1: malformed JSON"),
        ('{\n"v":\n{"sentences" "a"}}', "line 3: malformed JSON"),
        ("", "holds nothing"),
        ("[1, 2, 3]", "no known annotation file"),
        ('{"v": {"timestamps": [], "sentences": []}}', "no usable caption"),
    ],
)
def test_malformed_annotations(small_videos: pathlib.Path, tmp_path: pathlib.Path, content: str, message: str) -> None:
    path = tmp_path / "val.json"
    path.write_text(content)
    done = gridclip("superimages", "--video-dir", small_videos, "--anno-file", path, "--save-dir", tmp_path / "out")
    assert done.exit_code == 1
    assert str(path) in done.stderr and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_annotated_videos_without_a_file(
    small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path, store = tmp_path / "val.json", tmp_path / "store"
    path.write_text(
        json.dumps(
            {
                "a": {"sentences": ["a circle", "", 7]},
                "nowhere": {"sentences": ["a square"]},
                "d": {"sentences": None},
            }
        )
    )
    arguments = ["--model", tiny_model_dir, "--store", store]
    done = gridclip("embed-videos", *arguments, "--video-dir", small_videos, "--anno-file", path)
    assert done.exit_code == 0
    assert Store.open(store).finished_videos() == {"a", "d"}
    assert failures(store)["nowhere"][0] == "list"
    done = gridclip("embed-text", *arguments, "--anno-path", path)
    assert done.exit_code == 0
    assert "embedded 2 captions" in done.stdout and "3 failed" in done.stdout
    lines = [json.loads(line) for line in (store / "failures.jsonl").read_text().splitlines()]
    assert sorted(line["stage"] for line in lines) == ["caption", "caption", "caption", "list"]
    printed = gridclip("evaluate", "--store", store).stdout
    assert "1 queries dropped: 1 videos have no embeddings (nowhere)" in printed
    counted = tmp_path / "counted.json"
    gridclip("evaluate", "--store", store, "--missing", "count_as_failures", "--json", counted)
    assert json.loads(counted.read_text())["queries"] == 2
    assert json.loads(counted.read_text())["R@100"] == 50.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("superimages --video-dir {tmp}/none --save-dir {tmp}/out", "does not exist"),
        ("superimages --video-dir {tmp}/file --save-dir {tmp}/out", "no video in"),
        ("superimages --video-dir {tmp}/empty --save-dir {tmp}/out", "no video in"),
        ("superimages --video-dir {videos} --save-dir {tmp}/file", "cannot make --save-dir"),
        ("superimages --video-dir {videos} --anno-file {tmp}/none --save-dir {tmp}/out", "No such file"),
        ("plan --video-info {tmp}/none", "No such file"),
        ("plan --video-info {tmp}/file", "malformed JSON"),
        ("embed-videos --model {tmp}/none --video-dir {videos} --store {tmp}/store", "neither a file or folder nor"),
        ("embed-videos --model {tmp}/file --video-dir {videos} --store {tmp}/store", "file"),
        ("embed-videos --model {model} --video-dir {videos} --store {tmp}/file", "is a file, expected a store"),
        ("embed-videos --model {model} --video-dir {videos} --store {videos}", "not a store and not empty"),
        ("embed-images --model {model} --image-dir {tmp}/empty --store {tmp}/store", "no folder in"),
        ("embed-images --model {model} --image-dir {model} --store {tmp}/store", "no folder in"),
        ("embed-text --model {model} --anno-path {tmp}/none --store {tmp}/store", "No such file"),
        ("evaluate --store {tmp}/none", "no store"),
        ("search --model {model} --store {tmp}/none sentence", "no store"),
        ("export-features --store {tmp}/none --out {tmp}/out", "no store"),
        ("import-features --image-dir {tmp}/empty --store {tmp}/store", "holds no .npy file"),
        ("export {tmp}/file --out {tmp}/model", "file"),
        ("export {tmp}/none --out {tmp}/model", "neither a file or folder nor"),
    ],
)
def test_unusable_arguments(
    small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path, arguments: str, message: str
) -> None:
    (tmp_path / "file").write_text("neither JSON nor a checkpoint")
    (tmp_path / "empty").mkdir()
    words = arguments.format(tmp=tmp_path, videos=small_videos, model=tiny_model_dir).split()
    done = gridclip(*words)
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr


def test_a_checkpoint_that_is_no_clip(tmp_path: pathlib.Path) -> None:
    torch.save({"layer.weight": torch.zeros(3, 3)}, tmp_path / "other.pt")
    done = gridclip("export", tmp_path / "other.pt", "--out", tmp_path / "model")
    assert done.exit_code == 1
    assert "CLIP" in done.stderr
    assert not (tmp_path / "model").exists()


def test_a_store_of_another_model(
    small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    shutil.copytree(tiny_model_dir, other)
    info = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**info, "fingerprint": "0" * 64}))
    arguments = ["--video-dir", small_videos, "--store", store]
    assert gridclip("embed-videos", "--model", tiny_model_dir, *arguments).exit_code == 0
    for refused in (
        gridclip("embed-videos", "--model", other, *arguments, "--resume"),
        gridclip("search", "--model", other, "--store", store, "a circle"),
    ):
        assert refused.exit_code == 1
        assert "fingerprint" in refused.stderr


def test_damaged_model_folders(
    small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for name, content, options in (
        ("model.json", "{", ()),
        ("image_cells.onnx", "not a graph", ()),
        ("image.onnx", "not a graph", ("--no-cells",)),
    ):
        model = tmp_path / name
        shutil.copytree(tiny_model_dir, model)
        (model / name).write_text(content)
        given = ("--model", model, "--video-dir", small_videos, "--store", tmp_path / f"s{name}", *options)
        done = gridclip("embed-videos", *given)
        assert done.exit_code == 1
        assert name in done.stderr and "export" in done.stderr


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "-1", "0", "x"])
@pytest.mark.parametrize(
    "arguments",
    [
        "evaluate --temperature",
        "search --model m sentence --temperature",
        "plan --video-dir d --fps",
        "embed-videos --model m --video-dir d --time-limit",
    ],
)
def test_a_number_out_of_range_is_wrong_usage(arguments: str, value: str) -> None:
    done = gridclip(*arguments.split(), value)
    assert done.exit_code == 2
    assert "Invalid value for" in done.stderr and value in done.stderr


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("image_size", "x"),
        ("image_size", 1e9),
        ("image_size", 10**9),
        ("image_size", 0),
        ("image_size", True),
        ("embed_dim", "7"),
        ("embed_dim", None),
        ("embed_dim", 7),
        ("context_length", [77]),
        ("end_token", -1),
        ("name", 5),
        ("fingerprint", None),
        ("precision", {}),
        ("format", True),
        ("format", 2),
        ("format", None),
    ],
)
def test_model_settings_of_the_wrong_types(
    small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path, setting: str, value: object
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    info = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps({**info, setting: value}))
    (tmp_path / "val.json").write_text(json.dumps({"a": {"sentences": ["a circle"]}}))
    store = tmp_path / "store"
    done = gridclip("embed-text", "--model", model, "--anno-path", tmp_path / "val.json", "--store", store)
    assert done.exit_code == 1
    assert setting in done.stderr and "export the model again" in done.stderr
    assert not store.exists() or not Store.open(store).has_queries()


def test_a_deeply_nested_model_json(
    tiny_model_dir: pathlib.Path, small_videos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model)
    (model / "model.json").write_text('{"a":' * 100_000)
    done = gridclip("embed-videos", "--model", model, "--video-dir", small_videos, "--store", tmp_path / "store")
    assert done.exit_code == 1
    assert "model.json cannot be read" in done.stderr


def test_search_leaves_the_store_as_it_is(
    small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    store = tmp_path / "store"
    assert (
        gridclip("embed-videos", "--model", tiny_model_dir, "--video-dir", small_videos, "--store", store).exit_code
        == 0
    )
    (store / ".lock").unlink()  # taking the lock would make it again
    before = {path: (path.stat().st_mtime_ns, path.is_dir() or path.read_bytes()) for path in store.rglob("*")}
    for path in [store, *store.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = gridclip("search", "--model", tiny_model_dir, "--store", store, "a circle")
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 4
    after = {path: (path.stat().st_mtime_ns, path.is_dir() or path.read_bytes()) for path in store.rglob("*")}
    assert after == before
    for path in [store, *store.rglob("*")]:
        path.chmod(0o755)
