"""dali_pipes/layout.py: the super images of several grid sizes and strides, against a loop over frames."""

from __future__ import annotations

import numpy as np
import pytest
from gridclip.dali_pipes.layout import Layout
from gridclip.dali_pipes.sampling import Sampling, super_image_count
from hypothesis import given
from hypothesis import strategies as st

SIZES = st.sets(st.integers(1, 4), min_size=1, max_size=3).map(lambda sizes: tuple(sorted(sizes)))


def starts(frames: int, cells: int, stride: int) -> list[int]:
    """First frames of super images: another one begins only while the last frame is in none."""
    found = [0]
    while found[-1] + cells < frames:
        found.append(found[-1] + stride)
    return found


@given(frames=st.integers(1, 60), grid_size=st.integers(1, 4), data=st.data())
def test_counts_are_those_of_a_loop(frames: int, grid_size: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, grid_size**2))
    assert super_image_count(frames, grid_size, stride) == len(starts(frames, grid_size**2, stride))
    assert super_image_count(frames, grid_size) == len(range(0, frames, grid_size**2))
    assert super_image_count(0, grid_size, stride) == 0


@given(frames=st.integers(1, 60), sizes=SIZES, data=st.data())
def test_blocks_give_every_super_image_once_in_order(frames: int, sizes: tuple[int, ...], data: st.DataObject) -> None:
    stride = data.draw(st.none() | st.integers(1, sizes[-1] ** 2))
    sampling = Sampling(grid_size=sizes, stride=stride)
    bounds_s = np.cumsum(np.arange(frames + 1.0))
    layout = Layout(bounds_s, sampling)
    blocks = data.draw(st.integers(1, 3)) * sampling.block
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    rows = 0
    for begin in range(0, frames, blocks):
        parts = layout.parts(begin, min(begin + blocks, frames))
        assert layout.before(begin) == rows
        if parts:
            assert layout.frame_of(rows) == begin
            spans = zip(*(times.tolist() for times in layout.spans_s(parts)), strict=True)
            for part in parts:
                assert part.first == len(found[part.grid_size])
                found[part.grid_size] += [next(spans) for _ in range(part.count)]
                rows += part.count
            assert next(spans, None) is None
    assert rows == layout.total == sum(layout.count(size) for size in sizes)
    for size in sizes:
        step = min(stride or size**2, size**2)
        firsts = starts(frames, size**2, step)
        assert found[size] == [(bounds_s[first], bounds_s[min(first + size**2, frames)]) for first in firsts]


def test_settings_of_several_grids() -> None:
    sampling = Sampling(grid_size=(3, 1, 3))
    assert sampling.grid_size == sampling.grid_sizes == (1, 3) and sampling.block == 9 and sampling.overlap == 0
    assert Sampling(grid_size=(2,)) == Sampling() and Sampling().grid_sizes == (2,)
    assert Sampling(stride=4) == Sampling() and Sampling(stride=3).stride_of(2) == 3
    assert Sampling(grid_size=(1, 3), stride=2).block == 2 and Sampling(grid_size=(1, 3), stride=2).overlap == 7


@pytest.mark.parametrize(
    "settings",
    [{"grid_size": ()}, {"grid_size": (0, 2)}, {"grid_size": (2, 400)}, {"stride": 0}, {"stride": 5}],
)
def test_settings_out_of_range(settings: dict) -> None:
    with pytest.raises(ValueError, match="grid_size|stride"):
        Sampling(**settings)


def test_behind_the_last_super_image_there_is_the_end() -> None:
    layout = Layout(np.arange(6.0), Sampling(grid_size=2))
    assert layout.frame_of(2) == 5 or layout.before(layout.frame_of(2)) == 2
    assert layout.frame_of(999) >= layout.frames
