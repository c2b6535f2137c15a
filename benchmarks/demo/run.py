"""A committed tiny model in; unseen videos, their embeddings and their recall through the ordinary commands out.

    python -m gridclip.benchmarks.demo.run [--family clip] [--out demo-output] [--videos 100] [--seed 2026]

This is what `make demo` calls. A second run goes on from what the first one left. `--family siglip` does the same with
the tiny SigLIP.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import time

from . import videos

CHECKPOINT = pathlib.Path(__file__).with_name("tiny_clip.pt")
CHECKPOINTS = {"clip": CHECKPOINT, "siglip": CHECKPOINT.with_name("tiny_siglip")}  # by encoder family
OUT = "demo-output"
TEMPERATURES = ("1", "0.1")
TOP_K = (1, 5, 10)
SEARCHES = 2
REFERENCE = "super images, temperature 1"


class DemoError(Exception):
    """The demo cannot go on; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class Question:
    """A sentence to search for, and the video and seconds that it was written for, in words."""

    sentence: str
    moment: str


@dataclasses.dataclass(frozen=True)
class Paths:
    """Where the demo keeps its files."""

    out: pathlib.Path

    @property
    def model(self) -> pathlib.Path:
        return self.out / "model"

    @property
    def store(self) -> pathlib.Path:
        return self.out / "store"

    @property
    def settings(self) -> pathlib.Path:
        return self.out / "settings.json"

    @property
    def result(self) -> pathlib.Path:
        return self.out / "demo.json"

    def evaluation(self, temperature: str) -> pathlib.Path:
        return self.out / f"evaluation_temperature_{temperature}.json"


def run_demo(out: pathlib.Path, *, checkpoint: pathlib.Path, count: int, seed: int, processes: int) -> None:
    """Generate, plan, export, embed, evaluate, search; print the recall beside chance."""
    paths = Paths(out)
    forget_other_settings(paths, {"videos": count, "seed": seed, "checkpoint_sha256": _sha256(checkpoint)})
    begun = time.monotonic()
    print(f"{count} unseen videos into {out / videos.VIDEO_FOLDER} (H.264 with B-frames)", flush=True)
    annotation_file = videos.write_videos(out, count, seed=seed, processes=processes)
    seconds = {"generate videos": time.monotonic() - begun}

    files = ["--video-dir", str(out / videos.VIDEO_FOLDER), "--anno-file", str(annotation_file)]
    model, store = ["--model", str(paths.model)], ["--store", str(paths.store)]
    seconds["plan"] = gridclip("plan", *files)
    if not (paths.model / "model.json").exists():
        seconds["export"] = gridclip("export", str(checkpoint), "--out", str(paths.model), "--verify")
    seconds["embed-videos"] = gridclip("embed-videos", *model, *files, *store, "--resume")
    seconds["embed-text"] = gridclip("embed-text", *model, "--anno-path", str(annotation_file), *store)
    for temperature in TEMPERATURES:
        target = ["--json", str(paths.evaluation(temperature))]
        options = ["--anno-path", str(annotation_file), "--temperature", temperature, *target]
        seconds[f"evaluate, temperature {temperature}"] = gridclip("evaluate", *store, *options)
    for question in questions(annotation_file):
        seconds["search"] = gridclip("search", *store, *model, question.sentence, "--top", "3")
        print(f"(The sentence was written for {question.moment}.)", flush=True)

    recall = {
        f"{level}, temperature {temperature}": found
        for temperature in TEMPERATURES
        for level, found in _recall(paths.evaluation(temperature)).items()
    }
    recall["chance"] = {k: 100 * k / count for k in TOP_K}
    report = {"videos": count, "recall": recall, "seconds": {name: round(each, 1) for name, each in seconds.items()}}
    paths.result.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{table(recall, count)}\nAs JSON: {paths.result}. {sum(seconds.values()):.0f} s in all.")
    looking = ["gridclip", "serve", *store, *model, *files[:2], "--temperature", TEMPERATURES[-1]]
    print(f"To look at it: {'make serve, or ' if str(out) == OUT else ''}{shlex.join(looking)}", flush=True)


