"""engine/evaluation.py and engine/report: recall of hand-made stores, missing videos, annotation files, the page."""

import dataclasses
import json

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.engine.annotations.annotations import Query, load_annotations, load_video_info
from gridclip.engine.evaluation.evaluation import evaluate
from gridclip.engine.report.page import write_report
from gridclip.engine.store.store import Store, VideoEmbedding


def make_store(path, videos, queries):
    """A store of {video id: vectors} and [(video id, text, vector)]."""
    store = Store.open(path, create=True)
    store.append_videos([VideoEmbedding(name, None, None, np.array(rows, np.float32)) for name, rows in videos.items()])
    store.put_queries(
        [Query(number, video, text) for number, (video, text, _) in enumerate(queries)],
        np.array([vector for _, _, vector in queries], np.float32),
    )
    return store


VIDEOS = {"a": [[1, 0, 0, 0]], "b": [[0, 1, 0, 0], [0, 0.8, 0.6, 0]], "c": [[0, 0, 1, 0]], "d": [[0, 0, 0, 1]]}
QUERIES = [
    ("a", "a first", [1, 0, 0, 0]),  # rank 1
    ("a", "b before a", [0.6, 0.8, 0, 0]),  # rank 2
    ("d", "d last", [0.5, 0.6, 0.6, 0.1]),  # rank 4
    ("c", "c with a tie", [0, 0, 0, 1]),  # a, b and c tie behind d: rank 4
    ("a", "a with a tie", [0, 0, 0, 1]),  # rank 2
    ("gone", "no video", [0, 0, 0, 1]),
    ("lost", "no video", [1, 0, 0, 0]),
    ("lost", "no video either", [1, 0, 0, 0]),
]


def test_recall_of_a_hand_made_store(tmp_path):
    found = evaluate(make_store(tmp_path / "s", VIDEOS, QUERIES), topk=(2, 1, 3, 100))
    assert found.recall == {1: 20, 2: 60, 3: 60, 100: 100}
    assert found.sum_recall == 240
    assert (found.median_rank, found.mean_rank) == (2, (1 + 2 + 4 + 4 + 2) / 5)
    assert (found.queries, found.candidates, found.super_images) == (5, 4, 5)
    assert (found.missing_queries, found.missing_videos) == (3, ["gone", "lost"])
    assert found.chance == {1: 25, 2: 50, 3: 75, 100: 100}


def test_missing_videos_can_count_as_failures(tmp_path):
    found = evaluate(make_store(tmp_path / "s", VIDEOS, QUERIES), topk=[1, 100], missing="count-as-failures")
    assert found.recall == {1: 100 / 8, 100: 500 / 8}
    assert (found.queries, found.missing_queries) == (8, 3)
    assert found.median_rank == 4
    assert found.mean_rank == (13 + 3 * 5) / 8
    assert "3 queries counted as failures: 2 videos have no embeddings (gone, lost)" in str(found)


def test_aggregate_and_temperature_matter(tmp_path):
    # The query meets one super image of x exactly; y is nearer on average.
    videos = {"x": [[1, 0, 0], [0, 1, 0], [0, 1, 0]], "y": [[0.9, 0.3, 0.3]]}
    store = make_store(tmp_path / "s", videos, [("x", "t", [1, 0, 0])])
    assert evaluate(store, topk=[1]).recall == {1: 0}
    assert evaluate(store, topk=[1], temperature=0.05).recall == {1: 100}
    assert evaluate(store, topk=[1], aggregate="max").recall == {1: 100}
    assert evaluate(store, topk=[1], aggregate="mean").recall == {1: 0}


def test_table_and_json(tmp_path):
    found = evaluate(make_store(tmp_path / "s", VIDEOS, QUERIES))
    lines = str(found).splitlines()
    assert lines[0].split() == ["R@1", "R@5", "R@10", "R@100", "SumR", "median", "rank", "mean", "rank"]
    assert lines[1].split() == ["store", "20.00", "100.00", "100.00", "100.00", "320.00", "2", "2.6"]
    assert lines[2].split()[:3] == ["95%", "from", "0.00"] and lines[3].split()[0] == "to"
    assert lines[4].split() == ["chance", "25.00", "100.00", "100.00", "100.00", "325.00", "2.5", "2.5"]
    assert lines[5] == "5 queries, 4 videos, 5 super images (softmax, temperature 1)"
    assert lines[6] == "3 queries dropped: 2 videos have no embeddings (gone, lost)"
    content = json.loads(json.dumps(found.to_json()))
    assert content["R@1"] == 20 and content["SumR"] == 320 and content["missing_videos"] == ["gone", "lost"]
    assert content["aggregate"] == "softmax" and content["temperature"] == 1 and "ties" in content


