"""benchmarks/moments*.py: the generated set, rows and times, figures against plain loops, and the short form whole."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
from gridclip.benchmarks import charts, moments, moments_embeddings, moments_settings, moments_videos
from gridclip.benchmarks.demo import scenes
from gridclip.engine import choices
from gridclip.engine.annotations.annotations import Query
from gridclip.engine.encoding.encoder import Encoder
from gridclip.engine.scoring.normalisation import QueryBank
from gridclip.engine.scoring.scoring import Scoring
from gridclip.engine.store.store import QueryTable, SuperImageTable


def quiet(text: str) -> None:
    """Takes the place of what tells how far a run is."""


@pytest.fixture(scope="module")
def held() -> moments_videos.VideoSet:
    return moments_videos.make_set("held", 24, seed=5)


def test_a_seed_always_gives_the_same_set(held: moments_videos.VideoSet) -> None:
    assert moments_videos.make_set("held", 24, seed=5) == held
    assert moments_videos.make_set("held", 24, seed=6) != held
    fewer = moments_videos.make_set("held", 10, seed=5)
    assert fewer.videos == held.videos[:10], "more videos leave the first ones as they are"


def test_videos_are_long_and_scenes_unequal(held: moments_videos.VideoSet) -> None:
    assert [video.video_id for video in held.videos] == sorted({video.video_id for video in held.videos})
    for video in held.videos:
        assert 20 <= len(video.scenes) == len(video.captions) <= 40
        lengths = [scene.duration_s for scene in video.scenes]
        assert max(lengths) > 2 * min(lengths)
        assert video.duration_s == pytest.approx(sum(lengths), abs=0.05 * len(lengths))


def test_what_is_reported_on_was_seen_neither_by_training_nor_by_the_choice(held: moments_videos.VideoSet) -> None:
    def combinations(split: moments_videos.VideoSet) -> set[tuple[str, str, str]]:
        shown = [scene for video in split.videos for scene in video.scenes]
        return {(scene.colour, scene.shape, scene.texture) for scene in shown}

    development = moments_videos.make_set("development", 24, seed=5)
    assert not combinations(development) & combinations(held)
    assert all(scenes.is_held_out(*each) for each in combinations(held)), "training never saw them"


def test_a_family_shows_the_same_objects_with_other_motions_or_corners_in_another_order(
    held: moments_videos.VideoSet,
) -> None:
    def objects(scene: scenes.Scene) -> str:
        other = (scene.companion.colour, scene.companion.shape) if scene.companion else None
        return repr((scene.colour, scene.shape, scene.size, scene.texture, scene.background, other))

    first, second = held.videos[:2]
    shown, twins = ([objects(scene) for scene in video.scenes] for video in (first, second))
    assert sorted(shown) == sorted(twins) and shown != twins
    assert not {moments_videos.described(scene) for scene in first.scenes} & {
        moments_videos.described(scene) for scene in second.scenes
    }
    assert not set(shown) & {objects(scene) for scene in held.videos[moments_videos.FAMILY].scenes}


def test_a_query_fits_one_scene_of_the_set(held: moments_videos.VideoSet) -> None:
    assert len(held.queries) == moments_videos.QUERIES * len(held.videos)
    by_id = {video.video_id: video for video in held.videos}
    everything = [moments_videos.described(scene) for video in held.videos for scene in video.scenes]
    for query in held.queries:
        video = by_id[query.video_id]
        number = next(at for at in range(len(video.scenes)) if video.span(at) == (query.start_s, query.end_s))
        scene = video.scenes[number]
        assert query.text == video.captions[number] and scene.companion is not None
        assert sum(each == moments_videos.described(scene) for each in everything) == 1


def test_frames_are_those_of_the_scene_that_is_on_screen(held: moments_videos.VideoSet) -> None:
    video = held.videos[1]
    wanted = video.wanted(0.5)
    pictures = list(video.frames(wanted))
    assert len(pictures) == len(wanted) == int(video.duration_s * 0.5)
    for at in (0, len(wanted) // 2, len(wanted) - 1):
        left = int(wanted[at])
        for scene in video.scenes:
            frames = round(scene.duration_s * moments_videos.FRAME_RATE)
            if left < frames:
                break
            left -= frames
        expected = np.asarray(scenes.Painter(scene).frame(left / moments_videos.FRAME_RATE))
        np.testing.assert_array_equal(pictures[at], expected)


class CountingEncoder(Encoder):
    """Looks at pixels instead of running a graph: its vectors are the mean colours of an image's quarters."""

    def __init__(self, model_dir: pathlib.Path) -> None:
        self.model_dir, self.images = model_dir, 0
        self.info = type("Info", (), {"image_size": 8, "has_cells": False})()  # type: ignore[assignment]

    def encode_images(self, super_images: np.ndarray, cells: int | None = None) -> np.ndarray:
        self.images += len(super_images)
        return super_images.reshape(len(super_images), 4, -1).mean(2, dtype=np.float32)

    def encode_texts(self, texts: Any, **options: Any) -> np.ndarray:
        return np.ones((len(texts), 4), np.float32)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> moments_videos.VideoSet:
    monkeypatch.setattr(moments_videos, "SCENES", (3, 4))
    monkeypatch.setattr(moments_embeddings, "VIDEOS_PER_FILE", 2)
    return moments_videos.make_set("development", 5, seed=1)


