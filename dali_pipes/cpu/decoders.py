"""A name that a user types in, the decoder on the CPU and those that take over from it out: the one table of them."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Iterator

import numpy as np

from ..sampling import Decode
from . import decoding

# The name of a decoder in DECODERS, or AUTO.
Decoder = str
AUTO: Decoder = "auto"
# A video file in memory and the ascending positions int64 [W] of wanted frames in it, counted in presentation order,
# to these frames, each uint8 [336, 446, 3], RGB. Raises VideoError where it cannot open or decode the file.
DecodeFile = Callable[[bytes, np.ndarray], Iterator[np.ndarray]]


@dataclasses.dataclass(frozen=True)
class CpuDecoder:
    """A decoder of wanted frames, which runs in worker processes and may crash or hang there.

    Attributes:
        title: its name in messages and notices.
        module: what it imports; where that is not installed, `auto` and the others do without it.
        decode_file: how it decodes a pruned segment, remuxed in memory. None: it takes packets (PyAV), and steps in for
            all the others where a segment cannot be remuxed, the positions are not certain, or they fail.
        takes_fast: whether it can leave steps of decoding out, see Sampling.decode.
    """

    title: str
    module: str
    decode_file: DecodeFile | None
    takes_fast: bool = False

    def is_installed(self) -> bool:
        """Whether its module is there; it is not imported: it may crash, and then does so in a worker."""
        return importlib.util.find_spec(self.module) is not None


# In this order for AUTO: the next one takes over where one hangs or crashes.
DECODERS: dict[Decoder, CpuDecoder] = {
    "pyav": CpuDecoder("PyAV", "av", None, takes_fast=True),
    "decord": CpuDecoder("decord", "decord", decoding.decode_with_decord),
}
_FIRST = "pyav"


def takes_files(decoder: Decoder) -> bool:
    """Whether the decoder opens files in memory; AUTO and PyAV take packets."""
    return decoder in DECODERS and DECODERS[decoder].decode_file is not None


def in_turn(decoder: Decoder, decode: Decode = "exact") -> list[Decoder]:
    """The installed decoders to try, the first choice first: all of them for AUTO, PyAV behind a named one.

    Those that cannot do `fast` are no choice there: a video must not be of another kind than the rest of its store.

    Raises:
        ValueError: there is no such decoder, or it cannot do what is asked of it.
    """
    if decoder != AUTO and decoder not in DECODERS:
        raise ValueError(f"decoder ({decoder!r}) must be one of {', '.join([AUTO, *DECODERS])}")
    if decode == "fast" and decoder != AUTO and not DECODERS[decoder].takes_fast:
        raise ValueError(f"decoder ({decoder!r}) decodes exactly, expected one that can do decode='fast': pyav")
    names = DECODERS if decoder == AUTO else dict.fromkeys([decoder, _FIRST])
    able = [name for name in names if decode == "exact" or DECODERS[name].takes_fast]
    return [name for name in able if DECODERS[name].is_installed()]
