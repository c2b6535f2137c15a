"""A seed in; scenes of coloured shapes that move over textured backgrounds, with a caption each and their pixels, out.

The world is small enough for a tiny CLIP and rich enough that a caption points at one video in a hundred: shape,
colour, size and motion of the main object, texture and colour of the background, and a second object in a corner.

A fifth of all (colour, shape, texture) combinations is held out: scenes with `unseen=True` come only from those, the
others never do, so that retrieving them takes composing known words and not remembering a picture.
"""

from __future__ import annotations

import dataclasses
import math
import zlib

import numpy as np
from PIL import Image, ImageDraw

WIDTH_PX, HEIGHT_PX = 320, 240
SHORTEST_S, LONGEST_S = 8.0, 14.0  # a scene of the demo's videos

OBJECT_COLOURS = {
    "red": (214, 38, 38),
    "orange": (242, 140, 28),
    "yellow": (246, 222, 52),
    "green": (44, 158, 62),
    "blue": (38, 84, 222),
    "purple": (134, 54, 186),
    "pink": (246, 146, 194),
    "white": (246, 246, 246),
    "black": (20, 20, 24),
}
# Paler than the objects of the same name, so that every object stands out from every background.
BACKGROUND_COLOURS = {
    "red": (172, 94, 88),
    "yellow": (206, 192, 128),
    "green": (112, 152, 104),
    "blue": (108, 136, 184),
    "purple": (136, 110, 158),
    "grey": (136, 138, 140),
    "brown": (130, 100, 70),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "heart", "moon", "diamond")
TEXTURES = ("plain", "stripes", "checks", "dots", "waves", "bricks")
SIZES = ("big", "small")
MOTIONS = ("right", "left", "up", "down", "circle", "grow", "shrink", "still")
CORNERS = ("top left", "top right", "bottom left", "bottom right")

_ARTICLES = {"orange": "an"}
_VERBS = {
    "right": ("moves from left to right", "drifts to the right", "slides right"),
    "left": ("moves from right to left", "drifts to the left", "slides left"),
    "up": ("rises", "climbs to the top", "floats upwards"),
    "down": ("sinks", "falls slowly", "drops to the bottom"),
    "circle": ("goes round in circles", "circles around", "flies in a circle"),
    "grow": ("grows", "gets bigger", "swells"),
    "shrink": ("shrinks", "gets smaller", "dwindles"),
    "still": ("stays still", "does not move", "rests"),
}
_GROUNDS = {
    "plain": ("a plain {} background", "a plain {} wall"),
    "stripes": ("{} stripes",),
    "checks": ("{} checks", "a {} checkerboard"),
    "dots": ("{} dots", "{} polka dots"),
    "waves": ("{} waves",),
    "bricks": ("{} bricks", "a {} brick wall"),
}


@dataclasses.dataclass(frozen=True)
class Companion:
    """The second object of a scene: small and at rest in a corner."""

    colour: str
    shape: str
    corner: str


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is to be seen for duration_s seconds; `look` seeds what no caption tells (shades, phases, exact paths)."""

    colour: str
    shape: str
    size: str
    motion: str
    texture: str
    background: str
    companion: Companion | None
    duration_s: float
    look: int


def is_held_out(colour: str, shape: str, texture: str) -> bool:
    """Whether the combination is kept for unseen scenes (one in five, fixed for all seeds)."""
    return zlib.crc32(f"{colour} {shape} {texture}".encode()) % 5 == 0


def make_scene(
    rng: np.random.Generator, *, unseen: bool, seconds: tuple[float, float] = (SHORTEST_S, LONGEST_S)
) -> Scene:
    """Draw a scene that lasts between `seconds`; its combination is held out from training exactly if unseen."""
    while True:
        colour, shape, texture = (_pick(rng, tuple(OBJECT_COLOURS)), _pick(rng, SHAPES), _pick(rng, TEXTURES))
        if is_held_out(colour, shape, texture) == unseen:
            break
    companion = None
    if rng.random() < 0.75:
        others = tuple(name for name in OBJECT_COLOURS if name != colour)
        companion = Companion(_pick(rng, others), _pick(rng, SHAPES), _pick(rng, CORNERS))
    taken = {colour, companion.colour if companion else ""}
    return Scene(
        colour=colour,
        shape=shape,
        size=_pick(rng, SIZES),
        motion=_pick(rng, MOTIONS),
        texture=texture,
        background=_pick(rng, tuple(name for name in BACKGROUND_COLOURS if name not in taken)),
        companion=companion,
        duration_s=round(float(rng.uniform(*seconds)), 1),
        look=int(rng.integers(2**31)),
    )


def near_duplicate(scene: Scene, rng: np.random.Generator) -> Scene:
    """The same objects before the same background with another motion or another corner, drawn anew (its `look`).

    A scene without a companion has no corner: its motion changes.
    """
    look = int(rng.integers(2**31))
    companion = scene.companion
    if companion is None or rng.random() < 0.5:
        motion = _pick(rng, tuple(each for each in MOTIONS if each != scene.motion))
        return dataclasses.replace(scene, motion=motion, look=look)
    corner = _pick(rng, tuple(each for each in CORNERS if each != companion.corner))
    return dataclasses.replace(scene, companion=dataclasses.replace(companion, corner=corner), look=look)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Write a sentence about a scene in one of several wordings."""
    size = "" if scene.motion in ("grow", "shrink") else f"{scene.size} "
    article = "a" if size else _ARTICLES.get(scene.colour, "a")
    subject = f"{article} {size}{scene.colour} {scene.shape}"
    verb = _pick(rng, _VERBS[scene.motion])
    ground = _pick(rng, ("over", "in front of")) + " " + _pick(rng, _GROUNDS[scene.texture]).format(scene.background)
    second = ""
    if scene.companion:
        other = f"{_ARTICLES.get(scene.companion.colour, 'a')} {scene.companion.colour} {scene.companion.shape}"
        corner = f"in the {scene.companion.corner} corner"
        second = _pick(rng, (f" with {other} {corner}", f" while {other} waits {corner}"))
    if rng.random() < 0.7:
        text = f"{subject} {verb} {ground}{second}."
    else:
        text = f"{ground}, {subject} {verb}{second}."
    return text[0].upper() + text[1:]


