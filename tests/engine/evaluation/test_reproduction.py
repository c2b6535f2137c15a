"""engine/reproduction.py: the real annotation file, a few generated videos with its names, the demo's model."""

import json
import pathlib
import shutil

import gridclip
import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.evaluation import reproduction
from gridclip.engine.evaluation.published import PUBLISHED, as_text
from gridclip.engine.jobs.embed_videos import embed_videos
from gridclip.engine.store.store import Store


@pytest.fixture(scope="module")
def videos(tmp_path_factory, small_videos, shared_data) -> pathlib.Path:
    """Three generated videos named as the first readable ones of val_1, and one named as an unreadable one."""
    folder = tmp_path_factory.mktemp("activitynet")
    content = json.loads((shared_data / "annotations" / "activitynet_val_1.json").read_text())
    names = [name for name in content if name not in reproduction.UNREADABLE][:3]
    (folder / "videos").mkdir()
    for name, source in zip((*names, reproduction.UNREADABLE[0]), ("a.mp4", "b.mp4", "c.mkv", "d.mp4"), strict=True):
        shutil.copy(small_videos / source, folder / "videos" / f"{name}{pathlib.Path(source).suffix}")
    chosen = {name: content[name] for name in (*names, reproduction.UNREADABLE[0])}
    long = "a caption of more than seventy-seven characters, so that cutting it makes another one of it, and then some"
    chosen[names[0]]["sentences"][0] = long
    (folder / "val_1.json").write_text(json.dumps(chosen))
    return folder


def test_the_procedure_names_16_videos_as_unreadable(shared_data):
    procedure = next(shared_data.parent.glob("procedure_*.txt")).read_text()
    assert procedure.split("```")[1].split() == list(reproduction.UNREADABLE)


def test_activitynet_from_videos_to_a_table(videos, tiny_model_dir, tmp_path, monkeypatch):
    arguments = (videos / "videos", videos / "val_1.json", tmp_path)
    found = gridclip.reproduce("activitynet", *arguments, model=tiny_model_dir, num_workers=1)
    assert list(found.evaluations) == ["procedure", "procedure, whole captions", "ours"]
    content = json.loads((videos / "val_1.json").read_text())
    readable = {name: entry for name, entry in content.items() if name not in reproduction.UNREADABLE}
    for each in found.evaluations.values():
        assert each.queries == sum(len(entry["sentences"]) for entry in readable.values()) and each.candidates == 3
    store = Store.open(tmp_path / "store")
    assert store.finished_videos() == set(readable)
    sampling = store.sampling
    assert sampling is not None and (sampling["fps"], sampling["grid_size"], sampling["edit_lists"]) == (
        0.5,
        2,
        "ignore",
    )
    assert found.evaluations["ours"].scoring.temperature == 0.1
    text = str(found)
    assert "ours less procedure: SumR" in text and "172.9" in text and "procedure (this run)" in text
    assert json.loads((tmp_path / "table.json").read_text())["rows"]["ours"]["sum_recall"] > 0
    assert json.loads((tmp_path / "procedure.json").read_text())["per_query"]["rank"]

    def never(*_, **__):
        raise AssertionError("a video was decoded again")

    monkeypatch.setattr("gridclip.engine.jobs.batches.VideoEmbedding", never)
    again = gridclip.reproduce("activitynet", *arguments, model=tiny_model_dir, num_workers=1)
    assert {title: each.recall for title, each in again.evaluations.items()} == {
        title: each.recall for title, each in found.evaluations.items()
    }


def test_grids_with_and_without_attention(videos, tiny_model_dir, tmp_path):
    arguments = (videos / "videos", videos / "val_1.json", tmp_path)
    encoder = gridclip.load_model(tiny_model_dir, num_gpus=0)
    found = gridclip.reproduce("grids", *arguments, model=tiny_model_dir, num_workers=1, grid_sizes=[2, 1])
    assert list(found.evaluations) == [f"grid {size}, {title}" for size in (1, 2) for title in ("attention", "mean")]
    for size in (1, 2):
        images = found.evaluations[f"grid {size}, mean"].super_images
        own = Sampling(grid_size=size)
        embed_videos(encoder, videos / "videos", tmp_path / f"grid-{size}", sampling=own, cells=False)
        alone = Store.open(tmp_path / f"grid-{size}").read_super_images()
        assert images == len(alone.vectors)
        together = Store.open(tmp_path / "store").read_super_images(grid_size=size)
        assert together.video_ids == alone.video_ids and np.array_equal(together.vectors, alone.vectors)
    assert found.evaluations["grid 1, mean"].super_images > found.evaluations["grid 2, mean"].super_images
    assert "grid 2: attention less mean: SumR" in str(found)


def test_what_cannot_be_reproduced(tmp_path, tiny_model_dir, small_videos):
    (tmp_path / "a.txt").write_text("a#enc#0 text")
    with pytest.raises(GridClipError, match="no ActivityNet Captions JSON"):
        gridclip.reproduce("activitynet", small_videos, tmp_path / "a.txt", tmp_path, model=tiny_model_dir)
    with pytest.raises(gridclip.ArgumentError, match="must be activitynet or grids"):
        gridclip.reproduce("everything", small_videos, tmp_path / "a.txt", tmp_path, model=tiny_model_dir)


def test_published_figures_have_sources_and_are_sorted_with_ones_own():
    assert all(each.source and each.sum_recall > 0 for each in PUBLISHED["activitynet"])
    lines = as_text("activitynet", {"mine": 175.0}).splitlines()[2:]
    figures = [
        float(next(word for word in reversed(line.split("  ")) if word.strip().replace(".", "").isdigit()))
        for line in lines
    ]
    assert figures == sorted(figures, reverse=True) and 175.0 in figures
