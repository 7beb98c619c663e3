"""Pictures that visitors bring: checked, decoded, turned into regions.

Nothing of them is written to disk or served again; only the regions are kept,
for a while, under a name that cannot be guessed.
"""

from collections import OrderedDict
from collections.abc import Callable
import secrets
import threading
from typing import Any

from input_pipeline import errors
from input_pipeline.vision import pictures
from m3p_jax import batch as batch_lib

MAX_BYTES = 12 * 2**20
# A phone's largest pictures; four bytes a pixel while they are decoded.
MAX_PIXELS = 64_000_000
# Visitors' pictures that are remembered, 26 kB each.
_KEPT = 500
# Pictures decoded at the same time.
_AT_ONCE = 2

TYPES = 'PNG, JPEG, WebP, GIF, BMP, TIFF or AVIF'
_ADVICE = {
    'svg': 'SVG drawings are not taken here: save it as PNG first.',
    'too large': f'The picture has over {MAX_PIXELS // 10**6} million pixels: '
                 'make it smaller first.',
    'too small': f'The picture is smaller than {pictures.MIN_SIDE} pixels.',
    'empty file': 'The file is empty.',
    'unreadable': f'This is no picture in {TYPES}, or it is damaged.'}


class Refused(errors.UserError):
  """A file that is not taken.

  Attributes:
    status: of HTTP.
  """

  def __init__(self, message: str, status: int):
    super().__init__(message)
    self.status = status


class Uploads:
  """The regions of visitors' pictures; usable by several threads."""

  def __init__(self, read: Callable[[Any], batch_lib.Regions]):
    """Args: `read` makes regions of a Pillow image."""
    self._read = read
    self._kept: OrderedDict[str, batch_lib.Regions] = OrderedDict()
    self._lock = threading.Lock()
    self._decoders = threading.BoundedSemaphore(_AT_ONCE)

  def add(self, content: bytes) -> str:
    """Returns the name of a picture.

    Args:
      content: of the file.

    Raises:
      Refused: it is too large, or no picture that can be used.
    """
    if len(content) > MAX_BYTES:
      raise too_many_bytes()
    with self._decoders:
      try:
        picture = pictures.read(content, max_pixels=MAX_PIXELS)
      except pictures.PictureError as error:
        raise Refused(
            _ADVICE.get(error.reason,
                        f'The picture cannot be used: {error.reason}.'),
            413 if error.reason == 'too large' else 415) from error
      regions = self._read(picture.image)
    name = secrets.token_urlsafe(16)
    with self._lock:
      self._kept[name] = regions
      while len(self._kept) > _KEPT:
        self._kept.popitem(last=False)
    return name

  def get(self, name: str) -> batch_lib.Regions:
    """Returns a picture's regions.

    Raises:
      Refused: it is not here any more.
    """
    with self._lock:
      if name in self._kept:
        return self._kept[name]
    raise Refused('The picture is not remembered any more: drop it again.', 404)


def too_many_bytes() -> Refused:
  """Returns what a visitor is told of a file that is too long."""
  return Refused(
      f'The file is larger than {MAX_BYTES // 2**20} MB: make it smaller '
      'first.', 413)
