"""Annotation and video-info files in; queries (video, text, times) and video lengths out."""

from __future__ import annotations

import dataclasses


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
