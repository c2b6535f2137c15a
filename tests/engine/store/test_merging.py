"""Tests of engine/store/merging.py and engine/jobs/merge_stores.py: many stores in, each video once out."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import gridclip
import lance
import numpy as np
import pytest
from gridclip import ArgumentError, GridClipError
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.store import merging
from gridclip.engine.store.copies import View
from gridclip.engine.store.store import Store, VideoEmbedding
from gridclip.engine.store.tables import vector_column

MODEL = {"format": 1, "name": "tiny", "embed_dim": 4, "fingerprint": "aa", "precision": "fp32"}
SAMPLING = {"source": "videos", "fps": 0.5, "grid_size": 2}


def make(path: pathlib.Path, videos: dict[str, int], seed: int = 0, *, model=MODEL, sampling=SAMPLING) -> Store:
    """A store with so many super images of each video, one append each; the vectors follow from id and seed."""
    store = Store.open(path, create=True)
    store.claim_model(model)
    store.claim_sampling(sampling)
    for video_id, count in videos.items():
        store.append_videos([embedding(video_id, count, seed)])
    return store


def embedding(video_id: str, count: int, seed: int = 0, views=()) -> VideoEmbedding:
    vectors = np.random.default_rng([seed, *video_id.encode()]).standard_normal((count, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return VideoEmbedding(video_id, np.arange(count) * 8.0, np.arange(count) * 8.0 + 8, vectors, views)


def rows(path: pathlib.Path) -> list[dict]:
    """All rows, without the product's reader, sorted."""
    found = lance.dataset(str(path / "super_images.lance")).scanner(scan_in_order=True).to_table().to_pylist()
    return sorted(found, key=lambda row: (row["video_id"], row["grid_size"], row["level"] == "cell", row["index"]))


def expected(videos: dict[str, tuple[int, int]]) -> list[dict]:
    """The rows of videos by id: how many, and the seed."""
    return [
        {
            "video_id": video_id,
            "index": index,
            "start_s": index * 8.0,
            "end_s": index * 8.0 + 8,
            "vector": embedding(video_id, count, seed).vectors[index].astype(np.float16).tolist(),
            "level": "super",
            "grid_size": 2,
        }
        for video_id, (count, seed) in sorted(videos.items())
        for index in range(count)
    ]


def queries(path: pathlib.Path) -> list[str]:
    return [query.text for query in Store.open(path).read_queries().queries]


@pytest.mark.parametrize("at_once", [1, 3, 32_768])
def test_every_video_and_query_comes_once_with_the_first_store_that_has_it(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(merging, "ROWS_PER_COMMIT", at_once)
    monkeypatch.setattr(merging, "BATCH_ROWS", 2)
    first = make(tmp_path / "1", {"b": 3, "a": 1, "long": 9})
    second = make(tmp_path / "2", {"c": 2, "b": 5}, seed=7)
    second.append_videos([embedding("c", 4, 8)])  # a second copy, which nobody reads
    one, two = Query(0, "a", "one", None, None), Query(1, "b", "two", 1.0, 2.0)
    first.put_queries([one, two], np.eye(4)[:2])
    second.put_queries([two, Query(2, "c", "three", None, None)], np.eye(4)[2:])
    found = gridclip.merge_stores(tmp_path / "s", [first, tmp_path / "2"])
    assert (found.videos, found.rows, found.queries, found.already_stored) == (4, 15, 3, 1)
    assert rows(tmp_path / "s") == expected({"a": (1, 0), "b": (3, 0), "long": (9, 0), "c": (2, 7)})
    assert queries(tmp_path / "s") == ["one", "two", "three"]
    merged = Store.open(tmp_path / "s")
    assert merged.model == first.model and merged.sampling == first.sampling

    version = lance.dataset(str(tmp_path / "s" / "super_images.lance")).version
    again = gridclip.merge_stores(tmp_path / "s", [first, second])
    assert (again.videos, again.queries, again.already_stored) == (0, 0, 5)
    assert lance.dataset(str(tmp_path / "s" / "super_images.lance")).version == version
    second.append_videos([embedding("new", 2)])
    assert gridclip.merge_stores(tmp_path / "s", [second], compact=True).videos == 1
    assert Store.open(tmp_path / "s").finished_videos() == {"a", "b", "c", "long", "new"}


def test_cells_and_several_grid_sizes_come_along(tmp_path):
    views = ((View("super", 1), 4), (View("super", 2), 1), (View("cell", 2), 4))
    store = make(tmp_path / "1", {})
    store.append_videos([embedding("a", 9, views=views), embedding("b", 9, views=views)])
    gridclip.merge_stores(tmp_path / "s", [store])
    assert rows(tmp_path / "s") == rows(tmp_path / "1")
    assert Store.open(tmp_path / "s").views() == store.views()


def test_a_store_of_an_older_version_gets_level_and_grid_size(tmp_path):
    store = make(tmp_path / "1", {"a": 3})
    table = lance.dataset(str(tmp_path / "1" / "super_images.lance")).to_table().drop_columns(["level", "grid_size"])
    lance.write_dataset(table, str(tmp_path / "1" / "super_images.lance"), mode="overwrite")
    gridclip.merge_stores(tmp_path / "s", [store])
    assert rows(tmp_path / "s") == expected({"a": (3, 0)})
    newer = make(tmp_path / "2", {"b": 2})
    gridclip.merge_stores(tmp_path / "1", [newer])  # and the other way round
    assert Store.open(tmp_path / "1").read_super_images().video_ids == ["a", "b"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {**MODEL, "fingerprint": "bb"}}, "model fingerprint = 'bb'.*'aa'"),
        ({"sampling": {**SAMPLING, "fps": 1.0}}, "sampling fps = 1.0.*0.5"),
        ({"sampling": {**SAMPLING, "cells": True}}, "sampling cells = True.*False"),
    ],
)
def test_another_model_or_sampling_is_refused_before_anything_is_written(tmp_path, changes, named):
    make(tmp_path / "1", {"a": 1})
    make(tmp_path / "2", {"b": 1}, **changes)
    with pytest.raises(GridClipError, match=named):
        gridclip.merge_stores(tmp_path / "new", [tmp_path / "1", tmp_path / "2"])
    assert not (tmp_path / "new").exists()
    make(tmp_path / "s", {"c": 1})
    with pytest.raises(GridClipError, match=named):
        gridclip.merge_stores(tmp_path / "s", [tmp_path / "2"])
    assert Store.open(tmp_path / "s").finished_videos() == {"c"}


