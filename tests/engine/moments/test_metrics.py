"""Moment metrics: fixtures computed by hand, and naive loops over plain lists under hypothesis."""

import numpy as np
import pytest
from gridclip.engine.moments import metrics
from gridclip.engine.moments.metrics import RankedMoments, TrueMoments
from hypothesis import given
from hypothesis import strategies as st


def ranked(*lists: list[tuple[int, float, float]]) -> RankedMoments:
    longest = max(map(len, lists))
    videos = np.full((len(lists), longest), -1)
    spans = np.full((len(lists), longest, 2), np.nan)
    for row, predictions in enumerate(lists):
        for k, (video, start_s, end_s) in enumerate(predictions):
            videos[row, k], spans[row, k] = video, (start_s, end_s)
    return RankedMoments(videos, spans)


def true(*moments: tuple[int, list[tuple[float, float]]]) -> TrueMoments:
    owners = [query for query, (_, spans) in enumerate(moments) for _ in spans]
    spans = [span for _, spans in moments for span in spans]
    return TrueMoments(np.array([video for video, _ in moments]), np.array(owners), np.array(spans, float))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 10), (0, 10), 1.0),
        ((0, 10), (5, 15), 5 / 15),
        ((0, 10), (10, 20), 0.0),  # touching
        ((0, 10), (12, 20), 0.0),
        ((0, 10), (2, 4), 0.2),
        ((3, 3), (3, 3), 0.0),  # empty
        ((0, 10), (4, 4), 0.0),
    ],
)
def test_iou_by_hand(first: tuple[float, float], second: tuple[float, float], expected: float) -> None:
    assert metrics.iou(np.array(first, float), np.array(second, float)) == pytest.approx(expected)
    assert metrics.iou(np.array(second, float), np.array(first, float)) == pytest.approx(expected)


def test_recall_by_hand() -> None:
    predicted = ranked(
        [(0, 0, 10), (1, 0, 10)],  # right video at once: IoU 1
        [(0, 0, 10), (1, 5, 15)],  # right at the second place, IoU 5 / 15
        [(2, 20, 30)],  # fewer predictions than K: IoU 0.5 with the second of two true moments
        [(3, 10, 20)],  # touches its moment
    )
    answer = true((0, [(0, 10)]), (1, [(0, 10)]), (2, [(0, 5), (20, 25)]), (3, [(20, 30)]))
    recall = metrics.moment_recall(predicted, answer, topk=(1, 2, 5), thresholds=(0.3, 0.5, 0.7)).recall
    assert recall == {
        0.3: {1: 50.0, 2: 75.0, 5: 75.0},
        0.5: {1: 50.0, 2: 50.0, 5: 50.0},  # an IoU of exactly 0.5 counts
        0.7: {1: 25.0, 2: 25.0, 5: 25.0},
    }
    assert metrics.first_iou(predicted, answer).tolist() == pytest.approx([1, 0, 0.5, 0])


def test_queries_without_predictions_are_wrong() -> None:
    predicted = RankedMoments(np.zeros((2, 0), int), np.zeros((2, 0, 2)))
    answer = true((0, [(0, 10)]), (1, [(0, 10)]))
    assert metrics.moment_recall(predicted, answer).recall[0.3] == {1: 0.0, 5: 0.0, 10: 0.0, 100: 0.0}
    assert metrics.first_iou(predicted, answer).tolist() == [0, 0]


def test_average_precision_by_hand() -> None:
    # Right, wrong, right: precision 1 at recall 1/2, 2/3 at recall 1.
    spans = np.array([[0, 10], [50, 60], [20, 30]], float)
    assert metrics.average_precision(spans, np.array([[0, 10], [20, 30]], float), [0.5])[0] == pytest.approx(5 / 6)
    # A moment can be found once: the second prediction of it is wrong, and the other moment is never found.
    spans = np.array([[0, 10], [0, 10]], float)
    assert metrics.average_precision(spans, np.array([[0, 10], [20, 30]], float), [0.5])[0] == pytest.approx(0.5)
    # Wrong first: precision is interpolated from the right.
    spans = np.array([[50, 60], [0, 10], [20, 30]], float)
    assert metrics.average_precision(spans, np.array([[0, 10], [20, 30]], float), [0.5])[0] == pytest.approx(2 / 3)
    assert metrics.average_precision(np.zeros((0, 2)), np.array([[0, 10]], float), [0.5])[0] == 0


def test_map_reads_the_querys_own_video_only() -> None:
    predicted = ranked([(1, 0, 10), (0, 0, 10)])
    assert metrics.mean_average_precision(predicted, true((0, [(0, 10)])))[0.95] == 100
    assert list(metrics.mean_average_precision(predicted, true((0, [(0, 10)])))) == list(metrics.MAP_THRESHOLDS)


