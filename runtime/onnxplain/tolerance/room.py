"""How many images may be in flight, and how many gradients each may hold."""

MOST_FLIGHTS = 8
"""More images at once keep runs no fuller."""
ROOM = 2 * 10**9
"""Bytes for gradients that are held, where no bound on memory is given."""
SHARE = 0.5
"""Of a bound on memory, what is for gradients that are held; the rest is for the runs."""


def flights(limit: int, size: int, memory: int | None) -> tuple[int, int]:
    """How many images are in flight, and how many gradients of `size` bytes each may hold, up to `limit`.

    Both rest on nothing but these numbers, so that a map doesn't depend on how many images there are.
    """
    room = ROOM if memory is None else int(memory * SHARE)
    images = max(1, min(MOST_FLIGHTS, room // max(1, limit * size)))
    return images, limit if memory is None else min(limit, room // max(1, images * size))
