"""Tests of engine/store/reader.py: what it reads against the whole table, in every way a store can grow."""

from __future__ import annotations

import dataclasses
import pathlib

import lance
import numpy as np
import pyarrow as pa
import pytest
from gridclip import GridClipError
from gridclip.engine.store import reader as reading
from gridclip.engine.store.copies import View
from gridclip.engine.store.store import Store, VideoEmbedding


def a_video(name: str, length: int, seed: int) -> VideoEmbedding:
    vectors = np.random.default_rng(seed).standard_normal((length, 4)).astype(np.float32)
    start_s = np.arange(length) * 8.0
    return VideoEmbedding(name, start_s, start_s + 8, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Store:
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([a_video("b", 3, 0), a_video("a", 1, 1)])
    store.append_videos([a_video("long", 30, 2), a_video("a", 2, 3), a_video("c", 2, 4)])  # a second copy of a
    return store


def all_videos(reader: reading.SuperImageReader) -> dict[str, np.ndarray]:
    found = {}
    blocks = list(reader.blocks())
    for block, rows in zip(blocks, reader.read_blocks(blocks), strict=True):
        alone = reader.read_block(block)
        np.testing.assert_array_equal(rows.vectors, alone.vectors)
        np.testing.assert_array_equal(rows.offsets, alone.offsets)
        for number, video in enumerate(rows.videos):
            name = reader.videos.names[int(video)].as_py()
            assert name not in found
            found[name] = rows.vectors[rows.offsets[number] : rows.offsets[number + 1]]
    return found


def assert_like_the_table(reader: reading.SuperImageReader, store: Store) -> None:
    table, found = store.read_super_images(), all_videos(reader)
    assert sorted(found) == table.video_ids
    for number, name in enumerate(table.video_ids):
        own = slice(table.offsets[number], table.offsets[number + 1])
        np.testing.assert_array_equal(found[name], table.vectors[own])
        position = reader.videos.position(name)
        assert position is not None
        rows, spans = reader.read(np.array([position]))
        np.testing.assert_array_equal(rows.vectors, table.vectors[own])
        np.testing.assert_array_equal(spans, np.stack([table.start_s[own], table.end_s[own]], axis=1))


def test_a_reader_is_of_one_level_and_grid_size(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ROWS", 8)
    store = Store.open(tmp_path / "s", create=True)
    views = ((View("super", 2), 2), (View("super", 3), 1), (View("cell", 3), 5))

    def several(name: str, seed: int) -> VideoEmbedding:
        return dataclasses.replace(a_video(name, 8, seed), views=views)

    store.append_videos([several("b", 0), several("a", 1), several("b", 2)])
    readers = {view: store.reader(view.level, view.grid_size) for view, _ in views}
    store.append_videos([several("c", 3), several("a", 4)])
    assert store.reader().view == View("super", 2) and store.reader("cell").view == View("cell", 3)
    for (view, count), reader in zip(views, readers.values(), strict=True):
        newest = reader.newest()
        assert newest.view == view and newest.rows == 3 * count and newest.videos.names.to_pylist() == ["b", "a", "c"]
        table, found = store.read_super_images(view.level, view.grid_size), all_videos(newest)
        np.testing.assert_array_equal(np.concatenate([found[name] for name in table.video_ids]), table.vectors)
    with pytest.raises(GridClipError, match="`grid_size=4`: it has super images at grid size 2"):
        store.reader(grid_size=4)


@pytest.mark.parametrize("rows", [1, 3, 4, 7, 1000])
def test_blocks_hold_every_video_once_and_whole(store: Store, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(reading, "ROWS", rows)
    reader = store.reader()
    assert_like_the_table(reader, store)
    assert reader.rows == 36 and reader.width == 4
    assert all(len(block) == 1 or reader.videos.sizes[list(block)].sum() <= rows for block in reader.blocks())


def test_videos_come_in_the_order_asked_for(store: Store) -> None:
    reader = store.reader()
    rows, spans = reader.read(np.array([3, 0, 2]))
    vectors = reader.read_vectors(np.array([3, 0, 2]))
    np.testing.assert_array_equal(vectors.vectors, rows.vectors)
    np.testing.assert_array_equal(vectors.offsets, rows.offsets)
    parts = [reader.read(np.array([video])) for video in (3, 0, 2)]
    np.testing.assert_array_equal(rows.vectors, np.concatenate([part.vectors for part, _ in parts]))
    np.testing.assert_array_equal(spans, np.concatenate([own for _, own in parts]))
    assert rows.offsets.tolist() == [0, 2, 5, 35]


def test_the_newest_version_is_followed_and_only_new_keys_are_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = store.reader()
    assert reader.newest() is reader
    before = all_videos(reader)
    read = []
    scan = reading._key_batches
    monkeypatch.setattr(reading, "_key_batches", lambda dataset, parts: read.append(len(parts)) or scan(dataset, parts))
    store.append_videos([a_video("d", 5, 5), a_video("b", 1, 6)])
    newest = reader.newest()
    assert read == [1] and newest is not reader
    assert newest.videos.names.to_pylist() == [*reader.videos.names.to_pylist(), "d"]
    assert_like_the_table(newest, store)
    np.testing.assert_equal(all_videos(reader), before)  # the older version is still there
    store.compact()  # second copies go, files are joined
    assert_like_the_table(newest.newest(), store)
    store.clear()
    store.append_videos([a_video("b", 3, 7)])
    assert_like_the_table(newest.newest(), store)
    store.clear()
    with pytest.raises(GridClipError, match="holds no videos: run"):
        newest.newest()


@pytest.mark.parametrize("index", [[1, 2], [0, 2], [0, 1, 1], [0, 1, 3]])
def test_rows_that_are_out_of_order_are_told(tmp_path: pathlib.Path, index: list[int]) -> None:
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([a_video("a", len(index), 0)])
    path = str(store.path / "super_images.lance")
    table = lance.dataset(path).to_table()
    lance.write_dataset(table.set_column(1, "index", pa.array(index, pa.int32())), path, mode="overwrite")
    for read in (store.reader, store.read_super_images):
        with pytest.raises(GridClipError, match="the super images of a video are not in order"):
            read()


def test_a_video_among_the_rows_of_another_is_told(tmp_path: pathlib.Path) -> None:
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([a_video("a", 3, 0)])
    path = str(store.path / "super_images.lance")
    table = lance.dataset(path).to_table()
    lance.write_dataset(table.set_column(0, "video_id", pa.array(["a", "b", "a"])), path, mode="overwrite")
    with pytest.raises(GridClipError, match="the super images of a video are not in order"):
        store.reader()


def test_rows_without_an_id_or_a_vector_are_told(tmp_path: pathlib.Path) -> None:
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([a_video("a", 3, 0)])
    path = str(store.path / "super_images.lance")
    table = lance.dataset(path).to_table()
    lance.write_dataset(table.set_column(0, "video_id", pa.array(["a", None, "a"])), path, mode="overwrite")
    with pytest.raises(GridClipError, match="1 of 3 rows have no video_id"):
        store.reader()
    vectors = pa.array([[1, 0, 0, 0], None, [0, 1, 0, 0]], pa.list_(pa.float16(), 4))
    lance.write_dataset(table.set_column(4, "vector", vectors), path, mode="overwrite")
    reader = store.reader()
    with pytest.raises(GridClipError, match="1 rows have no vector"):
        all_videos(reader)


@pytest.mark.parametrize("harm", ["missing", "cut short", "noise"])
def test_a_data_file_that_is_damaged_is_told(store: Store, harm: str) -> None:
    reader = store.reader()
    file = min((store.path / "super_images.lance" / "data").iterdir())
    whole = file.read_bytes()
    if harm == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[: len(whole) // 2] if harm == "cut short" else bytes(len(whole)))
    with pytest.raises(GridClipError, match="is damaged or cannot be read"):
        list(reader.read_blocks(reader.blocks()))


def test_rows_that_do_not_lie_as_in_the_files_are_read_by_lance(store: Store) -> None:
    dataset = lance.dataset(str(store.path / "super_images.lance"))
    dataset.delete("video_id = 'long'")
    assert_like_the_table(store.reader(), store)
