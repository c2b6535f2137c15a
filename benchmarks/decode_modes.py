"""Videos in, what `--decode fast` and `--sampling keyframes` gain and cost out: speed, pictures, embeddings, recall.

    python -m gridclip.benchmarks.decode_modes                      the short generated set and the demo's videos
    python -m gridclip.benchmarks.decode_modes --videos FOLDER      the user's own files, too

Decoding is pinned to one core. Pictures are compared with those of an exact decode at the wanted frames: `fast` changes
them, `keyframes` takes other ones. Recall is that of the demo's tiny model. What libavcodec offers short of dropping
references is measured beside what `fast` has chosen of it.
"""

from __future__ import annotations

import argparse
import functools
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..dali_pipes.contract import VideoError
from ..dali_pipes.cpu.decoding import FAST_OPTIONS
from ..dali_pipes.cpu.reading import open_reading
from ..dali_pipes.sampling import Sampling
from ..engine import choices
from ..engine.encoding.encoder import Encoder
from . import corpus, keyframes_recall, measure
from .charts_decode_modes import BOTH, EXACT, FAST, KEYFRAMES, WAYS
from .decode import one_core
from .keyframes_recall import Corpus

PACKAGES = ("av", "numpy", "onnxruntime", "torch")
TIMED_DEMO_VIDEOS = 20
CELLS = 4  # of a super image
# libavcodec's names; an exact decode has none of them.
OPTIONS: dict[str, dict[str, str]] = {
    "skip_loop_filter=all": {"skip_loop_filter": "all"},
    "skip_loop_filter=nokey": {"skip_loop_filter": "nokey"},
    "skip_loop_filter=bidir": {"skip_loop_filter": "bidir"},
    "skip_loop_filter=noref": {"skip_loop_filter": "noref"},
    "flags2=+fast": {"flags2": "+fast"},
    "skip_idct=noref": {"skip_idct": "noref"},
    "skip_loop_filter=nokey, flags2=+fast, skip_idct=noref": {
        "skip_loop_filter": "nokey",
        "flags2": "+fast",
        "skip_idct": "noref",
    },
}


def samplings(fps: float) -> dict[str, Sampling]:
    """The ways that are compared, by name."""
    shift_s = choices.MAX_SHIFT_S
    return {
        EXACT: Sampling(fps=fps),
        FAST: Sampling(fps=fps, decode="fast"),
        KEYFRAMES: Sampling(fps=fps, max_shift_s=shift_s),
        BOTH: Sampling(fps=fps, max_shift_s=shift_s, decode="fast"),
    }


def pictures(path: pathlib.Path, sampling: Sampling, options: Mapping[str, str] | None = None) -> Iterator[np.ndarray]:
    """The wanted frames, uint8 [336, 446, 3] each; `options` are libavcodec's, beside those of the sampling."""
    with open_reading(path, sampling, skim=True) as reading:
        codec = reading.stream.codec_context
        codec.options = {**codec.options, **(options or {})}
        yield from reading.frames("pyav", cells=CELLS)


def differences(frames: Iterator[np.ndarray], exact: Iterator[np.ndarray]) -> dict[str, float | None]:
    """How far pictures are from those of an exact decode.

    Returns:
        `psnr_db`, 10 log10(255^2 / the mean squared error over all values of all pictures), `least_psnr_db` of a single
        picture, each None where there is no difference; `same_share` of pictures that are the same, bit for bit.
    """
    errors = [
        float(np.mean((frame.astype(np.float32) - due) ** 2, dtype=np.float64))
        for frame, due in zip(frames, exact, strict=True)
    ]
    return {
        "psnr_db": _psnr_db(float(np.mean(errors))),
        "least_psnr_db": _psnr_db(max(errors)),
        "same_share": round(errors.count(0.0) / len(errors), 4),
    }


def _psnr_db(squared_error: float) -> float | None:
    return round(10 * math.log10(255**2 / squared_error), 2) if squared_error else None


def of_file(path: pathlib.Path, *, fps: float, repetitions: int) -> dict[str, Any]:
    """One entry of the result: both comparisons on one file. Raises VideoError."""
    ways = samplings(fps)
    exact = ways[EXACT]
    with open_reading(path, exact) as reading:
        known = {"codec": reading.summary.codec, "wanted_frames": len(reading.wanted)}
    calls: dict[str, Callable[[], Iterator[np.ndarray]]] = {
        way: functools.partial(pictures, path, sampling) for way, sampling in ways.items()
    }
    calls |= {name: functools.partial(pictures, path, exact, options) for name, options in OPTIONS.items()}
    found = {name: differences(call(), pictures(path, exact)) for name, call in calls.items() if name != EXACT}
    with one_core():
        seconds = measure.interleaved(
            {name: functools.partial(_exhaust, [call]) for name, call in calls.items()}, repetitions=repetitions
        )
    gains = times_as_fast(seconds)
    entry = {"name": path.name, **known, "seconds": seconds, "times_as_fast": gains, "pictures": found}
    print(f"{path.name}: {_in_words(gains)}", flush=True)
    return entry


