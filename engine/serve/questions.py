"""A request's query string in, one checked question out; what is out of bounds becomes a sentence for its sender."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Iterable
from typing import Protocol

from ...dali_pipes import ids
from .. import choices
from .bounds import LONGEST_CLIP_S, LONGEST_ID_BYTES, LONGEST_TEXT, MOST_MOMENTS, MOST_RESULTS, MOST_SENTENCES
from .refusal import BAD_REQUEST, Refusal

MOMENTS = 3  # of a video, where nobody says how many
FILTERS = ("folder", "shortest", "longest", "since", "until")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Parameters(Protocol):
    """What Starlette makes of a query string."""

    def get(self, key: str, /) -> str | None: ...
    def getlist(self, key: str, /) -> list[str]: ...
    def keys(self) -> Iterable[str]: ...


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which videos may answer.

    Attributes:
        folder: the id begins with it and a slash; empty: any.
        shortest_s, longest_s: of the video by its times in the store; None: any.
        since, until: the first and the last date, see `Library.date`; None: any.
    """

    folder: str = ""
    shortest_s: float | None = None
    longest_s: float | None = None
    since: datetime.date | None = None
    until: datetime.date | None = None

    def __bool__(self) -> bool:
        return self != Filter()

    def lets_through(self, video_id: str) -> bool:
        """Whether the folder fits."""
        return not self.folder or video_id.startswith(f"{self.folder}/")

    @property
    def by_date(self) -> bool:
        """Whether the date matters."""
        return self.since is not None or self.until is not None

    def fits_date(self, date: datetime.date | None) -> bool:
        """Whether the date fits; one that is unknown fits no bound."""
        if date is None:
            return not self.by_date
        return (self.since or datetime.date.min) <= date <= (self.until or datetime.date.max)

    @property
    def by_length(self) -> bool:
        """Whether the length matters."""
        return self.shortest_s is not None or self.longest_s is not None

    def fits_length(self, duration_s: float | None) -> bool:
        """Whether the length fits; one that is unknown fits no bound."""
        if duration_s is None:
            return self.shortest_s is None and self.longest_s is None
        return (self.shortest_s or 0.0) <= duration_s <= (math.inf if self.longest_s is None else self.longest_s)


@dataclasses.dataclass(frozen=True)
class Question:
    """What to search for: sentences, or a moment to find more of; neither where a picture is posted with it.

    Attributes:
        sentences: the first, and what is to follow it in time.
        unwanted: what is not to be seen.
        like: a video's id and the second of the moment in it.
        top: how many videos.
        moments: how many of each.
        only: which videos may answer.
    """

    sentences: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    like: tuple[str, float] | None = None
    top: int = choices.TOP
    moments: int = MOMENTS
    only: Filter = dataclasses.field(default_factory=Filter)


def read_question(given: Parameters, *, with_picture: bool = False) -> Question:
    """The question of a query string; raises Refusal.

    Args:
        given: q (a sentence), then (more of them, in time order), not (what is not to be seen), like and at (a video's
            id and a second), top, moments, folder, shortest, longest (seconds), since, until (dates).
        with_picture: the request's body asks; q, then and like are not read.
    """
    _only_known(given, {"q", "then", "not", "like", "at", "top", "moments", *FILTERS})
    bounded = Question(
        top=_whole(given, "top", choices.TOP, MOST_RESULTS),
        moments=_whole(given, "moments", MOMENTS, MOST_MOMENTS),
        only=Filter(
            folder=_text(given.get("folder") or "", "folder", LONGEST_ID_BYTES).strip("/"),
            shortest_s=_seconds(given, "shortest"),
            longest_s=_seconds(given, "longest"),
            since=_date(given, "since"),
            until=_date(given, "until"),
        ),
    )
    since, until = bounded.only.since, bounded.only.until
    if since is not None and until is not None and since > until:
        raise Refusal(BAD_REQUEST, f"since is {since}, until is {until}, expected since on or before until")
    if with_picture:
        return bounded
    unwanted = _sentences(given.getlist("not"), "not")
    bounded = dataclasses.replace(bounded, unwanted=unwanted)
    like = given.get("like")
    if like is not None:
        return dataclasses.replace(bounded, like=(read_id(like, "like"), _seconds(given, "at") or 0.0))
    sentences = _sentences([given.get("q") or "", *given.getlist("then")], "q")
    return dataclasses.replace(bounded, sentences=sentences)


