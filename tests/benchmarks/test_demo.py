"""The demo's scenes, captions, training and checkpoint."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tokenizers
import torch
from gridclip.benchmarks.demo import run, scenes, train_tiny_clip, videos
from gridclip.dali_pipes.grid import assemble
from gridclip.dali_pipes.packets import scan
from gridclip.engine.annotations.annotations import load_annotations
from gridclip.export.clip_model import CLIP, config_from_state_dict

CHECKPOINT = run.CHECKPOINT
GRIDS_CHECKPOINT = "grids_clip.pt"
# A checkpoint, a grid size, and R@1 at least by temperature.
LEAST_RECALL = [
    (CHECKPOINT.name, 2, {1.0: 70, 0.1: 90}),
    (GRIDS_CHECKPOINT, 1, {0.1: 80}),
    (GRIDS_CHECKPOINT, 2, {1.0: 70, 0.1: 90}),
    (GRIDS_CHECKPOINT, 3, {0.1: 60}),
    (GRIDS_CHECKPOINT, 4, {0.1: 45}),
]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_a_seed_always_gives_the_same_video() -> None:
    first, again, other = (videos.make_video(seed, 3, unseen=True) for seed in (5, 5, 6))
    assert first == again != other
    pictures = [scenes.Painter(video.scenes[0]).frame(1.5).tobytes() for video in (first, again)]
    assert pictures[0] == pictures[1]


def test_unseen_scenes_are_combinations_that_training_never_saw() -> None:
    rng = np.random.default_rng(0)

    def combinations(unseen: bool) -> set[tuple[str, str, str]]:
        drawn = [scenes.make_scene(rng, unseen=unseen) for _ in range(300)]
        return {(scene.colour, scene.shape, scene.texture) for scene in drawn}

    assert not combinations(True) & combinations(False)


def test_a_near_duplicate_differs_in_motion_or_corner_alone() -> None:
    rng = np.random.default_rng(2)
    changed = set()
    for _ in range(60):
        scene = scenes.make_scene(rng, unseen=False)
        twin = scenes.near_duplicate(scene, rng)
        assert twin.look != scene.look
        corner, twin_corner = (each.companion.corner if each.companion else None for each in (scene, twin))
        differs = {
            name
            for name, pair in (("motion", (scene.motion, twin.motion)), ("corner", (corner, twin_corner)))
            if pair[0] != pair[1]
        }
        assert len(differs) == 1
        changed |= differs
        assert (twin.colour, twin.shape, twin.texture, twin.background) == (
            scene.colour,
            scene.shape,
            scene.texture,
            scene.background,
        )
    assert changed == {"motion", "corner"}


def test_super_images_of_training_are_those_of_the_pipeline() -> None:
    scene = scenes.make_scene(np.random.default_rng(4), unseen=False, seconds=(12.0, 13.0))
    rendered = train_tiny_clip.render_scene(scene)
    painter = scenes.Painter(scene)
    phase = np.random.default_rng((scene.look, 1)).uniform(0, train_tiny_clip.PERIOD_S)
    frames = [np.asarray(painter.frame(phase + 2 * number)) for number in range(len(rendered.cells[1]))]
    for grid in train_tiny_clip.GRID_SIZES:
        expected = assemble(frames, grid, train_tiny_clip.SUPER_IMG_SIZE)
        batch = train_tiny_clip.make_batch([[rendered]], [grid], np.random.default_rng(0))
        np.testing.assert_array_equal(batch.super_images, expected)
        shown = [(batch.caption_of_cell[number] == 0).sum() for number in range(len(expected))]
        assert sum(shown) == len(frames) and (batch.overlap == 1).all()


def test_a_patch_belongs_to_the_cell_of_its_centre() -> None:
    side = train_tiny_clip.SUPER_IMG_SIZE // train_tiny_clip.PATCH_SIZE
    for grid in train_tiny_clip.GRID_SIZES:
        cell_px = train_tiny_clip.SUPER_IMG_SIZE // grid
        expected = [
            (14 * row + 7) // cell_px * grid + (14 * column + 7) // cell_px
            for row in range(side)
            for column in range(side)
        ]
        assert train_tiny_clip.cell_of_patch(grid).tolist() == expected


def test_captions_name_what_is_to_be_seen() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        scene = scenes.make_scene(rng, unseen=False)
        text = scenes.caption(scene, rng)
        assert scene.colour in text and scene.shape in text and scene.background in text
        assert text[0].isupper() and text.endswith(".")


def test_videos_and_annotations_agree(tmp_path: pathlib.Path) -> None:
    annotation_file = videos.write_videos(tmp_path, 2, seed=9, processes=1)
    annotations = load_annotations(annotation_file)
    assert annotations.video_ids == ["scenes_0000", "scenes_0001"] and not annotations.problems
    for video_id, own in json.loads(annotation_file.read_text()).items():
        path = tmp_path / videos.VIDEO_FOLDER / f"{video_id}.mp4"
        assert len(own["sentences"]) >= 3
        assert scan.summarise(path).duration_s == pytest.approx(own["duration"], abs=0.2)
        with scan.open_video(path) as (container, stream):
            _, table, _ = scan.scan(container, stream)
        assert (table.facts & 4).any(), "no B-frames to leave out"
    stamps = [path.stat().st_mtime_ns for path in sorted((tmp_path / videos.VIDEO_FOLDER).iterdir())]
    videos.write_videos(tmp_path, 2, seed=9, processes=1)
    assert stamps == [path.stat().st_mtime_ns for path in sorted((tmp_path / videos.VIDEO_FOLDER).iterdir())]


def test_training_runs_and_lowers_the_loss(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level("INFO", logger="train_tiny_clip")
    recipe = train_tiny_clip.Recipe(scenes=40, shrink=6, steps=12, vision_width=64, text_width=64, threads=1)
    monkeypatch.setattr(train_tiny_clip, "evaluate", lambda *args, **kwargs: {})
    model, tokenizer, _ = train_tiny_clip.train(recipe)
    losses = [float(record.args[1]) for record in caplog.records if record.msg.startswith("step")]  # type: ignore[index]
    assert losses[-1] < losses[0]
    assert model.config.vocab_size == tokenizer.get_vocab_size()


@pytest.mark.parametrize(("checkpoint", "grid", "least"), LEAST_RECALL)
def test_a_committed_checkpoint_retrieves_unseen_videos(checkpoint: str, grid: int, least: dict[float, int]) -> None:
    weights = torch.load(CHECKPOINT.with_name(checkpoint), weights_only=True)
    model = CLIP(config_from_state_dict(weights)).eval()
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    tokenizer = tokenizers.Tokenizer.from_file(str(CHECKPOINT.with_suffix(".tokenizer.json")))
    assert tokenizer.get_vocab_size() == model.config.vocab_size
    pool = train_tiny_clip.render_scenes(train_tiny_clip.draw_scenes(60, 77, unseen=True), processes=1)
    parts = [pool[3 * n : 3 * n + 3] for n in range(20)]
    batch = train_tiny_clip.make_batch(parts, [grid] * len(parts), np.random.default_rng(3))
    for temperature, percent in least.items():
        found = train_tiny_clip.recall_at(model, tokenizer, batch, temperature)
        assert found[1] >= percent, f"chance is 5, temperature {temperature}"
