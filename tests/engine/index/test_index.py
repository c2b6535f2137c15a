"""Tests of engine/index/ and of searches by it: against loops over every video, in every state of a store."""

from __future__ import annotations

import itertools
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import gridclip
import lance
import numpy as np
import pytest
from gridclip import ArgumentError, GridClipError
from gridclip.benchmarks.demo import train_tiny_clip as demo
from gridclip.engine.choices import IndexMode
from gridclip.engine.index import building, means
from gridclip.engine.index.building import Indexed, index_store
from gridclip.engine.scoring.scoring import Scoring
from gridclip.engine.search import search as searching
from gridclip.engine.search import snapshot
from gridclip.engine.search.search import Hit, Searcher
from gridclip.engine.store import reader as reading
from gridclip.engine.store.copies import View
from gridclip.engine.store.store import Store, VideoEmbedding
from gridclip.engine.store.tables import vector_column

WIDTH = 128
SCORINGS = [
    Scoring("softmax", 1.0),
    Scoring("softmax", 0.2),
    Scoring("softmax", 0.02),
    Scoring("mean"),
    Scoring("max"),
]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def video(name: str, seed: int | None = None, views: Sequence[tuple[View, int]] = ()) -> VideoEmbedding:
    """A video of a few scenes around one of 12 topics; the same again for the same name and seed."""
    own = np.random.default_rng([*name.encode(), seed or 0])
    topics = np.random.default_rng(12).standard_normal((12, WIDTH))
    length = sum(count for _, count in views) or int(own.integers(1, 9))
    centre = topics[own.integers(len(topics))] + 0.7 * own.standard_normal(WIDTH)
    vectors = unit(centre + 0.7 * own.standard_normal((length, WIDTH))).astype(np.float16)
    start_s = np.arange(length) * 8.0
    return VideoEmbedding(name, start_s, start_s + 8, vectors, tuple(views))


def videos(numbers: Iterable[int]) -> list[VideoEmbedding]:
    return [video(f"v{number:04d}") for number in numbers]


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Store:
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos(videos(range(250)))
    store.append_videos(videos(range(250, 400)))
    return store


@pytest.fixture(autouse=True)
def _small_stores_are_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "INDEX_FROM_ROWS", 0)
    monkeypatch.setattr(searching, "WORTHWHILE", 0.25)
    monkeypatch.setattr(searching, "CANDIDATES", 100)  # few beside the videos
    monkeypatch.setattr(searching, "CANDIDATES_PER_HIT", 10)
    monkeypatch.setattr(snapshot, "ROWS_AT_ONCE", 100)


def queries(count: int = 25) -> np.ndarray:
    return np.random.default_rng(99).standard_normal((count, WIDTH)).astype(np.float32)


def by_definition(rows: np.ndarray, query: np.ndarray, scoring: Scoring) -> float:
    """In float64, with the weighted sum itself."""
    rows, query = unit(rows.astype(np.float64)), unit(query.astype(np.float64))
    similar = rows @ query
    if scoring.aggregate == "max":
        return float(similar.max())
    weights = np.ones(len(rows))
    if scoring.aggregate == "softmax":
        weights = np.exp((similar - similar.max()) / scoring.temperature)
    return float(unit(weights @ rows) @ query)


def assert_found(store: Store, hits: list[Hit], query: np.ndarray, scoring: Scoring) -> int:
    """Scores are exact whatever was found; returns how many of the hits are of the best 10, or as good to 6 digits."""
    table = store.read_super_images()
    scores = {
        name: by_definition(table.vectors[first:last], query, scoring)
        for name, (first, last) in zip(table.video_ids, itertools.pairwise(table.offsets), strict=True)
    }
    np.testing.assert_allclose([hit.score for hit in hits], [scores[hit.video_id] for hit in hits], atol=2e-6)
    assert len({hit.video_id for hit in hits}) == len(hits) == 10
    tenth = sorted(scores.values(), reverse=True)[9]
    return sum(hit.score >= tenth - 2e-6 for hit in hits)


def searcher(store: Store, scoring: Scoring = SCORINGS[0], index: IndexMode = "ann") -> Searcher:
    return Searcher(store, aggregate=scoring.aggregate, temperature=scoring.temperature, index=index)


