"""engine/comparison.py and engine/outcomes.py: paired differences of two evaluations, and files that differ."""

import json

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.evaluation.comparison import compare_evaluations
from gridclip.engine.evaluation.evaluation import evaluate
from gridclip.engine.evaluation.outcomes import as_text, digest, read_outcomes
from gridclip.engine.store.store import Store, VideoEmbedding


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """30 videos of 4 vectors, 60 queries with times near one of them; the same text twice for one video."""
    rng = np.random.default_rng(0)
    store = Store.open(tmp_path_factory.mktemp("s") / "store", create=True)
    starts = np.arange(4) * 8.0
    vectors = rng.normal(size=(30, 4, 16)).astype(np.float32)
    store.append_videos([VideoEmbedding(f"v{n:02}", starts, starts + 8, vectors[n]) for n in range(30)])
    queries, wanted = [], []
    for number in range(60):
        video, moment = number % 30, int(rng.integers(4))
        queries.append(Query(number, f"v{video:02}", f"query {number}", 8.0 * moment, 8.0 * moment + 6))
        wanted.append(vectors[video, moment] + rng.normal(scale=1.3, size=16))
    store.put_queries(queries, np.array(wanted, np.float32))
    return store


def round_trip(evaluation):
    return json.loads(as_text(evaluation.to_json()))


def test_outcomes_give_the_same_percentages(store):
    content = round_trip(evaluate(store, aggregate="max", moments=True))
    outcomes = read_outcomes(content, "x")
    for k, percent in content["recall"].items():
        assert percent == pytest.approx(100 * np.mean([1 <= rank <= int(k) for rank in outcomes.ranks]))
        low, high = content["recall_intervals"][k]
        assert low <= percent <= high
    assert content["sum_recall"] == content["SumR"] == pytest.approx(sum(content["recall"].values()))
    assert content["miou"] == pytest.approx(100 * np.mean(outcomes.own_iou), abs=0.01)
    for task in ("svmr", "vcmr"):
        for iou, table in content[task].items():
            for k, percent in table.items():
                places = outcomes.places[task][float(iou)]
                assert percent == pytest.approx(100 * np.mean([1 <= place <= int(k) for place in places]))


def test_differences_and_intervals_are_those_of_a_plain_loop(store):
    first, second = (round_trip(evaluate(store, aggregate=name, moments=True)) for name in ("mean", "max"))
    found = compare_evaluations(first, second)
    assert list(found.metrics)[:6] == ["R@1", "R@5", "R@10", "R@100", "SumR", "mIoU"]
    assert found.metrics["R@1"].first == first["R@1"] and found.metrics["R@1"].second == second["R@1"]
    pairs = zip(first["per_query"]["rank"], second["per_query"]["rank"], strict=True)
    differences = [100.0 * (after <= 1) - 100.0 * (before <= 1) for before, after in pairs]
    rng = np.random.default_rng(5)
    means = sorted(np.mean(rng.choice(differences, len(differences))) for _ in range(4000))
    interval = found.metrics["R@1"].difference
    assert (interval.low, interval.high) == (pytest.approx(means[100], abs=2), pytest.approx(means[3900], abs=2))
    assert found.metrics["R@1"].decided and not found.metrics["R@100"].decided
    assert found.metrics["own video, IoU 0.5, R@1"].difference.mean == 0  # aggregates agree on the own video's moments
    assert "B is better" in str(found) and "60 queries" in str(found)
    content = json.loads(json.dumps(found.to_json()))
    assert content["metrics"]["R@1"]["beyond_chance"] is True


def test_other_queries_are_refused_or_left_out(store):
    whole = round_trip(evaluate(store))
    part = json.loads(json.dumps(whole))
    part["per_query"] = {name: column[5:][::-1] for name, column in whole["per_query"].items()}
    part["per_query"]["text"][0] = digest("never asked")
    with pytest.raises(GridClipError, match="6 queries are only in a, 1 only in b"):
        compare_evaluations(whole, part, sources=("a", "b"))
    found = compare_evaluations(whole, part, other_queries="leave-out")
    assert (found.queries, found.only_first, found.only_second) == (54, 6, 1)
    assert all(each.difference.mean == 0 for each in found.metrics.values())
    part["per_query"]["video_id"] = ["else"] * 55
    with pytest.raises(GridClipError, match="no query in common"):
        compare_evaluations(whole, part, other_queries="leave-out")
    with pytest.raises(ValueError, match="other_queries"):
        compare_evaluations(whole, whole, other_queries="x")


def test_the_same_text_twice_is_two_queries(store):
    whole = round_trip(evaluate(store))
    whole["per_query"] = {name: [*column, column[0]] for name, column in whole["per_query"].items()}
    assert compare_evaluations(whole, whole).queries == 61


def test_missing_videos_never_hit(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([VideoEmbedding("a", None, None, np.eye(2, dtype=np.float32))])
    store.put_queries([Query(0, "a", "x"), Query(1, "gone", "y")], np.eye(2, dtype=np.float32))
    content = round_trip(evaluate(store, missing="count-as-failures"))
    assert content["per_query"]["rank"] == [1, None]
    assert compare_evaluations(content, content).metrics["R@100"].first == content["R@100"] == 50
    dropped = round_trip(evaluate(store))
    assert dropped["per_query"]["video_id"] == ["a"]
    assert "A ranks 1 videos" not in str(compare_evaluations(dropped, dropped))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_query": None}, "does not say what became of each query"),
        ({"per_query": {"video_id": ["a"]}}, "damaged: KeyError 'text'"),
        ({"per_query": {"video_id": ["a"], "text": ["b"], "rank": [1, 2]}}, "lengths"),
        ({"per_query": {"video_id": ["a"], "text": ["b"], "rank": ["x"]}}, "damaged"),
        ({"per_query": {"video_id": [], "text": [], "rank": []}}, ">= 1"),
        ({"recall": {"7": 1.0}}, "evaluate both at the same K"),
        ({"recall": 3}, "no recall"),
    ],
)
def test_damaged_files_get_a_sentence(store, change, message):
    whole = round_trip(evaluate(store))
    with pytest.raises(GridClipError, match=message):
        compare_evaluations(whole, {**whole, **change}, other_queries="leave-out")


def test_columns_are_lines(store):
    text = as_text(evaluate(store, moments=True).to_json())
    assert len(text.splitlines()) < 250  # not a line for each of 60 queries
    assert as_text({"a": 1}) == '{\n  "a": 1\n}\n'
