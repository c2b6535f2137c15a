"""Prediction files: out and in again, others' files, and what is wrong with broken ones."""

import json
import pathlib

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.engine.moments.metrics import RankedMoments
from gridclip.engine.moments.predictions import read_predictions, to_qvhighlights, to_tvr

VIDEOS = ["a", "b", "c"]


@pytest.fixture
def predicted() -> RankedMoments:
    videos = np.array([[2, 0, -1], [1, -1, -1]])
    return RankedMoments(videos, np.array([[[0, 4], [4, 8], [0, 0]], [[1.5, 3], [0, 0], [0, 0]]], float))


SCORES = np.array([[0.9, 0.5, -np.inf], [0.7, -np.inf, -np.inf]])


def test_tvr_round_trip(tmp_path: pathlib.Path, predicted: RankedMoments) -> None:
    content = to_tvr(predicted, SCORES, [7, 9], ["x", "y"], VIDEOS)
    assert content == {
        "video2idx": {"a": 0, "b": 1, "c": 2},
        "VCMR": [
            {"desc_id": 7, "desc": "x", "predictions": [[2, 0.0, 4.0, 0.9], [0, 4.0, 8.0, 0.5]]},
            {"desc_id": 9, "desc": "y", "predictions": [[1, 1.5, 3.0, 0.7]]},
        ],
    }
    (tmp_path / "p.json").write_text(json.dumps(content))
    back = read_predictions(tmp_path / "p.json", [9, 7, 8], VIDEOS)
    assert back.videos.tolist() == [[1, -1], [2, 0], [-1, -1]]
    assert back.spans[0, 0].tolist() == [1.5, 3]


def test_qvhighlights_round_trip(tmp_path: pathlib.Path) -> None:
    own = RankedMoments(np.array([[1, 1], [0, -1]]), np.array([[[0, 2], [2, 4]], [[6, 8], [0, 0]]], float))
    text = to_qvhighlights(own, SCORES[:, :2], [1, 2], ["x", "y"], VIDEOS)
    assert [json.loads(line)["vid"] for line in text.splitlines()] == ["b", "a"]
    (tmp_path / "p.jsonl").write_text(text)
    back = read_predictions(tmp_path / "p.jsonl", [1, 2], VIDEOS)
    assert back.videos.tolist() == own.videos.tolist()
    assert back.spans[0].tolist() == own.spans[0].tolist()


def test_order_is_by_score_and_unknown_videos_keep_their_place(tmp_path: pathlib.Path) -> None:
    entry = {"desc_id": 1, "predictions": [[0, 0, 1, 0.1], [1, 2, 3, 0.9], [0, 4, 5, 0.9]]}
    (tmp_path / "p.json").write_text(json.dumps({"video2idx": {"a": 0, "other": 1}, "VCMR": [entry]}))
    back = read_predictions(tmp_path / "p.json", [1], ["a"])
    assert back.videos.tolist() == [[1, 0, 0]]
    assert back.spans[0, :, 0].tolist() == [2, 4, 0]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"video2idx": {"a": 0}, "VCMR": [{"desc_id": 1, "predictions": [[5, 0, 1, 1]]}]}',
        '{"qid": 1, "vid": "a", "pred_relevant_windows": [[0, 1]]}',
        '{"qid": 1, "vid": "a", "pred_relevant_windows": [[3, 1, 0.5]]}',
        "[" * 100_000,
    ],
)
def test_broken_files_get_a_sentence(tmp_path: pathlib.Path, content: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(GridClipError, match=r"p\.json"):
        read_predictions(tmp_path / "p.json", [1], VIDEOS)


def test_a_missing_task_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "p.json").write_text('{"video2idx": {}, "VR": []}')
    with pytest.raises(GridClipError, match="no predictions for VCMR, only for: VR"):
        read_predictions(tmp_path / "p.json", [1], VIDEOS)
