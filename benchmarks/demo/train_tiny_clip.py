"""Generated scenes in; a tiny CLIP in OpenAI's checkpoint layout and its own BPE vocabulary out.

    python -m gridclip.benchmarks.demo.train_tiny_clip --out benchmarks/demo/tiny_clip.pt

The model sees super images as the pipeline makes them from videos: scenes are sampled every two seconds at a random
phase and packed four by four, so that many super images hold the end of one scene and the start of the next. It is
trained on what retrieval computes: the score of a caption against a whole video, at temperature 1 and at 0.1. Linear
heads that name what each cell and each caption shows make the first steps faster; they are not part of the checkpoint.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import logging
import math
import multiprocessing
import pathlib
import time

import numpy as np
import tokenizers
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from ...export.clip_model import CLIP, ClipConfig, normalise_pixels
from . import scenes
from .tiny_bpe import END_TOKEN, START_TOKEN, train_bpe

log = logging.getLogger("train_tiny_clip")

SUPER_IMG_SIZE, GRID_SIZE, PERIOD_S = 112, 2, 2.0
CELL_PX = SUPER_IMG_SIZE // GRID_SIZE
TEMPERATURES = (1.0, 0.1)
MAX_LOGIT_SCALE = math.log(100)
ATTRIBUTES = (
    tuple(scenes.OBJECT_COLOURS),
    scenes.SHAPES,
    scenes.SIZES,
    scenes.MOTIONS,
    scenes.TEXTURES,
    tuple(scenes.BACKGROUND_COLOURS),
    ("none", *scenes.OBJECT_COLOURS),
    ("none", *scenes.SHAPES),
    ("none", *scenes.CORNERS),
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a training run does.

    Attributes:
        scenes: scenes rendered for training; videos are put together from them anew at each step.
        videos: videos per step, of three or four scenes each.
        steps: optimiser steps.
        learning_rate: its peak.
        vision_width, vision_layers, text_width, text_layers, embed_dim: sizes of the model.
        seed: of scenes, weights and batches.
        threads: CPU threads, and processes that render.
    """

    scenes: int = 6000
    videos: int = 28
    steps: int = 850
    learning_rate: float = 1.5e-3
    vision_width: int = 128
    vision_layers: int = 4
    text_width: int = 128
    text_layers: int = 2
    embed_dim: int = 128
    seed: int = 1
    threads: int = 2


@dataclasses.dataclass(frozen=True)
class RenderedScene:
    """A scene and its sampled frames as cells, uint8 [F, CELL_PX, CELL_PX, 3]."""

    scene: scenes.Scene
    cells: np.ndarray


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some videos of several scenes each, a caption per scene.

    Attributes:
        super_images: uint8 [T, S, S, 3] of all videos, one after the other.
        video_of_image: int64 [T], ascending.
        captions: one sentence per scene, C in all.
        video_of_caption: int64 [C], ascending.
        overlap: float32 [C, T], the share of a super image's filled cells that show the caption's scene.
        attributes: int64 [C, len(ATTRIBUTES)] of the captions' scenes.
        caption_of_cell: int64 [T, cells], the caption of the scene in each cell, -1 for cells that are not filled.
    """

    super_images: np.ndarray
    video_of_image: np.ndarray
    captions: list[str]
    video_of_caption: np.ndarray
    overlap: np.ndarray
    attributes: np.ndarray
    caption_of_cell: np.ndarray


def attributes_of(scene: scenes.Scene) -> list[int]:
    """The place of each of a scene's attributes in ATTRIBUTES."""
    other = scene.companion or scenes.Companion("none", "none", "none")
    main = (scene.colour, scene.shape, scene.size, scene.motion, scene.texture, scene.background)
    values = (*main, other.colour, other.shape, other.corner)
    return [names.index(value) for names, value in zip(ATTRIBUTES, values, strict=True)]


