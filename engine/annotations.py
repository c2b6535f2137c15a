"""Annotation and video-info files in; queries (video, text, times) and video lengths out."""

from __future__ import annotations

import collections.abc
import dataclasses
import gzip
import json
import math
import os
import pathlib
import re
import zlib
from typing import Any

from .. import GridClipError
from ..dali_pipes import ids
from ..dali_pipes.ordinary_file import refuse_special_file

# `3MSZA 24.3 30.4##a person turns a light on.`
CHARADES_LINE = re.compile(r"(?P<video>\S+)\s+(?P<start>\S+)\s+(?P<end>\S+?)\s*##(?P<text>.*)")
# `v_uqiMw7tQ1Cc#enc#0 A weight lifting tutorial is given.`
MS_SL_LINE = re.compile(r"(?P<video>\S+?)#[^#\s]*#\d+(?:\s(?P<text>.*)|$)")


@dataclasses.dataclass(frozen=True)
class Query:
    """One caption of an annotation file.

    Attributes:
        query_id: position among the usable captions of its file, from 0.
        video_id: the video that the caption describes, spelled as in the file.
        text: the caption, as in the file.
        start_s: start of the described moment in seconds, None where the file gives none.
        end_s: end of the described moment in seconds, None where the file gives none.
    """

    query_id: int
    video_id: str
    text: str
    start_s: float | None = None
    end_s: float | None = None


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What an annotation file holds.

    Attributes:
        format: "activitynet", "tvr", "charades-sta" or "ms-sl".
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
    """Reads ActivityNet Captions JSON, TVR JSON lines, Charades-STA or MS-SL text, told apart by content.

    The file is UTF-8 (a byte order mark and any line ends will do), as it is or gzipped.

    Raises:
        GridClipError: the file cannot be read, is malformed, of no known format, or holds no usable caption.
    """
    file = pathlib.Path(path)
    text = _read_text(file)
    if text.lstrip()[:1] in ("{", "["):
        collected = _from_json(file, text)
    else:
        collected = _from_lines(file, text)
    if not collected.queries:
        first = f"; first problem: {collected.problems[0]}" if collected.problems else ""
        raise GridClipError(f"{file} holds no usable caption{first}")
    return Annotations(collected.format, collected.queries, list(collected.videos), collected.problems)


def of_captions(captions: collections.abc.Mapping[str, str | collections.abc.Sequence[str]]) -> Annotations:
    """The same from the sentences of each video by its id, for callers that have them in memory.

    Raises:
        GridClipError: there is no usable caption.
    """
    sentences = {video: [each] if isinstance(each, str) else list(each) for video, each in captions.items()}
    collected = _activitynet({video: {"sentences": each} for video, each in sentences.items()})
    if not collected.queries:
        first = f"; first problem: {collected.problems[0]}" if collected.problems else ""
        raise GridClipError(f"there is no usable caption{first}")
    return Annotations(collected.format, collected.queries, list(collected.videos), collected.problems)


def load_video_info(path: str | os.PathLike[str]) -> list[VideoInfo]:
    """Reads a JSON list of {video_name, video_frames, video_fps, video_duration}; ids are those of `ids.of_files`.

    Raises:
        GridClipError: the file cannot be read, is malformed, or an entry lacks a value.
    """
    file = pathlib.Path(path)
    entries = _parse(file, _read_text(file))
    if not isinstance(entries, list):
        raise GridClipError(f"{file} holds a JSON {_kind(entries)}, expected a list of videos")
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
                f"{file}: entry {number} needs video_name, video_frames, video_fps and "
                f"video_duration: {type(error).__name__} {error}"
            ) from error
    named = ids.of_files(info.video_id for info in infos)
    return [dataclasses.replace(info, video_id=named[info.video_id]) for info in infos]


class _Collected:
    """Queries, videos and problems while a file is read."""

    def __init__(self, format: str) -> None:
        self.format = format
        self.queries: list[Query] = []
        self.videos: dict[str, None] = {}
        self.problems: list[str] = []

    def add(self, place: str, video: object, text: object, times: object) -> None:
        """Takes one caption, or records why not; times that are no [start, end] cost the times only."""
        if not isinstance(video, str) or not video.strip():
            self.problem(place, f"the video's name is {video!r}, expected text; caption left out")
            return
        self.videos[video] = None
        if not isinstance(text, str) or not text.strip():
            self.problem(place, f"the caption is {text!r}, expected text; caption left out")
            return
        unusable = ids.id_problem(video) or ids.text_problem(text)
        if unusable:
            self.problem(place, f"{unusable}; caption left out")
            return
        start_s, end_s = None, None
        if times is not None:
            try:
                start_s, end_s = _span(times)
            except (TypeError, ValueError, OverflowError):
                self.problem(place, f"the times are {times!r}, expected [start, end]; caption kept without")
        self.queries.append(Query(len(self.queries), video, text, start_s, end_s))

    def problem(self, place: str, what: str) -> None:
        """Records what is wrong at a place of the file, as text that can be printed."""
        self.problems.append(ids.printable(f"{place}: {what}"))


