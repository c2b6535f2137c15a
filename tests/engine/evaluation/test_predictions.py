"""engine/prediction_evaluation.py: files of predictions against hand-made truths, and ours out and in again."""

import json

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.evaluation.comparison import compare_evaluations
from gridclip.engine.evaluation.evaluation import evaluate
from gridclip.engine.evaluation.predictions import evaluate_predictions
from gridclip.engine.store.store import Store, VideoEmbedding

QVHIGHLIGHTS = [
    {"qid": 5, "query": "one", "vid": "a", "duration": 20, "relevant_windows": [[0, 4], [10, 14]]},
    {"qid": 6, "query": "two", "vid": "b", "duration": 20, "relevant_windows": [[2, 6]]},
    {"qid": 7, "query": "three", "vid": "b"},
]


@pytest.fixture
def truth(tmp_path):
    path = tmp_path / "truth.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in QVHIGHLIGHTS))
    return path


def test_the_nearest_of_several_true_moments_counts(tmp_path, truth):
    windows = [[10, 14, 0.9], [0, 20, 0.5], [0, 4, 0.1]]
    record = {"qid": 5, "query": "one", "vid": "a", "pred_relevant_windows": windows}
    (tmp_path / "p.jsonl").write_text(json.dumps(record))
    found = evaluate_predictions(tmp_path / "p.jsonl", truth, topk=[1])
    assert (found.queries, found.without_predictions, found.without_times) == (2, 1, 1)
    assert found.svmr == {0.3: {1: 50}, 0.5: {1: 50}, 0.7: {1: 50}} and found.vcmr is None
    assert found.miou is not None and found.miou.mean == 50
    # Both true moments found, at places 1 and 3: precision 1 and 2/3; the second query has none.
    assert found.mean_ap is not None and found.mean_ap[0.95] == pytest.approx(100 * (1 + 2 / 3) / 2 / 2)
    assert "1 without predictions" in str(found) and "mAP" in str(found)


def test_ours_go_out_and_come_back_the_same(tmp_path, truth):
    rng = np.random.default_rng(0)
    starts = np.arange(5) * 4.0
    vectors = {name: rng.normal(size=(5, 8)).astype(np.float32) for name in "abc"}
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([VideoEmbedding(name, starts, starts + 4, rows) for name, rows in vectors.items()])
    queries = [Query(0, "a", "one", 0, 4), Query(1, "b", "two", 2, 6), Query(2, "b", "three")]
    store.put_queries(queries, rng.normal(size=(3, 8)).astype(np.float32))
    ours = evaluate(store, anno_path=truth, moments=True, aggregate="max")
    content = ours.to_json()
    for name, tasks in (("p.json", ("svmr", "vcmr")), ("p.jsonl", ("svmr",))):
        ours.write_predictions(tmp_path / name)
        back = evaluate_predictions(tmp_path / name, truth).to_json()
        assert {task: back[task] for task in tasks} == {task: content[task] for task in tasks}
        assert back["miou"] == pytest.approx(content["miou"]) and back["map"] == content["map"]
    assert '"qid": 5' in (tmp_path / "p.jsonl").read_text()
    compared = compare_evaluations(content, back, other_queries="leave-out")
    assert compared.queries == 2 and compared.only_first == 1 and "R@1" not in compared.metrics
    assert compared.metrics["mIoU"].difference.mean == 0
    with pytest.raises(GridClipError, match="no moments to write"):
        evaluate(store).write_predictions(tmp_path / "x.json")


def test_what_cannot_be_evaluated(tmp_path, truth):
    (tmp_path / "p.json").write_text(json.dumps({"video2idx": {"a": 0}, "VR": []}))
    with pytest.raises(GridClipError, match="predictions for VR, expected VCMR or SVMR"):
        evaluate_predictions(tmp_path / "p.json", truth)
    entry = {"desc_id": 1, "desc": "x", "predictions": [[0, 0, 1, 0.5]]}
    (tmp_path / "p.json").write_text(json.dumps({"video2idx": {"a": 0}, "VCMR": [entry]}))
    with pytest.raises(GridClipError, match="no predictions for the queries .* first is 5 there, and 1 here"):
        evaluate_predictions(tmp_path / "p.json", truth)
    (tmp_path / "c.txt").write_text("a#enc#0 text")
    with pytest.raises(GridClipError, match="has times"):
        evaluate_predictions(tmp_path / "p.json", tmp_path / "c.txt")