def test_what_is_no_store_or_the_store_itself_is_refused(tmp_path):
    make(tmp_path / "s", {"a": 1})
    with pytest.raises(GridClipError, match="there is no store at .*nowhere"):
        gridclip.merge_stores(tmp_path / "s", [tmp_path / "nowhere"])
    with pytest.raises(ArgumentError, match="leave it out"):
        gridclip.merge_stores(tmp_path / "s", [tmp_path / "x" / ".." / "s"])


def test_a_vector_that_is_not_finite_does_not_spoil_the_merged_store(tmp_path):
    store = make(tmp_path / "1", {"a": 2})
    table = lance.dataset(str(tmp_path / "1" / "super_images.lance")).to_table()
    vectors = np.array(table["vector"].to_pylist(), np.float16)
    vectors[1, 2] = np.inf
    spoilt = table.set_column(table.schema.get_field_index("vector"), "vector", vector_column(vectors))
    lance.write_dataset(spoilt, str(tmp_path / "1" / "super_images.lance"), mode="overwrite")
    with pytest.raises(GridClipError, match="1 vectors of the store .*not finite .*video a"):
        gridclip.merge_stores(tmp_path / "s", [store])
    assert Store.open(tmp_path / "s").finished_videos() == set()


def test_failures_and_notices_come_along_unless_another_store_has_the_video(tmp_path):
    make(tmp_path / "1", {"a": 1})
    make(tmp_path / "2", {"b": 1})
    lines = {
        "1/failures.0-of-2.jsonl": [{"video_id": "b", "stage": "open", "reason": "r"}],
        "2/failures.1-of-2.jsonl": [{"video_id": "c", "stage": "decode", "reason": "r"}],
        "2/notices.1-of-2.jsonl": [{"video_id": "b", "kind": "damage", "detail": "d"}],
    }
    for name, records in lines.items():
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    for _ in range(2):
        assert gridclip.merge_stores(tmp_path / "s", [tmp_path / "1", tmp_path / "2"]).failures == 1
        for name in ("failures", "notices"):
            held = (tmp_path / "s" / f"{name}.jsonl").read_text().splitlines()
            assert [json.loads(line) for line in held] == lines[f"2/{name}.1-of-2.jsonl"]


MERGER = """
import sys, pathlib
import gridclip
from gridclip.engine.store import merging
merging.ROWS_PER_COMMIT = merging.BATCH_ROWS = 2
print("ready", flush=True)
gridclip.merge_stores(sys.argv[1], sys.argv[2:])
"""


def merger(*paths: pathlib.Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", MERGER, *map(str, paths)], stdout=subprocess.PIPE, text=True)


def test_two_merges_at_once_lose_and_double_nothing(tmp_path):
    counts = {f"v{number:02d}": 1 + number % 3 for number in range(24)}
    names = list(counts)
    make(tmp_path / "1", {name: counts[name] for name in names[:16]})
    make(tmp_path / "2", {name: counts[name] for name in names[8:]})
    running = [merger(tmp_path / "s", tmp_path / one, tmp_path / two) for one, two in ("12", "21")]
    assert [process.wait(60) for process in running] == [0, 0]
    assert rows(tmp_path / "s") == expected({name: (count, 0) for name, count in counts.items()})
    Store.open(tmp_path / "s").compact()
    assert rows(tmp_path / "s") == expected({name: (count, 0) for name, count in counts.items()})


def test_a_killed_merge_is_run_again(tmp_path):
    counts = {f"v{number:02d}": 1 + number % 3 for number in range(40)}
    make(tmp_path / "1", counts)
    with merger(tmp_path / "s", tmp_path / "1") as process:
        process.stdout.readline()
        while not (tmp_path / "s" / "super_images.lance" / "_versions").is_dir() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    before = len(Store.open(tmp_path / "s").finished_videos())
    found = gridclip.merge_stores(tmp_path / "s", [tmp_path / "1"])
    assert (found.already_stored, found.videos) == (before, 40 - before)
    assert rows(tmp_path / "s") == expected({name: (count, 0) for name, count in counts.items()})
