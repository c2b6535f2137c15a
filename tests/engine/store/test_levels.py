"""engine/store: super images and cells of several grid sizes in one table, compared with plain lists of rows."""

import lance
import numpy as np
import pyarrow as pa
import pytest
from gridclip import GridClipError
from gridclip.engine.store.copies import View
from gridclip.engine.store.record import FORMAT
from gridclip.engine.store.store import Store, VideoEmbedding

WIDTH = 4
VIEWS = (View("super", 1), View("super", 2), View("cell", 2))


def rows(video_id: str, view: View, frames: int, seed: int = 0) -> np.ndarray:
    """float16 [frames or super images, WIDTH], different for every video, view and seed."""
    count = frames if view.level == "cell" or view.grid_size == 1 else -(-frames // 4)
    generator = np.random.default_rng([seed, view.code, *video_id.encode()])
    vectors = generator.standard_normal((count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def video(video_id: str, frames: int, *, seed: int = 0, views=VIEWS) -> VideoEmbedding:
    parts = [rows(video_id, view, frames, seed) for view in views]
    times = np.concatenate([np.arange(len(part)) for part in parts]).astype(float)
    counted = tuple((view, len(part)) for view, part in zip(views, parts, strict=True))
    return VideoEmbedding(video_id, times, times + 1, np.concatenate(parts), counted)


def assert_holds(store: Store, frames: dict[str, int], views=VIEWS) -> None:
    for view in views:
        table = store.read_super_images(view.level, view.grid_size)
        assert (table.level, table.grid_size) == (view.level, view.grid_size)
        assert table.video_ids == sorted(frames)
        expected = [rows(video_id, view, frames[video_id]) for video_id in table.video_ids]
        assert np.diff(table.offsets).tolist() == list(map(len, expected))
        np.testing.assert_array_equal(table.vectors, np.concatenate(expected))
        np.testing.assert_array_equal(table.start_s, np.concatenate([np.arange(len(part)) for part in expected]))
        np.testing.assert_array_equal(table.end_s, table.start_s + 1)


def test_every_level_and_grid_size_comes_back_also_after_a_compaction(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([video("b", 9), video("a", 1)])
    store.append_videos([video("a", 5, seed=9), video("c", 4), video("b", 9, seed=9)])
    store.append_videos([video("b", 2, seed=7)])  # a copy straight after a copy
    frames = {"a": 1, "b": 9, "c": 4}
    assert store.views() == list(VIEWS) and store.finished_videos() == set(frames)
    assert_holds(store, frames)
    store.compact()
    assert_holds(store, frames)
    assert lance.dataset(str(store.path / "super_images.lance")).count_rows() == (9 + 3 + 9) + (1 + 1 + 1) + (4 + 1 + 4)


def test_one_append_is_one_commit(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([video("a", 9), video("b", 3)])
    assert lance.dataset(str(store.path / "super_images.lance")).version == 1
    table = lance.dataset(str(store.path / "super_images.lance")).to_table(filter="video_id = 'a'")
    assert table["index"].to_pylist() == [*range(9), *range(3), *range(9)]
    assert table["level"].to_pylist() == ["super"] * 12 + ["cell"] * 9
    assert table["grid_size"].to_pylist() == [1] * 9 + [2] * 12


def test_the_finest_grid_and_its_cells_are_the_default(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    two_and_three = (View("super", 2), View("super", 3), View("cell", 3))
    store.append_videos([video("a", 9, views=two_and_three)])

    def chosen(*asked) -> tuple:
        table = store.read_super_images(*asked)
        return table.level, table.grid_size

    assert chosen() == ("super", 2) and chosen(None, 3) == ("cell", 3)
    assert chosen("cell") == ("cell", 3) and chosen("super") == ("super", 2) and chosen("super", 3) == ("super", 3)
    with pytest.raises(
        GridClipError, match=r"nothing of `level='cell'` and `grid_size=2`: it has super images at grid"
    ):
        store.read_super_images("cell", 2)
    with pytest.raises(GridClipError, match=r"`grid_size=4`.*grid size 2, super images at grid size 3, cells at grid"):
        store.read_super_images(grid_size=4)
    with pytest.raises(ValueError, match="level"):
        store.read_super_images("frame")


def test_a_super_image_of_one_cell_is_its_cell(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([video("a", 5, views=VIEWS[:1])])
    for level in ("super", "cell"):
        np.testing.assert_array_equal(store.read_super_images(level, 1).vectors, rows("a", VIEWS[0], 5))


def as_older_version(store: Store) -> None:
    """The store without what came with levels: columns and format."""
    path = str(store.path / "super_images.lance")
    table = lance.dataset(path).to_table().drop_columns(["level", "grid_size"])
    lance.write_dataset(table, path, mode="overwrite")
    record = store._record.read()
    store._record.write(record | {"format": 1})


def test_a_store_of_an_older_version_is_read_and_goes_on_as_it_is(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.claim_sampling({"source": "videos", "mode": "frames", "fps": 0.5, "grid_size": 2})
    plain = (View("super", 2),)
    store.append_videos([video("a", 9, views=plain)])
    as_older_version(store)
    older = Store.open(store.path)
    older.append_videos([VideoEmbedding("b", np.zeros(1), np.ones(1), rows("b", plain[0], 2))])
    assert older.views() == list(plain)
    assert_holds(older, {"a": 9, "b": 2}, plain)
    older.compact()
    assert_holds(older, {"a": 9, "b": 2}, plain)
    older.claim_sampling(
        {"source": "videos", "mode": "frames", "fps": 0.5, "grid_size": 2, "stride": None, "cells": False}
    )
    with pytest.raises(GridClipError, match="cells = False, this run has True"):
        older.claim_sampling({"source": "videos", "mode": "frames", "fps": 0.5, "grid_size": 2, "cells": True})
    with pytest.raises(GridClipError, match=r"grid_size = 2, this run has \[1, 2\]"):
        older.claim_sampling({"source": "videos", "mode": "frames", "fps": 0.5, "grid_size": (1, 2)})
    with pytest.raises(GridClipError, match="no place for cells"):
        older.append_videos([video("c", 9)])
    older.clear_super_images()
    older.append_videos([video("c", 9)])
    assert_holds(older, {"c": 9})
    assert older._record.read()["format"] == FORMAT


def test_rows_without_a_grid_size_have_that_of_the_record(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([VideoEmbedding("a", None, None, rows("a", VIEWS[0], 2))])
    assert store.views() == [View("super", None)] and store.read_super_images().grid_size is None
    with pytest.raises(GridClipError, match="super images at an unknown grid size"):
        store.read_super_images(grid_size=2)
    store.clear()
    store.claim_sampling({"source": "super image folders", "grid_size": 3})
    store.append_videos([VideoEmbedding("a", None, None, rows("a", VIEWS[0], 2))])
    assert store.views() == [View("super", 3)]


def test_views_must_be_in_order_and_of_all_rows():
    vectors = rows("a", VIEWS[0], 3)
    for views in (((VIEWS[1], 1), (VIEWS[0], 2)), ((VIEWS[0], 1), (VIEWS[0], 2)), ((VIEWS[0], 2),)):
        with pytest.raises(ValueError, match="views of video a"):
            VideoEmbedding("a", None, None, vectors, views)


def test_rows_that_are_out_of_order_or_of_no_level_are_damage(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([video("a", 9)])
    path = str(store.path / "super_images.lance")
    table = lance.dataset(path).to_table()
    lance.write_dataset(table.take(pa.array([*range(10, 21), *range(10)])), path, mode="overwrite")
    with pytest.raises(GridClipError, match="not in order"):
        store.read_super_images()
    level = table.column_names.index("level")
    lance.write_dataset(table.set_column(level, "level", pa.array(["frame"] * 21)), path, mode="overwrite")
    with pytest.raises(GridClipError, match="unknown level"):
        store.read_super_images()
