r"""Generated scenes in; a tiny SigLIP as a Hugging Face folder, with a vocabulary of its own, out.

    python -m gridclip.benchmarks.demo.train_tiny_siglip --out benchmarks/demo/tiny_siglip \
        --image-layers benchmarks/demo/tiny_clip.pt

That made `tiny_siglip/` (some 1,950 steps in 28 minutes of a busy core; how many they are depends on the machine, and
with them the weights). Its recall is in benchmarks/README.md.

The model is transformers' (extra `bench`), so that what is shown with it, export to recall, starts from a folder that
no code of GridCLIP wrote. The scenes, their captions, and super images of 2 x 2 as the pipeline makes them are those of
`train_tiny_clip.py`; half of a step's videos are near duplicates of the other half. The image tower's layers begin as
the tiny CLIP's, which have seen these scenes: with weights from nothing, 30 minutes are too few.

The loss is SigLIP's: every pair of a caption and a super image, and every pair of a caption and a video (as retrieval
scores it, at temperature 1 and 0.1), is a question of its own, answered by sigmoid(scale * cosine + bias). The
checkpoint's scale and bias are those of super images; those of videos, and the linear heads that name what cells and
captions show, serve the training alone.
"""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import json
import logging
import math
import pathlib
import string
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional as F

from ...engine.encoding.text import clean_as_siglip
from ...export.clip_model import IMAGE_MEAN, IMAGE_STD, normalise_pixels
from ...export.families import find_family
from ...export.family import LoadOptions, TorchModel
from ...export.weights import read_weights
from . import scenes
from .train_tiny_clip import (
    PATCH_SIZE,
    SUPER_IMG_SIZE,
    TEMPERATURES,
    AttributeHeads,
    Batch,
    RenderedScene,
    disturb,
    draw_pairs,
    draw_scenes,
    make_batch,
    render_scenes,
    video_scores,
)

log = logging.getLogger("train_tiny_siglip")