def forget_other_settings(paths: Paths, settings: dict[str, object]) -> None:
    """Remove what a demo of other videos or another checkpoint left, so that the two never mix."""
    text = json.dumps(settings, indent=1) + "\n"
    if paths.settings.exists() and paths.settings.read_text() == text:
        return
    for folder in (paths.model, paths.store):
        shutil.rmtree(folder, ignore_errors=True)
    paths.out.mkdir(parents=True, exist_ok=True)
    paths.settings.write_text(text)


def gridclip(*arguments: str) -> float:
    """Show and run a gridclip command; the seconds it took."""
    print(f"\n$ {shlex.join(['gridclip', *arguments])}", flush=True)
    script = pathlib.Path(sys.executable).with_name("gridclip")
    program = [str(script)] if script.exists() else [sys.executable, "-m", "gridclip.cli"]
    begun = time.monotonic()
    status = subprocess.run([*program, *arguments], check=False).returncode
    if status:
        raise DemoError(
            f"gridclip {arguments[0]} ended with status {status}, its reason is above; once that is mended, the same "
            "command goes on from here"
        )
    return time.monotonic() - begun


def table(recall: dict[str, dict[int, float]], count: int) -> str:
    """Rows of recall in percent, one per way to score."""
    lines = [f"{f'{count} unseen videos':<40}" + "".join(f"{f'R@{k}':>8}" for k in TOP_K)]
    for name in sorted(recall, key=lambda name: recall[name][1]):
        title = f"{name} (reference)" if name == REFERENCE else name
        lines.append(f"{title:<40}" + "".join(f"{recall[name][k]:>8.1f}" for k in TOP_K))
    return "\n".join(lines)


def _recall(evaluation: pathlib.Path) -> dict[str, dict[int, float]]:
    """By what was ranked: super images, and cells where the model can embed them."""
    content = json.loads(evaluation.read_text())
    if "super_image_recall" not in content:
        return {"super images": _of_top_k(content["recall"])}
    return {"super images": _of_top_k(content["super_image_recall"]), "cells": _of_top_k(content["recall"])}


def _of_top_k(recall: dict[str, float]) -> dict[int, float]:
    return {k: recall[str(k)] for k in TOP_K}


def questions(annotation_file: pathlib.Path) -> list[Question]:
    """The second sentence of some videos."""
    content = json.loads(annotation_file.read_text())
    chosen = list(content.items())[:: max(1, len(content) // SEARCHES)][:SEARCHES]
    return [
        Question(own["sentences"][1], f"{video_id}, {own['timestamps'][1][0]} to {own['timestamps'][1][1]} s")
        for video_id, own in chosen
    ]


def _sha256(checkpoint: pathlib.Path) -> str:
    """Of a file, or of the weights in a folder."""
    path = checkpoint / "model.safetensors" if checkpoint.is_dir() else checkpoint
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        advice = "restore it from the repository, or train it with train_tiny_clip or train_tiny_siglip"
        raise DemoError(f"{path} is missing: {advice}") from None


def main() -> None:
    """Read the options, run the demo, exit with 1 where it stopped."""
    parser = argparse.ArgumentParser(description="Run GridCLIP's main job on generated videos.")
    parser.add_argument("--family", choices=CHECKPOINTS, default="clip", help="of the tiny model")
    parser.add_argument(
        "--out", type=pathlib.Path, help=f"folder for everything; default: {OUT}, with the family where it is not clip"
    )
    parser.add_argument("--videos", type=int, default=100, help="videos to generate, at least 2")
    parser.add_argument("--seed", type=int, default=2026, help="of the videos")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that generate videos")
    options = parser.parse_args()
    if options.videos < 2 or options.processes < 1:
        parser.error(f"--videos ({options.videos}) must be >= 2 and --processes ({options.processes}) >= 1")
    out = options.out or pathlib.Path(OUT if options.family == "clip" else f"{OUT}-{options.family}")
    checkpoint = CHECKPOINTS[options.family]
    try:
        run_demo(out, checkpoint=checkpoint, count=options.videos, seed=options.seed, processes=options.processes)
    except DemoError as error:
        sys.exit(f"demo: {error}")
    except OSError as error:
        sys.exit(f"demo: {error}; the demo needs about 60 MB in {out}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted; the same command goes on from here")


if __name__ == "__main__":
    main()
