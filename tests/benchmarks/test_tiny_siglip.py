"""The demo's tiny SigLIP: its training, its committed folder, and the commands from that folder to an answer."""

from __future__ import annotations

import json
import math
import pathlib
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gridclip.benchmarks.demo import run, scenes, train_tiny_clip, train_tiny_siglip, videos
from gridclip.cli import main
from gridclip.dali_pipes.contract import SuperImages, VideoFile
from gridclip.dali_pipes.cpu.super_images import super_images
from gridclip.dali_pipes.sampling import Sampling
from gridclip.engine.encoding.text import clean_as_siglip
from gridclip.export.clip_model import CLIP, config_from_state_dict, normalise_pixels
from gridclip.export.model_info import read_model_info
from torch import Tensor
from torch.nn import functional as F
from transformers.activations import QuickGELUActivation

FOLDER = run.CHECKPOINTS["siglip"]
LEAST_RECALL = {1.0: 80, 0.1: 95}
VIDEOS = 4


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_the_vocabulary_is_of_whole_words_and_has_letters_for_others() -> None:
    rng = np.random.default_rng(0)
    texts = [clean_as_siglip(scenes.caption(scenes.make_scene(rng, unseen=False), rng)) for _ in range(400)]
    tokenizer = train_tiny_siglip.make_vocabulary(texts)
    for text in texts:
        tokens = tokenizer.encode(text).tokens
        assert tokens == [f"▁{word}" for word in text.split()] and len(tokens) < train_tiny_siglip.CONTEXT_LENGTH
    assert tokenizer.encode("a zebra é").tokens == ["▁a", "▁", *"zebra", "▁", "é"]
    rows = train_tiny_siglip.tokenize(tokenizer, ["A red circle!", " ".join(["a"] * 50)])
    end = tokenizer.token_to_id("</s>")
    assert rows.shape == (2, 32) and rows[:, -1].tolist() == [end, end] and (rows[0, 3:] == end).all()


def test_the_loss_asks_each_pair_on_its_own() -> None:
    rng = np.random.default_rng(1)
    logits, matches, counted = rng.normal(0, 3, (4, 7)), rng.random((4, 7)) < 0.3, rng.random((4, 7)) < 0.8
    counted |= matches
    expected = 0.0
    for text, image in np.argwhere(counted).tolist():
        probability = 1 / (1 + math.exp(-logits[text, image]))
        expected -= math.log(probability if matches[text, image] else 1 - probability)
    found = train_tiny_siglip.sigmoid_loss(*map(torch.from_numpy, (logits, matches, counted)))
    assert float(found) == pytest.approx(expected / matches.sum(), rel=1e-6)


def test_image_layers_begin_as_the_tiny_clips() -> None:
    weights = {name: weight.float() for name, weight in torch.load(run.CHECKPOINT, weights_only=True).items()}
    clip = CLIP(config_from_state_dict(weights))
    clip.load_state_dict(weights)
    model = train_tiny_siglip.new_model(200)
    train_tiny_siglip.copy_image_layers(model, run.CHECKPOINT)
    shown = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8))
    half = train_tiny_siglip.CHANNEL
    with torch.no_grad():
        patches = model.vision_model.embeddings.patch_embedding(normalise_pixels(shown, half, half))
        torch.testing.assert_close(patches, clip.visual.conv1(normalise_pixels(shown)), rtol=1e-4, atol=1e-4)
        hidden = torch.randn(2, 64, 128)
        layer = model.vision_model.encoder.layers[3]
        layer.mlp.activation_fn = QuickGELUActivation()  # CLIP's, which SigLIP's is close to
        found = layer(hidden, attention_mask=None)
        found = found if isinstance(found, Tensor) else found[0]
        torch.testing.assert_close(found, clip.visual.transformer.resblocks[3](hidden), rtol=1e-4, atol=1e-4)


