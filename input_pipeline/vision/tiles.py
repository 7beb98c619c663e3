"""Cuts a picture into the white square that an image network takes.

Letters: S, the tile's side.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from input_pipeline.vision import pictures

_CONTENT_MARGIN = 0.05


class Tile(NamedTuple):
  """A picture as a network takes it: a square, with white at two sides.

  Attributes:
    pixels_SS3: uint8 [S, S, 3], RGB.
    square: xyxy of the tile in pixels of the original; it may reach outside.
    height: of the original, in pixels.
    width: of the original, in pixels.
  """

  pixels_SS3: np.ndarray
  square: pictures.Box
  height: int
  width: int


def cut_tile(
    picture: pictures.Picture, size: int, *, crop_to_content: bool
) -> Tile:
  """Returns the picture on a white square, its aspect ratio kept.

  Args:
    picture: of `pictures.read`.
    size: the tile's side in pixels.
    crop_to_content: leave out the empty border first, but for a margin of 5 %
      of the content's longer side.
  """
  x1, y1, x2, y2 = 0.0, 0.0, float(picture.width), float(picture.height)
  if crop_to_content:
    left, top, right, bottom = picture.content
    margin = _CONTENT_MARGIN * max(right - left, bottom - top)
    x1, y1 = max(x1, left - margin), max(y1, top - margin)
    x2, y2 = min(x2, right + margin), min(y2, bottom + margin)
  side = max(x2 - x1, y2 - y1)
  wide = max(1, round((x2 - x1) / side * size))
  high = max(1, round((y2 - y1) / side * size))
  x = picture.image.width / picture.width
  y = picture.image.height / picture.height
  resized = picture.image.resize(
      (wide, high),
      Image.Resampling.BICUBIC,
      box=(x1 * x, y1 * y, x2 * x, y2 * y),
      reducing_gap=2.0,
  )
  left, top = (size - wide) // 2, (size - high) // 2
  tile = Image.new('RGB', (size, size), 'white')
  tile.paste(resized, (left, top))
  scale = side / size
  square = (
      x1 - left * scale,
      y1 - top * scale,
      x1 - left * scale + side,
      y1 - top * scale + side,
  )
  return Tile(np.asarray(tile), square, picture.height, picture.width)
