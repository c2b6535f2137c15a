"""Packets of which nothing is known in, the reason for it out: every one up to the last wanted frame is kept."""

from __future__ import annotations

import numpy as np


class OpaqueReader:
    """Stands in where there is no reader for a codec, or where the reader cannot read the stream's headers."""

    reordering_declared = False

    def __init__(self, reason: int, *, may_hold_fields: bool) -> None:
        self._reason = reason
        self.may_hold_fields = may_hold_fields

    def read(self, packet: memoryview, keyframe: bool) -> int:
        return self._reason

    def finish(self, facts: np.ndarray) -> None:
        pass
