"""What the random uses of operators are made of: shapes, axes, notes."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

Shape = tuple[int, ...]


def sides(smallest: int = 1, largest: int = 4) -> st.SearchStrategy[int]:
    """The length of an axis."""
    return st.integers(smallest, largest)


@st.composite
def shapes(draw: st.DrawFn, least: int = 1, most: int = 4, smallest: int = 1, largest: int = 4) -> Shape:
    """A shape of `least` to `most` axes."""
    return tuple(draw(st.lists(sides(smallest, largest), min_size=least, max_size=most)))


@st.composite
def axis_of(draw: st.DrawFn, rank: int) -> int:
    """One axis, counted from either end."""
    return draw(st.integers(-rank, rank - 1))


@st.composite
def axes_of(draw: st.DrawFn, rank: int, least: int = 1) -> list[int]:
    """Some different axes in any order, each counted from either end."""
    chosen = draw(st.permutations(range(rank)))[: draw(st.integers(least, rank))]
    return [axis - rank if draw(st.booleans()) else axis for axis in chosen]


def per_axis(count: int, smallest: int, largest: int) -> st.SearchStrategy[list[int]]:
    """One number for each of `count` axes."""
    return st.lists(st.integers(smallest, largest), min_size=count, max_size=count)


def integers(draw: st.DrawFn, content: Any) -> np.ndarray:
    """The content in one of the two types that indices may have."""
    return np.array(content, draw(st.sampled_from([np.int64, np.int32])))


@st.composite
def index_array(draw: st.DrawFn, shape: Shape, size: int) -> np.ndarray:
    """Indices into an axis of `size`, repeated and negative ones among them."""
    count = int(np.prod(shape))
    content = draw(st.lists(st.integers(-size, size - 1), min_size=count, max_size=count))
    return np.array(content, np.int64).reshape(shape)


def away_from_zero(shape: Shape, seed: int) -> np.ndarray:
    """Values of both signs, no two of the same size, none within 0.3 of 0."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    sizes = 0.3 + 1.7 * (rng.permutation(count) + rng.uniform(0.3, 0.7)) / max(count, 1)
    return (sizes * rng.choice([-1.0, 1.0], count)).reshape(shape)


def note(**content: Any) -> str:
    """What tells one use from another, for messages and for the values that fill it."""
    return " ".join(f"{name}={value}".replace(" ", "") for name, value in content.items())
