"""Whether a job makes vectors of cells where nobody says: as its store began, and else wherever it can."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import gridclip
import pytest
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs.cells import makes_cells
from gridclip.engine.store.store import Store
from gridclip.export.model_info import ModelInfo


@pytest.fixture(scope="module")
def model(tiny_model_dir: pathlib.Path) -> ModelInfo:
    return Encoder(tiny_model_dir, provider="cpu", num_threads=1).info


def levels(store: pathlib.Path) -> list[str]:
    return [view.level for view in Store.open(store).views()]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ({}, True),
        ({"grid_size": (1, 3)}, True),
        ({"grid_size": 1}, False),  # its only cell is the super image
        ({"stride": 2}, False),  # a frame would have several vectors
        ({"grid_size": 5}, True),
        ({"grid_size": (2, 15)}, False),  # less than a patch for each cell
        (None, False),
    ],
)
def test_a_new_store_gets_cells_where_they_can_be_had(model, tmp_path, sampling, expected):
    given = None if sampling is None else Sampling(super_img_size=model.image_size, **sampling)
    found = makes_cells(None, given, model, tmp_path / "new", overwrite=False)
    assert found is expected


@pytest.mark.parametrize("has_cells", [False, None])
def test_a_model_without_cells_gives_none_unless_asked(model, tmp_path, has_cells):
    without = dataclasses.replace(model, has_cells=has_cells)
    assert not makes_cells(None, Sampling(), without, tmp_path, overwrite=False)
    assert makes_cells(True, Sampling(), without, tmp_path, overwrite=False)  # which the encoder refuses, with a reason
    assert not makes_cells(False, Sampling(), model, tmp_path, overwrite=False)


@pytest.mark.parametrize(
    ("began", "expected"), [(False, ["super"]), (True, ["super", "cell"]), (None, ["super", "cell"])]
)
def test_a_store_goes_on_as_it_began(tiny_model_dir, small_videos, tmp_path, began, expected):
    first = tmp_path / "first.json"
    first.write_text(json.dumps({"a": {"duration": 9.0, "timestamps": [[0, 1]], "sentences": ["a dog"]}}))
    store = tmp_path / "store"
    gridclip.embed_videos(tiny_model_dir, small_videos, store, num_workers=1, anno_file=first, cells=began)
    assert levels(store) == expected
    assert gridclip.embed_videos(tiny_model_dir, small_videos, store, num_workers=1, resume=True).done == 3
    assert levels(store) == expected
    gridclip.embed_videos(tiny_model_dir, small_videos, store, num_workers=1, overwrite=True)
    assert levels(store) == ["super", "cell"]


def test_jpeg_folders_give_cells_where_all_say_when_their_frames_are(tiny_model_dir, small_videos, tmp_path):
    gridclip.superimages(small_videos, tmp_path / "jpeg", num_workers=1)
    gridclip.embed_images(tiny_model_dir, tmp_path / "jpeg", tmp_path / "all", num_workers=1)
    assert levels(tmp_path / "all") == ["super", "cell"]
    sidecar = tmp_path / "jpeg" / "d" / "super_images.json"
    record = json.loads(sidecar.read_text())
    del record["frame_bounds_s"]
    sidecar.write_text(json.dumps(record))
    done = gridclip.embed_images(tiny_model_dir, tmp_path / "jpeg", tmp_path / "some", num_workers=1)
    assert (done.done, done.failures, levels(tmp_path / "some")) == (4, 0, ["super"])
    for sidecar in (tmp_path / "jpeg").glob("*/super_images.json"):  # those of another program have none
        sidecar.unlink()
    gridclip.embed_images(tiny_model_dir, tmp_path / "jpeg", tmp_path / "none", num_workers=1)
    assert levels(tmp_path / "none") == ["super"]


def test_a_retry_whose_folders_are_gone_ends_in_a_sentence(tiny_model_dir, small_videos, tmp_path):
    gridclip.superimages(small_videos, tmp_path / "jpeg", num_workers=1)
    (tmp_path / "jpeg" / "d" / "img_0001.jpg").write_bytes(b"no picture")
    done = gridclip.embed_images(tiny_model_dir, tmp_path / "jpeg", tmp_path / "store", num_workers=1)
    assert (done.done, done.failures) == (3, 1)
    shutil.rmtree(tmp_path / "jpeg" / "d")
    with pytest.raises(gridclip.GridClipError):
        gridclip.embed_images(tiny_model_dir, tmp_path / "jpeg", tmp_path / "store", retry_failed="any", num_workers=1)
