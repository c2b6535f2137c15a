"""Packets of codecs without prediction between pictures in, facts for pruning out: each stands alone."""

from __future__ import annotations

import numpy as np

from .facts import CLOSED, DISPOSABLE


class IntraReader:
    """Codecs whose every packet is a picture coded on its own."""

    reordering_declared = True
    may_hold_fields = False

    def __init__(self, headers: bytes) -> None:
        pass

    def read(self, packet: memoryview, keyframe: bool) -> int:
        return CLOSED | DISPOSABLE

    def finish(self, facts: np.ndarray) -> None:
        pass
