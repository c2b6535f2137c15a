"""engine/refinement on real files with the tiny model, held against stores of the whole videos at grid size 1."""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
import shutil
import statistics

import gridclip
import numpy as np
import pytest
from click.testing import CliRunner
from gridclip.cli import main
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.evaluation.evaluation import evaluate
from gridclip.engine.refinement import looking
from gridclip.engine.refinement.looking import Request
from gridclip.engine.refinement.refiner import Refiner, Refining, answer_refined
from gridclip.engine.search.questions import Question
from gridclip.engine.search.search import Searcher
from gridclip.engine.store.copies import View
from gridclip.engine.store.record import Record
from gridclip.engine.store.store import Store, VideoEmbedding
from naive_moments import naive_peaks

SECONDS = {"a": 22, "b": 31, "c": 40, "d": 19, "e": 25}
CELLS = View("cell", 3)


@dataclasses.dataclass(frozen=True)
class Made:
    """A folder of videos, the model, and stores of the videos at grid sizes 1 and 3, the latter with cells."""

    videos: pathlib.Path
    model: gridclip.engine.encoding.encoder.Encoder
    fine: pathlib.Path
    coarse: pathlib.Path


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_video, tiny_model_dir) -> Made:
    folder = tmp_path_factory.mktemp("refine")
    (folder / "videos").mkdir()
    for seed, (name, seconds) in enumerate(SECONDS.items()):
        write_video(folder / "videos" / f"{name}.mp4", duration_s=seconds, seed=seed)
    model = gridclip.load_model(tiny_model_dir, num_gpus=0)
    for name, grid_size in (("fine", 1), ("coarse", 3)):
        sampling = gridclip.Sampling(fps=1, grid_size=grid_size, super_img_size=model.info.image_size)
        gridclip.embed_videos(
            model, folder / "videos", folder / name, sampling=sampling, cells=grid_size > 1, num_workers=1
        )
    return Made(folder / "videos", model, folder / "fine", folder / "coarse")


@pytest.fixture
def coarse(made, tmp_path) -> Store:
    """A copy of the coarse store, to write beside it."""
    shutil.copytree(made.coarse, tmp_path / "coarse")
    return Store.open(tmp_path / "coarse")


def refiner_of(made: Made, store: Store, view: View = CELLS, *, videos: int = 3, folder=None, **options) -> Refiner:
    asked = Refining(videos, folder or made.videos, made.model, **options)
    return Refiner(store, view, asked, num_workers=1)


def frames_of(table, video_id: str) -> np.ndarray:
    video = table.video_ids.index(video_id)
    rows = table.vectors[table.offsets[video] : table.offsets[video + 1]].astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def expected(query: np.ndarray, cells: np.ndarray, fine: np.ndarray) -> tuple[float, range]:
    """Score and best moment (of frames) of one video by the aggregate max: by loops, from everything at grid size 1."""
    coarse = (cells @ query).tolist()
    _, moment = max(naive_peaks(coarse), key=lambda each: coarse[each[0]])
    around = range(max(0, moment.start - 1), min(len(fine), moment.stop + 1))
    similar = (fine[around.start : around.stop] @ query).tolist()
    peaks = naive_peaks(similar, background=statistics.median(coarse))
    _, own = max(peaks, key=lambda each: similar[each[0]])
    return (max(coarse) + max(similar)) / 2, range(around.start + own.start, around.start + own.stop)


def queries_of(made: Made, count: int) -> np.ndarray:
    return made.model.encode_texts(["a red circle", "a star", "blue stripes", "a square", "a cross", "green"][:count])


def test_refined_frames_are_those_of_the_whole_video_to_the_bit_and_come_from_the_cache_the_second_time(made, coarse):
    table = Store.open(made.fine).read_super_images()
    wanted = {"a": Request(np.arange(3, 9), 22), "c": Request(np.r_[0, 17:20, 39], 40)}
    for expected_passes in (11, 0):
        refiner = refiner_of(made, coarse)
        found = refiner.look(wanted)
        for video_id, request in wanted.items():
            first = table.offsets[table.video_ids.index(video_id)]
            np.testing.assert_array_equal(found[video_id].vectors, table.vectors[first + request.positions])
            np.testing.assert_array_equal(found[video_id].spans[:, 0], table.start_s[first + request.positions])
            np.testing.assert_array_equal(found[video_id].spans[:, 1], table.end_s[first + request.positions])
        assert refiner.cost.passes == expected_passes and refiner.cost.kept == 11 - expected_passes
        assert (refiner.cost.packets > 0) == (expected_passes > 0)
    more = refiner.look({"a": Request(np.arange(5, 12), 22)})
    assert refiner.cost.passes == 3 and len(more["a"]) == 7  # 9, 10 and 11 were missing


