"""The gridclip command as in command.py, whose sources kill a cluster's worker at one video; the store is not tidied.

The video is POISON of the environment; each video takes PAUSE_S seconds longer.
"""

from __future__ import annotations

import functools
import os

import fake_sources
from gridclip.cli import main
from gridclip.engine.jobs import embed_videos, ledger
from gridclip.engine.store.store import Store

PAUSE_S = 0.1

if __name__ == "__main__":
    ledger.APPEND_VIDEOS = 2
    Store.compact = lambda self: None  # it would drop the second copy of a video that is stored twice
    made = functools.partial(fake_sources.make_poisonous, poison=os.environ["POISON"], pause_s=PAUSE_S)
    embed_videos.video_source = embed_videos.cpu_video_source = made
    main()
