"""Nothing in, what a request may ask for and what the server may hold out: every bound of the page's server, once."""

from __future__ import annotations

import dataclasses

LONGEST_TEXT = 500  # characters of a sentence
MOST_SENTENCES = 5  # of one question, in time order
MOST_RESULTS = 100
MOST_MOMENTS = 10  # of a video
MOST_PICTURES = 24  # in a strip
LONGEST_CLIP_S = 60.0
LONGEST_ID_BYTES = 4096  # the longest path of most systems
CURVE_POINTS = 400  # a curve has no more, however long the video is: a screen is not wider


@dataclasses.dataclass(frozen=True)
class Bounds:
    """What a server may take on.

    Attributes:
        picture_bytes: of a posted picture.
        body_s: seconds in which a request's body has to come.
        answer_s: seconds after which a search is given up.
        make_s: seconds after which a picture or a clip is given up, its decoder counted as hung.
        searching: threads of searches; those that come together are answered together, see together.py.
        waiting_searches: searches that may wait for these, before more are refused.
        making: worker processes that decode pictures and clips.
        waiting_orders: pictures and clips that may wait for these.
        listeners: pages that follow a growing store at once.
        connections: to the server at once.
        pictures_held_bytes, clips_held_bytes: finished ones that are kept in memory.
        looked_at: best videos among which a filter looks for those that it lets through.
    """

    picture_bytes: int = 8 << 20
    body_s: float = 15.0
    answer_s: float = 30.0
    make_s: float = 60.0
    searching: int = 64
    waiting_searches: int = 128
    making: int = 2
    waiting_orders: int = 256
    listeners: int = 64
    connections: int = 512
    pictures_held_bytes: int = 64 << 20
    clips_held_bytes: int = 256 << 20
    looked_at: int = 2000
