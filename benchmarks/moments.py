"""Generated long videos in, what each way to score finds in them out: recall, moments, 95% intervals, encoder passes.

    gridclip bench moments                      1,000 videos and 200 to choose on, a quarter of an hour
    gridclip bench moments --videos 60          the short form, about a minute
    gridclip bench moments --model MODEL        another model than the demo's tiny one, of any family

The settings that win are chosen on the development videos, and reported on the held ones; the two share no combination
of colour, shape and texture, and training never saw those of the held ones. A run that was stopped goes on from its
folder.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from . import keyframes_recall, measure

if TYPE_CHECKING:
    from .moments_settings import Measured
    from .moments_videos import VideoSet

PACKAGES = ("numpy", "onnxruntime", "torch", "pillow")
SEED = 2026
GRIDS_CHECKPOINT = "grids_clip.pt"  # beside the demo's, and with its tokenizer
SHARE_OF_DEVELOPMENT = 5  # a development video for so many held ones
FEWEST = 8  # videos of either


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


def run(*, count: int, model: str | None, work_dir: pathlib.Path, threads: int) -> dict[str, Any]:
    """Everything that a result file holds beside machine and versions.

    Args:
        count: held videos.
        model: a model folder, or what is exported to one: a known name or a checkpoint; the demo's tiny model without.
        work_dir: for embeddings, and the tiny model's folder.
        threads: of the encoder.
    """
    from ..engine.encoding.encoder import Encoder
    from ..export.folder import ensure_model_folder
    from .moments_embeddings import GRID_SIZES, embed, passes_of, seconds_per_video
    from .moments_settings import REFERENCE, measure_all
    from .moments_videos import make_set

    folder = grids_model(work_dir) if model is None else ensure_model_folder(model)
    encoder = Encoder(folder, provider="cpu", num_threads=threads)
    sets = [
        make_set("development", max(FEWEST, count // SHARE_OF_DEVELOPMENT), seed=SEED),
        make_set("held", count, seed=SEED),
    ]
    videos = [video for each in sets for video in each.videos]
    expected_s = seconds_per_video(sets[0].videos, encoder, GRID_SIZES) * len(videos)
    say(
        f"{len(videos):,} videos, {passes_of(videos, GRID_SIZES):,} encoder passes: about {expected_s / 60:.0f} min to "
        f"embed what is not in {work_dir} yet, then about as many seconds to score as there are settings"
    )
    measured: dict[str, list[Measured]] = {}
    for each in sets:
        embedded = embed(each, encoder, work_dir / "moments", say=say, grid_sizes=GRID_SIZES)
        say(f"\n{describe(each)}, {embedded.frames:,} frames")
        measured[each.split] = measure_all(embedded, say=say)
    chosen = choose(measured["development"], measured["held"])
    return {
        "model": encoder.info.name,
        "image_size": encoder.info.image_size,
        "sets": {each.split: _facts(each) for each in sets},
        "reference": REFERENCE,
        "chosen": chosen,
        **{split: [row.to_json() for row in rows] for split, rows in measured.items()},
    }


def grids_model(work_dir: pathlib.Path) -> pathlib.Path:
    """The tiny CLIP that was trained on grids of 1 x 1 to 4 x 4, as a model folder."""
    from ..export.folder import export_model
    from .demo.run import CHECKPOINT

    folder = work_dir / "grids-clip"
    if not (folder / "model.json").exists():
        tokenizer = CHECKPOINT.with_suffix(".tokenizer.json")
        export_model(str(CHECKPOINT.with_name(GRIDS_CHECKPOINT)), folder, tokenizer=tokenizer, verify=False)
    return folder


def choose(development: list[Measured], held: list[Measured]) -> dict[str, Any]:
    """What wins on the development videos, with what it reaches on the held ones beside the reference."""
    from .moments_settings import REFERENCE, against_reference, best_settings

    by_setting = {row.setting: row for row in held}
    chosen: dict[str, Any] = {}
    say(
        f"\nChosen on the development videos, by SumR of videos, or by VCMR R@1 of moments; "
        f"differences to {REFERENCE} on the held ones, with 95% intervals"
    )
    for purpose, setting in best_settings(development).items():
        row = by_setting[setting]
        entry: dict[str, Any] = {"setting": setting.name, "held": row.to_json()}
        differences = []
        for metric, comparison in (against_reference(row, held) or {}).items():
            interval = comparison.difference
            entry[f"{metric}_less_reference"] = [
                round(each, 2) for each in (interval.mean, interval.low, interval.high)
            ]
            differences.append(
                f"{metric} {comparison.second:.1f} for {comparison.first:.1f} "
                f"({interval.mean:+.1f}, {interval.low:+.1f} to {interval.high:+.1f})"
            )
        say(f"{purpose}: {setting.name}: {'; '.join(differences)}")
        chosen[purpose] = entry
    return chosen


def describe(videos: VideoSet) -> str:
    """What a set holds, in words."""
    facts = _facts(videos)
    return (
        f"{videos.split}: {facts['videos']:,} videos of {facts['seconds_per_video']:.0f} s and "
        f"{facts['scenes_per_video']:.1f} scenes, {facts['queries']:,} queries of {facts['seconds_per_query']:.1f} s"
    )


def _facts(videos: VideoSet) -> dict[str, Any]:
    count = len(videos.videos)
    lengths = [query.end_s - query.start_s for query in videos.queries if query.end_s and query.start_s is not None]
    return {
        "videos": count,
        "queries": len(videos.queries),
        "seconds_per_video": round(sum(video.duration_s for video in videos.videos) / count, 1),
        "scenes_per_video": round(sum(len(video.scenes) for video in videos.videos) / count, 1),
        "seconds_per_query": round(sum(lengths) / len(lengths), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=1000, help=f"to report on, at least {FEWEST}")
    parser.add_argument("--model", help="as for embed-videos; default: the demo's tiny model")
    parser.add_argument("--threads", type=int, default=1, help="of the encoder")
    parser.add_argument(
        "--work-dir",
        type=pathlib.Path,
        default=pathlib.Path("bench-output"),
        help="for embeddings; a later run goes on",
    )
    parser.add_argument("--json", type=pathlib.Path, default=measure.RESULTS / "moments.json")
    args = parser.parse_args()
    if args.videos < FEWEST or args.threads < 1:
        parser.error(f"--videos ({args.videos}) must be >= {FEWEST} and --threads ({args.threads}) >= 1")
    reason = keyframes_recall.why_not()
    if reason:
        parser.exit(1, f"bench moments: {reason}\n")
    results = run(count=args.videos, model=args.model, work_dir=args.work_dir, threads=args.threads)
    settings = {"videos": args.videos, "seed": SEED, "fps": 0.5, "threads": args.threads}
    measure.write(args.json, packages=PACKAGES, settings=settings, results=results)


if __name__ == "__main__":
    main()
