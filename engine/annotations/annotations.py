"""Annotation and video-info files in; queries (video, text, times) and video lengths out."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ... import GridClipError
from ...dali_pipes import ids
from . import tar_captions
from .formats import FORMATS, Caption, Named, Problem, recognise
from .text_file import TextFile, json_kind


@dataclasses.dataclass(frozen=True)
class Query:
    """One caption of an annotation file.

    Attributes:
        query_id: position among the usable captions of its file, from 0.
        video_id: the video that the caption describes, spelled as in the file.
        text: the caption, as in the file.
        start_s: start of the described moment in seconds, None where the file gives none.
        end_s: end of the described moment in seconds, None where the file gives none.
        other_moments: (start, end) in seconds of further moments that the caption describes (QVHighlights has several);
            a store keeps the first moment only, so that the file must be given again where all of them count.
        official_id: the file's own number of the caption (TVR's "desc_id", QVHighlights' "qid"), by which the
            benchmarks' programs know it; None where there is none, and in a store.
    """

    query_id: int
    video_id: str
    text: str
    start_s: float | None = None
    end_s: float | None = None
    other_moments: tuple[tuple[float, float], ...] = ()
    official_id: int | str | None = None

    @property
    def moments(self) -> list[tuple[float, float]]:
        """All described moments, each with start <= end (some of ActivityNet's end before they start)."""
        if self.start_s is None or self.end_s is None:
            return []
        found = [(self.start_s, self.end_s), *self.other_moments]
        return [(min(span), max(span)) for span in found]

    @property
    def known_as(self) -> int | str:
        """What files of predictions call it."""
        return self.query_id if self.official_id is None else self.official_id


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What an annotation file holds.

    Attributes:
        format: a name of FORMATS, such as "activitynet"; "webdataset" of tars; "in memory" where there is no file.
        queries: the usable captions, in the file's order.
        video_ids: every video that the file names, in the order of first mention; spelled as in the file, usable
            (see `ids.id_problem`) or not.
        problems: what was left out and why, with its place in the file.
    """

    format: str
    queries: list[Query]
    video_ids: list[str]
    problems: list[str]


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """Length of one video, as a video-info file gives it: enough to plan a job without the video."""

    video_id: str
    frame_count: int
    avg_fps: float
    duration_s: float


def load_annotations(path: str | os.PathLike[str]) -> Annotations:
    """Reads ActivityNet, TVR or QVHighlights JSON, Charades-STA or MS-SL text, told apart by content; or tars.

    The file is UTF-8 (a byte order mark and any line ends will do), as it is or gzipped. WebDataset tars, or folders
    of them: see `tar_captions`.

    Raises:
        GridClipError: the file cannot be read, is malformed, of no known format, or holds no usable caption.
    """
    source = pathlib.Path(path)
    if tar_captions.is_packed(source):
        name, entries = "webdataset", tar_captions.read(source)
    else:
        file = TextFile.read(source)
        name = recognise(file)
        entries = FORMATS[name].read(file)
    collected = _Collected()
    for found in entries:
        collected.take(found)
    if not collected.queries:
        first = f"; first problem: {collected.problems[0]}" if collected.problems else ""
        raise GridClipError(f"{source} holds no usable caption{first}")
    return Annotations(name, collected.queries, list(collected.videos), collected.problems)


def of_captions(captions: Mapping[str, str | Sequence[str]]) -> Annotations:
    """The same from the sentences of each video by its id, for callers that have them in memory.

    Raises:
        GridClipError: there is no usable caption.
    """
    collected = _Collected()
    for video, sentences in captions.items():
        collected.take(Named(video))
        for number, sentence in enumerate([sentences] if isinstance(sentences, str) else sentences):
            collected.take(Caption(f"video {video}, sentence {number}", video, sentence, None))
    if not collected.queries:
        first = f"; first problem: {collected.problems[0]}" if collected.problems else ""
        raise GridClipError(f"there is no usable caption{first}")
    return Annotations("in memory", collected.queries, list(collected.videos), collected.problems)


def load_video_info(path: str | os.PathLike[str]) -> list[VideoInfo]:
    """Reads a JSON list of {video_name, video_frames, video_fps, video_duration}; ids are those of `ids.of_files`.

    Raises:
        GridClipError: the file cannot be read, is malformed, or an entry lacks a value.
    """
    file = TextFile.read(pathlib.Path(path))
    entries = file.json
    if not isinstance(entries, list):
        raise GridClipError(f"{file.path} holds a JSON {json_kind(entries)}, expected a list of videos")
    infos = []
    for number, entry in enumerate(entries):
        try:
            infos.append(
                VideoInfo(
                    video_id=str(pathlib.PurePosixPath(entry["video_name"])),
                    frame_count=int(entry["video_frames"]),
                    avg_fps=float(entry["video_fps"]),
                    duration_s=float(entry["video_duration"]),
                )
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise GridClipError(
                f"{file.path}: entry {number} needs video_name, video_frames, video_fps and "
                f"video_duration: {type(error).__name__} {error}"
            ) from error
    named = ids.of_files(info.video_id for info in infos)
    return [dataclasses.replace(info, video_id=named[info.video_id]) for info in infos]


class _Collected:
    """Queries, videos and problems while a file is read."""

    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.videos: dict[str, None] = {}
        self.problems: list[str] = []

    def take(self, found: Named | Caption | Problem) -> None:
        """Takes what a format's reader has found."""
        match found:
            case Named(video):
                self.videos[video] = None
            case Caption():
                self._add(found)
            case Problem(place, what):
                self._note(place, what)

    def _add(self, caption: Caption) -> None:
        """Takes one caption, or records why not; times that are no [start, end] cost the times only."""
        place, video, text, times = caption.place, caption.video, caption.text, caption.times
        if not isinstance(video, str) or not video.strip():
            self._note(place, f"the video's name is {video!r}, expected text; caption left out")
            return
        self.videos[video] = None
        if not isinstance(text, str) or not text.strip():
            self._note(place, f"the caption is {text!r}, expected text; caption left out")
            return
        unusable = ids.id_problem(video) or ids.text_problem(text)
        if unusable:
            self._note(place, f"{unusable}; caption left out")
            return
        spans: list[tuple[float, float]] = []
        if times is not None:
            try:
                spans = _spans(times)
            except (TypeError, ValueError, OverflowError):
                self._note(place, f"the times are {times!r}, expected [start, end]; caption kept without")
        number = caption.official_id
        official_id = number if isinstance(number, int | str) and not isinstance(number, bool) else None
        start_s, end_s = spans[0] if spans else (None, None)
        self.queries.append(Query(len(self.queries), video, text, start_s, end_s, tuple(spans[1:]), official_id))

    def _note(self, place: str, what: str) -> None:
        """Records what is wrong at a place of the file, as text that can be printed."""
        self.problems.append(ids.printable(f"{place}: {what}"))


def _spans(times: Any) -> list[tuple[float, float]]:
    """(start, end) from one such pair, or from a list of them, which may be empty."""
    if isinstance(times, list) and all(isinstance(each, list) for each in times):
        return [_span(each) for each in times]
    return [_span(times)]


def _span(times: Any) -> tuple[float, float]:
    start_s, end_s = (float(time) for time in times)
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        raise ValueError("not finite")
    return start_s, end_s
