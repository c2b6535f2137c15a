"""The demo's scenes, captions, training and checkpoint."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest
import tokenizers
import torch
from gridclip.benchmarks.demo import run, scenes, train_tiny_clip, videos
from gridclip.dali_pipes.packets import scan
from gridclip.engine.annotations import load_annotations
from gridclip.export.clip_model import CLIP, config_from_state_dict

CHECKPOINT = run.CHECKPOINT


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
    recipe = train_tiny_clip.Recipe(scenes=40, videos=6, steps=12, vision_width=64, text_width=64, threads=1)
    monkeypatch.setattr(train_tiny_clip, "evaluate", lambda *args, **kwargs: {})
    model, tokenizer, _ = train_tiny_clip.train(recipe)
    losses = [float(record.args[1]) for record in caplog.records if record.msg.startswith("step")]  # type: ignore[index]
    assert losses[-1] < losses[0]
    assert model.config.vocab_size == tokenizer.get_vocab_size()


def test_the_committed_checkpoint_retrieves_unseen_videos() -> None:
    weights = torch.load(CHECKPOINT, weights_only=True)
    model = CLIP(config_from_state_dict(weights)).eval()
    model.load_state_dict({name: weight.float() for name, weight in weights.items()})
    tokenizer = tokenizers.Tokenizer.from_file(str(CHECKPOINT.with_suffix(".tokenizer.json")))
    assert tokenizer.get_vocab_size() == model.config.vocab_size
    rng = np.random.default_rng(3)
    pool = train_tiny_clip.render_scenes(60, 77, unseen=True, processes=1)
    batch = train_tiny_clip.make_batch([pool[3 * n : 3 * n + 3] for n in range(20)], rng)
    recall = train_tiny_clip.recall_at(model, tokenizer, batch, 1.0)
    assert recall[1] >= 70, "chance is 5"
    assert train_tiny_clip.recall_at(model, tokenizer, batch, 0.1)[1] >= recall[1]
