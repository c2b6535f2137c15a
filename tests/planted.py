"""Defects that tests/fuzz/test_fuzz.py plants; imported by name in the processes of the fuzzer."""

import os
import pathlib
import random
import time

import numpy as np
from fuzz.contract import Outcome, Verdict
from fuzz.videos import SIZE_PX, Videos, WholeDecode
from gridclip import GridClipError
from gridclip.dali_pipes.packets import scan


class Neighbours(Videos):
    """A decoder that gives the next picture for every wanted frame."""

    def __init__(self) -> None:
        super().__init__(decode=_next_pictures)


def _next_pictures(video, fps):
    whole, summary = WholeDecode(video.path), scan.summarise(video.path)
    count = int(summary.frame_count * fps / summary.avg_fps)
    wanted = np.linspace(0, summary.frame_count, count, endpoint=False, dtype=int) + 1
    return np.stack([whole.image(int(index)) for index in wanted]).reshape(-1, SIZE_PX, SIZE_PX, 3), []


class Endings:
    """A kind whose case n ends in the n-th way that a case can end in."""

    WAYS = ("read", "refuse", "raise", "die", "hang", "grow")

    def write_seeds(self, folder: pathlib.Path) -> None:
        pass

    def make(self, seeds: pathlib.Path, case: pathlib.Path, number: int, rng: random.Random) -> str:
        (case / "input").write_text(self.WAYS[number])
        return self.WAYS[number]

    def judge(self, case: pathlib.Path) -> Verdict:
        match (case / "input").read_text():
            case "refuse":
                raise GridClipError("no video")
            case "raise":
                raise KeyError("surprise")
            case "die":
                os.abort()
            case "hang":
                time.sleep(1000)
            case "grow":
                held = np.ones(1 << 28, np.uint8)
                time.sleep(1000)
                return Verdict(Outcome.ACCEPTED, str(held[0]))
        return Verdict(Outcome.IDENTICAL)
