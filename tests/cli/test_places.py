"""The jobs on lists of paths, WebDataset tars and an object store: the same store as from a folder, row for row."""

from __future__ import annotations

import io
import json
import pathlib
import tarfile
from collections.abc import Iterator

import faulty_store
import numpy as np
import pytest
from click.testing import CliRunner, Result
from faulty_store import BUCKET, FaultyStore
from gridclip import GridClipError
from gridclip.cli import main
from gridclip.engine.store.store import Store

CAPTIONS = {"a.mp4": "a red circle", "b.mp4": "a green triangle", "c.mkv": "two squares", "d.mp4": "something short"}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    with faulty_store.serving(monkeypatch) as store:
        yield store


@pytest.fixture(scope="module")
def packed(small_videos: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of two tars as video2dataset writes them, with all four videos."""
    folder = tmp_path_factory.mktemp("packed")
    for shard, names in enumerate((["a.mp4", "b.mp4"], ["c.mkv", "d.mp4"])):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for name in names:
                key = name.partition(".")[0]
                tar.add(small_videos / name, name)
                for beside, text in ((f"{key}.txt", CAPTIONS[name]), (f"{key}.json", json.dumps({"key": key}))):
                    info = tarfile.TarInfo(beside)
                    info.size = len(text)
                    tar.addfile(info, io.BytesIO(text.encode()))
    return folder


def gridclip(*arguments: object, status: int = 0) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result


def embed(model: pathlib.Path, video_dir: object, store: pathlib.Path, *more: object) -> dict[str, np.ndarray]:
    """The vectors that embed-videos makes of a place, by the last part of the videos' ids."""
    gridclip("embed-videos", "--model", model, "--video-dir", video_dir, "--store", store, "--num-workers", 2, *more)
    table = Store.open(store).read_super_images()
    pairs = zip(table.video_ids, table.offsets[:-1], table.offsets[1:], strict=True)
    return {video_id.split("/")[-1]: table.vectors[first:last] for video_id, first, last in pairs}


def test_every_place_gives_the_vectors_of_the_folder(
    store: FaultyStore,
    packed: pathlib.Path,
    small_videos: pathlib.Path,
    tiny_model_dir: pathlib.Path,
    tmp_path: pathlib.Path,
) -> None:
    faulty_store.put_folder(store, small_videos, "folder")
    faulty_store.put_folder(store, packed, "packed")
    (tmp_path / "list.txt").write_text("\n".join(str(path) for path in small_videos.iterdir()))
    expected = embed(tiny_model_dir, small_videos, tmp_path / "folder")
    assert sorted(expected) == ["a", "b", "c", "d"]
    places = [tmp_path / "list.txt", packed, f"s3://{BUCKET}/folder", f"s3://{BUCKET}/packed"]
    for number, place in enumerate(places):
        found = embed(tiny_model_dir, place, tmp_path / f"{number}")
        assert found.keys() == expected.keys(), place
        for name, vectors in expected.items():
            np.testing.assert_array_equal(found[name], vectors, f"{name} of {place}")


def test_tars_are_embedded_with_their_captions_and_evaluated(
    packed: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    embed(tiny_model_dir, packed / "00000.tar", tmp_path / "s")
    embed(tiny_model_dir, packed, tmp_path / "s", "--resume")
    assert Store.open(tmp_path / "s").finished_videos() == {"00000/a", "00000/b", "00001/c", "00001/d"}
    gridclip("embed-text", "--model", tiny_model_dir, "--anno-path", packed, "--store", tmp_path / "s")
    gridclip("evaluate", "--store", tmp_path / "s", "--json", tmp_path / "r.json")
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["recall"]["10"] == 100.0


def test_a_video_that_is_refused_costs_itself(
    store: FaultyStore, small_videos: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    faulty_store.put_folder(store, small_videos, "v")
    store.forbidden = "b.mp4"
    assert sorted(embed(tiny_model_dir, f"s3://{BUCKET}/v", tmp_path / "s")) == ["a", "c", "d"]
    [line] = (tmp_path / "s" / "failures.jsonl").read_text().splitlines()
    failure = json.loads(line)
    assert (failure["video_id"], failure["stage"]) == ("b", "open")
    assert failure["reason"].startswith(f"s3://{BUCKET}/v/b.mp4: permission denied")
    store.forbidden = None
    assert sorted(embed(tiny_model_dir, f"s3://{BUCKET}/v", tmp_path / "s", "--resume")) == ["a", "b", "c", "d"]


def test_super_images_and_plans(packed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    gridclip("superimages", "--video-dir", packed, "--save-dir", tmp_path / "out", "--num-workers", 2)
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.jpg"))
    assert made == [f"{name}/img_0001.jpg" for name in ("00000/a", "00000/b", "00001/c")] + [
        "00001/c/img_0002.jpg",
        "00001/d/img_0001.jpg",
    ]
    planned = json.loads(gridclip("plan", "--video-dir", packed, "--anno-file", packed, "--json").output)
    assert (planned["videos"], planned["super_images"], planned["queries"]) == (4, 5, 4)


def test_a_wrong_bucket_is_one_sentence(store: FaultyStore, tmp_path: pathlib.Path) -> None:
    result = gridclip("superimages", "--video-dir", "s3://no-such-bucket/x", "--save-dir", tmp_path / "o", status=1)
    assert result.output.strip().count("\n") == 0, result.output
    assert result.output.startswith("Error: --video-dir s3://no-such-bucket/x ")


def test_clips_are_cut_out_of_tars(packed: pathlib.Path, tiny_model_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
    embed(tiny_model_dir, packed, tmp_path / "s")
    given = ["--store", tmp_path / "s", "--model", tiny_model_dir, "--video-dir", packed]
    gridclip("search", "a red circle", *given, "--clip-dir", tmp_path / "clips")
    assert {clip.parent.name + clip.name[0] for clip in (tmp_path / "clips").rglob("*.mp4")} == {
        "00000a",
        "00000b",
        "00001c",
        "00001d",
    }


def test_other_paths_are_no_urls(tmp_path: pathlib.Path) -> None:
    result = gridclip("evaluate", "--store", "s3://bucket/store", status=2)
    assert "s3://bucket/store is a URL, expected a path" in result.output
    with pytest.raises(GridClipError, match="is a URL, expected a folder: .*lock files"):
        Store.open("s3://bucket/store", create=True)