def _span(times: Any) -> tuple[float, float]:
    start_s, end_s = (float(time) for time in times)
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        raise ValueError("not finite")
    return start_s, end_s


def _from_json(file: pathlib.Path, text: str) -> _Collected:
    first_line = text.strip().split("\n", 1)[0]
    if _is_tvr(first_line):
        return _tvr(file, text)
    content = _parse(file, text)
    if isinstance(content, dict) and any(
        isinstance(entry, dict) and "sentences" in entry for entry in content.values()
    ):
        return _activitynet(content)
    raise GridClipError(
        f"{file} is JSON but no known annotation file: expected ActivityNet Captions "
        '({"video": {"sentences": [...]}}) or TVR lines ({"vid_name": ..., "desc": ...})'
    )


def _is_tvr(line: str) -> bool:
    try:
        entry = json.loads(line)
    except (RecursionError, ValueError):
        # The very first line may be the broken one.
        return line.startswith("{") and '"vid_name"' in line and '"desc"' in line
    return isinstance(entry, dict) and ("vid_name" in entry or "desc" in entry)


def _activitynet(content: dict[str, Any]) -> _Collected:
    found = _Collected("activitynet")
    for video, entry in content.items():
        found.videos[video] = None
        sentences = entry.get("sentences") if isinstance(entry, dict) else None
        if not isinstance(sentences, list):
            found.problem(f"video {video}", "it has no list of sentences; video left out")
            continue
        times = entry.get("timestamps")
        if times is not None and (not isinstance(times, list) or len(times) != len(sentences)):
            count = len(times) if isinstance(times, list) else "no list of"
            found.problem(
                f"video {video}", f"{count} timestamps for {len(sentences)} sentences; captions kept without times"
            )
            times = None
        for number, sentence in enumerate(sentences):
            found.add(f"video {video}, sentence {number}", video, sentence, times[number] if times else None)
    return found


def _tvr(file: pathlib.Path, text: str) -> _Collected:
    found = _Collected("tvr")
    for number, line in _lines(text):
        try:
            entry = json.loads(line)
        except (RecursionError, ValueError) as error:
            raise GridClipError(f"{file}, line {number}: malformed JSON: {error}") from error
        if isinstance(entry, dict):
            found.add(f"line {number}", entry.get("vid_name"), entry.get("desc"), entry.get("ts"))
        else:
            found.problem(f"line {number}", f"a JSON {_kind(entry)}, expected an object; caption left out")
    return found


def _from_lines(file: pathlib.Path, text: str) -> _Collected:
    lines = list(_lines(text))
    formats = {"ms-sl": MS_SL_LINE, "charades-sta": CHARADES_LINE}
    counts = {name: sum(bool(pattern.fullmatch(line)) for _, line in lines) for name, pattern in formats.items()}
    name = max(counts, key=counts.__getitem__)
    if not counts[name]:
        shown = repr(lines[0][1][:60]) if lines else "nothing"
        raise GridClipError(
            f"{file} is no known annotation file: expected ActivityNet Captions JSON, TVR JSON lines, "
            f"Charades-STA ('video start end##text') or MS-SL ('video#enc#0 text'); it holds {shown}"
        )
    found = _Collected(name)
    for number, line in lines:
        match = formats[name].fullmatch(line)
        if match is None:
            found.problem(f"line {number}", f"{line[:60]!r} is no {name} line; caption left out")
            continue
        parts = match.groupdict()
        times = (parts["start"], parts["end"]) if "start" in parts else None
        found.add(f"line {number}", parts["video"], parts["text"] or "", times)
    return found


def _lines(text: str) -> collections.abc.Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1; only line feeds end a line, as in an editor."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def _read_text(file: pathlib.Path) -> str:
    try:
        refuse_special_file(file)
        content = file.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise GridClipError(f"{file}, line {line}: not UTF-8 text ({error.reason})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise GridClipError(f"cannot read {file}: {error}") from error


def _parse(file: pathlib.Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise GridClipError(
            f"{file}, line {error.lineno}: malformed JSON: {error.msg} (column {error.colno})"
        ) from error
    except (RecursionError, ValueError) as error:
        raise GridClipError(f"{file}: malformed JSON: {error}") from error


def _kind(value: object) -> str:
    return {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")