def test_an_annotation_file_chooses_queries_and_candidates(tmp_path):
    store = make_store(tmp_path / "s", VIDEOS, QUERIES)
    file = tmp_path / "val.json"
    captions = {"a": ["b before a", "b before a"], "c": ["c with a tie"]}
    file.write_text(json.dumps({name: {"sentences": sentences} for name, sentences in captions.items()}))
    found = evaluate(store, anno_path=file, topk=[1])
    assert (found.queries, found.candidates, found.recall) == (3, 2, {1: 200 / 3})  # b is no candidate any more
    file.write_text(json.dumps({"a": {"sentences": ["a first", "never embedded"]}}))
    with pytest.raises(GridClipError, match="1 of 2 captions .*'never embedded' of video a.*embed-text"):
        evaluate(store, anno_path=file)
    file.write_text(json.dumps({"gone": {"sentences": ["no video"]}}))
    with pytest.raises(GridClipError, match="none of the 4 videos in the store .* is named in .*val.json"):
        evaluate(store, anno_path=file)


def test_what_cannot_be_evaluated(tmp_path):
    store = make_store(tmp_path / "s", VIDEOS, QUERIES[-1:])
    with pytest.raises(GridClipError, match="none of the 1 queries has a video .* the first is of video lost"):
        evaluate(store)
    for wrong, message in (
        ({"topk": []}, "topk"),
        ({"topk": [0]}, "topk"),
        ({"missing": "x"}, "missing"),
        ({"aggregate": "x"}, "aggregate"),
        ({"temperature": 0}, "temperature"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(store, **wrong)
    with pytest.raises(GridClipError, match="holds no videos"):
        evaluate(Store.open(tmp_path / "empty", create=True))


def test_report_is_one_page_with_escaped_texts(tmp_path):
    queries = [*QUERIES[:4], ("a", "<script>&", [1, 0, 0, 0])]
    found = evaluate(make_store(tmp_path / "s", VIDEOS, queries), examples=10)
    assert [example.rank for example in found.examples] == [4, 4, 2, 1, 1]
    assert [name for name, _ in found.examples[2].best] == ["b", "a", "c", "d"]
    write_report(found, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "R@100" in page and "<script>" not in page and "&lt;script&gt;&amp;" in page
    assert "://" not in page and "url(" not in page  # nothing from outside
    found = dataclasses.replace(found, sampling={"fps": 0.5, "max_shift_s": None})
    write_report(found, tmp_path / "r.html")
    assert "<td>fps 0.5</td>" in (tmp_path / "r.html").read_text(encoding="utf-8")
    with pytest.raises(GridClipError, match="cannot write the report"):
        write_report(found, tmp_path / "nowhere" / "r.html")


def test_activitynet_has_the_queries_of_the_readable_videos(tmp_path, shared_data):
    folder = shared_data / "annotations"
    annotations = load_annotations(folder / "activitynet_val_1.json")
    readable = [
        info.video_id for info in load_video_info(folder / "activitynet_val_1_video_info.json") if info.frame_count > 0
    ]
    unreadable = (shared_data.parent / "procedure_000_ca25133475835eb8.txt").read_text().split("```")[1].split()
    videos = [video_id for video_id in readable if video_id not in unreadable]
    generator = np.random.default_rng(0)
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([VideoEmbedding(name, None, None, generator.standard_normal((1, 4))) for name in videos])
    store.put_queries(annotations.queries, generator.standard_normal((len(annotations.queries), 4)))
    found = evaluate(store, anno_path=folder / "activitynet_val_1.json")
    assert (found.candidates, found.queries, len(found.missing_videos)) == (4901, 17443, 16)
    assert found.recall[100] == pytest.approx(100 * 100 / 4901, abs=1)


def test_moments_are_measured_where_asked_for(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    vectors = np.eye(4, dtype=np.float32)
    times = np.array([0.0, 8.0]), np.array([8.0, 16.0])
    store.append_videos([VideoEmbedding("a", *times, vectors[:2]), VideoEmbedding("b", *times, vectors[2:])])
    queries = [Query(0, "a", "one", 8.0, 16.0), Query(1, "b", "two", 0.0, 4.0), Query(2, "b", "no times")]
    store.put_queries(queries, vectors[[1, 2, 2]])
    assert evaluate(store).moments is None and "miou" not in evaluate(store).to_json()
    found = evaluate(store, moments=True)
    assert found.moments is not None and (found.moments.queries, found.moments.without_times) == (2, 1)
    content = found.to_json()
    assert content["miou"] == pytest.approx(75) and content["oracle"] == pytest.approx(75)
    assert content["svmr"]["0.5"]["1"] == 100 and content["svmr"]["0.7"]["1"] == 50
    assert content["vcmr"]["0.7"]["100"] == 50
    assert "all videos, IoU 0.7" in str(found) and content["R@1"] == 100


def test_a_sweep_gives_what_each_scoring_gives_alone(tmp_path):
    store = make_store(tmp_path / "s", VIDEOS, QUERIES)
    sweep = {"temperature": [1, 0.1, 0.01], "aggregate": ["max", "windows", "mean", "tf-prvr", "softmax"]}
    for missing in ("drop", "count-as-failures"):
        found = evaluate(store, topk=[1, 2], sweep=sweep, missing=missing)
        scorings = [(entry.scoring.aggregate, entry.scoring.temperature) for entry in found.sweep]
        names = [(name, 1) for name in ("max", "windows", "mean", "tf-prvr")]
        assert scorings == [("softmax", 1), ("softmax", 0.1), ("softmax", 0.01), *names]  # softmax at 1 once
        for entry, (aggregate, temperature) in zip(found.sweep, scorings, strict=True):
            alone = evaluate(store, topk=[1, 2], aggregate=aggregate, temperature=temperature, missing=missing)
            assert entry.recall == alone.recall
            assert entry.to_json()["SumR"] == alone.sum_recall
        assert len(found.to_json()["sweep"]) == 7 and "softmax, temperature 0.01" in str(found)
    with pytest.raises(ValueError, match="sweep .'fps'. must be one of temperature, aggregate"):
        evaluate(store, sweep={"fps": [1]})
    with pytest.raises(ValueError, match="cannot be combined"):
        evaluate(store, sweep=sweep, normalise="sinkhorn")


def test_what_was_done_against_hubs_is_said(tmp_path):
    # The hub is nearer to every query than the query's own video is.
    axes, hub = np.eye(3), np.full(3, 3**-0.5)
    rows = {name: [row] for name, row in zip("abc", axes, strict=True)} | {"hub": [hub]}
    queries = [(name, name, 0.45 * row + hub) for name, row in zip("abc", axes, strict=True)]
    store = make_store(tmp_path / "s", rows, queries)
    assert evaluate(store, topk=[1]).recall == {1: 0}
    found = evaluate(store, topk=[1], normalise="sinkhorn", examples=3)
    assert found.recall == {1: 100} and [example.best[0][0] for example in found.examples] == ["a", "b", "c"]
    assert found.to_json()["normalise"] == {"name": "sinkhorn", "transductive": True, "sharpness": 20}
    assert "normalised: sinkhorn, over the test queries (transductive)" in str(found)
    banked = evaluate(store, topk=[1], normalise="qb-norm", query_bank=tmp_path / "s")
    assert banked.to_json()["normalise"]["bank_queries"] == 3 and "bank of 3 queries from" in str(banked)
    assert banked.recall == {1: 100}
    write_report(found, tmp_path / "r.html")
    assert "transductive" in (tmp_path / "r.html").read_text("utf-8")
    assert evaluate(store).to_json()["normalise"] == {"name": "none", "transductive": False}


def test_videos_that_are_too_short_for_the_wavelet_are_counted(tmp_path):
    rows = {"short": np.eye(15, 16), "long": np.eye(16)[::-1]}
    store = make_store(tmp_path / "s", rows, [("short", "t", np.eye(16)[0])])
    found = evaluate(store, aggregate="tf-prvr", topk=[1])
    assert found.to_json()["too_short_videos"] == 1
    assert "1 of 2 videos are too short for tf-prvr: windows at all scales join in" in str(found)
    assert evaluate(store, aggregate="windows").to_json()["too_short_videos"] == 0