GRID, SCENES_OF_VIDEO = 2, (3, 4)
WIDTH, HEADS, MLP_WIDTH, IMAGE_LAYERS, TEXT_LAYERS = 128, 2, 512, 4, 2
CONTEXT_LENGTH = 32
END_TOKEN = "</s>"
CHANNEL = (0.5, 0.5, 0.5)  # mean and standard deviation of SigLIP's pixels
# Zhai et al. begin at a scale of 10 and at the bias that is right on average: -10 for 32,768 texts a batch.
FIRST_SCALE = 10.0
FIRST_IMAGE_BIAS, FIRST_VIDEO_BIAS = -4.5, -3.5
SCALE_SPEED = 10  # how much faster scale and bias learn than weights: there are few steps to take them far
MATCHES_FROM = 0.5  # share of a super image's filled cells that makes it match the caption of their scene
CHECKPOINT_STEPS = 100
_LAYER_NAMES = {  # of a layer's parts, in transformers and in OpenAI's checkpoints
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a training run does.

    Attributes:
        scenes: pairs of a scene and its near duplicate that are rendered for training; videos are put together from
            them anew at each step.
        videos: of a step, an even number; each has three or four scenes and about five super images.
        steps: optimiser steps.
        minutes: wall-clock limit, rendering included; the learning rate falls with the steps or with the time,
            whichever is further on.
        learning_rate: its peak.
        seed: of scenes, weights and batches.
        threads: CPU threads, and processes that render.
    """

    scenes: int = 1500
    videos: int = 32
    steps: int = 3000
    minutes: float = 28.0
    learning_rate: float = 1.0e-3
    seed: int = 1
    threads: int = 1


class Trainee(nn.Module):
    """The model, and what training adds: heads on cells and captions, and a scale and a bias for videos' scores."""

    def __init__(self, model: transformers.SiglipModel) -> None:
        super().__init__()
        self.model = model
        self.cell_heads = AttributeHeads(WIDTH)
        self.text_heads = AttributeHeads(WIDTH)
        self.video_scales = nn.Parameter(torch.full((len(TEMPERATURES),), math.log(FIRST_SCALE)))
        self.video_biases = nn.Parameter(torch.full((len(TEMPERATURES),), FIRST_VIDEO_BIAS))

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float [T, 3, S, S] to unit vectors [T, D] and the means of each cell's patches [T, GRID**2, D]."""
        with torch.autocast("cpu", torch.bfloat16):
            seen = self.model.vision_model(pixel_values=pixels)
        side = SUPER_IMG_SIZE // PATCH_SIZE // GRID
        patches = seen.last_hidden_state.float().unflatten(1, (GRID, side, GRID, side))
        return F.normalize(seen.pooler_output.float(), dim=-1), patches.mean(dim=(2, 4)).flatten(1, 2)

    def encode_texts(self, token_ids: Tensor) -> Tensor:
        """Rows int64 [C, CONTEXT_LENGTH] to unit vectors [C, D]."""
        with torch.autocast("cpu", torch.bfloat16):
            read = self.model.text_model(input_ids=token_ids)
        return F.normalize(read.pooler_output.float(), dim=-1)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """For the optimiser: weights with decay, norms and biases without, scales and biases of logits faster."""
        logits = [self.model.logit_scale, self.model.logit_bias, self.video_scales, self.video_biases]
        others = [each for each in self.parameters() if not any(each is own for own in logits)]
        return [
            {"params": [each for each in others if each.ndim > 1], "weight_decay": 0.05, "peak": learning_rate},
            {"params": [each for each in others if each.ndim <= 1], "weight_decay": 0.0, "peak": learning_rate},
            {"params": logits, "weight_decay": 0.0, "peak": SCALE_SPEED * learning_rate},
        ]


def make_vocabulary(texts: Iterable[str]) -> tokenizers.Tokenizer:
    """Unigrams over words with a mark before them, as SigLIP's SentencePiece vocabulary has: whole words, and letters.

    Args:
        texts: cleaned as SigLIP's are.
    """
    counts = collections.Counter(word for text in texts for word in text.split())
    words = [(f"▁{word}", round(math.log(count / counts.total()), 4)) for word, count in sorted(counts.items())]
    rare = round(-math.log(counts.total()) - 10, 4)  # however many letters: a whole word is always more probable
    letters = [(letter, rare) for letter in f"▁{string.ascii_lowercase}{string.digits}"]
    special = [("<pad>", 0.0), (END_TOKEN, 0.0), ("<unk>", 0.0)]
    tokenizer = tokenizers.Tokenizer(models.Unigram([*special, *letters, *words], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def new_model(vocab_size: int) -> transformers.SiglipModel:
    """A model of this module's sizes with random weights."""
    tower = {"hidden_size": WIDTH, "intermediate_size": MLP_WIDTH, "num_attention_heads": HEADS}
    text = {"num_hidden_layers": TEXT_LAYERS, "max_position_embeddings": CONTEXT_LENGTH, "projection_size": WIDTH}
    tokens = {"vocab_size": vocab_size, "pad_token_id": 1, "bos_token_id": None, "eos_token_id": 1}
    vision = {"num_hidden_layers": IMAGE_LAYERS, "image_size": SUPER_IMG_SIZE, "patch_size": PATCH_SIZE}
    config = transformers.SiglipConfig(text_config=tower | text | tokens, vision_config=tower | vision)
    model = transformers.SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(math.log(FIRST_SCALE))
        model.logit_bias.fill_(FIRST_IMAGE_BIAS)
    return model


def copy_image_layers(model: transformers.SiglipModel, checkpoint: pathlib.Path) -> None:
    """Begin with a tiny CLIP's patches, positions and image layers, which have seen the same scenes.

    The class token, the norm before the layers and the projection have no place in a SigLIP.

    Args:
        model: of this module's sizes.
        checkpoint: what `train_tiny_clip.py` saved.
    """
    clip = {name: weight.float() for name, weight in torch.load(checkpoint, weights_only=True).items()}
    weights = clip["visual.conv1.weight"]
    # Pixels of mean m and deviation s become pixels of 0.5 and 0.5: (0.5 x + 0.5 - m) / s.
    mean, std = (torch.tensor(channels).reshape(1, 3, 1, 1) for channels in (IMAGE_MEAN, IMAGE_STD))
    found = {
        "embeddings.patch_embedding.weight": weights * 0.5 / std,
        "embeddings.patch_embedding.bias": (weights * (0.5 - mean) / std).sum(dim=(1, 2, 3)),
        "embeddings.position_embedding.weight": clip["visual.positional_embedding"][1:],
    }
    for layer in range(IMAGE_LAYERS):
        source, target = f"visual.transformer.resblocks.{layer}", f"encoder.layers.{layer}"
        for kind in ("weight", "bias"):
            for part, weight in zip("qkv", clip[f"{source}.attn.in_proj_{kind}"].chunk(3), strict=True):
                found[f"{target}.self_attn.{part}_proj.{kind}"] = weight
            for own, name in _LAYER_NAMES.items():
                found[f"{target}.{own}.{kind}"] = clip[f"{source}.{name}.{kind}"]
    unknown = model.vision_model.load_state_dict(found, strict=False).unexpected_keys
    assert not unknown, unknown


def load_model(folder: pathlib.Path) -> tuple[transformers.SiglipModel, tokenizers.Tokenizer]:
    """What `save` wrote."""
    model = transformers.SiglipModel.from_pretrained(folder, dtype=torch.float32)
    return model, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def save(model: transformers.SiglipModel, tokenizer: tokenizers.Tokenizer, folder: pathlib.Path) -> None:
    """Write a Hugging Face folder: config.json, model.safetensors (fp16), tokenizer.json, preprocessor_config.json."""
    copy.deepcopy(model).half().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    preprocessing = {"image_mean": CHANNEL, "image_std": CHANNEL, "image_processor_type": "SiglipImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=1) + "\n")


def tokenize(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> Tensor:
    """int64 [C, CONTEXT_LENGTH]: the text, then end tokens, as SigLIP's tokenizer pads."""
    out = torch.full((len(texts), CONTEXT_LENGTH), tokenizer.get_vocab()[END_TOKEN])
    cleaned = [clean_as_siglip(text) for text in texts]
    for number, encoding in enumerate(tokenizer.encode_batch(cleaned, add_special_tokens=False)):
        ids = encoding.ids[: CONTEXT_LENGTH - 1]
        out[number, : len(ids)] = torch.tensor(ids)
    return out


def sigmoid_loss(logits: Tensor, matches: Tensor, counted: Tensor) -> Tensor:
    """Zhai et al., "Sigmoid Loss for Language Image Pre-Training", equation 1, with several matches of a text allowed.

    Args:
        logits: float [C, N], scale * cosine + bias.
        matches: bool [C, N].
        counted: bool [C, N], False for pairs that are neither.

    Returns:
        The sum of -log(probability of the truth) over the counted pairs, divided by the number of matches.
    """
    signed = torch.where(matches, logits, -logits)
    return -(F.logsigmoid(signed) * counted).sum() / matches.sum()


def loss_of(trainee: Trainee, batch: Batch, tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Ask of each caption which super images and which videos match it, and of cells and captions what they show."""
    pixels = disturb(torch.from_numpy(batch.super_images), generator)
    images, cells = trainee.encode_images(normalise_pixels(pixels, CHANNEL, CHANNEL))
    texts = trainee.encode_texts(tokens)
    overlap = torch.from_numpy(batch.overlap)
    matches = overlap >= MATCHES_FROM
    logits = trainee.model.logit_scale.exp() * (texts @ images.T) + trainee.model.logit_bias
    loss = sigmoid_loss(logits, matches, matches | (overlap == 0))
    video_of_image, video_of_caption = torch.from_numpy(batch.video_of_image), torch.from_numpy(batch.video_of_caption)
    own = F.one_hot(video_of_caption).bool()
    for temperature, scale, bias in zip(TEMPERATURES, trainee.video_scales, trainee.video_biases, strict=True):
        scores = video_scores(texts, images, video_of_image, temperature)
        loss = loss + sigmoid_loss(scale.exp() * scores + bias, own, torch.ones_like(own))
    attributes, caption_of_cell = torch.from_numpy(batch.attributes), torch.from_numpy(batch.caption_of_cell)
    caption_of_cell = caption_of_cell[:, : GRID**2]
    filled = caption_of_cell >= 0
    named = trainee.cell_heads.loss(cells[filled], attributes[caption_of_cell[filled]])
    named = named + trainee.text_heads.loss(texts * FIRST_SCALE, attributes)
    return loss / (1 + len(TEMPERATURES)) + named


def draw_videos(pairs: list[RenderedScene], count: int, rng: np.random.Generator) -> list[list[RenderedScene]]:
    """Put `count` videos together from scenes; every other one is the near duplicate of the one before.

    Args:
        pairs: each scene is followed by its near duplicate.
    """
    videos = []
    fewest, most = SCENES_OF_VIDEO
    for _ in range(count // 2):
        chosen = 2 * rng.choice(len(pairs) // 2, size=int(rng.integers(fewest, most + 1)), replace=False)
        videos += [[pairs[number + twin] for number in chosen.tolist()] for twin in (0, 1)]
    return videos


def train(
    recipe: Recipe, out: pathlib.Path, *, start: pathlib.Path | None = None, image_layers: pathlib.Path | None = None
) -> tuple[transformers.SiglipModel, tokenizers.Tokenizer]:
    """Train, and save what there is every CHECKPOINT_STEPS steps and at the end.

    Args:
        recipe: see there.
        out: the folder to save to.
        start: a folder to go on from; from nothing without.
        image_layers: for a model from nothing, see `copy_image_layers`.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    rng = np.random.default_rng((recipe.seed, 5))
    generator = torch.Generator().manual_seed(recipe.seed)
    begun = time.monotonic()
    pairs = render_scenes(draw_pairs(recipe.scenes, recipe.seed), processes=recipe.threads)
    log.info("%d scenes rendered in %.0f s", len(pairs), time.monotonic() - begun)

    if start is None:
        tokenizer = make_vocabulary(clean_as_siglip(scenes.caption(rendered.scene, rng)) for rendered in pairs)
        model = new_model(tokenizer.get_vocab_size())
        if image_layers is not None:
            copy_image_layers(model, image_layers)
    else:
        model, tokenizer = load_model(start)
    log.info("%.2f M parameters", sum(parameter.numel() for parameter in model.parameters()) / 1e6)
    trainee = Trainee(model).train()
    optimiser = torch.optim.AdamW(trainee.parameter_groups(recipe.learning_rate), betas=(0.9, 0.98))
    warmup = min(60, recipe.steps // 10 + 1)
    for step in range(recipe.steps):
        done = max(step / recipe.steps, (time.monotonic() - begun) / (60 * recipe.minutes))
        if done >= 1:
            break
        share = min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * done)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
        videos = draw_videos(pairs, recipe.videos, rng)
        batch = make_batch(videos, [GRID] * len(videos), rng)
        loss = loss_of(trainee, batch, tokenize(tokenizer, batch.captions), generator)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimiser.step()
        if step % 25 == 0 or step + 1 == recipe.steps:
            log.info("step %d, loss %.3f, %.0f s", step, loss.item(), time.monotonic() - begun)
        if step % CHECKPOINT_STEPS == CHECKPOINT_STEPS - 1:
            save(model, tokenizer, out)
    save(model, tokenizer, out)
    return model, tokenizer


def load_for_export(folder: pathlib.Path) -> TorchModel:
    """The model as GridCLIP's own SigLIP family reads it."""
    weights = read_weights(folder)
    return find_family(weights).load(weights, LoadOptions())


@torch.no_grad()
def recall_at(model: TorchModel, batch: Batch, temperature: float) -> dict[int, float]:
    """R@1, 5 and 10 of a batch's captions among its videos, in percent, without any codec between."""
    images = [model.embed_images(part) for part in torch.from_numpy(batch.super_images).split(64)]
    cleaned = [clean_as_siglip(text) for text in batch.captions]
    encodings = model.tokenizer.encode_batch(cleaned, add_special_tokens=False)
    rows = [model.facts.make_token_row(encoding.ids) for encoding in encodings]
    texts = F.normalize(model.embed_texts(torch.tensor(rows)), dim=-1)
    vectors = F.normalize(torch.cat(images), dim=-1)
    scores = video_scores(texts, vectors, torch.from_numpy(batch.video_of_image), temperature)
    own = scores.gather(1, torch.from_numpy(batch.video_of_caption)[:, None])
    ranks = (scores > own).sum(dim=1)
    return {k: 100 * float((ranks < k).float().mean()) for k in (1, 5, 10)}


def evaluate(folder: pathlib.Path, *, seed: int, videos: int = 100) -> dict[str, object]:
    """Recall on unseen videos that are put together without a codec, for each temperature."""
    rng = np.random.default_rng((seed, 3))
    pool = render_scenes(draw_scenes(4 * videos, seed, unseen=True), processes=1)
    parts = [pool[4 * number : 4 * number + int(rng.integers(3, 5))] for number in range(videos)]
    batch = make_batch(parts, [GRID] * videos, rng)
    model = load_for_export(folder)
    recall = {f"temperature {each}": recall_at(model, batch, each) for each in TEMPERATURES}
    return {"videos": videos, "queries": len(batch.captions), **recall}


def main() -> None:
    """Train with the recipe's values, any of which can be given as an option."""
    parser = argparse.ArgumentParser(description="Train the demo's tiny SigLIP on generated scenes.")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write")
    parser.add_argument("--start", type=pathlib.Path, help="folder to go on from, with its vocabulary")
    parser.add_argument("--image-layers", type=pathlib.Path, help="tiny CLIP whose image layers to begin with")
    for field in dataclasses.fields(Recipe):
        kind = float if field.type == "float" else int
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    options = vars(parser.parse_args())
    out, start, image_layers = (options.pop(name) for name in ("out", "start", "image_layers"))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = Recipe(**options)
    train(recipe, out, start=start, image_layers=image_layers)
    print(json.dumps(evaluate(out, seed=recipe.seed), indent=1))


if __name__ == "__main__":
    main()