@dataclasses.dataclass(frozen=True)
class Span:
    """Seconds of a video that are to become a clip."""

    start_s: float
    end_s: float


def read_span(given: Parameters) -> Span:
    """Start and end of a clip in seconds; raises Refusal."""
    start_s, end_s = _seconds(given, "start"), _seconds(given, "end")
    if start_s is None or end_s is None or not start_s < end_s:
        raise Refusal(BAD_REQUEST, "expected start and end in seconds, start before end: ?start=10&end=18")
    if end_s - start_s > LONGEST_CLIP_S:
        raise Refusal(
            BAD_REQUEST, f"the clip would be {end_s - start_s:g} s long, at most {LONGEST_CLIP_S:g} s are made"
        )
    return Span(start_s, end_s)


def read_second(given: Parameters, name: str) -> float:
    """A moment in seconds, 0 where none is given; raises Refusal."""
    return _seconds(given, name) or 0.0


def read_count(given: Parameters, name: str, default: int, most: int) -> int:
    """A whole number from 1; raises Refusal."""
    return _whole(given, name, default, most)


def read_id(text: str, name: str = "video_id") -> str:
    """A text that can be a video's id; raises Refusal."""
    return _text(text, name, LONGEST_ID_BYTES)


def _sentences(texts: list[str], name: str) -> tuple[str, ...]:
    sentences = tuple(_text(each, name, LONGEST_TEXT) for each in texts)
    if not all(sentence.strip() for sentence in sentences):
        raise Refusal(BAD_REQUEST, f"{name} is empty: say what to search for, /api/search?q=a+dog")
    if len(sentences) > MOST_SENTENCES:
        raise Refusal(BAD_REQUEST, f"{len(sentences)} sentences, expected at most {MOST_SENTENCES}")
    return sentences


def _text(text: str, name: str, longest: int) -> str:
    if len(text) > longest:
        raise Refusal(BAD_REQUEST, f"{name} has {len(text)} characters, expected at most {longest}")
    if "\0" in text or ids.text_problem(text):
        raise Refusal(BAD_REQUEST, f"{name} is not Unicode text, or holds a NUL character")
    return text


def _whole(given: Parameters, name: str, default: int, most: int) -> int:
    text = given.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
        raise Refusal(BAD_REQUEST, f"{name} is {text[:40]!r}, expected a whole number from 1 to {most}")
    return int(text)


def _seconds(given: Parameters, name: str) -> float | None:
    text = given.get(name)
    if text is None or not text:
        return None
    try:
        seconds = float(text[:40])
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e7:
        raise Refusal(BAD_REQUEST, f"{name} is {text[:40]!r}, expected seconds, 0 or more")
    return seconds


def _date(given: Parameters, name: str) -> datetime.date | None:
    text = given.get(name)
    if not text:
        return None
    try:
        # Python reads other forms, too, each version others.
        return datetime.date.fromisoformat(text if _DATE.fullmatch(text) else "")
    except ValueError:
        raise Refusal(BAD_REQUEST, f"{name} is {text[:40]!r}, expected a date such as 2026-01-31") from None


def _only_known(given: Parameters, known: set[str]) -> None:
    unknown = sorted(set(given.keys()) - known)
    if unknown:
        raise Refusal(
            BAD_REQUEST, f"unknown parameter {unknown[0][:40]!r}, expected some of {', '.join(sorted(known))}"
        )
