"""dali_pipes/grid.py: where frames land in super images, and how they are resized."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from gridclip.dali_pipes import grid


def bicubic_weights(source: int, target: int) -> np.ndarray:
    """float64 [target, source]: antialiased cubic convolution (a = -0.5), from the formula."""
    scale = source / target
    width = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    x = np.abs((np.arange(source) + 0.5 - centres[:, None]) / width)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(1, keepdims=True)


def test_resize_is_antialiased_bicubic():
    # Values far enough from 0 and 255 that the cubic's overshoot is not clipped between the two passes.
    image = np.random.default_rng(0).integers(80, 176, (336, 446, 3), dtype=np.uint8)
    rows, columns = bicubic_weights(336, 168), bicubic_weights(446, 168)
    expected = np.einsum("yh,hwc,xw->yxc", rows, image.astype(float), columns, optimize=True)
    assert np.abs(grid.resize(image, 168) - expected).max() <= 1.5  # Pillow rounds after each of the two passes


@hypothesis.settings(max_examples=60)
@hypothesis.given(st.integers(0, 23), st.integers(1, 5), st.integers(5, 40))
def test_every_pixel_has_its_place(frame_count, grid_size, super_img_size):
    frames = np.zeros((frame_count, 12, 17, 3), np.uint8)
    frames[:] = np.arange(1, frame_count + 1, dtype=np.uint8)[:, None, None, None]
    super_images = grid.assemble(frames, grid_size, super_img_size)
    cell = super_img_size // grid_size
    count = -(-frame_count // grid_size**2)
    assert super_images.shape == (count, super_img_size, super_img_size, 3) and super_images.dtype == np.uint8
    for image, y, x in np.ndindex(count, super_img_size, super_img_size):
        row, column = y // cell, x // cell
        frame = image * grid_size**2 + row * grid_size + column
        inside = row < grid_size and column < grid_size and frame < frame_count
        assert (super_images[image, y, x] == (frame + 1 if inside else 0)).all()


def test_a_frame_of_the_cell_size_is_not_touched():
    frames = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    assert np.array_equal(grid.assemble(frames, 2, 16)[0, 8:, :8], frames[2])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"float32 \[3, 3, 3\]"):
        grid.assemble(np.zeros((2, 3, 3, 3), np.float32), 2, 8)
    with pytest.raises(ValueError, match=r"grid_size \(9\)"):
        grid.assemble(np.zeros((2, 3, 3, 3), np.uint8), 9, 8)
