r"""Generated scenes in; a tiny CLIP in OpenAI's checkpoint layout and its own BPE vocabulary out.

    python -m gridclip.benchmarks.demo.train_tiny_clip --start benchmarks/demo/tiny_clip.pt \
        --out benchmarks/demo/grids_clip.pt --threads 1 --minutes 40 --steps 3000

That made `grids_clip.pt`, which `bench moments` uses (640 steps in 40 minutes of a busy core; how many they are depends
on the machine). What it started from, the demo's `tiny_clip.pt`, is from an earlier version of this script, which knew
2 x 2 grids of 6,000 scenes of 8 to 14 seconds only and trained from nothing, 850 steps; at 2 x 2 and temperature 1 it
is still a little better, and so it stays the demo's.

The model sees super images as the pipeline makes them from videos: scenes are sampled every two seconds at a random
phase and packed into grids of 1 x 1 to 4 x 4 cells, so that many super images hold the end of one scene and the start
of the next. It is trained on what retrieval computes: the score of a caption against a whole video, at temperature 1
and at 0.1, where half of a step's videos are near duplicates of the other half. Linear heads that name what each cell
and each caption shows make the first steps faster; they are not part of the checkpoint.
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

from ...export.clip_model import CLIP, ClipConfig, config_from_state_dict, normalise_pixels
from . import scenes
from .tiny_bpe import END_TOKEN, START_TOKEN, train_bpe

log = logging.getLogger("train_tiny_clip")

SUPER_IMG_SIZE, PATCH_SIZE, PERIOD_S = 112, 14, 2.0
GRID_SIZES = (1, 2, 3, 4)
CELLS = max(GRID_SIZES) ** 2
SECONDS = (3.0, scenes.LONGEST_S)  # of a training scene
# Videos of each grid size in a step, and the bounds of their scenes: about 140 super images of about 130 scenes.
SHARES = {1: 6, 2: 14, 3: 6, 4: 6}
SCENES = {1: (2, 2), 2: (3, 4), 3: (4, 6), 4: (5, 8)}
TEMPERATURES = (1.0, 0.1)
MAX_LOGIT_SCALE = math.log(100)
CHECKPOINT_STEPS = 100
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
        scenes: pairs of a scene and its near duplicate that are rendered for training; videos are put together from
            them anew at each step.
        shrink: divides the videos of a step, for trials.
        steps: optimiser steps.
        minutes: wall-clock limit; the learning rate falls with the steps or with the time, whichever is further on.
        learning_rate: its peak.
        vision_width, vision_layers, text_width, text_layers, embed_dim: sizes of a model that starts from nothing.
        seed: of scenes, weights and batches.
        threads: CPU threads, and processes that render.
    """

    scenes: int = 1500
    shrink: int = 1
    steps: int = 2000
    minutes: float = 45.0
    learning_rate: float = 1.0e-3
    vision_width: int = 128
    vision_layers: int = 4
    text_width: int = 128
    text_layers: int = 2
    embed_dim: int = 128
    seed: int = 1
    threads: int = 2


