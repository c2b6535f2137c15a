"""VP8 packets in, facts for pruning out."""

from __future__ import annotations

import numpy as np

from .facts import CLOSED, NOT_SHOWN


class Vp8Reader:
    """VP8 (RFC 6386, 9.1). Which buffers a frame refreshes is arithmetic-coded, so no frame is called disposable."""

    reordering_declared = True
    may_hold_fields = False

    def __init__(self, headers: bytes) -> None:
        pass

    def read(self, packet: memoryview, keyframe: bool) -> int:
        tag = packet[0]
        return (0 if tag & 1 else CLOSED) | (0 if tag & 0x10 else NOT_SHOWN)

    def finish(self, facts: np.ndarray) -> None:
        pass
