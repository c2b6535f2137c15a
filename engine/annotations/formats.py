"""A text file in, the captions that it holds out, unchecked: a table of the annotation formats.

To add one, write a function that recognises it and one that reads it (or a pattern, where it has one caption a line),
and put a line into FORMATS; see docs/recipes/annotation-format.md.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Iterator

from ... import GridClipError
from .text_file import TextFile, json_kind


@dataclasses.dataclass(frozen=True)
class Named:
    """A video that the file names, whether it has captions or not."""

    video: str


@dataclasses.dataclass(frozen=True)
class Caption:
    """One caption as the file has it; whoever reads checks it.

    Attributes:
        place: where in the file, for messages: "line 3".
        video, text: should be text.
        times: should be [start, end] in seconds, or a list of several such; None where the file gives none.
        official_id: the number that the file itself gives it; should be a whole number or text, None where it has none.
    """

    place: str
    video: object
    text: object
    times: object
    official_id: object = None


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is wrong at a place of the file, and what became of it."""

    place: str
    what: str


@dataclasses.dataclass(frozen=True)
class Format:
    """One kind of annotation file.

    Attributes:
        shape: its name and how it looks, for messages.
        recognise: how many parts of a file look like this format, 0 for none. A file is of the format that recognises
            most of it; of equal ones, of the first in FORMATS.
        read: what the file holds, in its order; raises GridClipError where it is malformed.
    """

    shape: str
    recognise: Callable[[TextFile], int]
    read: Callable[[TextFile], Iterator[Named | Caption | Problem]]


def recognise(file: TextFile) -> str:
    """The name of the file's format.

    Raises:
        GridClipError: it is of none.
    """
    votes = {name: each.recognise(file) for name, each in FORMATS.items()}
    name = max(votes, key=votes.__getitem__)
    if votes[name]:
        return name
    *shapes, last = (each.shape for each in FORMATS.values())
    expected = f"expected {', '.join(shapes)} or {last}"
    if file.looks_like_json:
        _ = file.json  # malformed JSON is the likelier cause
        raise GridClipError(f"{file.path} is JSON but no known annotation file: {expected}")
    shown = next((repr(line[:60]) for _, line in file.lines()), "nothing")
    raise GridClipError(f"{file.path} is no known annotation file: {expected}; it holds {shown}")


def _recognise_lines(keys: tuple[str, str], file: TextFile) -> int:
    """1 where the first line is a JSON object with one of the keys, or, where broken, looks like one with both."""
    line = file.text.strip().split("\n", 1)[0]
    if not file.looks_like_json:
        return 0
    try:
        entry = json.loads(line)
    except (RecursionError, ValueError):
        # The very first line may be the broken one.
        return int(line.startswith("{") and all(f'"{key}"' in line for key in keys))
    return int(isinstance(entry, dict) and any(key in entry for key in keys))


def _read_json_lines(
    video: str, text: str, times: str, official_id: str, file: TextFile
) -> Iterator[Caption | Problem]:
    """A JSON object a line; the arguments are the names of its entries."""
    for number, line in file.lines():
        place = f"line {number}"
        try:
            entry = json.loads(line)
        except (RecursionError, ValueError) as error:
            raise GridClipError(f"{file.path}, {place}: malformed JSON: {error}") from error
        if isinstance(entry, dict):
            yield Caption(place, entry.get(video), entry.get(text), entry.get(times), entry.get(official_id))
        else:
            yield Problem(place, f"a JSON {json_kind(entry)}, expected an object; caption left out")


def _is_activitynet(file: TextFile) -> int:
    try:
        content = file.json if file.looks_like_json else None
    except GridClipError:
        return 0
    return int(
        isinstance(content, dict)
        and any(isinstance(entry, dict) and "sentences" in entry for entry in content.values())
    )


def _read_activitynet(file: TextFile) -> Iterator[Named | Caption | Problem]:
    for video, entry in file.json.items():
        yield Named(video)
        sentences = entry.get("sentences") if isinstance(entry, dict) else None
        if not isinstance(sentences, list):
            yield Problem(f"video {video}", "it has no list of sentences; video left out")
            continue
        times = entry.get("timestamps")
        if times is not None and (not isinstance(times, list) or len(times) != len(sentences)):
            count = len(times) if isinstance(times, list) else "no list of"
            what = f"{count} timestamps for {len(sentences)} sentences; captions kept without times"
            yield Problem(f"video {video}", what)
            times = None
        for number, sentence in enumerate(sentences):
            yield Caption(f"video {video}, sentence {number}", video, sentence, times[number] if times else None)


def _line_format(name: str, shape: str, pattern: str) -> Format:
    """A format of one caption a line; the pattern has groups video and text, and perhaps start and end."""
    compiled = re.compile(pattern)
    return Format(shape, functools.partial(_count_lines, compiled), functools.partial(_read_lines, name, compiled))


def _count_lines(pattern: re.Pattern[str], file: TextFile) -> int:
    return 0 if file.looks_like_json else sum(bool(pattern.fullmatch(line)) for _, line in file.lines())


def _read_lines(name: str, pattern: re.Pattern[str], file: TextFile) -> Iterator[Caption | Problem]:
    for number, line in file.lines():
        match = pattern.fullmatch(line)
        if match is None:
            yield Problem(f"line {number}", f"{line[:60]!r} is no {name} line; caption left out")
            continue
        parts = match.groupdict()
        times = (parts["start"], parts["end"]) if "start" in parts else None
        yield Caption(f"line {number}", parts["video"], parts["text"] or "", times)


FORMATS = {
    "tvr": Format(
        'TVR JSON lines ({"vid_name": ..., "desc": ...})',
        functools.partial(_recognise_lines, ("vid_name", "desc")),
        functools.partial(_read_json_lines, "vid_name", "desc", "ts", "desc_id"),
    ),
    "qvhighlights": Format(
        'QVHighlights JSON lines ({"qid": ..., "query": ..., "vid": ...})',
        functools.partial(_recognise_lines, ("vid", "query")),
        functools.partial(_read_json_lines, "vid", "query", "relevant_windows", "qid"),
    ),
    "activitynet": Format(
        'ActivityNet Captions JSON ({"video": {"sentences": [...]}})', _is_activitynet, _read_activitynet
    ),
    # `v_uqiMw7tQ1Cc#enc#0 A weight lifting tutorial is given.`
    "ms-sl": _line_format("ms-sl", "MS-SL ('video#enc#0 text')", r"(?P<video>\S+?)#[^#\s]*#\d+(?:\s(?P<text>.*)|$)"),
    # `3MSZA 24.3 30.4##a person turns a light on.`
    "charades-sta": _line_format(
        "charades-sta",
        "Charades-STA ('video start end##text')",
        r"(?P<video>\S+)\s+(?P<start>\S+)\s+(?P<end>\S+?)\s*##(?P<text>.*)",
    ),
}
