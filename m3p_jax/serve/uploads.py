"""Pictures that visitors bring: checked, decoded, turned into regions.

Nothing of them is kept, written to disk or served again.
"""

from collections.abc import Callable
import threading
from typing import Any

from input_pipeline import errors
from input_pipeline.vision import pictures
from m3p_jax import batch as batch_lib

MAX_BYTES = 12 * 2**20
# A phone's largest pictures; four bytes a pixel while they are decoded.
MAX_PIXELS = 64_000_000
# Pictures decoded at the same time.
_DECODERS = threading.BoundedSemaphore(2)

_ADVICE = {
    'svg': 'SVG drawings are not taken here: save it as PNG first.',
    'too large': f'The picture has over {MAX_PIXELS // 10**6} million pixels: '
                 'make it smaller first.',
    'too small': f'The picture is smaller than {pictures.MIN_SIDE} pixels.',
    'empty file': 'The file is empty.',
    'unreadable': 'This is no picture in PNG, JPEG, WebP, GIF, BMP, TIFF or '
                  'AVIF, or it is damaged.'}


class Refused(errors.UserError):
  """A file that is not taken.

  Attributes:
    status: of HTTP.
  """

  def __init__(self, message: str, status: int):
    super().__init__(message)
    self.status = status


def regions(content: bytes, read: Callable[[Any], batch_lib.Regions]
            ) -> batch_lib.Regions:
  """Returns a picture's regions.

  Args:
    content: of the file.
    read: makes regions of a Pillow image.

  Raises:
    Refused: no picture that can be used.
  """
  with _DECODERS:
    try:
      picture = pictures.read(content, max_pixels=MAX_PIXELS)
    except pictures.PictureError as error:
      raise Refused(
          _ADVICE.get(error.reason,
                      f'The picture cannot be used: {error.reason}.'),
          413 if error.reason == 'too large' else 415) from error
    return read(picture.image)


def too_many_bytes() -> Refused:
  """Returns what a visitor is told of a file that is too long."""
  return Refused(
      f'The file is larger than {MAX_BYTES // 2**20} MB: make it smaller '
      'first.', 413)