class AttributeHeads(nn.Module):
    """Names the attributes of scenes from vectors [N, width]; a crutch of training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.counts = [len(names) for names in ATTRIBUTES]
        self.linear = nn.Linear(width, sum(self.counts))

    def loss(self, vectors: Tensor, attributes: Tensor) -> Tensor:
        """Mean cross entropy over the attributes, int64 [N, len(ATTRIBUTES)]."""
        logits = self.linear(vectors).split(self.counts, dim=1)
        losses = [F.cross_entropy(own, attributes[:, number]) for number, own in enumerate(logits)]
        return torch.stack(losses).mean()


class Trainee(nn.Module):
    """The model and the heads that training adds: on the patches of each cell, and on the embedding of each caption."""

    def __init__(self, model: CLIP) -> None:
        super().__init__()
        self.model = model
        self.cell_heads = AttributeHeads(model.config.vision_width)
        self.text_heads = AttributeHeads(model.config.embed_dim)

    def encode_image_and_cells(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [T, D], and the mean of the last layer's patches per cell [T, cells, width]."""
        kept: list[Tensor] = []
        hook = self.model.visual.transformer.register_forward_hook(lambda module, inputs, output: kept.append(output))
        try:
            embeddings = self.model.encode_image(pixels)
        finally:
            hook.remove()
        side = self.model.config.grid // GRID_SIZE
        patches = kept[0][:, 1:].unflatten(1, (GRID_SIZE, side, GRID_SIZE, side))
        return embeddings, patches.mean(dim=(2, 4)).flatten(1, 2)


def render_scene(seed: tuple[int, ...], *, unseen: bool) -> RenderedScene:
    """Make one scene and render the frames that sampling every PERIOD_S seconds finds in it."""
    rng = np.random.default_rng(seed)
    scene = scenes.make_scene(rng, unseen=unseen)
    painter = scenes.Painter(scene)
    times = np.arange(rng.uniform(0, PERIOD_S), scene.duration_s, PERIOD_S)
    cells = [painter.frame(time_s).resize((CELL_PX, CELL_PX), Image.Resampling.BICUBIC) for time_s in times.tolist()]
    return RenderedScene(scene, np.stack([np.asarray(cell) for cell in cells]))


def render_scenes(count: int, seed: int, *, unseen: bool, processes: int) -> list[RenderedScene]:
    """Render count scenes of one seed, in several processes if asked to."""
    seeds = [(seed, int(unseen), number) for number in range(count)]
    if processes <= 1:
        return [render_scene(each, unseen=unseen) for each in seeds]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        render = _render_unseen if unseen else _render_seen
        return list(pool.map(render, seeds, chunksize=50))


def _render_seen(seed: tuple[int, ...]) -> RenderedScene:
    return render_scene(seed, unseen=False)


def _render_unseen(seed: tuple[int, ...]) -> RenderedScene:
    return render_scene(seed, unseen=True)


def make_batch(videos: list[list[RenderedScene]], rng: np.random.Generator) -> Batch:
    """Cut the frames of each video into super images, as the pipeline does."""
    images: list[np.ndarray] = []
    captions: list[str] = []
    video_of_image: list[int] = []
    video_of_caption: list[int] = []
    caption_of_cell: list[np.ndarray] = []
    for number, video in enumerate(videos):
        scene_of_cell = np.repeat(np.arange(len(video)), [len(scene.cells) for scene in video]) + len(captions)
        cells = np.concatenate([scene.cells for scene in video])
        for start in range(0, len(cells), GRID_SIZE**2):
            shown = scene_of_cell[start : start + GRID_SIZE**2]
            caption_of_cell.append(np.pad(shown, (0, GRID_SIZE**2 - len(shown)), constant_values=-1))
            images.append(_pack(cells[start : start + GRID_SIZE**2]))
            video_of_image.append(number)
        captions += [scenes.caption(scene.scene, rng) for scene in video]
        video_of_caption += [number] * len(video)
    shown_in = np.stack(caption_of_cell)
    overlap = (shown_in[None] == np.arange(len(captions))[:, None, None]).mean(axis=2, dtype=np.float32)
    return Batch(
        super_images=np.stack(images),
        video_of_image=np.array(video_of_image),
        captions=captions,
        video_of_caption=np.array(video_of_caption),
        overlap=overlap / (shown_in >= 0).mean(axis=1, dtype=np.float32),
        attributes=np.array([attributes_of(scene.scene) for video in videos for scene in video]),
        caption_of_cell=shown_in,
    )


def _pack(cells: np.ndarray) -> np.ndarray:
    """uint8 [1..4, CELL_PX, CELL_PX, 3] -> super image uint8 [S, S, 3], unused cells black."""
    full = np.zeros((GRID_SIZE**2, CELL_PX, CELL_PX, 3), np.uint8)
    full[: len(cells)] = cells
    rows = full.reshape(GRID_SIZE, GRID_SIZE, CELL_PX, CELL_PX, 3)
    return rows.transpose(0, 2, 1, 3, 4).reshape(SUPER_IMG_SIZE, SUPER_IMG_SIZE, 3)