class Painter:
    """Draws the frames of one scene at WIDTH_PX x HEIGHT_PX."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        rng = np.random.default_rng(scene.look)
        self._colour = _shade(rng, OBJECT_COLOURS[scene.colour])
        self._mask = _shape_mask(scene.shape)
        self._sprites: dict[int, Image.Image] = {}
        self._wobble = rng.uniform(-1, 1, 2)
        self._pace = rng.uniform(0.85, 1.0)
        self._phase = rng.uniform(0, 2 * math.pi)
        self._radius = HEIGHT_PX * {"big": 0.25, "small": 0.13}[scene.size] * rng.uniform(0.92, 1.08)
        self._canvas = _texture(scene.texture, _shade(rng, BACKGROUND_COLOURS[scene.background]), rng)
        if scene.companion:
            self._draw_companion(scene.companion, rng)

    def frame(self, time_s: float) -> Image.Image:
        """The picture time_s seconds after the scene's start, RGB."""
        x, y, radius = self._place(time_s / self.scene.duration_s)
        image = self._canvas.copy()
        sprite = self._sprite(max(4, round(2 * radius)))
        image.paste(self._colour, (round(x - sprite.width / 2), round(y - sprite.height / 2)), sprite)
        return image

    def _place(self, progress: float) -> tuple[float, float, float]:
        """Centre and radius of the main object in pixels, progress running from 0 to 1 over the scene."""
        x, y = WIDTH_PX * (0.5 + 0.05 * self._wobble[0]), HEIGHT_PX * (0.5 + 0.05 * self._wobble[1])
        radius = self._radius
        way = (progress - 0.5) * self._pace
        motion = self.scene.motion
        if motion in ("right", "left"):
            x += way * WIDTH_PX * 0.85 * (1 if motion == "right" else -1)
        elif motion in ("up", "down"):
            y += way * HEIGHT_PX * 0.85 * (1 if motion == "down" else -1)
        elif motion == "circle":
            angle = self._phase + 2 * math.pi * 1.25 * progress
            x, y = x + 0.26 * HEIGHT_PX * math.cos(angle), y + 0.26 * HEIGHT_PX * math.sin(angle)
        elif motion in ("grow", "shrink"):
            radius = HEIGHT_PX * (0.2 + 0.24 * way * (1 if motion == "grow" else -1))
        return x, y, radius

    def _sprite(self, side_px: int) -> Image.Image:
        if side_px not in self._sprites:
            self._sprites[side_px] = self._mask.resize((side_px, side_px), Image.Resampling.BILINEAR)
        return self._sprites[side_px]

    def _draw_companion(self, companion: Companion, rng: np.random.Generator) -> None:
        x = WIDTH_PX * (0.14 if "left" in companion.corner else 0.86)
        y = HEIGHT_PX * (0.18 if "top" in companion.corner else 0.82)
        side = round(2 * HEIGHT_PX * 0.13 * rng.uniform(0.95, 1.1))
        mask = _shape_mask(companion.shape).resize((side, side), Image.Resampling.BILINEAR)
        colour = _shade(rng, OBJECT_COLOURS[companion.colour])
        self._canvas.paste(colour, (round(x - side / 2), round(y - side / 2)), mask)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _shade(rng: np.random.Generator, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.array(colour) + rng.uniform(-10, 10, 3), 0, 255).astype(int).tolist()
    return red, green, blue


