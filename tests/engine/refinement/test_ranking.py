"""engine/refinement without videos: which frames are looked at, what they make of a ranking, and of its moments."""

from __future__ import annotations

import numpy as np
import pytest
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.moments.best import Moment
from gridclip.engine.moments.metrics import RankedMoments
from gridclip.engine.moments.recut import Cut, recut_best, recut_boundaries, recut_own, with_coarse
from gridclip.engine.refinement import choice
from gridclip.engine.refinement.choice import Coarse, frames_to_look_at
from gridclip.engine.refinement.ranking import refine_ranking
from gridclip.engine.refinement.score import Frames, frame_moments
from gridclip.engine.scoring.retrieval import Wanted, rank_videos
from gridclip.engine.scoring.scoring import Scoring
from gridclip.engine.store.copies import View
from gridclip.engine.store.store import SuperImageTable

MAX = Scoring("max")
SUPER, CELLS = (Coarse(View(level, 2), Sampling(grid_size=2)) for level in ("super", "cell"))


def at(angles) -> np.ndarray:
    """Unit vectors float32 [n, 2] at some angles in degrees; a query at 0 has their cosines."""
    radians = np.deg2rad(np.asarray(angles, float))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def spans_of(count: int, seconds: float) -> np.ndarray:
    starts = np.arange(count) * seconds
    return np.stack([starts, starts + seconds], axis=1)


QUERY = at([0])[0]


@pytest.mark.parametrize(
    ("coarse", "angles", "expected"),
    [
        (SUPER, [80, 70, 10, 60, 90], np.arange(4, 16)),
        (SUPER, [10, 70, 80], np.arange(8)),
        (SUPER, [70, 10], np.arange(8)),  # the last super image may be shorter than this
        (CELLS, [80, 70, 10, 60, 90], np.arange(1, 4)),
        (CELLS, [10], np.arange(1)),
    ],
)
def test_frames_around_the_best_moment(coarse, angles, expected):
    found = frames_to_look_at(QUERY, at(angles), spans_of(len(angles), 8), MAX, coarse)
    np.testing.assert_array_equal(found, expected)


def test_of_a_long_moment_the_middle_is_looked_at(monkeypatch):
    monkeypatch.setattr(choice, "MOST_FRAMES", 4)
    angles = [90, 10, 20, 30, 40, -10, -20, -30, -40, 90]  # only all eight together are the query
    found = frames_to_look_at(QUERY, at(angles), spans_of(10, 2), Scoring("windows"), CELLS)
    np.testing.assert_array_equal(found, np.arange(3, 7))
    several = frames_to_look_at(QUERY, at([50, 10, 50]), spans_of(3, 8), MAX, SUPER)
    np.testing.assert_array_equal(several, np.arange(4, 8))


def test_stores_of_overlapping_super_images():
    overlapping = Coarse(View("super", 2), Sampling(grid_size=2, stride=2))
    found = frames_to_look_at(QUERY, at([80, 70, 10, 60, 90]), spans_of(5, 4), MAX, overlapping)
    np.testing.assert_array_equal(found, np.arange(2, 10))
    assert overlapping.rows(10) == 4 and SUPER.rows(9) == 3 and CELLS.rows(9) == 9


def test_no_moment_spans_what_was_not_looked_at():
    frames = Frames(np.array([0, 1, 7, 8]), at([20, 20, 10, 40]), spans_of(9, 2)[[0, 1, 7, 8]], 9)
    moments = frame_moments(QUERY, frames, Scoring("windows"), background=0, limit=10)
    assert (moments[0].start_s, moments[0].end_s) == (14, 16)
    assert all(moment.end_s <= 4 or moment.start_s >= 14 for moment in moments)


def planted() -> tuple[SuperImageTable, dict[str, np.ndarray]]:
    """Videos of 8 frames and 2 super images: by these "blurred" is before "true", by frames it is behind "far"."""
    names = ["blurred", "far", "true", "worst"]
    coarse = {"blurred": [20, 80], "true": [80, 25], "far": [40, 80], "worst": [80, 80]}
    fine = {
        "blurred": [50, 50, 55, 60, 90, 90, 90, 90],
        "true": [90, 90, 90, 90, 60, 5, 60, 90],
        "far": [0, 60, 60, 60, 90, 90, 90, 90],
        "worst": [0] * 8,
    }
    table = SuperImageTable(
        names,
        np.arange(0, 9, 2),
        np.concatenate([at(coarse[name]) for name in names]).astype(np.float16),
        np.tile([0.0, 8.0], 4),
        np.tile([8.0, 16.0], 4),
        grid_size=2,
    )
    return table, {name: at(angles) for name, angles in fine.items()}