def test_a_search_is_what_a_loop_over_all_frames_computes(made, coarse):
    cells, fine = coarse.read_super_images("cell"), Store.open(made.fine).read_super_images()
    searcher, refiner = Searcher(coarse, aggregate="max"), refiner_of(made, coarse)
    for query in queries_of(made, 3):
        before = searcher.search(query, 5)
        found = {
            hit.video_id: expected(query, frames_of(cells, hit.video_id), frames_of(fine, hit.video_id))
            for hit in before[:3]
        }
        scores = {video_id: score for video_id, (score, _) in found.items()}
        hits = refiner.search(searcher, query, 5, moments=2)
        assert [hit.video_id for hit in hits[:3]] == sorted(scores, key=scores.__getitem__, reverse=True)
        np.testing.assert_allclose([hit.score for hit in hits[:3]], sorted(scores.values(), reverse=True), atol=1e-5)
        assert [(hit.video_id, hit.score) for hit in hits[3:]] == [(hit.video_id, hit.score) for hit in before[3:]]
        for hit in hits[:3]:
            first, moment = fine.offsets[fine.video_ids.index(hit.video_id)], found[hit.video_id][1]
            assert hit.start_s == fine.start_s[first + moment.start]
            assert hit.end_s == fine.end_s[first + moment.stop - 1]
        assert [hit.video_id for hit in refiner.search(searcher, query, 2)] == [hit.video_id for hit in hits[:2]]