def _shape_mask(shape: str) -> Image.Image:
    """The shape as an 8-bit mask, drawn large so that every size in use is a smooth reduction of it."""
    side = 256
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)

    def polygon(points: list[tuple[float, float]]) -> None:
        draw.polygon([((1 + x) * side / 2, (1 + y) * side / 2) for x, y in points], fill=255)

    def disc(x: float, y: float, radius: float, fill: int = 255) -> None:
        box = [(1 + x - radius), (1 + y - radius), (1 + x + radius), (1 + y + radius)]
        draw.ellipse([value * side / 2 for value in box], fill=fill)

    if shape == "circle":
        disc(0, 0, 0.95)
    elif shape == "square":
        polygon([(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)])
    elif shape == "triangle":
        polygon([(0, -0.95), (0.98, 0.8), (-0.98, 0.8)])
    elif shape == "star":
        turns = [(-math.pi / 2 + math.pi * k / 5, 1.0 if k % 2 == 0 else 0.4) for k in range(10)]
        polygon([(r * math.cos(a), r * math.sin(a)) for a, r in turns])
    elif shape == "cross":
        polygon([(-0.3, -0.95), (0.3, -0.95), (0.3, 0.95), (-0.3, 0.95)])
        polygon([(-0.95, -0.3), (0.95, -0.3), (0.95, 0.3), (-0.95, 0.3)])
    elif shape == "ring":
        disc(0, 0, 0.98)
        disc(0, 0, 0.58, fill=0)
    elif shape == "heart":
        disc(-0.45, -0.35, 0.5)
        disc(0.45, -0.35, 0.5)
        polygon([(-0.91, -0.15), (0.91, -0.15), (0, 0.95)])
    elif shape == "moon":
        disc(-0.05, 0, 0.95)
        disc(0.4, -0.1, 0.75, fill=0)
    elif shape == "diamond":
        polygon([(0, -1), (0.68, 0), (0, 1), (-0.68, 0)])
    else:
        raise ValueError(f"shape ({shape!r}) must be one of {', '.join(SHAPES)}")
    return mask


def _texture(texture: str, colour: tuple[int, int, int], rng: np.random.Generator) -> Image.Image:
    """A background in two tones of one colour, with a slight vignette and grain."""
    # A column and a row: what depends on one of them alone is computed once for all of the other.
    y, x = (line.astype(np.float32) for line in np.ogrid[0:HEIGHT_PX, 0:WIDTH_PX])
    period = float(rng.uniform(46, 62))
    y, x = y + float(rng.uniform(0, period)), x + float(rng.uniform(0, period))
    light: np.ndarray
    if texture == "plain":
        light = np.zeros_like(x)
    elif texture == "stripes":
        light = np.sin(2 * np.pi * x / period) > 0
    elif texture == "checks":
        light = (np.sin(2 * np.pi * x / (1.3 * period)) > 0) ^ (np.sin(2 * np.pi * y / (1.3 * period)) > 0)
    elif texture == "dots":
        light = np.hypot((x % period) - period / 2, (y % period) - period / 2) < 0.32 * period
    elif texture == "waves":
        light = np.sin(2 * np.pi * (y + 10 * np.sin(2 * np.pi * x / 80)) / period) > 0
    elif texture == "bricks":
        row = y // (0.6 * period)
        mortar = 6
        light = ((y % (0.6 * period)) < mortar) | (((x + (row % 2) * 0.65 * period) % (1.3 * period)) < mortar)
    else:
        raise ValueError(f"texture ({texture!r}) must be one of {', '.join(TEXTURES)}")
    tone = 0.85 + 0.45 * light.astype(np.float32)
    tilt = float(rng.uniform(-0.08, 0.08))
    tone = tone * (1 + tilt * (x / WIDTH_PX - 0.5) + 0.06 * (y / HEIGHT_PX - 0.5))
    grain = rng.normal(0, 2, (HEIGHT_PX, WIDTH_PX, 1)).astype(np.float32)
    pixels = np.array(colour, np.float32) * tone[..., None] + grain
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