@pytest.mark.parametrize(("lost", "order"), [((), ["true", "far", "blurred", "worst"]), (("true",), None)])
def test_a_planted_answer_comes_first(lost, order):
    videos, fine = planted()
    asked: list[set[str]] = []

    def look(wanted):
        asked.append(set(wanted))
        return {
            name: Frames(each.positions, fine[name][each.positions].astype(np.float16), spans_of(8, 2), 8)
            for name, each in wanted.items()
            if name not in lost
        }

    queries, targets = np.stack([QUERY, QUERY]), np.array([2, 3])
    (before,) = rank_videos(queries, targets, videos.vectors, videos.offsets, [Wanted(MAX, top=4)], device="cpu")
    assert [videos.video_ids[video] for video in before.videos[0]] == ["blurred", "true", "far", "worst"]
    after, cuts = refine_ranking(look, queries, targets, videos, before, MAX, SUPER, count=3, limit=5)
    assert asked == [{"blurred", "true", "far"}]
    found = [videos.video_ids[video] for video in after.videos[0]]
    cosines = {"blurred": (20, 50), "far": (40, 0), "true": (25, 5)}
    expected = {
        name: np.cos(np.deg2rad(pair[0])) if name in lost else np.cos(np.deg2rad(pair)).mean()
        for name, pair in cosines.items()
    }
    assert found == [*sorted(expected, key=expected.__getitem__, reverse=True), "worst"]
    assert order is None or found == order
    np.testing.assert_allclose(after.scores[0, :3], sorted(expected.values(), reverse=True), atol=1e-3)
    assert after.ranks.tolist() == [found.index("true") + 1, 4]
    assert cuts.keys() == {(query, name) for query in (0, 1) for name in {"blurred", "true", "far"} - set(lost)}
    if not lost:
        assert [(moment.start_s, moment.end_s) for moment in cuts[0, "true"].moments[:1]] == [(10, 12)]
        assert len(cuts[0, "true"].moments) == 5 and len(cuts[0, "far"].moments) == 1


CUT = Cut([Moment(2, 4, 0.9), Moment(6, 8, 0.5)], spans_of(4, 2))


def test_coarse_moments_stand_behind_where_nothing_of_them_was_looked_at():
    coarse = [Moment(0, 8, 0.7), Moment(8, 16, 0.6), Moment(16, 24, 0.4)]
    assert with_coarse(CUT, coarse, limit=1) == CUT.moments[:1]
    assert with_coarse(CUT, coarse, limit=9) == [*CUT.moments, *coarse[1:]]


def test_ranked_moments_are_cut_anew():
    rows, names, cuts = np.array([3, 5]), ["v", "w"], {(3, "v"): CUT}
    own = RankedMoments(np.array([[0, 0], [1, -1]]), np.array([[[0, 8], [8, 16]], [[0, 4], [0, 0]]], float))
    scores = np.array([[0.7, 0.6], [0.3, -np.inf]], np.float32)
    found, new_scores = recut_own(rows, names, own, scores, cuts, depth=9)
    np.testing.assert_array_equal(found.videos, [[0, 0, 0], [1, -1, -1]])
    np.testing.assert_array_equal(found.spans[0], [[2, 4], [6, 8], [8, 16]])
    np.testing.assert_array_equal(found.spans[1, 0], [0, 4])
    np.testing.assert_allclose(new_scores, [[0.9, 0.5, 0.6], [0.3, -np.inf, -np.inf]])
    best = RankedMoments(np.array([[1, 0], [0, -1]]), np.array([[[0, 4], [0, 8]], [[0, 8], [0, 0]]], float))
    np.testing.assert_array_equal(recut_best(rows, names, best, cuts).spans, [[[0, 4], [2, 4]], [[0, 8], [0, 0]]])
    edges = recut_boundaries(rows, ["v", "w"], [np.array([0.0, 8, 16]), np.array([0.0, 4])], cuts)
    assert edges[0].tolist() == [0, 2, 4, 6, 8, 16] and edges[1].tolist() == [0, 4]