@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
def test_it_finds_what_a_loop_over_all_videos_finds(store: Store, scoring: Scoring) -> None:
    told = index_store(store)
    assert (told.videos, told.new_videos) == (400, 400) and told.rows == told.new_rows > 1200
    found, exact = searcher(store, scoring), searcher(store, scoring, "exact")
    assert found.way() == "ann" and exact.way() == "exact"
    recalled = 0
    for query in queries():
        hits = found.search(query, 10, moments=2)
        recalled += assert_found(store, hits, query, scoring)
        same = {hit.video_id: hit for hit in exact.search(query, 400, moments=2)}
        assert all(hit.moments == same[hit.video_id].moments for hit in hits)
    assert recalled >= 0.99 * 10 * len(queries())
    together = found.search_many(queries(), 10)
    alone = [found.search(query, 10) for query in queries()]
    assert [[hit.video_id for hit in hits] for hits in together] == [[hit.video_id for hit in hits] for hits in alone]
    assert found.search_terms(queries(1), None, 10) == found.search(queries(1), 10)


@pytest.fixture(scope="module")
def demo_store(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: pathlib.Path) -> tuple[Store, np.ndarray]:
    """Videos of three of the demo's scenes each, as its tiny CLIP embeds them, and the vectors of captions."""
    model, rng = gridclip.load_model(tiny_model_dir), np.random.default_rng(3)
    rendered = demo.render_scenes(demo.draw_scenes(30, 5, unseen=True), processes=1)
    chosen = [rng.choice(len(rendered), 3, replace=False).tolist() for _ in range(150)]
    batch = demo.make_batch([[rendered[number] for number in numbers] for numbers in chosen], [2] * len(chosen), rng)
    images = model.encode_images(batch.super_images)
    store = Store.open(tmp_path_factory.mktemp("demo") / "s", create=True)
    store.append_videos(
        [
            VideoEmbedding(f"d{number:03d}", None, None, images[batch.video_of_image == number])
            for number in range(len(chosen))
        ]
    )
    index_store(store)
    return store, model.encode_texts(batch.captions[:40])


@pytest.mark.parametrize("scoring", SCORINGS, ids=str)
def test_it_finds_what_a_loop_finds_among_the_demos_vectors(
    demo_store: tuple[Store, np.ndarray], scoring: Scoring
) -> None:
    store, captions = demo_store
    found = searcher(store, scoring)
    recalled = sum(assert_found(store, found.search(query, 10), query, scoring) for query in captions)
    assert recalled >= 0.99 * 10 * len(captions)


@pytest.mark.parametrize("scoring", SCORINGS[:3], ids=str)
def test_what_comes_after_the_index_is_found_and_the_next_run_adds_only_that(
    store: Store, monkeypatch: pytest.MonkeyPatch, scoring: Scoring
) -> None:
    monkeypatch.setattr(means, "MOST_FRAGMENTS", 2)  # then they are joined
    index_store(store)
    late = [video("late", 1), video("v0003", 7), video("later", 2)]  # v0003 is stored already: a second copy
    store.append_videos(late)
    for new in (2, 0):
        found = searcher(store, scoring)
        for each in (late[0], late[2]):
            query = each.vectors.astype(np.float32).mean(axis=0)
            hits = found.search(query, 10)
            assert hits[0].video_id == each.video_id
            assert_found(store, hits, query, scoring)
        told = index_store(store)
        assert told.new_videos == new and told.videos == 402
        assert told.new_rows == (sum(len(each.vectors) for each in late) if new else 0)
    for number in range(400, 405):
        store.append_videos(videos([number]))
        assert index_store(store).new_videos == 1
    segments = lance.dataset(str(store.path / "super_images.lance")).describe_indices()[0].segments
    assert len(segments) == 2  # runs that add little share a part
    files = lance.dataset(str(store.path / "video_means_super_unknown.lance")).get_fragments()
    assert len(files) < 5  # of seven appends
    query = video("late", 1).vectors.astype(np.float32).mean(axis=0)
    assert searcher(store, scoring).search(query, 10)[0].video_id == "late"