def disturb(super_images: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness per channel a little and add noise: what codecs and colour conversions do. uint8 in and out."""
    count = len(super_images)
    gain = 1 + 0.05 * torch.randn(count, 1, 1, 3, generator=generator)
    offset = 4 * torch.randn(count, 1, 1, 3, generator=generator)
    noise = 4 * torch.randn(super_images.shape, generator=generator)
    return (super_images.float() * gain + offset + noise).clamp(0, 255).to(torch.uint8)


def video_scores(texts: Tensor, images: Tensor, video_of_image: Tensor, temperature: float) -> Tensor:
    """Score captions against videos as retrieval does.

    Args:
        texts: unit vectors [C, D].
        images: unit vectors [T, D] of the super images of all videos, in the order of the videos.
        video_of_image: int64 [T], ascending from 0 without gaps.
        temperature: of the softmax over a video's super images.

    Returns:
        float [C, V], cosines.
    """
    counts = torch.bincount(video_of_image)
    filled = torch.arange(int(counts.max()))[None] < counts[:, None]  # [V, L]
    vectors = images.new_zeros(*filled.shape, images.shape[1])
    vectors[filled] = images
    similarity = torch.einsum("cd,vld->cvl", texts, vectors)
    weights = (similarity / temperature).masked_fill(~filled, -torch.inf).softmax(dim=-1)
    aggregate = torch.einsum("cvl,vld->cvd", weights, vectors)
    return (F.normalize(aggregate, dim=-1) * texts[:, None]).sum(dim=-1)


def loss_of(trainee: Trainee, batch: Batch, tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Contrast captions with videos at both temperatures, and with the super images that show their scenes."""
    model = trainee.model
    pixels = normalise_pixels(disturb(torch.from_numpy(batch.super_images), generator))
    embeddings, cells = trainee.encode_image_and_cells(pixels)
    images = F.normalize(embeddings, dim=-1)
    texts = F.normalize(model.encode_text(tokens), dim=-1)
    scale = model.logit_scale.exp()
    video_of_image, video_of_caption = torch.from_numpy(batch.video_of_image), torch.from_numpy(batch.video_of_caption)
    own = F.one_hot(video_of_caption).float()
    loss = _contrast(scale * (texts @ images.T), torch.from_numpy(batch.overlap))
    for temperature in TEMPERATURES:
        loss = loss + _contrast(scale * video_scores(texts, images, video_of_image, temperature), own)
    attributes, caption_of_cell = torch.from_numpy(batch.attributes), torch.from_numpy(batch.caption_of_cell)
    filled = caption_of_cell >= 0
    named = trainee.cell_heads.loss(cells[filled], attributes[caption_of_cell[filled]])
    named = named + trainee.text_heads.loss(texts * scale.detach(), attributes)
    return loss / (1 + len(TEMPERATURES)) + named


def _contrast(logits: Tensor, affinity: Tensor) -> Tensor:
    """Cross entropy both ways, the target of each row and column being its share of the affinity."""
    by_row = affinity / affinity.sum(dim=1, keepdim=True)
    by_column = affinity / affinity.sum(dim=0, keepdim=True)
    return (F.cross_entropy(logits, by_row) + F.cross_entropy(logits.T, by_column.T)) / 2


def tokenize(tokenizer: tokenizers.Tokenizer, texts: list[str]) -> Tensor:
    """int64 [C, T]: start token, text, end token, zeros up to the longest."""
    start, end = tokenizer.token_to_id(START_TOKEN), tokenizer.token_to_id(END_TOKEN)
    rows = [[start, *encoding.ids, end] for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    out = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for number, row in enumerate(rows):
        out[number, : len(row)] = torch.tensor(row)
    return out


@torch.no_grad()
def recall_at(model: CLIP, tokenizer: tokenizers.Tokenizer, batch: Batch, temperature: float) -> dict[int, float]:
    """R@1, 5 and 10 of a batch's captions among its videos, in percent, without any codec between."""
    images = [model.encode_image(normalise_pixels(part)) for part in torch.from_numpy(batch.super_images).split(64)]
    texts = F.normalize(model.encode_text(tokenize(tokenizer, batch.captions)), dim=-1)
    vectors = F.normalize(torch.cat(images), dim=-1)
    scores = video_scores(texts, vectors, torch.from_numpy(batch.video_of_image), temperature)
    own = scores.gather(1, torch.from_numpy(batch.video_of_caption)[:, None])
    ranks = (scores > own).sum(dim=1)
    return {k: 100 * float((ranks < k).float().mean()) for k in (1, 5, 10)}


def make_videos(pool: list[RenderedScene], count: int, rng: np.random.Generator) -> list[list[RenderedScene]]:
    """Put videos of three or four different scenes together from a pool."""
    return [
        [pool[int(number)] for number in rng.choice(len(pool), size=int(rng.integers(3, 5)), replace=False)]
        for _ in range(count)
    ]


def train(recipe: Recipe) -> tuple[CLIP, tokenizers.Tokenizer, dict[str, object]]:
    """Train from nothing.

    Returns:
        The model, its tokenizer, and the recall on unseen videos (put together without a codec) per temperature.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    rng = np.random.default_rng((recipe.seed, 2))
    generator = torch.Generator().manual_seed(recipe.seed)
    begun = time.monotonic()
    pool = render_scenes(recipe.scenes, recipe.seed, unseen=False, processes=recipe.threads)
    log.info("%d scenes rendered in %.0f s", len(pool), time.monotonic() - begun)

    tokenizer = train_bpe(scenes.caption(rendered.scene, rng) for rendered in pool)
    config = ClipConfig(
        image_size=SUPER_IMG_SIZE,
        patch_size=14,
        vision_width=recipe.vision_width,
        vision_layers=recipe.vision_layers,
        vision_heads=max(1, recipe.vision_width // 64),
        text_width=recipe.text_width,
        text_layers=recipe.text_layers,
        text_heads=max(1, recipe.text_width // 64),
        context_length=77,
        vocab_size=tokenizer.get_vocab_size(),
        embed_dim=recipe.embed_dim,
    )
    model = CLIP(config)
    log.info("%.2f M parameters", sum(parameter.numel() for parameter in model.parameters()) / 1e6)
    trainee = Trainee(model)
    decayed = [parameter for parameter in trainee.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in trainee.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    warmup = min(60, recipe.steps // 10 + 1)
    for step in range(recipe.steps):
        share = min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / recipe.steps)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * share
        batch = make_batch(make_videos(pool, recipe.videos, rng), rng)
        loss = loss_of(trainee, batch, tokenize(tokenizer, batch.captions), generator)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        if step % 25 == 0 or step + 1 == recipe.steps:
            log.info("step %d, loss %.3f, %.0f s", step, loss.item(), time.monotonic() - begun)
    return model.eval(), tokenizer, evaluate(model.eval(), tokenizer, seed=recipe.seed)


def evaluate(model: CLIP, tokenizer: tokenizers.Tokenizer, *, seed: int, videos: int = 100) -> dict[str, object]:
    """Recall on unseen videos that are put together without a codec."""
    rng = np.random.default_rng((seed, 3))
    pool = render_scenes(4 * videos, seed, unseen=True, processes=1)
    parts = [pool[4 * number : 4 * number + int(rng.integers(3, 5))] for number in range(videos)]
    batch = make_batch(parts, rng)
    report: dict[str, object] = {"videos": videos, "queries": len(batch.captions)}
    for temperature in TEMPERATURES:
        report[f"temperature {temperature}"] = recall_at(model, tokenizer, batch, temperature)
    return report


def save(model: CLIP, tokenizer: tokenizers.Tokenizer, out: pathlib.Path) -> None:
    """Write OUT.pt (fp16 weights under OpenAI's names) and OUT.tokenizer.json beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: weight.half() for name, weight in model.state_dict().items()}, out)
    tokenizer.save(str(out.with_suffix(".tokenizer.json")), pretty=False)


def main() -> None:
    """Train with the recipe's values, any of which can be given as an option."""
    parser = argparse.ArgumentParser(description="Train the demo's tiny CLIP on generated scenes.")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="checkpoint to write, ending in .pt")
    for field in dataclasses.fields(Recipe):
        kind = float if field.type == "float" else int
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    options = vars(parser.parse_args())
    out = options.pop("out")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model, tokenizer, report = train(Recipe(**options))
    save(model, tokenizer, out)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
