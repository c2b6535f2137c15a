"""The demo's output in; the README's picture out: a sentence, its best videos, and what each super image weighs.

python -m gridclip.benchmarks.demo.picture --out benchmarks/demo/ranked_videos.png     (after make demo)
"""

from __future__ import annotations

import argparse
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...dali_pipes.contract import SuperImages, VideoFile
from ...dali_pipes.cpu.super_images import super_images
from ...dali_pipes.sampling import Sampling
from ...engine.encoding.encoder import Encoder
from ...engine.search.search import search
from ...engine.store.store import Store
from . import run, videos

IMAGE_PX, GAP_PX, LABEL_PX, BAR_PX, TOP_PX = 118, 12, 168, 9, 64
INK, GREY, ACCENT = (28, 32, 38), (140, 146, 154), (226, 96, 42)
TEMPERATURE = 0.1
VIDEOS = 3


def draw(out: pathlib.Path, sentence: str) -> Image.Image:
    """Draws the best videos of the demo in `out` for a sentence, one row each; the best moment is framed."""
    paths = run.Paths(out)
    store, encoder = Store.open(paths.store), Encoder(paths.model)
    query = encoder.encode_texts([sentence])[0]
    hits = search(store, query, VIDEOS, temperature=TEMPERATURE)
    table = store.read_super_images("super")
    rows = []
    for hit in hits:
        number = table.video_ids.index(hit.video_id)
        vectors = table.vectors[table.offsets[number] : table.offsets[number + 1]].astype(np.float32)
        weights = np.exp(vectors @ query / TEMPERATURE)
        video = VideoFile(hit.video_id, out / videos.VIDEO_FOLDER / f"{hit.video_id}.mp4")
        parts = super_images(video, Sampling(super_img_size=2 * IMAGE_PX))
        images = np.concatenate([part.on_cpu() for part in parts if isinstance(part, SuperImages)])
        rows.append((hit, images, weights / weights.sum()))
    width = LABEL_PX + max(len(images) for _, images, _ in rows) * (IMAGE_PX + GAP_PX) + GAP_PX
    height = TOP_PX + VIDEOS * (IMAGE_PX + BAR_PX + 2 * GAP_PX)
    picture = Image.new("RGB", (2 * width, 2 * height), "white")
    canvas = ImageDraw.Draw(picture)

    def text(x: int, y: int, content: str, size: int, colour: tuple[int, int, int]) -> None:
        canvas.text((2 * x, 2 * y), content, fill=colour, font=ImageFont.load_default(2 * size))

    text(GAP_PX + 4, 18, f"“{sentence}”", 17, INK)
    for row, (hit, images, weights) in enumerate(rows):
        top = TOP_PX + row * (IMAGE_PX + BAR_PX + 2 * GAP_PX)
        text(GAP_PX + 4, top + 22, f"{row + 1}", 30, ACCENT if row == 0 else GREY)
        text(GAP_PX + 36, top + 24, hit.video_id, 13, INK)
        text(GAP_PX + 36, top + 44, f"score {hit.score:.3f}", 13, GREY)
        text(GAP_PX + 36, top + 62, f"{hit.start_s:.0f} to {hit.end_s:.0f} s", 13, GREY)
        for number, (image, weight) in enumerate(zip(images, weights, strict=True)):
            left = LABEL_PX + number * (IMAGE_PX + GAP_PX)
            picture.paste(Image.fromarray(image), (2 * left, 2 * top))
            best = weight == weights.max()
            if best:
                box = [2 * left - 5, 2 * top - 5, 2 * (left + IMAGE_PX) + 4, 2 * (top + IMAGE_PX) + 4]
                canvas.rectangle(box, outline=ACCENT, width=6)
            bar = 2 * (top + IMAGE_PX + 5)
            canvas.rectangle([2 * left, bar, 2 * (left + IMAGE_PX), bar + 2 * BAR_PX], fill=(236, 238, 240))
            filled = 2 * left + max(2, round(2 * IMAGE_PX * float(weight)))
            canvas.rectangle([2 * left, bar, filled, bar + 2 * BAR_PX], fill=ACCENT if best else GREY)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the README's picture from what make demo left.")
    parser.add_argument("--demo", type=pathlib.Path, default=pathlib.Path("demo-output"))
    parser.add_argument("--sentence", help="default: the first one that the demo searches for")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    sentence = options.sentence or run.questions(options.demo / videos.ANNOTATION_FILE)[0].sentence
    draw(options.demo, sentence).quantize(96, dither=Image.Dither.NONE).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
