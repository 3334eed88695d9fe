"""The masks of the exported graphs, computed in numpy: windows, the random cells of RISE, the states of segments.

For tests, for methods of one's own, and for peers that are to be fed the very same masks.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from onnxplain.random import uniform

Array = NDArray[np.float32]

MOST_CELLS = 32
"""The side of the grid that a graph has uniforms for; a step uses its first rows and columns."""


def window_masks(steps: ArrayLike, height: int, width: int) -> Array:
    """Masks [K, H, W], 1 inside the window of each step (top, left, bottom, right)."""
    top, left, bottom, right = (side[:, None, None] for side in np.asarray(steps, np.float32).T)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    inside = (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)
    return inside.astype(np.float32)


def random_masks(seed: int, steps: ArrayLike, height: int, width: int) -> Array:
    """The masks of RISE [K, H, W], 1 where the image is kept, for steps as the plan rule "random_masks" makes them.

    A grid of cells × cells, each 1 with `probability` (then those that `turned_over` names are turned over), is
    stretched bilinearly (a cell is scale_row × scale_column pixels; half-pixel centres, edges repeated), and the image
    is cut from it at a random shift below shifts_row and shifts_column. The uniforms of draw k are
    `random.uniform(seed, [k], (MOST_CELLS² + 2,))`: the grid's, row by row, then one for each shift.

    Petsiuk, Das, Saenko: RISE (2018, arXiv:1806.07421).
    """
    table = np.asarray(steps, np.float32)
    noise = uniform(seed, table[:, 0], (MOST_CELLS**2 + 2,))
    kept = (noise[:, : MOST_CELLS**2] < table[:, 1, None]) ^ turned_over(table[:, 7], table[:, 8])
    grid = kept.astype(np.float32).reshape(-1, MOST_CELLS, MOST_CELLS)
    rows, columns = (
        _tents(np.floor(noise[:, MOST_CELLS**2 + axis] * table[:, 5 + axis]), table[:, 3 + axis], table[:, 2], length)
        for axis, length in enumerate((height, width))
    )
    masks: Array = (rows @ grid @ columns.transpose(0, 2, 1)).astype(np.float32, copy=False)
    return masks


def turned_over(row: Array, flip: Array) -> NDArray[np.bool_]:
    """Which cells [K, MOST_CELLS²] of masks with numbers `row` [K] in a block, and their complements, are turned over.

    Those for which row and the cell's place have an odd number of bits in common, and where `flip` is 1 the others. So
    the masks of a block are the rows of a Hadamard matrix and their negatives: every two cells are kept together as
    often as apart, and each as often as not.
    """
    bits = np.floor(row[:, None] / 2.0 ** np.arange(PLACE_BITS.shape[0])) % 2
    return np.asarray((bits @ PLACE_BITS + flip[:, None]) % 2 == 1)


def block_rows(cells: int) -> int:
    """The rows of the Hadamard matrix in which every cell of a grid of cells × cells has a column of its own."""
    return 4 ** int(cells - 1).bit_length()


def _place_bits() -> NDArray[np.float64]:
    """The bits of every cell's place [bits, MOST_CELLS²], those of its row and column in turn."""
    row, column = np.divmod(np.arange(MOST_CELLS**2), MOST_CELLS)
    pairs = [(side >> bit) & 1 for bit in range(MOST_CELLS.bit_length() - 1) for side in (column, row)]
    return np.stack(pairs).astype(np.float64)


PLACE_BITS = _place_bits()


def _tents(shift: Array, scale: Array, cells: Array, length: int) -> Array:
    """The weight of every cell for every pixel, [K, length, MOST_CELLS]."""
    place = (np.arange(length, dtype=np.float32) + np.float32(0.5) + shift[:, None]) / scale[:, None] - np.float32(0.5)
    inside = np.clip(place, 0, cells[:, None] - 1)
    return np.maximum(1 - np.abs(inside[:, :, None] - np.arange(MOST_CELLS, dtype=np.float32)), 0)


def painted_masks(states: ArrayLike, segments: NDArray[np.int64]) -> Array:
    """Masks [K, H, W] of states [K, S]: every pixel of `segments` [H, W] has its segment's state."""
    return np.asarray(states, np.float32)[:, segments]
