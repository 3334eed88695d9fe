"""Small pictures for the report: one sheet for each shard and method, which a page shows a part of."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.errors import OutputError
from onnxplain.heatmap import at_size, colours, overlay

SIDE = 96
"""Height and width of a thumbnail; the picture keeps its shape within, on grey."""
COLUMNS = 20
GREY = 128
QUALITY = 85


def thumbnail(seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture [H, W, 3] as uint8 [SIDE, SIDE, 3]."""
    import cv2  # heavy, and needed only where pictures are drawn

    height, width = _fitting(seen.shape[0], seen.shape[1])
    shrinks = height < seen.shape[0] or width < seen.shape[1]
    small = cv2.resize(seen, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)
    return _on_grey(small.astype(np.uint8, copy=False))


def map_thumbnail(sizes: NDArray[Any], picture: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A map, |a| summed over channels [h, w], over the thumbnail of its picture, which was of this height and width."""
    import cv2  # heavy, and needed only where pictures are drawn

    height, width = _fitting(*shape)
    exact = sizes.astype(np.float32)
    if height < sizes.shape[0] and width < sizes.shape[1]:
        small = cv2.resize(exact, (width, height), interpolation=cv2.INTER_AREA)
    else:
        small = at_size(exact, height, width)
    low, high = float(small.min()), float(np.percentile(small, 99))
    heat = np.clip((small - low) / (high - low), 0, 1) if high > low else np.zeros_like(small)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    drawn = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    part = picture[top : top + height, left : left + width]
    drawn[top : top + height, left : left + width] = overlay(part, heat.astype(np.float32))
    return drawn


def plain_thumbnail(sizes: NDArray[Any]) -> NDArray[np.uint8]:
    """A map whose picture isn't known, in the colours alone."""
    high = float(np.percentile(sizes, 99))
    heat = np.clip(sizes / high, 0, 1).astype(np.float32) if high > 0 else np.zeros(sizes.shape, np.float32)
    return thumbnail(colours(heat))


def sheet(thumbnails: NDArray[np.uint8]) -> bytes:
    """Thumbnails [n, SIDE, SIDE, 3] as one JPEG file, COLUMNS of them in a row, in their order."""
    import cv2  # heavy, and needed only where pictures are drawn

    rows = -(-len(thumbnails) // COLUMNS)
    columns = min(COLUMNS, len(thumbnails))
    whole = np.full((rows * columns, SIDE, SIDE, 3), GREY, np.uint8)
    whole[: len(thumbnails)] = thumbnails
    tiles = whole.reshape(rows, columns, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
    pixels = tiles.reshape(rows * SIDE, columns * SIDE, 3)
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise OutputError("OpenCV could not encode a sheet of thumbnails")
    return data.tobytes()


def _fitting(height: int, width: int) -> tuple[int, int]:
    longest = max(height, width)
    return max(1, round(SIDE * height / longest)), max(1, round(SIDE * width / longest))


def _on_grey(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = small.shape[:2]
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    drawn = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    drawn[top : top + height, left : left + width] = small
    return drawn