def test_an_evaluation_ranks_as_searches_do(made, coarse):
    vectors = queries_of(made, 6)
    names = [*SECONDS, "a"]
    coarse.put_queries([Query(n, name, f"query {n}", 3.0, 4.0) for n, name in enumerate(names)], vectors)
    asked = Refining(3, made.videos, made.model)
    found = evaluate(coarse, aggregate="max", topk=(1, 2, 3, 4, 5), refine=asked, moments=True)
    searcher, refiner = Searcher(coarse, aggregate="max"), refiner_of(made, coarse)
    hits = [refiner.search(searcher, vector, 5) for vector in vectors.astype(np.float16)]
    orders = [[hit.video_id for hit in each] for each in hits]
    ranks = [order.index(name) + 1 for order, name in zip(orders, names, strict=True)]
    assert found.outcomes.ranks.tolist() == ranks
    predicted = found.moments.predictions["vcmr"]
    for number, each in enumerate(hits):
        spans = [(hit.start_s, hit.end_s) for hit in each]
        np.testing.assert_allclose(predicted.moments.spans[number, :5], spans)
    assert found.to_json()["refined"]["passes"] == found.refinement.cost.passes > 0
    assert found.refinement.coarse_passes == sum(-(-seconds // 9) for seconds in SECONDS.values())
    assert "refined the 3 best videos of each query" in str(found)
    assert found.moments.oracle <= 100
    for other in ({"sweep": {"temperature": [1.0]}}, {"normalise": "sinkhorn"}):
        with pytest.raises(gridclip.ArgumentError, match="cannot be combined"):
            evaluate(coarse, refine=asked, **other)


def test_super_images_are_refined_too_and_there_may_be_fewer_videos_than_asked_for(made, coarse):
    view = View("super", 3)
    searcher = Searcher(coarse, aggregate="windows", level="super")
    refiner = refiner_of(made, coarse, view, videos=50)
    hits = refiner.search(searcher, queries_of(made, 1)[0], 50)
    assert {hit.video_id for hit in hits} == set(SECONDS)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert refiner.cost.passes <= sum(SECONDS.values()) and not refiner.cost.failed
    again = refiner_of(made, coarse, view, videos=50)
    assert again.search(searcher, queries_of(made, 1)[0], 50) == hits
    assert again.cost.passes == again.cost.packets == 0  # also of the last super images, which are not full


def test_a_video_that_fails_keeps_its_coarse_score(made, coarse, tmp_path, caplog):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in "cde":
        shutil.copy(made.videos / f"{name}.mp4", folder)
    (folder / "d.mp4").write_bytes(b"no video any more")
    shutil.copy(made.videos / "c.mp4", folder / "e.mp4")  # another video under this name; a and b are gone
    searcher = Searcher(coarse, aggregate="max")
    before = {hit.video_id: hit for hit in searcher.search(queries_of(made, 1)[0], 5)}
    refiner = refiner_of(made, coarse, videos=5, folder=folder)
    with caplog.at_level(logging.WARNING):
        hits = refiner.search(searcher, queries_of(made, 1)[0], 5)
    assert {hit.video_id for hit in hits if hit == before[hit.video_id]} == set("abde")
    assert refiner.cost.failed == 4 and caplog.text.count("keeps its coarse score") == 4
    assert "e: it makes 40 cell embeddings" in caplog.text
    caplog.clear()
    assert refiner.search(searcher, queries_of(made, 1)[0], 5) == hits  # and they are not tried again
    assert refiner.cost.failed == 4 and not caplog.text


def test_a_store_that_cannot_be_written_to_works_without_a_cache(made, coarse, monkeypatch):
    def refuse(self):
        raise gridclip.GridClipError("read-only")

    monkeypatch.setattr(Record, "locked", refuse)
    for _ in range(2):
        refiner = refiner_of(made, coarse)
        assert len(refiner.look({"a": Request(np.arange(3), 22)})["a"]) == refiner.cost.passes == 3
    assert not (coarse.path / "refined.lance").exists()


def test_what_is_kept_is_none_of_the_stores_own(made, coarse):
    before = coarse.views(), coarse.finished_videos()
    refiner_of(made, coarse).look({"a": Request(np.arange(3), 22)})
    assert (coarse.path / "refined.lance").is_dir()
    assert (coarse.views(), coarse.finished_videos()) == before
    coarse.compact()
    assert refiner_of(made, coarse).look({"a": Request(np.arange(3), 22)}).keys() == {"a"}


def test_many_videos_are_looked_at_a_few_at_a_time(made, coarse, monkeypatch):
    monkeypatch.setattr(looking, "VIDEOS_AT_ONCE", 2)
    refiner = refiner_of(made, coarse)
    found = refiner.look({name: Request(np.arange(2), seconds) for name, seconds in SECONDS.items()})
    assert found.keys() == SECONDS.keys() and refiner.cost.passes == 10


def test_what_cannot_be_refined_is_told(made, coarse, tmp_path):
    with pytest.raises(gridclip.GridClipError, match="is searched at grid size 1"):
        refiner_of(made, Store.open(made.fine), View("super", 1))
    features = Store.open(tmp_path / "features", create=True)
    features.append_videos([VideoEmbedding("a", None, None, np.eye(3, dtype=np.float32))])
    with pytest.raises(gridclip.GridClipError, match="does not say how its videos were sampled"):
        refiner_of(made, features, View("super", None))
    with pytest.raises(gridclip.ArgumentError, match="`refine=0` must be >= 1"):
        refiner_of(made, coarse, videos=0)
    searcher = Searcher(coarse)
    for question in (Question(["a", "b"]), Question(["a"], ["b"]), Question(picture=b"")):
        with pytest.raises(gridclip.ArgumentError, match="is for one sentence"):
            answer_refined(refiner_of(made, coarse), searcher, made.model, question, top=3)


def test_the_command_line(made, coarse, tiny_model_dir, tmp_path):
    coarse.put_queries([Query(0, "a", "a red circle")], queries_of(made, 1))
    shared = ["--store", str(coarse.path), "--aggregate", "max", "--model", str(tiny_model_dir)]
    refine = ["--refine", "4", "--video-dir", str(made.videos), "--refine-cache", "100"]

    def run(*words: str) -> str:
        done = CliRunner().invoke(main, list(words))
        assert done.exit_code == 0, done.output
        return done.output

    output = run("search", "a red circle", *shared, *refine, "--num-gpus", "0")
    assert "refined: " in output and "packets decoded" in output
    told = json.loads(run("search", "a red circle", *shared, *refine, "--num-gpus", "0", "--json"))
    assert told["refined"]["passes"] == 0 and told["refined"]["kept"] > 0
    by_face = gridclip.search(
        made.model, "a red circle", coarse, aggregate="max", refine=4, video_dir=made.videos, top=10
    )
    assert [hit.score for hit in by_face] == [each["score"] for each in told["results"]]
    output = run("evaluate", *shared, *refine, "--json", str(tmp_path / "e.json"))
    assert "refined the 4 best videos" in output
    assert json.loads((tmp_path / "e.json").read_text())["refined"]["videos"] == 4
    for words in (["search", "a", *shared], ["evaluate", *shared]):
        done = CliRunner().invoke(main, [*words, "--refine", "3"])
        assert done.exit_code == 2 and "--video-dir" in done.output