def test_a_job_may_append_while_the_index_is_made(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add_means = means.add_means

    def then_append(*arguments: Any) -> lance.LanceDataset:
        added = add_means(*arguments)
        store.append_videos([video("meanwhile", 1)])  # in the index of super images, not among the means
        return added

    monkeypatch.setattr(means, "add_means", then_append)
    told = index_store(store)
    assert told.videos == 400
    query = video("meanwhile", 1).vectors.astype(np.float32).mean(axis=0)
    for scoring in SCORINGS:
        hits = searcher(store, scoring).search(query, 10)
        assert hits[0].video_id == "meanwhile" and assert_found(store, hits, query, scoring) >= 9


def test_an_index_is_made_anew_when_the_store_has_outgrown_it(store: Store) -> None:
    index_store(store)
    store.append_videos(videos(range(400, 900)))
    told = index_store(store)
    assert told.new_videos == told.videos == 900 and told.new_rows == told.rows
    assert len(lance.dataset(str(store.path / "super_images.lance")).describe_indices()[0].segments) == 1


def test_videos_that_are_embedded_again_are_not_found_by_their_old_vectors(store: Store) -> None:
    index_store(store)
    kept = store.path.parent / "means"
    left_over = store.path / "video_means_super_unknown.lance"
    shutil.copytree(left_over, kept)
    open_before = searcher(store)
    store.clear_super_images()  # what --overwrite does
    assert not left_over.exists()
    again = [video(f"v{number:04d}", seed=5) for number in range(400)]
    store.append_videos(again)
    shutil.copytree(kept, left_over)  # a job was killed while it cleared the store, say
    with pytest.raises(GridClipError, match="has no index of super images .* run gridclip index, or leave out"):
        searcher(store)
    with pytest.raises(GridClipError, match="has no index"):
        open_before.refresh()
    query = again[123].vectors.astype(np.float32).mean(axis=0)
    assert searcher(store, index="auto").way() == "exact"
    assert index_store(store).new_videos == 400
    hits = searcher(store).search(query, 10)
    assert hits[0].video_id == "v0123" and assert_found(store, hits, query, SCORINGS[0]) == 10


KILLED = """
import os, sys
import gridclip.engine.index.building as building, gridclip.engine.index.means as means, lance
from lance.dataset import DatasetOptimizer
from gridclip.engine.store.store import Store
left = int(sys.argv[2])
def dies(function):
    def run(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return function(*arguments, **options)
    return run
means.VIDEOS_PER_COMMIT = 150
lance.LanceDataset.commit = dies(lance.LanceDataset.commit)
lance.LanceDataset.update_config = dies(lance.LanceDataset.update_config)
lance.LanceDataset.create_index = dies(lance.LanceDataset.create_index)
DatasetOptimizer.optimize_indices = dies(DatasetOptimizer.optimize_indices)
building.index_store(Store.open(sys.argv[1]))
"""


@pytest.mark.parametrize("steps", range(9))
def test_a_run_that_is_killed_leaves_a_store_that_is_searched_and_indexed(
    store: Store, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(reading, "ROWS", 64)
    program = [sys.executable, "-c", KILLED, str(store.path), str(steps)]
    status = subprocess.run(program, check=False, timeout=60).returncode
    # A name, the table of means and what it is of, an append of means, two indexes, each with the rows it was made of.
    assert status == (9 if steps < 8 else 0)
    for scoring in (SCORINGS[0], SCORINGS[2], SCORINGS[4]):
        found = searcher(store, scoring, "auto")
        assert sum(assert_found(store, found.search(query, 10), query, scoring) for query in queries(5)) >= 47
    told = index_store(store)
    assert told.videos == 400
    for scoring in (SCORINGS[0], SCORINGS[2], SCORINGS[4]):
        found = searcher(store, scoring)
        assert sum(assert_found(store, found.search(query, 10), query, scoring) for query in queries(5)) >= 47
    assert index_store(store).new_rows == 0


@pytest.mark.parametrize("second_copies", [True, False])
def test_compacting_keeps_what_is_found(store: Store, second_copies: bool) -> None:
    for number in range(400, 430):  # a small file each
        store.append_videos(videos([number]))
        if number == 410:
            index_store(store)
    if second_copies:
        store.append_videos([video("v0003", 7)])
    open_before = searcher(store, SCORINGS[4])
    store.compact()
    for scoring in (SCORINGS[0], SCORINGS[4]):
        found = searcher(store, scoring, "auto")
        recalled = sum(assert_found(store, found.search(query, 10), query, scoring) for query in queries())
        assert recalled >= 0.99 * 10 * len(queries())
        assert found.way() == ("exact" if second_copies and scoring.aggregate == "max" else "ann")
    assert len(open_before.search(queries(1)[0], 10)) == 10  # by the version before
    assert index_store(store).videos == 430
    hits = searcher(store, SCORINGS[4]).search(queries(1)[0], 10)
    assert assert_found(store, hits, queries(1)[0], SCORINGS[4]) >= 9


@pytest.mark.parametrize("scoring", [SCORINGS[0], SCORINGS[4]], ids=str)
def test_only_the_level_and_grid_size_that_is_searched_is_found(tmp_path: pathlib.Path, scoring: Scoring) -> None:
    store = Store.open(tmp_path / "s", create=True)
    views = ((View("super", 2), 2), (View("super", 3), 1), (View("cell", 3), 5))
    store.append_videos([video(f"v{number:03d}", views=views) for number in range(300)])
    for view, count in views:
        told = index_store(store, view.level, view.grid_size)
        assert told.view == view and told.videos == 300 and told.rows == 2400
        found = Searcher(
            store,
            aggregate=scoring.aggregate,
            level=view.level,
            grid_size=view.grid_size,
            index="ann",
        )
        table = store.read_super_images(view.level, view.grid_size)
        vectors = table.vectors.reshape(300, count, WIDTH)
        for query in queries(5):
            hits = found.search(query, 10)
            expected = dict(zip(table.video_ids, (by_definition(own, query, scoring) for own in vectors), strict=True))
            np.testing.assert_allclose([hit.score for hit in hits], [expected[hit.video_id] for hit in hits], atol=2e-6)
            best = sorted(expected, key=expected.__getitem__, reverse=True)[:10]
            assert hits[0].video_id == best[0] and len({hit.video_id for hit in hits} & {*best}) >= 9


def test_means_of_one_view_do_not_serve_another(tmp_path: pathlib.Path) -> None:
    store = Store.open(tmp_path / "s", create=True)
    views = ((View("super", 2), 2), (View("cell", 2), 5))
    store.append_videos([video(f"v{number:03d}", views=views) for number in range(50)])
    index_store(store, "super")
    assert Searcher(store, level="super", index="ann").way() == "ann"
    with pytest.raises(GridClipError, match="has no index of cells at grid size 2 for softmax"):
        Searcher(store, index="ann")


def test_an_open_searcher_follows_and_keeps_its_vectors(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    found = searcher(store, index="auto")
    before = found.search(queries(1)[0], 10)
    assert found.way() == "exact" and not found.refresh()
    index_store(store)
    assert found.way() == "exact" and found.refresh() and found.way() == "ann" and not found.refresh()
    assert [hit.video_id for hit in found.search(queries(1)[0], 10)] == [hit.video_id for hit in before]
    read = []
    monkeypatch.setattr(reading.SuperImageReader, "read_blocks", lambda self, blocks: read.extend(blocks) or iter(()))
    assert found.search_terms(queries(2), top=3) and read == []  # every video is scored, from what was kept
    store.append_videos([video("new", 1)])
    monkeypatch.undo()
    assert found.refresh()
    assert found.search(video("new", 1).vectors.astype(np.float32).mean(axis=0), 1)[0].video_id == "new"


def test_searching_by_an_index_writes_nothing(store: Store) -> None:
    index_store(store)

    def files() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in sorted(store.path.rglob("*"))}

    before = files()
    for scoring in (SCORINGS[0], SCORINGS[4]):
        found = searcher(store, scoring)
        found.search(queries(1)[0], 10)
        assert not found.refresh()
    assert files() == before


def test_merged_stores_are_found(store: Store, tmp_path: pathlib.Path) -> None:
    index_store(store)
    other = Store.open(tmp_path / "other", create=True)
    other.append_videos([*videos([1, 2]), video("theirs", 1)])
    index_store(other)
    gridclip.merge_stores(store, [other], compact=True)
    query = video("theirs", 1).vectors.astype(np.float32).mean(axis=0)
    assert searcher(store).search(query, 10)[0].video_id == "theirs"
    assert index_store(store).new_videos == 1


def test_auto_is_exact_where_an_index_gains_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    index_store(store)
    found = searcher(store, index="auto")
    assert found.way() == found.way(top=10) == "ann"
    assert found.way(wanted=2) == found.way(unwanted=1) == found.way(top=11) == "exact"
    assert len(found.search(queries(1)[0], 500)) == 400 and len(found.search_terms(queries(2), top=5)) == 5
    assert searcher(store, Scoring("windows"), "auto").way() == "exact"
    monkeypatch.setattr(searching, "INDEX_FROM_ROWS", 1_000_000)
    assert searcher(store, index="auto").way() == "exact" and searcher(store).way() == "ann"


def test_what_no_index_can_do_is_refused(store: Store, tmp_path: pathlib.Path) -> None:
    index_store(store)
    found = searcher(store)
    for wanted, unwanted in ((queries(2), None), (queries(1), queries(1))):
        with pytest.raises(ArgumentError, match="no index for several sentences in order, or unwanted ones"):
            found.search_terms(wanted, unwanted)
    for name in ("windows", "tf-prvr"):
        with pytest.raises(ArgumentError, match=f"no index for `aggregate='{name}'`"):
            searcher(store, Scoring(name))
    with pytest.raises(ValueError, match=r"index \('fast'\) must be one of auto, exact, ann"):
        Searcher(store, index="fast")  # type: ignore[arg-type]
    narrow = Store.open(tmp_path / "narrow", create=True)
    narrow.append_videos([VideoEmbedding("a", None, None, np.eye(3, dtype=np.float32))])
    with pytest.raises(GridClipError, match="are 3 wide, an index takes multiples of 8"):
        index_store(narrow)
    with pytest.raises(GridClipError, match="holds no videos"):
        index_store(Store.open(tmp_path / "empty", create=True))


@pytest.mark.parametrize("table", ["video_means_super_unknown", "super_images"])
def test_a_damaged_index_is_not_needed(store: Store, table: str, caplog: pytest.LogCaptureFixture) -> None:
    index_store(store)
    scoring = SCORINGS[0] if table.startswith("video") else SCORINGS[4]
    for path in (store.path / f"{table}.lance" / "_indices").rglob("*.idx"):
        path.write_bytes(b"\0" * 40)
    hits = searcher(store, scoring, "auto").search(queries(1)[0], 10)
    assert assert_found(store, hits, queries(1)[0], scoring) == 10
    assert "cannot be read" in caplog.text and "every video is scored" in caplog.text
    with pytest.raises(GridClipError, match=r"cannot be read: .*search without it, `index='exact'`"):
        searcher(store, scoring).search(queries(1)[0], 10)


def test_a_damaged_table_of_means_is_made_anew(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    index_store(store)
    for path in (store.path / "video_means_super_unknown.lance" / "_versions").iterdir():
        path.write_bytes(b"\0" * 40)
    assert searcher(store, index="auto").way() == "exact"
    assert "gridclip index makes it anew" in caplog.text
    assert index_store(store).new_videos == 400
    assert searcher(store).way() == "ann"


def test_vectors_that_are_not_finite_are_told(store: Store) -> None:
    path = str(store.path / "super_images.lance")
    table = lance.dataset(path).to_table()
    vectors = np.stack(table["vector"].to_pylist()).astype(np.float16)
    vectors[0] = np.nan
    lance.write_dataset(table.set_column(4, "vector", vector_column(vectors)), path, mode="overwrite")
    with pytest.raises(GridClipError, match=r"1 vectors of 1 videos .* are not finite \(v0000\)"):
        index_store(store)


def test_two_runs_at_once_wait_for_each_other(store: Store) -> None:
    program = "import sys, gridclip; print(gridclip.index(sys.argv[1]).new_videos)"
    runs = [
        subprocess.Popen([sys.executable, "-c", program, str(store.path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert sorted(run.communicate(timeout=60)[0].strip() for run in runs) == ["0", "400"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.may_skip
def test_a_store_that_cannot_be_written_is_told(store: Store) -> None:
    store.path.chmod(0o555)
    with pytest.raises(GridClipError, match="cannot write to the store"):
        index_store(store)


def test_what_was_done_is_said() -> None:
    told = Indexed("s", View("super", 2), 1_200, 200, 18_000, 3_000, 5 << 20)
    assert str(told) == (
        "indexed s, super images at grid size 2: 1,200 videos (200 new), 18,000 rows (3,000 new), 5.0 MiB"
    )
    assert told.to_json()["view"] == {"level": "super", "grid_size": 2}
    assert building.ROW_BITS < building.MEAN_BITS
