"""Cells and several grid sizes through whole jobs, against super images and frames that are decoded one by one."""

from __future__ import annotations

import json
import pathlib

import cell_encoder
import fake_model
import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes import grid
from gridclip.dali_pipes.cpu.super_images import frames
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.jobs import embed_images, embed_videos, super_images
from gridclip.engine.store.copies import View
from gridclip.engine.store.store import Store

SIZE_PX = fake_model.SIZE_PX
FPS = 1.0  # 9, 4, 17 and 1 wanted frames, one a second
NAMES = {"a": "a.mp4", "b": "b.mp4", "c": "c.mkv", "d": "d.mp4"}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    model = fake_model.write(tmp_path_factory.mktemp("model"))
    return cell_encoder.CellEncoder(model, provider="cpu", num_threads=1)


@pytest.fixture(scope="module")
def wanted(small_videos) -> dict[str, list[np.ndarray]]:
    """Each video's wanted frames."""
    return {name: list(frames(small_videos / file, FPS)) for name, file in NAMES.items()}


def expected(decoded: list[np.ndarray], view: View, stride: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(vectors [rows, 3], spans [rows, 2] in seconds), by a loop over super images."""
    size = view.grid_size or 0
    vectors, spans = [], []
    for start in range(0, len(decoded), stride or size**2):
        inside = decoded[start : start + size**2]
        (image,) = grid.assemble(inside, size, SIZE_PX)
        whole, *cells = cell_encoder.embeddings(image[None], size)[0]
        if view.level == "super":
            vectors.append(whole)
            spans.append((start, start + len(inside)))
        else:
            vectors += cells[: len(inside)]
            spans += [(start + number, start + number + 1) for number in range(len(inside))]
        if start + size**2 >= len(decoded):
            break
    return np.array(vectors), np.array(spans, float)


def assert_holds(store: pathlib.Path, wanted, views: list[View], stride: int | None = None) -> None:
    opened = Store.open(store)
    assert opened.views() == views
    for view in views:
        table = opened.read_super_images(view.level, view.grid_size)
        assert table.video_ids == sorted(wanted)
        each = [expected(wanted[video_id], view, stride) for video_id in table.video_ids]
        assert np.diff(table.offsets).tolist() == [len(vectors) for vectors, _ in each]
        np.testing.assert_allclose(table.vectors, np.concatenate([vectors for vectors, _ in each]), atol=2e-3)
        spans_s = np.stack([table.start_s, table.end_s], axis=1)
        np.testing.assert_allclose(spans_s, np.concatenate([spans for _, spans in each]), atol=0.11)


def views(grid_sizes, cells: bool) -> list[View]:
    found = []
    for size in grid_sizes:
        found.append(View("super", size))
        if cells and size > 1:
            found.append(View("cell", size))
    return found


def embed(encoder, videos, store, *, grid_size=2, stride=None, **options):
    sampling = Sampling(fps=FPS, grid_size=grid_size, super_img_size=SIZE_PX, stride=stride)
    return embed_videos.embed_videos(encoder, videos, store, sampling=sampling, num_workers=2, **options)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("cells", [False, True])
@pytest.mark.parametrize("grid_size", [1, 2, (1, 2), (3, 2)])
def test_every_level_and_grid_is_what_its_frames_give(
    encoder, small_videos, wanted, tmp_path, grid_size, cells, batch_size
):
    summary = embed(encoder, small_videos, tmp_path, grid_size=grid_size, cells=cells, batch_size=batch_size)
    sizes = sorted({grid_size} if isinstance(grid_size, int) else set(grid_size))
    assert summary.done == 4 and summary.failures == 0
    assert summary.super_images == sum(-(-len(each) // size**2) for each in wanted.values() for size in sizes)
    assert_holds(tmp_path, wanted, views(sizes, cells))


@pytest.mark.parametrize(("grid_size", "stride"), [(2, 1), (2, 3), (3, 2), ((1, 2), 2), ((2, 3), 3)])
def test_overlapping_super_images(encoder, small_videos, wanted, tmp_path, grid_size, stride):
    embed(encoder, small_videos, tmp_path, grid_size=grid_size, stride=stride)
    for size in (grid_size,) if isinstance(grid_size, int) else grid_size:
        view = View("super", size)
        table = Store.open(tmp_path).read_super_images("super", size)
        each = [expected(wanted[video_id], view, min(stride, size**2)) for video_id in table.video_ids]
        np.testing.assert_allclose(table.vectors, np.concatenate([vectors for vectors, _ in each]), atol=2e-3)
        spans_s = np.stack([table.start_s, table.end_s], axis=1)
        np.testing.assert_allclose(spans_s, np.concatenate([spans for _, spans in each]), atol=0.11)


def test_cells_of_overlapping_super_images_are_refused(encoder, small_videos, tmp_path):
    with pytest.raises(GridClipError, match=r"`stride=2` with `cells=True`: .* leave one of the two out"):
        embed(encoder, small_videos, tmp_path / "s", stride=2, cells=True)
    assert not (tmp_path / "s").exists()


def test_a_store_goes_on_with_what_it_was_made_with_only(encoder, small_videos, wanted, tmp_path):
    only_a = tmp_path / "a.json"
    only_a.write_text(json.dumps({"a": {"duration": 9.0, "timestamps": [[0, 1]], "sentences": ["a dog"]}}))
    store = tmp_path / "s"
    embed(encoder, small_videos, store, grid_size=(1, 2), cells=True, anno_file=only_a)
    for options, differing in (
        ({"grid_size": (1, 2), "cells": False}, "cells = True, this run has False"),
        ({"grid_size": 2, "cells": True}, r"grid_size = \[1, 2\], this run has 2"),
        ({"grid_size": (1, 2), "stride": 2, "cells": False}, "stride = None, this run has 2|cells = True"),
    ):
        with pytest.raises(GridClipError, match=differing):
            embed(encoder, small_videos, store, resume=True, **options)
    summary = embed(encoder, small_videos, store, grid_size=(2, 1), resume=True)  # with cells, as it began
    assert (summary.done, summary.finished_before) == (3, 1)
    assert_holds(store, wanted, views((1, 2), True))


def test_jpeg_folders_with_cells(encoder, small_videos, wanted, tmp_path):
    sampling = Sampling(fps=FPS, super_img_size=SIZE_PX)
    super_images.make_super_images(small_videos, tmp_path / "jpeg", sampling=sampling)
    without_times = tmp_path / "jpeg" / "d" / "super_images.json"
    record = json.loads(without_times.read_text())
    del record["frame_bounds_s"]
    without_times.write_text(json.dumps(record))
    summary = embed_images.embed_images(encoder, tmp_path / "jpeg", tmp_path / "s", num_workers=1, cells=True)
    assert (summary.done, summary.failures) == (3, 1)
    assert "does not say when the frames are" in (tmp_path / "s" / "failures.jsonl").read_text()
    kept = {name: each for name, each in wanted.items() if name != "d"}
    table = Store.open(tmp_path / "s").read_super_images()
    assert (table.level, np.diff(table.offsets).tolist()) == ("cell", [len(each) for each in kept.values()])
    each = [expected(decoded, View("cell", 2)) for decoded in kept.values()]
    assert np.abs(table.vectors - np.concatenate([vectors for vectors, _ in each])).max() < 0.03  # JPEG
    assert table.end_s == pytest.approx(np.concatenate([spans for _, spans in each])[:, 1], abs=0.11)
    assert embed_images.embed_images(encoder, tmp_path / "jpeg", tmp_path / "plain", num_workers=1).failures == 0


def test_without_cells_grids_and_stride_a_store_is_as_before(encoder, small_videos, wanted, tmp_path):
    """Rows of one grid are those that a loop over all frames gives, in bits: the pixels are the same."""
    embed(encoder, small_videos, tmp_path)
    table = Store.open(tmp_path).read_super_images()
    images = np.concatenate([grid.assemble(wanted[video_id], 2, SIZE_PX) for video_id in table.video_ids])
    alone = np.concatenate([encoder.encode_images(image[None]) for image in images])
    assert np.abs(table.vectors.astype(np.float32) - alone.astype(np.float16)).max() <= np.finfo(np.float16).eps
