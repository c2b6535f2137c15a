"""The gridclip command with appends of a few videos, so that a short job commits many times.

With --num-gpus 2 its devices are two processes on the CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from gridclip.cli import main
from gridclip.engine import features
from gridclip.engine.encoding import providers
from gridclip.engine.jobs import devices, ledger

APPEND_VIDEOS = 2


def _on_cpu(embed: Any, *arguments: Any, device_ids: Sequence[int], **options: Any) -> Any:
    return embed(*arguments, device_ids=[None] * len(device_ids), **options)


if __name__ == "__main__":
    ledger.APPEND_VIDEOS = features.VIDEOS_PER_APPEND = APPEND_VIDEOS
    ledger.APPEND_PAUSE_S = 0.0
    providers.check_gpus = lambda provider, num_gpus: None
    devices.embed = functools.partial(_on_cpu, devices.embed)
    main()
