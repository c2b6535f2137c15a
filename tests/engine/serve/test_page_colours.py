"""The page's style sheet: texts stand out from their grounds, light and dark (WCAG 2.2, 1.4.3 and 1.4.11)."""

from __future__ import annotations

import pathlib
import re

import pytest

SHEET = pathlib.Path(__file__).resolve().parents[3] / "engine" / "serve" / "page" / "page.css"
TEXTS = [
    ("ink", "ground"),
    ("ink", "card"),
    ("dim", "ground"),
    ("dim", "card"),
    ("on-main", "main"),
    ("ink", "bad-soft"),
]
SHAPES = [("main", "ground"), ("main", "card"), ("curve", "card"), ("mark", "card"), ("bad", "card")]


def palettes() -> list[dict[str, str]]:
    blocks = re.findall(r"\{([^{}]*--ground:[^{}]*)\}", SHEET.read_text("utf-8"))
    return [dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in blocks]


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) > 4 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("palette", palettes(), ids=["light", "dark by the system", "dark by choice"])
def test_contrast(palette: dict[str, str]) -> None:
    for least, pairs in ((4.5, TEXTS), (3.0, SHAPES)):
        for front, back in pairs:
            low, high = sorted([luminance(palette[front]), luminance(palette[back])])
            assert (high + 0.05) / (low + 0.05) >= least, (front, back)


def test_both_dark_palettes_are_one() -> None:
    _, system, choice = palettes()
    assert system == choice