@dataclasses.dataclass(frozen=True)
class RenderedScene:
    """A scene and its sampled frames as cells of each grid size N, uint8 [F, S // N, S // N, 3]."""

    scene: scenes.Scene
    cells: dict[int, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some videos of several scenes each, a caption per scene.

    Attributes:
        super_images: uint8 [T, S, S, 3] of all videos, one after the other.
        grid_of_image: int64 [T], cells per row.
        video_of_image: int64 [T], ascending.
        captions: one sentence per scene, C in all.
        video_of_caption: int64 [C], ascending.
        overlap: float32 [C, T], the share of a super image's filled cells that show the caption's scene.
        attributes: int64 [C, len(ATTRIBUTES)] of the captions' scenes.
        caption_of_cell: int64 [T, CELLS], the caption of the scene in each cell, -1 for cells that are not filled or
            not there.
    """

    super_images: np.ndarray
    grid_of_image: np.ndarray
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

    def encode_image_and_cells(self, pixels: Tensor, grids: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [T, D], and the mean of the last layer's patches per cell [T, CELLS, width], zeros where no cell.

        Args:
            pixels: normalised, float [T, 3, S, S].
            grids: int64 [T], cells per row.
        """
        kept: list[Tensor] = []
        hook = self.model.visual.transformer.register_forward_hook(lambda module, inputs, output: kept.append(output))
        try:
            with torch.autocast("cpu", torch.bfloat16):
                embeddings = self.model.encode_image(pixels)
        finally:
            hook.remove()
        patches = kept[0][:, 1:].float()
        cells = patches.new_zeros(len(pixels), CELLS, patches.shape[2])
        for grid in grids.unique().tolist():
            own = F.one_hot(cell_of_patch(grid), grid**2).float()
            cells[grids == grid, : grid**2] = (own / own.sum(dim=0)).T @ patches[grids == grid]
        return embeddings.float(), cells


def cell_of_patch(grid: int) -> Tensor:
    """int64 [patches]: the cell that holds each patch's centre; at 3 x 3 some patches show parts of two."""
    centres = torch.arange(PATCH_SIZE // 2, SUPER_IMG_SIZE, PATCH_SIZE)
    line = (centres // (SUPER_IMG_SIZE // grid)).clamp(max=grid - 1)
    return (line[:, None] * grid + line).flatten()


def draw_scenes(count: int, seed: int, *, unseen: bool) -> list[scenes.Scene]:
    """The scenes of a seed; those of training are shorter, too, than the demo's."""
    seconds = (scenes.SHORTEST_S, scenes.LONGEST_S) if unseen else SECONDS
    return [
        scenes.make_scene(np.random.default_rng((seed, int(unseen), number)), unseen=unseen, seconds=seconds)
        for number in range(count)
    ]


def draw_pairs(count: int, seed: int) -> list[scenes.Scene]:
    """Training scenes, each followed by a near duplicate of it: 2 * count."""
    rng = np.random.default_rng((seed, 4))
    drawn = draw_scenes(count, seed, unseen=False)
    return [each for scene in drawn for each in (scene, scenes.near_duplicate(scene, rng))]


def render_scene(scene: scenes.Scene) -> RenderedScene:
    """Render the frames that sampling every PERIOD_S seconds, at a random phase, finds in a scene."""
    painter = scenes.Painter(scene)
    first = np.random.default_rng((scene.look, 1)).uniform(0, PERIOD_S)
    frames = [painter.frame(time_s) for time_s in np.arange(first, scene.duration_s, PERIOD_S).tolist()]
    return RenderedScene(scene, {grid: as_cells(frames, SUPER_IMG_SIZE // grid) for grid in GRID_SIZES})


def as_cells(frames: list[Image.Image], cell_px: int) -> np.ndarray:
    """uint8 [F, cell_px, cell_px, 3]."""
    return np.stack([np.asarray(frame.resize((cell_px, cell_px), Image.Resampling.BICUBIC)) for frame in frames])


def render_scenes(drawn: list[scenes.Scene], *, processes: int) -> list[RenderedScene]:
    """Render scenes, in several processes if asked to."""
    if processes <= 1:
        return [render_scene(scene) for scene in drawn]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        return list(pool.map(render_scene, drawn, chunksize=50))


def make_batch(videos: list[list[RenderedScene]], grids: list[int], rng: np.random.Generator) -> Batch:
    """Cut the frames of each video into super images, as the pipeline does.

    Args:
        videos: the scenes of each.
        grids: the grid size of each video.
        rng: of the captions' wording.
    """
    images: list[np.ndarray] = []
    captions: list[str] = []
    video_of_image: list[int] = []
    video_of_caption: list[int] = []
    caption_of_cell: list[np.ndarray] = []
    for number, (video, grid) in enumerate(zip(videos, grids, strict=True)):
        parts = [scene.cells[grid] for scene in video]
        scene_of_cell = np.repeat(np.arange(len(video)), [len(part) for part in parts]) + len(captions)
        cells = np.concatenate(parts)
        for start in range(0, len(cells), grid**2):
            shown = scene_of_cell[start : start + grid**2]
            caption_of_cell.append(np.pad(shown, (0, CELLS - len(shown)), constant_values=-1))
            images.append(pack(cells[start : start + grid**2], grid))
            video_of_image.append(number)
        captions += [scenes.caption(scene.scene, rng) for scene in video]
        video_of_caption += [number] * len(video)
    shown_in = np.stack(caption_of_cell)
    shows = (shown_in[None] == np.arange(len(captions))[:, None, None]).sum(axis=2, dtype=np.float32)
    return Batch(
        super_images=np.stack(images),
        grid_of_image=np.array(grids)[video_of_image],
        video_of_image=np.array(video_of_image),
        captions=captions,
        video_of_caption=np.array(video_of_caption),
        overlap=shows / (shown_in >= 0).sum(axis=1, dtype=np.float32),
        attributes=np.array([attributes_of(scene.scene) for video in videos for scene in video]),
        caption_of_cell=shown_in,
    )


def pack(cells: np.ndarray, grid: int) -> np.ndarray:
    """Cells uint8 [1..grid * grid, S // grid, S // grid, 3] as a super image uint8 [S, S, 3], the rest of it black."""
    side = cells.shape[1]
    full = np.zeros((grid**2, side, side, 3), np.uint8)
    full[: len(cells)] = cells
    rows = full.reshape(grid, grid, side, side, 3)
    packed = np.zeros((SUPER_IMG_SIZE, SUPER_IMG_SIZE, 3), np.uint8)
    packed[: grid * side, : grid * side] = rows.transpose(0, 2, 1, 3, 4).reshape(grid * side, grid * side, 3)
    return packed


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
    embeddings, cells = trainee.encode_image_and_cells(pixels, torch.from_numpy(batch.grid_of_image))
    images = F.normalize(embeddings, dim=-1)
    with torch.autocast("cpu", torch.bfloat16):
        words = model.encode_text(tokens)
    texts = F.normalize(words.float(), dim=-1)
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


def make_videos(
    pairs: list[RenderedScene], shrink: int, rng: np.random.Generator
) -> tuple[list[list[RenderedScene]], list[int]]:
    """Put the videos of a step together, SHARES of each grid size; half of them are near duplicates of the other half.

    Args:
        pairs: each scene is followed by its near duplicate.
        shrink: divides the number of videos.

    Returns:
        The videos' scenes, and their grid sizes.
    """
    videos, grids = [], []
    for grid, share in SHARES.items():
        for _ in range(max(1, share // (2 * shrink))):
            fewest, most = SCENES[grid]
            chosen = 2 * rng.choice(len(pairs) // 2, size=int(rng.integers(fewest, most + 1)), replace=False)
            videos += [[pairs[number + twin] for number in chosen.tolist()] for twin in (0, 1)]
            grids += [grid, grid]
    return videos, grids


def new_model(recipe: Recipe, tokenizer: tokenizers.Tokenizer) -> CLIP:
    """A model of the recipe's sizes with random weights."""
    config = ClipConfig(
        image_size=SUPER_IMG_SIZE,
        patch_size=PATCH_SIZE,
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
    return CLIP(config)


def load_model(path: pathlib.Path) -> tuple[CLIP, tokenizers.Tokenizer]:
    """A saved model and its tokenizer; position embeddings of another image size are interpolated (bicubic)."""
    weights = {name: weight.float() for name, weight in torch.load(path, weights_only=True).items()}
    config = dataclasses.replace(config_from_state_dict(weights), image_size=SUPER_IMG_SIZE)
    name = "visual.positional_embedding"
    side = math.isqrt(len(weights[name]) - 1)
    if side != config.grid:
        grid = weights[name][1:].T.unflatten(1, (side, side))[None]
        grid = F.interpolate(grid, size=(config.grid, config.grid), mode="bicubic")[0]
        weights[name] = torch.cat([weights[name][:1], grid.flatten(1).T])
    model = CLIP(config)
    model.load_state_dict(weights)
    return model, tokenizers.Tokenizer.from_file(str(path.with_suffix(".tokenizer.json")))


def train(
    recipe: Recipe, *, start: pathlib.Path | None = None, out: pathlib.Path | None = None
) -> tuple[CLIP, tokenizers.Tokenizer, dict[str, object]]:
    """Train, and save what there is every CHECKPOINT_STEPS steps.

    Args:
        recipe: see there.
        start: a checkpoint to go on from, with its tokenizer beside it; from nothing without.
        out: where to save to.

    Returns:
        The model, its tokenizer, and the recall on unseen videos (put together without a codec) per temperature.
    """
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(recipe.threads)
    rng = np.random.default_rng((recipe.seed, 2))
    generator = torch.Generator().manual_seed(recipe.seed)
    begun = time.monotonic()
    pairs = render_scenes(draw_pairs(recipe.scenes, recipe.seed), processes=recipe.threads)
    log.info("%d scenes rendered in %.0f s", len(pairs), time.monotonic() - begun)

    if start is None:
        tokenizer = train_bpe(scenes.caption(rendered.scene, rng) for rendered in pairs)
        model = new_model(recipe, tokenizer)
    else:
        model, tokenizer = load_model(start)
    log.info("%.2f M parameters", sum(parameter.numel() for parameter in model.parameters()) / 1e6)
    trainee = Trainee(model)
    decayed = [parameter for parameter in trainee.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in trainee.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    warmup = min(60, recipe.steps // 10 + 1)
    training = time.monotonic()
    for step in range(recipe.steps):
        done = max(step / recipe.steps, (time.monotonic() - training) / (60 * recipe.minutes))
        if done >= 1:
            break
        share = min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * done)) + 0.01)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * share
        videos, grids = make_videos(pairs, recipe.shrink, rng)
        batch = make_batch(videos, grids, rng)
        loss = loss_of(trainee, batch, tokenize(tokenizer, batch.captions), generator)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        if step % 25 == 0 or step + 1 == recipe.steps:
            log.info("step %d, loss %.3f, %.0f s", step, loss.item(), time.monotonic() - begun)
        if out is not None and step % CHECKPOINT_STEPS == CHECKPOINT_STEPS - 1:
            save(model, tokenizer, out)
    return model.eval(), tokenizer, evaluate(model.eval(), tokenizer, seed=recipe.seed)


def evaluate(model: CLIP, tokenizer: tokenizers.Tokenizer, *, seed: int, videos: int = 100) -> dict[str, object]:
    """Recall on unseen videos that are put together without a codec, for each grid size and temperature."""
    rng = np.random.default_rng((seed, 3))
    pool = render_scenes(draw_scenes(4 * videos, seed, unseen=True), processes=1)
    parts = [pool[4 * number : 4 * number + int(rng.integers(3, 5))] for number in range(videos)]
    report: dict[str, object] = {"videos": videos, "queries": sum(map(len, parts))}
    for grid in GRID_SIZES:
        batch = make_batch(parts, [grid] * videos, rng)
        for temperature in TEMPERATURES:
            report[f"grid {grid}, temperature {temperature}"] = recall_at(model, tokenizer, batch, temperature)
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
    parser.add_argument("--start", type=pathlib.Path, help="checkpoint to go on from; its sizes, its tokenizer")
    for field in dataclasses.fields(Recipe):
        kind = float if field.type == "float" else int
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    options = vars(parser.parse_args())
    out, start = options.pop("out"), options.pop("start")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model, tokenizer, report = train(Recipe(**options), start=start, out=out)
    save(model, tokenizer, out)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
