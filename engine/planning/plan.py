"""A folder of videos or a video-info file in, the size of the job out: videos, wanted frames, super images, queries.

Files are demuxed, never decoded.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import assert_never

from ... import GridClipError
from ...dali_pipes import ids
from ...dali_pipes.contract import Failure, Finished, Notice, Restarted, VideoFile
from ...dali_pipes.packets import scan
from ...dali_pipes.packets.edit_lists import counted
from ...dali_pipes.processes import pool
from ...dali_pipes.sampling import EditLists, Sampling, count_wanted, rate_differs, super_image_count, why_none
from ..annotations.annotations import Annotations, VideoInfo, load_annotations, load_video_info
from ..listing.listing import Listing, list_videos

FP16_BYTES = 2
EMBED_DIMS = {"ViT-B": 512, "ViT-L": 768}
FAILURES_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Plan:
    """The size of a job.

    Attributes:
        videos: that have at least one wanted frame.
        frames: wanted frames of all of them.
        super_images: of all of them, in all grid sizes: passes through the model.
        super_images_by_grid: the same by grid size.
        cells: frames in them that get a vector of their own, where the model can embed cells; in all grid sizes.
        duration_s: of all of them, seconds.
        longest_s: of the longest one, seconds.
        queries: captions of these videos; None without an annotation file.
        dropped_queries: captions of videos that are not among them; None without an annotation file.
        unusable_captions: and other entries of the annotation file that are not what they should be; None without one.
        excluded: videos left out because the user said so.
        rate_differs: of the videos, ids of those whose frames by count are far from evenly spaced in time, sorted; see
            `sampling.rate_differs`.
        failures: videos that cannot be used, each once.
        notices: videos of which there is another file, too.
        vector_bytes: fp16 vectors of the super images, cells and queries, by embedding width.
    """

    videos: int
    frames: int
    super_images: int
    super_images_by_grid: dict[int, int]
    cells: int
    duration_s: float
    longest_s: float
    queries: int | None
    dropped_queries: int | None
    unusable_captions: int | None
    excluded: int
    rate_differs: tuple[str, ...]
    failures: tuple[Failure, ...]
    notices: tuple[Notice, ...]
    vector_bytes: dict[str, int]

    def to_json(self) -> dict[str, object]:
        """The plan as plain dicts and lists."""
        return dataclasses.asdict(self)


def plan_folder(
    video_dir: str | os.PathLike[str],
    sampling: Sampling,
    *,
    anno_file: pathlib.Path | None = None,
    exclude: Collection[str] = (),
    num_workers: int = 1,
) -> Plan:
    """The plan of a folder of video files.

    Args:
        video_dir: a folder, searched with its subfolders, or what else `finding` finds videos in.
        sampling: which frames.
        anno_file: only the videos of this annotation file.
        exclude: ids to leave out.
        num_workers: processes that read packets.

    Raises:
        GridClipError: the folder or the annotation file cannot be used.
    """
    annotations = None if anno_file is None else load_annotations(anno_file)
    listing = list_videos(video_dir, None if annotations is None else annotations.video_ids)
    wanted = Listing(
        [video for video in listing.videos if video.video_id not in exclude],
        [failure for failure in listing.failures if failure.video_id not in exclude],
        [notice for notice in listing.notices if notice.video_id not in exclude],
    )
    listed = {video.video_id for video in listing.videos} | {failure.video_id for failure in listing.failures}
    return plan_listing(
        wanted, sampling, annotations=annotations, excluded=len(listed & set(exclude)), num_workers=num_workers
    )


def plan_listing(
    listing: Listing,
    sampling: Sampling,
    *,
    annotations: Annotations | None = None,
    excluded: int = 0,
    num_workers: int = 1,
) -> Plan:
    """The plan of listed video files; `excluded` only stands in it, see `plan_folder` for the others."""
    lost = list(listing.failures)
    measured: list[VideoInfo] = []
    measure = functools.partial(_measure, edit_lists=sampling.edit_lists)
    for _, event in pool.run(listing.videos, [measure], num_workers=num_workers):
        match event:
            case VideoInfo():
                measured.append(event)
            case Failure():
                lost.append(event)
            case Notice() | Restarted() | Finished():  # of a task with one result, nothing to tell
                pass
            case _:
                assert_never(event)
    return _plan(measured, lost, listing.notices, sampling, annotations, excluded=excluded)


def plan_video_info(
    video_info: pathlib.Path,
    sampling: Sampling,
    *,
    anno_file: pathlib.Path | None = None,
    exclude: Collection[str] = (),
) -> Plan:
    """The plan of videos whose frame counts and rates are in a JSON file.

    Args:
        video_info: see `annotations.load_video_info`.
        sampling: which frames.
        anno_file: only the videos of this annotation file.
        exclude: ids to leave out.

    Raises:
        GridClipError: one of the files cannot be used.
    """
    annotations = None if anno_file is None else load_annotations(anno_file)
    known = {each.video_id: each for each in load_video_info(video_info)}
    wanted = list(known) if annotations is None else annotations.video_ids
    fitting = ids.answering(wanted, list(known))
    lengths: list[VideoInfo] = []
    lost: list[Failure] = []
    for video_id in wanted:
        if ids.printable(video_id) in exclude:
            continue
        reason = _obstacle(video_id, fitting[video_id], video_info)
        if reason is None:
            lengths.append(dataclasses.replace(known[fitting[video_id][0]], video_id=video_id))
        else:
            lost.append(Failure(ids.printable(video_id), "list", reason))
    return _plan(lengths, lost, [], sampling, annotations, excluded=len(set(map(ids.printable, wanted)) & set(exclude)))


def read_exclusions(values: Iterable[str]) -> set[str]:
    """The ids of `exclude`: each value is an id, or a file that has one id per line (blank lines and # comments apart).

    Ids that are not UTF-8 are as `ids.printable` writes them, which is how failures name them.

    Raises:
        GridClipError: a file is missing, or cannot be read as one id per line. What looks like a path, by `.txt` or by
            where it begins, is a file; other slashes are those of ids.
    """
    excluded: set[str] = set()
    for value in values:
        path = pathlib.Path(value)
        if not path.is_file():
            if path.suffix == ".txt" or value.startswith(("/", "./", "../", "~")):
                raise GridClipError(f"`exclude` {value} does not exist: expected a video id, or a file of ids")
            excluded.add(ids.printable(value))
            continue
        text = path.read_text("utf-8-sig", "surrogateescape")
        if "\0" in text:
            raise GridClipError(f"`exclude` {value} is not a text file: expected one video id per line")
        for number, line in enumerate(text.splitlines(), start=1):
            words = line.split("#")[0].split()
            if len(words) > 1:
                raise GridClipError(f"`exclude` {value}, line {number}: {line.strip()!r} is more than one video id")
            excluded.update(map(ids.printable, words))
    return excluded


def as_text(plan: Plan) -> str:
    """The plan for people."""
    rows = [("videos", f"{plan.videos:,}")]
    if plan.excluded:
        rows.append(("excluded", f"{plan.excluded:,}"))
    rows += [
        ("failures", f"{len(plan.failures):,}"),
        *([("several files", f"{len(plan.notices):,}")] if plan.notices else []),
        ("wanted frames", f"{plan.frames:,}"),
        ("super images", f"{plan.super_images:,} ({plan.super_images / max(plan.videos, 1):.3f} per video)"),
        *_by_grid(plan),
        *([("cells", f"{plan.cells:,}")] if plan.cells else []),
        ("duration", f"{plan.duration_s / 3600:,.1f} hours (longest video: {plan.longest_s:,.0f} s)"),
    ]
    if plan.queries is not None:
        rows.append(("queries", f"{plan.queries:,} ({plan.dropped_queries:,} of videos without super images dropped)"))
    if plan.rate_differs:
        shown = f"{len(plan.rate_differs):,} (by their time stamps, not by their frames: see `mode='time'`)"
        rows.append(("variable rate", shown))
    if plan.unusable_captions:
        rows.append(("captions left out", f"{plan.unusable_captions:,} (empty or malformed)"))
    sizes = ", ".join(f"{size / 2**20:,.1f} MiB ({name})" for name, size in plan.vector_bytes.items())
    rows.append(("fp16 vectors", sizes))
    lines = [f"{name:17} {value}" for name, value in rows]
    told = [f"  {each.video_id}: {each.stage}: {each.reason}" for each in plan.failures]
    told += [f"  {each.video_id}: {each.detail}" for each in plan.notices]
    lines += told[:FAILURES_SHOWN]
    if len(told) > FAILURES_SHOWN:
        lines.append(f"  ... and {len(told) - FAILURES_SHOWN:,} more: `to_json` lists them all")
    return "\n".join(lines)


def _by_grid(plan: Plan) -> list[tuple[str, str]]:
    """A line for each of several grid sizes."""
    if len(plan.super_images_by_grid) < 2:
        return []
    return [(f"  at grid size {size}", f"{count:,}") for size, count in plan.super_images_by_grid.items()]


def _obstacle(video_id: str, fitting: Sequence[str], video_info: pathlib.Path) -> str | None:
    """Why a wanted video has no entry of its own in a video-info file, None where it has one."""
    if not fitting:
        return ids.id_problem(video_id) or f"not in {video_info.name}"
    if len(fitting) > 1:
        return f"several entries of {video_info.name} fit this id: {', '.join(fitting)}"
    return ids.id_problem(video_id)


def _plan(
    lengths: Sequence[VideoInfo],
    failures: Sequence[Failure],
    notices: Sequence[Notice],
    sampling: Sampling,
    annotations: Annotations | None,
    *,
    excluded: int,
) -> Plan:
    usable: list[VideoInfo] = []
    lost = list(failures)
    frames = 0
    super_images = dict.fromkeys(sampling.grid_sizes, 0)
    for each in lengths:
        if reason := why_none(each, sampling):
            lost.append(Failure(each.video_id, "sample", reason))
            continue
        usable.append(each)
        wanted = count_wanted(each, sampling)
        frames += wanted
        for grid_size in sampling.grid_sizes:
            super_images[grid_size] += super_image_count(wanted, grid_size, sampling.stride_of(grid_size))
    queries = dropped = None
    if annotations is not None:
        ids = {each.video_id for each in usable}
        queries = sum(query.video_id in ids for query in annotations.queries)
        dropped = len(annotations.queries) - queries
    passes = sum(super_images.values())
    cells = frames * len(sampling.grids_with_cells)
    vectors = passes + cells + (queries or 0)
    return Plan(
        videos=len(usable),
        frames=frames,
        super_images=passes,
        super_images_by_grid=super_images,
        cells=cells,
        duration_s=sum(each.duration_s for each in usable),
        longest_s=max((each.duration_s for each in usable), default=0.0),
        queries=queries,
        dropped_queries=dropped,
        unusable_captions=None if annotations is None else len(annotations.problems),
        excluded=excluded,
        rate_differs=tuple(sorted(each.video_id for each in usable if rate_differs(each))),
        failures=tuple(sorted({each.video_id: each for each in lost}.values(), key=lambda each: each.video_id)),
        notices=tuple(notices),
        vector_bytes={name: vectors * width * FP16_BYTES for name, width in EMBED_DIMS.items()},
    )


def _measure(video: VideoFile, /, *, skip: int, edit_lists: EditLists) -> Iterator[VideoInfo]:
    """A task of pool.run with one result, which is never cut short."""
    stream = scan.summarise(video.place)
    if edit_lists == "ignore":
        stream = counted(stream)
    yield VideoInfo(video.video_id, stream.frame_count, stream.avg_fps, stream.duration_s)