def test_rows_stand_for_the_seconds_of_their_frames(few: moments_videos.VideoSet, tmp_path: pathlib.Path) -> None:
    encoder = CountingEncoder(tmp_path / "no-model")
    embedded = moments_embeddings.embed(few, encoder, tmp_path, say=quiet, grid_sizes=(1, 2))
    frames = [len(video.wanted(0.5)) for video in few.videos]
    assert embedded.frames == sum(frames) and embedded.passes[1] == sum(frames)
    assert embedded.passes[2] == sum(-(-each // 4) for each in frames)
    assert encoder.images == embedded.passes[1] + embedded.passes[2]
    for grid in (1, 2):
        table = embedded.tables["super", grid]
        assert table.video_ids == [video.video_id for video in few.videos]
        for number, video in enumerate(few.videos):
            rows = slice(*table.offsets[number : number + 2].tolist())
            starts, ends = table.start_s[rows], table.end_s[rows]
            assert starts[0] == 0 and ends[-1] == video.duration_s
            np.testing.assert_array_equal(starts[1:], ends[:-1])
            apart = np.diff(starts) / grid**2
            assert ((apart > 1.9) & (apart < 3)).all(), "a frame every two seconds, or in a little more"
    for query, target in zip(few.queries, embedded.targets, strict=True):
        assert few.videos[target].video_id == query.video_id


def test_a_stopped_run_goes_on(few: moments_videos.VideoSet, tmp_path: pathlib.Path) -> None:
    whole = CountingEncoder(tmp_path / "no-model")
    first = moments_embeddings.embed(few, whole, tmp_path, say=quiet, grid_sizes=(1, 2))
    files = sorted(tmp_path.glob("development-*/videos_*.npz"))
    assert len(files) == 3
    files[1].unlink()
    rest = CountingEncoder(tmp_path / "no-model")
    second = moments_embeddings.embed(few, rest, tmp_path, say=quiet, grid_sizes=(1, 2))
    assert 0 < rest.images < whole.images
    for key, table in first.tables.items():
        np.testing.assert_array_equal(table.vectors, second.tables[key].vectors)
    other = CountingEncoder(tmp_path / "no-model")
    moments_embeddings.embed(few, other, tmp_path, say=quiet, grid_sizes=(2,))
    assert other.images == first.passes[2], "other settings share no file"


def planted() -> moments_embeddings.Embedded:
    """Nine videos of two to four rows; queries near one row of their video, so that some find another first."""
    rng = np.random.default_rng(8)
    lengths = rng.integers(2, 5, 9)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    vectors = rng.normal(size=(offsets[-1], 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    starts = np.concatenate([4.0 * np.arange(each) for each in lengths])
    table = SuperImageTable([f"v{each}" for each in range(9)], offsets, vectors.astype(np.float16), starts, starts + 4)
    targets = np.repeat(np.arange(9), 3)
    rows = offsets[targets] + rng.integers(0, lengths[targets])
    asked = vectors[rows] + 0.5 * rng.normal(size=(27, 6))
    spans = [(starts[row] + 1, starts[row] + rng.uniform(2, 6)) for row in rows]
    queries = [Query(at, f"v{targets[at]}", "words", *span) for at, span in enumerate(spans)]
    bank = QueryBank(rng.normal(size=(12, 6)).astype(np.float16), "chance")
    return moments_embeddings.Embedded(
        QueryTable(queries, asked.astype(np.float16)),
        bank,
        targets,
        {("super", 2): table},
        {2: len(rows)},
        4 * len(rows),
    )


def test_figures_are_those_of_a_plain_loop() -> None:
    embedded = planted()
    table = embedded.tables["super", 2]
    measured = moments_settings.measure_setting(moments_settings.Setting(2, "super", Scoring("max")), embedded)
    vectors = table.vectors.astype(float) / np.linalg.norm(table.vectors.astype(float), axis=1, keepdims=True)
    first = found = 0
    overlaps = []
    for query, asked, target in zip(
        embedded.queries.queries, embedded.queries.vectors.astype(float), embedded.targets, strict=True
    ):
        similar = [vectors[a:b] @ asked for a, b in zip(table.offsets, table.offsets[1:], strict=False)]
        best = int(np.argmax([each.max() for each in similar]))
        row = int(similar[target].argmax())
        start, end = 4.0 * row, 4.0 * row + 4
        assert query.start_s is not None and query.end_s is not None
        shared = max(0.0, min(end, query.end_s) - max(start, query.start_s))
        overlaps.append(shared / (4 + query.end_s - query.start_s - shared))
        first += best == target
        found += best == target and overlaps[-1] >= 0.5
    assert 0 < found < first < 27
    assert measured.recall[1] == pytest.approx(100 * first / 27)
    assert measured.found.mean() == pytest.approx(100 * found / 27)
    assert measured.own_iou.mean() == pytest.approx(np.mean(overlaps))
    row_json = measured.to_json()
    assert row_json["SumR"] == pytest.approx(sum(row_json[f"R@{k}"] for k in (1, 5, 10, 100)), abs=0.05)
    assert row_json["R@1_interval"][0] <= row_json["R@1"] <= row_json["R@1_interval"][1]


def test_every_aggregate_and_normalisation_takes_part_and_the_best_is_chosen_on_development() -> None:
    embedded = planted()
    rows = moments_settings.measure_all(embedded, say=quiet)
    assert {row.setting.scoring.aggregate for row in rows} == set(choices.AGGREGATES)
    assert {row.setting.normalise for row in rows} == set(choices.NORMALISATIONS)
    assert len({row.setting.name for row in rows}) == len(rows)
    chosen = moments_settings.best_settings(rows)
    best = max(row.sum_recall for row in rows)
    assert next(row for row in rows if row.setting == chosen["videos"]).sum_recall == best
    assert chosen["videos, 2x2, super"] == chosen["videos"]
    reference = next(row for row in rows if row.setting.name == moments_settings.REFERENCE)
    differences = moments_settings.against_reference(reference, rows)
    assert differences is not None and differences["R@1"].difference.mean == 0


def test_what_is_looked_at_again_is_what_grid_1_has_and_is_counted_once() -> None:
    """Coarse rows of 16 frames each; the videos that are looked at by a plain loop."""
    embedded = planted()
    coarse = embedded.tables["super", 2]
    rng = np.random.default_rng(3)
    frames = np.repeat(coarse.vectors.astype(float), 16, axis=0) + 0.3 * rng.normal(size=(16 * len(coarse.vectors), 6))
    starts = np.repeat(coarse.start_s, 16) + np.tile(np.arange(16) / 4, len(coarse.start_s))
    fine = SuperImageTable(coarse.video_ids, 16 * coarse.offsets, frames.astype(np.float16), starts, starts + 0.25)
    tables = {("super", 4): dataclasses.replace(coarse), ("super", 1): fine}
    embedded = dataclasses.replace(embedded, tables=tables, passes={4: 7, 1: len(frames)})

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)

    first = 0
    looked_at: set[int] = set()
    for asked, target in zip(unit(embedded.queries.vectors), embedded.targets, strict=True):
        similar = [unit(coarse.vectors[a:b]) @ asked for a, b in zip(coarse.offsets, coarse.offsets[1:], strict=False)]
        scores = {}
        for video in sorted(range(9), key=lambda video: -similar[video].max())[:3]:
            best = int(similar[video].argmax())
            rows = np.arange(16 * coarse.offsets[video], 16 * coarse.offsets[video + 1])
            rows = rows[16 * max(0, best - 1) : 16 * (best + 2)]
            looked_at |= set(rows.tolist())
            scores[video] = (similar[video].max() + (unit(fine.vectors[rows]) @ asked).max()) / 2
        first += max(scores, key=scores.__getitem__) == target
    setting = moments_settings.Setting(4, "super", Scoring("max"), refine=3)
    measured = moments_settings.measure_setting(setting, embedded)
    assert setting.name == "4x4, super, max, refine 3"
    assert measured.recall[1] == pytest.approx(100 * first / 27)
    assert measured.passes == 7 + len(looked_at)


@pytest.mark.may_skip  # its chart needs matplotlib, which is in the extra "bench" only
def test_the_short_form(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("matplotlib")
    work, out = tmp_path / "work", tmp_path / "moments_short.json"
    monkeypatch.setattr(sys, "argv", ["moments", "--videos", "60", "--work-dir", f"{work}", "--json", f"{out}"])
    moments.main()
    said = capsys.readouterr().out
    assert "encoder passes: about" in said and moments_settings.REFERENCE in said
    results = json.loads(out.read_text())["results"]
    held = {row["name"]: row for row in results["held"]}
    assert results["sets"]["held"]["videos"] == 60 and set(held) == {row["name"] for row in results["development"]}
    best = held["2x2, super, max"]
    assert best["R@1"] > 10 * 100 / 60, "chance is 1.7"
    assert {(row["level"], row["grid_size"]) for row in results["held"]} == {
        *(("super", grid) for grid in (1, 2, 3, 4)),
        *(("cell", grid) for grid in (2, 3, 4)),
    }
    passes = [held[f"{grid}x{grid}, super, max"]["encoder_passes"] for grid in (4, 3, 2, 1)]
    assert passes == sorted(passes)
    assert held["4x4, cell, max, refine 20"]["R@1"] > held["4x4, cell, max"]["R@1"]
    assert results["chosen"]["refined, 4x4 cell"]["setting"] in held
    assert results["chosen"]["videos"]["setting"] in held
    drawn = charts.draw_all(tmp_path, tmp_path / "charts")
    assert [path.suffix for path in drawn] == [".png", ".svg"]
