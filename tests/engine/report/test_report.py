"""engine/report: groups of queries against loops over them, pictures against the files and a plain decode."""

import base64
import io
import re

import numpy as np
import pytest
from gridclip import GridClipError
from gridclip.dali_pipes.contract import VideoFile
from gridclip.dali_pipes.cpu.super_images import super_images
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.evaluation.evaluation import evaluate
from gridclip.engine.report import breakdown, pictures
from gridclip.engine.report.page import as_html
from gridclip.engine.store.store import Store, VideoEmbedding, View
from PIL import Image


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """40 videos of 2 to 11 super images of 8 s, 80 queries with times, 3 without."""
    rng = np.random.default_rng(0)
    store = Store.open(tmp_path_factory.mktemp("s") / "store", create=True)
    lengths = rng.integers(2, 12, 40)
    rows = [rng.normal(size=(length, 16)).astype(np.float32) for length in lengths]
    starts = [np.arange(length) * 8.0 for length in lengths]
    store.append_videos(
        [VideoEmbedding(f"v{n:02}", starts[n], starts[n] + 8, rows[n]) for n in range(40)],
    )
    queries, vectors = [], []
    for number in range(83):
        video = number % 40
        moment = int(rng.integers(lengths[video]))
        times = (None, None) if number >= 80 else (8.0 * moment, 8.0 * moment + rng.uniform(1, 12))
        queries.append(Query(number, f"v{video:02}", f"text {number}", *times))
        vectors.append(rows[video][moment] + rng.normal(scale=1.5, size=16))
    store.put_queries(queries, np.array(vectors, np.float32))
    return evaluate(store, moments=True, aggregate="max", examples=6)


def test_every_query_has_one_rank(evaluation):
    bins = breakdown.ranks_in_bins(evaluation.outcomes.ranks, evaluation.candidates)
    assert sum(each.queries for each in bins) == evaluation.queries == 83
    assert [str(each) for each in bins] == ["1", "2", "3 to 5", "6 to 10", "11 to 20", "21 to 40"]
    assert bins[0].queries == round(83 * evaluation.recall[1] / 100)
    assert [str(each) for each in breakdown.ranks_in_bins(np.array([1]), 1)] == ["1"]


def test_lengths(evaluation):
    groups = breakdown.by_video_length(evaluation)
    assert sum(group.queries for group in groups) == 83 and len(groups) == 4
    for group in groups:
        low, high = map(float, re.findall(r"\d+", group.title))
        inside = [
            rank
            for rank, length in zip(evaluation.outcomes.ranks, evaluation.durations_s, strict=True)
            if (low < length <= high) or (length == low and group is groups[0])
        ]
        assert group.queries == len(inside)
        assert group.recall[1].mean == pytest.approx(100 * np.mean([rank == 1 for rank in inside]))


def test_positions_and_shares(evaluation):
    fifths: dict[str, list[int]] = {}
    shares: dict[str, list[float]] = {}
    for row, query in enumerate(evaluation.evaluated[:80]):
        length = evaluation.durations_s[row]
        place = min(int((query.start_s + query.end_s) / 2 / length * 5), 4)
        fifths.setdefault(breakdown.POSITIONS[place], []).append(evaluation.outcomes.ranks[row])
        share = (query.end_s - query.start_s) / length
        title = next(title for bound, title in breakdown.SHARES if share < bound)
        shares.setdefault(title, []).append(evaluation.outcomes.own_iou[row])
    found = {group.title: group for group in breakdown.by_position(evaluation)}
    assert {title: group.queries for title, group in found.items()} == {title: len(v) for title, v in fifths.items()}
    for title, ranks in fifths.items():
        assert found[title].recall[5].mean == pytest.approx(100 * np.mean([rank <= 5 for rank in ranks]))
    for group in breakdown.by_share(evaluation):
        assert group.miou == pytest.approx(100 * np.mean(shares[group.title]))


def test_the_hardest_come_first_with_their_spots(evaluation):
    ranks = sorted(evaluation.outcomes.ranks.tolist(), reverse=True)
    assert [example.rank for example in evaluation.examples] == ranks[:6]
    for example in evaluation.examples:
        assert example.own.video_id == example.query.video_id
        assert example.own.start_s == 8.0 * example.own.number
        assert example.own.score <= example.best[0][1] + 1e-6


def test_the_page_is_whole_and_alone(evaluation):
    page = as_html(evaluation, beside="activitynet")
    for title in ("Recall", "Rank of the right video", "Moments", "By the length", "By the place", "hardest queries"):
        assert title in page
    assert "TF-PRVR" in page and "arXiv 2508.19024" in page and "prefers-color-scheme: dark" in page
    assert "://" not in page and "<script" not in page and "no picture" in page
    for tag in ("table", "section", "div", "figure", "tr", "td", "th"):
        assert len(re.findall(rf"<{tag}[ >]", page)) == page.count(f"</{tag}>"), tag


def test_a_store_without_times_has_a_page(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    store.append_videos([VideoEmbedding("a", None, None, np.eye(3, dtype=np.float32))])
    store.put_queries([Query(0, "a", "")], np.eye(3, dtype=np.float32)[:1])
    page = as_html(evaluate(store, examples=3))
    assert "no text" in page and "By the length" not in page and "By the place" not in page


def decoded(url: str) -> np.ndarray:
    assert url.startswith("data:image/jpeg;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))).astype(int)


def test_pictures_are_the_super_images(small_videos, tmp_path):
    sampling = Sampling(fps=1, super_img_size=64)
    record = {"source": "videos", "fps": 1, "grid_size": 2, "super_img_size": 64, "min_frames": 1}
    whole = [
        image
        for chunk in super_images(VideoFile("c", small_videos / "c.mkv"), sampling)
        if hasattr(chunk, "images")
        for image in chunk.images
    ]
    find = pictures.from_videos(small_videos, record, View("super", 2))
    for number in (0, len(whole) - 1):
        assert np.abs(decoded(find("c", number)) - whole[number]).mean() < 12  # JPEG's loss
    assert find("gone", 0) is None and find("c", 999) is None
    # Frame 5 is the second cell of the second super image.
    frame = Image.fromarray(
        decoded(pictures.from_videos(small_videos, record, View("cell", 2))("c", 5)).astype(np.uint8)
    )
    cells = [whole[1][row : row + 32, column : column + 32] for row in (0, 32) for column in (0, 32)]
    assert np.argmin([np.abs(np.asarray(frame.resize((32, 32)), int) - cell).mean() for cell in cells]) == 1
    (tmp_path / "c").mkdir()
    Image.fromarray(whole[1]).save(tmp_path / "c" / "img_0002.jpg", quality=95)
    find = pictures.from_images(tmp_path)
    assert np.abs(decoded(find("c", 1)) - whole[1]).mean() < 12 and find("c", 0) is None
    with pytest.raises(GridClipError, match="does not say how"):
        pictures.choose_pictures(small_videos, None, None, View("super", 2))
    assert pictures.choose_pictures(None, None, None, View("super", 2)) is pictures.no_pictures