def times_as_fast(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """The exact decode's median as a multiple of everybody else's."""
    medians = measure.medians(seconds)
    return {name: round(medians[EXACT] / value, 3) for name, value in medians.items() if name != EXACT}


def _exhaust(calls: Sequence[Callable[[], Iterator[np.ndarray]]]) -> None:
    for call in calls:
        for _ in call():
            pass


def _in_words(gains: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {gains[name]:.2f}" for name in WAYS[1:])


def of_demo(demo: Corpus, work_dir: pathlib.Path, *, fps: float, repetitions: int) -> dict[str, Any]:
    """Speed, cosines of the embeddings with those of an exact decode, and recall, of a corpus of the demo's videos."""
    ways = samplings(fps)
    timed = demo.videos[:TIMED_DEMO_VIDEOS]
    with one_core():
        seconds = measure.interleaved(
            {
                way: functools.partial(_exhaust, [functools.partial(pictures, path, sampling) for path in timed])
                for way, sampling in ways.items()
            },
            repetitions=repetitions,
        )
    encoder = Encoder(keyframes_recall.model(work_dir), provider="cpu")
    vectors, recall = {}, {}
    for way, sampling in ways.items():
        with keyframes_recall.embedded(demo, encoder, sampling) as store:
            vectors[way] = store.read_super_images().vectors.astype(np.float64)
            recall[way] = keyframes_recall.recall_of(store, way)
    gains = times_as_fast(seconds)
    found = {way: cosines(vectors[way], vectors[EXACT]) for way in ways if way != EXACT}
    print(f"{demo.name}: times as fast: {_in_words(gains)}; cosines {found}", flush=True)
    return {
        "name": demo.name,
        "videos": len(demo.videos),
        "timed_videos": len(timed),
        "seconds": seconds,
        "times_as_fast": gains,
        "cosine": found,
        "recall": recall,
    }


def cosines(vectors: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """The least and the mean cosine of each vector with that of the same super image, of float [n, D] each."""
    products = (vectors * exact).sum(axis=1)
    each = products / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(exact, axis=1))
    return {"least": round(float(each.min()), 5), "mean": round(float(each.mean()), 5)}


def as_table(results: Mapping[str, Any]) -> str:
    """A row for each way to decode, in Markdown: over all files, then the demo's."""
    lines = ["| | times as fast, files | PSNR, dB | least PSNR, dB |", "|---|---|---|---|"]
    for demo in results["demo"]:
        lines[0] += f" {demo['name']}: times as fast | cosine, least and mean | R@1, temperature 1 and 0.1 |"
        lines[1] += "---|---|---|"
    for way in WAYS:
        cells = [f"`{way}`", *_of_files(results["files"], way), *_of_demos(results["demo"], way)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _of_files(entries: Sequence[Mapping[str, Any]], way: str) -> list[str]:
    if way == EXACT or not entries:
        return ["1", "", ""]
    gain = measure.geometric_mean(entry["times_as_fast"][way] for entry in entries)
    mean = [entry["pictures"][way]["psnr_db"] for entry in entries if entry["pictures"][way]["psnr_db"] is not None]
    least = [entry["pictures"][way]["least_psnr_db"] for entry in entries]
    least = [value for value in least if value is not None]
    return [f"{gain:.2f}", f"{np.median(mean):.1f}" if mean else "same", f"{min(least):.1f}" if least else "same"]


def _of_demos(entries: Sequence[Mapping[str, Any]], way: str) -> Iterator[str]:
    for entry in entries:
        recall = entry["recall"][way]
        values = [recall[f"temperature {temperature:g}"]["R@1"] for temperature in keyframes_recall.TEMPERATURES]
        if way == EXACT:
            yield from ("1", "1")
        else:
            cosine = entry["cosine"][way]
            yield from (f"{entry['times_as_fast'][way]:.2f}", f"{cosine['least']:.4f}, {cosine['mean']:.4f}")
        yield ", ".join(f"{value:.1f}" for value in values)


def _of_files_here(
    kind: str, paths: Sequence[pathlib.Path], left_out: dict[str, str], **options: Any
) -> list[dict[str, Any]]:
    """An entry per file; one that cannot be read goes to `left_out`, with the reason."""
    entries = []
    for path in paths:
        try:
            entries.append({"set": kind, **of_file(path, **options)})
        except VideoError as error:
            left_out[path.name] = str(error)
            print(f"{path.name}: left out: {error}", flush=True)
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=pathlib.Path, help="a folder of videos beside the generated ones")
    parser.add_argument("--long", action="store_true", help="the whole matrix, and more keyframe distances for recall")
    parser.add_argument("--demo-videos", type=int, default=100, help="videos of which recall is measured; 0: none")
    parser.add_argument("--fps", type=float, default=choices.FPS)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--work-dir", type=pathlib.Path, default=pathlib.Path("bench-output"), help="for generated files"
    )
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "decode_modes.json")
    args = parser.parse_args()
    options = {"fps": args.fps, "repetitions": args.repetitions}
    left_out: dict[str, str] = {}
    generated = [corpus.make(clip, args.work_dir / "videos") for clip in (corpus.LONG if args.long else corpus.SHORT)]
    entries = _of_files_here("generated", generated, left_out, **options)
    if args.videos:
        own = sorted(path for path in args.videos.iterdir() if path.is_file())
        entries += _of_files_here("real files", own, left_out, **options)
    demos = []
    reason = keyframes_recall.why_not() if args.demo_videos else "not asked for"
    if reason:
        left_out["recall"] = reason
        print(f"recall: left out: {reason}", flush=True)
    else:
        found = keyframes_recall.corpora(args.work_dir, args.demo_videos, long=args.long)
        demos = [of_demo(demo, args.work_dir, **options) for demo in found]
    results = {"files": entries, "demo": demos, "left_out": left_out}
    settings = {**options, "max_shift_s": choices.MAX_SHIFT_S, "model": "the demo's tiny CLIP", "fast": FAST_OPTIONS}
    measure.write(args.json, packages=PACKAGES, settings={**settings, "cores_used_to_decode": 1}, results=results)
    print(as_table(results))


if __name__ == "__main__":
    main()