def test_training_runs_lowers_the_loss_and_leaves_a_folder_of_the_family(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="train_tiny_siglip")
    recipe = train_tiny_siglip.Recipe(scenes=30, videos=6, steps=12)
    train_tiny_siglip.train(recipe, tmp_path / "model", image_layers=run.CHECKPOINT)
    losses = [float(record.args[1]) for record in caplog.records if record.msg.startswith("step")]  # type: ignore[index]
    assert losses[-1] < losses[0]
    facts = train_tiny_siglip.load_for_export(tmp_path / "model").facts
    assert (facts.family, facts.image_size, facts.text_cleaning) == ("siglip", 112, "siglip")
    model, tokenizer = train_tiny_siglip.load_model(tmp_path / "model")
    train_tiny_siglip.save(model, tokenizer, tmp_path / "again")
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_the_committed_model_retrieves_unseen_videos() -> None:
    pool = train_tiny_clip.render_scenes(train_tiny_clip.draw_scenes(60, 77, unseen=True), processes=1)
    parts = [pool[3 * n : 3 * n + 3] for n in range(20)]
    batch = train_tiny_clip.make_batch(parts, [2] * len(parts), np.random.default_rng(3))
    model = train_tiny_siglip.load_for_export(FOLDER)
    for temperature, percent in LEAST_RECALL.items():
        found = train_tiny_siglip.recall_at(model, batch, temperature)
        assert found[1] >= percent, f"chance is 5, temperature {temperature}"


def in_transformers(images: np.ndarray, sentence: str) -> np.ndarray:
    """float [L], how probably each super image matches, by transformers' own model and formula."""
    import transformers

    model = transformers.SiglipModel.from_pretrained(FOLDER, dtype=torch.float32).eval()
    _, tokenizer = train_tiny_siglip.load_model(FOLDER)
    with torch.no_grad():
        output = model(
            input_ids=train_tiny_siglip.tokenize(tokenizer, [sentence]),
            pixel_values=torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1,
        )
    probabilities: np.ndarray = F.sigmoid(output.logits_per_image)[:, 0].numpy()
    return probabilities


def test_the_commands_lead_from_the_folder_to_an_answer_with_its_probability(tmp_path: pathlib.Path) -> None:
    annotation_file = videos.write_videos(tmp_path, VIDEOS, seed=9, processes=1)

    def gridclip(*arguments: object) -> str:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    model, store = tmp_path / "model", tmp_path / "store"
    gridclip("export", FOLDER, "--out", model)
    info = read_model_info(model)
    assert info.family == "siglip" and info.logit_bias is not None and info.fused_attention == {"image": 5, "text": 2}
    files = ["--video-dir", tmp_path / videos.VIDEO_FOLDER, "--anno-file", annotation_file]
    gridclip("embed-videos", "--model", model, *files, "--store", store, "--num-workers", 1)
    gridclip("embed-text", "--model", model, "--anno-path", annotation_file, "--store", store)
    evaluated = tmp_path / "evaluation.json"
    gridclip("evaluate", "--store", store, "--anno-path", annotation_file, "--temperature", "0.1", "--json", evaluated)
    assert json.loads(evaluated.read_text())["R@1"] > 100 / VIDEOS, "chance"

    sentence = json.loads(annotation_file.read_text())["scenes_0001"]["sentences"][0]
    asked = ["search", "--model", model, "--store", store, "--temperature", "0.1", sentence, "--top", VIDEOS]
    results = json.loads(gridclip(*asked, "--json"))["results"]
    assert len(results) == VIDEOS
    for result in results:
        video = VideoFile(result["video_id"], tmp_path / videos.VIDEO_FOLDER / f"{result['video_id']}.mp4")
        parts = super_images(video, Sampling(super_img_size=112))
        images = np.concatenate([part.on_cpu() for part in parts if isinstance(part, SuperImages)])
        expected = float(in_transformers(images, sentence).max())
        assert result["match_probability"] == pytest.approx(expected, rel=0.05, abs=1e-3)
    lines = gridclip(*asked).splitlines()
    assert all(re.search(r" s  match \d+%$", line) for line in lines) and len(lines) == VIDEOS
    two = gridclip(*asked, "--then", "a blue star")
    assert "match" not in two