@given(st.integers(0, 2**32 - 1))
def test_map_is_the_mean_over_queries_of_average_precision(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lists = [[(int(rng.integers(2)), *drawn_span(rng)) for _ in range(rng.integers(1, 14))] for _ in range(4)]
    moments = [[drawn_span(rng) for _ in range(count)] for count in (1, 1, 2, 3)]
    found = metrics.mean_average_precision(ranked(*lists), true(*[(1, spans) for spans in moments]))
    each = [
        metrics.average_precision(
            np.array([span for video, *span in guesses if video == 1][:10], float).reshape(-1, 2), np.array(truth)
        )
        for guesses, truth in zip(lists, moments, strict=True)
    ]
    assert list(found.values()) == pytest.approx((100 * np.mean(each, axis=0)).tolist())


def drawn_span(rng: np.random.Generator) -> tuple[float, float]:
    start, length = rng.integers(30), rng.integers(12)
    return float(start) / 2, float(start + length) / 2


@pytest.mark.parametrize(
    ("boundaries", "span", "expected"),
    [
        ([0, 8, 16, 24], (8, 16), 1.0),
        ([0, 8, 16, 24], (9, 15), 6 / 8),
        ([0, 8, 16, 24], (7, 17), 8 / 10),  # dropping both ends beats keeping them: 8 / 10 against 10 / 24
        ([0, 8], (20, 30), 0.0),
        ([5, 8], (0, 30), 3 / 30),
    ],
)
def test_oracle_by_hand(boundaries: list[float], span: tuple[float, float], expected: float) -> None:
    assert metrics.oracle_iou([np.array(boundaries, float)], true((0, [span])))[0] == pytest.approx(expected)


spans = st.tuples(st.integers(0, 30), st.integers(0, 12)).map(lambda pair: (pair[0] / 2, (pair[0] + pair[1]) / 2))


def naive_iou(a: tuple[float, float], b: tuple[float, float]) -> float:
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - shared
    return shared / union if union else 0.0


@given(st.integers(0, 2**32 - 1))  # a seed: lists of lists of spans take hypothesis too long to draw
def test_recall_equals_a_naive_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cases = [
        (
            [(int(rng.integers(3)), drawn_span(rng)) for _ in range(rng.integers(7))],
            (int(rng.integers(3)), [drawn_span(rng) for _ in range(rng.integers(1, 4))]),
        )
        for _ in range(rng.integers(1, 6))
    ]
    predicted = ranked(*[[(video, *span) for video, span in guesses] for guesses, _ in cases])
    answer = true(*[moments for _, moments in cases])
    found = metrics.moment_recall(predicted, answer, topk=(1, 3, 10), thresholds=(0.3, 0.7))
    for threshold in (0.3, 0.7):
        for k in (1, 3, 10):
            right = 0
            for guesses, (video, moments) in cases:
                right += any(
                    name == video and any(naive_iou(span, moment) >= threshold for moment in moments)
                    for name, span in guesses[:k]
                )
            assert found.recall[threshold][k] == pytest.approx(100 * right / len(cases))


@given(st.lists(spans, max_size=6), st.lists(spans, min_size=1, max_size=3))
def test_average_precision_equals_a_naive_loop(guesses: list, moments: list) -> None:
    for threshold in (0.5, 0.75):
        taken: set[int] = set()
        flags = []
        for guess in guesses:
            free = [(naive_iou(guess, moment), -number) for number, moment in enumerate(moments) if number not in taken]
            overlap, number = max(free, default=(0.0, 0))
            flags.append(bool(free) and overlap >= threshold)
            if flags[-1]:
                taken.add(-number)
        precisions = [sum(flags[: k + 1]) / (k + 1) for k in range(len(flags))]
        expected = sum(max(precisions[k:]) for k, flag in enumerate(flags) if flag) / len(moments)
        found = metrics.average_precision(
            np.array(guesses, float).reshape(-1, 2), np.array(moments, float), [threshold]
        )
        assert found[0] == pytest.approx(expected)


@given(st.lists(st.integers(0, 40), min_size=2, max_size=8, unique=True).map(sorted), spans)
def test_oracle_equals_trying_every_pair(boundaries: list[int], span: tuple[float, float]) -> None:
    pairs = [(a, b) for a in boundaries for b in boundaries if a < b]
    expected = max(naive_iou(pair, span) for pair in pairs)
    assert metrics.oracle_iou([np.array(boundaries, float)], true((0, [span])))[0] == pytest.approx(expected)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[5.0, 4.0\]"):
        ranked([(0, 5, 4)])
    with pytest.raises(ValueError, match="every one of the 2 queries"):
        TrueMoments(np.array([0, 1]), np.array([0, 0]), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="thresholds"):
        metrics.moment_recall(ranked([(0, 0, 1)]), true((0, [(0, 1)])), thresholds=(0.0,))
