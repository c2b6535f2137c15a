"""Hits in, lines for people or one JSON line for programs out."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import pathlib
import types
from typing import Any

from ..moments.best import Moment
from .files import Files
from .search import Hit

TO_THE_MOMENT = 6  # characters before a video's id


@dataclasses.dataclass(frozen=True)
class Style:
    """How parts of a line are set off.

    Args:
        strong, faint: a text in, the same with what a terminal needs around it out.
        link: a text and the file that a click opens in, as above.
    """

    strong: collections.abc.Callable[[str], str]
    faint: collections.abc.Callable[[str], str]
    link: collections.abc.Callable[[str, pathlib.Path], str]


PLAIN = Style(str, str, lambda text, path: text)
TERMINAL = Style(
    lambda text: f"\x1b[1m{text}\x1b[0m",
    lambda text: f"\x1b[2m{text}\x1b[0m",
    # OSC 8; terminals that do not have it show the text alone.
    lambda text, path: f"\x1b]8;;{path.absolute().as_uri()}\x1b\\{text}\x1b]8;;\x1b\\",
)


def as_lines(
    hits: collections.abc.Sequence[Hit],
    style: Style,
    files: Files,
    matches: collections.abc.Mapping[str, float] = types.MappingProxyType({}),
) -> list[str]:
    """A line for each hit with its best moment, and one for each further moment.

    Args:
        hits: best first.
        style: for a terminal, or plain.
        files: what a click on an id or a moment opens.
        matches: by id, how probably a super image matches; empty where the model does not say.
    """
    width = max((len(printable(hit.video_id)) for hit in hits), default=0)
    lines = []
    for rank, hit in enumerate(hits, start=1):
        name = printable(hit.video_id)
        padding = " " * (width - len(name))
        shown = style.strong(name)
        place = files.videos.get(hit.video_id)
        if isinstance(place, pathlib.Path):  # nothing opens a part of a tar, and a URL may hold a key
            shown = style.link(shown, place)
        moments = [_moment(hit.video_id, moment, style, files) for moment in hit.moments] or ["time unknown"]
        match = f"  match {matches[hit.video_id]:.0%}" if hit.video_id in matches else ""
        lines.append(f"{style.faint(f'{rank:4}')}  {shown}{padding}  {hit.score:.4f}  {moments[0]}{match}")
        for further, moment in zip(moments[1:], hit.moments[1:], strict=True):
            lines.append(f"{' ' * (TO_THE_MOMENT + width)}  {style.faint(f'{moment.score:.4f}')}  {further}")
    return lines


def as_json(
    hits: collections.abc.Sequence[Hit],
    question: collections.abc.Mapping[str, Any],
    files: Files,
    matches: collections.abc.Mapping[str, float] = types.MappingProxyType({}),
) -> str:
    """One line: what was asked, and `results` as `/api/search` has them, with `clip` where one was written.

    `match_probability` is there for the ids in `matches`, see `as_lines`.
    """
    results = [
        {
            "video_id": hit.video_id,
            "score": hit.score,
            "moments": [
                dataclasses.asdict(moment)
                | ({"clip": str(files.clips[key])} if (key := (hit.video_id, moment)) in files.clips else {})
                for moment in hit.moments
            ],
            **({"match_probability": matches[hit.video_id]} if hit.video_id in matches else {}),
        }
        for hit in hits
    ]
    return json.dumps({**question, "results": results})


def printable(video_id: str) -> str:
    """An id as it can be shown: what a terminal would act on is written out."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in video_id
    )


def _moment(video_id: str, moment: Moment, style: Style, files: Files) -> str:
    text = f"{moment.start_s:.1f} to {moment.end_s:.1f} s"
    clip = files.clips.get((video_id, moment))
    return text if clip is None else style.link(text, clip)
